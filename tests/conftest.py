"""What every test gets: one thread per process, and nothing of the user's settings. And what test_remix*.py share."""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from handaug.data_specs.reader import HandDataset

# Two pytest workers on two cores: more threads only fight. Must be set before torch and OpenCV are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _no_user_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HANDAUG_WORKSPACE", raising=False)


@pytest.fixture(autouse=True)
def _ctrl_c_reaches_children() -> None:
    # A shell starts background jobs with SIGINT ignored, and a child inherits that unless its parent handles it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of test_remix*.py, trained once for all of them."""
    from remix_home import make_home

    return make_home(tmp_path_factory.mktemp("remix"))


@pytest.fixture(scope="session")
def minted(home: Path) -> "HandDataset":
    """`N` rows minted in `home`, with their report and picture; read only."""
    from remix_home import remix_config

    from handaug.augment.remix import remix
    from handaug.data_specs.reader import HandDataset

    remix(remix_config(home), home / "minted.h5")
    return HandDataset(home / "minted.h5")


@pytest.fixture
def no_picture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than minting: only the file of `minted` gets its picture."""
    import handaug.augment.remix_report as report_module

    if "minted" not in request.fixturenames:
        monkeypatch.setattr(report_module._Picture, "save", lambda *args: None)

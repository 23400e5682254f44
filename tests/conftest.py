"""What every test gets: one thread per process, and nothing of the user's settings. And what
test_dvae_*.py, test_import_*.py and test_remix*.py share.
"""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from handaug.data_specs.reader import HandDataset

# Two pytest workers on two cores: more threads only fight. Must be set before torch and OpenCV are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# OpenCV asks for this once in a process, at its first OpenEXR file, which a test may be the one to write.
os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")


@pytest.fixture(autouse=True)
def _no_user_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HANDAUG_WORKSPACE", raising=False)


@pytest.fixture(autouse=True)
def _ctrl_c_reaches_children() -> None:
    # A shell starts background jobs with SIGINT ignored, and a child inherits that unless its parent handles it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """The folder of a small dataset in the COCO format, for test_import_*.py to spoil."""
    from layouts.flat import write_coco

    write_coco(tmp_path / "coco", images=3)
    return tmp_path / "coco"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy hands of test_dvae_*.py; read only. Other modules draw their own."""
    from tiny_dvae import SIZE
    from toy import write_toy

    return write_toy(tmp_path_factory.mktemp("toy") / "toy.h5", 24, size=SIZE)


@pytest.fixture(scope="session")
def dvae_runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of every method of the dVAE; read only."""
    from tiny_dvae import train_all

    return train_all(data, tmp_path_factory.mktemp("dvae"))


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

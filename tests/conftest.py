"""What every test gets: one thread per process, and nothing of the user's settings."""

import os
import signal

import pytest

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

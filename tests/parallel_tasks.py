"""What processes of their own run in tests: importable by name, as pickled functions must be."""

import errno
import os
import signal
from pathlib import Path

import torch

from handaug.data_specs.errors import InputError
from handaug.data_specs.progress import Progress


def train(folder: Path, name: str, progress: Progress) -> None:
    with progress.task(name, 5, "steps") as advance:
        for _ in range(5):
            advance(1)
    progress.note(f"{name} done")
    (folder / name).write_text(f"{torch.get_num_threads()}")


def fail(folder: Path, name: str, progress: Progress) -> None:
    raise InputError(f"{name}: wrong; give another")


def die(folder: Path, name: str, progress: Progress) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stumble(folder: Path, name: str, progress: Progress) -> None:
    """Meet what nobody foresaw."""
    raise OSError(errno.EIO, "Input/output error", str(folder / name))


def fill_disk(folder: Path, name: str, progress: Progress) -> None:
    """Write what does not fit."""
    raise OSError(errno.ENOSPC, "No space left on device", str(folder / name))

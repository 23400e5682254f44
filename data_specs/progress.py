"""How long work reports itself, without knowing who shows it.

Library code takes a `Progress`; the CLI passes one that draws bars with rate and ETA, everything else uses `SILENT`.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["SILENT", "Advance", "Progress"]

Advance = Callable[[int], None]


class Progress(Protocol):
    """Shows what is done."""

    def task(self, label: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """Open a bar of `total` units; the block calls the yielded function with the number of units just finished."""

    def note(self, text: str) -> None:
        """Tell the user one line."""


class _Silent:
    @contextmanager
    def task(self, label: str, total: int, unit: str) -> Iterator[Advance]:
        yield lambda n: None

    def note(self, text: str) -> None:
        pass


SILENT: Progress = _Silent()

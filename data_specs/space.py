"""Whether a dataset that is about to be made fits on its disk."""

import shutil
from contextlib import suppress
from pathlib import Path

from handaug.data_specs.errors import InputError
from handaug.data_specs.writer import partial_path

__all__ = ["require_space"]

_LABEL_BYTES = 1400
"""Labels, ids and chunk tables of a row; images hardly get smaller in a file, masks and the like by far."""


def require_space(out: Path, rows: int, size: tuple[int, int], channels: int, flag: str, *, more: int = 0) -> None:
    """Refuse work whose result the disk cannot hold.

    Shards and the merged file stand side by side at the end, so every row is counted twice; what lies in the work
    folder already is part of that, or makes room.

    Args:
        out: The dataset; its folder need not exist yet.
        rows: To be written.
        size: Image height and width.
        channels: Of the images.
        flag: The option that asks for so many rows, with its value.
        more: Bytes that come on top.

    Raises:
        InputError: It needs more than is free.
    """
    place = next(folder for folder in out.absolute().parents if folder.exists())
    row = size[0] * size[1] * (channels + 0.2) + _LABEL_BYTES
    need, free = int(2 * rows * row) + more - _bytes_in(partial_path(out)), shutil.disk_usage(place).free
    if need > free:
        raise InputError(
            f"{flag}: needs about {need / 1e6:,.0f} MB in {out.parent}, {free / 1e6:,.0f} MB are free; lower it or "
            "choose another disk"
        )


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):  # of a process at work there, of which `PartialOutput.open` tells
            total += path.stat().st_size
    return total

"""Whether a dataset that is about to be made fits on its disk."""

import shutil
from pathlib import Path

from handaug.data_specs.errors import InputError

__all__ = ["require_space"]

_LABEL_BYTES = 1400
"""Labels, ids and chunk tables of a row; images hardly get smaller in a file, masks and the like by far."""


def require_space(out: Path, rows: int, size: tuple[int, int], channels: int, flag: str, *, more: int = 0) -> None:
    """Refuse work whose result the disk cannot hold.

    Shards and the merged file stand side by side at the end, so every row is counted twice.

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
    need, free = int(2 * rows * row) + more, shutil.disk_usage(place).free
    if need > free:
        raise InputError(
            f"{flag}: needs about {need / 1e6:,.0f} MB in {out.parent}, {free / 1e6:,.0f} MB are free; lower it or "
            "choose another disk"
        )

"""Every field of every row, as files: `png` in folders, `webdataset` in tar shards.

A row's image is a PNG; its mask and other whole-number pixels are PNGs too, its depth and other fractional pixels
`.npy` arrays; everything else is one JSON object with the names, units and numbers of the schema, null for NaN.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.exporters.base import (
    Converted,
    Exporter,
    Part,
    Row,
    encode_image,
    json_numbers,
    register_exporter,
)
from handaug.data_specs.schema import FIELDS

__all__ = ["PngExporter", "WebDatasetExporter"]


class _RowFiles(Exporter):
    """What both have in common."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Everything the file has."""
        return self.dataset.available

    def finish(self, folder: Path, parts: dict[str, list[Part]]) -> dict[str, Any]:
        """Tell what the names mean."""
        return {"fields": {name: FIELDS[name].meaning for name in self.fields}}

    def _pixels(self, row: Row) -> list[tuple[str, str, bytes]]:
        """(field, suffix, content) of each picture besides the image."""
        out = []
        for name in self.fields:
            if FIELDS[name].pixels and name != "images":
                whole = FIELDS[name].dtype == "uint8"
                out.append((name, ".png" if whole else ".npy", encode_image(row[name]) if whole else _npy(row[name])))
        return out

    def _labels(self, row: Row) -> bytes:
        """All other fields, and the number of the row, as JSON."""
        items = {"row": np.asarray(row["row"]), **{n: row[n] for n in self.fields if not FIELDS[n].pixels}}
        return ("{" + ",\n".join(f'"{name}":{json_numbers(value)}' for name, value in items.items()) + "}\n").encode()


@register_exporter("png")
class PngExporter(_RowFiles):
    """`{split}/images/000000012.png`, `{split}/labels/000000012.json`, `{split}/mask/000000012.png`, ..."""

    may_be_jpeg = False

    def convert(self, split: str, place: int, rows: Sequence[Row]) -> Converted:
        """The files of one row, named after it."""
        (row,) = rows
        name = f"{int(row['row']):09d}"
        files = [("images", ".png", self.encode(row["images"])), ("labels", ".json", self._labels(row))]
        return Converted([(f"{split}/{kind}/{name}{suffix}", data) for kind, suffix, data in files + self._pixels(row)])


@register_exporter("webdataset")
class WebDatasetExporter(_RowFiles):
    """`{split}-000000.tar` with `000000012.png`, `000000012.json`, `000000012.mask.png`, ... of each row in turn."""

    shard_rows = 5000

    def convert(self, split: str, place: int, rows: Sequence[Row]) -> Converted:
        """The files of one row, which share the name up to the first dot."""
        (row,) = rows
        name = f"{int(row['row']):09d}"
        pixels = [(f"{name}.{kind}{suffix}", data) for kind, suffix, data in self._pixels(row)]
        image = (f"{name}{self.image_suffix()}", self.encode(row["images"]))
        return Converted([image, (f"{name}.json", self._labels(row)), *pixels])

    def finish(self, folder: Path, parts: dict[str, list[Part]]) -> dict[str, Any]:
        """Name the shards the way webdataset spells a range."""
        last = {split: len(mine) - 1 for split, mine in parts.items()}
        shards = {split: f"{split}-{{000000..{number:06d}}}.tar" for split, number in last.items()}
        return {**super().finish(folder, parts), "shards": shards}


def _npy(values: NDArray[Any]) -> bytes:
    buffer = BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()

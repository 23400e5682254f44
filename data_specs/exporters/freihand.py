"""The layout of FreiHAND: `training/rgb/00000000.jpg`, `training_K.json`, `training_xyz.json`, `training_scale.json`.

train becomes `training`, test `evaluation`, val `validation` (a folder that FreiHAND's own loaders pass over). Every
label has one image, where FreiHAND has four. All hands of FreiHAND are right hands, so left ones are mirrored;
`training_rows.json` tells which, and from where. MANO parameters and vertices are not written: the file has none.

The name of an image ends in .jpg, which FreiHAND's loaders ask for, and holds PNG unless a quality is asked for:
OpenCV, Pillow and imageio look at the content.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.draw import as_rgb
from handaug.data_specs.errors import InputError
from handaug.data_specs.exporters.base import (
    Converted,
    ExportConfig,
    Exporter,
    Part,
    Row,
    encode_image,
    join_parts,
    json_numbers,
    register_exporter,
)
from handaug.data_specs.flip import flip_rows
from handaug.data_specs.joints import JOINTS
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import LEFT, MASK_HAND

__all__ = ["FreiHandExporter"]

_FOLDERS = {"train": "training", "val": "validation", "test": "evaluation"}
_STREAMS = ("K", "xyz", "scale", "rows")
_SCALE_BONE = (JOINTS.index("middle_mcp"), JOINTS.index("middle_pip"))
_BLOCK = 65536


@register_exporter("freihand")
class FreiHandExporter(Exporter):
    """Hands with all 21 joints in 3D and a camera; others are left out."""

    needs = "all joints in 3D"

    def __init__(self, dataset: HandDataset, config: ExportConfig) -> None:
        super().__init__(dataset, config)
        lacking = [name for name in ("keypoints_3d", "camera") if not dataset.has(name)]
        if lacking:
            raise InputError(f"{dataset.path}: has no {', '.join(lacking)}, which freihand needs; export coco instead")

    @property
    def fields(self) -> tuple[str, ...]:
        """All that FreiHAND has a place for."""
        wanted = ("images", "keypoints_3d", "camera", "handedness", "mask")
        return tuple(name for name in wanted if self.dataset.has(name))

    def select(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows whose joints and camera are all known: FreiHAND has no way to say that one is missing."""
        fit: NDArray[np.bool_] = np.ones(len(rows), bool)
        for name in ("keypoints_3d", "camera"):
            for start in range(0, len(rows), _BLOCK):
                block = slice(start, start + _BLOCK)
                fit[block] &= np.isfinite(self.dataset.read(name, rows[block])).all((1, 2))
        chosen: NDArray[np.int64] = rows[fit]
        return chosen

    def convert(self, split: str, place: int, rows: Sequence[Row]) -> Converted:
        """One row, mirrored if it is a left hand; its number is its place."""
        (row,) = rows
        mirrored = bool(row["handedness"] == LEFT)
        number = int(row["row"])
        if mirrored:
            batch = {name: row[name][None] for name in self.fields}
            row = {name: values[0] for name, values in flip_rows(batch, self.width).items()}
        out = Converted()
        name = f"{place:08d}.jpg"
        out.files.append((f"{_FOLDERS[split]}/rgb/{name}", self.encode(as_rgb(row["images"]))))
        if "mask" in row:
            hand = np.where(row["mask"] == MASK_HAND, 255, 0).astype(np.uint8)
            out.files.append((f"{_FOLDERS[split]}/mask/{name}", encode_image(as_rgb(hand), self.config.quality)))
        scale = np.linalg.norm(np.subtract(*row["keypoints_3d"][list(_SCALE_BONE)].astype(np.float64)))
        out.lines = [
            ("K", json_numbers(row["camera"])),
            ("xyz", json_numbers(row["keypoints_3d"])),
            ("scale", f"{scale:.9g}"),
            ("rows", f'{{"row":{number},"mirrored":{"true" if mirrored else "false"}}}'),
        ]
        return out

    def finish(self, folder: Path, parts: dict[str, list[Part]]) -> dict[str, Any]:
        """A list for each kind of label and split."""
        for split, mine in parts.items():
            for stream in _STREAMS:
                path = folder / f"{_FOLDERS[split]}_{stream}.json"
                path.unlink(missing_ok=True)
                join_parts(path, mine, stream)
        return {}

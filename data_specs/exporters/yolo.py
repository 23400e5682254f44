"""YOLO pose, as Ultralytics reads it: `data.yaml`, `images/{split}/`, `labels/{split}/`.

Ultralytics mirrors x to W - x and scales coordinates by the factor of the image: both are right for positions measured
from the image's CORNER, so a joint in the very middle of pixel 3 is written as 3.5 / W.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.data_specs.exporters.base import Converted, Exporter, Part, Row, register_exporter
from handaug.data_specs.exporters.boxes import hand_box, same_pictures
from handaug.data_specs.joints import JOINTS, N_JOINTS
from handaug.data_specs.schema import NOT_LABELLED

__all__ = ["YoloPoseExporter"]


@register_exporter("yolo-pose")
class YoloPoseExporter(Exporter):
    """One class, hand, with 21 keypoints: Ultralytics' own flips do not toggle a class left or right."""

    by_frame = True
    needs = "a label"

    @property
    def fields(self) -> tuple[str, ...]:
        """All that a label needs."""
        wanted = ("images", "keypoints_2d", "visibility", "mask")
        return tuple(name for name in wanted if self.dataset.has(name))

    def select(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """None of a split without any label; which pictures of another are left out shows when they are read."""
        if self.dataset.has("mask") or (self.dataset.read("visibility", rows) != NOT_LABELLED).any():
            return rows
        return rows[:0]

    def convert(self, split: str, place: int, rows: Sequence[Row]) -> Converted:
        """An image and its text of one line a hand are named after the first row.

        A picture with a hand that has no label is left out whole: it would teach that there is no hand.
        """
        out = Converted(images=0)
        for picture in same_pictures(rows):
            lines = [self._line(row) for row in picture]
            if any(line is None for line in lines):
                out.left_out += len(picture)
                continue
            name = f"{int(picture[0]['row']):09d}"
            out.images += 1
            out.files.append((f"images/{split}/{name}{self.image_suffix()}", self.encode(picture[0]["images"])))
            out.files.append((f"labels/{split}/{name}.txt", "".join(f"{line}\n" for line in lines).encode()))
        return out

    def finish(self, folder: Path, parts: dict[str, list[Part]]) -> dict[str, Any]:
        """`data.yaml`; it names no folder, so that Ultralytics takes the one it lies in."""
        written = [split for split in parts if (folder / "images" / split).is_dir()]
        if not written:
            raise InputError(f"{self.dataset.path}: every picture has a hand without a label; choose another format")
        lines = [
            "# Hands, exported by handaug. A mirrored hand keeps its joints in place, so flip_idx is the identity.",
            *(f"{split}: images/{split}" for split in written),
            f"kpt_shape: [{N_JOINTS}, 3]",
            f"flip_idx: {json.dumps(list(range(N_JOINTS)))}",
            "names:",
            "  0: hand",
            "kpt_names:",
            f"  0: [{', '.join(JOINTS)}]",
        ]
        (folder / "data.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return {}

    def _line(self, row: Row) -> str | None:
        """Class, box centre and size, then x, y, visibility of each joint, as shares of the image; None without box."""
        box = hand_box(row, self.height, self.width)
        if box is None:
            return None
        x, y, width, height = box
        size = np.array([self.width, self.height], np.float64)
        labelled = (row["visibility"] != NOT_LABELLED)[:, None]
        shares = np.where(labelled, (row["keypoints_2d"].astype(np.float64) + 0.5) / size, 0)
        numbers = [
            (x + width / 2) / self.width,
            (y + height / 2) / self.height,
            width / self.width,
            height / self.height,
        ]
        joints = (f"{a:.9g} {b:.9g} {v}" for (a, b), v in zip(shares.tolist(), row["visibility"].tolist(), strict=True))
        return " ".join(["0", *(f"{number:.9g}" for number in numbers), *joints])

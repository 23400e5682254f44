"""COCO keypoints: `annotations/{split}.json` beside `images/{split}/`.

As COCO has it, a keypoint is measured from the centre of the top-left pixel, a box from the image's corner: a joint in
the very middle of pixel (3, 5) is the keypoint (3, 5), and the box round that pixel is [3, 5, 1, 1].
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from handaug.data_specs.exporters.base import (
    Converted,
    Exporter,
    Part,
    Row,
    join_parts,
    json_numbers,
    register_exporter,
)
from handaug.data_specs.exporters.boxes import hand_box, run_lengths, same_pictures
from handaug.data_specs.joints import BONES, JOINTS
from handaug.data_specs.schema import LEFT, MASK_HAND, NOT_LABELLED

__all__ = ["CocoExporter"]

_EXTRAS = ("keypoints_3d", "pose_id", "appearance_id")
"""Fields of ours that go along in each annotation; readers of COCO pass over what they do not know. An image has its
`K`, `split` and `group` besides. `handaug import coco` reads them back."""


@register_exporter("coco")
class CocoExporter(Exporter):
    """One category, hand, with 21 keypoints; several hands of one picture are annotations of one image."""

    by_frame = True

    @property
    def fields(self) -> tuple[str, ...]:
        """All that an annotation holds."""
        wanted = ("images", "keypoints_2d", "visibility", "handedness", "mask", "camera", "group", *_EXTRAS)
        return tuple(name for name in wanted if self.dataset.has(name))

    def convert(self, split: str, place: int, rows: Sequence[Row]) -> Converted:
        """An image is named and numbered after its first row, an annotation after its row."""
        pictures = same_pictures(rows)
        out = Converted(images=len(pictures))
        for picture in pictures:
            number = int(picture[0]["row"])
            name = f"{number:09d}{self.image_suffix()}"
            out.files.append((f"images/{split}/{name}", self.encode(picture[0]["images"])))
            out.lines.append(("images", self._image(picture[0], name, split)))
            for row in picture:
                text = self._annotation(row, number)
                if text is None:
                    out.left_out += 1
                else:
                    out.lines.append(("annotations", text))
        return out

    def finish(self, folder: Path, parts: dict[str, list[Part]]) -> dict[str, Any]:
        """One file of annotations for each split."""
        (folder / "annotations").mkdir(exist_ok=True)
        info = {"description": "hands, exported by handaug; keypoints_3d in metres, x right, y down, z forward"}
        category = {
            "id": 1,
            "name": "hand",
            "supercategory": "hand",
            "keypoints": JOINTS,
            "skeleton": [[parent + 1, child + 1] for parent, child in BONES],  # COCO counts from 1 here
        }
        head = f'{{"info": {json.dumps(info)},\n"licenses": [],\n"categories": [{json.dumps(category)}],\n'
        for split, mine in parts.items():
            path = folder / "annotations" / f"{split}.json"
            path.write_text(head, encoding="utf-8")
            join_parts(path, mine, "images", head='"images": [', tail="],\n")
            join_parts(path, mine, "annotations", head='"annotations": [', tail="]}\n")
        return {}

    def _image(self, row: Row, name: str, split: str) -> str:
        """JSON text of one image."""
        parts = {
            "id": str(int(row["row"])),
            "file_name": json.dumps(name),
            "width": str(self.width),
            "height": str(self.height),
            "split": json.dumps(split),
            "group": str(int(row["group"])),
            **({"K": json_numbers(row["camera"])} if "camera" in row else {}),
        }
        return _json_object(parts)

    def _annotation(self, row: Row, image: int) -> str | None:
        """JSON text of one hand; None where nothing of it is labelled."""
        box = hand_box(row, self.height, self.width)
        if box is None:
            return None
        labelled = row["visibility"] != NOT_LABELLED
        xy = np.where(labelled[:, None], row["keypoints_2d"], np.float32(0))
        triples = np.concatenate([xy, row["visibility"][:, None].astype(np.float32)], 1).reshape(-1)
        hand = row["mask"] == MASK_HAND if "mask" in row else None
        outline = [] if hand is None or not hand.any() else {"counts": run_lengths(hand), "size": list(hand.shape)}
        parts = {
            "id": str(int(row["row"]) + 1),  # COCOeval takes an annotation of id 0 for no annotation
            "image_id": str(image),
            "category_id": "1",
            "bbox": json_numbers(np.array(box, np.float32)),
            "area": f"{box[2] * box[3]:.9g}",
            "iscrowd": "0",
            "segmentation": json.dumps(outline, separators=(",", ":")),
            "num_keypoints": str(int(labelled.sum())),
            "keypoints": json_numbers(triples),
            "hand_type": '"left"' if row["handedness"] == LEFT else '"right"',
            **{name: json_numbers(row[name]) for name in _EXTRAS if name in row},
        }
        return _json_object(parts)


def _json_object(parts: dict[str, str]) -> str:
    """JSON text of an object whose values are JSON already."""
    return "{" + ",".join(f'"{key}":{value}' for key, value in parts.items()) + "}"

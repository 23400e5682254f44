"""CMU Panoptic HandDB (Simon et al., CVPR 2017): hands in full images, 2D labels in our order.

Any of its three parts: `hand_labels/{manual_train,manual_test}/*.json` beside `.jpg` (the full image, once for each
of its hands, `_l` and `_r`), `hand143_panopticdb/hands_v143_14817.json` with its `imgs`, and
`hand_labels_synth/synth{1..4}`. hand_pts and joint_self are 21 times x, y, flag, a joint being labelled where the
flag is 1. manual_test is the test part, all else is train. hand143 does not say which hand it is. Where labels lie
far off the image, as in two hands of Ricki_unit_8, nothing is left and the hand is counted as left out.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.importers.changes import content_digest
from handaug.data_specs.importers.files import entry, find_root, inside, json_items, numbers, photo, read_json
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import DamagedError, Hand, Unit
from handaug.data_specs.schema import LEFT, NOT_LABELLED, RIGHT, TEST, TRAIN, VISIBLE

__all__ = ["open_source"]

_MANUAL = {"manual_train": TRAIN, "manual_test": TEST}
_V143 = "hand143_panopticdb/hands_v143_14817.json"


def open_source(path: Path, options: ImportOptions) -> "_Panoptic":
    """Open the folder that holds at least one of the three parts."""
    needs = [*(f"hand_labels/{part}" for part in _MANUAL), _V143, "hand_labels_synth/synth?"]
    return _Panoptic(find_root(path, "CMU Panoptic HandDB", needs))


class _Panoptic:
    origin = "panoptic"
    fields = ()

    def __init__(self, root: Path) -> None:
        self._root = root
        self._units: list[tuple[Path, int, Any]] = []
        """Label file, split, and the labels where the file holds many."""
        notes = []
        for part, split in _MANUAL.items():
            self._units += [(file, split, None) for file in sorted((root / "hand_labels" / part).glob("*.json"))]
        if (root / _V143).is_file():
            notes.append("hand143_panopticdb does not say which hand it is")
            items = [_v143(item, root / _V143) for item in json_items(root / _V143, "root")]
            names = {name for name, _ in items}
            if len(names) < len(items):
                raise DamagedError(f"{root / _V143}: has {len(items) - len(names)} images twice; download it again")
            self._units += [(root / _V143, TRAIN, item) for item in items]
        for file in sorted((root / "hand_labels_synth").glob("synth?/*.json")):
            self._units.append((file, TRAIN, None))
        if not self._units:
            raise DamagedError(f"{root}: its parts hold no labels; complete the download")
        self.labels = content_digest(file for file in (root / _V143,) if file.is_file())
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return len(self._units)

    def unit(self, index: int) -> Unit:
        file, split, item = self._units[index]
        name = file.relative_to(self._root).with_suffix("").as_posix()
        if item is not None:
            return Unit(f"{name}/{item[0]}", f"{name}/{item[0]}", split)
        # both hands of a frame, and all frames of a video, belong together
        scene = re.sub(r"_[lr]$", "", name)
        return Unit(name, re.sub(r"(\.flv|\.mp4|\.avi)_\d+$", r"\1", scene), split, (file,))

    def read(self, index: int) -> Iterable[Hand]:
        file, _, item = self._units[index]
        name = file.relative_to(self._root).with_suffix("").as_posix()
        if item is not None:
            image, points = inside(file.parent, item[0], file), item[1]
            side, image_key = None, f"{name}/{item[0]}"
        else:
            labels = read_json(file)
            synthetic = self._root / "hand_labels_synth"  # not all releases of it name the side
            image = file.with_suffix(".jpg")
            points = numbers(entry(labels, "hand_pts", file), (21, 3), file, "hand_pts")
            said = labels.get("is_left") if file.is_relative_to(synthetic) else entry(labels, "is_left", file)
            side = None if said is None else LEFT if said else RIGHT
            image_key = re.sub(r"_[lr]$", "", name)
        yield Hand(
            name=str(image),
            image=photo(image),
            image_key=image_key,
            pose_key=f"{image_key}/{side}/{name}",
            side=side,
            visibility=np.where(points[:, 2] == 1, VISIBLE, NOT_LABELLED).astype(np.uint8),
            keypoints_2d=points[:, :2],
        )


def _v143(item: Any, file: Path) -> tuple[str, NDArray[np.float64]]:
    name = str(entry(item, "img_paths", file))
    return name, numbers(entry(item, "joint_self", file), (21, 3), f"{file}, {name}", "joint_self")

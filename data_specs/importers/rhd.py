"""Rendered Hand Pose Dataset v2 (Zimmermann and Brox, ICCV 2017): synthetic people, both hands labelled in each image.

`{training,evaluation}/{color,mask}/%05d.png` and `anno_{training,evaluation}.pickle`, {id: {'uv_vis': (42, 3), 'xyz':
(42, 3) metres, 'K': (3, 3)}}; joints 0..20 are the left hand, 21..41 the right one, each wrist first and then every
finger from TIP to PALM. uv = K xyz / z. Masks: 1 person, 2..17 left hand, 18..33 right hand.

`--hands prominent` takes one hand of each image as Zimmermann and Brox' reader does: the left one where it has more
pixels in the mask than the right one, else the right one, whether or not a joint is visible.
"""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.importers.changes import content_digest
from handaug.data_specs.importers.files import entry, find_root, numbers, photo, plane
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import DamagedError, Hand, Unit
from handaug.data_specs.joints import reorder
from handaug.data_specs.safe_pickle import load_pickle
from handaug.data_specs.schema import (
    HIDDEN,
    LEFT,
    MASK_FOREARM,
    MASK_HAND,
    MASK_OTHER_HAND,
    RIGHT,
    TEST,
    TRAIN,
    VISIBLE,
)

__all__ = ["open_source"]

_PARTS = {"training": TRAIN, "evaluation": TEST}
_SIZE = (320, 320)
_HANDS = (slice(2, 18), slice(18, 34))
"""Values in the mask of the left and of the right hand."""


def open_source(path: Path, options: ImportOptions) -> "_Rhd":
    """Open the folder that holds `training` and `evaluation`, or one of them."""
    needs = [f"{part}/anno_{part}.pickle" for part in _PARTS]
    root = find_root(path, "Rendered Hand Pose Dataset", needs, ("RHD_published_v2",))
    return _Rhd(root, options.hands == "prominent")


class _Rhd:
    origin = "rhd"
    fields = ("keypoints_3d", "camera", "mask")

    def __init__(self, root: Path, prominent: bool) -> None:
        self._root = root
        self._prominent = prominent
        self._labels: dict[str, dict[int, Any]] = {}
        notes, files = [], []
        for part in _PARTS:
            file = root / part / f"anno_{part}.pickle"
            if not file.is_file():
                notes.append(f"no {part} part in {root}")
                continue
            content = load_pickle(file)
            if not isinstance(content, dict) or not all(isinstance(key, int) for key in content):
                raise DamagedError(f"{file}: holds no labels by image number; download it again")
            self._labels[part] = content
            files.append(file)
        self.labels = content_digest(files)
        self._units = [(part, number) for part, labels in self._labels.items() for number in sorted(labels)]
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return len(self._units)

    def unit(self, index: int) -> Unit:
        part, number = self._units[index]
        name = f"{part}/{number:05d}"
        return Unit(name, name, _PARTS[part])

    def read(self, index: int) -> Iterable[Hand]:
        part, number = self._units[index]
        file = f"{self._root / part / f'anno_{part}.pickle'}[{number}]"
        labels = self._labels[part][number]
        uv_vis = numbers(entry(labels, "uv_vis", file), (42, 3), file, "uv_vis")
        xyz = numbers(entry(labels, "xyz", file), (42, 3), file, "xyz")
        camera = numbers(entry(labels, "K", file), (3, 3), file, "K")
        name = f"{part}/{number:05d}"
        image = photo(self._root / part / "color" / f"{number:05d}.png", _SIZE)
        parts = functools.cache(plane(self._root / part / "mask" / f"{number:05d}.png"))
        for side in (_larger(parts()),) if self._prominent else (LEFT, RIGHT):
            rows = slice(21 * side, 21 * side + 21)
            seen = reorder(uv_vis[rows, 2:], "rhd")[:, 0] > 0
            if not (self._prominent or seen.any()):
                continue  # behind the body or off the image: nothing to see of this hand
            yield Hand(
                name=str(self._root / part / "color" / f"{number:05d}.png"),
                image=image,
                image_key=name,
                pose_key=f"{name}/{side}",
                side=side,
                # a joint that is not seen is labelled all the same, from the scene's geometry
                visibility=np.where(seen, VISIBLE, HIDDEN).astype(np.uint8),
                keypoints_2d=reorder(uv_vis[rows, :2], "rhd"),
                keypoints_3d=reorder(xyz[rows], "rhd"),
                camera=camera,
                mask=functools.partial(_mask, parts, side),
                size=_SIZE,
            )


def _larger(parts: NDArray[np.uint8]) -> int:
    """The side with more pixels in a mask as stored."""
    counts = np.bincount(parts.ravel(), minlength=256)
    left, right = (counts[values].sum() for values in _HANDS)
    return LEFT if left > right else RIGHT


def _mask(parts: Any, side: int) -> NDArray[np.uint8]:
    """Our mask values for one hand; the rest of the person counts as its forearm."""
    values = np.zeros(256, np.uint8)
    values[1] = MASK_FOREARM
    values[_HANDS[LEFT]] = values[_HANDS[RIGHT]] = MASK_OTHER_HAND
    values[_HANDS[side]] = MASK_HAND
    mask: NDArray[np.uint8] = values[parts()]
    return mask

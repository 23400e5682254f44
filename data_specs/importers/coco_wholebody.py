"""COCO-WholeBody v1.0 (Jin et al., ECCV 2020): people of COCO 2017, hands with 21 keypoints each in 2D.

`annotations/coco_wholebody_{train,val}_v1.0.json`, COCO's person annotations with {left,right}hand_{box,kpts,valid};
kpts are 21 times x, y, v in our order; the left hand is the person's left. v is a float from 0 to 2 that says how
much to trust the point, not how visible it is: above 0 counts as visible. A hand is labelled where it is valid and
any number of its keypoints is above 0. Images in `{train,val}2017` or `images/{train,val}2017`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.importers.changes import content_digest
from handaug.data_specs.importers.files import (
    entry,
    find_root,
    identity,
    image_size,
    inside,
    json_items,
    numbers,
    photo,
)
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import DamagedError, Hand, MissingError, Unit
from handaug.data_specs.schema import LEFT, NOT_LABELLED, RIGHT, TRAIN, VAL, VISIBLE

__all__ = ["open_source"]

_PARTS = {"train": TRAIN, "val": VAL}
_Id = int | float | str
_SIDES = {"lefthand": LEFT, "righthand": RIGHT}


def open_source(path: Path, options: ImportOptions) -> "_WholeBody":
    """Open the folder that holds `annotations` and the images' folders."""
    needs = [f"{folder}coco_wholebody_{part}_v1.0.json" for folder in ("annotations/", "") for part in _PARTS]
    return _WholeBody(find_root(path, "COCO-WholeBody", needs, ("coco",)))


class _WholeBody:
    origin = "coco-wholebody"
    fields = ()

    def __init__(self, root: Path) -> None:
        self._units: list[tuple[str, Path, tuple[int, int], _Id]] = []
        """Part, image, size and image id."""
        self._hands: dict[tuple[str, _Id], list[tuple[_Id, int, NDArray[np.float64]]]] = {}
        """Part and image id -> annotation id, side and (21, 3) keypoints."""
        notes, files = [], []
        for part in _PARTS:
            name = f"coco_wholebody_{part}_v1.0.json"
            file = next((f for f in (root / "annotations" / name, root / name) if f.is_file()), None)
            if file is None:
                notes.append(f"no {name} in {root}, so no {part} part")
                continue
            self._read_part(part, file, _images(root, part))
            files.append(file)
        self.labels = content_digest(files)
        self.notes = tuple(notes)

    def _read_part(self, part: str, file: Path, images: Path) -> None:
        found: dict[_Id, tuple[Path, tuple[int, int]]] = {}
        for item in json_items(file, "images"):
            number = identity(item, "id", file)
            if number in found:
                raise DamagedError(f"{file}: image id {number} occurs twice; download it again")
            size = image_size(item, f"{file}, image {number}")
            found[number] = inside(images, entry(item, "file_name", file), file), size
        seen = set()
        for item in json_items(file, "annotations"):
            number, image = identity(item, "id", file), identity(item, "image_id", file)
            if number in seen or image not in found:
                what = f"id {number} occurs twice" if number in seen else f"image_id {image} is no image"
                raise DamagedError(f"{file}: annotation {what}; download it again")
            seen.add(number)
            for name, side in _SIDES.items():
                points = _points(item, name, f"{file}, annotation {number}")
                if points is not None:
                    self._hands.setdefault((part, image), []).append((number, side, points))
        self._units += [(part, *found[image], image) for (of, image) in self._hands if of == part]

    def __len__(self) -> int:
        return len(self._units)

    def unit(self, index: int) -> Unit:
        part, _, _, number = self._units[index]
        return Unit(f"{part}/{number}", f"{part}/{number}", _PARTS[part])

    def read(self, index: int) -> Iterable[Hand]:
        part, file, size, number = self._units[index]
        image = photo(file, size)
        for annotation, side, points in self._hands[part, number]:
            yield Hand(
                name=f"{file}, annotation {annotation}",
                image=image,
                image_key=f"{part}/{number}",
                pose_key=f"{part}/{number}/{annotation}/{side}",
                side=side,
                visibility=np.where(points[:, 2] > 0, VISIBLE, NOT_LABELLED).astype(np.uint8),
                keypoints_2d=points[:, :2],
                size=size,
            )


def _images(root: Path, part: str) -> Path:
    """The folder of a part's images."""
    places = [root / f"{part}2017", root / "images" / f"{part}2017"]
    for place in places:
        if place.is_dir():
            return place
    raise MissingError(f"{places[0]}: is missing (nor is there {places[1]}); download COCO's {part}2017 images")


def _points(item: Any, name: str, where: str) -> NDArray[np.float64] | None:
    """(21, 3) keypoints of a hand; None where it is not labelled."""
    if not entry(item, f"{name}_valid", where):
        return None
    points = numbers(entry(item, f"{name}_kpts", where), (63,), where, f"{name}_kpts").reshape(21, 3)
    return points if (points > 0).any() else None

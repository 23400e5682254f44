"""Any COCO keypoints JSON whose category names the 21 joints of a hand, whatever their order.

SRC is the JSON file, or a folder with one or more of them in it or in `annotations`. Images are looked for beside the
JSON, in `images`, in folders named like the JSON's part (`train2017`), and the same one level up.

Beyond COCO's own fields these are read where they are there: `images[].K` (3 x 3 intrinsics, px) with
`annotations[].keypoints_3d` (21 x 3, metres, camera frame, x right, y down, z forward; in the keypoints' order),
`annotations[].pose_id` (shared by images that differ only in looks), the side (`handedness`, `hand_side`, `hand_type`
or `side`: left or right; `is_left`; or a category named so), `images[].split`, and what must stay together (`group`,
`subject`, `sequence`, `seq_name` or `video_id` of the image). Without them the part is told by the file's name
(train, val, test), else it is what `--split` asks for, or train; a group is one image; a side that nobody names is
stored as right.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
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
from handaug.data_specs.importers.joint_names import map_names
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import DamagedError, Hand, MissingError, Unit
from handaug.data_specs.joints import N_JOINTS
from handaug.data_specs.schema import HIDDEN, LEFT, NOT_LABELLED, RIGHT, SPLITS, TRAIN, VISIBLE

__all__ = ["open_source"]

_GROUPS = ("group", "subject", "sequence", "seq_name", "video_id")
_TRIED = 100
"""Images that are looked for before their folder counts as missing."""
_SIDES = ("handedness", "hand_side", "hand_type", "side")


def open_source(path: Path, options: ImportOptions) -> "_Coco":
    """Open a JSON file, or the folder that holds one or more."""
    if path.is_file() and path.suffix.lower() == ".json":
        return _Coco([path], options.only)
    root = find_root(path, "COCO keypoints JSON", ["*.json", "annotations/*.json"])
    return _Coco(sorted([*root.glob("*.json"), *root.glob("annotations/*.json")]), options.only)


@dataclass(frozen=True)
class _Image:
    """One image of a JSON."""

    file: Path
    key: str
    size: tuple[int, int]
    group: str
    split: int
    camera: NDArray[np.float64] | None


@dataclass(frozen=True)
class _Label:
    """One annotation, in our order of joints."""

    name: str
    side: int | None
    points: NDArray[np.float64]
    """(21, 3) x, y, v."""
    points_3d: NDArray[np.float64] | None
    pose: str
    """Names the pose."""


class _Coco:
    def __init__(self, files: list[Path], only: int | None) -> None:
        self.labels = content_digest(files)
        self.origin = f"coco {self.labels}"  # two sets of unlike content never share an id
        self._units: list[tuple[_Image, list[_Label]]] = []
        notes = []
        misfits = []
        for file in files:
            categories, misfit = _hand_categories(file)
            if categories:
                self._units += _read(file, categories, only)
            else:
                misfits.append(misfit)
        if not self._units:
            what = misfits[0] if misfits else f"{files[0]}: holds no hands"
            raise InputError(f"{what}; name the 21 keypoints in categories[].keypoints, such as wrist, thumb_cmc, ...")
        if misfits:
            notes.append(f"left aside: {misfits[0]}" + (f" and {len(misfits) - 1} more" if len(misfits) > 1 else ""))
        labels = [label for _, hands in self._units for label in hands]
        spatial = sum(label.points_3d is not None for label in labels)
        cameras = all(image.camera is not None for image, _ in self._units)
        self._spatial = cameras and spatial == len(labels)
        self.fields = ("keypoints_3d", "camera") if self._spatial else ()
        if spatial and not self._spatial:
            notes.append("3D keypoints left out: not every annotation has keypoints_3d and its image K")
        if any(label.side is None for label in labels):
            notes.append("some annotations do not say which hand it is")
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return len(self._units)

    def unit(self, index: int) -> Unit:
        image, _ = self._units[index]
        return Unit(image.key, image.group, image.split)

    def read(self, index: int) -> Iterable[Hand]:
        image, labels = self._units[index]
        load = photo(image.file, image.size)
        for label in labels:
            yield Hand(
                name=label.name,
                image=load,
                image_key=image.key,
                pose_key=label.pose,
                side=label.side,
                visibility=_visibility(label.points[:, 2]),
                keypoints_2d=label.points[:, :2],
                keypoints_3d=label.points_3d if self._spatial else None,
                camera=image.camera if self._spatial else None,
                size=image.size,
            )


def _visibility(v: NDArray[np.float64]) -> NDArray[np.uint8]:
    """COCO's v as it is; what is between its values, as some tools write scores, counts as visible above 0."""
    out = np.where(v > 0, VISIBLE, NOT_LABELLED)
    return np.where(v == HIDDEN, HIDDEN, out).astype(np.uint8)


def _hand_categories(file: Path) -> tuple[dict[Any, tuple[NDArray[np.intp], int | None]], str]:
    """Category id -> joint map and side, of the categories that are hands; and why there is none."""
    found: dict[Any, tuple[NDArray[np.intp], int | None]] = {}
    reasons: list[tuple[int, str]] = []
    try:
        for item in json_items(file, "categories"):
            listed = item.get("keypoints") if isinstance(item, Mapping) else None
            names = [str(name) for name in listed] if isinstance(listed, list) else []
            try:
                joints = map_names(names)
            except ValueError as error:
                reason = f"{len(names)} keypoints: {error}" if names else "a category without named keypoints"
                reasons.append((abs(len(names) - N_JOINTS), f"{file}: {reason}"))
            else:
                found[identity(item, "id", file)] = joints, _side_of(str(item.get("name", "")))
    except DamagedError as error:
        reasons.append((0, str(error)))
    # of several categories the one that comes closest to a hand is meant
    return found, min(reasons, default=(0, f"{file}: has no category"))[1]


def _read(
    file: Path, categories: Mapping[Any, tuple[NDArray[np.intp], int | None]], only: int | None
) -> list[tuple[_Image, list[_Label]]]:
    """The labelled images of a JSON, in its order."""
    told = _split_of(file.stem)
    split = told if told is not None else TRAIN if only is None else only
    items: dict[Any, Mapping[str, Any]] = {}
    for item in json_items(file, "images"):
        number = identity(item, "id", file)
        if number in items:
            raise DamagedError(f"{file}: image id {number} occurs twice; give each image its own")
        inside(file.parent, entry(item, "file_name", file), file)
        items[number] = item
    if not items:
        return []
    folder = _image_folder(file, [item["file_name"] for item in itertools.islice(items.values(), _TRIED)])
    units: dict[Any, tuple[_Image, list[_Label]]] = {}
    seen = set()
    for item in json_items(file, "annotations"):
        category = identity(item, "category_id", file)
        number, image = identity(item, "id", file), identity(item, "image_id", file)
        if number in seen or image not in items:
            what = (
                f"id {number} occurs twice" if number in seen else f"{number} is for image {image}, which is not there"
            )
            raise DamagedError(f"{file}: annotation {what}; repair the JSON")
        seen.add(number)
        if category not in categories:
            continue
        label = _label(item, categories[category], file)
        if label is not None:
            if image not in units:
                units[image] = _image(items[image], file, folder, split), []
            units[image][1].append(label)
    return list(units.values())


def _label(item: Mapping[str, Any], category: tuple[NDArray[np.intp], int | None], file: Path) -> _Label | None:
    index, side = category
    where = f"{file}, annotation {item['id']}"
    flat = numbers(entry(item, "keypoints", where), (-1,), where, "keypoints")
    if len(flat) % 3 or len(flat) // 3 <= index.max():
        raise DamagedError(f"{where}: has {len(flat)} values in keypoints, its category names more joints; repair it")
    points = flat.reshape(-1, 3)[index]
    if not (points[:, 2] > 0).any() and not np.isnan(points).any():
        return None
    points_3d = None
    if item.get("keypoints_3d") is not None:
        points_3d = numbers(item["keypoints_3d"], (len(flat) // 3, 3), where, "keypoints_3d")[index]
    for key in _SIDES:
        if side is None and key in item:
            side = _side_of(str(item[key]))
    if side is None and "is_left" in item:
        side = LEFT if item["is_left"] else RIGHT
    assert points.shape == (N_JOINTS, 3)
    pose = f"pose {item['pose_id']}" if "pose_id" in item else f"{file.stem}/{item['id']}"
    return _Label(where, side, points, points_3d, pose)


def _image(item: Mapping[str, Any], file: Path, folder: Path, split: int) -> _Image:
    name = item["file_name"]
    said = item.get("split")
    if said is not None and not (isinstance(said, str) and said in SPLITS):
        raise DamagedError(f"{file}: image {name} has split {said!r}; it must be one of {', '.join(SPLITS)}")
    group = "/".join(str(item[key]) for key in _GROUPS if key in item)
    camera = item.get("K")
    return _Image(
        file=inside(folder, name, file),
        key=f"{file.stem}/{name}",
        size=image_size(item, f"{file}, image {name}"),
        group=group or f"{file.stem}/{name}",
        split=split if said is None else SPLITS[said],
        camera=None if camera is None else numbers(camera, (3, 3), f"{file}, {name}", "K"),
    )


def _image_folder(file: Path, names: list[str]) -> Path:
    """The folder in which the images lie, told by the first ones."""
    year = re.search(r"(train|val|test)\d*$", file.stem)
    inner = ["", "images", *([year[0], f"images/{year[0]}"] if year else [])]
    places = [base / name for base in (file.parent, file.parent.parent) for name in inner]
    for place in places:
        if any((place / name).is_file() for name in names):
            return place
    shown = ", ".join(str(place) for place in places[: len(inner)])
    raise MissingError(f"{file}: its image {names[0]} is in none of {shown}; put the images there")


def _split_of(stem: str) -> int | None:
    """The part that a file's name tells."""
    words = re.findall(r"[a-z]+", stem.lower())
    return next((code for name, code in SPLITS.items() if name in words), None)


def _side_of(text: str) -> int | None:
    """The side that a word or category name tells."""
    words = re.findall(r"[a-z]+", text.lower())
    sides = {LEFT for word in words if word in ("left", "lefthand", "l")}
    sides |= {RIGHT for word in words if word in ("right", "righthand", "r")}
    return sides.pop() if len(sides) == 1 else None

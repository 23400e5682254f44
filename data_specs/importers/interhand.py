"""InterHand2.6M v1.0 (Moon et al., ECCV 2020): real hands, alone or two that interact, many calibrated cameras.

`images/{train,val,test}/<file_name>` and `annotations/{split}/InterHand2.6M_{split}_{data,camera,joint_3d}.json`.
Joints 0..20 are the RIGHT hand, 21..41 the LEFT one, every finger from TIP to PALM, the wrist last (20 and 41). World
coordinates are in millimetres; `campos` is the camera's POSITION in the world, no translation: X_camera = R (X_world
- campos). A hand whose wrist is not valid is not labelled.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
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
    json_members,
    numbers,
    photo,
    read_json,
)
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import DamagedError, Hand, Unit
from handaug.data_specs.joints import ORDERS, reorder
from handaug.data_specs.schema import LEFT, NOT_LABELLED, RIGHT, SPLITS, VISIBLE

__all__ = ["open_source"]

_FILES = ("data", "camera", "joint_3d")
_MM = 1e-3
_ROWS = {RIGHT: slice(0, 21), LEFT: slice(21, 42)}
_WRIST = ORDERS["interhand"].index("wrist")


def open_source(path: Path, options: ImportOptions) -> "_InterHand":
    """Open the folder that holds `images` and `annotations`."""
    needs = [f"annotations/{part}/InterHand2.6M_{part}_data.json" for part in SPLITS]
    root = find_root(path, "InterHand2.6M", needs, ("InterHand2.6M_5fps_batch1", "InterHand2.6M_30fps_batch1"))
    return _InterHand(root, [options.split] if options.split in SPLITS else list(SPLITS))


@dataclass
class _Part:
    """One official part."""

    name: str
    files: list[str] = field(default_factory=list)
    """file_name of each labelled image."""
    frames: list[tuple[str, str, str]] = field(default_factory=list)
    """Capture, frame index and camera of each image."""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    valid: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 42), bool))
    """(images, 42), of the image's own labels."""
    world: dict[tuple[str, str], tuple[NDArray[np.float32], NDArray[np.bool_]]] = field(default_factory=dict)
    """(capture, frame) -> (42, 3) millimetres and (42,) validity."""
    cameras: dict[str, Any] = field(default_factory=dict)


class _InterHand:
    origin = "interhand"
    fields = ("keypoints_3d", "camera")

    def __init__(self, root: Path, wanted: list[str]) -> None:
        self._root = root
        self._parts = []
        notes, files = [], []
        for name in wanted:
            if (root / "annotations" / name / f"InterHand2.6M_{name}_data.json").is_file():
                self._parts.append(_read_part(root, name))
                files += [root / "annotations" / name / f"InterHand2.6M_{name}_{what}.json" for what in _FILES]
            else:
                notes.append(f"no annotations/{name} in {root}, so no {name} part")
        self.labels = content_digest(files)
        self._starts = np.cumsum([0, *(len(part.files) for part in self._parts)])
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _place(self, index: int) -> tuple[_Part, int]:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[part], index - int(self._starts[part])

    def unit(self, index: int) -> Unit:
        part, row = self._place(index)
        capture = part.frames[row][0]
        # a capture is one person's session; its numbers start again in each part
        return Unit(f"{part.name}/{part.files[row]}", f"{part.name}/Capture{capture}", SPLITS[part.name])

    def read(self, index: int) -> Iterable[Hand]:
        part, row = self._place(index)
        capture, frame, camera = part.frames[row]
        labels = self._root / "annotations" / part.name
        where = labels / f"InterHand2.6M_{part.name}_joint_3d.json"
        if (capture, frame) not in part.world:
            raise DamagedError(f"{where}: has no frame {frame} of capture {capture}; get all files of one release")
        world, valid = part.world[capture, frame]
        valid = valid & part.valid[row]
        place, turn, intrinsics = _camera(part, capture, camera, labels / f"InterHand2.6M_{part.name}_camera.json")
        file = inside(self._root / "images" / part.name, part.files[row], labels)
        image = photo(file, part.sizes[row])
        for side, rows in _ROWS.items():
            known = valid[rows] & valid[rows][_WRIST]
            if not known.any():
                continue
            points = (world[rows].astype(np.float64) - place) @ turn.T * _MM
            points[~known] = np.nan
            yield Hand(
                name=str(file),
                image=image,
                image_key=f"{part.name}/{part.files[row]}",
                pose_key=f"{part.name}/{part.files[row]}/{side}",
                side=side,
                visibility=np.where(reorder(known[:, None], "interhand")[:, 0], VISIBLE, NOT_LABELLED).astype(np.uint8),
                keypoints_3d=reorder(points, "interhand"),
                camera=intrinsics,
                size=part.sizes[row],
            )


def _read_part(root: Path, name: str) -> _Part:
    folder = root / "annotations" / name
    data = folder / f"InterHand2.6M_{name}_data.json"
    part = _Part(name, cameras=read_json(folder / f"InterHand2.6M_{name}_camera.json"))
    images = {}
    for item in json_items(data, "images"):
        number = identity(item, "id", data)
        if number in images:
            raise DamagedError(f"{data}: image id {number} occurs twice; download it again")
        images[number] = (
            str(entry(item, "file_name", data)),
            (str(entry(item, "capture", data)), str(entry(item, "frame_idx", data)), str(entry(item, "camera", data))),
            image_size(item, f"{data}, image {number}"),
        )
    valid, seen = [], set()
    for item in json_items(data, "annotations"):
        number = identity(item, "image_id", data)
        if number not in images or number in seen:
            what = "occurs twice" if number in seen else "has labels and no image"
            raise DamagedError(f"{data}: image id {number} {what}; download it again")
        seen.add(number)
        file, frame, size = images[number]
        part.files.append(file)
        part.frames.append(frame)
        part.sizes.append(size)
        valid.append(_validity(entry(item, "joint_valid", data), data))
    part.valid = np.array(valid, bool).reshape(-1, 42)
    _read_world(part, folder / f"InterHand2.6M_{name}_joint_3d.json")
    return part


def _read_world(part: _Part, file: Path) -> None:
    for capture, frames in json_members(file):
        if not isinstance(frames, dict):
            raise DamagedError(f"{file}: capture {capture} holds no frames; download it again")
        for frame, item in frames.items():
            where = f"{file}[{capture}][{frame}]"
            points = numbers(entry(item, "world_coord", where), (42, 3), where, "world_coord").astype(np.float32)
            part.world[capture, frame] = points, _validity(entry(item, "joint_valid", where), where)


def _validity(value: Any, where: Path | str) -> NDArray[np.bool_]:
    try:
        flags = np.asarray(value, np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        flags = np.empty(0)
    return numbers(flags, (42,), where, "joint_valid") > 0


def _camera(
    part: _Part, capture: str, camera: str, file: Path
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Position in the world (mm), rotation and intrinsics of a camera."""
    of = entry(part.cameras, capture, file)
    where = f"{file}[{capture}]"
    place = numbers(entry(entry(of, "campos", where), camera, where), (3,), where, "campos")
    turn = numbers(entry(entry(of, "camrot", where), camera, where), (3, 3), where, "camrot")
    fx, fy = numbers(entry(entry(of, "focal", where), camera, where), (2,), where, "focal")
    cx, cy = numbers(entry(entry(of, "princpt", where), camera, where), (2,), where, "princpt")
    return place, turn, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])

"""FreiHAND v2 (Zimmermann et al., ICCV 2019): right hands, each training sample with four backgrounds.

`training/rgb/%08d.jpg` holds the n samples n times over: image `sample + n * version`, versions gs (green screen),
hom, sample and auto, so that one sample is one pose_id with four looks. `{training,evaluation}_{K,xyz}.json` are
lists by sample, xyz in metres, OpenCV axes, our order of joints. Nothing is said about occlusion: every joint counts
as visible. Masks exist for training only and fit all four versions; they are stored where nothing but training is
imported.
"""

import functools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.importers.changes import content_digest
from handaug.data_specs.importers.files import find_root, json_items, numbers, photo, plane
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import DamagedError, Hand, MissingError, Pixels, Unit, all_visible
from handaug.data_specs.schema import RIGHT, TEST, TRAIN

__all__ = ["open_source"]

_PARTS = {"training": TRAIN, "evaluation": TEST}
_VERSIONS = ("gs", "hom", "sample", "auto")
_SIZE = (224, 224)
"""Of the dataset itself; others write its layout at sizes of their own, which the first image tells."""


def open_source(path: Path, options: ImportOptions) -> "_FreiHand":
    """Open the folder that holds `training_xyz.json`, `evaluation_xyz.json` or both."""
    root = find_root(path, "FreiHAND", ["training_xyz.json", "evaluation_xyz.json"], ("FreiHAND_pub_v2",))
    return _FreiHand(root, masks=options.split == "train" and not options.val and (root / "training/mask").is_dir())


class _FreiHand:
    origin = "freihand"

    def __init__(self, root: Path, *, masks: bool) -> None:
        self._root = root
        self._masks = masks
        self._size = _size(root)
        self.fields = ("keypoints_3d", "camera", *(("mask",) if masks else ()))
        self._labels: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        self._units: list[tuple[str, int, int]] = []
        notes, files = [], []
        for part in _PARTS:
            if not (root / f"{part}_xyz.json").is_file():
                notes.append(f"no {part}_xyz.json in {root}, so no {part} part")
                continue
            cameras, points = (_read(root / f"{part}_{what}.json", columns) for what, columns in _COLUMNS)
            if len(cameras) != len(points):
                raise DamagedError(
                    f"{root / f'{part}_K.json'}: has {len(cameras):,} entries, {part}_xyz.json has {len(points):,}; "
                    "get both of the same release"
                )
            self._labels[part] = cameras, points
            files += [root / f"{part}_{what}.json" for what, _ in _COLUMNS]
            versions = [0]
            if part == "training":
                rgb = root / part / "rgb"
                versions += [v for v in (1, 2, 3) if (rgb / f"{v * len(points):08d}.jpg").is_file()]
                if len(versions) < len(_VERSIONS):
                    notes.append(f"{rgb} holds {len(versions)} of the 4 background versions of {len(points):,} samples")
            self._units += [(part, sample, version) for sample in range(len(points)) for version in versions]
        self.labels = content_digest(files)
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return len(self._units)

    def unit(self, index: int) -> Unit:
        part, sample, version = self._units[index]
        return Unit(f"{part}/{sample:08d}/{_VERSIONS[version]}", f"{part}/{sample}", _PARTS[part])

    def read(self, index: int) -> Iterable[Hand]:
        part, sample, version = self._units[index]
        cameras, points = self._labels[part]
        number = sample + version * len(points)
        image = self._root / part / "rgb" / f"{number:08d}.jpg"
        yield Hand(
            name=str(image),
            image=photo(image, self._size),
            image_key=f"{part}/{number}",
            pose_key=f"{part}/{sample}",
            side=RIGHT,
            visibility=all_visible(),
            keypoints_3d=points[sample],
            camera=cameras[sample],
            mask=self._mask(sample) if self._masks else None,
            size=self._size,
        )

    def _mask(self, sample: int) -> Pixels:
        return functools.partial(_hand_mask, plane(self._root / "training" / "mask" / f"{sample:08d}.jpg"))


_COLUMNS = (("K", 3), ("xyz", 21))


def _size(root: Path) -> tuple[int, int]:
    """Width and height of the first image that can be read."""
    for part in _PARTS:
        try:
            height, width = photo(root / part / "rgb" / f"{0:08d}.jpg")().shape[:2]
        except (MissingError, DamagedError):
            continue  # met again in its turn, and named
        return width, height
    return _SIZE


def _read(file: Path, rows: int) -> NDArray[np.float64]:
    """(samples, rows, 3) out of a list by sample."""
    items = [numbers(item, (rows, 3), f"{file}[{k}]", file.stem) for k, item in enumerate(json_items(file))]
    if not items:
        raise DamagedError(f"{file}: is empty; download it again")
    return np.stack(items)


def _hand_mask(load: Pixels) -> NDArray[np.uint8]:
    """JPEG blurs the mask's edge: the middle between its two values decides."""
    return (load() > 127).astype(np.uint8)

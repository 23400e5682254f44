"""DexYCB (Chao et al., CVPR 2021): hands that grasp objects, ten people, eight cameras.

`<subject>/<sequence>/<serial>/{color_%06d.jpg, labels_%06d.npz}`; the npz holds joint_3d (1, 21, 3) in metres in the
camera's frame and joint_2d (1, 21, 2) in pixels, all -1 without a hand, in our order, and seg (255 is the hand, 1..21
an object). Intrinsics in `calibration/intrinsics/<serial>_640x480.yml` under `color`, the side in
`<sequence>/meta.yml`.

`--split` also knows the four official set-ups: s0 unseen sequences (which `official` means), s1 unseen people, s2
unseen views, s3 unseen objects. They number subjects, sequences and cameras by sorted name: a partial download of a
subject's 100 sequences numbers them otherwise, which s1 and s2 do not mind.
"""

import functools
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.importers.files import entry, find_root, numbers, photo, read_bytes
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import DamagedError, Hand, MissingError, Unit, all_visible
from handaug.data_specs.schema import LEFT, MASK_HAND, MASK_OCCLUDER, RIGHT, TEST, TRAIN, VAL

__all__ = ["open_source"]

_SIZE = (640, 480)
_SERIALS = (
    "836212060125",
    "839512060362",
    "840412060917",
    "841412060263",
    "932122060857",
    "932122060861",
    "932122061900",
    "932122062010",
)
_SEQUENCES = 100
_SIDES = {"left": LEFT, "right": RIGHT}


def open_source(path: Path, options: ImportOptions) -> "_DexYcb":
    """Open the folder that holds `calibration` and the subjects' folders."""
    root = find_root(path, "DexYCB", ["*-subject-*"], ("dex-ycb", "dex-ycb-20210415"))
    return _DexYcb(root, options.split if options.split in ("s1", "s2", "s3") else "s0")


def _split(setup: str, subject: int, sequence: int, serial: int) -> int:
    """The official part, of numbers that count from 0."""
    if setup == "s0":
        return TRAIN if sequence % 5 != 4 else VAL if subject < 2 else TEST
    if setup == "s1":
        return VAL if subject == 6 else TEST if subject in (7, 8) else TRAIN
    if setup == "s2":
        return VAL if serial == 6 else TEST if serial == 7 else TRAIN
    grasp = sequence // 5
    return VAL if grasp in (3, 19) else TEST if grasp in (7, 11, 15) else TRAIN


class _DexYcb:
    origin = "dexycb"
    labels = ""
    fields = ("keypoints_3d", "camera", "mask")

    def __init__(self, root: Path, setup: str) -> None:
        self._root = root
        self._units: list[tuple[str, str, str, str, int]] = []
        """Subject, sequence, serial, frame and split."""
        notes = []
        for subject in sorted(root.glob("*-subject-*")):
            number = re.search(r"-subject-(\d+)$", subject.name)
            if number is None or not subject.is_dir():
                continue
            sequences = sorted(folder for folder in subject.iterdir() if folder.is_dir())
            if len(sequences) != _SEQUENCES and setup in ("s0", "s3"):
                notes.append(f"{subject} has {len(sequences)} of 100 sequences: {setup} numbers those that are there")
            for k, sequence in enumerate(sequences):
                for serial in sorted(folder for folder in sequence.iterdir() if folder.is_dir()):
                    if serial.name not in _SERIALS:
                        raise DamagedError(f"{serial}: is no camera of DexYCB ({', '.join(_SERIALS)}); remove it")
                    part = _split(setup, int(number[1]) - 1, k, _SERIALS.index(serial.name))
                    for file in sorted(serial.glob("labels_*.npz")):
                        frame = file.stem.removeprefix("labels_")
                        self._units.append((subject.name, sequence.name, serial.name, frame, part))
        if not self._units:
            raise MissingError(f"{root}: no labels_*.npz in <subject>/<sequence>/<serial>; complete the download")
        self.notes = tuple(notes)
        self._places = functools.cache(self._find_places)
        self._camera = functools.cache(self._read_camera)
        self._side = functools.cache(self._read_side)

    def __len__(self) -> int:
        return len(self._units)

    def unit(self, index: int) -> Unit:
        subject, sequence, serial, frame, part = self._units[index]
        folder, *shared = self._places(subject, sequence, serial)
        files = folder / f"labels_{frame}.npz", *shared
        return Unit(f"{subject}/{sequence}/{serial}/{frame}", f"{subject}/{sequence}", part, files)

    def read(self, index: int) -> Iterable[Hand]:
        subject, sequence, serial, frame, _ = self._units[index]
        folder = self._root / subject / sequence / serial
        file = folder / f"labels_{frame}.npz"
        labels = _read_npz(file)
        points = numbers(entry(labels, "joint_3d", file), (1, 21, 3), file, "joint_3d")[0]
        pixels = numbers(entry(labels, "joint_2d", file), (1, 21, 2), file, "joint_2d")[0]
        if (points == -1).all():
            return
        image = folder / f"color_{frame}.jpg"
        name = f"{subject}/{sequence}/{serial}/{frame}"
        yield Hand(
            name=str(image),
            image=photo(image, _SIZE),
            image_key=name,
            pose_key=name,
            side=self._side(subject, sequence),
            visibility=all_visible(),
            keypoints_2d=pixels,
            keypoints_3d=points,
            camera=self._camera(serial),
            mask=functools.partial(_mask, entry(labels, "seg", file), file),
            size=_SIZE,
        )

    def _find_places(self, subject: str, sequence: str, serial: str) -> tuple[Path, Path, Path]:
        """The folder of a camera's frames, and the label files that they share."""
        takes = self._root / subject / sequence
        return takes / serial, takes / "meta.yml", _calibration(self._root, serial)

    def _read_camera(self, serial: str) -> NDArray[np.float64]:
        file = _calibration(self._root, serial)
        text = read_bytes(file).decode("utf-8", "replace")
        colour = re.search(r"^color:\s*\n((?:[ \t]+.*\n?)+)", text, re.MULTILINE)
        found = dict(re.findall(r"^\s+(fx|fy|ppx|ppy):\s*([-+.\deE]+)\s*$", colour[1] if colour else "", re.MULTILINE))
        where = f"{file}, color"
        fx, fy, cx, cy = (numbers(entry(found, key, where), (), where, key) for key in ("fx", "fy", "ppx", "ppy"))
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)

    def _read_side(self, subject: str, sequence: str) -> int:
        file = self._root / subject / sequence / "meta.yml"
        sides = re.search(r"^mano_sides:\s*(?:\n\s*-\s*|\[\s*)['\"]?(left|right)\b", _text(file), re.MULTILINE)
        if sides is None:
            raise DamagedError(f"{file}: has no mano_sides of left or right; download it again")
        return _SIDES[sides[1]]


def _calibration(root: Path, serial: str) -> Path:
    return root / "calibration" / "intrinsics" / f"{serial}_640x480.yml"


def _text(file: Path) -> str:
    return read_bytes(file).decode("utf-8", "replace")


def _read_npz(file: Path) -> dict[str, Any]:
    """The arrays of a label file; none may be a pickle."""
    try:
        with np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except FileNotFoundError as error:
        raise MissingError(f"{file}: is missing; complete the download, or add --skip-missing") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise DamagedError(
            f"{file}: is no sound npz of plain arrays; download it again, or add --skip-missing"
        ) from error


def _mask(classes: Any, file: Path) -> NDArray[np.uint8]:
    """Our mask values: the hand, and the objects as occluders."""
    if not isinstance(classes, np.ndarray) or classes.dtype != np.uint8 or classes.ndim != 2:
        raise DamagedError(f"{file}: seg is no image of 8-bit classes; download it again")
    values = np.full(256, MASK_OCCLUDER, np.uint8)
    values[0], values[255] = 0, MASK_HAND
    return values[classes]

"""HO-3D v2 and v3 (Hampali et al., CVPR 2020): a right hand that holds an object, video with 3D labels.

`{train,evaluation}/<sequence>/{rgb,meta}/%04d.{png (v2) or jpg (v3), pkl}`, listed in `train.txt` and
`evaluation.txt` as `sequence/frame`. The pickles hold handJoints3D (21, 3) in metres and camMat; joints as in MANO,
tips last, in OPENGL's axes (y up, z backward). In the evaluation part as first released only the root is given: such
frames have no labelled hand. Nothing is said about occlusion: every joint counts as visible.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from handaug.data_specs.errors import InputError
from handaug.data_specs.importers.files import entry, find_root, inside, numbers, photo, read_bytes
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import DamagedError, Hand, MissingError, Unit, all_visible
from handaug.data_specs.joints import reorder
from handaug.data_specs.safe_pickle import RefusedPickleError, load_pickle
from handaug.data_specs.schema import RIGHT, TEST, TRAIN

__all__ = ["open_source"]

_PARTS = {"train": TRAIN, "evaluation": TEST}
_SIZE = (640, 480)
_OPENCV_FROM_OPENGL = np.array([1.0, -1.0, -1.0])


def open_source(path: Path, options: ImportOptions) -> "_Ho3d":
    """Open the folder that holds `train.txt`, `evaluation.txt` and their folders."""
    needs = [f"{part}.txt" for part in _PARTS]
    return _Ho3d(find_root(path, "HO-3D", needs, ("HO-3D_v3", "HO-3D_v2", "HO3D_v3", "HO3D_v2")))


class _Ho3d:
    origin = "ho3d"
    labels = ""
    fields = ("keypoints_3d", "camera")

    def __init__(self, root: Path) -> None:
        self._root = root
        self._units: list[tuple[str, str, str]] = []
        notes = []
        for part in _PARTS:
            listing = root / f"{part}.txt"
            if not listing.is_file():
                notes.append(f"no {listing}, so no {part} part")
                continue
            seen = set()
            for number, line in enumerate(read_bytes(listing).decode("utf-8", "replace").split(), 1):
                sequence, _, frame = line.rpartition("/")
                inside(root, line, f"{listing}:{number}")
                if not sequence or line in seen:
                    what = "occurs twice" if line in seen else "should be sequence/frame"
                    raise DamagedError(f"{listing}:{number}: {line[:60]!r} {what}; download it again")
                seen.add(line)
                self._units.append((part, sequence, frame))
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return len(self._units)

    def unit(self, index: int) -> Unit:
        part, sequence, frame = self._units[index]
        # the last digit is the camera: ABF10 .. ABF14 show one recording from five sides
        recording = sequence[:-1] if len(sequence) > 1 and sequence[-2:].isdigit() else sequence
        return Unit(f"{part}/{sequence}/{frame}", recording, _PARTS[part], (self._meta(index),))

    def _meta(self, index: int) -> Path:
        """The label file of a unit."""
        part, sequence, frame = self._units[index]
        return self._root / part / sequence / "meta" / f"{frame}.pkl"

    def read(self, index: int) -> Iterable[Hand]:
        part, sequence, frame = self._units[index]
        folder = self._root / part / sequence
        meta = self._meta(index)
        if not meta.is_file():
            raise MissingError(f"{meta}: is missing; complete the download, or add --skip-missing")
        try:
            labels = load_pickle(meta)
        except RefusedPickleError:
            raise
        except InputError as error:
            raise DamagedError(str(error)) from error
        joints = entry(labels, "handJoints3D", meta)
        if joints is None or np.asarray(joints, object).shape in ((), (3,)):
            return  # not labelled, or the root alone
        camera = numbers(entry(labels, "camMat", meta), (3, 3), meta, "camMat")
        points = numbers(joints, (21, 3), meta, "handJoints3D") * _OPENCV_FROM_OPENGL
        image = folder / "rgb" / f"{frame}.jpg"
        if not image.is_file():
            image = image.with_suffix(".png")
        name = f"{part}/{sequence}/{frame}"
        yield Hand(
            name=str(image),
            image=photo(image, _SIZE),
            image_key=name,
            pose_key=name,
            side=RIGHT,
            visibility=all_visible(),
            keypoints_3d=reorder(points, "mano"),
            camera=camera,
            size=_SIZE,
        )

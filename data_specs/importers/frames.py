"""A folder of pictures without labels, such as the user's own recordings: they lend their look to minted images.

Every picture below SRC is one, in the order of the names and as viewers show it: phones store theirs on the side and
note the turn. The folder in which it lies is its group, since frames of one recording belong together. Nothing is
labelled: `--crop square` takes the middle of the picture, so cut to the hand beforehand where it does not fill the
frame, or take `--crop none`.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from handaug.data_specs.importers.files import find_root, upright_photo
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import Hand, Unit, stable_id
from handaug.data_specs.joints import N_JOINTS
from handaug.data_specs.schema import NOT_LABELLED, TRAIN

__all__ = ["SUFFIXES", "open_source"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""What counts as a picture, in capitals too."""
_OTHERS = (".heic", ".heif", ".avif", ".jfif", ".gif", ".dng", ".cr2", ".nef", ".arw", ".mp4", ".mov", ".avi")
"""Pictures and videos that are not read."""


def open_source(path: Path, options: ImportOptions) -> "_Frames":
    """Open a folder with pictures at any depth."""
    if path.is_dir() and any(map(_is_picture, path.rglob("*"))):
        return _Frames(path)
    return _Frames(find_root(path, "pictures", [f"**/*{suffix}" for suffix in SUFFIXES]))


class _Frames:
    fields = ()

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if _is_picture(path))
        self.notes: tuple[str, ...] = (
            "nothing is labelled: these rows lend their look to minted images and train nothing",
        )
        others = Counter(path.suffix.lower() for path in root.rglob("*"))
        passed = {suffix: others[suffix] for suffix in _OTHERS if others[suffix]}
        if passed:
            kinds = ", ".join(passed)
            self.notes += (f"{sum(passed.values()):,} files passed over ({kinds}); make them JPEG or PNG to take them",)
        # Recordings number their frames alike; how large each file is tells them apart.
        listing = [(name, (root / name).stat().st_size) for name in self._names]
        self.labels = str(stable_id(*listing))
        self.origin = f"frames {self.labels}"

    def __len__(self) -> int:
        return len(self._names)

    def unit(self, index: int) -> Unit:
        name = self._names[index]
        return Unit(name, str(Path(name).parent), TRAIN)

    def read(self, index: int) -> Iterable[Hand]:
        name = self._names[index]
        yield Hand(
            name=str(self._root / name),
            image=upright_photo(self._root / name),
            image_key=name,
            pose_key=name,
            side=None,
            visibility=np.full(N_JOINTS, NOT_LABELLED, np.uint8),
            keypoints_2d=np.full((N_JOINTS, 2), np.nan),
            labelled=False,
        )


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()

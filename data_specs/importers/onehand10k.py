"""OneHand10K (Wang et al., TCSVT 2018): photographs of one main hand, 2D labels.

`{Train,Test}/source/*` and `{Train,Test}/label_joint.txt`, a line for each image: name, width, height, number of
hands, then x, y of 21 joints in our order, in pixels. Joints that cannot be seen are not labelled (-1 or 0). The
labels do not say which hand it is.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.importers.changes import content_digest
from handaug.data_specs.importers.files import find_root, inside, photo, read_bytes
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import DamagedError, Hand, Unit
from handaug.data_specs.schema import NOT_LABELLED, TEST, TRAIN, VISIBLE

__all__ = ["open_source"]

_PARTS = {"Train": TRAIN, "Test": TEST}


def open_source(path: Path, options: ImportOptions) -> "_OneHand10K":
    """Open the folder that holds `Train` and `Test`, or one of them."""
    return _OneHand10K(find_root(path, "OneHand10K", [f"{part}/label_joint.txt" for part in _PARTS], ("OneHand10K",)))


class _OneHand10K:
    origin = "onehand10k"
    fields = ()

    def __init__(self, root: Path) -> None:
        self._root = root
        self._units: list[tuple[str, str, tuple[int, int], NDArray[np.float64]]] = []
        notes = ["the labels do not say which hand it is"]
        files = []
        for part in _PARTS:
            file = root / part / "label_joint.txt"
            if not file.is_file():
                notes.append(f"no {file}, so no {part} part")
                continue
            files.append(file)
            names: set[str] = set()
            for number, line in enumerate(read_bytes(file).decode("utf-8", "replace").splitlines(), 1):
                if line.strip():
                    name, size, points = _parse(line, f"{file}:{number}")
                    if name in names:
                        raise DamagedError(f"{file}:{number}: {name} occurs twice; download it again")
                    names.add(name)
                    self._units.append((part, name, size, points))
        self.labels = content_digest(files)
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return len(self._units)

    def unit(self, index: int) -> Unit:
        part, name, _, _ = self._units[index]
        return Unit(f"{part}/{name}", f"{part}/{name}", _PARTS[part])

    def read(self, index: int) -> Iterable[Hand]:
        part, name, size, hands = self._units[index]
        file = inside(self._root / part / "source", name, self._root / part / "label_joint.txt")
        image = photo(file, size)
        for k, points in enumerate(hands):
            # NaN is no sentinel of this set: it stays labelled, and is refused by name
            known = ~((points < 0).any(-1) | (points == 0).all(-1))
            yield Hand(
                name=str(file),
                image=image,
                image_key=f"{part}/{name}",
                pose_key=f"{part}/{name}/{k}",
                side=None,
                visibility=np.where(known, VISIBLE, NOT_LABELLED).astype(np.uint8),
                keypoints_2d=points,
                size=size,
            )


def _parse(line: str, where: str) -> tuple[str, tuple[int, int], NDArray[np.float64]]:
    """Name, (width, height) and (hands, 21, 2) pixels of one line."""
    name, *rest = (part.strip() for part in line.rstrip(", \t").split(","))
    try:
        width, height = int(float(rest[0])), int(float(rest[1]))
        values = np.array([float(part) for part in rest[3:]])
        if not len(values) or len(values) % 42:
            raise ValueError
    except (ValueError, IndexError, OverflowError):
        raise DamagedError(
            f"{where}: should be name, width, height, number of hands and 21 pairs x, y for each; download it again"
        ) from None
    return name, (width, height), values.reshape(-1, 21, 2)

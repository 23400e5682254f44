"""What a format's reader hands over: units in the source's order, each with the hands labelled in it.

Conventions of a `Hand`, whatever its source used: joints in handaug's order; pixels of the source's image with the
centre of the top-left one at (0, 0); metres in the camera frame, x right, y down, z forward; visibility 0, 1 or 2.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.data_specs.joints import N_JOINTS
from handaug.data_specs.schema import VISIBLE

__all__ = ["DamagedError", "Hand", "Lens", "MissingError", "Pixels", "Source", "Unit", "all_visible", "stable_id"]

Pixels = Callable[[], NDArray[np.uint8]]
"""Loads an image: (H, W) grey or (H, W, 3) blue, green, red. Hands of one image share the object."""


class MissingError(InputError):
    """A file that the labels name is not there; `--skip-missing` leaves its hands out."""


class DamagedError(InputError):
    """A file or label is there and cannot be used; `--skip-missing` leaves its hands out."""


@dataclass(frozen=True)
class Unit:
    """One piece of the source that is read at once: mostly an image."""

    name: str
    """Unique in the source."""
    group: str
    """Subject, sequence or scene: what must not be torn apart by a split."""
    split: int
    """TRAIN, VAL or TEST as the source's makers say."""
    files: tuple[Path, ...] = ()
    """Label files that are read with the unit, and not when the source is opened."""


class Lens(Protocol):
    """A camera that is no pinhole."""

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., 3) metres in the camera frame -> (..., 2) pixels; NaN where the camera cannot see."""


@dataclass(frozen=True)
class Hand:
    """One hand of one image, labelled but for sources of pictures alone."""

    name: str
    """What to call it in messages: the file it comes from."""
    image: Pixels
    """Its image."""
    image_key: str
    """Names the image within the source; two hands of one image share it."""
    pose_key: str
    """Names hand, pose and camera within the source; images that differ only in looks share it."""
    side: int | None
    """LEFT or RIGHT; None where the source does not say."""
    visibility: NDArray[np.uint8]
    """(21,) 0 not labelled, 1 labelled but hidden, 2 visible or not known to be hidden."""
    keypoints_2d: NDArray[np.float64] | None = None
    """(21, 2) pixels; None where they follow from the 3D keypoints."""
    keypoints_3d: NDArray[np.float64] | None = None
    """(21, 3) metres; NaN where not labelled."""
    camera: NDArray[np.float64] | None = None
    """(3, 3) intrinsics of the source's image; with `keypoints_3d` unless `lens` is given."""
    lens: Lens | None = None
    """The camera where it is no pinhole."""
    mask: Pixels | None = None
    """Loads (H, W) uint8 in the values of our field `mask`."""
    size: tuple[int, int] | None = None
    """Width and height that the image must have, where the source says."""
    labelled: bool = True
    """False where the source has pictures alone: then one without a joint is taken all the same."""


class Source(Protocol):
    """An opened dataset. Readers may be called from several threads at once."""

    origin: str
    """Tells this dataset's ids from others': the format's name, and what makes out the data where a format has many."""
    labels: str
    """Digest of the label files that are read when the source is opened, empty where there are none."""
    fields: tuple[str, ...]
    """Optional fields that every hand of this source can fill: of keypoints_3d, camera, mask."""
    notes: tuple[str, ...]
    """What the user should know: parts that were not found, assumptions."""

    def __len__(self) -> int:
        """Number of units."""

    def unit(self, index: int) -> Unit:
        """Name, group and split of a unit; cheap."""

    def read(self, index: int) -> Iterable[Hand]:
        """The hands labelled in a unit, none where nothing is; opens label files, a mask among them, but no image."""


def all_visible() -> NDArray[np.uint8]:
    """Visibility of a hand whose joints are all labelled and none of which is said to be hidden."""
    return np.full(N_JOINTS, VISIBLE, np.uint8)


def stable_id(*parts: Any) -> int:
    """A number in 0 .. 2**63 - 1 made from names; the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1

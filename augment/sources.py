"""What remix must know of the rows that give poses and lend appearances, as tables that every process can load.

An appearance may come from anywhere, also from images of which nothing is known. What is not known is -1:

* a row without a labelled joint has an *unknown side*, whatever its file says, and is used as it is, never mirrored;
* a file without mask and occlusion has *unknown occluders*: its rows lend their appearance to every pose;
* the prior of a disentangler lends appearances that no image has: all of this is unknown of them.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.joints import N_JOINTS
from handaug.data_specs.pictures import EVEN, picture_ids
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import MASK_HAND, MASK_OCCLUDER, OCCLUDED_BY_OBJECT
from handaug.data_specs.writer import replace_atomically

__all__ = ["THUMBNAIL", "UNKNOWN", "SourceTable", "prior_sources", "read_sources"]

UNKNOWN = -1
"""Fold, side or occluders of which nothing is known."""

THUMBNAIL = 8
"""Side of the thumbnails in pixels."""

_BLOCK = 1024
_OTHER_FILE, _PRIOR = 1 << 40, 1 << 41


@dataclass(frozen=True)
class SourceTable:
    """What pairing needs of the split-0 rows of one file; first axis S in every array."""

    rows: NDArray[np.int64]
    """Row numbers in the file; of appearances from the prior, the number of the draw."""
    fold: NDArray[np.int8]
    """The checker's fold that holds the row, -1 where the checker never had it."""
    handedness: NDArray[np.int8]
    """0 left, 1 right, -1 unknown."""
    occluded: NDArray[np.int8]
    """Whether an occluder is in the picture: 0 no, 1 yes, -1 unknown."""
    labelled: NDArray[np.bool_]
    """Whether at least one joint is labelled."""
    pose_id: NDArray[np.int64]
    """A negative number of its own where the file has none, so that no two rows seem to share a pose."""
    appearance_id: NDArray[np.int64]
    """Likewise."""
    picture: NDArray[np.int64]
    """Hash of the pixels (`handaug.data_specs.pictures`)."""
    tone: NDArray[np.float32]
    """Mean brightness of the hand's pixels, 0 to 255 (of the whole image without a mask)."""
    thumbnail: NDArray[np.uint8]
    """(S, 64): the image as 8 x 8 mean grey levels."""
    keypoints_2d: NDArray[np.float32]
    """(S, 21, 2) pixels."""
    visibility: NDArray[np.uint8]
    """(S, 21)."""

    def __len__(self) -> int:
        return len(self.rows)

    def save(self, path: Path) -> None:
        """Write it for other processes."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, **{field.name: getattr(self, field.name) for field in fields(self)})
        replace_atomically(temporary, path)

    @classmethod
    def load(cls, path: Path) -> "SourceTable":
        """Read what `save` wrote."""
        with np.load(path) as stored:
            return cls(**{field.name: stored[field.name] for field in fields(cls)})


def read_sources(data: HandDataset, fold: NDArray[np.int8], *, other_file: bool = False) -> SourceTable:
    """Read the table of a dataset view in blocks.

    Args:
        data: The view.
        fold: (S,) from the checker.
        other_file: Whether it is another file than the one of the poses: then rows without ids are no relatives of
            rows of the same number.
    """
    occluded = np.zeros(len(data), np.int8)
    tone = np.zeros(len(data), np.float32)
    thumbnail = np.zeros((len(data), THUMBNAIL**2), np.uint8)
    picture = np.zeros(len(data), np.int64)
    for start in range(0, len(data), _BLOCK):
        block = slice(start, start + _BLOCK)
        images = data.read("images", block)
        picture[block] = picture_ids(images)
        brightness = images.mean(-1, dtype=np.float32)
        thumbnail[block] = _shrink(brightness)
        weight = np.ones_like(brightness)
        if data.has("mask"):
            mask = data.read("mask", block)
            occluded[block] |= (mask == MASK_OCCLUDER).any((1, 2))
            hand = mask == MASK_HAND
            weight = np.where(hand.any((1, 2), keepdims=True), hand, 1.0)
        if data.has("occlusion"):
            occluded[block] |= (data.read("occlusion", block) == OCCLUDED_BY_OBJECT).any(1)
        tone[block] = (brightness * weight).sum((1, 2)) / weight.sum((1, 2))
    if not (data.has("mask") or data.has("occlusion")):
        occluded[:] = UNKNOWN
    visibility, points, side = _labels(data)
    labelled = (visibility > 0).any(1)
    none = -1 - data.rows - (_OTHER_FILE if other_file else 0)
    return SourceTable(
        rows=data.rows,
        fold=fold,
        handedness=np.where(labelled, side, UNKNOWN).astype(np.int8),
        occluded=occluded,
        labelled=labelled,
        pose_id=data.read("pose_id") if data.has("pose_id") else none,
        appearance_id=data.read("appearance_id") if data.has("appearance_id") else none,
        picture=picture,
        tone=tone,
        thumbnail=thumbnail,
        keypoints_2d=points,
        visibility=visibility,
    )


def prior_sources(count: int) -> SourceTable:
    """Appearances that a model draws from its prior: `count` of them, of which nothing else is known."""
    nothing = np.full(count, UNKNOWN, np.int8)
    ids = -1 - np.arange(count, dtype=np.int64) - _PRIOR
    return SourceTable(
        rows=np.arange(count, dtype=np.int64),
        fold=nothing,
        handedness=nothing,
        occluded=nothing,
        labelled=np.zeros(count, bool),
        pose_id=ids,
        appearance_id=ids,
        picture=np.full(count, EVEN),
        tone=np.full(count, np.nan, np.float32),
        thumbnail=np.zeros((count, THUMBNAIL**2), np.uint8),
        keypoints_2d=np.full((count, N_JOINTS, 2), np.nan, np.float32),
        visibility=np.zeros((count, N_JOINTS), np.uint8),
    )


def _labels(data: HandDataset) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int8]]:
    """Visibility, keypoints and side; a file of unlabelled images may have none of them."""
    if not (data.has("visibility") and data.has("keypoints_2d")):
        unseen = np.zeros((len(data), N_JOINTS), np.uint8)
        return unseen, np.full((*unseen.shape, 2), np.nan, np.float32), np.full(len(data), UNKNOWN, np.int8)
    side = data.read("handedness").astype(np.int8) if data.has("handedness") else np.full(len(data), UNKNOWN, np.int8)
    return data.read("visibility"), data.read("keypoints_2d"), side


def _shrink(brightness: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(N, H, W) grey levels -> (N, 64) means over 8 x 8 cells of as equal a size as there are pixels."""
    edges = [np.linspace(0, side, THUMBNAIL + 1).astype(int)[:-1] for side in brightness.shape[1:]]
    sums = np.add.reduceat(np.add.reduceat(brightness, edges[0], axis=1), edges[1], axis=2)
    counts = [np.diff([*e, side]) for e, side in zip(edges, brightness.shape[1:], strict=True)]
    means: NDArray[np.uint8] = (sums / np.outer(*counts)).round().astype(np.uint8)
    return means.reshape(len(brightness), -1)

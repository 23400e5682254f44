"""How rare a pose or an appearance is among the sources, for pairs that seek coverage.

A row's rarity is its distance to the 8th nearest of at most 2,048 seeded others, over the mean of all rows, kept within
a quarter and four. Poses are compared by their joints about the hand's middle, over its size (3D where there is 3D, so
that the view counts as part of the pose); appearances by their 8 x 8 thumbnails, which show background, light and skin.
"""

import numpy as np
from numpy.typing import NDArray

from handaug.augment.sources import SourceTable
from handaug.data_specs.reader import HandDataset

__all__ = ["appearance_rarity", "pose_rarity", "rarity"]

_NEIGHBOUR = 8
_REFERENCES = 2048
_BLOCK = 1024
_LIMITS = (0.25, 4.0)
_REFERENCE = 23


def pose_rarity(data: HandDataset, table: SourceTable, seed: int) -> NDArray[np.float64]:
    """Rarity of the pose of each row, mean about 1; rows without labels get 1."""
    field = "keypoints_3d" if data.has("keypoints_3d") else "keypoints_2d"
    points = data.read(field).astype(np.float64)
    known = np.isfinite(points).all((1, 2)) & table.labelled
    out = np.ones(len(points))
    if known.any():
        centred = points[known] - points[known].mean(1, keepdims=True)
        size = np.sqrt((centred**2).mean((1, 2), keepdims=True))
        # A left hand is compared as the right hand in the mirror: poses are rare on both sides alike.
        centred[table.handedness[known] == 0, :, 0] *= -1
        out[known] = rarity((centred / np.maximum(size, 1e-9)).reshape(len(centred), -1), seed)
    return out


def appearance_rarity(table: SourceTable, seed: int) -> NDArray[np.float64]:
    """Rarity of the appearance of each row, mean about 1."""
    return rarity(table.thumbnail.astype(np.float64) / 255.0, seed)


def rarity(features: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Rarity of rows by their features (N, D)."""
    count = len(features)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_REFERENCE,)))
    chosen = rng.permutation(count)[:_REFERENCES]
    rank = min(_NEIGHBOUR, len(chosen) - 1)
    if rank < 1:
        return np.ones(count)
    distance = np.empty(count)
    others = features[chosen]
    square = (others**2).sum(1)
    for start in range(0, count, _BLOCK):
        block = features[start : start + _BLOCK]
        d2 = (block**2).sum(1)[:, None] - 2 * block @ others.T + square
        d2[chosen == np.arange(start, start + len(block))[:, None]] = np.inf  # nobody is his own neighbour
        distance[start : start + len(block)] = np.sqrt(np.maximum(np.partition(d2, rank - 1, axis=1)[:, rank - 1], 0))
    mean = distance.mean()
    return np.clip(distance / mean, *_LIMITS) if mean > 0 else np.ones(count)

"""Which pose may be minted with which appearance, and how many images each pose gets.

Rules. Pose row x and appearance row y are paired only where

* one estimator of the checker has seen neither (`fold`: same fold, or one of them was never in the checker's data),
* both show occluders or neither does: an object in front of the hand belongs to the pose, and the decoder would have
  to guess it,
* y shows another pose than x, and x's pose has no true render in y's appearance: a minted image is a new combination,
* the hands are of the same side; where they are not, y is mirrored first.

Candidates of a pose row form one seeded sequence without repetition, which can be entered at any place: an affine walk
j -> (a j + b) mod n over a shuffled list. So shards, refills and resumed runs need no memory of what was drawn.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import MASK_HAND, MASK_OCCLUDER, OCCLUDED_BY_OBJECT

__all__ = ["Pairing", "SourceTable", "read_sources", "split_quota"]

_SHUFFLE, _WALK, _QUOTA = 11, 12, 13
_BLOCK = 1024
_ABSENT = -1


@dataclass(frozen=True)
class SourceTable:
    """What pairing needs of the split-0 rows of one file; first axis S in every array."""

    rows: NDArray[np.int64]
    """Row numbers in the file."""
    fold: NDArray[np.int8]
    """The checker's fold that holds the row, -1 where the checker never had it."""
    handedness: NDArray[np.uint8]
    """0 left, 1 right."""
    occluded: NDArray[np.bool_]
    """Whether an occluder is in the picture."""
    labelled: NDArray[np.bool_]
    """Whether at least one joint is labelled."""
    pose_id: NDArray[np.int64]
    """-1 - row number where the file has none, so that no two rows seem to share a pose."""
    appearance_id: NDArray[np.int64]
    """-1 - row number where the file has none."""
    tone: NDArray[np.float32]
    """Mean brightness of the hand's pixels, 0 to 255 (of the whole image without a mask)."""
    keypoints_2d: NDArray[np.float32]
    """(S, 21, 2) pixels."""
    visibility: NDArray[np.uint8]
    """(S, 21)."""

    def __len__(self) -> int:
        return len(self.rows)


def _ids(data: HandDataset, field: str) -> NDArray[np.int64]:
    return data.read(field) if data.has(field) else -1 - data.rows


def read_sources(data: HandDataset, fold: NDArray[np.int8]) -> SourceTable:
    """Read the table of a dataset view in blocks; `fold` (S,) comes from the checker."""
    occluded = np.zeros(len(data), bool)
    tone = np.zeros(len(data), np.float32)
    for start in range(0, len(data), _BLOCK):
        block = slice(start, start + _BLOCK)
        brightness = data.read("images", block).mean(-1)
        weight = np.ones_like(brightness)
        if data.has("mask"):
            mask = data.read("mask", block)
            occluded[block] |= (mask == MASK_OCCLUDER).any((1, 2))
            hand = mask == MASK_HAND
            weight = np.where(hand.any((1, 2), keepdims=True), hand, 1.0)
        if data.has("occlusion"):
            occluded[block] |= (data.read("occlusion", block) == OCCLUDED_BY_OBJECT).any(1)
        tone[block] = (brightness * weight).sum((1, 2)) / weight.sum((1, 2))
    visibility = data.read("visibility")
    return SourceTable(
        rows=data.rows,
        fold=fold,
        handedness=data.read("handedness"),
        occluded=occluded,
        labelled=(visibility > 0).any(1),
        pose_id=_ids(data, "pose_id"),
        appearance_id=_ids(data, "appearance_id"),
        tone=tone,
        keypoints_2d=data.read("keypoints_2d"),
        visibility=visibility,
    )


def split_quota(total: int, poses: int, seed: int) -> NDArray[np.int64]:
    """Kept samples for each pose row: floor(total / poses), and one more for a seeded choice of rows, so that they
    sum to total.
    """
    quota = np.full(poses, total // poses, np.int64)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_QUOTA,)))
    quota[rng.permutation(poses)[: total % poses]] += 1
    return quota


class Pairing:
    """The candidates of every pose row.

    Args:
        poses: Labelled rows that give pose and label.
        appearances: Rows that lend their appearance.
        seed: Of the walks.
    """

    def __init__(self, poses: SourceTable, appearances: SourceTable, seed: int) -> None:
        self.poses = poses
        self.appearances = appearances
        self._seed = seed
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SHUFFLE,)))
        shuffled = rng.permutation(len(appearances))
        self._lists: dict[tuple[int, bool], NDArray[np.int64]] = {}
        for fold in (_ABSENT, 0, 1):
            for occluded in (False, True):
                fits = appearances.occluded[shuffled] == occluded
                if fold != _ABSENT:
                    fits &= np.isin(appearances.fold[shuffled], (fold, _ABSENT))
                self._lists[fold, occluded] = shuffled[fits]
        # Appearances in which a pose was truly rendered, whichever row it was.
        order = np.argsort(poses.pose_id, kind="stable")
        ids, starts = np.unique(poses.pose_id[order], return_index=True)
        groups = np.split(poses.appearance_id[order], starts[1:])
        self._rendered = {int(k): np.unique(g) for k, g in zip(ids, groups, strict=True)}
        self._appearance_rows = {
            key: _rows_by(appearances.appearance_id, members) for key, members in self._lists.items()
        }
        self._pose_rows = {key: _rows_by(appearances.pose_id, members) for key, members in self._lists.items()}

    def _key(self, pose: int) -> tuple[int, bool]:
        return int(self.poses.fold[pose]), bool(self.poses.occluded[pose])

    def stream_length(self, pose: int) -> int:
        """Length of a pose row's walk; entries that are no new combination are left out when it is read."""
        return len(self._lists[self._key(pose)])

    def capacity(self, pose: int) -> int:
        """Number of images that a pose row can be minted into at all."""
        key = self._key(pose)
        members = self._appearance_rows[key]
        banned = {row for a in self._rendered[int(self.poses.pose_id[pose])] for row in members.get(int(a), ())} | set(
            self._pose_rows[key].get(int(self.poses.pose_id[pose]), ())
        )
        return len(self._lists[key]) - len(banned)

    def candidates(self, pose: int, start: int, count: int) -> tuple[NDArray[np.int64], int]:
        """Read up to `count` candidates of a pose row's walk.

        Args:
            pose: Index into `poses`.
            start: Place in the walk.
            count: Candidates wanted.

        Returns:
            Indices into `appearances`, fewer than `count` only where the walk ends, and the place after the last one.
        """
        pool = self._lists[self._key(pose)]
        total = len(pool)
        if not total:
            return np.empty(0, np.int64), 0
        step, offset = self._walk(pose, total)
        found: list[NDArray[np.int64]] = []
        have = 0
        while have < count and start < total:
            # Most places are candidates: a few more than needed are read, and what is too many is given back.
            places = np.arange(start, min(total, start + count - have + 4), dtype=np.int64)
            picked = pool[(step * places + offset) % total]
            good = np.flatnonzero(self._is_new(pose, picked))[: count - have]
            found.append(picked[good])
            have += len(good)
            start = int(places[good[-1]]) + 1 if have == count else int(places[-1]) + 1
        return (np.concatenate(found) if found else np.empty(0, np.int64)), start

    def _walk(self, pose: int, total: int) -> tuple[int, int]:
        """Step, prime to the length, and offset of a pose row's walk."""
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(_WALK, int(self.poses.rows[pose]))))
        step = int(rng.integers(1, total + 1))
        while math.gcd(step, total) != 1:
            step = step % total + 1
        return step, int(rng.integers(total))

    def _is_new(self, pose: int, picked: NDArray[np.int64]) -> NDArray[np.bool_]:
        pose_id = self.poses.pose_id[pose]
        known = np.isin(self.appearances.appearance_id[picked], self._rendered[int(pose_id)])
        new: NDArray[np.bool_] = ~known & (self.appearances.pose_id[picked] != pose_id)
        return new

    def checker_of(self, pose: NDArray[np.int64], picked: NDArray[np.int64]) -> NDArray[np.int8]:
        """The estimator that has seen neither source of each pair: number k never saw fold k."""
        fold = np.where(self.poses.fold[pose] != _ABSENT, self.poses.fold[pose], self.appearances.fold[picked])
        # Neither source was ever in the checker's data: either estimator will do, poses take turns.
        return np.where(fold == _ABSENT, pose % 2, fold).astype(np.int8)


def _rows_by(ids: NDArray[np.int64], members: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """The members that carry each id."""
    order = members[np.argsort(ids[members], kind="stable")]
    values, starts = np.unique(ids[order], return_index=True)
    return {int(v): part for v, part in zip(values, np.split(order, starts[1:]), strict=True)} if len(order) else {}

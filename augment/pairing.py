"""Which pose may be minted with which appearance, and in which order a pose meets them.

Rules. Pose row x and appearance row y are paired only where

* one estimator of the checker has seen neither (`fold`: same fold, or one of them was never in the checker's data),
* both show occluders or neither does: an object in front of the hand belongs to the pose, and the decoder would have
  to guess it; where it is not known whether y shows one, it may go with any pose,
* y shows another pose than x, and x's pose has no true render in y's appearance: a minted image is a new combination,
* the hands are of the same side, or y's is not known. Only where a pose has too few such appearances for what is
  wanted of it, all poses take those of the other side too, mirrored.

Candidates of a pose row form one seeded sequence without repetition, which can be entered at any place: an affine walk
j -> (a j + b) mod n over a shuffled list. So shards, refills and resumed runs need no memory of what was drawn. Where
appearances have weights the walk makes several rounds, and a hash of the pair says in which of them y's turn comes:
the heavier, the earlier.
"""

import itertools
import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from handaug.augment.sources import UNKNOWN, SourceTable
from handaug.data_specs.schema import LEFT, RIGHT

__all__ = ["Pairing", "pair_hash", "split_quota"]

_SHUFFLE, _WALK, _QUOTA, _ROUND, _PARTNER, _WEIGHT = range(11, 17)
_ROUNDS = 64
_FIRST_ROUND = 8
"""A weight of 1 comes in the first round with probability 1 - exp(-1 / 8), so that chances are nearly proportional."""
_BLEND = (0.2, 0.8)
"""Weights of the first of two blended appearances: nearer to 0 or 1 it would be one of the two."""

_Key = tuple[int, bool, int]
"""Fold, whether occluded, and the side that is asked for (`UNKNOWN`: any)."""


def pair_hash(seed: int, kind: int, *numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 random bits for each tuple of numbers (splitmix64 of Steele et al. 2014, chained)."""
    state = np.full(np.broadcast_shapes(*(n.shape for n in numbers)), seed & (2**64 - 1), np.uint64)
    with np.errstate(over="ignore"):
        for number in (np.int64(kind), *numbers):
            state = state * np.uint64(0x9E3779B97F4A7C15) + np.asarray(number).astype(np.uint64)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def _uniform(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers in (0, 1)."""
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53


def split_quota(total: int, weights: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Kept samples for each pose row, in proportion to its weight.

    Rounded down, and one more for a seeded choice of rows with the largest remainders, so that they sum to total.
    """
    share = total * weights / weights.sum()
    quota: NDArray[np.int64] = np.floor(share + 1e-9).astype(np.int64)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_QUOTA,)))
    order = rng.permutation(len(quota))
    remainder = np.round((share - quota)[order], 9)
    quota[order[np.argsort(-remainder, kind="stable")[: total - int(quota.sum())]]] += 1
    return quota


class Pairing:
    """The candidates of every pose row.

    Args:
        poses: Labelled rows that give pose and label.
        appearances: Rows that lend their appearance.
        seed: Of the walks.
        wanted: Appearances that each pose should have to choose from; fewer, and mirrored ones come in.
        weights: (appearances,) how often each is to come compared with others, mean 1; all alike by default.
    """

    def __init__(
        self,
        poses: SourceTable,
        appearances: SourceTable,
        seed: int,
        *,
        wanted: int = 0,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        self.poses = poses
        self.appearances = appearances
        self._seed = seed
        self._weights = weights
        self._rounds = 1 if weights is None else _ROUNDS
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SHUFFLE,)))
        shuffled = rng.permutation(len(appearances))
        self._lists: dict[_Key, NDArray[np.int64]] = {}
        for key in itertools.product((UNKNOWN, 0, 1), (False, True), (UNKNOWN, LEFT, RIGHT)):
            fits = np.ones(len(shuffled), bool)
            for known, asked in zip((appearances.fold, appearances.occluded, appearances.handedness), key, strict=True):
                if asked != UNKNOWN:
                    fits &= np.isin(known[shuffled], (asked, UNKNOWN))
            self._lists[key] = shuffled[fits]
        # Appearances in which a pose was truly rendered, whichever row it was, as numbers of (pose, appearance).
        self._pose_number = np.unique(poses.pose_id, return_inverse=True)[1].reshape(-1)
        looks, number = np.unique(np.concatenate([poses.appearance_id, appearances.appearance_id]), return_inverse=True)
        number = number.reshape(-1)
        self._looks, self._look_number = len(looks), number[len(poses) :]
        self._rendered = np.unique(self._pose_number * self._looks + number[: len(poses)])
        self.mirrors = False
        labelled = np.flatnonzero(poses.labelled)
        self.mirrors = any(len(self._lists[self._key(int(pose))]) < wanted for pose in labelled)

    def _key(self, pose: int) -> _Key:
        side = UNKNOWN if self.mirrors else int(self.poses.handedness[pose])
        return int(self.poses.fold[pose]), bool(self.poses.occluded[pose] == 1), side

    def is_new(self, pose: NDArray[np.int64], picked: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether pairs are new combinations: another pose, and no true render of x's pose in y's appearance."""
        number = self._pose_number[pose] * self._looks + self._look_number[picked]
        place = np.minimum(np.searchsorted(self._rendered, number), len(self._rendered) - 1)
        new: NDArray[np.bool_] = (self._rendered[place] != number) & (
            self.appearances.pose_id[picked] != self.poses.pose_id[pose]
        )
        return new

    @cached_property
    def _members(self) -> dict[_Key, tuple[dict[int, NDArray[np.int64]], dict[int, NDArray[np.int64]]]]:
        """Of each list, its rows by appearance and by pose."""
        return {
            key: (_rows_by(self._look_number, members), _rows_by(self.appearances.pose_id, members))
            for key, members in self._lists.items()
        }

    def capacity(self, pose: int) -> int:
        """Number of images that a pose row can be minted into at all."""
        key = self._key(pose)
        by_look, by_pose = self._members[key]
        first = self._pose_number[pose] * self._looks
        low, high = np.searchsorted(self._rendered, (first, first + self._looks))
        banned = {row for number in self._rendered[low:high] for row in by_look.get(int(number - first), ())}
        banned |= set(by_pose.get(int(self.poses.pose_id[pose]), ()))
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
        stride = 1 if self._weights is None else _FIRST_ROUND
        found: list[NDArray[np.int64]] = []
        have = 0
        while have < count and start < total * self._rounds:
            # Most places are candidates: a few more than needed are read, and what is too many is given back.
            end = min(total * self._rounds, start + (count - have) * stride + 4)
            places = np.arange(start, end, dtype=np.int64)
            picked = pool[(step * (places % total) + offset) % total]
            here = np.full(len(picked), pose)
            fits = self.is_new(here, picked)
            if self._weights is not None:
                fits &= self._round_of(here, picked) == places // total
            good = np.flatnonzero(fits)[: count - have]
            found.append(picked[good])
            have += len(good)
            start = int(places[good[-1]]) + 1 if have == count else int(places[-1]) + 1
        return (np.concatenate(found) if found else np.empty(0, np.int64)), start

    def _walk(self, pose: int, total: int) -> tuple[int, int]:
        """Step, prime to the length, and offset of a pose row's walk."""
        bits = pair_hash(self._seed, _WALK, np.full(2, self.poses.rows[pose]), np.arange(2))
        step = int(bits[0] % np.uint64(total)) + 1
        while math.gcd(step, total) != 1:
            step = step % total + 1
        return step, int(bits[1] % np.uint64(total))

    def _round_of(self, pose: NDArray[np.int64], picked: NDArray[np.int64]) -> NDArray[np.int64]:
        """The round of the walk in which each pair's turn comes: an exponential clock of rate y's weight."""
        assert self._weights is not None
        bits = pair_hash(self._seed, _ROUND, self.poses.rows[pose], self.appearances.rows[picked])
        waited = -np.log(_uniform(bits)) / self._weights[picked]
        rounds: NDArray[np.int64] = np.minimum(np.floor(_FIRST_ROUND * waited), _ROUNDS - 1).astype(np.int64)
        return rounds

    def partners(
        self, pose: NDArray[np.int64], picked: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """A second appearance for each pair, to blend the first with, and the first one's weight.

        Both are functions of the pair. The second one obeys the same rules; where none was found in 32 draws, it is
        the first one again.
        """
        second = picked.copy()
        weight = _uniform(pair_hash(self._seed, _WEIGHT, self.poses.rows[pose], self.appearances.rows[picked]))
        keys = [self._key(int(x)) for x in pose]
        for key in set(keys):
            mine = np.flatnonzero([other == key for other in keys])
            pool = self._lists[key]
            for attempt in range(32):
                x, y = pose[mine], picked[mine]
                bits = pair_hash(
                    self._seed, _PARTNER, self.poses.rows[x], self.appearances.rows[y], np.full(len(x), attempt)
                )
                drawn = pool[(bits % np.uint64(len(pool))).astype(np.int64)]
                fits = self.is_new(x, drawn) & (self._look_number[drawn] != self._look_number[y])
                # Whoever checks x and y must not have seen the second one either.
                fits &= np.isin(self.appearances.fold[drawn], (UNKNOWN,)) | (
                    self.appearances.fold[drawn] == self.checker_of(x, y)
                )
                second[mine[fits]] = drawn[fits]
                mine = mine[~fits]
                if not len(mine):
                    break
        low, high = _BLEND
        return second, (low + (high - low) * weight).astype(np.float32)

    def checker_of(self, pose: NDArray[np.int64], picked: NDArray[np.int64]) -> NDArray[np.int8]:
        """The estimator that has seen neither source of each pair: number k never saw fold k."""
        fold = np.where(self.poses.fold[pose] != UNKNOWN, self.poses.fold[pose], self.appearances.fold[picked])
        # Neither source was ever in the checker's data: either estimator will do, poses take turns.
        return np.where(fold == UNKNOWN, pose % 2, fold).astype(np.int8)


def _rows_by(ids: NDArray[np.int64], members: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """The members that carry each id."""
    order = members[np.argsort(ids[members], kind="stable")]
    values, starts = np.unique(ids[order], return_index=True)
    return {int(v): part for v, part in zip(values, np.split(order, starts[1:]), strict=True)} if len(order) else {}

"""What each shard of a remix is to mint, and the count of what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.writer import replace_atomically

__all__ = ["SHARD_IMAGES", "Cut", "Example", "ShardPlan", "ShardState", "Tally", "first_plans", "refill_plans"]

SHARD_IMAGES = 2048
"""Images in a shard at most, unless one pose row alone wants more."""

_LEAST_IMAGES = 256
_SHARDS = 16
_CODE_BYTES = 64 << 20
_ORDER, _REFILL = 31, 32
_GIVE_UP_AFTER = 2


@dataclass(frozen=True)
class Cut:
    """How the work is cut into shards."""

    images: int
    """Images in a shard."""
    poses: int
    """Pose rows in a shard: their codes lie in memory."""

    @classmethod
    def of(cls, n: int, code_bytes: int) -> "Cut":
        """For `n` images in all and pose codes of so many bytes. Sixteen shards at least, so that all cores have work,
        but none of less than 256 images.
        """
        images = min(SHARD_IMAGES, max(_LEAST_IMAGES, -(-n // _SHARDS)))
        return cls(min(images, SHARD_IMAGES), max(16, _CODE_BYTES // max(1, code_bytes)))


_COUNTS = ("kept", "tried", "nearer", "blind")


@dataclass
class Tally:
    """Counts by pose row over the shards so far; first axis the pose rows."""

    quota: NDArray[np.int64]
    """Images wanted at first."""
    kept: NDArray[np.int64]
    tried: NDArray[np.int64]
    nearer: NDArray[np.int64]
    """Rejected because the estimate was nearer to the pose of the row that lent its appearance."""
    blind: NDArray[np.int64]
    """Of the others, rejected because the estimate was that of an empty image."""
    place: NDArray[np.int64]
    """Where the row's walk over its candidates stands."""

    @classmethod
    def empty(cls, quota: NDArray[np.int64]) -> "Tally":
        """Nothing done yet."""
        return cls(quota, *(np.zeros_like(quota) for _ in range(5)))

    @property
    def missing(self) -> int:
        """Images still to mint."""
        return int(self.quota.sum() - self.kept.sum())

    def add(self, stats: Mapping[str, NDArray[Any]]) -> None:
        """Add a finished shard."""
        poses = stats["poses"]
        for name in _COUNTS:
            getattr(self, name)[poses] += stats[name]
        self.place[poses] = stats["place"]


@dataclass(frozen=True)
class ShardPlan:
    """Pose rows of one shard; first axis the slots."""

    poses: NDArray[np.int64]
    """Pose rows, each once."""
    need: NDArray[np.int64]
    """Images wanted of each."""
    start: NDArray[np.int64]
    """Where each row's walk begins."""

    def start_state(self, tones: int) -> "ShardState":
        """Counts before the first image; `tones` is the number of tone bins."""
        return ShardState(self, tones)


@dataclass(frozen=True)
class Example:
    """A rejected image for the picture."""

    pose: int
    appearance: int
    second: int
    error: float
    image: NDArray[np.uint8]


@dataclass
class ShardState:
    """Counts of a shard at work."""

    plan: ShardPlan
    tones: int
    examples: list[Example] = field(default_factory=list)

    def __post_init__(self) -> None:
        slots = len(self.plan.poses)
        self.kept, self.tried, self.nearer, self.blind = (np.zeros(slots, np.int64) for _ in _COUNTS)
        self.place = self.plan.start.copy()
        self.ended = np.zeros(slots, bool)
        self.tone_tried, self.tone_kept = (np.zeros(self.tones, np.int64) for _ in range(2))

    def wanted(self, max_tries: int) -> NDArray[np.int64]:
        """Candidates to draw for each slot: what is missing, as far as tries are left.

        A row of which less than 1 / max_tries is kept would run out of tries; that is seen after 2 * max_tries of them.
        """
        left = np.minimum(self.plan.need - self.kept, self.plan.need * max_tries - self.tried)
        hopeless = (self.tried >= _GIVE_UP_AFTER * max_tries) & (self.kept * max_tries < self.tried)
        return np.where(self.ended | hopeless, 0, np.maximum(left, 0))

    def count(
        self,
        slot: NDArray[np.int64],
        keep: NDArray[np.bool_],
        nearer: NDArray[np.bool_],
        blind: NDArray[np.bool_],
        tone: NDArray[np.int64],
    ) -> None:
        """Add a judged block."""
        np.add.at(self.tried, slot, 1)
        np.add.at(self.kept, slot, keep)
        np.add.at(self.nearer, slot, nearer)
        np.add.at(self.blind, slot, blind & ~nearer)
        np.add.at(self.tone_tried, tone, 1)
        np.add.at(self.tone_kept, tone, keep)

    def save(self, path: Path) -> None:
        """Write the counts beside the shard."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(
            temporary,
            poses=self.plan.poses,
            place=self.place,
            tone_tried=self.tone_tried,
            tone_kept=self.tone_kept,
            rejected_rows=np.array([(e.pose, e.appearance, e.second) for e in self.examples], np.int64).reshape(-1, 3),
            rejected_error=np.array([e.error for e in self.examples], np.float32),
            rejected_images=np.array([e.image for e in self.examples], np.uint8),
            **{name: getattr(self, name) for name in _COUNTS},
        )
        replace_atomically(temporary, path)


def _cut(poses: NDArray[np.int64], need: NDArray[np.int64], start: NDArray[np.int64], cut: Cut) -> list[ShardPlan]:
    """Cut pose rows into shards."""
    shard = (np.cumsum(need) - need) // cut.images
    ends = [*(np.flatnonzero(np.diff(shard)) + 1).tolist(), len(poses)]
    edges: list[int] = []
    for end in ends:
        begin = edges[-1] if edges else 0
        edges += [*range(begin + cut.poses, end, cut.poses), end]
    parts = zip(*(np.split(values, edges[:-1]) for values in (poses, need, start)), strict=True)
    return [ShardPlan(p, n, s) for p, n, s in parts if len(p)]


def first_plans(tally: Tally, seed: int, cut: Cut) -> list[ShardPlan]:
    """Shards of the quotas, pose rows in seeded order, so that the first shards speak for all."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_ORDER,)))
    poses = rng.permutation(np.flatnonzero(tally.quota > 0))
    return _cut(poses, tally.quota[poses], tally.place[poses], cut)


def refill_plans(
    tally: Tally, capacity: NDArray[np.int64], bins: NDArray[np.int64], seed: int, cut: Cut
) -> list[ShardPlan]:
    """Give what some pose rows could not fill to others: first to rows of the same pose bin that filled theirs, then
    to any that did, at last to any that have candidates left.

    Args:
        tally: What came of the shards so far.
        capacity: (poses,) candidates of each row.
        bins: (poses,) pose bin of each row.
        seed: Of the order in which rows take one each.
        cut: How to cut them into shards.

    Returns:
        Further shards, none where no candidate is left.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_REFILL,)))
    room = np.maximum(capacity - tally.tried, 0)
    filled = (tally.kept >= tally.quota) & (tally.kept > 0)
    extra = np.zeros_like(tally.quota)
    short = np.maximum(tally.quota - tally.kept, 0)
    surplus = np.maximum(tally.kept - tally.quota, 0)
    by_bin = np.bincount(bins, short, minlength=int(bins.max()) + 1) - np.bincount(
        bins, surplus, minlength=int(bins.max()) + 1
    )
    left = tally.missing
    for k in np.argsort(-by_bin, kind="stable"):
        wanted = min(left, max(0, int(by_bin[k])))
        left -= wanted - _spread(extra, room, filled & (bins == k), wanted, rng)
    for among in (filled, np.ones_like(filled)):
        left = _spread(extra, room, among, left, rng)
    poses = np.flatnonzero(extra)
    return _cut(poses, extra[poses], tally.place[poses], cut)


def _spread(
    extra: NDArray[np.int64],
    room: NDArray[np.int64],
    among: NDArray[np.bool_],
    wanted: int,
    rng: np.random.Generator,
) -> int:
    """Add `wanted` to `extra`, evenly over the rows `among` that have room; returns what found no place."""
    while wanted > 0:
        rows = rng.permutation(np.flatnonzero(among & (room > extra)))
        if not len(rows):
            break
        share = np.full(len(rows), wanted // len(rows), np.int64)
        share[: wanted % len(rows)] += 1
        share = np.minimum(share, (room - extra)[rows])
        extra[rows] += share
        wanted -= int(share.sum())
    return wanted

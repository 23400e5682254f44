"""What each shard of a remix is to mint, and the count of what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.writer import replace_atomically

__all__ = ["SHARD_IMAGES", "ShardPlan", "ShardState", "Tally", "first_plans", "refill_plans"]

SHARD_IMAGES = 2048
"""Images in a shard, unless one pose row alone wants more."""

_ORDER, _REFILL = 31, 32


@dataclass
class Tally:
    """Counts by pose row over the shards so far; first axis the pose rows."""

    quota: NDArray[np.int64]
    """Images wanted at first."""
    kept: NDArray[np.int64]
    tried: NDArray[np.int64]
    strays: NDArray[np.int64]
    """Rejected because the estimate was nearer to the appearance source's pose, or to that of an empty image."""
    place: NDArray[np.int64]
    """Where the row's walk over its candidates stands."""

    @classmethod
    def empty(cls, quota: NDArray[np.int64]) -> "Tally":
        """Nothing done yet."""
        return cls(quota, *(np.zeros_like(quota) for _ in range(4)))

    @property
    def missing(self) -> int:
        """Images still to mint."""
        return int(self.quota.sum() - self.kept.sum())

    def add(self, stats: Mapping[str, NDArray[Any]]) -> None:
        """Add a finished shard."""
        poses = stats["poses"]
        self.kept[poses] += stats["kept"]
        self.tried[poses] += stats["tried"]
        self.strays[poses] += stats["strays"]
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


@dataclass
class ShardState:
    """Counts of a shard at work."""

    plan: ShardPlan
    tones: int
    errors: list[NDArray[np.float32]] = field(default_factory=list)
    examples: list[tuple[int, int, float, NDArray[np.uint8]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        slots = len(self.plan.poses)
        self.kept, self.tried, self.strays = (np.zeros(slots, np.int64) for _ in range(3))
        self.place = self.plan.start.copy()
        self.ended = np.zeros(slots, bool)
        self.tone_tried, self.tone_kept = (np.zeros(self.tones, np.int64) for _ in range(2))

    def wanted(self, max_tries: int) -> NDArray[np.int64]:
        """Candidates to draw for each slot: what is missing, as far as tries are left."""
        left = np.minimum(self.plan.need - self.kept, self.plan.need * max_tries - self.tried)
        return np.where(self.ended, 0, np.maximum(left, 0))

    def count(
        self,
        slot: NDArray[np.int64],
        keep: NDArray[np.bool_],
        strays: NDArray[np.bool_],
        tone: NDArray[np.int64],
        error: NDArray[np.float32],
    ) -> None:
        """Add a judged block."""
        np.add.at(self.tried, slot, 1)
        np.add.at(self.kept, slot, keep)
        np.add.at(self.strays, slot, strays)
        np.add.at(self.tone_tried, tone, 1)
        np.add.at(self.tone_kept, tone, keep)
        self.errors.append(error)

    def show_rejected(
        self,
        pose: NDArray[np.int64],
        appearance: NDArray[np.int64],
        images: NDArray[np.uint8],
        error: NDArray[np.float32],
        rejected: NDArray[np.bool_],
        limit: int,
    ) -> None:
        """Remember a few rejected images for the picture."""
        for i in np.flatnonzero(rejected)[: max(0, limit - len(self.examples))]:
            self.examples.append((int(pose[i]), int(appearance[i]), float(error[i]), images[i]))

    def save(self, path: Path) -> None:
        """Write the counts beside the shard."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(
            temporary,
            poses=self.plan.poses,
            kept=self.kept,
            tried=self.tried,
            strays=self.strays,
            place=self.place,
            tone_tried=self.tone_tried,
            tone_kept=self.tone_kept,
            errors=np.concatenate(self.errors) if self.errors else np.empty(0, np.float32),
            rejected_pose=np.array([e[0] for e in self.examples], np.int64),
            rejected_appearance=np.array([e[1] for e in self.examples], np.int64),
            rejected_error=np.array([e[2] for e in self.examples], np.float32),
            rejected_images=np.array([e[3] for e in self.examples], np.uint8),
        )
        replace_atomically(temporary, path)


def _cut(poses: NDArray[np.int64], need: NDArray[np.int64], start: NDArray[np.int64]) -> list[ShardPlan]:
    """Cut pose rows into shards of about `SHARD_IMAGES` images."""
    shard = (np.cumsum(need) - need) // SHARD_IMAGES
    edges = np.flatnonzero(np.diff(shard)) + 1
    parts = zip(np.split(poses, edges), np.split(need, edges), np.split(start, edges), strict=True)
    return [ShardPlan(p, n, s) for p, n, s in parts if len(p)]


def first_plans(tally: Tally, seed: int) -> list[ShardPlan]:
    """Shards of the quotas, pose rows in seeded order, so that the first shards speak for all."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_ORDER,)))
    poses = rng.permutation(np.flatnonzero(tally.quota > 0))
    return _cut(poses, tally.quota[poses], tally.place[poses])


def refill_plans(tally: Tally, capacity: NDArray[np.int64], bins: NDArray[np.int64], seed: int) -> list[ShardPlan]:
    """Give what some pose rows could not fill to others: first to rows of the same pose bin that filled theirs, then
    to any that did, at last to any that have candidates left.

    Args:
        tally: What came of the shards so far.
        capacity: (poses,) candidates of each row.
        bins: (poses,) pose bin of each row.
        seed: Of the order in which rows take one each.

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
    return _cut(poses, extra[poses], tally.place[poses])


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

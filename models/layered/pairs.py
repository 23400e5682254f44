"""Batches in which every mix has its true render.

Rows are edges between the poses and the appearances they show. A walk that leaves each row alternately by its pose
and by its appearance, r0 -pose- r1 -appearance- r2 -pose- r3 ..., puts the sources of a mix beside its truth: of
three neighbours, the middle one shows the pose of one neighbour in the appearance of the other. So one encoding of n
rows serves almost n mixes, at half the price of drawing x, y and the truth for each.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["WalkSampler", "sources_of_walk"]

_LENGTH = 16
"""Rows of a walk; its two ends are targets of no mix."""


class WalkSampler:
    """Draws walks over the rows of a dataset.

    Args:
        pose: (N,) pose ids.
        appearance: (N,) appearance ids.
    """

    def __init__(self, pose: NDArray[np.int64], appearance: NDArray[np.int64]) -> None:
        self._pose, self._appearance = pose, appearance
        self._by_pose, self._by_appearance = _rows_of(pose), _rows_of(appearance)
        rows = list(zip(pose.tolist(), appearance.tolist(), strict=True))
        shared = [bool((appearance[self._by_pose[p]] != a).any()) for p, a in rows]
        others = [bool((pose[self._by_appearance[a]] != p).any()) for p, a in rows]
        self.targets: NDArray[np.int64] = np.flatnonzero(np.array(shared, bool) & np.array(others, bool))
        """Rows that are the true render of some mix."""

    def batch(self, rng: np.random.Generator, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw one batch.

        Args:
            rng: Of this step.
            rows: How many, at least 3.

        Returns:
            (rows,) row numbers, and (M, 3) places in the batch of x, y, z, with M at least 1: z shows the pose of x in
            the appearance of y.
        """
        drawn: list[int] = []
        triples: list[tuple[int, int, int]] = []
        while len(drawn) < rows:
            walk, kinds = self._walk(rng, min(_LENGTH, rows - len(drawn)))
            triples += [(x + len(drawn), y + len(drawn), z + len(drawn)) for x, y, z in sources_of_walk(kinds)]
            drawn += walk
        if not triples:  # walks are cut short where few rows are alike
            drawn[:3], triples = self._mix(rng), [(0, 2, 1)]
        return np.array(drawn, np.int64), np.array(triples, np.int64).reshape(-1, 3)

    def _walk(self, rng: np.random.Generator, length: int) -> tuple[list[int], list[str]]:
        """Rows, and for each step between them by what they are alike: "pose" or "appearance"."""
        row = int(rng.choice(self.targets))
        walk, kinds = [row], [str(rng.choice(["pose", "appearance"]))]
        while len(walk) < length:
            row = self._leave(rng, row, kinds[-1])
            if row < 0:
                break
            walk.append(row)
            kinds.append("appearance" if kinds[-1] == "pose" else "pose")
        return walk, kinds[: len(walk) - 1]

    def _mix(self, rng: np.random.Generator) -> list[int]:
        """The rows x, z, y of one mix."""
        z = int(rng.choice(self.targets))
        return [self._leave(rng, z, "pose"), z, self._leave(rng, z, "appearance")]

    def _leave(self, rng: np.random.Generator, row: int, kind: str) -> int:
        """Another row of the same pose (in another appearance), or of the same appearance (in another pose)."""
        if kind == "pose":
            others = self._by_pose[int(self._pose[row])]
            others = others[self._appearance[others] != self._appearance[row]]
        else:
            others = self._by_appearance[int(self._appearance[row])]
            others = others[self._pose[others] != self._pose[row]]
        return int(rng.choice(others)) if len(others) else -1


def sources_of_walk(kinds: list[str]) -> list[tuple[int, int, int]]:
    """Places (x, y, z) of all mixes of a walk; `kinds[i]` says what rows i and i + 1 have in common."""
    return [(z - 1, z + 1, z) if kinds[z - 1] == "pose" else (z + 1, z - 1, z) for z in range(1, len(kinds))]


def _rows_of(ids: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    order = np.argsort(ids, kind="stable")
    values, starts = np.unique(ids[order], return_index=True)
    return {int(v): part for v, part in zip(values, np.split(order, starts[1:]), strict=True)} if len(ids) else {}

"""The gain of one arm over another, with an interval that knows what was random: the training seed and the choice of
test groups.

Images of one group (a pose, a subject, a sequence) go wrong together, so rows are never resampled. Seeds and test
groups are crossed, not nested: every seed is tested on the same groups. A bootstrap replicate therefore draws seeds
with replacement and one set of groups with replacement for all of them, and both arms get the same draw, since they
share seeds and test rows. Of S seeds S - 1 are drawn: with S the variance would be too small by (S - 1) / S (Rao and
Wu, Resampling inference with complex survey data, JASA 1988, with m = n - 1). One seed tells nothing of its spread.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ErrorSums", "Gain", "relative_gain"]

_CHUNK_BYTES = 64 << 20
_DRAW = 41


@dataclass(frozen=True)
class ErrorSums:
    """Errors of one arm, summed over the joints of each test group."""

    totals: NDArray[np.float64]
    """(seeds, groups) sum of the joint errors in pixels."""
    counts: NDArray[np.float64]
    """(groups,) number of labelled joints."""

    @classmethod
    def of(cls, distances: NDArray[np.float64], groups: NDArray[np.int64]) -> "ErrorSums":
        """Sum up errors.

        Args:
            distances: (seeds, rows, joints) pixels, NaN where a joint is not labelled.
            groups: (rows,) group of each row.
        """
        _, place = np.unique(groups, return_inverse=True)
        total = int(place.max()) + 1
        finite = np.isfinite(distances)
        rows = np.where(finite, distances, 0).sum(2)
        totals = np.stack([np.bincount(place, row, minlength=total).astype(np.float64) for row in rows])
        return cls(totals, np.bincount(place, finite[0].sum(1), minlength=total).astype(np.float64))

    def mean(self) -> float:
        """Mean joint error over seeds and test joints, pixels."""
        return float(self.totals.mean(0).sum() / self.counts.sum())


@dataclass(frozen=True)
class Gain:
    """Relative error reduction in %, positive where the candidate is better."""

    mean: float
    """Of all seeds and groups as they are."""
    ci95: tuple[float, float]
    """2.5th and 97.5th percentile of the bootstrap."""
    n_seeds: int


def relative_gain(baseline: ErrorSums, candidate: ErrorSums, *, replicates: int, seed: int) -> Gain:
    """100 (1 - E(candidate) / E(baseline)) and its bootstrap interval.

    Args:
        baseline: The arm to beat.
        candidate: The other arm, with the same seeds and groups.
        replicates: Bootstrap draws.
        seed: Of the draws.
    """
    # A draw of groups without any label would have no error to compare.
    labelled = baseline.counts > 0
    totals = [arm.totals[:, labelled] for arm in (baseline, candidate)]
    seeds, groups = totals[0].shape
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DRAW,)))
    chunk = max(1, min(replicates, _CHUNK_BYTES // (8 * groups)))
    drawn = max(1, seeds - 1)
    gains = []
    for start in range(0, replicates, chunk):
        count = min(chunk, replicates - start)
        of_seed = rng.multinomial(drawn, np.full(seeds, 1 / seeds), size=count).astype(np.float64)
        of_group = rng.multinomial(groups, np.full(groups, 1 / groups), size=count).astype(np.float64)
        # The joint counts cancel: both arms are measured on the same joints.
        errors = [np.einsum("bs,sg,bg->b", of_seed, arm, of_group, optimize=True) for arm in totals]
        gains.append(100 * (1 - errors[1] / errors[0]))
    low, high = np.percentile(np.concatenate(gains), (2.5, 97.5))
    return Gain(100 * (1 - candidate.mean() / baseline.mean()), (float(low), float(high)), seeds)

"""Gains and their intervals against closed forms."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from handaug.augment.bootstrap import ErrorSums, relative_gain


def _sums(errors: NDArray[Any], joints: int = 1) -> ErrorSums:
    """Each group one row with `joints` joints of the same error; errors (seeds, groups)."""
    return ErrorSums.of(np.repeat(errors[..., None], joints, axis=2), np.arange(errors.shape[1]))


def test_gain_of_a_constant_ratio_is_exact_with_an_empty_interval() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 9, (3, 40))
    gain = relative_gain(_sums(base), _sums(0.8 * base), replicates=500, seed=0)
    assert gain.mean == pytest.approx(20.0)
    assert gain.ci95 == pytest.approx((20.0, 20.0))
    assert relative_gain(_sums(base), _sums(base), replicates=500, seed=0).mean == pytest.approx(0.0)
    assert relative_gain(_sums(base), _sums(1.1 * base), replicates=500, seed=0).mean == pytest.approx(-10.0)


def test_interval_over_groups_has_the_width_of_the_normal_approximation() -> None:
    """One seed, baseline error 1 everywhere: the gain is 100 (1 - mean of the candidate), whose bootstrap error is
    known.
    """
    rng = np.random.default_rng(1)
    candidate = rng.normal(0.9, 0.2, (1, 400))
    gain = relative_gain(_sums(np.ones((1, 400))), _sums(candidate), replicates=8000, seed=0)
    expected = 1.96 * 100 * candidate.std() / np.sqrt(400)
    assert gain.mean == pytest.approx(100 * (1 - candidate.mean()))
    assert (gain.ci95[1] - gain.ci95[0]) / 2 == pytest.approx(expected, rel=0.05)


def test_interval_over_seeds_does_not_shrink_with_more_test_groups() -> None:
    """Seeds that differ by s: the half width is about 1.96 s / sqrt(seeds), however many groups are tested."""
    rng = np.random.default_rng(2)
    offsets = rng.normal(0, 0.1, (8, 1))
    widths = []
    for groups in (50, 2000):
        gain = relative_gain(
            _sums(np.ones((8, groups))), _sums(0.9 + offsets + np.zeros((8, groups))), replicates=8000, seed=0
        )
        widths.append((gain.ci95[1] - gain.ci95[0]) / 2)
    assert widths[0] == pytest.approx(widths[1], rel=0.05)
    assert widths[0] == pytest.approx(1.96 * 100 * offsets.std(ddof=1) / np.sqrt(8), rel=0.04)


def test_rows_of_a_group_count_as_one_draw() -> None:
    """Fifty copies of each row say nothing new: the interval stays as wide as with one row each."""
    rng = np.random.default_rng(3)
    candidate = rng.normal(0.9, 0.3, (1, 30))
    once = relative_gain(_sums(np.ones((1, 30))), _sums(candidate), replicates=4000, seed=0)
    groups = np.repeat(np.arange(30), 50)
    many = relative_gain(
        ErrorSums.of(np.ones((1, 1500, 1)), groups),
        ErrorSums.of(np.repeat(candidate, 50, axis=1)[..., None], groups),
        replicates=4000,
        seed=0,
    )
    assert many.ci95 == pytest.approx(once.ci95)


def test_groups_without_labels_change_nothing() -> None:
    rng = np.random.default_rng(4)
    errors, more = rng.uniform(1, 2, (2, 1, 2)), np.full((1, 3), np.nan)
    bare = relative_gain(_sums(errors[0]), _sums(errors[1]), replicates=500, seed=0)
    padded = [_sums(np.concatenate([arm, more], 1)) for arm in errors]
    assert relative_gain(*padded, replicates=500, seed=0) == bare and np.isfinite(bare.ci95).all()


def test_error_sums_leave_unlabelled_joints_out() -> None:
    errors = np.array([[[1.0, np.nan], [3.0, 5.0]]])
    sums = ErrorSums.of(errors, np.array([7, 9]))
    assert sums.mean() == pytest.approx(3.0)
    assert sums.counts.tolist() == [1, 2]

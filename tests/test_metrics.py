"""Metrics against closed forms and SciPy's own Procrustes."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.spatial import procrustes
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation
from torchmetrics import MeanSquaredError
from torchmetrics.utilities.compute import auc

from handaug.data_specs.joints import JOINTS
from handaug.models.metrics import (
    BOX_GRID,
    MM_FAR_GRID,
    MM_GRID,
    PX_GRID,
    KeypointMetrics,
    KeypointMetrics3D,
    align_similarity,
    area_under_pck,
    error_by_joint,
    error_by_visibility,
    hand_box_sides,
    keypoint_distances,
    pa_mpjpe,
    pck_curve,
)


def _metrics(error: NDArray[Any], visibility: NDArray[Any] | None = None) -> dict[str, float]:
    metrics = KeypointMetrics()
    true = np.random.default_rng(0).uniform(0, 64, error.shape)
    metrics.update(true + error, true, np.ones(error.shape[:2]) if visibility is None else visibility)
    return metrics.compute()


def test_both_readings_of_mse() -> None:
    error = np.zeros((1, 4, 2))
    error[0, :, 0] = [0.0, 1.0, 2.0, 5.0]
    figures = _metrics(error)
    assert figures["mse_mean_distance_px"] == pytest.approx(2.0)
    assert figures["mse_mean_square_px2"] == pytest.approx(7.5)
    assert figures["epe_median_px"] == pytest.approx(1.5)
    assert figures["epe_mean_px"] == figures["mse_mean_distance_px"]


def test_unlabelled_joints_do_not_count_even_as_nan() -> None:
    error = np.zeros((2, 3, 2))
    error[0, 0] = np.nan
    error[1, 2] = [3.0, 4.0]
    visibility = np.array([[0, 1, 2], [1, 1, 2]])
    figures = _metrics(error, visibility)
    assert figures["joints"] == 5
    assert figures["epe_mean_px"] == pytest.approx(1.0)


def test_no_labelled_joint_gives_nan_not_zero() -> None:
    figures = _metrics(np.zeros((1, 3, 2)), np.zeros((1, 3)))
    assert figures["joints"] == 0
    assert np.isnan(figures["epe_mean_px"]) and np.isnan(figures["auc_0_30_px"])


def test_auc_of_uniform_errors_is_one_half() -> None:
    distances = np.linspace(0, 30, 300_001)
    assert area_under_pck(distances, PX_GRID) == pytest.approx(0.5, abs=1e-4)
    assert area_under_pck(np.array([0.0]), PX_GRID) == 1.0
    assert area_under_pck(np.array([31.0]), PX_GRID) == 0.0
    # One error of 35 mm on 20 to 50 mm: zero before the step, one after it, one trapezoid of 1 mm across it.
    assert area_under_pck(np.array([34.5]), MM_FAR_GRID) == pytest.approx((15 + 0.5) / 30)


def test_pck_counts_the_threshold_itself() -> None:
    assert pck_curve(np.array([1.0, 2.0, np.nan]), np.array([0.5, 1.0, 2.0])).tolist() == [0.0, 0.5, 1.0]


def test_batches_add_up_exactly() -> None:
    rng = np.random.default_rng(1)
    predicted, true = rng.uniform(0, 64, (2, 10, 21, 2))
    visibility = rng.integers(0, 3, (10, 21))
    whole, parts = KeypointMetrics(), KeypointMetrics()
    whole.update(predicted, true, visibility)
    for rows in (slice(0, 3), slice(3, 10)):
        parts.update(predicted[rows], true[rows], visibility[rows])
    assert whole.compute() == parts.compute()


def test_hand_box_is_that_of_labelled_joints() -> None:
    true = np.array([[[0.0, 0.0], [10.0, 4.0], [500.0, np.nan]]])
    assert hand_box_sides(true, np.array([[1, 2, 0]])).tolist() == [10.0]
    figures = KeypointMetrics()
    figures.update(true + [[[1.0, 0.0]]], true, np.array([[1, 2, 0]]))
    # Every error is 0.1 of the box: PCK is 0 below and 1 from 0.1 of 0.3 on, with one trapezoid across.
    assert figures.compute()["auc_0_0.3_box"] == pytest.approx(20.5 / 30, abs=0.02)


def test_alignment_undoes_any_similarity() -> None:
    rng = np.random.default_rng(2)
    for seed in range(20):
        true = rng.normal(size=(21, 3))
        moved = 3.7 * true @ Rotation.random(random_state=seed).as_matrix() + rng.normal(size=3)
        assert np.abs(align_similarity(moved, true) - true).max() < 1e-9


def test_alignment_agrees_with_scipy_where_that_is_proper() -> None:
    rng = np.random.default_rng(3)
    checked = 0
    for _ in range(30):
        true = rng.normal(size=(21, 3))
        predicted = true + rng.normal(scale=0.3, size=true.shape)
        standard, fitted, disparity = procrustes(true, predicted)
        spread = np.linalg.norm(true - true.mean(0))
        residual = ((align_similarity(predicted, true) - true) ** 2).sum() / spread**2
        assert residual == pytest.approx(disparity, rel=1e-9)
        checked += 1
    assert checked == 30


def test_a_mirrored_hand_stays_wrong() -> None:
    true = np.random.default_rng(4).normal(size=(1, 21, 3))
    mirrored = true * [1.0, 1.0, -1.0]
    seen = np.ones((1, 21))
    assert procrustes(true[0], mirrored[0])[2] < 1e-12  # SciPy reflects
    assert pa_mpjpe(mirrored, true, seen)[0] > 0.1
    # The best proper rotation cannot be beaten by any of many tried ones.
    best = ((align_similarity(mirrored[0], true[0]) - true[0]) ** 2).sum()
    centred, target = mirrored[0] - mirrored[0].mean(0), true[0] - true[0].mean(0)
    for seed in range(300):
        turned = centred @ Rotation.random(random_state=seed).as_matrix()
        scale = max(0.0, (turned * target).sum() / (turned**2).sum())
        assert ((scale * turned - target) ** 2).sum() >= best - 1e-9


def test_pa_mpjpe_uses_labelled_joints_alone() -> None:
    rng = np.random.default_rng(5)
    true = rng.normal(size=(2, 21, 3))
    predicted = 2.0 * true @ Rotation.random(random_state=0).as_matrix()
    predicted[:, 0] = 1e6
    visibility = np.ones((2, 21))
    visibility[:, 0] = 0
    visibility[1, 2:] = 0
    aligned = pa_mpjpe(predicted, true, visibility)
    assert aligned[0] < 1e-9
    assert np.isnan(aligned[1])


def test_distances_keep_their_rows() -> None:
    distances = keypoint_distances(np.full((1, 2, 2), 3.0), np.zeros((1, 2, 2)), np.array([[0, 1]]))
    assert np.isnan(distances[0, 0])
    assert distances[0, 1] == pytest.approx(np.sqrt(18))


def _random_hands(seed: int, count: int = 12, dimensions: int = 2) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Predictions, labels with NaN where nothing is labelled, and visibility; wrists are labelled."""
    rng = np.random.default_rng(seed)
    true = rng.normal(scale=20.0 if dimensions == 2 else 0.04, size=(count, 21, dimensions))
    predicted = true + rng.normal(scale=6.0 if dimensions == 2 else 0.02, size=true.shape)
    visibility = rng.integers(0, 3, (count, 21)).astype(np.uint8)
    visibility[:, 0] = 2
    true[visibility == 0] = np.nan
    return predicted, true, visibility


def test_2d_figures_agree_with_torchmetrics_and_scipy() -> None:
    predicted, true, visibility = _random_hands(10)
    metrics = KeypointMetrics()
    metrics.update(predicted, true, visibility)
    figures = metrics.compute()
    seen = visibility > 0
    squared = MeanSquaredError()
    squared.update(torch.from_numpy(predicted[seen]), torch.from_numpy(true[seen]))
    assert figures["mse_mean_square_px2"] == pytest.approx(2 * float(squared.compute()), rel=1e-6)
    one_by_one = np.array([cdist(p[None], t[None])[0, 0] for p, t in zip(predicted[seen], true[seen], strict=True)])
    assert figures["epe_mean_px"] == pytest.approx(one_by_one.mean())
    assert figures["epe_median_px"] == pytest.approx(np.median(one_by_one))
    share = np.array([(one_by_one <= limit).mean() for limit in PX_GRID])
    assert figures["auc_0_30_px"] == pytest.approx(trapezoid(share, PX_GRID) / 30)
    assert figures["auc_0_30_px"] == pytest.approx(float(auc(torch.tensor(PX_GRID), torch.tensor(share))) / 30)
    sides = np.array([max(np.ptp(t[s, 0]), np.ptp(t[s, 1])) for t, s in zip(true, seen, strict=True)])
    of_box = one_by_one / np.repeat(sides, seen.sum(1))
    assert figures["epe_median_box"] == pytest.approx(np.median(of_box))
    assert figures["epe_mean_box"] == pytest.approx(of_box.mean())
    share = np.array([(of_box <= limit + 1e-12).mean() for limit in BOX_GRID])
    assert figures["auc_0_0.3_box"] == pytest.approx(trapezoid(share, BOX_GRID) / 0.3)


def test_3d_figures_agree_with_loops_and_scipys_rotations() -> None:
    """Root-relative, in millimetres; PA-MPJPE against SciPy's own best proper rotation (Kabsch) with the best scale."""
    predicted, true, visibility = _random_hands(11, dimensions=3)
    metrics = KeypointMetrics3D()
    for rows in (slice(0, 5), slice(5, 12)):
        metrics.update(predicted[rows], true[rows], visibility[rows])
    figures = metrics.compute()
    errors, aligned = [], []
    for p, t, s in zip(predicted, true, visibility > 0, strict=True):
        errors += [1000 * np.linalg.norm((p[j] - p[0]) - (t[j] - t[0])) for j in np.flatnonzero(s) if j]
        source, target = p[s] - p[s].mean(0), t[s] - t[s].mean(0)
        turned = Rotation.align_vectors(target, source)[0].apply(source)
        turned *= (turned * target).sum() / (turned**2).sum()
        aligned.append(1000 * np.linalg.norm(turned - target, axis=1).mean())
    assert figures["joints_3d"] == len(errors)
    assert figures["epe_mean_mm"] == pytest.approx(np.mean(errors))
    assert figures["epe_median_mm"] == pytest.approx(np.median(errors))
    assert figures["pa_mpjpe_mm"] == pytest.approx(np.mean(aligned))
    for name, grid in (("auc_20_50_mm", MM_FAR_GRID), ("auc_0_50_mm", MM_GRID)):
        share = np.array([(np.array(errors) <= limit).mean() for limit in grid])
        assert figures[name] == pytest.approx(trapezoid(share, grid) / (grid[-1] - grid[0]))


def test_3d_needs_a_root_and_mirrored_hands_stay_wrong() -> None:
    _, true, visibility = _random_hands(12, dimensions=3)
    visibility[:] = 2
    true = np.nan_to_num(true, nan=0.01)
    moved = 1.7 * true @ Rotation.random(random_state=1).as_matrix() + [0.1, -0.2, 0.9]
    metrics = KeypointMetrics3D()
    metrics.update(moved, true, visibility)
    assert metrics.compute()["pa_mpjpe_mm"] < 1e-9 < 10 < metrics.compute()["epe_mean_mm"]
    mirrored = KeypointMetrics3D()
    mirrored.update(true * np.array([1.0, 1.0, -1.0]), true, visibility)
    assert mirrored.compute()["pa_mpjpe_mm"] > 5
    visibility[:4, 0] = 0
    rootless = KeypointMetrics3D()
    rootless.update(moved, true, visibility)
    assert rootless.compute()["joints_3d"] == 8 * 20
    visibility[:, 0] = 0
    nothing = KeypointMetrics3D()
    nothing.update(moved, true, visibility)
    assert np.isnan(nothing.compute()["epe_mean_mm"]) and np.isnan(nothing.compute()["pa_mpjpe_mm"])


def test_errors_by_joint_and_by_visibility_are_those_of_the_joints() -> None:
    predicted, true, visibility = _random_hands(13)
    visibility[:, 7] = 0
    distances = keypoint_distances(predicted, true, visibility)
    joints = error_by_joint(distances)
    assert list(joints) == [name for k, name in enumerate(JOINTS) if k != 7]
    column = np.linalg.norm(predicted - true, axis=-1)
    assert joints["index_tip"] == pytest.approx(column[visibility[:, 8] > 0, 8].mean())
    kinds = error_by_visibility(distances, visibility)
    assert kinds == {
        "hidden": pytest.approx(column[visibility == 1].mean()),
        "visible": pytest.approx(column[visibility == 2].mean()),
    }
    assert list(error_by_visibility(distances, np.where(visibility == 1, 2, visibility))) == ["visible"]

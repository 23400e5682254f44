"""What is measured of predicted keypoints. Pure functions on NumPy arrays, and one class that adds batches up.

Every figure counts joints with visibility >= 1 only. Units are those of the input (pixels or metres) unless a name says
otherwise; lower is better except for PCK and AUC. "MSE (in pixels)" of Li et al. 2019 does not say whether it
averages distances or squared distances, so both are reported, each under a name that says which.

A PCK curve is the share of joints within each threshold of a stated grid; its AUC is the trapezoid area under it
divided by the grid's span, so 1 is perfect.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.joints import JOINTS
from handaug.data_specs.schema import HIDDEN, VISIBLE

__all__ = [
    "BOX_GRID",
    "MM_FAR_GRID",
    "MM_GRID",
    "PX_GRID",
    "KeypointMetrics",
    "KeypointMetrics3D",
    "align_similarity",
    "area_under_pck",
    "error_by_joint",
    "error_by_visibility",
    "hand_box_sides",
    "keypoint_distances",
    "pa_mpjpe",
    "pck_curve",
]

FloatArray = NDArray[np.floating[Any]]

PX_GRID = np.linspace(0.0, 30.0, 31)
"""2D thresholds in pixels."""

BOX_GRID = np.linspace(0.0, 0.3, 31)
"""2D thresholds as shares of the longer side of the hand's box."""

MM_GRID = np.linspace(0.0, 50.0, 51)
"""3D thresholds in millimetres."""

MM_FAR_GRID = np.linspace(20.0, 50.0, 31)
"""3D thresholds in millimetres, the range most papers of 2017 to 2019 report."""


def keypoint_distances(predicted: FloatArray, true: FloatArray, visibility: NDArray[Any]) -> NDArray[np.float64]:
    """Euclidean distances, NaN where a joint is not labelled.

    Args:
        predicted: (N, J, D).
        true: (N, J, D).
        visibility: (N, J), 0 not labelled.

    Returns:
        (N, J) float64.
    """
    difference = np.asarray(predicted, np.float64) - np.asarray(true, np.float64)
    distances: NDArray[np.float64] = np.sqrt((difference**2).sum(-1))
    return np.where(np.asarray(visibility) >= HIDDEN, distances, np.nan)


def hand_box_sides(true: FloatArray, visibility: NDArray[Any]) -> NDArray[np.float64]:
    """Longer side of the box around each hand's labelled joints, (N,) in the unit of `true`; NaN with fewer than 2."""
    labelled = (np.asarray(visibility) >= HIDDEN)[..., None]
    points = np.asarray(true, np.float64)
    low = np.where(labelled, points, np.inf).min(1)
    high = np.where(labelled, points, -np.inf).max(1)
    enough = labelled.sum((1, 2)) >= 2
    return np.where(enough, np.where(enough[:, None], high - low, 0.0).max(-1), np.nan)


def pck_curve(distances: FloatArray, grid: FloatArray) -> NDArray[np.float64]:
    """Share of the finite distances at or below each threshold, same shape as `grid`; NaN without any distance."""
    finite = np.sort(np.asarray(distances, np.float64)[np.isfinite(distances)])
    if not finite.size:
        return np.full(len(grid), np.nan)
    within = np.searchsorted(finite, np.asarray(grid, np.float64), side="right").astype(np.float64)
    return within / np.float64(finite.size)


def area_under_pck(distances: FloatArray, grid: FloatArray) -> float:
    """Area under the PCK curve over `grid`, divided by the grid's span.

    Example:
        >>> round(area_under_pck(np.array([0.0, 15.0]), np.linspace(0, 30, 301)), 3)
        0.751
    """
    curve = pck_curve(distances, grid)
    return float(((curve[1:] + curve[:-1]) / 2 * np.diff(grid)).sum() / (grid[-1] - grid[0]))


def align_similarity(predicted: FloatArray, true: FloatArray) -> NDArray[np.float64]:
    """Move one point set onto another by the best scale, *proper* rotation and translation (Umeyama 1991).

    Args:
        predicted: (P, D).
        true: (P, D).

    Returns:
        (P, D) float64, `predicted` aligned. A mirrored hand stays wrong: reflections are never used.
    """
    source, target = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred = source - source_mean
    spread = (centred**2).sum()
    if spread == 0.0:  # all points coincide: only the translation is defined
        return np.broadcast_to(target_mean, source.shape).copy()
    u, singular, vt = np.linalg.svd(centred.T @ (target - target_mean))
    signs = np.ones(len(singular))
    signs[-1] = np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0
    rotation = (u * signs) @ vt
    scale = (singular * signs).sum() / spread
    aligned: NDArray[np.float64] = scale * centred @ rotation + target_mean
    return aligned


def pa_mpjpe(predicted: FloatArray, true: FloatArray, visibility: NDArray[Any]) -> NDArray[np.float64]:
    """Mean joint distance of each row after `align_similarity` on its labelled joints.

    Args:
        predicted: (N, J, D).
        true: (N, J, D).
        visibility: (N, J), 0 not labelled.

    Returns:
        (N,) float64; NaN for rows with fewer than three labelled joints, which any alignment would fit.
    """
    out = np.full(len(predicted), np.nan)
    for row, seen in enumerate(np.asarray(visibility) >= HIDDEN):
        if seen.sum() >= 3:
            target = np.asarray(true[row][seen], np.float64)
            difference = align_similarity(predicted[row][seen], target) - target
            out[row] = np.sqrt((difference**2).sum(-1)).mean()
    return out


class KeypointMetrics:
    """Adds up the errors of batches; `compute` gives every 2D figure of the contract.

    Example:
        >>> metrics = KeypointMetrics()
        >>> metrics.update(np.full((1, 1, 2), 3.0), np.zeros((1, 1, 2)), np.ones((1, 1)))
        >>> round(metrics.compute()["mse_mean_square_px2"], 6)
        18.0
    """

    def __init__(self) -> None:
        self._pixels: list[NDArray[np.float64]] = []
        self._boxes: list[NDArray[np.float64]] = []

    def update(self, predicted: FloatArray, true: FloatArray, visibility: NDArray[Any]) -> None:
        """Add a batch: places (N, J, 2) in pixels and visibility (N, J)."""
        distances = keypoint_distances(predicted, true, visibility)
        self._pixels.append(distances)
        sides = hand_box_sides(true, visibility)
        self._boxes.append(distances / np.where(sides > 0, sides, np.nan)[:, None])

    def distances(self) -> NDArray[np.float64]:
        """(rows, J) pixels in the order of the updates, NaN where not labelled."""
        return np.concatenate(self._pixels) if self._pixels else np.empty((0, 0))

    def box_distances(self) -> NDArray[np.float64]:
        """(rows, J) shares of the hand's box, NaN where not labelled or where the box has no side."""
        return np.concatenate(self._boxes) if self._boxes else np.empty((0, 0))

    def compute(self) -> dict[str, float]:
        """All figures.

        Returns:
            joints: labelled joints counted.
            epe_mean_px, epe_median_px: end-point error.
            mse_mean_distance_px, mse_mean_square_px2: the two readings of Li et al.'s "MSE (in pixels)".
            auc_0_30_px: area under PCK over `PX_GRID`; pck_5_px: share within 5 px.
            epe_mean_box, epe_median_box: distances as shares of the longer side of the box of the labelled joints.
            auc_0_0.3_box: area under PCK over `BOX_GRID` of these.
            Figures are NaN where no joint was labelled.
        """
        pixels = self.distances()
        finite = pixels[np.isfinite(pixels)]
        boxes = self.box_distances()
        shares = boxes[np.isfinite(boxes)]
        nan = float("nan")
        return {
            "joints": float(finite.size),
            "epe_mean_px": float(finite.mean()) if finite.size else nan,
            "epe_median_px": float(np.median(finite)) if finite.size else nan,
            "mse_mean_distance_px": float(finite.mean()) if finite.size else nan,
            "mse_mean_square_px2": float((finite**2).mean()) if finite.size else nan,
            "pck_5_px": float((finite <= 5.0).mean()) if finite.size else nan,
            "auc_0_30_px": area_under_pck(pixels, PX_GRID),
            "epe_mean_box": float(shares.mean()) if shares.size else nan,
            "epe_median_box": float(np.median(shares)) if shares.size else nan,
            "auc_0_0.3_box": area_under_pck(boxes, BOX_GRID),
        }


class KeypointMetrics3D:
    """Adds up root-relative 3D errors: both hands are moved so that their wrists lie at the origin.

    Rows whose wrist has no label, or no finite place, are left out: they have no root. The wrist itself, whose error
    is 0 by construction, counts in no figure but PA-MPJPE, which aligns all labelled joints anew.

    Example:
        >>> metrics = KeypointMetrics3D()
        >>> true = np.zeros((1, 3, 3)); true[0, 1:, 0] = 0.03
        >>> metrics.update(1.1 * true, true, np.ones((1, 3)))
        >>> round(metrics.compute()["epe_mean_mm"], 3), round(metrics.compute()["pa_mpjpe_mm"], 6)
        (3.0, 0.0)
    """

    def __init__(self) -> None:
        self._millimetres: list[NDArray[np.float64]] = []
        self._aligned: list[NDArray[np.float64]] = []

    def update(self, predicted: FloatArray, true: FloatArray, visibility: NDArray[Any]) -> None:
        """Add a batch: places (N, J, 3) in metres, joint 0 the wrist, and visibility (N, J)."""
        seen = np.asarray(visibility)
        rooted = (seen[:, 0] >= HIDDEN) & np.isfinite(np.asarray(true)[:, 0]).all(-1)
        labelled = np.where(rooted[:, None], seen, 0)
        found = np.asarray(predicted, np.float64) - np.asarray(predicted, np.float64)[:, :1]
        wanted = np.asarray(true, np.float64) - np.asarray(true, np.float64)[:, :1]
        self._aligned.append(1000.0 * pa_mpjpe(found, wanted, labelled))
        distances = 1000.0 * keypoint_distances(found, wanted, labelled)
        distances[:, 0] = np.nan
        self._millimetres.append(distances)

    def distances(self) -> NDArray[np.float64]:
        """(rows, J) millimetres in the order of the updates, NaN where not labelled and at the wrist."""
        return np.concatenate(self._millimetres) if self._millimetres else np.empty((0, 0))

    def compute(self) -> dict[str, float]:
        """All figures.

        Returns:
            joints_3d: labelled joints counted.
            epe_mean_mm, epe_median_mm: end-point error.
            auc_20_50_mm, auc_0_50_mm: area under PCK over `MM_FAR_GRID` and `MM_GRID`.
            pa_mpjpe_mm: mean over hands after alignment by similarities with proper rotations.
            Figures are NaN where no joint was labelled.
        """
        distances = self.distances()
        finite = distances[np.isfinite(distances)]
        aligned = np.concatenate(self._aligned) if self._aligned else np.empty(0)
        aligned = aligned[np.isfinite(aligned)]
        nan = float("nan")
        return {
            "joints_3d": float(finite.size),
            "epe_mean_mm": float(finite.mean()) if finite.size else nan,
            "epe_median_mm": float(np.median(finite)) if finite.size else nan,
            "auc_20_50_mm": area_under_pck(distances, MM_FAR_GRID),
            "auc_0_50_mm": area_under_pck(distances, MM_GRID),
            "pa_mpjpe_mm": float(aligned.mean()) if aligned.size else nan,
        }


def error_by_joint(distances: FloatArray) -> dict[str, float]:
    """Mean of the finite distances (rows, 21) of each joint, by name; joints without any are left out."""
    return {
        name: float(column[np.isfinite(column)].mean())
        for name, column in zip(JOINTS, np.asarray(distances, np.float64).T, strict=True)
        if np.isfinite(column).any()
    }


def error_by_visibility(distances: FloatArray, visibility: NDArray[Any]) -> dict[str, float]:
    """Mean of the finite distances (rows, J) of hidden and of visible joints; a kind without any is left out."""
    kinds = {"hidden": HIDDEN, "visible": VISIBLE}
    picked = {name: (np.asarray(visibility) == value) & np.isfinite(distances) for name, value in kinds.items()}
    return {name: float(np.asarray(distances)[which].mean()) for name, which in picked.items() if which.any()}

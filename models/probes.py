"""Probes: how much of a quantity can be read from a code, measured on rows that the probe never saw.

A probe is kernel ridge regression, linear or with a Gaussian kernel, whichever does better in cross-validation, with
the strength of the ridge chosen there too. Folds keep rows of one group (a pose, an appearance) together, so that a
probe cannot succeed by remembering a relative. A probe that fails says that *it* found nothing, not that nothing is
there; so every figure stands beside chance, and beside the same probe on the code that should carry the quantity.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Target", "angle_error_deg", "features_of", "fit_and_predict", "point_error", "r_squared"]

FloatArray = NDArray[np.float64]

_FOLDS = 4
_RIDGES = tuple(10.0**power for power in range(-5, 3))
_MOST_FEATURES = 16384
_CELLS = 8


@dataclass(frozen=True)
class Target:
    """What a probe is to predict, in the rows it learns from."""

    values: FloatArray
    """(N, T); NaN rows are left out."""
    groups: NDArray[np.int64]
    """(N,) rows that must not be torn apart by cross-validation."""


def features_of(codes: NDArray[np.float32]) -> FloatArray:
    """Codes (N, ...) as vectors (N, F), F at most 16,384.

    Maps (N, D, H, W) are averaged down to 8x8 cells. What is longer still is folded by a count sketch (Charikar et al.
    2002): signed sums of randomly chosen entries, which keep inner products in expectation.
    """
    if codes.ndim == 4 and max(codes.shape[2:]) > _CELLS:
        count, depth, height, width = codes.shape
        rows, columns = (np.linspace(0, side, _CELLS + 1).astype(int)[:-1] for side in (height, width))
        sums = np.add.reduceat(np.add.reduceat(codes, rows, axis=2), columns, axis=3)
        codes = sums / (height * width / _CELLS**2)
    flat = np.asarray(codes, np.float64).reshape(len(codes), -1)
    if flat.shape[1] <= _MOST_FEATURES:
        return flat
    rng = np.random.default_rng(0)
    place, sign = rng.integers(0, _MOST_FEATURES, flat.shape[1]), rng.choice([-1.0, 1.0], flat.shape[1])
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    out = np.zeros((len(flat), _MOST_FEATURES))
    out[:, place[order][starts]] = np.add.reduceat((flat * sign)[:, order], starts, axis=1)
    return out


def fit_and_predict(
    known: FloatArray, targets: Mapping[str, Target], asked: FloatArray, *, seed: int = 0
) -> dict[str, FloatArray]:
    """Fit one probe for each target and predict.

    Args:
        known: (N, F) features of the rows to learn from.
        targets: By name; see `Target`.
        asked: (M, F) features of the rows to predict.
        seed: Of the folds.

    Returns:
        (M, T) by name.
    """
    mean = known.mean(0)
    scale = max(float(np.sqrt(((known - mean) ** 2).mean())), 1e-12)
    near, far = (known - mean) / scale, (asked - mean) / scale
    kernels = {name: (kernel(near, near), kernel(far, near)) for name, kernel in _kernels(near).items()}
    out = {}
    for name, target in targets.items():
        use = np.isfinite(target.values).all(1)
        values = target.values[use]
        centre = values.mean(0)
        fold = _folds(target.groups[use], seed)
        tried = []
        for kernel, (inner, outer) in kernels.items():
            gram = inner[np.ix_(use, use)]
            errors = np.zeros(len(_RIDGES))
            for k in range(fold.max() + 1):
                held = fold == k
                base = values[~held].mean(0)
                found = _solve(gram[np.ix_(~held, ~held)], values[~held] - base, gram[np.ix_(held, ~held)])
                errors += [float((((one + base) - values[held]) ** 2).sum()) for one in found]
            best = int(errors.argmin())
            tried.append((float(errors[best]), kernel, best, gram, outer[:, use]))
        _, _, best, gram, outer = min(tried, key=lambda one: one[0])
        out[name] = _solve(gram, values - centre, outer)[best] + centre
    return out


def _kernels(near: FloatArray) -> dict[str, "_Kernel"]:
    squares = _squared_distances(near, near)
    spread = float(np.median(squares[squares > 0])) if (squares > 0).any() else 1.0
    return {"linear": _Kernel(None, near.shape[1]), "gaussian": _Kernel(spread, near.shape[1])}


@dataclass(frozen=True)
class _Kernel:
    spread: float | None
    features: int

    def __call__(self, a: FloatArray, b: FloatArray) -> FloatArray:
        if self.spread is None:
            linear: FloatArray = a @ b.T / self.features
            return linear
        gaussian: FloatArray = np.exp(-_squared_distances(a, b) / self.spread)
        return gaussian


def _squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    squares: FloatArray = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return squares.clip(min=0.0)


def _solve(gram: FloatArray, values: FloatArray, asked: FloatArray) -> list[FloatArray]:
    """Predictions of kernel ridge regression at every strength of the ridge."""
    eigenvalues, vectors = np.linalg.eigh(gram)
    eigenvalues = eigenvalues.clip(min=0.0)
    projected, outer = vectors.T @ values, asked @ vectors
    # The ridge counts against the mean eigenvalue, so it means the same for every number of rows.
    unit = max(float(eigenvalues.mean()), 1e-12)
    return [outer @ (projected / (eigenvalues + ridge * unit)[:, None]) for ridge in _RIDGES]


def _folds(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """(N,) fold of each row; rows of one group lie in one fold."""
    ids, place = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(ids))
    folds: NDArray[np.int64] = (order % min(_FOLDS, max(2, len(ids))))[place.reshape(-1)]
    return folds


def point_error(predicted: FloatArray, true: FloatArray) -> float:
    """Mean distance of points (N, 2 J) from points (N, 2 J), in their unit."""
    return float(np.linalg.norm((predicted - true).reshape(len(true), -1, 2), axis=-1).mean())


def r_squared(predicted: FloatArray, true: FloatArray, mean: FloatArray) -> float:
    """Share of the variance explained, averaged over the columns; 0 for predicting `mean`, negative for worse.

    Args:
        predicted: (N, T).
        true: (N, T).
        mean: (T,) of the rows that the probe learned from.
    """
    left, all_of_it = ((predicted - true) ** 2).sum(0), ((true - mean) ** 2).sum(0)
    return float((1.0 - left / np.maximum(all_of_it, 1e-12)).mean())


def angle_error_deg(predicted: FloatArray, true: FloatArray) -> float:
    """Mean angle between directions (N, 2), degrees; 90 where nothing is known."""
    turn = np.arctan2(predicted[:, 1], predicted[:, 0]) - np.arctan2(true[:, 1], true[:, 0])
    return float(np.degrees(np.abs((turn + np.pi) % (2 * np.pi) - np.pi)).mean())

"""Errors on real rows: their share of the hand's box, intervals, tables and pictures, for `real_hands.py`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.augment.batches import RowPool
from handaug.augment.gain_runs import Recipe, predict_run
from handaug.data_specs.draw import draw_skeleton, image_grid, save_png
from handaug.data_specs.errors import InputError
from handaug.data_specs.joints import FINGERS
from handaug.models.metrics import KeypointMetrics, error_by_joint

__all__ = [
    "draw_examples",
    "errors",
    "figures",
    "frames",
    "mean_pose",
    "median_interval",
    "reduction_interval",
    "shares_of",
    "show",
]

BLOCK = 12
"""Neighbouring frames that are drawn together in the bootstrap."""
REPLICATES = 1000
_DRAW = 61
KNUCKLES = [joints[0] for finger, joints in FINGERS.items() if finger != "thumb"]

Floats = NDArray[np.float64]


def frames(total: int, first: int, gap: int) -> dict[str, NDArray[np.int64]]:
    """Row numbers to try things out on, and those that are opened once; `gap` rows between them are left out.

    Raises:
        InputError: No row is left for one of the parts.
    """
    if not 0 < first < total - gap:
        raise InputError(f"--first {first}, --gap {gap}: leave rows for both parts of {total}")
    return {"first": np.arange(first), "rest": np.arange(first + gap, total)}


def _draws(seeds: int, rows: int, block: int, replicates: int, seed: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Of each replicate the seeds and the rows."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DRAW,)))
    blocks = np.array_split(np.arange(rows), max(1, rows // block))
    return [
        (
            rng.integers(seeds, size=max(1, seeds - 1)),  # as in handaug.augment.bootstrap
            np.concatenate([blocks[k] for k in rng.integers(len(blocks), size=len(blocks))]),
        )
        for _ in range(replicates)
    ]


def median_interval(
    shares: Floats, *, block: int = BLOCK, replicates: int = REPLICATES, seed: int = 0
) -> tuple[float, float]:
    """2.5th and 97.5th percentile of the median of errors (seeds, rows, joints), NaN where a joint has no label."""
    draws = _draws(*shares.shape[:2], block, replicates, seed)
    medians = [float(np.nanmedian(shares[of_seed][:, of_row])) for of_seed, of_row in draws]
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def reduction_interval(
    base: Floats, candidate: Floats, *, block: int = BLOCK, replicates: int = REPLICATES, seed: int = 0
) -> tuple[float, float, float]:
    """By how many % the candidate's median error is lower, and its 95 % interval; both arms get the same draws."""
    draws = _draws(*base.shape[:2], block, replicates, seed)

    def reduction(of_seed: NDArray[Any] | slice, of_row: NDArray[Any] | slice) -> float:
        one, other = (float(np.nanmedian(arm[of_seed][:, of_row])) for arm in (base, candidate))
        return 100 * (1 - other / one)

    low, high = np.percentile([reduction(*draw) for draw in draws], (2.5, 97.5))
    return reduction(slice(None), slice(None)), float(low), float(high)


def errors(
    folders: Sequence[Path], recipe: Recipe, rows: RowPool, device: str, views: int
) -> tuple[Floats, NDArray[np.float32]]:
    """Shares of the box (seeds, N, 21), and the places (seeds, N, 21, 2) px, from so many views of each image."""
    places = [predict_run(folder, recipe, rows, device, views).keypoints for folder in folders]
    return np.stack([shares_of(found, rows) for found in places]), np.stack(places)


def shares_of(found: NDArray[np.floating[Any]], rows: RowPool) -> Floats:
    """Distances (N, 21) of places from the labels, over the longer side of the labelled joints' box."""
    metrics = KeypointMetrics()
    metrics.update(found, rows.keypoints_2d, rows.visibility)
    return metrics.box_distances()


def mean_pose(rows: RowPool) -> Floats:
    """(21, 2) px: the answer of one who looks at no image."""
    labelled = np.where(rows.visibility[..., None] > 0, rows.keypoints_2d, np.nan)
    return np.asarray(np.nanmean(labelled, 0), np.float64)


def figures(shares: Floats) -> dict[str, Any]:
    """What is reported of errors (seeds, rows, joints), in % of the box."""
    others = np.delete(shares, KNUCKLES, axis=2)
    return {
        "rows": shares.shape[1],
        "seeds": shares.shape[0],
        "median": 100 * float(np.nanmedian(shares)),
        "median_ci95": [100 * value for value in median_interval(shares)],
        "median_of_seeds": [100 * float(np.nanmedian(one)) for one in shares],
        "mean": 100 * float(np.nanmean(shares)),
        "median_no_knuckles": 100 * float(np.nanmedian(others)),
        "mean_by_joint": {name: 100 * value for name, value in error_by_joint(shares.reshape(-1, 21)).items()},
    }


def draw_examples(rows: RowPool, shares: Floats, places: NDArray[np.float32], out: Path) -> None:
    """Median rows, then the worst ones: truth above, the first seed's answer below."""
    order = np.argsort(np.nanmean(shares[0], 1))
    middle = len(order) // 2
    lines: list[list[NDArray[np.uint8]]] = []
    scale = max(1, 192 // rows.size[0])
    for block in (order[middle - 4 : middle + 4], order[::-1][:8]):
        images = rows.images(block)
        lines.append(
            [draw_skeleton(one, rows.keypoints_2d[k], scale=scale) for one, k in zip(images, block, strict=True)]
        )
        lines.append([draw_skeleton(one, places[0, k], scale=scale) for one, k in zip(images, block, strict=True)])
    save_png(out, image_grid(lines))


def show(table: dict[str, Any]) -> None:
    """Print the table."""
    print(f"\n{'arm':18}{'part':13}{'rows':>6}{'seeds':>7}{'median %':>10}{'95 %':>15}{'no knuckles':>13}{'mean %':>9}")
    for name, parts in table["arms"].items():
        for part, row in parts.items():
            low, high = row["median_ci95"]
            print(
                f"{name:18}{part:13}{row['rows']:6}{row['seeds']:7}{row['median']:10.1f}{low:8.1f} to{high:5.1f}"
                f"{row['median_no_knuckles']:13.1f}{row['mean']:9.1f}"
            )
    for name, parts in table["comparisons"].items():
        for part, (mean, low, high) in parts.items():
            print(f"median of {name} against renders, {part}: {mean:+.1f} % lower (95 %: {low:+.1f} to {high:+.1f})")

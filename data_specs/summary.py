"""What a dataset holds, as plain numbers and as one picture."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.draw import contact_sheet
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import HIDDEN, LEFT, NOT_LABELLED, RIGHT, SPLITS, VISIBLE

__all__ = ["sample_sheet", "spread_rows", "summarise"]

_SAMPLE = 512
"""Rows read for pixel statistics, spread over the file."""

_LEVELS = np.arange(256, dtype=np.int64)

_SHOWN_PX = 192
"""Side of one enlarged image on the sheet, at most, unless the image itself is larger."""


def summarise(dataset: HandDataset) -> dict[str, Any]:
    """Count and measure a dataset.

    Args:
        dataset: Any view of a file, not empty.

    Returns:
        JSON-ready values. Lengths are in pixels, images in grey levels 0..255, shares in 0..1:

        - path, kind, rows, height, width, channels, seed, checksum, handaug_version, schema, bytes, fields, config
        - splits: {name: {"rows", "groups"}}; poses, appearances: number of different ids, None where the file has none
        - hands: {"left", "right"}; visibility: shares of {"visible", "hidden", "not labelled"} over all keypoints
        - hand_size_px: median of the longer side of the box around the labelled keypoints
        - image_mean, image_std: over up to 512 rows
        - label_error_px: {"mean", "p90"}, of minted data

    Raises:
        InputError: The view is empty.
    """
    if not len(dataset):
        raise InputError(f"{dataset.path}: has no rows; make it again or give another file")
    splits, groups = dataset.read("split"), dataset.read("group")
    hands, visibility = dataset.read("handedness"), dataset.read("visibility")
    mean, deviation = _grey_levels(dataset)
    summary = {
        "path": str(dataset.path),
        "kind": dataset.kind,
        "rows": len(dataset),
        "height": dataset.size[0],
        "width": dataset.size[1],
        "channels": dataset.channels,
        "bytes": dataset.path.stat().st_size,
        "splits": {
            name: {"rows": int((splits == code).sum()), "groups": len(np.unique(groups[splits == code]))}
            for name, code in SPLITS.items()
        },
        "poses": _distinct(dataset, "pose_id"),
        "appearances": _distinct(dataset, "appearance_id"),
        "hands": {"left": int((hands == LEFT).sum()), "right": int((hands == RIGHT).sum())},
        "visibility": {
            "visible": float((visibility == VISIBLE).mean()),
            "hidden": float((visibility == HIDDEN).mean()),
            "not labelled": float((visibility == NOT_LABELLED).mean()),
        },
        "hand_size_px": _hand_size(dataset.read("keypoints_2d"), visibility != NOT_LABELLED),
        "image_mean": mean,
        "image_std": deviation,
        "fields": list(dataset.available),
        "schema": int(dataset.attrs["schema"]),
        "seed": dataset.seed,
        "handaug_version": str(dataset.attrs.get("handaug_version", "unknown")),
        "checksum": dataset.checksum,
        "config": dataset.config,
    }
    if dataset.has("provenance/label_error_px"):
        error = dataset.read("provenance/label_error_px")
        summary["label_error_px"] = {"mean": float(error.mean()), "p90": float(np.quantile(error, 0.9))}
    return summary


def _grey_levels(dataset: HandDataset) -> tuple[float, float]:
    """Mean and standard deviation of the pixels of a sample of rows, one image in memory at a time."""
    total, squares, count = 0, 0, 0
    for row in spread_rows(len(dataset), _SAMPLE):
        levels = np.bincount(dataset.read("images", slice(row, row + 1)).ravel(), minlength=256)
        total += int(levels @ _LEVELS)
        squares += int(levels @ _LEVELS**2)
        count += int(levels.sum())
    mean = total / count
    return mean, max(0.0, squares / count - mean**2) ** 0.5


def sample_sheet(dataset: HandDataset, count: int = 32) -> NDArray[np.uint8]:
    """Draw a contact sheet of rows spread over the dataset; of one pose, two images stand side by side.

    Args:
        dataset: Any view of a file, not empty.
        count: Images on the sheet, at most.

    Returns:
        (height, width, 3) uint8.
    """
    index = _paired_rows(dataset.read("pose_id"), count) if dataset.has("pose_id") else spread_rows(len(dataset), count)
    return contact_sheet(
        dataset.read("images", index),
        dataset.read("keypoints_2d", index),
        dataset.read("visibility", index),
        scale=max(1, _SHOWN_PX // max(dataset.size)),
    )


def spread_rows(total: int, count: int) -> NDArray[np.int64]:
    """Up to `count` different positions, evenly spread over 0..total-1."""
    return np.unique(np.linspace(0, total - 1, min(total, count)).astype(np.int64))


def _paired_rows(pose_ids: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Positions of up to two rows of each of some poses, the poses spread over the file."""
    by_pose = np.argsort(pose_ids, kind="stable")
    _, starts, sizes = np.unique(pose_ids[by_pose], return_index=True, return_counts=True)
    first = by_pose[starts]
    shown = np.minimum(sizes, 2)
    in_file_order = np.argsort(first)
    chosen = in_file_order[spread_rows(len(first), max(1, count // int(shown.max())))]
    return np.concatenate([by_pose[starts[k] : starts[k] + shown[k]] for k in chosen])


def _distinct(dataset: HandDataset, field: str) -> int | None:
    return len(np.unique(dataset.read(field))) if dataset.has(field) else None


def _hand_size(keypoints: NDArray[np.floating[Any]], labelled: NDArray[np.bool_]) -> float | None:
    """Median over rows of the longer side of the labelled keypoints' box; None where nothing is labelled."""
    some = labelled.any(1)
    if not some.any():
        return None
    points, known = keypoints[some], labelled[some][..., None]
    box = np.where(known, points, -np.inf).max(1) - np.where(known, points, np.inf).min(1)
    return float(np.median(box.max(1)))

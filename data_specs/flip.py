"""Mirroring whole rows of a dataset: every field that knows left from right changes at once."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.camera import flip_camera, flip_keypoints_2d, flip_points_3d
from handaug.data_specs.schema import FIELDS, LEFT, RIGHT

__all__ = ["flip_rows"]


def flip_rows(
    rows: Mapping[str, NDArray[Any]], width: int, which: NDArray[np.bool_] | None = None
) -> dict[str, NDArray[Any]]:
    """Mirror rows as the mirror would: pixels, x in 2D and 3D, K and handedness; no joint changes its place.

    Fields that do not know left from right (visibility, occlusion, split, ids, parameters of the hand model, which are
    those of a right hand) stay as they are. A mirrored hand is another pose: whoever keeps both in one file gives the
    mirrored rows a `pose_id` and `image_id` of their own.

    Args:
        rows: {field of the schema: (N, ...) array}; any selection of fields.
        width: Image width in pixels.
        which: (N,) rows to mirror; all by default.

    Returns:
        The same fields as new arrays where anything changed.

    Example:
        >>> row = {"keypoints_2d": np.zeros((1, 21, 2)), "handedness": np.array([1], np.uint8)}
        >>> mirrored = flip_rows(row, 64)
        >>> mirrored["keypoints_2d"][0, 0].tolist(), mirrored["handedness"].tolist()
        ([63.0, 0.0], [0])
    """
    out = {}
    for name, values in rows.items():
        flipped = _flipped(name, np.asarray(values), width)
        if which is not None and flipped is not values:
            chosen = which.reshape(-1, *[1] * (values.ndim - 1))
            flipped = np.where(chosen, flipped, values)
        out[name] = flipped
    return out


def _flipped(name: str, values: NDArray[Any], width: int) -> NDArray[Any]:
    """One field of all rows, mirrored."""
    if name == "keypoints_2d":
        return flip_keypoints_2d(values, width)
    if name == "keypoints_3d":
        return flip_points_3d(values)
    if name == "camera":
        return flip_camera(values, width)
    if name == "handedness":
        return np.where(values == LEFT, RIGHT, LEFT).astype(values.dtype)
    if not FIELDS[name].pixels:
        return values
    mirrored = values[:, :, ::-1]
    return flip_points_3d(mirrored) if name == "normals" else mirrored

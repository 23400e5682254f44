"""A dataset file with every field of the schema, for tests of exporters; the pixels mean nothing."""

from pathlib import Path

import numpy as np
from rows import Rows

from handaug.data_specs.schema import FIELDS
from handaug.data_specs.writer import DatasetWriter

__all__ = ["HEIGHT", "WIDTH", "every_field", "write_all"]

HEIGHT, WIDTH = 18, 24
"""Not square, so that mixed-up axes show."""


def every_field(count: int = 12, *, channels: int = 3, seed: int = 0) -> Rows:
    """Rows with every field: hands of both sides in all splits, a few joints outside the image or without a label.

    Rows 4 and 5 are two hands of one picture; rows 6 and 7 share an `image_id` but were cropped apart.
    """
    rng = np.random.default_rng(seed)
    sizes: dict[str, int] = {"H": HEIGHT, "W": WIDTH, "C": channels, "*": 5}
    rows: Rows = {}
    for name, field in FIELDS.items():
        low, high = field.values or (0, 255)
        shape = (count, *(sizes[d] if isinstance(d, str) else d for d in field.shape))
        drawn = rng.normal(size=shape) if field.dtype.startswith("float") else rng.integers(low, high + 1, shape)
        rows[name] = np.asarray(drawn).astype(field.dtype)
    rows["keypoints_3d"] = rng.uniform((-0.1, -0.07, 0.8), (0.1, 0.07, 1.2), (count, 21, 3)).astype(np.float32)
    focal = rng.uniform(60, 80, (2, count))
    if count > 5:
        focal[:, 5] = focal[:, 4]
    for row in range(count):
        shift = 4 if row == 5 else row
        rows["camera"][row] = [[focal[0, row], 0, 11 + shift / 10], [0, focal[1, row], 8 + shift / 20], [0, 0, 1]]
        ray = rows["keypoints_3d"][row].astype(float) @ rows["camera"][row].astype(float).T
        rows["keypoints_2d"][row] = ray[:, :2] / ray[:, 2:]
    rows["keypoints_2d"][1, 3] = rows["keypoints_3d"][1, 3] = np.nan
    rows["keypoints_2d"][2:3, 4] = (-3.25, 40)
    u, v = rows["keypoints_2d"][..., 0], rows["keypoints_2d"][..., 1]
    inside = (u >= -0.5) & (u < WIDTH - 0.5) & (v >= -0.5) & (v < HEIGHT - 0.5)
    rows["visibility"] = np.where(inside, rng.integers(1, 3, inside.shape), 0).astype(np.uint8)
    numbers = np.arange(count)
    rows["handedness"] = (numbers % 2).astype(np.uint8)
    rows["split"] = np.array([0, 0, 1, 2, 0, 0, 0, 0, 1, 0, 2, 0], np.uint8)[numbers % 12]
    for name in ("group", "pose_id", "appearance_id", "image_id"):
        rows[name] = numbers + 2**60
    if count > 7:
        rows["images"][5], rows["group"][5] = rows["images"][4], rows["group"][4]
        rows["image_id"][[5, 7]] = rows["image_id"][[4, 6]]
        rows["mask"][5] = np.array([0, 4, 2, 3, 1], np.uint8)[rows["mask"][4]]
    return rows


def write_all(path: Path, rows: Rows, *, kind: str = "rendered") -> Path:
    """Write exactly these fields."""
    height, width, channels = rows["images"].shape[1:]
    optional = [name for name in rows if not FIELDS[name].required]
    with DatasetWriter(
        path, kind=kind, config={}, seed=0, size=(height, width), channels=channels, fields=optional
    ) as writer:
        writer.append(rows)
    return path

"""Valid rows for tests of files, from a random generator; the pixels mean nothing."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.camera import centred_intrinsics, project
from handaug.data_specs.schema import SPLITS
from handaug.data_specs.writer import DatasetWriter

Rows = dict[str, NDArray[Any]]

OPTIONAL = ("keypoints_3d", "camera", "mask", "pose_id", "appearance_id", "image_id")


def random_rows(poses: int, appearances: int = 2, size: int = 16, channels: int = 1, seed: int = 0) -> Rows:
    """Rows of `poses` poses with `appearances` images each, splits 8:1:1, labels that project onto themselves.

    Poses of different seeds have different ids.
    """
    rng = np.random.default_rng(seed)
    count = poses * appearances
    camera = centred_intrinsics(2.0 * size, size, size)
    points = rng.uniform((-0.1, -0.1, 0.8), (0.1, 0.1, 1.2), (poses, 21, 3)).astype(np.float32)
    pose = np.repeat(np.arange(poses), appearances)
    points = points[pose]
    return {
        "images": rng.integers(0, 256, (count, size, size, channels), np.uint8),
        "keypoints_2d": project(np.tile(camera, (count, 1, 1)), points),
        "keypoints_3d": points,
        "visibility": rng.integers(1, 3, (poses, 21)).astype(np.uint8)[pose],
        "camera": np.tile(camera, (count, 1, 1)),
        "handedness": (pose % 2).astype(np.uint8),
        "mask": rng.integers(0, 3, (poses, size, size), np.uint8)[pose],
        "split": np.array([0, 0, 0, 1, 0, 0, 2, 0, 0, 0], np.uint8)[pose % 10],
        "group": pose.astype(np.int64) + 1000 * seed,
        "pose_id": pose.astype(np.int64) + 1000 * seed,
        "appearance_id": np.arange(count, dtype=np.int64) % 7,
        "image_id": np.arange(count, dtype=np.int64),
    }


def write_rows(path: Path, rows: Rows, *, config: dict[str, Any] | None = None, kind: str = "rendered") -> Path:
    """Write rows as a dataset."""
    with DatasetWriter(
        path,
        kind=kind,
        config=config or {"made": "by a test"},
        seed=0,
        size=(rows["images"].shape[1], rows["images"].shape[2]),
        channels=rows["images"].shape[3],
        fields=[name for name in rows if name in OPTIONAL],
    ) as writer:
        writer.append(rows)
    return path


__all__ = ["OPTIONAL", "SPLITS", "Rows", "random_rows", "write_rows"]

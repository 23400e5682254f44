"""A workspace for tests of remix: toy hands of both sides, with a disentangler and checkers trained for seconds.

Such networks draw hardly a hand, so these checkers are told to accept what they would see in an empty image; that rule
is tested by itself.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from toy import write_toy

from handaug.augment.checker import CheckerConfig, train_checkers
from handaug.augment.remix import RemixConfig
from handaug.data_specs.reader import HandDataset
from handaug.models.disentangle.config import DisentangleConfig
from handaug.models.disentangle.train import train_disentangler

__all__ = ["N", "make_home", "remix_config", "sources_of"]

N = 300


def make_home(folder: Path) -> Path:
    """Fill a folder: 28 train poses in two appearances, every second one mirrored to a left hand; models trained for
    seconds.
    """
    data = write_toy(folder / "toy.h5", 40, size=32, pool=60)
    with h5py.File(data, "r+") as file:
        left = file["pose_id"][:] % 2 == 0
        file["handedness"][:] = np.where(left, 0, 1)
        file["images"][:] = np.where(left[:, None, None, None], file["images"][:][:, :, ::-1], file["images"][:])
        file["mask"][:] = np.where(left[:, None, None], file["mask"][:][:, :, ::-1], file["mask"][:])
        points, space = file["keypoints_2d"][:], file["keypoints_3d"][:]
        points[left, :, 0] = 31 - points[left, :, 0]
        space[left, :, 0] *= -1
        file["keypoints_2d"][:], file["keypoints_3d"][:] = points, space
    train_disentangler(data, folder / "disentangler", DisentangleConfig(steps=40, batch_size=8, width=4))
    train_checkers(data, folder / "checker", CheckerConfig(width=8, steps=60, batch_size=16), workers=1)
    stored = folder / "checker" / "config.json"
    stored.write_text(json.dumps({**json.loads(stored.read_text()), "empty_px": 0.0}))
    return folder


def remix_config(home: Path, **changed: Any) -> RemixConfig:
    settings: dict[str, Any] = dict(
        n=N, poses=home / "toy.h5", disentangler=home / "disentangler", checker=home / "checker", max_label_error=12.0
    )
    return RemixConfig(**{**settings, **changed})


def sources_of(home: Path, minted: HandDataset) -> tuple[HandDataset, HandDataset]:
    """The rows of the toy file that gave pose and appearance of each minted row."""
    pose, appearance = (minted.read(f"provenance/{name}_source") for name in ("pose", "appearance"))
    return HandDataset(home / "toy.h5", rows=pose), HandDataset(home / "toy.h5", rows=appearance)

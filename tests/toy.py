"""A dataset of drawn stick hands: real enough to train on in seconds, with known keypoints and paired appearances.

A toy hand is 20 capsules between 21 joints in front of a shaded background. As in the renders, pose i is drawn from
(seed, i) alone and appearance a from (seed, a) alone, every pose is shown in `per_pose` appearances, and each
appearance is used by several poses.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.camera import centred_intrinsics
from handaug.data_specs.joints import BONES, PARENTS
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import RIGHT, TEST, TRAIN, VAL, VISIBLE
from handaug.data_specs.writer import DatasetWriter

__all__ = ["toy_arrays", "write_minted", "write_toy"]

_DEPTH_M = 0.5


def _pose(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """21 joints (x, y) in pixels, all inside the image."""
    while True:
        direction = rng.uniform(-np.pi, np.pi)
        palm = size * rng.uniform(0.25, 0.32)
        joints = np.zeros((21, 2))
        spread, curl = rng.uniform(0.2, 0.35), rng.uniform(0.0, 0.35, size=5)
        for finger in range(5):
            angle = direction + (finger - 2) * spread * (1.6 if finger == 0 else 1.0)
            length = palm * (0.6 if finger == 0 else 1.0)
            joint = 1 + 4 * finger
            joints[joint] = joints[0] + length * np.array([np.cos(angle), np.sin(angle)])
            for step in range(1, 4):
                angle += curl[finger]
                bone = palm * (0.38, 0.28, 0.22)[step - 1]
                joints[joint + step] = joints[joint + step - 1] + bone * np.array([np.cos(angle), np.sin(angle)])
        joints += size / 2 - (joints.min(0) + joints.max(0)) / 2 + rng.uniform(-0.06, 0.06, 2) * size
        if joints.min() > 1 and joints.max() < size - 2:
            return joints


def _hand_cover(joints: NDArray[np.float64], size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much of each pixel the hand covers, and its shading along the bones, both (size, size)."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    pixels = np.stack([x, y], -1)
    cover, shade = np.zeros((size, size)), np.zeros((size, size))
    for parent, child in BONES:
        start, bone = joints[parent], joints[child] - joints[parent]
        along = np.clip(((pixels - start) @ bone) / max(float(bone @ bone), 1e-9), 0, 1)
        distance = np.linalg.norm(pixels - start - along[..., None] * bone, axis=-1)
        radius = size * (0.035 if PARENTS[parent] != -1 or parent else 0.045)
        here = np.clip(radius + 0.5 - distance, 0, 1)
        shade = np.where(here > cover, 1 - 0.4 * np.clip(distance / radius, 0, 1), shade)
        cover = np.maximum(cover, here)
    return cover, shade


def _draw(
    cover: NDArray[np.float64], shade: NDArray[np.float64], rng: np.random.Generator, channels: int
) -> NDArray[np.uint8]:
    """Colour a hand and its background by one appearance."""
    size = len(cover)
    y, x = (np.mgrid[:size, :size] / size - 0.5) * 2
    angle, wave = rng.uniform(0, 2 * np.pi), rng.uniform(2, 6)
    slope = np.cos(angle) * x + np.sin(angle) * y
    background = rng.uniform(0.1, 0.45) + 0.15 * slope + 0.08 * np.sin(wave * (np.sin(angle) * x - np.cos(angle) * y))
    light = rng.uniform(0, 2 * np.pi)
    skin = rng.uniform(0.6, 0.95) * shade * (1 + 0.2 * (np.cos(light) * x + np.sin(light) * y))
    grey = cover * skin + (1 - cover) * background
    tint = rng.uniform(0.7, 1.0, size=channels) if channels == 3 else np.ones(1)
    levels: NDArray[np.float64] = np.clip(grey[..., None] * tint, 0, 1) * 255
    return levels.round().astype(np.uint8)


def toy_arrays(
    poses: int = 64, *, per_pose: int = 2, pool: int = 16, size: int = 64, channels: int = 1, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """All fields of a toy dataset; 70 % of the poses are train, 15 % val, 15 % test, with disjoint appearance pools."""
    bounds = (round(0.7 * poses), round(0.85 * poses))
    rows: dict[str, list[Any]] = {}
    for pose in range(poses):
        joints = _pose(np.random.default_rng((seed, 0, pose)), size)
        split = TRAIN if pose < bounds[0] else VAL if pose < bounds[1] else TEST
        cover, shade = _hand_cover(joints, size)
        chosen = np.random.default_rng((seed, 1, pose)).permutation(max(2, pool // 3))[:per_pose]
        for appearance in split * pool + chosen:
            row = {
                "images": _draw(cover, shade, np.random.default_rng((seed, 2, appearance)), channels),
                "keypoints_2d": joints.astype(np.float32),
                "visibility": np.full(21, VISIBLE, np.uint8),
                "mask": (cover > 0.5).astype(np.uint8),
                "split": np.uint8(split),
                "group": np.int64(pose),
                "pose_id": np.int64(pose),
                "appearance_id": np.int64(appearance),
                "handedness": np.uint8(RIGHT),
            }
            for name, value in row.items():
                rows.setdefault(name, []).append(value)
    fields = {name: np.stack(values) for name, values in rows.items()}
    camera = centred_intrinsics(2.0 * size, size, size)
    depth = np.full((*fields["keypoints_2d"].shape[:2], 1), _DEPTH_M, np.float32)
    centred = (fields["keypoints_2d"] - camera[:2, 2]) / camera[0, 0] * _DEPTH_M
    fields["keypoints_3d"] = np.concatenate([centred, depth], -1).astype(np.float32)
    fields["camera"] = np.broadcast_to(camera, (len(depth), 3, 3)).copy()
    return fields


def write_toy(path: Path, poses: int = 64, **options: Any) -> Path:
    """Write `toy_arrays(poses, **options)` as a dataset of kind "rendered"."""
    fields = toy_arrays(poses, **options)
    optional = ("mask", "pose_id", "appearance_id", "keypoints_3d", "camera")
    height, width, channels = fields["images"].shape[1:]
    config = {"toy": {"poses": poses, **options}}
    with DatasetWriter(
        path, kind="rendered", config=config, seed=0, size=(height, width), channels=channels, fields=optional
    ) as writer:
        writer.append(fields)
    return path


def write_minted(path: Path, source: Path, **changed: Any) -> Path:
    """Write a minted file whose rows are copies of a toy file's train rows; fields in `changed` are replaced."""
    view = HandDataset(source, split="train")
    rows = {name: view.read(name) for name in view.available}
    rows |= {
        "provenance/pose_source": view.rows.copy(),
        "provenance/appearance_source": view.rows[::-1].copy(),
        "provenance/label_error_px": np.full(len(view), 0.5, np.float32),
        "provenance/label_error_max_px": np.full(len(view), 1.0, np.float32),
    }
    rows |= changed
    with DatasetWriter(
        path,
        kind="minted",
        config={},
        seed=0,
        size=view.size,
        channels=view.channels,
        fields=list(rows),
        attrs={"pose_source_checksum": view.checksum, "appearance_source_checksum": view.checksum},
    ) as writer:
        writer.append(rows)
    return path

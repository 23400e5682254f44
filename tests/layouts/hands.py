"""Hands whose joints are known, and pictures of them in which every joint has a colour of its own.

Nothing here comes from the importers: the hand is built from bone lengths, projected by hand, and drawn as squares
whose red says which joint it is and whose blue says which hand. A wrong order, side, axis or unit puts a label on the
wrong colour.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LEFT, RIGHT = 0, 1
FINGERS = ("thumb", "index", "middle", "ring", "little")
BASE_MM = {"thumb": (-32, -28), "index": (-24, -88), "middle": (-2, -92), "ring": (18, -86), "little": (36, -76)}
BONES_MM = {
    "thumb": (40, 32, 28),
    "index": (44, 26, 23),
    "middle": (47, 29, 24),
    "ring": (43, 27, 24),
    "little": (35, 20, 21),
}
SPREAD = {"thumb": -0.9, "index": -0.15, "middle": 0.0, "ring": 0.15, "little": 0.3}
DOT = 3
"""Squares of 2 DOT + 1 pixels."""


@dataclass
class Truth:
    """One hand as it must come out."""

    side: int
    split: int
    group: str
    """Rows with the same text belong to one group."""
    pixels: NDArray[np.float64]
    """(21, 2) in the source's image."""
    image: str
    """Rows with the same text show one image."""
    pose: str = ""
    """Rows with the same text share pose_id; "" for a pose of its own."""
    points: NDArray[np.float64] | None = None
    """(21, 3) metres, OpenCV."""
    camera: NDArray[np.float64] | None = None
    visibility: NDArray[np.uint8] = field(default_factory=lambda: np.full(21, 2, np.uint8))


def make_hand(
    seed: int, side: int, depth_m: float = 0.5, offset_m: tuple[float, float] = (0.0, 0.0)
) -> NDArray[np.float64]:
    """(21, 3) metres, x right, y down, z forward; fingers up and bent a little, turned a little."""
    rng = np.random.default_rng((seed, side))
    joints = [np.zeros(3)]
    for finger in FINGERS:
        place = np.array([*BASE_MM[finger], 0.0])
        joints.append(place)
        bend = rng.uniform(0.1, 0.4)
        for k, length in enumerate(BONES_MM[finger]):
            angle, tilt = SPREAD[finger], bend * (k + 1)
            place = place + length * np.array(
                [np.sin(angle) * np.cos(tilt), -np.cos(angle) * np.cos(tilt), np.sin(tilt)]
            )
            joints.append(place)
    points = np.array(joints) * 1e-3
    if side == LEFT:
        points[:, 0] *= -1
    turn = cv2.Rodrigues(rng.normal(0, 0.2, 3))[0]
    return points @ turn.T + (*offset_m, depth_m)


def pinhole(camera: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels, written out."""
    return np.array([[camera[0, 0] * x / z + camera[0, 2], camera[1, 1] * y / z + camera[1, 2]] for x, y, z in points])


def intrinsics(fx: float, fy: float, cx: float, cy: float) -> NDArray[np.float64]:
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def colour(joint: int, side: int) -> tuple[int, int, int]:
    """Blue, green, red."""
    return 60 if side == LEFT else 180, 128, 20 + 11 * joint


def picture(hands: list[tuple[int, NDArray[np.float64]]], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) BGR: hands given as side and (21, 2) pixels."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for side, pixels in hands:
        for joint, (x, y) in enumerate(np.round(pixels)):
            if np.isfinite([x, y]).all() and abs(x) < 1e5 and abs(y) < 1e5:
                corner, other = (int(x) - DOT, int(y) - DOT), (int(x) + DOT, int(y) + DOT)
                cv2.rectangle(image, corner, other, colour(joint, side), -1)
    return image


def disc(image: NDArray[np.uint8], middle: NDArray[np.float64], radius: int, value: int) -> None:
    """Draw a filled disc into an (H, W) image."""
    x, y = (int(v) for v in np.round(middle))
    cv2.circle(image, (x, y), radius, (value,), -1)


def save(path: Path, image: NDArray[np.uint8], quality: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    assert cv2.imwrite(str(path), image, options)


def joints_seen(
    image: NDArray[np.uint8], keypoints: NDArray[Any], rows: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Which joint and side the colour (RGB) under each of some keypoints says; -1 where there is no dot."""
    height, width = image.shape[:2]
    x, y = np.round(keypoints[rows]).astype(int).T
    found = image[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)].astype(int)
    dot = abs(found[:, 1] - 128) < 30
    return np.where(dot, np.round((found[:, 0] - 20) / 11).astype(int), -1), np.where(found[:, 2] > 120, RIGHT, LEFT)


def uncovered(pixels: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Joints whose dot no later joint's dot touches."""
    near = np.abs(np.round(pixels)[:, None] - np.round(pixels)[None]).max(-1) <= 2 * DOT + 1
    clear: NDArray[np.bool_] = ~np.triu(near, 1).any(1)
    return clear

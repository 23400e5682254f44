"""UmeTrack's camera and hand model, from their published formulas.

Camera "FishEye62": theta = atan2(r, z), p = theta (x, y) / r; p is scaled by 1 + k1 r2 + ... + k6 r2^6 with r2 =
|p|^2 (at most pi^2), then x += 2 p2 x y + p1 (r2 + 2 x2), y += 2 p1 x y + p2 (r2 + 2 y2); the pixel is f q + c, with
the centre of the top-left pixel at (0, 0).

Hand: 20 hinges, four for each finger from thumb to little, each a turn about an axis through a rest position; a
finger's frames are the products of its first two, three and four hinges. A landmark moves with the frames of its
bones. The model is a LEFT hand: for a right one column 0 of the wrist's transform changes its sign.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.importers.files import entry, image_size, numbers
from handaug.data_specs.importers.records import DamagedError
from handaug.data_specs.joints import FINGERS, JOINTS
from handaug.data_specs.schema import RIGHT

__all__ = ["LANDMARKS", "Fisheye", "HandModel", "read_fisheye", "read_hand_model"]

LANDMARKS: tuple[str, ...] = (
    *(f"{finger}_tip" for finger in FINGERS),
    "wrist",
    "thumb_mcp",
    "thumb_ip",
    *(f"{finger}_{part}" for finger in list(FINGERS)[1:] for part in ("mcp", "pip", "dip")),
    "palm",
)
"""UmeTrack's 21 landmarks by name; it has a palm centre and no thumb_cmc."""

_HINGES = 20
_PER_FINGER = 4
_FRAMES = 17
_THUMB_CMC_HINGE, _THUMB_CMC_FRAME = 1, 2
"""The second hinge of the thumb, and the frame that it and the first one move."""
_RADIAL = ("k1", "k2", "k3", "k4", "k5", "k6")


@dataclass(frozen=True)
class Fisheye:
    """A FishEye62 camera."""

    size: tuple[int, int]
    """Width and height, pixels."""
    focal: NDArray[np.float64]
    """(2,) pixels for each radian."""
    centre: NDArray[np.float64]
    """(2,) pixels."""
    radial: NDArray[np.float64]
    """(6,) k1 .. k6."""
    tangential: tuple[float, float]
    """p1, p2."""

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(..., 3) camera frame -> (..., 2) pixels; NaN from 135 degrees off the axis on."""
        x, y, z = np.moveaxis(np.asarray(points, np.float64), -1, 0)
        r = np.hypot(x, y)
        theta = np.arctan2(r, z)
        scale = np.where(r > 1e-12, theta / np.maximum(r, 1e-12), 1.0)
        p = np.stack([x * scale, y * scale], -1)
        squared = np.minimum((p * p).sum(-1, keepdims=True), np.pi**2)
        factor = 1.0 + (squared ** np.arange(1, 7) * self.radial).sum(-1, keepdims=True)
        u, v = np.moveaxis(p * factor, -1, 0)
        p1, p2 = self.tangential
        length = u * u + v * v
        q = np.stack(
            [
                u + 2 * p2 * u * v + p1 * (length + 2 * u * u),
                v + 2 * p1 * u * v + p2 * (length + 2 * v * v),
            ],
            -1,
        )
        return np.where((theta < 0.75 * np.pi)[..., None], q * self.focal + self.centre, np.nan)


@dataclass(frozen=True)
class HandModel:
    """A user's hand at rest, in millimetres."""

    axes: NDArray[np.float64]
    """(20, 3) unit axes of the hinges."""
    pivots: NDArray[np.float64]
    """(20, 3) rest positions of the hinges."""
    landmarks: NDArray[np.float64]
    """(21, 3) rest positions in the order of `LANDMARKS`."""
    weights: NDArray[np.float64]
    """(21, 17) share of each frame in each landmark."""

    def joints(self, angles: NDArray[np.float64], wrist: NDArray[np.float64], side: int) -> NDArray[np.float64]:
        """Our 21 joints in the world.

        Args:
            angles: (22,) radians; the last two are the wrist's, which is in `wrist` already.
            wrist: (4, 4) world from hand.
            side: LEFT or RIGHT.

        Returns:
            (21, 3) millimetres.
        """
        frames = self._frames(angles)
        homogeneous = np.concatenate([self.landmarks, np.ones((len(self.landmarks), 1))], 1)
        moved = np.einsum("lf,fij,lj->li", self.weights, frames, homogeneous)[:, :3]
        cmc = (frames[_THUMB_CMC_FRAME] @ np.append(self.pivots[_THUMB_CMC_HINGE], 1.0))[:3]
        ours = np.stack([cmc if name == "thumb_cmc" else moved[LANDMARKS.index(name)] for name in JOINTS])
        turn = wrist[:3, :3] * ((-1.0, 1.0, 1.0) if side == RIGHT else (1.0, 1.0, 1.0))
        out: NDArray[np.float64] = ours @ turn.T + wrist[:3, 3]
        return out

    def _frames(self, angles: NDArray[np.float64]) -> NDArray[np.float64]:
        """(17, 4, 4) hand from rest: root, wrist, then three for each finger."""
        hinges = _hinges(self.axes, self.pivots, angles[:_HINGES])
        frames = [np.eye(4), np.eye(4)]
        for first in range(0, _HINGES, _PER_FINGER):
            moved = hinges[first]
            for hinge in hinges[first + 1 : first + _PER_FINGER]:
                moved = moved @ hinge
                frames.append(moved)
        return np.stack(frames)


def _hinges(axes: NDArray[np.float64], pivots: NDArray[np.float64], angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 4, 4) turns about axes through pivots (Rodrigues)."""
    zero = np.zeros(len(axes))
    x, y, z = axes.T
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    sine, cosine = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    turns = np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross)
    out = np.tile(np.eye(4), (len(axes), 1, 1))
    out[:, :3, :3] = turns
    out[:, :3, 3] = pivots - np.einsum("nij,nj->ni", turns, pivots)
    return out


def read_fisheye(item: Any, where: str) -> Fisheye:
    """A camera out of a recording's json."""
    if entry(item, "DistortionModel", where) != "FishEye62":
        raise DamagedError(f"{where}: its DistortionModel is {item['DistortionModel']!r}, this reads FishEye62")
    value = {
        key: float(numbers(entry(item, key, where), (), where, key))
        for key in ("fx", "fy", "cx", "cy", "p1", "p2", *_RADIAL)
    }
    return Fisheye(
        size=image_size(item, where, ("ImageSizeX", "ImageSizeY")),
        focal=np.array([value["fx"], value["fy"]]),
        centre=np.array([value["cx"], value["cy"]]),
        radial=np.array([value[key] for key in _RADIAL]),
        tangential=(value["p1"], value["p2"]),
    )


def read_hand_model(item: Any, file: Path) -> HandModel:
    """A hand model out of a recording's json."""
    where = f"{file}, hand_model"

    def array(key: str, columns: int = 3) -> NDArray[np.float64]:
        return numbers(entry(item, key, where), (-1, columns), where, key)

    axes, pivots = array("joint_rotation_axes")[:_HINGES], array("joint_rest_positions")[:_HINGES]
    landmarks = array("landmark_rest_positions")
    shares, bones = array("landmark_rest_bone_weights"), array("landmark_rest_bone_indices").astype(int)
    if (len(axes), len(pivots)) != (_HINGES, _HINGES) or {len(landmarks), len(shares), len(bones)} != {len(LANDMARKS)}:
        raise DamagedError(f"{where}: should have 20 hinges or more and 21 landmarks; download it again")
    if ((bones < 0) | (bones >= _FRAMES)).any():
        raise DamagedError(f"{where}: landmark_rest_bone_indices names a frame beyond {_FRAMES - 1}; download it again")
    weights = np.zeros((len(LANDMARKS), _FRAMES))
    for landmark, (share, bone) in enumerate(zip(shares, bones, strict=True)):
        weights[landmark, bone[share != 0]] = share[share != 0]  # unused places repeat a bone with weight 0
    return HandModel(axes, pivots, landmarks, weights)

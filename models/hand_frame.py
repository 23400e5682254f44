"""Canonical pose, viewpoint and normalised pose of a hand, after Zimmermann & Brox 2017, and the way back.

Conventions, written once (points are columns, the camera frame is x right, y down, z forward):

* w is a hand in metres, r its root, s its scale: the distance from middle mcp to middle pip (the authors' text says
  index finger, their code middle finger; this is the code's).
* 3DPose = (w - r) / s: root at the origin, the unit of length is s. It is dimensionless.
* 3DPose = R F CPose. F = diag(1, 1, -1) for right hands, the identity for left ones, so CPose always looks left.
* R, the viewpoint, holds the axes of the canonical frame as columns: e_y from middle mcp to the root, e_x the part of
  the direction to little mcp that is square to e_y, e_z = e_x x e_y. So in CPose the middle mcp lies at (0, -D, 0) and
  little mcp at (x > 0, y, 0).
* The root is the wrist. "palm" puts the midpoint of wrist and middle mcp in the wrist's place, as the published figures
  on RHD and STB do; nothing else uses it.

Two motions of the picture in closed form, with M = diag(-1, 1, 1) and Q a turn about z: the mirrored hand has
3DPose M (3DPose), the other side, the same CPose and viewpoint M R diag(1, 1, -1); the turned one has 3DPose
Q (3DPose), the same CPose and viewpoint Q R.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.data_specs.joints import FINGERS
from handaug.data_specs.schema import RIGHT

__all__ = [
    "ROOTS",
    "HandFrame",
    "hand_frame",
    "hand_points",
    "nearest_rotation",
    "reflections",
    "rotation_angle",
    "with_root",
]

FloatArray = NDArray[np.floating[Any]]

ROOTS = ("wrist", "palm")
"""What joint 0 is: the wrist, or the palm's centre for comparison with published figures."""

_WRIST = 0
_MIDDLE_MCP, _MIDDLE_PIP = FINGERS["middle"][:2]
_LITTLE_MCP = FINGERS["little"][0]

_SMALLEST_SCALE_M = 1e-4
_SMALLEST_SINE = 1e-3
"""Below it little mcp lies on the line from root to middle mcp and e_x has no direction."""


@dataclass(frozen=True)
class HandFrame:
    """Hands in parts; first axis N. Rows that are not `usable` hold zeros, identity viewpoints and scale 1."""

    cpose: NDArray[np.float64]
    """(N, 21, 3) canonical pose, unit s."""
    viewpoint: NDArray[np.float64]
    """(N, 3, 3) rotation R."""
    pose3d: NDArray[np.float64]
    """(N, 21, 3) 3DPose, unit s."""
    scale: NDArray[np.float64]
    """(N,) s in metres."""
    root: NDArray[np.float64]
    """(N, 3) r in metres, camera frame."""
    usable: NDArray[np.bool_]
    """(N,) whether all 21 joints are finite and span a frame."""


def with_root(points: FloatArray, root: str) -> NDArray[np.float64]:
    """Points (N, 21, D) whose joint 0 is the root asked for.

    Raises:
        InputError: `root` is not one of `ROOTS`.
    """
    if root not in ROOTS:
        raise InputError(f"root {root}: choose one of {', '.join(ROOTS)}")
    out = np.array(points, np.float64)
    if root == "palm":
        out[:, _WRIST] = (out[:, _WRIST] + out[:, _MIDDLE_MCP]) / 2
    return out


def hand_frame(points: FloatArray, handedness: NDArray[np.integer[Any]], root: str = "wrist") -> HandFrame:
    """Split hands into canonical pose, viewpoint, scale and root.

    Args:
        points: (N, 21, 3) metres, camera frame; NaN where not labelled.
        handedness: (N,) 0 left, 1 right.
        root: One of `ROOTS`.

    Returns:
        The parts; `hand_points` is the inverse.
    """
    w = with_root(points, root)
    origin = w[:, _WRIST]
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.linalg.norm(w[:, _MIDDLE_PIP] - w[:, _MIDDLE_MCP], axis=-1)
        pose = (w - origin[:, None]) / scale[:, None, None]
        e_y = -_unit(pose[:, _MIDDLE_MCP])
        little = pose[:, _LITTLE_MCP]
        across = little - (little * e_y).sum(-1, keepdims=True) * e_y
        sine = np.linalg.norm(across, axis=-1) / np.linalg.norm(little, axis=-1)
        e_x = _unit(across)
        viewpoint = np.stack([e_x, e_y, np.cross(e_x, e_y)], axis=-1)
        usable = np.isfinite(w).all((1, 2)) & (scale > _SMALLEST_SCALE_M) & (sine > _SMALLEST_SINE)
        # Rows are points: (R^T p)^T = p^T R.
        cpose = pose @ viewpoint
    cpose[..., 2] *= _flip(handedness)[:, None]
    keep = usable[:, None, None]
    return HandFrame(
        np.where(keep, cpose, 0.0),
        np.where(keep, viewpoint, np.eye(3)),
        np.where(keep, pose, 0.0),
        np.where(usable, scale, 1.0),
        np.where(usable[:, None], origin, 0.0),
        usable,
    )


def hand_points(
    cpose: FloatArray,
    viewpoint: FloatArray,
    handedness: NDArray[np.integer[Any]],
    scale: FloatArray | None = None,
    root: FloatArray | None = None,
) -> NDArray[np.float64]:
    """Put hands together again: s R F CPose + r.

    Args:
        cpose: (N, 21, 3).
        viewpoint: (N, 3, 3).
        handedness: (N,).
        scale: (N,) metres; without it the result is 3DPose in units of s.
        root: (N, 3) metres; without it the root lies at the origin.

    Returns:
        (N, 21, 3) float64.
    """
    canonical = np.array(cpose, np.float64)
    canonical[..., 2] *= _flip(handedness)[:, None]
    out = canonical @ np.swapaxes(np.asarray(viewpoint, np.float64), -1, -2)
    if scale is not None:
        out = out * np.asarray(scale, np.float64)[:, None, None]
    return out if root is None else out + np.asarray(root, np.float64)[:, None]


def nearest_rotation(matrices: FloatArray) -> NDArray[np.float64]:
    """The proper rotation nearest to each (..., 3, 3) matrix (Procrustes, det = +1); NaN where it is not finite."""
    given = np.asarray(matrices, np.float64)
    finite = np.isfinite(given).all((-2, -1), keepdims=True)
    u, _, vt = np.linalg.svd(np.where(finite, given, np.eye(3)))
    u[..., -1] *= np.sign(np.linalg.det(u) * np.linalg.det(vt))[..., None]
    return np.where(finite, u @ vt, np.nan)


def rotation_angle(a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
    """Angle in degrees of the turn between rotations (..., 3, 3)."""
    trace = np.einsum("...ij,...ij->...", np.asarray(a, np.float64), np.asarray(b, np.float64))
    angle: NDArray[np.float64] = np.degrees(np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0)))
    return angle


def reflections(handedness: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """F (N, 3, 3) of each side, its own inverse."""
    out = np.tile(np.eye(3), (len(handedness), 1, 1))
    out[:, 2, 2] = _flip(handedness)
    return out


def _flip(handedness: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    return np.where(np.asarray(handedness) == RIGHT, -1.0, 1.0)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit

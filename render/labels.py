"""Labels from the geometry alone: mask, depth, segments and visibility of one hand, by rays through pixel centres.

Camera frame x right, y down, z forward (OpenCV), metres. Pixel (u, v) with integer u, v is a pixel's centre, so the
image spans [-0.5, W - 0.5). Depth is z, not the distance along the ray. Quads are split along their first diagonal
(corners 0, 2); after subdivision they are planar to a few micrometres.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.camera import inside_image, project
from handaug.data_specs.schema import HIDDEN, NOT_LABELLED, VISIBLE

__all__ = ["Raster", "first_hits", "rasterise", "triangles_of", "visibility"]

_NEAR = 1e-3  # metres; triangles that reach behind this plane are left out
_BLOCK = 4_000_000  # ray-triangle pairs tested at once


@dataclass(frozen=True, eq=False)
class Raster:
    """What the camera sees of one mesh, at pixel centres."""

    depth: NDArray[np.float32]
    """(H, W) metres along z, 0 where nothing."""
    face: NDArray[np.int32]
    """(H, W) number of the quad seen, -1 where nothing."""

    def labels(self, face_label: NDArray[Any], background: int) -> NDArray[np.uint8]:
        """(H, W) uint8: `face_label[face]`, and `background` where nothing was hit."""
        padded = np.append(np.asarray(face_label, np.uint8), np.uint8(background))
        out: NDArray[np.uint8] = padded[self.face]
        return out


def triangles_of(quads: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
    """Split (F, 4) quads into (2F, 3) triangles; those of quad i are 2i and 2i + 1."""
    q = np.asarray(quads, np.intp)
    return np.asarray(np.stack([q[:, [0, 1, 2]], q[:, [0, 2, 3]]], 1).reshape(-1, 3))


def rasterise(
    vertices: NDArray[np.floating[Any]],
    quads: NDArray[np.integer[Any]],
    camera: NDArray[np.floating[Any]],
    height: int,
    width: int,
) -> Raster:
    """Nearest surface at each pixel centre; both sides of a face count.

    Exact: for a pixel centre inside a projected triangle, 1/z is linear in the pixel (perspective-correct).

    Args:
        vertices: (V, 3) metres, camera frame.
        quads: (F, 4) vertex numbers.
        camera: (3, 3) intrinsics.
        height: H, pixels.
        width: W, pixels.
    """
    xyz = np.asarray(vertices, np.float64)
    in_front = xyz[:, 2] > _NEAR
    safe = np.where(in_front[:, None], xyz, [0.0, 0.0, 1.0])
    pixel = (safe @ np.asarray(camera, np.float64).T)[:, :2] / safe[:, 2:]
    tri = triangles_of(quads)
    keep = in_front[tri].all(1)
    corner = pixel[tri]
    # Pixel centres are integers: a triangle covers columns ceil(min) .. floor(max).
    low = np.ceil(corner.min(1) - 1e-9)
    high = np.floor(corner.max(1) + 1e-9)
    low = np.maximum(low, 0).astype(np.int64)
    high = np.minimum(high, [width - 1, height - 1]).astype(np.int64)
    extent = high - low + 1
    keep &= (extent > 0).all(1)
    number = np.flatnonzero(keep)
    low, extent, corner = low[keep], extent[keep], corner[keep]
    inverse_z = 1 / safe[tri[keep], 2]

    owner, u, v = _pixels_in_boxes(low, extent)
    a, b, c = corner[owner, 0], corner[owner, 1], corner[owner, 2]
    # Barycentric coordinates by edge functions.
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    wa = (b[:, 0] - u) * (c[:, 1] - v) - (b[:, 1] - v) * (c[:, 0] - u)
    wb = (c[:, 0] - u) * (a[:, 1] - v) - (c[:, 1] - v) * (a[:, 0] - u)
    sign = np.sign(area)
    wa, wb, area = wa * sign, wb * sign, area * sign
    wc = area - wa - wb
    inside = (wa >= 0) & (wb >= 0) & (wc >= 0) & (area > 0)
    owner, u, v = owner[inside], u[inside], v[inside]
    weights = np.stack([wa, wb, wc], 1)[inside] / area[inside, None]
    nearness = (weights * inverse_z[owner]).sum(1)

    # The last write wins: write far first.
    order = np.argsort(nearness, kind="stable")
    target = v[order] * width + u[order]
    depth, face = np.zeros(height * width), np.full(height * width, -1, np.int32)
    depth[target] = 1 / nearness[order]
    face[target] = number[owner[order]] // 2
    return Raster(depth.reshape(height, width).astype(np.float32), face.reshape(height, width))


def _pixels_in_boxes(
    low: NDArray[np.int64], extent: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """All integer points of many boxes: (owner, u, v), each (P,)."""
    count = extent[:, 0] * extent[:, 1]
    owner = np.repeat(np.arange(len(count)), count)
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    columns = extent[owner, 0]
    return owner, low[owner, 0] + rank % columns, low[owner, 1] + rank // columns


def first_hits(
    points: NDArray[np.floating[Any]], vertices: NDArray[np.floating[Any]], quads: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """First surface on the ray from the camera's centre towards each point, and beyond it.

    Args:
        points: (P, 3) camera frame.
        vertices: (V, 3) camera frame.
        quads: (F, 4) vertex numbers.

    Returns:
        (P,) number of the quad hit first, -1 where none; (P,) distance in units of the point's own (1: at the point).
    """
    a, b, c = np.moveaxis(np.asarray(vertices, np.float64)[triangles_of(quads)], 1, 0)
    normal = _cross(b - a, c - a)
    # Scalar triple products: the ray's direction d meets the inside when all three have one sign.
    sides = np.concatenate([_cross(b, c), _cross(c, a), _cross(a, b)])
    volume = np.einsum("ti,ti->t", a, normal)[:, None]
    face, distance = np.full(len(points), -1, np.intp), np.full(len(points), np.inf)
    step = max(1, _BLOCK // max(1, len(a)))
    for start in range(0, len(points), step):
        d = np.asarray(points[start : start + step], np.float64).T
        triple = (sides @ d).reshape(3, len(a), -1)
        hit = (triple >= 0).all(0) | (triple <= 0).all(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = volume / (normal @ d)
        t = np.where(hit & (t > 0), t, np.inf)
        best = t.argmin(0)
        nearest = t[best, np.arange(d.shape[1])]
        distance[start : start + step] = nearest
        face[start : start + step] = np.where(np.isfinite(nearest), best // 2, -1)
    return face, distance


def visibility(
    keypoints_3d: NDArray[np.floating[Any]],
    vertices: NDArray[np.floating[Any]],
    quads: NDArray[np.integer[Any]],
    face_segment: NDArray[np.integer[Any]],
    joint_segments: Sequence[Sequence[int]],
    camera: NDArray[np.floating[Any]],
    height: int,
    width: int,
) -> NDArray[np.uint8]:
    """Which joints the camera sees, by the contract's rule.

    Args:
        keypoints_3d: (J, 3) metres, camera frame.
        vertices: (V, 3) metres, camera frame; all surfaces that may hide a joint, other objects included.
        quads: (F, 4) vertex numbers.
        face_segment: (F,) part of each quad.
        joint_segments: for each joint, the parts that meet there.
        camera: (3, 3) intrinsics.
        height: H, pixels.
        width: W, pixels.

    Returns:
        (J,) uint8: 0 outside [-0.5, W - 0.5) x [-0.5, H - 0.5); 2 if the first surface on the ray to the joint is one
        of its parts, or there is none; 1 otherwise.
    """
    inside = inside_image(project(camera, keypoints_3d), width, height)
    face, _ = first_hits(keypoints_3d, vertices, quads)
    part = np.where(face >= 0, np.asarray(face_segment, np.int64)[face], -1)
    seen = [hit < 0 or int(hit) in allowed for hit, allowed in zip(part, joint_segments, strict=True)]
    return np.where(inside, np.where(seen, VISIBLE, HIDDEN), NOT_LABELLED).astype(np.uint8)


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """`np.cross` of (T, 3) arrays, several times faster."""
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)

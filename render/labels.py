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
from handaug.data_specs.schema import (
    HIDDEN,
    NOT_LABELLED,
    NOT_OCCLUDED,
    OCCLUDED_BY_OBJECT,
    OCCLUDED_BY_OTHER_HAND,
    OCCLUDED_BY_SELF,
    VISIBLE,
)

__all__ = ["OTHER_HAND", "PROP", "Raster", "first_hits", "rasterise", "sight", "triangles_of"]

_NEAR = 1e-3  # metres; triangles that reach behind this plane are left out
PROP, OTHER_HAND = 254, 253
"""Parts of faces that are not this hand's: beside the positions in `hand.SEGMENTS`."""


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
    x, y = (safe @ np.asarray(camera, np.float64)[:2].T).T / safe[:, 2]
    tri = triangles_of(quads)
    # Pixel centres are integers: a triangle covers columns ceil(min) .. floor(max).
    low, high = [], []
    for along, last in ((x, width - 1), (y, height - 1)):
        least, most = _bounds(along, tri)
        low.append(np.maximum(np.ceil(least - 1e-9), 0))
        high.append(np.minimum(np.floor(most + 1e-9), last))
    number = np.flatnonzero((low[0] <= high[0]) & (low[1] <= high[1]))
    number = number[in_front[tri[number]].all(1)]
    tri = tri[number]
    first = np.stack([low[0][number], low[1][number]], 1).astype(np.int64)
    extent = np.stack([high[0][number], high[1][number]], 1).astype(np.int64) - first + 1
    corner, inverse_z = np.stack([x[tri], y[tri]], -1), 1 / safe[tri, 2]

    owner, u, v = _pixels_in_boxes(first, extent)
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


def _bounds(values: NDArray[np.float64], tri: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and greatest of the values (V,) at the corners of triangles (T, 3), each (T,)."""
    a, b, c = values[tri[:, 0]], values[tri[:, 1]], values[tri[:, 2]]
    return np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)


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
    corner = np.asarray(vertices, np.float64)
    tri, d = triangles_of(quads), np.asarray(points, np.float64)
    which, ray = _near_rays(corner, tri, d)
    a, b, c = np.moveaxis(corner[tri[which]], 1, 0)
    normal, way = _cross(b - a, c - a), d[ray]
    # Scalar triple products: the ray's direction meets the inside when all three have one sign.
    triple = np.stack([np.einsum("ti,ti->t", _cross(p, q), way) for p, q in ((a, b), (b, c), (c, a))])
    hit = (triple >= 0).all(0) | (triple <= 0).all(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.einsum("ti,ti->t", a, normal) / np.einsum("ti,ti->t", normal, way)
    hit &= t > 0
    face, distance = np.full(len(d), -1, np.intp), np.full(len(d), np.inf)
    order = np.flatnonzero(hit)[np.argsort(-t[hit], kind="stable")]  # the last write wins: write far first
    face[ray[order]], distance[ray[order]] = which[order] // 2, t[order]
    return face, distance


def _near_rays(
    corner: NDArray[np.float64], tri: NDArray[np.intp], points: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs (triangle, ray) that may meet: those whose boxes overlap on the plane z = 1, and all where one of the two
    reaches behind the camera. What lies there wholly (the arm, at times) meets no ray that leads forward."""
    with np.errstate(divide="ignore", invalid="ignore"):
        flat, at = corner[:, :2] / corner[:, 2:], points[:, :2] / points[:, 2:]
    ahead, behind = (corner[:, 2] > _NEAR)[tri].all(1), (corner[:, 2] <= 0)[tri].all(1)
    margin = 1e-9 * (1 + np.abs(at))
    near = np.ones((len(points), len(tri)), bool)  # numpy's inner loops then run along the triangles
    for axis in range(2):
        low, high = _bounds(flat[:, axis], tri)
        near &= low <= (at + margin)[:, axis, None]
        near &= high >= (at - margin)[:, axis, None]
    near = ((near | ~ahead) & ~behind) | (points[:, 2:] <= 0)
    ray, which = np.nonzero(near)
    return which, ray


def sight(
    keypoints_3d: NDArray[np.floating[Any]],
    vertices: NDArray[np.floating[Any]],
    quads: NDArray[np.integer[Any]],
    face_segment: NDArray[np.integer[Any]],
    joint_segments: Sequence[Sequence[int]],
    camera: NDArray[np.floating[Any]],
    height: int,
    width: int,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Which joints the camera sees, by the contract's rule, and what hides the others.

    Args:
        keypoints_3d: (J, 3) metres, camera frame.
        vertices: (V, 3) metres, camera frame; all surfaces that may hide a joint, other objects included.
        quads: (F, 4) vertex numbers.
        face_segment: (F,) part of each quad; `PROP` on objects, `OTHER_HAND` on the other hand.
        joint_segments: for each joint, the parts that meet there.
        camera: (3, 3) intrinsics.
        height: H, pixels.
        width: W, pixels.

    Returns:
        (J,) uint8: 0 outside [-0.5, W - 0.5) x [-0.5, H - 0.5); 2 if the first surface on the ray to the joint is one
        of its parts, or there is none; 1 otherwise. And (J,) uint8: 0 not hidden, 1 by the hand itself or its arm, 2
        by an object, 3 by the other hand.
    """
    inside = inside_image(project(camera, keypoints_3d), width, height)
    face, _ = first_hits(keypoints_3d, vertices, quads)
    part = np.where(face >= 0, np.asarray(face_segment, np.int64)[face], -1)
    seen = np.array([hit < 0 or int(hit) in allowed for hit, allowed in zip(part, joint_segments, strict=True)])
    visibility = np.where(inside, np.where(seen, VISIBLE, HIDDEN), NOT_LABELLED)
    by = np.select([part == PROP, part == OTHER_HAND], [OCCLUDED_BY_OBJECT, OCCLUDED_BY_OTHER_HAND], OCCLUDED_BY_SELF)
    return visibility.astype(np.uint8), np.where(seen, NOT_OCCLUDED, by).astype(np.uint8)


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """`np.cross` of (T, 3) arrays, several times faster."""
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)

"""Normals and texture coordinates of what each pixel sees, from the raster of the geometry.

A pixel's surface point is its depth along its ray; its place in the triangle (barycentric coordinates) weighs what the
corners carry. Conventions as in `handaug.render.labels`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.render.labels import Raster

__all__ = ["normal_map", "uv_map"]


def normal_map(
    raster: Raster,
    vertices: NDArray[np.floating[Any]],
    quads: NDArray[np.integer[Any]],
    camera: NDArray[np.floating[Any]],
) -> NDArray[np.float16]:
    """Smooth surface normals.

    Args:
        raster: of these surfaces.
        vertices: (V, 3) metres, camera frame.
        quads: (F, 4) vertex numbers, counter-clockwise seen from outside.
        camera: (3, 3) intrinsics.

    Returns:
        (H, W, 3) unit vectors out of the surface, camera frame; 0 where nothing.
    """
    corner = np.asarray(vertices, np.float64)[quads]
    face = np.cross(corner[:, 2] - corner[:, 0], corner[:, 3] - corner[:, 1])
    face /= np.maximum(np.linalg.norm(face, axis=1, keepdims=True), 1e-18)
    # Each face counts by its angle at the vertex, as Blender weighs smooth normals.
    one, two = np.roll(corner, -1, 1) - corner, np.roll(corner, 1, 1) - corner
    cosine = (one * two).sum(2) / np.maximum(np.linalg.norm(one, axis=2) * np.linalg.norm(two, axis=2), 1e-18)
    total = np.zeros((len(vertices), 3))
    np.add.at(total, quads, np.arccos(np.clip(cosine, -1, 1))[..., None] * face[:, None])
    seen, weights, at = _corners(raster, vertices, quads, camera)
    which = quads[raster.face[seen][:, None], at]
    smooth = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-18)
    normal = np.einsum("pk,pki->pi", weights, smooth[which])
    out = np.zeros((*raster.face.shape, 3), np.float16)
    out[seen] = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-18)
    return out


def uv_map(
    raster: Raster,
    vertices: NDArray[np.floating[Any]],
    quads: NDArray[np.integer[Any]],
    camera: NDArray[np.floating[Any]],
    face_uv: NDArray[np.floating[Any]],
) -> NDArray[np.float16]:
    """Texture coordinates.

    Args:
        raster: of these surfaces.
        vertices: (V, 3) metres, camera frame.
        quads: (F, 4) vertex numbers.
        camera: (3, 3) intrinsics.
        face_uv: (F', 4, 2) of the corners of the first F' quads; the others have none.

    Returns:
        (H, W, 2) u, v; 0 where there is nothing or nothing textured.
    """
    seen, weights, at = _corners(raster, vertices, quads, camera)
    face = raster.face[seen]
    known = face < len(face_uv)
    uv = np.asarray(face_uv, np.float64)[np.where(known, face, 0)[:, None], at]
    out = np.zeros((*raster.face.shape, 2), np.float16)
    out[seen] = np.einsum("pk,pki->pi", weights, uv) * known[:, None]
    return out


def _corners(
    raster: Raster,
    vertices: NDArray[np.floating[Any]],
    quads: NDArray[np.integer[Any]],
    camera: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.intp]]:
    """Of the P pixels that see something: the mask (H, W), weights (P, 3), corners 0..3 of the quad they belong to."""
    seen = raster.face >= 0
    v, u = np.nonzero(seen)
    depth = raster.depth[seen].astype(np.float64)
    inverse = np.linalg.inv(np.asarray(camera, np.float64))
    points = (np.stack([u, v, np.ones(len(u))], 1) @ inverse.T) * depth[:, None]
    corner = np.asarray(vertices, np.float64)[quads[raster.face[seen]]]
    first, second = np.array([0, 1, 2]), np.array([0, 2, 3])
    one, two = _barycentric(points, corner[:, first]), _barycentric(points, corner[:, second])
    better = one.min(1) >= two.min(1)
    weights = np.clip(np.where(better[:, None], one, two), 0, 1)
    return seen, weights / weights.sum(1, keepdims=True), np.where(better[:, None], first, second)


def _barycentric(points: NDArray[np.float64], triangle: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, 3) of points (P, 3) in the planes of triangles (P, 3, 3)."""
    a, b, c = np.moveaxis(triangle, 1, 0)
    e, f, g = b - a, c - a, points - a
    ee, ef, ff = (e * e).sum(1), (e * f).sum(1), (f * f).sum(1)
    ge, gf = (g * e).sum(1), (g * f).sum(1)
    area = ee * ff - ef * ef
    safe = np.where(np.abs(area) > 1e-30, area, 1.0)
    v, w = (ff * ge - ef * gf) / safe, (ee * gf - ef * ge) / safe
    return np.stack([1 - v - w, v, w], 1)

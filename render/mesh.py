"""Quad meshes: faces wound the other way round, smooth normals. Faces are counter-clockwise seen from outside."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["mirror_quads", "vertex_normals"]


def mirror_quads(corners: NDArray[Any]) -> NDArray[Any]:
    """Wind (F, 4, ...) quads, or their per-corner values such as UVs, the other way round: for mirrored vertices.

    The first corner stays first, so that both hands are split into triangles along the same diagonals.
    """
    return np.ascontiguousarray(corners[:, [0, 3, 2, 1]])


def vertex_normals(vertices: NDArray[np.floating[Any]], quads: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """(V, 3) unit normals, out of the surface, of vertices (V, 3): each face of `quads` (F, 4) counts by its area."""
    corner = vertices[quads].astype(np.float64)
    face = np.cross(corner[:, 2] - corner[:, 0], corner[:, 3] - corner[:, 1])
    total = np.zeros((len(vertices), 3))
    np.add.at(total, quads, face[:, None])
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12))

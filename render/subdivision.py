"""Catmull-Clark subdivision of quad meshes as one sparse matrix (Catmull and Clark 1978).

The new vertices are a fixed linear function of the old ones, so a mesh that only changes its shape is subdivided by
one sparse product. Borders keep the cubic B-spline rule.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["catmull_clark"]


def catmull_clark(
    quads: NDArray[np.integer[Any]], n_vertices: int, face_uv: NDArray[Any]
) -> tuple[sp.csr_matrix, NDArray[np.intp], NDArray[np.float64]]:
    """Split each quad into four.

    Args:
        quads: (F, 4) vertex numbers.
        n_vertices: V, each used by at least one quad.
        face_uv: (F, 4, 2) texture coordinates of each quad's corners; split linearly, so islands keep their borders.

    Returns:
        (V', V) matrix with `new_vertices = matrix @ vertices`, V' = V + edges + F; (4F, 4) quads, the four of quad i at
        4i..4i+3, each starting at the corner of the old quad; (4F, 4, 2) texture coordinates.

    Example:
        >>> matrix, quads, uv = catmull_clark(np.array([[0, 1, 2, 3]]), 4, np.zeros((1, 4, 2)))
        >>> matrix.shape, quads.shape, uv.shape
        ((9, 4), (4, 4), (4, 4, 2))
    """
    quads = np.asarray(quads, np.intp)
    n_faces = len(quads)
    sides = np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2)
    edges, edge_of, count = np.unique(np.sort(sides, 1), axis=0, return_inverse=True, return_counts=True)
    edge_of, n_edges, inner = edge_of.reshape(-1), len(edges), count == 2
    face_of = np.repeat(np.arange(n_faces), 4)
    edge_index = np.repeat(np.arange(n_edges), 2)

    face_points = _incidence(face_of, quads.ravel(), (n_faces, n_vertices), 0.25)
    midpoints = _incidence(edge_index, edges.ravel(), (n_edges, n_vertices), 0.5)
    beside = _incidence(edge_of, face_of, (n_edges, n_faces))
    # An inner edge point is the mean of its ends and of its two face points.
    edge_points = _rows(np.where(inner, 0.5, 1.0)) @ midpoints
    edge_points = edge_points + _rows(np.where(inner, 0.25, 0.0)) @ beside @ face_points

    n = np.bincount(edges.ravel(), minlength=n_vertices).astype(float)
    around_edges = _incidence(edges.ravel(), edge_index, (n_vertices, n_edges))
    around_faces = _incidence(quads.ravel(), face_of, (n_vertices, n_faces))
    # Inner vertex of valence n: (Q + 2 R + (n - 3) S) / n, with Q the mean face point, R the mean edge midpoint.
    smooth = (
        _rows(1 / n**2) @ around_faces @ face_points
        + _rows(2 / n**2) @ around_edges @ midpoints
        + _rows((n - 3) / n) @ sp.identity(n_vertices, format="csr")
    )
    border = np.zeros(n_vertices, bool)
    border[edges[~inner].ravel()] = True
    border_edges = around_edges @ _rows((~inner).astype(float))
    # Border vertex: half itself, a quarter of each border neighbour's midpoint.
    crease = 0.25 * border_edges @ midpoints + 0.5 * sp.identity(n_vertices, format="csr")
    vertex_points = _rows((~border).astype(float)) @ smooth + _rows(border.astype(float)) @ crease

    edge = edge_of.reshape(n_faces, 4) + n_vertices
    face = np.tile((np.arange(n_faces) + n_vertices + n_edges)[:, None], (1, 4))
    new_quads = np.stack([quads, edge, face, np.roll(edge, 1, 1)], -1).reshape(-1, 4)
    uv = np.asarray(face_uv, np.float64)
    mid = (uv + np.roll(uv, -1, 1)) / 2
    centre = np.repeat(uv.mean(1, keepdims=True), 4, 1)
    new_uv = np.stack([uv, mid, centre, np.roll(mid, 1, 1)], 2).reshape(-1, 4, 2)
    return sp.vstack([vertex_points, edge_points, face_points]).tocsr(), new_quads, new_uv


def _incidence(rows: NDArray[Any], columns: NDArray[Any], shape: tuple[int, int], value: float = 1.0) -> sp.csr_matrix:
    return sp.coo_matrix((np.full(len(rows), value), (rows, columns)), shape).tocsr()


def _rows(factors: NDArray[np.float64]) -> sp.dia_matrix:
    return sp.diags(factors)

"""A second implementation of what a ray sees: Moeller and Trumbore (1997), one ray at a time, over a list of meshes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.render.hand import SEGMENTS, HandModel
from handaug.render.scene import HandScene

__all__ = ["pixel_rays", "scene_triangles", "see", "winding"]

Floats = NDArray[np.float64]


def scene_triangles(model: HandModel, scene: HandScene) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """(T, 3, 3) triangles of a scene, what each shows (a segment's number, 254 an object, 253 the other hand) and its
    value in the mask, written down from the contract."""
    corners, parts, masks = [], [], []

    def add(vertices: NDArray[Any], quads: NDArray[Any], part: Any, mask: Any) -> None:
        for corner in ((0, 1, 2), (0, 2, 3)):
            corners.append(vertices.astype(np.float64)[quads[:, corner]])
            parts.append(np.broadcast_to(part, len(quads)).astype(np.int64))
            masks.append(np.broadcast_to(mask, len(quads)).astype(np.int64))

    forearm = model.face_segment == SEGMENTS.index("forearm")
    add(scene.vertices, model.quads, model.face_segment, np.where(forearm, 2, 1))
    for thing in scene.things:
        add(thing.vertices, thing.quads, thing.part, thing.mask)
    if scene.other is not None:
        add(scene.other.vertices, model.quads, 253, 4)
    return np.concatenate(corners), np.concatenate(parts), np.concatenate(masks)


def see(rays: NDArray[Any], triangles: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Nearest t > 0 along each ray (R, 3) from the origin and the number of the triangle there, -1 where none."""
    a = triangles[:, 0]
    e1, e2 = triangles[:, 1] - a, triangles[:, 2] - a
    distance, face = np.full(len(rays), np.inf), np.full(len(rays), -1, np.intp)
    for i, ray in enumerate(np.asarray(rays, np.float64)):
        p = np.cross(ray, e2)
        det = np.einsum("ti,ti->t", e1, p)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = np.einsum("ti,ti->t", -a, p) / det
            q = np.cross(-a, e1)
            v = (q @ ray) / det
            t = np.einsum("ti,ti->t", e2, q) / det
        t[~((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 1e-9))] = np.inf
        if np.isfinite(t.min()):
            distance[i], face[i] = t.min(), t.argmin()
    return distance, face


def pixel_rays(camera: NDArray[Any], size: int) -> Floats:
    """(H, W, 3) directions with z = 1 through pixel centres."""
    v, u = np.mgrid[:size, :size]
    return np.asarray(np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(camera.astype(np.float64)).T)


def winding(points: NDArray[Any], triangles: Floats) -> Floats:
    """Solid angle of a surface round each point / 4 pi (van Oosterom and Strackee 1983): 1 inside, 0 outside."""
    out = []
    for point in np.asarray(points, np.float64):
        a, b, c = np.moveaxis(triangles - point, 1, 0)
        la, lb, lc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
        top = np.einsum("ti,ti->t", a, np.cross(b, c))
        ab, bc, ca = (np.einsum("ti,ti->t", x, y) for x, y in ((a, b), (b, c), (c, a)))
        out.append(2 * np.arctan2(top, la * lb * lc + ab * lc + bc * la + ca * lb).sum() / (4 * np.pi))
    return np.array(out)

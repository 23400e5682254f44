"""Where the skin is nail and where it is palm: weights of the vertices, from the hand at rest."""

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.joints import FINGERS
from handaug.render.hand import SEGMENTS, HandModel
from handaug.render.pose_prior import ANGLES, HandPose

__all__ = ["Surface", "surface_of"]

Floats = NDArray[np.float32]


class Surface:
    """What the material needs to know about the mesh.

    Attributes:
        quads: (F, 4) faces of a right hand.
        rest: (V, 3) vertices of the hand at rest, metres: textures are fixed to them.
        nail: (V,) 1 on the nails, 0 elsewhere.
        palm: (V,) 1 on the hairless skin of palm and finger pads, 0 elsewhere: it has little melanin.
    """

    def __init__(self, quads: NDArray[np.int32], rest: Floats, nail: Floats, palm: Floats) -> None:
        self.quads, self.rest, self.nail, self.palm = quads, rest, nail, palm


def surface_of(model: HandModel) -> Surface:
    """Measure the rest pose (all angles zero, mean shape).

    The inside of a finger segment is the side its tip moves to when the last joint bends, which also holds for the
    thumb. A nail is the outer side of the last two thirds of a distal segment; palm is the inner side of everything
    but the forearm.
    """
    flat = HandPose(np.zeros(len(ANGLES)))
    rest = model.pose(model.mean_shape, flat)
    normals = _vertex_normals(rest.vertices, model.quads)
    segment = np.zeros((len(rest.vertices), len(SEGMENTS)), np.float32)
    np.add.at(segment, (model.quads, model.face_segment[:, None]), 1)
    owner = segment.argmax(1)

    nail = np.zeros(len(rest.vertices))
    inner = np.where(owner > 0, normals[:, 2], -1.0)  # out of the palm
    for finger, joints in FINGERS.items():
        last = "ip" if finger == "thumb" else "dip"
        bent = HandPose.from_degrees(**{f"{finger}_{last}_flexion": 30.0})
        root, tip = rest.joints[joints[2]], rest.joints[joints[3]]
        along = tip - root
        length = np.linalg.norm(along)
        along = along / length
        pad = model.joints(model.mean_shape, bent)[joints[3]] - tip
        pad = pad - (pad @ along) * along
        pad /= np.linalg.norm(pad)
        mine = np.isin(owner, [SEGMENTS.index(f"{finger}_{k}") for k in (1, 2, 3)])
        if finger == "thumb":
            inner = np.where(mine, normals @ pad, inner)
        place = (rest.vertices - root) @ along / length
        plate = _step(place, 0.5, 0.62) * _step(-(normals @ pad), 0.62, 0.8) * (owner == SEGMENTS.index(f"{finger}_3"))
        nail = np.maximum(nail, plate)
    return Surface(model.quads, rest.vertices, nail.astype(np.float32), _step(inner, -0.25, 0.35).astype(np.float32))


def _step(x: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _vertex_normals(vertices: Floats, quads: NDArray[np.int32]) -> NDArray[np.float64]:
    corner = vertices[quads].astype(np.float64)
    face = np.cross(corner[:, 2] - corner[:, 0], corner[:, 3] - corner[:, 1])
    total = np.zeros((len(vertices), 3))
    np.add.at(total, quads, face[:, None])
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12))

"""Where the skin is nail and where it is palm: weights of the vertices, from the hand at rest."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.joints import FINGERS
from handaug.render.hand import SEGMENTS, HandModel
from handaug.render.mesh import vertex_normals
from handaug.render.pose_prior import ANGLES, HandPose
from handaug.render.skin_maps import SkinMaps, skin_maps
from handaug.render.smooth import smooth_step
from handaug.render.tension import Tension

__all__ = ["NAIL_RAMP", "Surface", "surface_of"]

Floats = NDArray[np.float32]

NAIL_RAMP = 0.004
"""Metres across a nail's edge over which `Surface.nail` goes from 0 to 1."""

_NAIL_BREADTH, _NAIL_LENGTH, _NAIL_SHORT = 0.64, 1.22, 0.0008
"""Of the finger's breadth; of the nail's own; metres from its end to that of the fingertip. People's index nails are
about 10 mm broad and 12 long on a finger of 16."""


@dataclass(frozen=True, eq=False)
class Surface:
    """What the material needs to know about the mesh."""

    quads: NDArray[np.int32]
    """(F, 4) faces of a right hand."""
    rest: Floats
    """(V, 3) vertices of the hand at rest, metres: textures are fixed to them."""
    nail: Floats
    """(V,) 0.5 on the edge of a nail, rising to 1 within and falling to 0 without over `NAIL_RAMP` metres, so that the
    edge runs smoothly between vertices that lie as far apart as it is soft."""
    palm: Floats
    """(V,) 1 on the hairless skin of palm and finger pads, which has little melanin; 0 on the back."""
    back: Floats
    """(V,) 1 where veins and tendons show, on the back of hand and forearm; 0 on their inside. The maps end below the
    wrist."""
    maps: SkinMaps
    """Lines, veins and tendons."""
    tension: Tension
    """What a pose leaves of wrinkles and tendons."""


def surface_of(model: HandModel) -> Surface:
    """Measure the rest pose (all angles zero, mean shape).

    The inside of a finger segment is the side its tip moves to when the last joint bends, which also holds for the
    thumb. A nail lies on the outer side of a distal segment; palm is the inner side of the hand.
    """
    flat = HandPose(np.zeros(len(ANGLES)))
    rest = model.pose(model.mean_shape, flat)
    normals = vertex_normals(rest.vertices, model.quads)
    segment = np.zeros((len(rest.vertices), len(SEGMENTS)), np.float32)
    np.add.at(segment, (model.quads, model.face_segment[:, None]), 1)
    owner = segment.argmax(1)

    nail = np.zeros(len(rest.vertices))
    inner = normals[:, 2]  # out of the palm
    for finger, joints in FINGERS.items():
        last = "ip" if finger == "thumb" else "dip"
        bent = HandPose.from_degrees(**{f"{finger}_{last}_flexion": 30.0})
        root, tip = rest.joints[joints[2]], rest.joints[joints[3]]
        along = tip - root
        along = along / np.linalg.norm(along)
        pad = model.joints(model.mean_shape, bent)[joints[3]] - tip
        pad = pad - (pad @ along) * along
        pad /= np.linalg.norm(pad)
        mine = np.isin(owner, [SEGMENTS.index(f"{finger}_{k}") for k in (1, 2, 3)])
        if finger == "thumb":
            inner = np.where(mine, normals @ pad, inner)
        last_part = owner == SEGMENTS.index(f"{finger}_3")
        seen = (rest.vertices[last_part] - tip) @ np.stack([along, np.cross(along, pad)], 1)
        nail[last_part] = _nail(seen, -normals[last_part] @ pad)
    # The inside of the forearm is a little paler too; at the wrist one becomes the other.
    palm = smooth_step(inner, -0.4, 0.45) * (0.15 + 0.85 * smooth_step(rest.vertices[:, 1], -0.025, 0.03))
    back = np.asarray(1 - smooth_step(inner, -0.3, 0.3), np.float32)
    maps = skin_maps(model)
    tension = Tension(rest.vertices, rest.joints, back)
    return Surface(model.quads, rest.vertices, nail.astype(np.float32), palm.astype(np.float32), back, maps, tension)


def _nail(place: NDArray[np.floating[Any]], outward: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """`Surface.nail` of the skin of a last segment.

    The plate follows the finger's own end and breadth, wherever its last joint is taken to lie. Its root is an arc, its
    free edge a flatter one, its sides run nearly straight.

    Args:
        place: (N, 2) metres along the bone and across it.
        outward: (N,) how far the skin looks away from the pad, 1 wholly.
    """
    end = float(place[:, 0].max())
    widest = place[(place[:, 0] > end - 0.012) & (place[:, 0] < end - 0.005), 1]
    half = 0.5 * _NAIL_BREADTH * float(np.ptp(widest))
    length = 2 * half * _NAIL_LENGTH
    middle = np.array([end - _NAIL_SHORT - 0.45 * length, 0.5 * (widest.min() + widest.max())])
    x, y = (place - middle).T
    away = np.abs(np.stack([x / np.where(x < 0, 0.55 * length, 0.45 * length), y / half]))
    within = half * (1 - np.where(x < 0, (away**2.5).sum(0) ** 0.4, (away**3.5).sum(0) ** (1 / 3.5)))
    within = np.minimum(within, 0.005 * (outward - 0.35))  # not round the tip to the pad, nor down the sides
    return np.asarray(np.clip(0.5 + within / NAIL_RAMP, 0, 1))

"""Knuckles that stand out when the fingers bend.

Where a finger bends over its metacarpal, skin is drawn taut over the head of that bone. Linear blend skinning does the
opposite: it pulls the skin in, from 5 to 7 mm before the joint's axis to 4 or 4.5 in a fist, and fists have no
knuckles. So skin that comes into the bone's head, an ellipsoid about the joint, is pushed out to its surface, the more
the finger bends.
"""

import numpy as np
from numpy.typing import NDArray

from handaug.render.smooth import smooth_step

__all__ = ["Knuckles"]

Floats = NDArray[np.float64]

_BEND = (np.radians(15.0), np.radians(75.0))
"""From where to where of the MCP's flexion the bone's head comes out."""
_HEAD, _SLIM, _LONG = 0.22, 0.85, 1.5
"""The head's radius with its skin over the length of the first phalanx; over that radius its half breadth, and how far
it tapers towards the wrist, under the tendon."""
_SHARP = 4.0
_NEAR = 0.03  # metres from the joint at rest, for hands of every size


class Knuckles:
    """Pushes skin out of the heads of the metacarpals of index, middle, ring and little finger.

    Args:
        rest: (V, 3) skin of any hand at rest, metres.
        heads: (4, 3) where the first phalanges begin there.
        others: (V, 4) share of each vertex in the other fingers, which stays where it is.
    """

    def __init__(self, rest: Floats, heads: Floats, others: Floats) -> None:
        self._near = [np.flatnonzero(np.linalg.norm(rest - head, axis=1) < _NEAR) for head in heads]
        self._own = [np.clip(1 - 2 * others[near, k], 0, 1) for k, near in enumerate(self._near)]

    def raised(self, vertices: Floats, joints: Floats) -> Floats:
        """The posed skin with the knuckles beneath it.

        Args:
            vertices: (V, 3) metres, in the posed hand's frame (`handaug.render.hand`).
            joints: (21, 3) metres.
        """
        out = vertices.copy()
        for finger, (near, own) in enumerate(zip(self._near, self._own, strict=True), start=1):
            joint = joints[4 * finger + 1]
            along, phalanx = _unit(joint - joints[0]), joints[4 * finger + 2] - joint
            palm = _unit(np.array([0.0, 0.0, 1.0]) - along[2] * along)
            bend = float(np.arctan2(phalanx @ palm, phalanx @ along))
            if bend <= _BEND[0]:
                continue
            offset = vertices[near] - joint
            seen = offset @ np.stack([np.cross(along, palm), along, -palm], 1)
            half = np.stack([np.full(len(near), _SLIM), np.where(seen[:, 1] < 0, _LONG, 1), np.ones(len(near))], 1)
            place = np.linalg.norm(seen / half, axis=1) / (_HEAD * float(np.linalg.norm(phalanx)))
            # A smooth maximum of 1 and where the skin was: no crease where it leaves the bone.
            pushed = (1 + place**_SHARP) ** (1 / _SHARP) / place
            outward = seen[:, 1:] @ [np.sin(bend / 2), np.cos(bend / 2)] / np.linalg.norm(seen, axis=1)
            share = smooth_step(bend, *_BEND) * smooth_step(outward, 0.0, 0.6) * own
            out[near] += (share * (pushed - 1))[:, None] * offset
        return out


def _unit(way: Floats) -> Floats:
    return np.asarray(way / np.linalg.norm(way))

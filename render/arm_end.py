"""Where the arms of a picture end, and whether a camera sees it: no photograph shows an arm that is cut off.

The forearm is a straight tube that is closed a hand's length beyond the elbow (`render/anny_extract.py`). It may run
out of the frame, or end behind a hand. An end that only the arm's own flesh hides counts as seen: of an arm that
points away from the camera one then sees a stump all the same.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.camera import inside_image, project
from handaug.data_specs.schema import MASK_FOREARM
from handaug.render.hand import SEGMENTS, HandModel, PosedHand
from handaug.render.labels import first_hits
from handaug.render.scene import Thing
from handaug.render.viewpoint import to_camera

__all__ = ["ArmEnds"]

_FOREARM = SEGMENTS.index("forearm")
_END = 0.9
"""Share of the way from the wrist to the arm's farthest skin after which it is the end: there the arm closes."""

_POINTS = 100  # of an end that are looked at; more would be no denser than the fingers that may hide them
_NEAR = 1e-3  # metres before the camera


class ArmEnds:
    """The ends of the arms of some hands, and what may hide them.

    Args:
        hands: All hands of a picture, in one frame, each with its things: sleeves end where arms do.
        model: Whose faces join the hands' vertices.
        size: Image side in pixels.
    """

    def __init__(self, hands: Sequence[tuple[PosedHand, Sequence[Thing]]], model: HandModel, size: int) -> None:
        self._size = size
        self._ends = [_end(hand, things) for hand, things in hands]
        self._skins = np.concatenate([hand.vertices for hand, _ in hands])
        start = np.cumsum([0] + [len(hand.vertices) for hand, _ in hands])
        own = model.quads[model.face_segment != _FOREARM]
        self._hiding = [
            np.concatenate([(own if k == mine else model.quads) + start[k] for k in range(len(hands))])
            for mine in range(len(hands))
        ]

    def seen(
        self, rotation: NDArray[np.float64], translation: NDArray[np.float64], camera: NDArray[np.floating[Any]]
    ) -> bool:
        """Whether any arm's end lies inside the frame and no hand, and no other arm, hides all of it.

        Args:
            rotation: (3, 3) and `translation` (3,), metres: what brings the hands before the camera.
            translation: see there.
            camera: (3, 3) intrinsics.
        """
        for end, hiding in zip(self._ends, self._hiding, strict=True):
            points = to_camera(end, rotation, translation)
            points = points[points[:, 2] > _NEAR]
            points = points[inside_image(project(camera, points), self._size, self._size)]
            if len(points):
                _, distance = first_hits(points, to_camera(self._skins, rotation, translation), hiding)
                if (distance >= 1).any():
                    return True
        return False


def _end(hand: PosedHand, things: Sequence[Thing]) -> NDArray[np.float32]:
    """(P, 3) points of the arm's end, sleeve included."""
    axis = hand.elbow - hand.joints[0]
    reach = _END * float(((hand.vertices - hand.joints[0]) @ axis).max())
    sleeves = [thing.vertices for thing in things if np.all(thing.mask == MASK_FOREARM)]
    ends = [points[(points - hand.joints[0]) @ axis > reach] for points in (hand.vertices, *sleeves)]
    return np.concatenate([points[:: 1 + len(points) // _POINTS] for points in ends])

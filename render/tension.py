"""How bent joints change the look of the back of the hand: wrinkles are drawn smooth, tendons sink in.

Over a straight finger's PIP and DIP the skin lies in folds; bent, it is drawn taut and they are gone. The tendons to
the knuckles stand out where fingers are straight or lifted, and hardly where they bend. How much, and between which
angles, was chosen by eye.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.joints import FINGERS
from handaug.render.pose_prior import HandPose
from handaug.render.smooth import smooth_step

__all__ = ["Tension"]

_FOLDS_LEFT, _FOLDS_GONE = 0.15, (np.radians(8.0), np.radians(55.0))
_NEAR = (0.0125, 0.018)
"""Metres from a joint: to the first all folds are its own, from the second on none is."""
_SUNK, _LIFTED = 0.25, (np.radians(-30.0), np.radians(10.0))
"""Of a tendon's height; extension of the MCP where it begins to rise, and where it stands out fully."""


class Tension:
    """Tells for each skin point how much is left of wrinkles and of tendons.

    Args:
        rest: (V, 3) skin of the flat hand, metres, in its own frame (`handaug.render.hand`).
        joints: (21, 3) its joints.
        back: (V,) 1 on the back of the hand, 0 on its inside: creases of the palm stay as they are.
    """

    def __init__(
        self, rest: NDArray[np.floating[Any]], joints: NDArray[np.floating[Any]], back: NDArray[np.floating[Any]]
    ) -> None:
        self._bends: list[str] = []
        near, directions = [], []
        for finger, numbers in FINGERS.items():
            for angle, number in zip(("mcp", "ip") if finger == "thumb" else ("pip", "dip"), numbers[1:3], strict=True):
                self._bends.append(f"{finger}_{angle}_flexion")
                near.append(back * (1 - smooth_step(np.linalg.norm(rest - joints[number], axis=1), *_NEAR)))
            knuckle = joints[numbers[0]] - joints[0]
            directions.append(np.arctan2(-knuckle[0], knuckle[1]))
        self._near = np.stack(near)
        # Tendons spread from the wrist: the angle about it tells between which two of them a point lies.
        seen = rest - joints[0]
        place = np.arctan2(-seen[:, 0], np.maximum(seen[:, 1], 1e-3))
        self._tendons = [f"{finger}_mcp_flexion" for finger in FINGERS if finger != "thumb"]
        self._rays = np.stack([np.interp(place, directions[1:], one) for one in np.eye(4)])

    def of(self, pose: HandPose) -> NDArray[np.float32]:
        """(V, 2) in [0, 1]: share left of the wrinkles, and of the tendons' height."""
        bent, lifted = (np.array([pose[name] for name in names]) for names in (self._bends, self._tendons))
        taut = (smooth_step(bent, *_FOLDS_GONE)[:, None] * self._near).max(0)
        raised = smooth_step(-lifted, *_LIFTED) @ self._rays
        return np.asarray(np.stack([1 - (1 - _FOLDS_LEFT) * taut, _SUNK + (1 - _SUNK) * raised], -1), np.float32)

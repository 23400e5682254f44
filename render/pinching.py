"""Lets thumb and fingers touch on a hand of any shape: in a pinch, skin on skin or round a thing, and in a fist.

Angles that close a pinch on one hand leave it open on another, as they do once they have trembled. So after a pose is
drawn, the thumb and the finger nearest to it are turned by the least angles that bring their skins together. In a fist
the thumb alone is turned.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from handaug.data_specs.joints import FINGERS
from handaug.render.hand import SEGMENTS, HandModel, RestHand
from handaug.render.penetration import SOFTNESS, segment_distance
from handaug.render.pose_prior import ANGLES, LIMITS, HandPose

__all__ = ["clench", "meet", "skin_gap"]

_STEPS = 8
_CLOSE_ENOUGH = 0.0005
_NUDGE = 1e-3
_THUMB = ("thumb_cmc_flexion", "thumb_cmc_abduction", "thumb_cmc_rotation", "thumb_mcp_flexion", "thumb_ip_flexion")
_FINGER = ("mcp_flexion", "mcp_abduction", "pip_flexion", "dip_flexion")
_STICKS_OUT = 0.02
"""Metres from the fingers from which on the thumb of a fist is meant to be elsewhere."""


def meet(model: HandModel, rest: RestHand, pose: HandPose, apart: float = 0.0) -> HandPose:
    """Turn the thumb and the finger whose tip is nearest until their last segments are `apart`.

    Each step moves the tips along the line between them by what is missing, with the least change of angles that does
    so (the pseudo-inverse of one row of the Jacobian); angles at their limit stay there.

    Args:
        model: The hand.
        rest: Its shape.
        pose: Of a pinch that nearly closes.
        apart: Metres between the skins, for a thing between them.

    Returns:
        A pose within `LIMITS`; where these do not let the fingers meet, the nearest that was found.
    """
    finger = _nearest_finger(model.joints(rest, pose))
    names = [*_THUMB, *(f"{finger}_{part}" for part in _FINGER), "palm_cup"]
    turned = [ANGLES.index(name) for name in names]
    radii, tips = model.radii(rest), [4, FINGERS[finger][-1]]

    def distance(angles: NDArray[np.float64]) -> float:
        thumb, other = model.joints(rest, HandPose(angles))[tips].astype(np.float64)
        return float(np.linalg.norm(thumb - other))

    return _turn(pose, turned, lambda here: apart - skin_gap(model, rest, here, radii, finger), distance)


def clench(model: HandModel, rest: RestHand, pose: HandPose) -> HandPose:
    """Lay the thumb of a fist on the fingers: capsules about its last segment and the nearest middle one touch.

    Without it most thumbs that are drawn over bent fingers are in them, and the fists that are left show them apart.

    Args:
        model: The hand.
        rest: Its shape.
        pose: Of a fist.

    Returns:
        A pose within `LIMITS`; the given one where the thumb is farther than `_STICKS_OUT` from the fingers.
    """
    turned = [ANGLES.index(name) for name in _THUMB]
    radii = model.radii(rest)

    def gap(angles: NDArray[np.float64]) -> float:
        return _thumb_gap(model, rest, angles, radii)

    return pose if gap(pose.angles) > _STICKS_OUT else _turn(pose, turned, lambda here: -gap(here.angles), gap)


def _turn(
    pose: HandPose,
    turned: list[int],
    missing: Callable[[HandPose], float],
    distance: Callable[[NDArray[np.float64]], float],
) -> HandPose:
    """Turn some angles until nothing is missing, or as far as `LIMITS` and `_STEPS` let them.

    Args:
        pose: Where to begin.
        turned: Numbers of the angles.
        missing: Metres by which two parts should move apart (below zero: together).
        distance: Of these parts in metres, from (24,) angles; only its slope counts.
    """
    low, high = LIMITS[turned].T
    angles, best, least = pose.angles.copy(), pose, np.inf
    for _ in range(_STEPS):
        here = HandPose(angles)
        lacking = missing(here)
        if abs(lacking) < least:
            best, least = here, abs(lacking)
        if least <= _CLOSE_ENOUGH:
            break
        slope = _slopes(distance, angles, turned)
        slope[np.where(slope * lacking < 0, angles[turned] <= low, angles[turned] >= high)] = 0.0
        if not slope.any():
            break
        angles = angles.copy()
        angles[turned] = np.clip(angles[turned] + slope * lacking / (slope @ slope), low, high)
    return best


def _thumb_gap(
    model: HandModel, rest: RestHand, angles: NDArray[np.float64], radii: NDArray[np.floating[Any]]
) -> float:
    """Metres from the capsule of the thumb's last segment to the nearest of index, middle and ring finger's middle
    ones."""
    joints = model.joints(rest, HandPose(angles)).astype(np.float64)
    first = np.array([FINGERS[name][1] for name in ("index", "middle", "ring")])
    thumb = np.broadcast_to(joints[[3, 4], None], (2, 3, 3))
    gaps = segment_distance(thumb[0], thumb[1], joints[first], joints[first + 1]) - radii[2] - radii[[4, 7, 10]]
    return float(gaps.min())


def _nearest_finger(joints: NDArray[np.floating[Any]]) -> str:
    """The finger whose tip is nearest to the thumb's."""
    others = [finger for finger in FINGERS if finger != "thumb"]
    return min(others, key=lambda finger: float(np.linalg.norm(joints[FINGERS[finger][-1]] - joints[4])))


def skin_gap(model: HandModel, rest: RestHand, pose: HandPose, radii: NDArray[np.floating[Any]], finger: str) -> float:
    """Metres between the skins of the last segments of thumb and finger; below zero where they are in each other.

    Apart it is the least distance of vertices; in each other, how far capsules about the bones overlap beyond what
    skin gives way.

    Args:
        model: The hand.
        rest: Its shape.
        pose: Of the hand.
        radii: (19,) metres, of `HandModel.radii`.
        finger: Which one, besides the thumb.
    """
    posed = model.pose(rest, pose)
    ends = posed.joints.astype(np.float64)[[[3, 4], list(FINGERS[finger][-2:])]]
    thick = float(radii[[2, 3 * list(FINGERS).index(finger) + 2]].sum())
    between = segment_distance(ends[:1, 0], ends[:1, 1], ends[1:, 0], ends[1:, 1])
    clear = float(between[0]) - thick
    if clear < -SOFTNESS:
        return clear + SOFTNESS
    ours = [model.vertex_segment == SEGMENTS.index(f"{name}_3") for name in ("thumb", finger)]
    thumb, other = (posed.vertices[mine] for mine in ours)
    return float(cKDTree(thumb).query(other)[0].min())


def _slopes(
    distance: Callable[[NDArray[np.float64]], float], angles: NDArray[np.float64], turned: list[int]
) -> NDArray[np.float64]:
    """Metres of distance for each radian of each angle."""
    base, out = distance(angles), []
    for k in turned:
        nudged = angles.copy()
        nudged[k] += _NUDGE if angles[k] + _NUDGE <= LIMITS[k, 1] else -_NUDGE
        out.append((distance(nudged) - base) / (nudged[k] - angles[k]))
    return np.array(out)

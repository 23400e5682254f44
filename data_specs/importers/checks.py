"""Does a source mean what its reader takes it to mean? Units, axes and joint order, measured on a sample of hands.

Each check compares medians over the sample with what a human hand and a camera allow, so single bad labels pass here;
a hand whose own labels contradict each other is refused by `check_hand`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.camera import inside_image, project
from handaug.data_specs.importers.records import DamagedError, Hand
from handaug.data_specs.joints import FINGERS, JOINTS
from handaug.data_specs.schema import NOT_LABELLED

__all__ = ["check_hand", "check_sample"]

BONE_M = (0.02, 0.06)
"""Middle finger's mcp to pip, in metres: 0.028 to 0.034 in MANO's convention, 0.049 where mcp means the knuckle."""

RESIDUAL_PX = 2.0
"""Allowed distance between 2D labels and projected 3D labels: some sources round to whole pixels."""

ENOUGH_IN_2D = 20
"""Hands that make bone ratios in the image plane, which foreshortening scatters, worth a verdict."""

_TURNS: dict[str, tuple[int, int, int]] = {
    "y and z negated (the labels look like OpenGL's axes, y up and z backward)": (1, -1, -1),
    "y negated": (1, -1, 1),
    "x negated": (-1, 1, 1),
    "x and y negated": (-1, -1, 1),
    "z negated": (1, 1, -1),
    "x and z negated": (-1, 1, -1),
}


def check_sample(hands: Sequence[Hand], title: str) -> None:
    """Check a sample of a source's hands.

    Args:
        hands: Hands spread over the source; at least one.
        title: Name of the source, for messages.

    Raises:
        DamagedError: Unit, axes, camera or joint order are not what the reader takes them for.
    """
    _check_unit(hands, title)
    _check_axes(hands, title)
    _check_order(hands, title)


def check_hand(hand: Hand) -> None:
    """Check one hand's labels against each other.

    Raises:
        DamagedError: A labelled joint is not finite, or 2D and 3D labels lie far apart.
    """
    labelled = hand.visibility != NOT_LABELLED
    for what, values in (("2D", hand.keypoints_2d), ("3D", hand.keypoints_3d), ("camera", hand.camera)):
        finite = True if values is None else np.isfinite(values if what == "camera" else values[labelled]).all()
        if not finite:
            raise DamagedError(f"{hand.name}: its {what} labels are not finite; repair them, or add --skip-missing")
    residual = _residual(hand, (1, 1, 1))
    if residual.size:
        points = np.asarray(hand.keypoints_2d)[labelled]
        allowed = 3 * RESIDUAL_PX + 0.1 * float(np.ptp(points, axis=0).max())
        if not np.median(residual) <= allowed:
            raise DamagedError(
                f"{hand.name}: its 3D labels project {np.median(residual):.0f} px beside its 2D labels; "
                "repair them, or add --skip-missing"
            )


def _check_unit(hands: Sequence[Hand], title: str) -> None:
    bones = [
        float(np.linalg.norm(hand.keypoints_3d[10] - hand.keypoints_3d[9]))
        for hand in hands
        if hand.keypoints_3d is not None and (hand.visibility[[9, 10]] != NOT_LABELLED).all()
    ]
    if not bones:
        return
    median = float(np.median(bones))
    if BONE_M[0] < median < BONE_M[1]:
        return
    likely = [
        name
        for name, unit in (("millimetres", 1e-3), ("centimetres", 1e-2), ("metres, converted once too often", 1e3))
        if BONE_M[0] < median * unit < BONE_M[1]
    ]
    guess = f"they look like {likely[0]}" if likely else "the unit or the joint order is wrong"
    raise DamagedError(
        f"{title}: the middle finger's first bone is {median:.3g} m long (median of {len(bones)} hands), "
        f"a hand's is {BONE_M[0]} to {BONE_M[1]} m: {guess}; get the labels of the release that docs/datasets.md names"
    )


def _check_axes(hands: Sequence[Hand], title: str) -> None:
    flat = [hand for hand in hands if hand.keypoints_3d is not None and hand.camera is not None]
    if not flat:
        return
    misses = {turn: _misfit(flat, turn) for turn in ((1, 1, 1), *_TURNS.values())}
    behind, outside, residual = misses[1, 1, 1]
    if behind <= 0.5 and outside <= 0.5 and not residual > RESIDUAL_PX:
        return
    if behind > 0.5:
        what = "most 3D labels lie behind the camera"
    elif residual > RESIDUAL_PX:
        what = f"3D labels project {residual:.1f} px beside the 2D labels (median)"
    else:
        what = "most 3D labels project outside the image"
    better = [
        name
        for name, turn in _TURNS.items()
        if misses[turn][0] <= 0.5 and misses[turn][1] <= 0.5 and not misses[turn][2] > RESIDUAL_PX
    ]
    guess = f"they fit with {better[0]}" if better else "axes, intrinsics or joint order are not this format's"
    raise DamagedError(f"{title}: {what}: {guess}; get the labels of the release that docs/datasets.md names")


def _misfit(hands: Sequence[Hand], turn: tuple[int, int, int]) -> tuple[float, float, float]:
    """Share of joints behind the camera, share outside the image, and median residual in px (NaN without 2D labels)."""
    behind, outside, residuals = [], [], []
    for hand in hands:
        assert hand.keypoints_3d is not None and hand.camera is not None
        points = (hand.keypoints_3d * turn)[hand.visibility != NOT_LABELLED]
        behind.append(points[:, 2] <= 0)
        if hand.size is not None and hand.keypoints_2d is None:
            outside.append(~inside_image(project(hand.camera, points), *hand.size))
        residuals.append(_residual(hand, turn))
    residual = np.concatenate(residuals)
    return (
        float(np.concatenate(behind).mean()),
        float(np.concatenate(outside).mean()) if outside else 0.0,
        float(np.median(np.nan_to_num(residual, nan=np.inf))) if residual.size else float("nan"),
    )


def _residual(hand: Hand, turn: tuple[int, int, int]) -> NDArray[np.floating[Any]]:
    """Distances in px between 2D labels and projected 3D labels; empty where one of them is missing."""
    if hand.keypoints_2d is None or hand.keypoints_3d is None or hand.camera is None:
        return np.empty(0)
    labelled = hand.visibility != NOT_LABELLED
    projected = project(hand.camera, (hand.keypoints_3d * turn)[labelled])
    distances: NDArray[np.floating[Any]] = np.linalg.norm(projected - hand.keypoints_2d[labelled], axis=-1)
    return distances


def _check_order(hands: Sequence[Hand], title: str) -> None:
    """A finger's first bone is about twice its last, whatever the pose; if not, tips are called knuckles."""
    spatial = [h for h in hands if h.keypoints_3d is not None]
    chosen = spatial or (hands if len(hands) >= ENOUGH_IN_2D else [])
    reversed_fingers = []
    for finger, joints in FINGERS.items():
        ratios = []
        for hand in chosen:
            points = hand.keypoints_3d if spatial else hand.keypoints_2d
            if points is not None and (hand.visibility[list(joints)] != NOT_LABELLED).all():
                first, _, last = np.linalg.norm(np.diff(points[list(joints)], axis=0), axis=-1)
                ratios.append(float(first / max(last, 1e-9)))
        if finger != "thumb" and ratios and np.median(ratios) < 0.8:
            reversed_fingers.append(finger)
    if len(reversed_fingers) >= 3:
        raise DamagedError(
            f"{title}: bones get longer towards the tips, so the joints run from tip to palm although they should "
            f"start at {JOINTS[1]}, {JOINTS[5]}, ...; name the keypoints in the order in which they are stored"
        )

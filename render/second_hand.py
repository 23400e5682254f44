"""Where a person's other hand is: beside the first one or before it, near or apart, and never inside it.

Frame: the first hand's, posed, a right one (`handaug.render.hand`). Elbows stand at the sides of one body, so the
other forearm comes from the first one's thumb side; both turn about their own length freely. Along a direction drawn
at random the other hand is moved out of the first until nothing touches, and a little farther.

That two skins are apart is read from their points: none nearer than `GAP`, the cells between them being smaller. The
forearms, whose cells are larger, are compared by points laid inside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from handaug.data_specs.joints import N_JOINTS
from handaug.render.hand import PosedHand

__all__ = ["GAP", "Obstacle", "Place", "place_beside", "skin_points"]

Floats = NDArray[np.float64]

GAP = 0.005
"""Metres that the points of two skins keep apart, at least."""

_MIRROR = np.diag([-1.0, 1.0, 1.0])
_CELL = 0.006  # metres between points laid on large cells
_FARTHEST, _HALVINGS = 0.6, 8  # metres
_OVERLAPPING = 0.45  # share of pairs that stand close, and one behind another in many views


@dataclass(frozen=True, eq=False)
class Place:
    """What brings another hand, posed as a right one, to its place: x -> turn @ x + origin; the turn mirrors it."""

    turn: Floats
    """(3, 3), determinant -1."""
    origin: Floats
    """(3,) metres."""


class Obstacle:
    """What a second hand must stay clear of.

    Args:
        vertices: (V, 3) of the first hand.
        quads: (F, 4) its faces.
        things: (P, 3) points of what it holds and wears, one array each.
    """

    def __init__(
        self,
        vertices: NDArray[np.floating[Any]],
        quads: NDArray[np.integer[Any]],
        things: Sequence[NDArray[np.floating[Any]]] = (),
    ) -> None:
        points = np.concatenate([skin_points(vertices, quads), *things])
        self._tree = cKDTree(points)
        self._low, self._high = points.min(0) - GAP, points.max(0) + GAP

    def clear_of(self, points: Floats) -> bool:
        """Whether none of these points is nearer than `GAP`."""
        near = points[((points > self._low) & (points < self._high)).all(1)]
        return not len(near) or not np.isfinite(self._tree.query(near, distance_upper_bound=GAP)[0]).any()


def place_beside(
    rng: np.random.Generator,
    obstacle: Obstacle,
    first: PosedHand,
    second: PosedHand,
    quads: NDArray[np.integer[Any]],
    toward: Floats | None = None,
) -> Place | None:
    """Draw a place for a second hand.

    Args:
        rng: Source of randomness.
        obstacle: The first hand and what is with it.
        first: The first hand.
        second: The other hand's pose, as of a right hand.
        quads: (F, 4) faces of both.
        toward: (3,) which way to bring it, such as to the camera, some part of it before some part of the first hand;
            None: to its side.

    Returns:
        None where it would touch the first hand.
    """
    turn = _turn(rng) @ _MIRROR
    close = toward is not None or rng.uniform() < _OVERLAPPING
    if toward is not None:
        way = np.asarray(toward, np.float64) / np.linalg.norm(toward)
        start, own = (hand.joints[int(rng.integers(N_JOINTS))] for hand in (first, second))
    else:
        way = rng.normal(size=3) * [1.0, 0.6, 1.0] if close else np.array([1.0, *rng.normal(0, (0.4, 0.5))])
        way = way * [np.sign(way[0]), 1.0, 1.0] / np.linalg.norm(way)
        start, own = (0.5 * (hand.joints.min(0) + hand.joints.max(0)) for hand in (first, second))
    turned = (skin_points(second.vertices, quads) - own.astype(np.float64)) @ turn.T + start
    low, high = 0.0, _FARTHEST
    for _ in range(_HALVINGS):  # with few points; all of them have the last word
        middle = 0.5 * (low + high)
        low, high = (low, middle) if obstacle.clear_of(turned[::5] + way * middle) else (middle, high)
    shift = way * (high + float(min(rng.exponential(0.01 if close else 0.06), 0.2)))
    if not obstacle.clear_of(turned + shift):
        return None
    return Place(turn, start + shift - turn @ own.astype(np.float64))


def skin_points(vertices: NDArray[np.floating[Any]], quads: NDArray[np.integer[Any]]) -> Floats:
    """(P, 3): vertices, and points inside cells that are larger than 6 mm, so that none is far from the next."""
    corner = np.asarray(vertices, np.float64)[quads]
    side = np.linalg.norm(corner - np.roll(corner, -1, 1), axis=2)
    fine = np.ceil(np.maximum(side[:, [0, 1]], side[:, [2, 3]]) / _CELL).astype(int)
    large = (fine > 1).any(1)
    corner, fine = corner[large], fine[large]
    out = [np.asarray(vertices, np.float64)]
    for across, along in np.unique(fine, axis=0):
        mine = corner[(fine == (across, along)).all(1)]
        u, v = (x.ravel()[:, None] for x in np.meshgrid(np.arange(across) / across, np.arange(along) / along))
        weights = np.concatenate([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], 1)
        out.append((weights @ mine).reshape(-1, 3))
    return np.concatenate(out)


def _turn(rng: np.random.Generator) -> Floats:
    """Rotation of the other hand against the mirror image of the first.

    About z, out of the palm: the forearms meet at an angle of 0 to 100 degrees, as with elbows at the sides. About y,
    the forearm's length: the palms face the same way, each other, or opposite ways. About x: one wrist is held higher.
    """
    meet = np.radians(rng.uniform(-5, 100))
    roll = np.radians(rng.normal(0, 60))
    tilt = np.radians(rng.normal(0, 20))
    return _about(2, meet) @ _about(0, tilt) @ _about(1, roll)


def _about(axis: int, angle: float) -> Floats:
    c, s = np.cos(angle), np.sin(angle)
    out = np.eye(3)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    out[i, i] = out[j, j] = c
    out[i, j], out[j, i] = -s, s
    return out

"""Keeps fingers out of each other: capsules round the finger segments and the palm.

A capsule is a bone with a radius. Skin is soft and neighbouring fingers touch, so a few millimetres are allowed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALLOWED_DEPTH", "SOFTNESS", "penetration", "segment_distance"]

ALLOWED_DEPTH = 0.004
"""Metres by which capsules may overlap before a pose is drawn again."""

SOFTNESS = 0.0015
"""Metres by which skin gives way to what it touches: a thing, or the pad of another finger."""

# Capsules: joint pairs of three segments per finger, then the metacarpals of index, middle, ring and little finger.
_FINGER_ENDS = [(4 * k + p, 4 * k + p + 1) for k in range(5) for p in (1, 2, 3)]
_ENDS = np.array(_FINGER_ENDS + [(0, 4 * k + 1) for k in range(1, 5)])


def _pairs() -> NDArray[np.intp]:
    out = []
    for a in range(15):
        for b in range(a + 1, 15):
            fingers, parts = (a // 3, b // 3), (a % 3, b % 3)
            # Bones of one finger meet; neighbouring first segments grow out of one palm, as does the thumb's.
            if fingers[0] == fingers[1] or parts == (0, 0) or (fingers[0] == 0 and parts[0] == 0):
                continue
            out.append((a, b))
    # The palm stops the two outer segments of each finger, and the thumb's last.
    out += [(3 * k + part, 15 + palm) for k in range(5) for part in ((1, 2) if k else (2,)) for palm in range(4)]
    return np.array(out)


_PAIRS = _pairs()
_FINGER_PAIRS = _PAIRS[(_PAIRS >= 3).all(1)]


def penetration(joints: NDArray[np.floating[Any]], radii: NDArray[np.floating[Any]], *, thumb: bool = True) -> float:
    """Greatest overlap of two capsules that should not overlap.

    Args:
        joints: (21, 3) metres.
        radii: (19,) metres, from `HandModel.radii`.
        thumb: Whether the thumb counts.

    Returns:
        Metres; negative when every pair is apart.
    """
    ends = np.asarray(joints, np.float64)[_ENDS]
    a, b = (_PAIRS if thumb else _FINGER_PAIRS).T
    gap = segment_distance(ends[a, 0], ends[a, 1], ends[b, 0], ends[b, 1])
    return float((radii[a] + radii[b] - gap).max())


def segment_distance(
    p0: NDArray[np.float64], p1: NDArray[np.float64], q0: NDArray[np.float64], q1: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance between line segments p0-p1 and q0-q1, each (N, 3), pair by pair.

    The nearest points are inside both segments (then where the lines are nearest) or one is an end: the least of the
    five candidates is exact.
    """
    d, e, r = p1 - p0, q1 - q0, p0 - q0
    a, b, c = _dot(d, d), _dot(d, e), _dot(e, e)
    f, g = _dot(d, r), _dot(e, r)
    determinant = a * c - b * b
    safe = np.where(determinant > 1e-12 * a * c, determinant, np.inf)
    s, t = (b * g - c * f) / safe, (a * g - b * f) / safe
    inside = np.isfinite(safe) & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
    apart = r + s[:, None] * d - t[:, None] * e
    lines = _dot(apart, apart)
    ends = [_to_segment(p0, q0, q1), _to_segment(p1, q0, q1), _to_segment(q0, p0, p1), _to_segment(q1, p0, p1)]
    return np.asarray(np.sqrt(np.minimum(np.min(ends, axis=0), np.where(inside, lines, np.inf))))


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ni,ni->n", a, b))


def _to_segment(
    point: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Squared distance of points to segments."""
    along = end - start
    t = np.clip(_dot(point - start, along) / _dot(along, along), 0, 1)
    off = point - start - t[:, None] * along
    return _dot(off, off)

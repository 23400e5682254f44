"""Named hand poses as joint angles, and the synergies they span.

Angles are estimates for the hand of `handaug.render.pose_prior` (its names, limits and signs), written from the
drawings and descriptions of

* the 33 grasps: Feix, Romero, Schmiedmayer, Dollar and Kragic, The GRASP Taxonomy of Human Grasp Types, IEEE Trans.
  Human-Machine Systems 46 (2016), whose numbers their names begin with;
* counting by fingers (index first, and thumb first), pointing, pinches, flat hands and fists;
* hand shapes of the American manual alphabet and common signs.

A grasp is written as the hand about a thing of middling size. The entries are centres: the prior draws about and
between them.

Synergies are the principal components of the library. People's grasps lie near a plane: two components hold more than
four fifths of the variance of 15 joint angles (Santello, Flanders and Soechting, J. Neuroscience 18, 1998).
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["GRASPS", "GESTURES", "NAMED", "PARTS", "named_degrees", "synergies"]

PARTS = ("index", "middle", "ring", "little")
Four = tuple[float, float, float, float]
Entry = tuple[tuple[float, float, float, float, float], float | Four, float | Four, float | Four | None, float | Four]
"""Thumb (CMC flexion, abduction, rotation, MCP, IP), then of index, middle, ring and little finger, degrees: MCP
flexion; PIP flexion; DIP flexion, None for two thirds of PIP; spread (0 side by side, 1 as wide as comfortable), or
the four abductions themselves."""

GRASPS: dict[str, Entry] = {
    "01 large diameter": ((2, 18, 18, 15, 15), 32, 42, 25, 0.4),
    "02 small diameter": ((12, 14, 15, 28, 32), 66, 82, 48, 0.1),
    "03 medium wrap": ((8, 16, 16, 20, 22), 50, 64, 38, 0.2),
    "04 adducted thumb": ((-4, -16, 2, 8, 4), (58, 62, 66, 68), 82, 50, 0.1),
    "05 light tool": ((12, -4, 6, 30, 32), (66, 72, 76, 78), 90, 55, 0.0),
    "06 prismatic 4 finger": ((20, 14, 18, 20, 12), (56, 53, 51, 52), (28, 32, 34, 36), 14, 0.05),
    "07 prismatic 3 finger": ((20, 13, 17, 20, 12), (56, 53, 52, 62), (28, 32, 36, 74), (14, 14, 16, 45), 0.05),
    "08 prismatic 2 finger": ((20, 12, 16, 20, 12), (56, 54, 68, 74), (28, 34, 84, 86), (14, 16, 50, 52), 0.05),
    "09 palmar pinch": ((26, 3, 8, 36, -5), (33, 26, 24, 24), (53, 36, 36, 36), (31, 20, 20, 20), 0.15),
    "10 power disk": ((-4, 14, 8, 8, 20), (8, 6, 8, 12), (52, 50, 52, 52), 42, 1.2),
    "11 power sphere": ((0, 18, 15, 12, 22), (32, 30, 32, 36), (46, 46, 46, 44), 30, 1.1),
    "12 precision disk": ((-2, 14, 10, 8, 8), (18, 16, 18, 24), (40, 42, 42, 40), 14, 1.2),
    "13 precision sphere": ((6, 18, 15, 14, 10), (38, 36, 38, 42), (38, 40, 40, 36), 14, 0.9),
    "14 tripod": ((21, 11, 15, 26, 4), (48, 50, 62, 68), (40, 44, 76, 80), (20, 22, 44, 46), 0.1),
    "15 fixed hook": ((-10, -2, 0, 10, 8), (18, 16, 16, 18), 88, 46, 0.1),
    "16 lateral": ((14, -8, 6, 24, 20), (54, 58, 61, 62), (68, 76, 78, 78), 40, 0.05),
    "17 index finger extension": ((12, 4, 8, 24, 24), (24, 62, 68, 70), (12, 78, 82, 84), (6, 46, 50, 50), 0.1),
    "18 extension type": ((10, 14, 15, 10, 0), 58, 12, 6, 0.1),
    "19 distal type": ((12, 8, 10, 26, 30), (42, 48, 56, 60), (58, 62, 66, 66), 36, 0.2),
    "20 writing tripod": ((22, 6, 12, 30, 14), (44, 50, 60, 66), (48, 62, 74, 76), (22, 36, 46, 46), 0.05),
    "21 tripod variation": ((20, 4, 10, 26, 20), (38, 46, 60, 66), (58, 66, 78, 80), (28, 38, 48, 48), 0.05),
    "22 parallel extension": ((12, 18, 18, 6, 0), 70, 6, 2, 0.05),
    "23 adduction grip": ((-6, 2, 2, 10, 10), (14, 16, 26, 30), (14, 16, 34, 38), 12, (-3, -3, -10, -16)),
    "24 tip pinch": ((24, 0, 10, 25, 36), (27, 24, 22, 22), (62, 34, 32, 32), (37, 20, 18, 18), 0.2),
    "25 lateral tripod": ((18, -8, 7, 26, 24), (40, 50, 62, 66), (58, 66, 76, 78), (26, 40, 46, 46), 0.05),
    "26 sphere 4 finger": ((6, 18, 15, 14, 12), (36, 34, 36, 62), (40, 42, 42, 80), (16, 16, 16, 48), 0.7),
    "27 quadpod": ((16, 16, 16, 18, 8), (46, 46, 46, 62), (36, 38, 40, 76), (16, 16, 18, 46), 0.5),
    "28 sphere 3 finger": ((8, 17, 15, 16, 12), (38, 38, 64, 68), (40, 42, 80, 82), (16, 18, 50, 50), 0.6),
    "29 stick": ((14, -6, 6, 20, 10), (40, 50, 58, 62), (52, 58, 64, 66), 34, 0.05),
    "30 palmar": ((16, -8, 8, 16, 6), (34, 30, 28, 28), (14, 12, 12, 12), 6, 0.05),
    "31 ring": ((14, 14, 14, 24, 28), (48, 40, 36, 36), (62, 40, 36, 36), (36, 24, 22, 22), 0.3),
    "32 ventral": ((4, -10, 4, 14, 10), (52, 58, 62, 64), (74, 80, 84, 84), 46, 0.05),
    "33 inferior pincer": ((26, 8, 8, 33, 10), (39, 16, 14, 16), (49, 24, 24, 26), (23, 12, 12, 12), 0.4),
}
_UP, _DOWN = 0.0, 82.0
_FOLDED = (18, 12, 8, 38, 42)
_TUCKED = (24, -4, 12, 40, 30)


def _fingers(up: str, thumb: tuple[float, float, float, float, float], spread: float | Four = 0.35) -> Entry:
    """Fingers named by their first letters straight, the others curled."""
    straight = [part[0] in up for part in PARTS]

    def four(a: float, b: float) -> Four:
        i, m, r, k = (a if s else b for s in straight)
        return i, m, r, k

    return thumb, four(_UP, 74), four(4, 94), four(2, 56), spread


GESTURES: dict[str, Entry] = {
    "flat hand": ((-2, -14, 0, 2, 0), 0, 2, 1, 0.0),
    "spread hand": ((-18, -2, 0, 0, -2), -4, 2, 1, 1.4),
    "stop": ((-8, -8, 0, 4, 2), -8, 0, 0, 0.3),
    "relaxed": ((-2, 4, 4, 12, 14), (18, 22, 26, 30), (26, 30, 32, 34), 18, 0.2),
    "fist": (_FOLDED, (76, 78, 80, 80), 96, 58, 0.0),
    "thumb up": ((-22, -6, 0, 0, -6), (72, 76, 80, 82), 96, 58, 0.0),
    "one": _fingers("i", _FOLDED),
    "two": _fingers("im", _FOLDED, 0.9),
    "three": _fingers("imr", _TUCKED, 0.8),
    "four": _fingers("imrl", _TUCKED, 0.7),
    "five": ((-16, 2, 0, 2, 0), -2, 3, 2, 1.0),
    "two, thumb first": _fingers("i", (-20, -4, 0, 0, -4)),
    "three, thumb first": _fingers("im", (-20, -4, 0, 0, -4), 0.8),
    "four, thumb first": _fingers("imr", (-20, -4, 0, 0, -4), 0.7),
    "point": ((16, 2, 10, 30, 30), (6, 66, 70, 72), (8, 88, 90, 90), (4, 52, 54, 54), 0.2),
    "point with two": ((16, 2, 10, 30, 30), (6, 8, 68, 72), (8, 8, 88, 90), (4, 4, 54, 54), 0.05),
    "press": ((4, 6, 6, 16, 16), (30, 40, 44, 46), (26, 52, 56, 58), (12, 34, 36, 36), 0.2),
    "ok": ((26, 0, 6, 38, -5), (33, 14, 6, 0), (54, 16, 10, 6), (34, 10, 6, 4), (-4, 3, -16, -26)),
    "pinch middle": ((26, -17, 15, 49, 69), (14, 49, 16, 12), (20, 97, 22, 18), (12, 59, 14, 12), (4, 8, -12, -22)),
    "pinch all": ((22, 10, 16, 30, 10), (50, 54, 56, 56), (46, 46, 44, 44), 24, 0.0),
    "gun": ((-16, 4, 2, 0, -4), (2, 4, 70, 74), (4, 4, 90, 92), (2, 2, 54, 56), 0.05),
    "horns": _fingers("il", _FOLDED, 0.6),
    "i love you": _fingers("il", (-20, -2, 0, 0, -4), 0.8),
    "call me": _fingers("l", (-22, -2, 0, 0, -6), 0.9),
    "claw": ((-8, 12, 8, 10, 30), (-6, -8, -6, -4), (70, 70, 70, 66), 46, 0.9),
    "beckon": ((14, 4, 10, 28, 30), (30, 68, 72, 74), (70, 90, 92, 92), (40, 54, 54, 54), 0.1),
    "A": ((-2, -16, 0, 4, 2), (76, 78, 80, 80), 96, 58, 0.0),
    "B": (_TUCKED, 0, 2, 1, 0.0),
    "C": ((2, 18, 16, 10, 20), (24, 24, 26, 28), (48, 48, 48, 46), 30, 0.1),
    "D": ((22, 8, 14, 30, 14), (2, 56, 58, 60), (4, 56, 56, 56), (2, 32, 32, 32), 0.1),
    "E": ((22, -4, 12, 38, 40), (34, 36, 38, 40), 96, 62, 0.0),
    "L": _fingers("i", (-24, -4, 0, 0, -6), 0.2),
    "O": ((18, 16, 16, 24, 16), (46, 46, 48, 48), (58, 60, 60, 58), 36, 0.05),
    "U": _fingers("im", _FOLDED, (-2, -3, -10, -16)),
    "W": _fingers("imr", (25, 14, 20, 44, 34), 1.0),
    "X": ((18, 4, 10, 34, 38), (12, 74, 76, 78), (84, 94, 94, 94), (44, 56, 56, 56), 0.1),
    "three pads": ((12, 14, 14, 18, 12), (36, 36, 30, 30), (40, 42, 44, 44), 20, 0.3),
    "vulcan": ((-14, 2, 0, 2, 0), 0, 3, 2, (8, 6, -20, -26)),
}
NAMED: dict[str, Entry] = {**GRASPS, **GESTURES}
"""All of them. The order is part of the file format: only add at the end."""

_ADDUCTED = (0.0, -4.0, -10.0, -16.0)
_SPREAD = (13.0, 1.5, -18.0, -30.0)
"""Abductions, degrees, of fingers side by side, and spread as wide as comfortable."""
_THUMB = ("cmc_flexion", "cmc_abduction", "cmc_rotation", "mcp_flexion", "ip_flexion")


def named_degrees(name: str) -> dict[str, float]:
    """Degrees of thumb and fingers of a named pose, by the names of `pose_prior.ANGLES`; wrist and palm are left out.

    Example:
        >>> named_degrees("fist")["middle_pip_flexion"]
        96.0
    """
    thumb, mcp, pip, dip, spread = NAMED[name]
    bends = np.broadcast_to(np.array(pip, np.float64), 4)
    columns = {
        "mcp_flexion": np.broadcast_to(np.array(mcp, np.float64), 4),
        "pip_flexion": bends,
        "dip_flexion": bends * 2 / 3 if dip is None else np.broadcast_to(np.array(dip, np.float64), 4),
        "mcp_abduction": np.array(spread, np.float64)
        if isinstance(spread, tuple)
        else np.array(_ADDUCTED) + spread * (np.array(_SPREAD) - _ADDUCTED),
    }
    out = {f"thumb_{part}": float(value) for part, value in zip(_THUMB, thumb, strict=True)}
    return out | {f"{f}_{part}": float(v[k]) for part, v in columns.items() for k, f in enumerate(PARTS)}


@cache
def synergies() -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Principal components of the library.

    Returns:
        The angles' names (A,); their mean (A,), degrees; the components as rows (C, A), unit length; the standard
        deviation of each (C,), degrees, falling.
    """
    rows = [named_degrees(name) for name in NAMED]
    names = tuple(rows[0])
    table = np.array([[row[name] for name in names] for row in rows])
    mean = table.mean(0)
    _, scale, components = np.linalg.svd(table - mean, full_matrices=False)
    return names, mean, components, scale / np.sqrt(len(rows) - 1)

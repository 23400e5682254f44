"""Lines of palm and fingers, their flush, wrinkles over knuckles, veins, tendons: maps of the skin at rest, drawn once.

The flat hand (all angles zero) is looked at from the palm's side and from the back; x and y of its own frame
(`handaug.render.hand`) are the maps' axes, so that a texture read at a skin point's rest position moves with the skin.
Everything is laid out from the joints, as surface anatomy has it: flexion creases of the fingers over (palm) their
joints and at their roots; the three great lines of the palm; bracelet lines of the wrist; on the back wrinkles across
PIP and DIP joints, darker there; veins that rise between the knuckles and join towards the wrist; the extensor tendons,
which come from the wrist and are seen from the middle of the back to the knuckles. Pads of the fingers and balls of the
palm are redder than its hollow. What differs from person to person (where lines begin and end, how they bend,
where veins join) is drawn for a few layouts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.joints import FINGERS
from handaug.render.hand import HandModel
from handaug.render.pose_prior import ANGLES, HandPose
from handaug.render.scene import SKIN_LAYOUTS

__all__ = ["SkinMaps", "skin_maps"]

Floats = NDArray[np.float64]
_PIXELS = 448
_MARGIN = 0.03  # metres round the joints
_Line = tuple[Floats, float, float]
"""Points (P, 2), metres; half width, metres; strength."""


@dataclass(frozen=True, eq=False)
class SkinMaps:
    """Two maps of the same place for each of N layouts."""

    palm: NDArray[np.float32]
    """(N, S, S, 4) in [0, 1], first row at the greatest y: depth of creases, 0, redder skin of pads and balls, 0."""
    back: NDArray[np.float32]
    """Likewise: depth of wrinkles, height of veins, darker skin over the knuckles, height of tendons."""
    low: tuple[float, float]
    """x and y of the lower left corner, metres."""
    side: float
    """Metres along x and y."""


def skin_maps(model: HandModel) -> SkinMaps:
    """Draw the maps for the mean hand."""
    joints = model.joints(model.mean_shape, HandPose(np.zeros(len(ANGLES)))).astype(np.float64)[:, :2]
    low, high = joints.min(0) - _MARGIN, joints.max(0) + _MARGIN
    side = float((high - low).max())
    low = 0.5 * (low + high) - side / 2
    grid = _grid(low, side)
    dark, flush = _knuckle_spots(joints, grid), _flush(joints, grid)
    palms, backs = [], []
    for layout in range(SKIN_LAYOUTS):
        rng = np.random.default_rng((11, layout))
        creases, wrinkles, veins, tendons = (
            _draw(lines(rng, joints), grid, low, side) for lines in (_palm_lines, _wrinkles, _veins, _tendons)
        )
        empty = np.zeros_like(veins)
        palms.append(np.stack([creases, empty, flush, empty], -1))
        backs.append(np.stack([wrinkles, veins, dark, tendons], -1))
    palm, back = (np.stack(maps).astype(np.float32) for maps in (palms, backs))
    return SkinMaps(palm, back, (float(low[0]), float(low[1])), side)


def _grid(low: Floats, side: float) -> Floats:
    """(S, S, 2) positions of the pixels, first row at the greatest y."""
    at = (np.arange(_PIXELS) + 0.5) / _PIXELS * side
    x, y = np.meshgrid(low[0] + at, low[1] + at[::-1])
    return np.stack([x, y], -1)


def _draw(lines: list[_Line], grid: Floats, low: Floats, side: float) -> Floats:
    """(S, S) greatest strength of the lines, each with a smooth profile."""
    out = np.zeros((_PIXELS, _PIXELS))
    step = side / _PIXELS
    for points, half, strength in lines:
        reach = 4 * half
        for k, (start, end) in enumerate(zip(points[:-1], points[1:], strict=True)):
            box = np.stack([np.minimum(start, end) - reach - low, np.maximum(start, end) + reach - low]) / step
            columns = slice(max(0, int(box[0, 0])), max(0, int(box[1, 0]) + 2))
            rows = slice(max(0, _PIXELS - int(box[1, 1]) - 2), max(0, _PIXELS - int(box[0, 1])))
            offset, along = grid[rows, columns] - start, end - start
            t = np.clip(offset @ along / (along @ along), 0, 1)
            away = ((offset - t[..., None] * along) ** 2).sum(-1)
            whole = (k + t) / (len(points) - 1)
            # Lines fade towards their ends.
            profile = np.exp(-0.5 * away / half**2) * strength * np.clip(8 * np.minimum(whole, 1 - whole) + 0.25, 0, 1)
            out[rows, columns] = np.maximum(out[rows, columns], profile)
    return out


def _across(
    rng: np.random.Generator, middle: Floats, along: Floats, half: float, bow: float, points: int = 9
) -> Floats:
    """A slightly crooked line across a finger, bowed along it."""
    side = np.array([along[1], -along[0]])
    s = np.linspace(-1, 1, points)[:, None]
    crooked = np.cumsum(rng.normal(0, 0.00012, (points, 1)), 0)
    return np.asarray(middle + s * half * side + (bow * (1 - s**2) + crooked) * along)


def _fingers(joints: Floats) -> list[tuple[str, list[Floats], Floats]]:
    """Name, the four joints and the direction of each finger."""
    out = []
    for name, numbers in FINGERS.items():
        chain = [joints[k] for k in numbers]
        along = chain[3] - chain[1]
        out.append((name, chain, along / np.linalg.norm(along)))
    return out


def _palm_lines(rng: np.random.Generator, joints: Floats) -> list[_Line]:
    lines: list[_Line] = []
    for name, chain, along in _fingers(joints):
        folds = [(chain[2], 2, 0.9), (chain[1], 1, 0.6)] if name == "thumb" else [(chain[2], 1, 0.8), (chain[1], 2, 1)]
        if name != "thumb":
            folds.append((chain[0] + 0.53 * (chain[1] - chain[0]), 2, 0.9))
        for at, count, strength in folds:
            for k in range(count):
                middle = at + along * (0.0019 * (k - (count - 1) / 2))
                lines.append((_across(rng, middle, along, 0.011, 0.0006), 0.00042, strength * (1 - 0.25 * k)))
    wrist, index, middle, ring, little = (joints[k] for k in (0, 5, 9, 13, 17))
    thumb = joints[2]
    edge = index + 0.25 * (thumb - index) + 0.004 * _unit(index - little)
    palm = 0.5 * (wrist + middle)
    outer = little + 0.13 * (wrist - little) + 0.012 * _unit(little - index)
    great = (
        [edge, 0.55 * palm + 0.45 * index, palm + 0.1 * (thumb - palm), wrist + 0.05 * (middle - wrist)],  # life
        [edge, 0.5 * (palm + middle), palm + 0.5 * (little - palm), 0.62 * little + 0.38 * wrist],  # head
        [outer, 0.87 * ring + 0.13 * wrist, 0.93 * middle + 0.07 * wrist, 0.57 * index + 0.55 * middle],  # heart
    )
    for knots in great:
        own = [knot + rng.normal(0, 0.0012 if k == 0 else 0.002, 2) for k, knot in enumerate(knots)]
        half, strength = float(rng.uniform(0.0005, 0.00065)), float(rng.uniform(0.8, 1.0))
        lines += _folded(_curve(own), half, strength)
    for _ in range(26):  # fine lines of no name
        start = wrist + rng.uniform(0.2, 0.95) * (middle - wrist) + rng.uniform(-0.035, 0.035) * _unit(index - little)
        way = rng.normal(size=2) * [0.006, 0.009]
        lines.append((np.stack([start, start + 0.5 * way + rng.normal(0, 0.0006, 2), start + way]), 0.0003, 0.3))
    up = _unit(middle - wrist)
    lines += [
        (_across(rng, wrist + up * d, up, 0.026, -0.0015, 15), 0.0005, s) for d, s in ((0.004, 0.8), (-0.004, 0.6))
    ]
    return lines


def _folded(points: Floats, half: float, strength: float) -> list[_Line]:
    """A crease whose skin slopes down to it from both sides."""
    return [(points, half, strength), (points, 4 * half, 0.3 * strength)]


def _wrinkles(rng: np.random.Generator, joints: Floats) -> list[_Line]:
    lines: list[_Line] = []
    for name, chain, along in _fingers(joints):
        knuckles = [(chain[2], 4, 0.0045)] if name == "thumb" else [(chain[1], 6, 0.0075), (chain[2], 4, 0.0045)]
        for at, count, reach in knuckles:
            for k in range(count):
                offset = reach * (2 * k / (count - 1) - 1) + rng.normal(0, 0.0003)
                half = 0.0085 * np.sqrt(max(0.15, 1 - (offset / (1.3 * reach)) ** 2))
                # Wrinkles bow away from the middle of the knuckle, as on the trunk of an elephant.
                line = _across(rng, at + along * offset, along, half, 0.25 * offset)
                lines.append((line, 0.00045, float(rng.uniform(0.5, 1.0))))
    return lines


def _veins(rng: np.random.Generator, joints: Floats) -> list[_Line]:
    wrist = joints[0]
    knuckles = [joints[k] for k in (5, 9, 13, 17)]
    up = _unit(knuckles[1] - wrist)
    side = _unit(knuckles[0] - knuckles[3])
    lines: list[_Line] = []
    meets = [
        wrist + share * (knuckle - wrist) + aside * side
        for share, knuckle, aside in zip(
            (0.45, 0.38) + rng.normal(0, 0.05, 2),
            knuckles[1:3],
            (0.012, -0.012) + rng.normal(0, 0.003, 2),
            strict=True,
        )
    ]
    for k, (one, two) in enumerate(zip(knuckles[:-1], knuckles[1:], strict=True)):
        start = 0.5 * (one + two) - 0.002 * up
        meet = meets[0] if k == 0 else meets[1] if k == 2 else meets[int(rng.integers(2))]
        bend = 0.5 * (start + meet) + rng.normal(0, 0.004, 2)
        lines.append((_curve([start, bend, meet + rng.normal(0, 0.001, 2)]), 0.0013, 0.9))
    for meet, sway in zip(meets, (1, -1), strict=True):
        end = wrist - 0.02 * up + 0.014 * sway * side  # the map ends soon after
        lines.append((_curve([meet, 0.5 * (meet + wrist) + 0.012 * sway * side, end]), 0.0017, 1.0))
    lines.append((_curve([meets[0], 0.5 * (meets[0] + meets[1]) + 0.01 * up, meets[1]]), 0.0012, 0.8))
    outer = knuckles[3] - 0.01 * side
    lines.append((_curve([outer, outer - 0.03 * up, meets[1] - 0.006 * side]), 0.0011, 0.7))
    return lines


def _tendons(rng: np.random.Generator, joints: Floats) -> list[_Line]:
    wrist, up = joints[0], _unit(joints[9] - joints[0])
    side = _unit(joints[5] - joints[17])
    lines: list[_Line] = []
    for k, (knuckle, strength) in enumerate(zip((5, 9, 13, 17), (0.9, 1.0, 0.85, 0.6), strict=True)):
        start, root = joints[knuckle] + 0.003 * up, wrist + (0.012 - 0.008 * k) * side
        reach = rng.uniform(0.5, 0.85)  # under thicker skin from there on
        end = start + reach * (root - start) + rng.normal(0, 0.001) * side
        bend = 0.5 * (start + end) + rng.normal(0, 0.0015) * side
        lines.append((_curve([start, bend, end]), float(rng.uniform(0.0014, 0.002)), strength))
    return lines


def _knuckle_spots(joints: Floats, grid: Floats) -> Floats:
    spots = []
    for name, chain, _ in _fingers(joints):
        spots += [(chain[1], 0.006 if name != "thumb" else 0.004), (chain[2], 0.0045)]
    return _spots(spots, grid)


def _flush(joints: Floats, grid: Floats) -> Floats:
    """Redder skin: pads of the phalanges, heads of the metacarpals, balls of thumb and little finger."""
    spots = []
    for name, chain, along in _fingers(joints):
        spots.append((chain[3] - 0.006 * along, 0.006))
        if name != "thumb":
            spots += [(chain[0] - 0.002 * along, 0.007), (0.5 * (chain[1] + chain[2]), 0.005)]
    wrist, thumb, little = joints[0], joints[2], joints[17]
    for share in (0.45, 0.7):
        spots.append((wrist + share * (thumb - wrist) + 0.004 * _unit(joints[9] - wrist), 0.011))
    for share in (0.3, 0.5, 0.7):
        spots.append((wrist + share * (little - wrist) - 0.003 * _unit(joints[5] - little), 0.01))
    return _spots(spots, grid)


def _spots(spots: list[tuple[Floats, float]], grid: Floats) -> Floats:
    """(S, S) greatest of some round spots: places and deviations, metres."""
    out = np.zeros((_PIXELS, _PIXELS))
    for at, wide in spots:
        out = np.maximum(out, np.exp(-0.5 * (((grid - at) / wide) ** 2).sum(-1)))
    return out


def _curve(knots: list[Floats], points: int = 28) -> Floats:
    """A Catmull-Rom curve through the knots."""
    p = np.array([2 * knots[0] - knots[1], *knots, 2 * knots[-1] - knots[-2]])
    out = []
    for k in range(len(knots) - 1):
        t = np.linspace(0, 1, points // (len(knots) - 1), endpoint=k == len(knots) - 2)[:, None]
        a, b, c, d = p[k : k + 4]
        out.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate(out)


def _unit(way: Floats) -> Floats:
    return np.asarray(way / np.linalg.norm(way))

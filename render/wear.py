"""What hands wear: gloves, sleeves, watches and rings, as quad meshes about the posed hand. They belong to the pose.

A glove is the hand's own surface, a little farther out, so that it bends as the hand does; its faces carry the labels
of the skin beneath. Everything else is a tube that follows a limb: at stations along its axis an ellipse encloses the
skin found there, with a little ease. Sleeves and watches count as forearm, rings as the finger's first segment.

Frame: the posed right hand's (`handaug.render.hand`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from handaug.data_specs.joints import FINGERS
from handaug.data_specs.schema import MASK_FOREARM, MASK_HAND
from handaug.render.hand import SEGMENTS, HandModel, PosedHand
from handaug.render.mesh import vertex_normals
from handaug.render.pose_prior import ANGLES, HandPose
from handaug.render.scene import Coat, Thing

__all__ = ["CLOTHING", "GLOVES", "JEWELLERY", "adorn", "glove", "ring", "sleeve", "watch"]

CLOTHING = ("bare", "sleeve", "glove", "both")
JEWELLERY = ("none", "ring", "watch", "both")

GLOVES = ("knitted", "leather", "rubber", "coated", "fingerless")
"""Kinds of gloves; the order is part of the random numbers: only add."""

Floats = NDArray[np.float64]
_AROUND = 40
_FOREARM = SEGMENTS.index("forearm")
_APART = 0.002  # metres between a watch and a cuff
_BRIGHTEST = 0.35  # albedo of gloves: pictures are exposed for skin, and white cloth would be blank
_HEM = 1.4  # thickness of a hem in that of its cloth
_SPARE = 0.001  # metres more over a glove: the arm leaves a tight sleeve, which is an ellipse, by some tenths of that
_ROUND = 0.008  # metres, about: half the thickness of a finger
_FINGER_NAMES = tuple(FINGERS)


def sleeve(rng: np.random.Generator, model: HandModel, posed: PosedHand, beneath: Sequence[Thing] = ()) -> Thing:
    """A sleeve from near the wrist to beyond the elbow, with folds and a cuff; wider over the gloves in `beneath`."""
    skin, axis = _forearm(model, posed)
    length = float(np.linalg.norm(posed.elbow - posed.joints[0]))
    begin = float(rng.uniform(0.005, 0.05) if rng.uniform() < 0.7 else rng.uniform(0.05, 0.5) * length)
    end = float((skin @ axis).max()) + 0.01
    tight = rng.uniform() < 0.4
    ease = float(rng.uniform(0.002, 0.004) if tight else rng.uniform(0.004, 0.012))
    stations = np.concatenate([[begin, begin, begin + 0.002], np.linspace(begin + 0.008, end, 34)])
    grow = np.concatenate([[-0.4 * ease, ease, ease + 0.0012], np.full(34, ease + 0.0006)])
    along = (stations - begin) / (end - begin)
    grow = grow + (0 if tight else rng.uniform(0, 0.02)) * along
    grow = grow + sum(_room(posed, each) for each in beneath if _along_arm(posed, each).max(initial=0) > begin)
    turn = np.arange(_AROUND) * 2 * np.pi / _AROUND
    folds = np.zeros((len(stations), _AROUND))
    for _ in range(5):
        waves, pace = rng.integers(1, 4), rng.uniform(30, 140)
        phase, sway = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.5)
        folds += np.cos(pace * stations[:, None] + phase + sway * np.cos(waves * turn)) / 5
    folds *= (0.0008 if tight else 0.0032) * np.clip((stations - begin) / 0.03, 0, 1)[:, None]
    points = _tube(skin, axis, stations, grow[:, None] + folds)
    colour = _cloth(rng)
    paint = np.tile(colour, (len(stations) - 1, _AROUND, 1))
    if rng.uniform() < 0.25:  # stripes round the arm
        paint[(np.arange(len(stations) - 1) // int(rng.integers(1, 4))) % 2 == 1] = _cloth(rng)
    return _thing(points, paint.reshape(-1, 3), 0.9, 0.0, _FOREARM, MASK_FOREARM)


def glove(rng: np.random.Generator, model: HandModel, posed: PosedHand) -> Thing:
    """A glove of wool, leather, rubber, with a coated palm, or without fingertips.

    Its cuff ends on the wrist or a hand's breadth below. It has one colour, another on the palm, or stripes. Cuffs,
    palms and stripes are laid out on the hand at rest, and their borders do not follow the faces.
    """
    kind = str(rng.choice(GLOVES))
    thick = float({"rubber": rng.uniform(0.0003, 0.0006), "leather": rng.uniform(0.0008, 0.0014)}.get(
        kind, rng.uniform(0.0008, 0.0018)
    ))  # fmt: skip
    rest = _at_rest(model)
    reach = rest.vertices[:, 1] + float(rng.uniform(0.0, 0.07))
    if kind == "fingerless":
        reach = np.minimum(reach, rest.before_second_joint)
    worn = _whole_faces(model.quads, reach)
    quads = model.quads[worn]
    used, renumbered = np.unique(quads, return_inverse=True)
    quads = renumbered.reshape(quads.shape).astype(np.int32)
    lift = np.full(len(used), thick)
    hem = np.unique(quads[_at_border(quads)])
    lift[hem] *= 0.3 if kind == "rubber" else _HEM
    skin = np.concatenate([posed.vertices, vertex_normals(posed.vertices, model.quads), rest.vertices, rest.normals], 1)
    skin[used[hem]] = _cut(model.quads, skin, reach, used[hem])
    place, outward, at_rest, facing = np.split(skin[used], 4, axis=1)
    vertices, quads = _hemmed(place + lift[:, None] * outward, quads, thick)
    faces = np.flatnonzero(worn)
    colour, second = _cloth(rng), _cloth(rng)
    if kind == "rubber":
        bright = [(0.02, 0.1, 0.45), (0.7, 0.7, 0.7), (0.015, 0.015, 0.015), (0.65, 0.4, 0.02), (0.02, 0.25, 0.1)]
        colour = np.array(bright[int(rng.integers(5))]) * rng.uniform(0.8, 1.2)
    elif kind == "leather":
        browns = [(0.02, 0.015, 0.012), (0.12, 0.05, 0.02), (0.35, 0.2, 0.08)]
        colour = np.array(browns[int(rng.integers(3))]) * rng.uniform(0.7, 1.3)
    colour, second = (each * min(1.0, _BRIGHTEST / each.max()) for each in (colour, second))
    coat, every = None, np.concatenate([np.arange(len(used)), hem])  # the vertices that are turned in come last
    if kind == "coated":
        coat = Coat(second, _ROUND * facing[every, 2])
    elif kind == "knitted" and rng.uniform() < 0.3:
        width = float(rng.uniform(0.012, 0.025))
        coat = Coat(second, at_rest[every, 1] + 0.3 - width, width)
    paint = np.tile(colour, (len(quads), 1))
    rough = {"rubber": rng.uniform(0.25, 0.5), "leather": rng.uniform(0.4, 0.65)}.get(kind, rng.uniform(0.75, 0.95))
    # The hem's faces are labelled as the faces it hangs on.
    part = np.concatenate([model.face_segment[faces], _hem_parts(quads, len(faces), model.face_segment[faces])])
    mask = np.where(part == _FOREARM, MASK_FOREARM, MASK_HAND).astype(np.uint8)
    return Thing(
        vertices.astype(np.float32),
        quads,
        paint.astype(np.float32),
        float(rough),
        0.0,
        part.astype(np.uint8),
        mask,
        coat,
    )


def watch(rng: np.random.Generator, model: HandModel, posed: PosedHand) -> list[Thing]:
    """A strap round the forearm near the wrist and a case on its back."""
    skin, axis = _forearm(model, posed)
    middle, width = float(rng.uniform(0.03, 0.05)), float(rng.uniform(0.008, 0.011))
    stations = middle + width * np.array([-1, -1, -0.85, 0.85, 1, 1])
    thick = np.array([-0.002, 0.0015, 0.0025, 0.0025, 0.0015, -0.002])
    points = _tube(skin, axis, stations, thick[:, None] + np.zeros((1, _AROUND)))
    metal = rng.uniform() < 0.35
    colour = np.full(3, 0.65) if metal else _cloth(rng) * 0.6
    strap = _thing(
        points, np.tile(colour, (5 * _AROUND, 1)), 0.25 if metal else 0.6, float(metal), _FOREARM, MASK_FOREARM
    )
    back = np.array([0.0, 0.0, -1.0])
    back -= (back @ axis) * axis
    back /= np.linalg.norm(back)
    ring = points[2:4].mean(0)
    top = ring[(ring - ring.mean(0)) @ back > 0.95 * ((ring - ring.mean(0)) @ back).max()].mean(0)
    side = np.cross(back, axis)
    radius = float(rng.uniform(0.015, 0.021))
    turn = np.arange(_AROUND) * 2 * np.pi / _AROUND
    square = rng.uniform() < 0.4  # a superellipse
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    circle /= ((np.abs(circle) ** (5 if square else 2)).sum(1) ** (1 / (5 if square else 2)))[:, None]
    heights, shares = (-0.004, 0.004, 0.0055, 0.0058, 0.0056, 0.0056), (1.0, 1.0, 0.96, 0.86, 0.84, 0.002)
    case = np.stack(
        [top + h * back + radius * s * (circle @ np.stack([axis, side])) for h, s in zip(heights, shares, strict=True)]
    )
    rim = np.full(3, 0.6) if metal or rng.uniform() < 0.5 else np.full(3, 0.03)
    face = np.full(3, rng.choice([0.015, 0.03, 0.7])) if rng.uniform() < 0.8 else _cloth(rng)
    paint = np.repeat(np.array([rim, rim, rim, rim, face]), _AROUND, axis=0)
    return [strap, _thing(case, paint, 0.2, 0.0, _FOREARM, MASK_FOREARM)]


def ring(rng: np.random.Generator, model: HandModel, posed: PosedHand) -> Thing:
    """A ring of gold or silver on the first segment of a finger."""
    finger = int(rng.choice([1, 2, 3, 4], p=(0.2, 0.25, 0.45, 0.1)))
    root, end = (posed.joints[4 * finger + k].astype(np.float64) for k in (1, 2))
    axis = (end - root) / np.linalg.norm(end - root)
    segment = SEGMENTS.index(f"{('thumb', 'index', 'middle', 'ring', 'little')[finger]}_1")
    mine = _vertices_of(model, posed, segment) - root
    at, width = float(np.linalg.norm(end - root) * rng.uniform(0.58, 0.72)), float(rng.uniform(0.001, 0.003))
    stations = at + width * np.array([-1, -1, -0.7, 0.7, 1, 1])
    thick = np.array([-0.001, 0.0004, 0.0011, 0.0011, 0.0004, -0.001])
    points = _tube(mine, axis, stations, thick[:, None] + np.zeros((1, _AROUND)), window=0.006) + root
    colour = np.array([0.83, 0.6, 0.25]) if rng.uniform() < 0.5 else np.array([0.7, 0.68, 0.65])
    return _thing(points, np.tile(colour, (5 * _AROUND, 1)), float(rng.uniform(0.1, 0.3)), 1.0, segment, MASK_HAND)


def adorn(
    rng: np.random.Generator, model: HandModel, posed: PosedHand, drawn: str, things: Sequence[Thing]
) -> tuple[str, list[Thing]]:
    """Put on the jewellery that was drawn, as far as there is bare skin for it.

    Rings are left out under any glove, a watch where a sleeve or a glove reaches it. What is left out is drawn all the
    same, so that the rest stays as it is without clothes.

    Args:
        rng: Source of randomness.
        model: The hand.
        posed: The hand, in its own frame.
        drawn: One of `JEWELLERY`.
        things: What the hand wears (and holds) already.

    Returns:
        The one of `JEWELLERY` that is worn, and the things it is made of.
    """
    clothes = [thing for thing in things if np.all(np.isin(thing.mask, (MASK_HAND, MASK_FOREARM)))]
    band = [ring(rng, model, posed)] if drawn in ("ring", "both") else []
    timepiece = watch(rng, model, posed) if drawn in ("watch", "both") else []
    if any(np.any(np.isin(thing.mask, MASK_HAND)) for thing in clothes):
        band = []
    if timepiece and any(_meet(posed, timepiece, thing) for thing in clothes):
        timepiece = []
    worn = {(True, True): "both", (True, False): "ring", (False, True): "watch", (False, False): "none"}
    return worn[bool(band), bool(timepiece)], band + timepiece


def _meet(posed: PosedHand, timepiece: list[Thing], garment: Thing) -> bool:
    """Whether a garment covers a part of the forearm that the watch takes."""
    cloth = _along_arm(posed, garment)
    if not len(cloth):
        return False
    taken = np.concatenate([_along_arm(posed, thing) for thing in timepiece])
    return bool(cloth.min() < taken.max() + _APART and cloth.max() > taken.min() - _APART)


def _along_arm(posed: PosedHand, garment: Thing) -> Floats:
    """How far from the wrist joint, towards the elbow, the vertices of a garment's faces on the forearm lie."""
    axis = (posed.elbow - posed.joints[0]).astype(np.float64)
    axis /= np.linalg.norm(axis)
    on_arm = garment.quads[np.broadcast_to(garment.part == _FOREARM, len(garment.quads))]
    return np.asarray((garment.vertices[np.unique(on_arm)] - posed.joints[0]) @ axis)


def _room(posed: PosedHand, worn: Thing) -> float:
    """How much wider a sleeve is over a glove: most of the glove's vertices are right above one of the skin's."""
    return _HEM * float(np.median(cKDTree(posed.vertices).query(worn.vertices)[0])) + _SPARE


@dataclass(frozen=True, eq=False)
class _Rest:
    """The mean hand, all angles zero."""

    vertices: Floats
    """(V, 3) metres."""
    normals: Floats
    """(V, 3), unit."""
    before_second_joint: Floats
    """(V,) metres along its finger to the PIP (thumb: MCP); beyond it less than zero; infinite off the fingers."""


@lru_cache(1)
def _at_rest(model: HandModel) -> _Rest:
    posed = model.pose(model.mean_shape, HandPose(np.zeros(len(ANGLES))))
    flat, before = posed.vertices.astype(np.float64), np.full(len(posed.vertices), np.inf)
    for name, chain in FINGERS.items():
        mine = np.isin(model.vertex_segment, [SEGMENTS.index(f"{name}_{part}") for part in (1, 2, 3)])
        joint, beyond = posed.joints[[chain[1], chain[2]]].astype(np.float64)
        along = (beyond - joint) / np.linalg.norm(beyond - joint)
        before[mine] = (joint - flat[mine]) @ along
    return _Rest(flat, vertex_normals(posed.vertices, model.quads), before)


def _whole_faces(quads: NDArray[np.int32], reach: Floats) -> NDArray[np.bool_]:
    """(F,) faces whose middle lies where `reach` (V,) is above zero, but for those that hang on by a corner or an edge:
    once the border is cut straight, nothing would be left of them."""
    worn = np.asarray(reach[quads].mean(1) > 0)
    while True:
        chosen = np.flatnonzero(worn)
        face, corner = _at_border(quads[chosen])
        rim = np.zeros(len(reach), bool)
        rim[quads[chosen[face], corner]] = True
        lost = rim[quads[chosen]].all(1)
        if not lost.any():
            return worn
        worn[chosen[lost]] = False


def _cut(quads: NDArray[np.int32], values: Floats, reach: Floats, rim: NDArray[np.intp]) -> Floats:
    """What the skin has where a border runs straight: `values` (V, D) of the vertices `rim`, moved along the edge that
    brings each of them nearest to where `reach` (V,) is zero."""
    start, end = quads.ravel(), np.roll(quads, -1, 1).ravel()
    start, end = np.concatenate([start, end]), np.concatenate([end, start])
    mine = np.isin(start, rim)
    start, end = start[mine], end[mine]
    change = reach[end] - reach[start]
    share = np.clip(-reach[start] / np.where(np.abs(change) > 1e-9, change, np.inf), 0, 1)
    left = np.abs(reach[start] + share * change)
    way = share * np.linalg.norm(values[end, :3] - values[start, :3], axis=1)
    order = np.lexsort((way, left.round(6), start))
    _, first = np.unique(start[order], return_index=True)
    best = order[first]  # of each vertex of the rim, in its order
    return np.asarray(values[rim] + share[best, None] * (values[end[best]] - values[rim]))


def _at_border(quads: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions (face, corner) of the edges, corner to the next one, that have a face on one side alone."""
    start, end = quads.astype(np.int64), np.roll(quads, -1, 1).astype(np.int64)
    n = int(quads.max()) + 1
    face, corner = np.nonzero(~np.isin(start * n + end, end * n + start))
    return face, corner


def _hemmed(vertices: Floats, quads: NDArray[np.int32], thick: float) -> tuple[Floats, NDArray[np.int32]]:
    """Turn the borders in: a strip from each to points `thick` beneath, behind the rest of the faces."""
    face, corner = _at_border(quads)
    start, end = quads[face, corner], quads[face, (corner + 1) % 4]
    rim = np.unique(start)
    mesh = vertices[quads]
    normal = np.cross(mesh[:, 2] - mesh[:, 0], mesh[:, 3] - mesh[:, 1])
    total = np.zeros_like(vertices)
    np.add.at(total, quads, normal[:, None])
    inward = total[rim] / np.maximum(np.linalg.norm(total[rim], axis=1, keepdims=True), 1e-12)
    below = np.full(len(vertices), -1)
    below[rim] = len(vertices) + np.arange(len(rim))
    strip = np.stack([end, start, below[start], below[end]], 1).astype(np.int32)
    return np.concatenate([vertices, vertices[rim] - 2 * thick * inward]), np.concatenate([quads, strip])


def _hem_parts(quads: NDArray[np.int32], faces: int, parts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The parts of the strip: those of the faces it hangs on."""
    face, _ = _at_border(quads[:faces])
    return parts[face]


def _vertices_of(model: HandModel, posed: PosedHand, segment: int) -> Floats:
    return np.asarray(posed.vertices[np.unique(model.quads[model.face_segment == segment])], np.float64)


def _forearm(model: HandModel, posed: PosedHand) -> tuple[Floats, Floats]:
    """Skin of the forearm from the wrist joint, and the direction to the elbow."""
    axis = (posed.elbow - posed.joints[0]).astype(np.float64)
    return _vertices_of(model, posed, _FOREARM) - posed.joints[0], np.asarray(axis / np.linalg.norm(axis))


def _tube(skin: Floats, axis: Floats, stations: Floats, grow: Floats, window: float = 0.02) -> Floats:
    """(S, A, 3) points of ellipses round the skin near each station, `grow` (S, A) metres outside of it."""
    u = np.cross(axis, [0.0, 0.0, 1.0])
    u /= np.linalg.norm(u)
    v = np.cross(axis, u)
    place, flat = skin @ axis, skin @ np.stack([u, v], 1)
    knots = np.linspace(float(stations.min()), float(stations.max()), max(2, int(np.ptp(stations) / 0.02) + 1))
    boxes = []
    for knot in knots:
        near = flat[np.abs(place - knot) < window]
        if len(near) < 8:
            near = flat[np.argsort(np.abs(place - knot))[:24]]
        low, high = np.quantile(near, 0.01, axis=0), np.quantile(near, 0.99, axis=0)
        boxes.append(np.concatenate([(low + high) / 2, (high - low) / 2 * 1.03]))
    box = np.array([np.interp(stations, knots, column) for column in np.array(boxes).T]).T
    turn = np.arange(_AROUND) * 2 * np.pi / _AROUND
    ellipse = box[:, None, :2] + (box[:, None, 2:] + grow[..., None]) * np.stack([np.cos(turn), np.sin(turn)], 1)
    return np.asarray(stations[:, None, None] * axis + ellipse @ np.stack([u, v]))


def _thing(points: Floats, paint: Floats, roughness: float, metallic: float, part: int, mask: int) -> Thing:
    stations, around = points.shape[:2]
    row = np.arange(around)
    first = np.stack([row, np.roll(row, -1), np.roll(row, -1) + around, row + around], 1)
    quads = (first + around * np.arange(stations - 1)[:, None, None]).reshape(-1, 4)
    flat = points.reshape(-1, 3)
    corner = flat[quads]
    out = np.cross(corner[:, 2] - corner[:, 0], corner[:, 3] - corner[:, 1])
    if (out * (corner.mean(1) - flat.mean(0))).sum() < 0:
        quads = quads[:, [0, 3, 2, 1]]
    return Thing(
        flat.astype(np.float32), quads.astype(np.int32), paint.astype(np.float32), roughness, metallic, part, mask
    )


def _cloth(rng: np.random.Generator) -> Floats:
    """Colours of cloth: dark, grey and muted ones mostly."""
    if rng.uniform() < 0.5:
        return np.asarray(np.exp(rng.uniform(np.log(0.015), np.log(0.7))) * rng.uniform(0.92, 1.08, 3))
    base: Any = np.array(
        [(0.02, 0.04, 0.12), (0.3, 0.03, 0.03), (0.05, 0.15, 0.06), (0.45, 0.33, 0.2), (0.1, 0.2, 0.4)]
    )
    return np.asarray(np.clip(base[rng.integers(len(base))] * np.exp(rng.normal(0, 0.35, 3)), 0.01, 0.8))

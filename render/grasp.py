"""Hands that hold things, and things that come between hand and camera.

*Held*: the object is laid into the open hand and pushed out of the palm; then the fingers close step by step, at last
in small steps, until their skin touches it, each joint stopping when a segment beyond it touches (the closing of a
robot hand, Miller and Allen, GraspIt!, 2004). So skin and object meet without entering each other, whatever the hand's
shape.
*Between fingers*: cards and pens stand between the pads of thumb and index, in the pad pinch of the pose prior.
*In front*: any object between the camera and the hand, as much of the hand hidden as `HIDDEN` allows.

Frame: the posed right hand's (`handaug.render.hand`): x to the thumb's side, y along the fingers, z out of the palm.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.camera import project
from handaug.render.hand import SEGMENTS, HandModel, RestHand
from handaug.render.penetration import ALLOWED_DEPTH, SOFTNESS, penetration
from handaug.render.pinching import meet
from handaug.render.pose_prior import ANGLES, LIMITS, HandPose, sample_pinch
from handaug.render.props import Prop, make_prop

__all__ = ["HELD", "HIDDEN", "IN_FRONT", "hold", "put_in_front"]

Floats = NDArray[np.float64]

HELD: dict[str, float] = {
    "can": 2, "bottle": 2, "cup": 2.5, "rod": 2, "ball": 1.5, "box": 1.5, "phone": 3, "pen": 2, "card": 1,
}  # fmt: skip
"""Weights of the things that hands hold."""

IN_FRONT: dict[str, float] = {"rod": 2, "box": 2, "phone": 1, "book": 2, "ball": 1, "bottle": 1, "cup": 1}
"""Weights of the things that stand before hands."""

HIDDEN = (0.05, 0.5)
"""Share of the 21 joints that a thing in front hides, least and greatest."""

_BESIDE = np.array([0.95, 0.0, 0.31])
"""From the index finger's knuckle to the thumb's side and a little to the palm."""
_THICK, _OFF = 0.015, 0.003  # metres from a joint to the skin before it; between skin and what stands in front
_FRONT_TRIES, _SAME_KIND = 240, 20
_TRIES = 5
_STEPS, _FINEST = 45, 0.3
_FINGERS = ("thumb", "index", "middle", "ring", "little")
_CHAIN = {
    "thumb": (("cmc_flexion",), ("mcp_flexion",), ("ip_flexion",)),
    **{finger: (("mcp_flexion",), ("pip_flexion",), ("dip_flexion",)) for finger in _FINGERS[1:]},
}
"""The angles that close each finger, by the segment they move."""
# Degrees by which one step closes a joint: fingers curl as in free closing, PIP a little ahead, DIP at two thirds.
_RATE = {"cmc_flexion": 2.6, "mcp_flexion": 4.3, "ip_flexion": 3.5, "pip_flexion": 4.9, "dip_flexion": 3.3}


@dataclass(frozen=True, eq=False)
class Grip:
    """A hand and what it holds."""

    pose: HandPose
    prop: Prop
    """In the posed right hand's frame."""


def hold(
    rng: np.random.Generator, model: HandModel, rest: RestHand, wrist: HandPose, kinds: dict[str, float]
) -> Grip | None:
    """Draw an object and close the hand on it.

    Args:
        rng: Source of randomness.
        model: The hand.
        rest: Its shape.
        wrist: Gives wrist and palm; the fingers are drawn here.
        kinds: Weights of the kinds of `HELD` to draw from.

    Returns:
        None where no try of a few gave a grip: fingers in each other, or fewer than three of them at the object.
    """
    weights = np.array(list(kinds.values()), np.float64)
    kind = str(rng.choice(list(kinds), p=weights / weights.sum()))
    radii = model.radii(rest)
    for _ in range(_TRIES):
        grip = (
            _pinch(rng, model, rest, wrist, kind) if kind in ("pen", "card") else _wrap(rng, model, rest, wrist, kind)
        )
        if grip is None:
            continue
        if penetration(model.joints(rest, grip.pose), radii) <= ALLOWED_DEPTH + SOFTNESS:
            return grip
    return None


def put_in_front(
    rng: np.random.Generator,
    joints: NDArray[np.floating[Any]],
    camera: NDArray[np.floating[Any]],
    skin: NDArray[np.floating[Any]],
) -> Prop | None:
    """Draw an object between camera and hand.

    Args:
        rng: Source of randomness.
        joints: (21, 3) metres, camera frame.
        camera: (3, 3) intrinsics.
        skin: (V, 3) metres, camera frame: all that the object must not enter. An arm may come nearer to the camera than
            its hand, even beside it: then objects stand next to it, else before all of the skin.

    Returns:
        The object in the camera's frame; None where no try hid a share of the joints within `HIDDEN`.
    """
    weights = np.array(list(IN_FRONT.values()))
    pixels = project(camera, np.asarray(joints, np.float32)).astype(np.float64)
    focal, principal = float(camera[0, 0]), np.array([camera[0, 2], camera[1, 2]], np.float64)
    nearest = float(skin[:, 2].min())
    limit = max(nearest, float(joints[:, 2].min()) - _THICK)
    for number in range(_FRONT_TRIES):
        if number % _SAME_KIND == 0:  # a book finds no room before a wide lens where a rod does
            kind = str(rng.choice(list(IN_FRONT), p=weights / weights.sum()))
        prop = make_prop(rng, kind)
        prop = prop.moved(_random_rotation(rng), np.zeros(3))
        aim = pixels[int(rng.integers(len(pixels)))] + rng.normal(0, 0.25, 2) * np.ptp(pixels, axis=0).max()
        reach = prop.vertices[:, 2]
        least = max(0.55 * limit, 0.3 * limit - float(reach.min()))
        most = min(0.95 * limit, limit - 0.003 - float(reach.max()))
        if least >= most:
            continue
        depth = rng.uniform(least, most)
        prop = prop.moved(np.eye(3), np.array([*((aim - principal) / focal * depth), depth]))
        hidden = float(_covered(pixels, prop, camera).mean())
        if HIDDEN[0] <= hidden <= HIDDEN[1] and (limit == nearest or _clear(prop, skin)):
            return prop
    return None


def _clear(prop: Prop, skin: NDArray[np.floating[Any]]) -> bool:
    """Whether an object keeps off the skin."""
    middle = prop.vertices.mean(0)
    radius = float(np.linalg.norm(prop.vertices - middle, axis=1).max()) + _OFF
    near = skin[np.linalg.norm(skin - middle, axis=1) < radius]
    return len(near) == 0 or float(prop.distance(near).min()) > _OFF


def _covered(pixels: Floats, prop: Prop, camera: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Which pixels lie in the convex outline of the object's picture."""
    from scipy.spatial import Delaunay

    outline = project(camera, prop.vertices.astype(np.float32)).astype(np.float64)
    found: NDArray[np.bool_] = Delaunay(outline).find_simplex(pixels) >= 0
    return found


def _wrap(rng: np.random.Generator, model: HandModel, rest: RestHand, wrist: HandPose, kind: str) -> Grip | None:
    """Lay the object across the palm and close the fingers on it."""
    degrees = _open_hand(rng, wrist)
    vertices, owner = _skin(model, rest, degrees), model.vertex_segment
    joints = model.joints(rest, _pose(degrees)).astype(np.float64)
    turn, centre = _lay(rng, kind, joints[[5, 9, 13, 17]].mean(0))
    thumb = np.isin(owner, [SEGMENTS.index(f"thumb_{k}") for k in (1, 2, 3)])
    forearm = owner == SEGMENTS.index("forearm")
    prop = _push_out(make_prop(rng, kind).moved(turn, centre), vertices[~thumb & ~forearm])
    if prop is None:
        return None
    for flexion in (degrees["thumb_cmc_flexion"], -25.0):
        degrees["thumb_cmc_flexion"] = flexion
        if prop.distance(_skin(model, rest, degrees)[thumb]).min() > -2 * SOFTNESS:
            break
    else:
        return None
    touching = _close(model, rest, degrees, prop)
    if sum(touching.values()) < 3:
        return None
    return Grip(_pose(degrees), prop)


def _open_hand(rng: np.random.Generator, wrist: HandPose) -> dict[str, float]:
    """Degrees of a hand about to take hold: fingers straight, thumb out of the palm and opposed."""
    degrees = {name: float(np.degrees(wrist[name])) for name in ("wrist_flexion", "wrist_deviation")}
    degrees["palm_cup"] = float(rng.uniform(2, 14))
    degrees["thumb_cmc_abduction"] = float(rng.uniform(10, 20))
    degrees["thumb_cmc_rotation"] = float(rng.uniform(8, 22))
    degrees["thumb_cmc_flexion"] = float(rng.uniform(-20, -8))
    degrees["thumb_mcp_flexion"], degrees["thumb_ip_flexion"] = float(rng.uniform(0, 12)), float(rng.uniform(-5, 10))
    spread = rng.uniform(0.0, 0.5)
    for finger, side in zip(_FINGERS[1:], (6.0, -1.0, -11.0, -20.0), strict=True):
        degrees[f"{finger}_mcp_flexion"] = float(rng.normal(-3, 3))
        degrees[f"{finger}_mcp_abduction"] = float(side * (0.6 + spread) + rng.normal(0, 1.5))
        degrees[f"{finger}_pip_flexion"] = float(rng.uniform(2, 8))
        degrees[f"{finger}_dip_flexion"] = float(rng.uniform(1, 5))
    return _within(degrees)


def _lay(rng: np.random.Generator, kind: str, knuckles: Floats) -> tuple[Floats, Floats]:
    """How an object lies across the palm: its y axis along the rows of knuckles and fingers, tilted; its middle."""
    tilt = np.radians(rng.uniform(25, 65) if kind == "phone" else rng.uniform(0, 35))
    axis = np.array([np.cos(tilt), np.sin(tilt), 0.12 * rng.normal()])
    axis /= np.linalg.norm(axis)
    out = np.array([0.0, 0.0, 1.0]) - axis[2] * axis  # its z axis: away from the palm
    out /= np.linalg.norm(out)
    turn = np.stack([np.cross(axis, out), axis, out], 1)
    if kind != "phone":
        spin = rng.uniform(0, 2 * np.pi) if kind != "box" else rng.choice([0, np.pi / 2]) + rng.normal(0, 0.1)
        c, s = np.cos(spin), np.sin(spin)
        turn = turn @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        if rng.uniform() < 0.3:
            turn = turn @ np.diag([-1.0, -1.0, 1.0])  # the other end up
    along = rng.normal(0, 0.008) if kind != "rod" else rng.normal(0, 0.035)
    beyond = {"phone": 0.012, "ball": 0.006}.get(kind, -0.004)
    return turn, knuckles + axis * along + [0.008, beyond + rng.normal(0, 0.004), 0.0]


def _push_out(prop: Prop, skin: Floats) -> Prop | None:
    """Move an object out of the palm along z until the skin just touches it."""
    low, high = -0.01, 0.12
    if prop.moved(np.eye(3), np.array([0, 0, high])).distance(skin).min() < 0:
        return None
    for _ in range(9):
        middle = 0.5 * (low + high)
        if prop.moved(np.eye(3), np.array([0, 0, middle])).distance(skin).min() < -SOFTNESS:
            low = middle
        else:
            high = middle
    return prop.moved(np.eye(3), np.array([0, 0, high]))


def _close(model: HandModel, rest: RestHand, degrees: dict[str, float], prop: Prop) -> dict[str, bool]:
    """Close all fingers on the object, in place; which of them touch it."""
    free = dict.fromkeys(_FINGERS, 0)  # the first segment of each finger that may still move; 3: none
    pace = dict.fromkeys(_FINGERS, 1.0)
    touching = dict.fromkeys(_FINGERS, False)
    own = [[np.flatnonzero(model.vertex_segment == 2 + 3 * k + part) for part in range(3)] for k in range(5)]
    for _ in range(_STEPS):
        tried = dict(degrees)
        for finger, first in free.items():
            for segment in range(first, 3):
                for part in _CHAIN[finger][segment]:
                    name = f"{finger}_{part}"
                    top = float(np.degrees(LIMITS[ANGLES.index(name), 1]))
                    tried[name] = min(tried[name] + pace[finger] * _RATE[part], top)
        if tried == degrees:
            break
        skin = _skin(model, rest, tried)
        for number, finger in enumerate(_FINGERS):
            hit = [k for k in range(free[finger], 3) if prop.distance(skin[own[number][k]]).min() < -SOFTNESS]
            if hit:
                touching[finger] = True
                if pace[finger] > _FINEST:
                    pace[finger] /= 2
                else:  # what lies nearer to the palm than the touch stops with it
                    free[finger], pace[finger] = hit[-1] + 1, 1.0
                continue
            for segment in range(3):
                for part in _CHAIN[finger][segment]:
                    degrees[f"{finger}_{part}"] = tried[f"{finger}_{part}"]
    return touching


def _pinch(rng: np.random.Generator, model: HandModel, rest: RestHand, wrist: HandPose, kind: str) -> Grip | None:
    """A pen or a card between the pads of thumb and index, which part by its thickness."""
    drawn = sample_pinch(rng, "index")
    degrees = _degrees(drawn)
    degrees |= {name: float(np.degrees(wrist[name])) for name in ("wrist_flexion", "wrist_deviation")}
    prop = make_prop(rng, kind)
    pose = meet(model, rest, _pose(degrees), apart=float(np.ptp(prop.vertices, axis=0).min()))
    joints = model.joints(rest, pose).astype(np.float64)
    across = joints[8] - joints[4]
    across /= np.linalg.norm(across)
    pads = 0.5 * (joints[4] + joints[8])
    if kind == "pen":
        return _lay_pen(rng, model, rest, pose, prop, pads, across, joints[5])
    out = joints[8] - joints[6]
    out -= (out @ across) * across
    out /= np.linalg.norm(out)
    sway = rng.uniform(-0.6, 0.6)
    axis = np.cos(sway) * out + np.sin(sway) * np.cross(across, out)
    turn = np.stack([np.cross(axis, across), axis, across], 1)
    return Grip(pose, prop.moved(turn, pads + axis * (float(np.abs(prop.vertices[:, 1]).max()) - 0.008)))


def _lay_pen(
    rng: np.random.Generator,
    model: HandModel,
    rest: RestHand,
    pose: HandPose,
    prop: Prop,
    pads: Floats,
    across: Floats,
    knuckle: Floats,
) -> Grip | None:
    """From the pads back over the side of the index finger's knuckle, as far out as the skin there wants it."""
    vertices = _skin(model, rest, _degrees(pose))
    held = np.isin(model.vertex_segment, [SEGMENTS.index(name) for name in ("thumb_3", "index_3")])
    sway, beyond = rng.normal(0, 0.004, 3), rng.uniform(0.025, 0.04)
    length = float(np.ptp(prop.vertices[:, 1]))
    knuckle = knuckle + sway
    for out in np.arange(0.008, 0.034, 0.002):
        axis = pads - (knuckle + out * _BESIDE)
        axis /= np.linalg.norm(axis)
        side = across - (across @ axis) * axis
        side /= np.linalg.norm(side)
        turn = np.stack([np.cross(-axis, side), -axis, side], 1)  # the tip is at -y
        laid = prop.moved(turn, pads - axis * (0.5 * length - beyond))
        depth = laid.distance(vertices)
        if depth[~held].min() > -SOFTNESS:
            return Grip(pose, laid) if depth[held].min() > -2 * SOFTNESS else None
    return None


def _skin(model: HandModel, rest: RestHand, degrees: dict[str, float]) -> Floats:
    """Posed vertices."""
    return model.pose(rest, _pose(degrees)).vertices.astype(np.float64)


def _within(degrees: dict[str, float]) -> dict[str, float]:
    low, high = np.degrees(LIMITS).T
    return {n: float(np.clip(v, low[ANGLES.index(n)], high[ANGLES.index(n)])) for n, v in degrees.items()}


def _pose(degrees: dict[str, float]) -> HandPose:
    return HandPose(np.clip(np.radians([degrees[name] for name in ANGLES]), *LIMITS.T))


def _degrees(pose: HandPose) -> dict[str, float]:
    return dict(zip(ANGLES, np.degrees(pose.angles).tolist(), strict=True))


def _random_rotation(rng: np.random.Generator) -> Floats:
    q = rng.normal(size=4)
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )

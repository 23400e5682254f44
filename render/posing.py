"""One pose of a config: hand, what it holds and wears, camera; and every label, from the geometry alone.

Each factor draws from a generator of its own, so that switching one on leaves the others as they were.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.camera import project
from handaug.data_specs.schema import (
    LEFT,
    MASK_BACKGROUND,
    MASK_FOREARM,
    MASK_HAND,
    MASK_OCCLUDER,
    MASK_OTHER_HAND,
    OCCLUDED_BY_OTHER_HAND,
    OCCLUDED_BY_SELF,
    RIGHT,
)
from handaug.render.arm_end import ArmEnds
from handaug.render.clear_pose import sample_clear_pose
from handaug.render.config import CHOICES, RenderConfig, split_of
from handaug.render.grasp import HELD, HIDDEN, hold, put_in_front
from handaug.render.hand import JOINT_SEGMENTS, SEGMENTS, HandModel, PosedHand, RestHand
from handaug.render.labels import OTHER_HAND, PROP, rasterise, sight
from handaug.render.maps import normal_map, uv_map
from handaug.render.mesh import mirror_quads
from handaug.render.phenotypes import age_of, aged, narrowed
from handaug.render.pose_prior import HandPose
from handaug.render.props import PROPS, Prop
from handaug.render.scene import HandScene, OtherHand, Thing
from handaug.render.second_hand import Obstacle, place_beside
from handaug.render.seeds import Factor, Kind, generator, identity
from handaug.render.shares import AGES
from handaug.render.tabletop import lay_behind
from handaug.render.viewpoint import NEAREST, NoViewError, SceneError, describe_view, place_hand, preset_of, to_camera
from handaug.render.wear import adorn, glove, sleeve

__all__ = ["POSE_FACTORS", "LabelledHand", "optional_fields", "sample_hand"]

Rows = dict[str, NDArray[Any]]
_Bytes = NDArray[np.uint8]

POSE_FACTORS = (
    "pose_kind", "draws", "camera", "field_of_view", "azimuth", "elevation", "tilt", "fill", "occluder", "object",
    "clothing", "jewellery", "surface",
)  # fmt: skip
"""Names of the entries of the field `pose_factors`. Kinds are positions in their tables (`config.CHOICES`,
`props.PROPS`; object -1: none), angles degrees. Azimuth and elevation: where the camera stands about the right (or
mirrored) hand; 0, 0 looks at the palm, 90 elevation looks at the fingertips."""

_FOREARM = SEGMENTS.index("forearm")
_VIEWS = 6
_MOST_HIDDEN = 12  # joints that a held object or the other hand may hide before another view is drawn
_PLACES, _OTHERS = 20, 20  # tries


@dataclass(frozen=True, eq=False)
class LabelledHand:
    """One pose of a config."""

    scene: HandScene
    """What Blender draws."""
    labels: Rows
    """The row's fields, all but images and what depends on the appearance."""
    second: Rows | None = None
    """The same of the other hand, where both are labelled."""

    @property
    def rows(self) -> tuple[Rows, ...]:
        """The labels of each hand."""
        return (self.labels,) if self.second is None else (self.labels, self.second)


_POSE_FIELDS = (
    "hands", "size", "hand_model", "pose_kinds", "camera", "occluders", "occluder_kinds", "clothing", "jewellery",
)  # fmt: skip
"""What a pose depends on beside its seed and number: two files that differ here show unlike hands, and unlike ids."""
_LATER = ("field_of_view", "shape_spread")
"""The same, of options that are younger: only other than the default do they change ids."""

_MIRROR = np.diag([-1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class _Posed:
    """A hand with all that moves with it."""

    hand: PosedHand
    pose: HandPose
    things: tuple[Thing, ...]
    factors: dict[str, float]
    turn: NDArray[np.float64]
    """(3, 3) and `origin` (3,): a point p of the right hand's own frame stands at turn @ p + origin."""
    origin: NDArray[np.float64]

    @property
    def left(self) -> bool:
        """Whether it is a mirrored right hand."""
        return bool(np.linalg.det(self.turn) < 0)

    def moved(self, turn: NDArray[np.float64], origin: NDArray[np.float64]) -> "_Posed":
        """After x -> turn @ x + origin."""
        now = self.hand
        hand = PosedHand(
            to_camera(now.vertices, turn, origin),
            to_camera(now.joints, turn, origin),
            to_camera(now.elbow[None], turn, origin)[0],
        )
        things = tuple(thing.moved(turn, origin) for thing in self.things)
        return replace(self, hand=hand, things=things, turn=turn @ self.turn, origin=turn @ self.origin + origin)


@dataclass(frozen=True, eq=False)
class _Row:
    """One hand of a picture and how it is seen."""

    posed: _Posed
    scene: HandScene
    """As this hand sees it: its own skin first, the other one as the other."""
    seen: _Bytes
    hidden: _Bytes


def optional_fields(config: RenderConfig) -> list[str]:
    """The fields of a rendered file besides the required ones."""
    fields = ["keypoints_3d", "camera", "mask", "pose_id", "appearance_id", "image_id", "shape", "pose", "occlusion"]
    fields += ["pose_factors", "appearance_factors"]
    switched = {"depth": config.depth, "part": config.parts, "normals": config.normals, "uv": config.uv}
    return fields + [name for name, on in switched.items() if on]


def sample_hand(config: RenderConfig, model: HandModel, pose: int) -> LabelledHand:
    """Draw pose number `pose` and label it, from the geometry alone."""

    def rng(factor: Factor) -> np.random.Generator:
        return generator(config.seed, Kind.POSE, pose, factor)

    drawn = narrowed(model.sample_shape(rng(Factor.SHAPE)), model.mean_shape, config.shape_spread, config.hand_model)
    shape = aged(drawn, config.weights("ages"))
    rest = model.rest(shape)
    occluding = rng(Factor.OCCLUDER)
    placed = _choose(occluding, config, "occluder_kinds") if config.occluders else "none"
    first = _make(config, model, rest, rng, rng(Factor.ARTICULATION), occluding if placed == "held" else None)
    mirrored = config.hands == "left" or (config.hands in ("both", "two") and bool(rng(Factor.SIDE).integers(2)))
    preset = _choose(rng(Factor.PRESET), config, "camera")
    beside, viewing = rng(Factor.OTHER_HAND), rng(Factor.VIEWPOINT)
    for _ in range(_PLACES):  # of some pairs of hands an arm's end is in sight from everywhere
        hands = [first, *([_beside(config, model, rest, rng, beside, first)] if config.hands == "two" else [])]
        hands = [hand.moved(_MIRROR, np.zeros(3)) for hand in hands] if mirrored else hands
        with suppress(NoViewError):
            view, rows = _view(viewing, hands, model, config, preset)
            break
    else:
        raise SceneError(f"no view without an arm's end was found in {_PLACES} draws; choose another --seed")
    if placed == "front":
        shown = [x for hand in view.hands for x in (hand.hand.vertices, *(t.vertices for t in hand.things))]
        prop = put_in_front(occluding, view.hands[0].hand.joints, view.camera, np.concatenate(shown))
        if prop is not None:
            rows = _rows(config, model, view, (_as_thing(prop),))
            for hand in view.hands:
                hand.factors["object"] = list(PROPS).index(prop.kind)
    if placed == "hand" and len(hands) == 1:
        rows = _other_before(config, model, rest, rng, hands[0], view) or rows
    for row in rows:
        there = row.posed.factors["object"] >= 0 or (placed == "hand" and row.scene.other is not None)
        row.posed.factors["occluder"] = CHOICES["occluder_kinds"].index(placed) if there else 0
        row.posed.factors["camera"] = CHOICES["camera"].index(preset)
    scene = _on_surface(config, rng(Factor.SURFACE), rows)
    labels = [_labels(config, model, shape, pose, row, number) for number, row in enumerate(rows)]
    return LabelledHand(replace(scene, age=age_of(shape, config.hand_model)), *labels)


def _on_surface(config: RenderConfig, rng: np.random.Generator, rows: list[_Row]) -> HandScene:
    """The scene of a picture with the surface that was drawn for it, if any."""
    scene, kind = rows[0].scene, _choose(rng, config, "surfaces")
    for row in rows:
        row.posed.factors["surface"] = CHOICES["surfaces"].index(kind)
    joints = np.concatenate([row.posed.hand.joints for row in rows]).astype(np.float64)
    return scene if kind == "none" else replace(scene, surface=lay_behind(rng, kind, joints, scene.solid))


def _labels(config: RenderConfig, model: HandModel, shape: NDArray[Any], pose: int, row: _Row, number: int) -> Rows:
    """The fields of hand `number` of a picture."""
    scene, joints = row.scene, row.posed.hand.joints
    drawn_by = [getattr(config, name) for name in _POSE_FIELDS] + AGES.asked(config.weights("ages"))
    drawn_by += [(name, value) for name in _LATER if (value := getattr(config, name)) != getattr(RenderConfig, name)]
    drawn_by += ["second"] * number
    return {
        "keypoints_2d": project(scene.intrinsics, joints),
        "keypoints_3d": joints,
        "visibility": row.seen,
        "occlusion": row.hidden,
        "camera": scene.intrinsics,
        "handedness": np.array(LEFT if scene.left else RIGHT, np.uint8),
        "split": np.array(split_of(pose), np.uint8),
        "group": np.array(identity("group", config.seed, pose, config.hands), np.int64),
        "pose_id": np.array(identity("pose", config.seed, pose, *drawn_by), np.int64),
        "shape": shape.astype(np.float32),
        "pose": row.posed.pose.angles.astype(np.float32),
        "pose_factors": np.array([row.posed.factors[name] for name in POSE_FACTORS], np.float32),
        **_pixel_labels(config, scene, model),
    }


def _choose(rng: np.random.Generator, config: RenderConfig, name: str) -> str:
    weights = config.weights(name)
    return str(rng.choice(list(weights), p=list(weights.values())))


def _make(
    config: RenderConfig,
    model: HandModel,
    rest: RestHand,
    rng: Any,
    articulating: np.random.Generator,
    holding: np.random.Generator | None,
    adorned: bool = True,
) -> _Posed:
    """Pose a right hand, let it hold things (with `holding`) and wear them.

    Both hands of a person are dressed alike, by the same streams; rings and watches are on the first hand alone.
    """
    drawn = sample_clear_pose(articulating, model, rest, config.weights("pose_kinds"))
    angles, things, factors = drawn.pose, [], dict.fromkeys(POSE_FACTORS, 0.0)
    factors |= {"pose_kind": CHOICES["pose_kinds"].index(drawn.kind), "draws": drawn.draws, "object": -1}
    if holding is not None:
        grip = hold(holding, model, rest, angles, HELD)
        if grip is not None:
            angles, factors["pose_kind"] = grip.pose, -1  # the fingers lie as the thing wants them
            things.append(_as_thing(grip.prop))
            factors["object"] = list(PROPS).index(grip.prop.kind)
    posed = model.pose(rest, angles)
    dressing = rng(Factor.CLOTHING)
    clothing = _choose(dressing, config, "clothing")
    gloves = [glove(rng(Factor.GLOVE), model, posed)] if clothing in ("glove", "both") else []
    if clothing in ("sleeve", "both"):
        things.append(sleeve(dressing, model, posed, gloves))
    things += gloves
    adorning = rng(Factor.JEWELLERY)
    jewellery = _choose(adorning, config, "jewellery") if adorned else "none"
    jewellery, adornments = adorn(adorning, model, posed, jewellery, things)
    things += adornments
    factors["clothing"] = CHOICES["clothing"].index(clothing)
    factors["jewellery"] = CHOICES["jewellery"].index(jewellery)
    return _Posed(posed, angles, tuple(things), factors, np.eye(3), np.zeros(3))


def _beside(config: RenderConfig, model: HandModel, rest: RestHand, rng: Any, draw: Any, first: _Posed) -> _Posed:
    """The other hand of the same person, at the side of the first (a right one, in its own frame)."""
    obstacle = _obstacle(model, first)
    for _ in range(_PLACES):
        second = _make(config, model, rest, rng, draw, None, adorned=False)
        place = place_beside(draw, obstacle, first.hand, second.hand, model.quads)
        if place is not None:
            return second.moved(place.turn, place.origin)
    raise SceneError(f"no place for a second hand was found in {_PLACES} draws; choose another --seed")


def _obstacle(model: HandModel, hand: _Posed) -> Obstacle:
    return Obstacle(hand.hand.vertices, model.quads, [thing.vertices for thing in hand.things])


def _as_thing(prop: Prop) -> Thing:
    vertices = prop.vertices.astype(np.float32)
    return Thing(vertices, prop.quads, prop.paint, prop.roughness, prop.metallic, PROP, MASK_OCCLUDER)


@dataclass(frozen=True, eq=False)
class _View:
    """Hands before a camera."""

    hands: list[_Posed]
    """In the camera's frame."""
    camera: NDArray[np.float32]
    rotation: NDArray[np.float64]
    """(3, 3) and `translation` (3,) that brought them there."""
    translation: NDArray[np.float64]


def _view(
    rng: np.random.Generator, hands: list[_Posed], model: HandModel, config: RenderConfig, preset: str
) -> tuple[_View, list[_Row]]:
    """Place the camera where no arm's end is seen; again while something else hides most joints of a hand."""
    solid = np.concatenate([x for hand in hands for x in (hand.hand.vertices, *(t.vertices for t in hand.things))])
    framed = replace(hands[0].hand, vertices=solid, joints=np.concatenate([hand.hand.joints for hand in hands]))
    ends = ArmEnds([(hand.hand, hand.things) for hand in hands], model, config.size)
    kind = preset_of(preset, config.limits("field_of_view"))
    for _ in range(_VIEWS):
        rotation, translation, camera = place_hand(rng, framed, config.size, kind, ends.seen)
        view = _View([hand.moved(rotation, translation) for hand in hands], camera, rotation, translation)
        rows = _rows(config, model, view)
        if max(int((row.hidden > OCCLUDED_BY_SELF).sum()) for row in rows) <= _MOST_HIDDEN:
            break
    for hand in view.hands:
        hand.factors.update(describe_view(hand.hand, hand.turn, hand.origin, camera, config.size))
    return view, rows


def _rows(
    config: RenderConfig, model: HandModel, view: _View, extra: tuple[Thing, ...] = (), count: int | None = None
) -> list[_Row]:
    """Each hand of a view, or the first `count`, as a row of its own."""
    joints = np.concatenate([hand.hand.joints for hand in view.hands])
    x, y, z = ((joints.min(0) + joints.max(0)) / 2).tolist()
    out = []
    for number, hand in enumerate(view.hands[:count]):
        others = [other for k, other in enumerate(view.hands) if k != number]
        things = hand.things + tuple(_of_other(thing) for other in others for thing in other.things) + extra
        other = OtherHand(others[0].hand.vertices, others[0].left, others[0].pose) if others else None
        own = (hand.hand.vertices, view.camera, config.size, hand.left, hand.pose)
        scene = HandScene(*own, (x, y, z), things, other)
        out.append(_Row(hand, scene, *_sight(scene, hand.hand.joints, model)))
    return out


def _of_other(thing: Thing) -> Thing:
    """A thing as the other hand's row sees it: what is worn is the other hand, what is held is an object."""
    held = isinstance(thing.part, int) and thing.part == PROP
    return thing if held else replace(thing, part=OTHER_HAND, mask=MASK_OTHER_HAND)


def _other_before(
    config: RenderConfig, model: HandModel, rest: RestHand, rng: Any, hand: _Posed, view: _View
) -> list[_Row] | None:
    """Let the other hand come between hand and camera; None where no try hid a share of the joints within `HIDDEN`."""
    draw = rng(Factor.OTHER_HAND)
    back = hand.turn.T  # to the right hand's own frame, where a left one is mirrored
    right, obstacle = hand.moved(back, np.zeros(3)), _obstacle(model, hand.moved(back, np.zeros(3)))
    eye = -back @ view.rotation.T @ view.translation
    for number in range(_OTHERS):
        if number % 4 == 0:
            made = _make(config, model, rest, rng, draw, None, adorned=False)
        toward = eye - right.hand.joints.mean(0)
        place = place_beside(draw, obstacle, right.hand, made.hand, model.quads, toward)
        if place is None:
            continue
        second = made.moved(place.turn, place.origin).moved(hand.turn, np.zeros(3))
        second = second.moved(view.rotation, view.translation)
        if np.linalg.norm(second.hand.vertices, axis=1).min() < NEAREST:
            continue
        arms = ArmEnds([(each.hand, each.things) for each in (*view.hands, second)], model, config.size)
        if arms.seen(np.eye(3), np.zeros(3), view.camera):
            continue
        rows = _rows(config, model, replace(view, hands=[*view.hands, second]), count=1)
        if HIDDEN[0] <= float((rows[0].hidden == OCCLUDED_BY_OTHER_HAND).mean()) <= HIDDEN[1]:
            return rows
    return None


def _sight(scene: HandScene, joints: NDArray[np.float32], model: HandModel) -> tuple[_Bytes, _Bytes]:
    vertices, faces, parts, _ = _whole(scene, model)
    return sight(joints, vertices, faces, parts, JOINT_SEGMENTS, scene.intrinsics, scene.size, scene.size)


def _whole(scene: HandScene, model: HandModel) -> tuple[NDArray[np.float32], NDArray[np.int32], _Bytes, _Bytes]:
    """All surfaces as one mesh: vertices, quads (the hand's first), part and mask value of each quad."""
    own = np.where(model.face_segment == _FOREARM, MASK_FOREARM, MASK_HAND)
    found: list[tuple[Any, Any, Any, Any]] = [(scene.vertices, _quads(model, scene.left), model.face_segment, own)]
    found += [(thing.vertices, thing.quads, thing.part, thing.mask) for thing in scene.things]
    if scene.other is not None:
        found.append((scene.other.vertices, _quads(model, scene.other.left), OTHER_HAND, MASK_OTHER_HAND))
    vertices, faces, parts, masks, start = [], [], [], [], 0
    for points, quads, part, mask in found:
        vertices.append(points)
        faces.append(quads + start)
        parts.append(np.full(len(quads), part, np.uint8))
        masks.append(np.full(len(quads), mask, np.uint8))
        start += len(points)
    return np.concatenate(vertices), np.concatenate(faces), np.concatenate(parts), np.concatenate(masks)


def _quads(model: HandModel, left: bool) -> NDArray[np.int32]:
    return mirror_quads(model.quads) if left else model.quads


def _pixel_labels(config: RenderConfig, scene: HandScene, model: HandModel) -> Rows:
    """Mask, and what else is switched on."""
    vertices, faces, parts, masks = _whole(scene, model)
    raster = rasterise(vertices, faces, scene.intrinsics, config.size, config.size)
    out: Rows = {"mask": raster.labels(masks, MASK_BACKGROUND)}
    if config.depth:
        out["depth"] = raster.depth.astype(np.float16)
    if config.parts:  # 1 forearm, 2 palm, 3.. the segments of the fingers; things that are not the hand: 0
        out["part"] = raster.labels(np.where(parts < len(SEGMENTS), parts + 1, 0), 0)
    if config.normals:
        out["normals"] = normal_map(raster, vertices, faces, scene.intrinsics)
    if config.uv:
        face_uv = mirror_quads(model.face_uv) if scene.left else model.face_uv
        out["uv"] = uv_map(raster, vertices, faces, scene.intrinsics, face_uv)
    return out

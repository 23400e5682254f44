"""One pose of a config: hand, what it holds and wears, camera; and every label, from the geometry alone.

Each factor draws from a generator of its own, so that switching one on leaves the others as they were.
"""

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
    OCCLUDED_BY_OBJECT,
    RIGHT,
)
from handaug.render.config import CHOICES, RenderConfig, split_of
from handaug.render.grasp import HELD, hold, put_in_front
from handaug.render.hand import JOINT_SEGMENTS, SEGMENTS, HandModel, PosedHand, mirror_quads
from handaug.render.labels import PROP, rasterise, sight
from handaug.render.maps import normal_map, uv_map
from handaug.render.penetration import sample_clear_pose
from handaug.render.pose_prior import HandPose
from handaug.render.props import PROPS, Prop
from handaug.render.scene import HandScene, Thing
from handaug.render.seeds import Factor, Kind, generator, identity
from handaug.render.viewpoint import CAMERAS, place_hand, to_camera
from handaug.render.wear import ring, sleeve, watch

__all__ = ["POSE_FACTORS", "LabelledHand", "optional_fields", "sample_hand"]

Rows = dict[str, NDArray[Any]]

POSE_FACTORS = (
    "pose_kind", "draws", "camera", "field_of_view", "azimuth", "elevation", "tilt", "fill", "occluder", "object",
    "clothing", "jewellery",
)  # fmt: skip
"""Names of the entries of the field `pose_factors`. Kinds are positions in their tables (`config.CHOICES`,
`props.PROPS`; object -1: none), angles degrees. Azimuth and elevation: where the camera stands about the right (or
mirrored) hand; 0, 0 looks at the palm, 90 elevation looks at the fingertips."""

_FOREARM = SEGMENTS.index("forearm")
_VIEWS = 6
_MOST_HIDDEN = 12  # joints that a held object may hide before another view is drawn


@dataclass(frozen=True, eq=False)
class LabelledHand:
    """One pose of a config."""

    scene: HandScene
    """What Blender draws."""
    labels: Rows
    """The row's fields, all but images and what depends on the appearance."""


_POSE_FIELDS = (
    "hands",
    "size",
    "hand_model",
    "pose_kinds",
    "camera",
    "occluders",
    "occluder_kinds",
    "clothing",
    "jewellery",
)
"""What a pose depends on beside its seed and number: two files that differ here show unlike hands, and unlike ids."""


@dataclass(frozen=True, eq=False)
class _Posed:
    """A hand in its own frame with all that moves with it."""

    hand: PosedHand
    pose: HandPose
    things: tuple[Thing, ...]
    factors: dict[str, float]


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

    shape = model.sample_shape(rng(Factor.SHAPE))
    occluding = rng(Factor.OCCLUDER)
    placed = _choose(occluding, config, "occluder_kinds") if config.occluders else "none"
    made = _make(config, model, shape, rng, placed == "held", occluding)
    left = config.hands == "left" or (config.hands == "both" and bool(rng(Factor.SIDE).integers(2)))
    if left:
        made = replace(made, hand=made.hand.mirrored(), things=tuple(thing.mirrored() for thing in made.things))
    quads = mirror_quads(model.quads) if left else model.quads
    preset = _choose(rng(Factor.PRESET), config, "camera")
    scene, joints, seen, hidden = _view(rng(Factor.VIEWPOINT), made, quads, model, config, preset, left)
    if placed == "front":
        nearest = float(scene.vertices[:, 2].min())
        prop = put_in_front(occluding, joints, nearest, scene.intrinsics)
        if prop is not None:
            made.factors["object"] = list(PROPS).index(prop.kind)
            scene = replace(scene, things=(*scene.things, _as_thing(prop)))
            seen, hidden = _sight(scene, joints, quads, model)
    made.factors["occluder"] = CHOICES["occluder_kinds"].index(placed) if made.factors["object"] >= 0 else 0
    made.factors["camera"] = CHOICES["camera"].index(preset)
    drawn_by = (getattr(config, name) for name in _POSE_FIELDS)
    labels: Rows = {
        "keypoints_2d": project(scene.intrinsics, joints),
        "keypoints_3d": joints,
        "visibility": seen,
        "occlusion": hidden,
        "camera": scene.intrinsics,
        "handedness": np.array(LEFT if left else RIGHT, np.uint8),
        "split": np.array(split_of(pose), np.uint8),
        "group": np.array(identity("group", config.seed, pose, config.hands), np.int64),
        "pose_id": np.array(identity("pose", config.seed, pose, *drawn_by), np.int64),
        "shape": shape.astype(np.float32),
        "pose": made.pose.angles.astype(np.float32),
        "pose_factors": np.array([made.factors[name] for name in POSE_FACTORS], np.float32),
        **_pixel_labels(config, scene, quads, model, mirror_quads(model.face_uv) if left else model.face_uv),
    }
    return LabelledHand(scene, labels)


def _choose(rng: np.random.Generator, config: RenderConfig, name: str) -> str:
    weights = config.weights(name)
    return str(rng.choice(list(weights), p=list(weights.values())))


def _make(
    config: RenderConfig, model: HandModel, shape: NDArray[Any], rng: Any, held: bool, occluding: np.random.Generator
) -> _Posed:
    """Pose the right hand, let it hold and wear things."""
    rest = model.rest(shape)
    drawn = sample_clear_pose(rng(Factor.ARTICULATION), model, rest, config.weights("pose_kinds"))
    angles, things, factors = drawn.pose, [], dict.fromkeys(POSE_FACTORS, 0.0)
    factors |= {"pose_kind": CHOICES["pose_kinds"].index(drawn.kind), "draws": drawn.draws, "object": -1}
    if held:
        grip = hold(occluding, model, rest, angles, HELD)
        if grip is not None:
            angles = grip.pose
            things.append(_as_thing(grip.prop))
            factors["object"] = list(PROPS).index(grip.prop.kind)
    posed = model.pose(rest, angles)
    dressing = rng(Factor.CLOTHING)
    clothing = _choose(dressing, config, "clothing")
    if clothing == "sleeve":
        things.append(sleeve(dressing, model, posed))
    adorning = rng(Factor.JEWELLERY)
    jewellery = _choose(adorning, config, "jewellery")
    if jewellery in ("ring", "both"):
        things.append(ring(adorning, model, posed))
    if jewellery in ("watch", "both"):
        things += watch(adorning, model, posed)
    factors["clothing"] = CHOICES["clothing"].index(clothing)
    factors["jewellery"] = CHOICES["jewellery"].index(jewellery)
    return _Posed(posed, angles, tuple(things), factors)


def _as_thing(prop: Prop) -> Thing:
    vertices = prop.vertices.astype(np.float32)
    return Thing(vertices, prop.quads, prop.paint, prop.roughness, prop.metallic, PROP, MASK_OCCLUDER)


def _view(
    rng: np.random.Generator,
    made: _Posed,
    quads: NDArray[np.int32],
    model: HandModel,
    config: RenderConfig,
    preset: str,
    left: bool,
) -> tuple[HandScene, NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]]:
    """Place the camera; another view is drawn while the held object hides most joints. Scene, joints, visibility and
    occlusion."""
    solid = np.concatenate([made.hand.vertices, *(thing.vertices for thing in made.things)])
    for _ in range(_VIEWS):
        rotation, translation, camera = place_hand(
            rng, replace(made.hand, vertices=solid), config.size, CAMERAS[preset]
        )
        vertices, joints = (
            to_camera(points, rotation, translation) for points in (made.hand.vertices, made.hand.joints)
        )
        things = tuple(replace(t, vertices=to_camera(t.vertices, rotation, translation)) for t in made.things)
        middle = (joints.min(0) + joints.max(0)) / 2
        centre = (float(middle[0]), float(middle[1]), float(middle[2]))
        scene = HandScene(vertices, camera, config.size, left, centre, things)
        seen, hidden = _sight(scene, joints, quads, model)
        if (hidden == OCCLUDED_BY_OBJECT).sum() <= _MOST_HIDDEN:
            break
    eye = -rotation.T @ translation * (np.array([-1, 1, 1]) if left else 1)
    arm = rotation @ (made.hand.elbow - made.hand.joints[9])
    extent = np.ptp(project(camera, joints), axis=0).max()
    made.factors.update(
        field_of_view=float(np.degrees(2 * np.arctan(config.size / 2 / camera[0, 0]))),
        azimuth=float(np.degrees(np.arctan2(eye[0], eye[2]))),
        elevation=float(np.degrees(np.arcsin(eye[1] / np.linalg.norm(eye)))),
        tilt=float(np.degrees(np.arctan2(arm[0], arm[1]))),
        fill=float(extent / config.size),
    )
    return scene, joints, seen, hidden


def _sight(
    scene: HandScene, joints: NDArray[np.float32], quads: NDArray[np.int32], model: HandModel
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    vertices, faces, parts, _ = _whole(scene, quads, model)
    return sight(joints, vertices, faces, parts, JOINT_SEGMENTS, scene.intrinsics, scene.size, scene.size)


def _whole(
    scene: HandScene, quads: NDArray[np.int32], model: HandModel
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.uint8], NDArray[np.uint8]]:
    """All surfaces as one mesh: vertices, quads (the hand's first), part and mask value of each quad."""
    vertices, faces, parts = [scene.vertices], [quads], [model.face_segment]
    masks = [np.where(model.face_segment == _FOREARM, MASK_FOREARM, MASK_HAND).astype(np.uint8)]
    start = len(scene.vertices)
    for thing in scene.things:
        vertices.append(thing.vertices)
        faces.append(thing.quads + start)
        parts.append(np.full(len(thing.quads), thing.part, np.uint8))
        masks.append(np.full(len(thing.quads), thing.mask, np.uint8))
        start += len(thing.vertices)
    return np.concatenate(vertices), np.concatenate(faces), np.concatenate(parts), np.concatenate(masks)


def _pixel_labels(
    config: RenderConfig, scene: HandScene, quads: NDArray[np.int32], model: HandModel, face_uv: NDArray[np.float32]
) -> Rows:
    """Mask, and what else is switched on."""
    vertices, faces, parts, masks = _whole(scene, quads, model)
    raster = rasterise(vertices, faces, scene.intrinsics, config.size, config.size)
    out: Rows = {"mask": raster.labels(masks, MASK_BACKGROUND)}
    if config.depth:
        out["depth"] = raster.depth.astype(np.float16)
    if config.parts:  # 1 forearm, 2 palm, 3.. the segments of the fingers; things that are not the hand: 0
        out["part"] = raster.labels(np.where(parts < len(SEGMENTS), parts + 1, 0), 0)
    if config.normals:
        out["normals"] = normal_map(raster, vertices, faces, scene.intrinsics)
    if config.uv:
        out["uv"] = uv_map(raster, vertices, faces, scene.intrinsics, face_uv)
    return out

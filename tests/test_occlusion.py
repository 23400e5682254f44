"""Hands with things and other hands before them: every label against rays of a second implementation."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rays import pixel_rays, scene_triangles, see, winding

if find_spec("anny") is None:
    pytest.skip("the hand model needs anny", allow_module_level=True)

from handaug.data_specs.camera import inside_image, project
from handaug.data_specs.errors import InputError
from handaug.render.config import RenderConfig
from handaug.render.hand import JOINT_SEGMENTS, HandModel
from handaug.render.labels import triangles_of
from handaug.render.mesh import mirror_quads
from handaug.render.pose_prior import LIMITS
from handaug.render.posing import POSE_FACTORS, LabelledHand, sample_hand
from handaug.render.scene import HandScene, OtherHand

SIZE = 48
DRESSED = {"clothing": "both=1,sleeve=1,bare=1", "jewellery": "both"}
CASES: dict[str, dict[str, Any]] = {
    "held": {"occluders": True, "occluder_kinds": "held", "jewellery": "both"},
    "front": {"occluders": True, "occluder_kinds": "front", "clothing": "sleeve"},
    "hand": {"occluders": True, "occluder_kinds": "hand", **DRESSED},
    "two": {"hands": "two", **DRESSED},
    "two holding": {"hands": "two", "occluders": True, "occluder_kinds": "held=1,front=1"},
}


@pytest.fixture(scope="module")
def model() -> HandModel:
    return HandModel.load()


def draw(model: HandModel, case: str, poses: range = range(3)) -> list[LabelledHand]:
    config = RenderConfig(size=SIZE, seed=21, depth=True, parts=True, **CASES[case])
    return [sample_hand(config, model, pose) for pose in poses]


def as_seen_by_the_second(hand: LabelledHand, second: dict[str, NDArray[Any]]) -> HandScene:
    """The picture's scene with the two hands' parts swapped, by the meaning of the mask alone."""
    scene = hand.scene
    assert scene.other is not None
    things = []
    for thing in scene.things:
        if isinstance(thing.part, int) and thing.part == 254:
            things.append(thing)
        elif isinstance(thing.part, int) and thing.part == 253:
            continue  # worn by the second: tested where it is the first (below, by its mask's complement)
        else:
            things.append(replace(thing, part=253, mask=4))
    other = OtherHand(scene.vertices, scene.left, scene.pose)
    seen = scene.other
    return replace(scene, vertices=seen.vertices, left=seen.left, pose=seen.pose, things=tuple(things), other=other)


def check(model: HandModel, scene: HandScene, labels: dict[str, NDArray[Any]], rng: np.random.Generator) -> set[int]:
    """Visibility, occlusion, mask, depth, parts; the values of `occlusion` that occurred."""
    triangles, parts, masks = scene_triangles(model, scene)
    joints = labels["keypoints_3d"]
    _, face = see(joints, triangles)
    seen = np.where(face >= 0, parts[face], -1)
    own = np.array([s < 0 or s in allowed for s, allowed in zip(seen, JOINT_SEGMENTS, strict=True)])
    inside = inside_image(project(labels["camera"], joints), SIZE, SIZE)
    np.testing.assert_array_equal(labels["visibility"], np.where(inside, np.where(own, 2, 1), 0))
    cause = np.select([own, seen == 254, seen == 253], [0, 2, 3], 1)
    np.testing.assert_array_equal(labels["occlusion"], cause)

    rows, columns = rng.integers(0, SIZE, (2, 24))
    for value in np.unique(labels["mask"]):  # rare values too
        at = np.argwhere(labels["mask"] == value)
        some = at[rng.integers(0, len(at), 6)]
        rows, columns = np.concatenate([rows, some[:, 0]]), np.concatenate([columns, some[:, 1]])
    depth, face = see(pixel_rays(labels["camera"], SIZE)[rows, columns], triangles)
    expected = np.where(face >= 0, masks[face], 0)
    assert (labels["mask"][rows, columns] != expected).sum() <= 1  # a ray that grazes a rim
    same = (labels["mask"][rows, columns] == expected) & (face >= 0)
    np.testing.assert_allclose(labels["depth"][rows, columns][same].astype(float), depth[same], rtol=2e-3)
    segment = np.where(face >= 0, parts[face], 255)
    part = np.where(segment < 200, segment + 1, 0)
    assert (labels["part"][rows, columns] != part).sum() <= 1
    return set(cause.tolist())


@pytest.mark.parametrize("case", CASES)
def test_labels_against_brute_force_rays(model: HandModel, case: str) -> None:
    rng = np.random.default_rng(3)
    causes: set[int] = set()
    values: set[int] = set()
    for hand in draw(model, case):
        causes |= check(model, hand.scene, hand.labels, rng)
        values |= set(np.unique(hand.labels["mask"]).tolist())
        if hand.second is not None and not any(np.any(thing.part == 253) for thing in hand.scene.things):
            check(model, as_seen_by_the_second(hand, hand.second), hand.second, rng)
    assert {0, 1, 2} <= values
    assert (3 in values) == (case in ("held", "front", "two holding"))
    assert (4 in values) == (case in ("hand", "two", "two holding"))
    assert {"held": 2, "front": 2, "hand": 3}.get(case, 1) in causes


def test_two_hands_are_two_rows_of_one_picture(model: HandModel) -> None:
    sides = []
    for hand in draw(model, "two", range(6)):
        first, second = hand.rows
        assert first["handedness"] != second["handedness"]
        sides.append(int(first["handedness"]))
        for name in ("camera", "split", "group", "shape", "depth"):
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        assert first["pose_id"] != second["pose_id"]
        mine, theirs = first["mask"], second["mask"]
        np.testing.assert_array_equal(mine == 4, (theirs == 1) | (theirs == 2))
        np.testing.assert_array_equal(theirs == 4, (mine == 1) | (mine == 2))
        np.testing.assert_array_equal(mine == 0, theirs == 0)
        for labels in hand.rows:
            pixels = labels["keypoints_2d"]
            np.testing.assert_array_equal(pixels, project(labels["camera"], labels["keypoints_3d"]))
            assert (pixels > -0.5).all() and (pixels < SIZE - 0.5).all()
            assert (labels["pose"] >= LIMITS[:, 0] - 1e-6).all() and (labels["pose"] <= LIMITS[:, 1] + 1e-6).all()
        assert not np.array_equal(first["pose"], second["pose"])
        # A left hand is a right one in a mirror: the same pose gives the same bones.
        expected = model.joints(first["shape"].astype(float), _pose(second))
        np.testing.assert_allclose(_lengths(second["keypoints_3d"]), _lengths(expected), atol=2e-5)
        turn = _procrustes(expected, second["keypoints_3d"])
        assert np.linalg.det(turn) == pytest.approx(-1 if second["handedness"] == 0 else 1, abs=1e-4)
    assert set(sides) == {0, 1}


def _pose(labels: dict[str, NDArray[Any]]) -> Any:
    from handaug.render.pose_prior import HandPose

    return HandPose(labels["pose"].astype(float))


def _lengths(joints: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.linalg.norm(joints[:, None] - joints, axis=-1))


def _procrustes(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """The orthogonal matrix, mirror allowed, that turns centred a into centred b."""
    u, _, vt = np.linalg.svd((b - b.mean(0)).T.astype(float) @ (a - a.mean(0)))
    return np.asarray(u @ vt)


@pytest.mark.parametrize("case", ["two", "hand"])
def test_hands_never_enter_each_other(model: HandModel, case: str) -> None:
    """Winding numbers: no point of one skin lies inside the other."""
    rng = np.random.default_rng(5)
    found = 0
    for hand in draw(model, case, range(10, 14)):
        if hand.scene.other is None:
            continue
        found += 1
        for mine, theirs, left in (
            (hand.scene.vertices, hand.scene.other.vertices, hand.scene.other.left),
            (hand.scene.other.vertices, hand.scene.vertices, hand.scene.left),
        ):
            quads = mirror_quads(model.quads) if left else model.quads
            triangles = theirs.astype(np.float64)[triangles_of(quads)]
            near = mine[np.argsort(np.linalg.norm(mine - theirs.mean(0), axis=1))[:1500]]
            points = np.concatenate([near[rng.integers(0, len(near), 15)], mine[rng.integers(0, len(mine), 10)]])
            assert np.abs(winding(points, triangles)).max() < 0.05
            inside = theirs[quads[model.face_segment == 1]].mean((0, 1))
            assert winding(inside[None], triangles)[0] == pytest.approx(1, abs=0.05)  # the measure works
    assert found >= 2


def test_the_other_hand_hides_a_share_of_the_joints(model: HandModel) -> None:
    hands = draw(model, "hand", range(8))
    with_other = [hand for hand in hands if hand.scene.other is not None]
    assert len(with_other) >= 4 and all(hand.second is None for hand in hands)
    hidden = [float((hand.labels["occlusion"] == 3).mean()) for hand in with_other]
    assert min(hidden) >= 0.05 and max(hidden) <= 0.5
    for hand in hands:
        factor = hand.labels["pose_factors"][POSE_FACTORS.index("occluder")]
        assert factor == (3 if hand.scene.other is not None else 0)


OPTIONS: dict[str, Any] = {
    "hands": "two",
    "size": 50,
    "pose_kinds": "fist",
    "camera": "close-up",
    "occluders": True,
    "clothing": "glove",
    "jewellery": "ring",
}


def test_ids_differ_by_every_option_that_changes_the_pose(model: HandModel) -> None:
    plain = RenderConfig(size=SIZE, seed=2)
    ids = [int(sample_hand(plain, model, 0).labels["pose_id"])]
    ids += [int(sample_hand(replace(plain, **{k: v}), model, 0).labels["pose_id"]) for k, v in OPTIONS.items()]
    ids += [int(sample_hand(replace(plain, occluders=True, occluder_kinds="held"), model, 0).labels["pose_id"])]
    ids += [int(sample_hand(replace(plain, seed=3), model, 0).labels["pose_id"])]
    assert len(set(ids)) == len(ids)
    same = replace(plain, depth=True, quality="high", environments="sky", poses=12, sensor="rough", channels="rgb")
    assert int(sample_hand(same, model, 0).labels["pose_id"]) == ids[0]


@pytest.mark.parametrize("option", [{"clothing": "glove"}, {"jewellery": "both"}, {"clothing": "sleeve"}])
def test_what_is_worn_leaves_pose_and_camera_alone(model: HandModel, option: dict[str, str]) -> None:
    for pose in range(2):
        bare = sample_hand(RenderConfig(size=SIZE), model, pose).labels
        worn = sample_hand(RenderConfig(size=SIZE, **option), model, pose).labels  # type: ignore[arg-type]
        for name in ("pose", "shape", "handedness"):
            np.testing.assert_array_equal(bare[name], worn[name])
        assert (bare["mask"] != worn["mask"]).any() or option != {"clothing": "glove"}


def test_choices_of_hands_are_named() -> None:
    with pytest.raises(InputError, match="--hands three: choose one of both, left, right, two"):
        RenderConfig(hands="three")
    assert RenderConfig(poses=10, hands="two").rows == 40 and RenderConfig(poses=10, hands="two").images == 20

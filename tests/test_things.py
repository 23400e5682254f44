"""Objects, grasps, gloves, sleeves, rings and watches: closed forms, sampled surfaces, winding numbers."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rays import see, winding
from scipy.spatial import ConvexHull, cKDTree

if find_spec("anny") is None:
    pytest.skip("the hand model needs anny", allow_module_level=True)

from handaug.data_specs.camera import centred_intrinsics, project
from handaug.render import posing
from handaug.render.clear_pose import sample_clear_pose
from handaug.render.config import RenderConfig
from handaug.render.grasp import HELD, HIDDEN, IN_FRONT, hold, put_in_front
from handaug.render.hand import SEGMENTS, HandModel, PosedHand
from handaug.render.labels import triangles_of
from handaug.render.penetration import SOFTNESS
from handaug.render.pose_prior import LIMITS, HandPose
from handaug.render.props import PROPS, Prop, ball, make_prop, rounded_box, turned
from handaug.render.scene import Thing
from handaug.render.viewpoint import place_hand
from handaug.render.wear import GLOVES, adorn, glove, ring, sleeve, watch


@pytest.fixture(scope="module")
def model() -> HandModel:
    return HandModel.load()


@pytest.fixture(scope="module")
def posed(model: HandModel) -> list[PosedHand]:
    rng = np.random.default_rng(1)
    return [model.pose(s := model.sample_shape(rng), sample_clear_pose(rng, model, s).pose) for _ in range(4)]


def assert_closed(quads: NDArray[Any]) -> None:
    """Each edge joins two faces that run it in opposite directions."""
    start, end = quads.astype(np.int64).ravel(), np.roll(quads, -1, 1).astype(np.int64).ravel()
    n = int(quads.max()) + 1
    np.testing.assert_array_equal(np.sort(start * n + end), np.sort(end * n + start))


def to_surface(points: NDArray[Any], triangles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of points (P, 3) to the nearest of triangles (T, 3, 3): plane where the foot lies inside, else edges."""
    out = []
    corners = np.moveaxis(triangles, 1, 0)
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    area = np.maximum((normal**2).sum(1), 1e-30)
    for point in points:
        inside = np.ones(len(triangles), bool)
        best = np.full(len(triangles), np.inf)
        for a, b in zip(corners, np.roll(corners, -1, 0), strict=True):
            along, off = b - a, point - a
            inside &= np.einsum("ti,ti->t", np.cross(along, off), normal) >= 0
            t = np.clip((off * along).sum(1) / np.maximum((along**2).sum(1), 1e-30), 0, 1)
            best = np.minimum(best, ((off - t[:, None] * along) ** 2).sum(1))
        height = np.einsum("ti,ti->t", point - corners[0], normal) ** 2 / area
        out.append(np.sqrt(np.where(inside, np.minimum(best, height), best).min()))
    return np.array(out)


# -- objects


def test_a_ball_and_a_box_have_their_distances() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 3)) * 0.05
    mesh = ball(0.03)
    round_one = Prop("ball", mesh[0], mesh[1], np.zeros((1, 3), np.float32), 0, 0, mesh[2], np.eye(3), np.zeros(3))
    # 16 chords to a half circle: off by at most r (1 - cos(pi / 32)).
    np.testing.assert_allclose(round_one.distance(points), np.linalg.norm(points, axis=1) - 0.03, atol=1.6e-4)
    half = np.array([0.02, 0.05, 0.01])
    mesh = rounded_box((0.02, 0.05, 0.01), 0.002)
    box = Prop("box", mesh[0], mesh[1], np.zeros((1, 3), np.float32), 0, 0, mesh[2], np.eye(3), np.zeros(3))
    face = np.array([[0.05, 0.01, 0.0], [0.0, -0.08, 0.003], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(box.distance(face), [0.03, 0.03, -0.01], atol=1e-12)
    corner = half - 0.002 + 0.01 / np.sqrt(3)
    np.testing.assert_allclose(box.distance(corner[None]), 0.01 - 0.002, atol=1e-12)
    assert np.ptp(mesh[0], axis=0) == pytest.approx(2 * half)


@pytest.mark.parametrize("kind", PROPS)
def test_objects_are_closed_and_know_their_distance(kind: str) -> None:
    """Against the nearest triangle of the mesh, and its winding number for the sign; after a rigid motion."""
    rng = np.random.default_rng(4)
    prop = make_prop(rng, kind)
    if kind != "box" and kind not in ("phone", "book", "card"):
        start, end = prop.quads.astype(np.int64).ravel(), np.roll(prop.quads, -1, 1).astype(np.int64).ravel()
        n = int(prop.quads.max()) + 1
        assert len(np.setdiff1d(start * n + end, end * n + start)) <= 2 * 28  # but for the pinholes at the poles
    else:
        assert_closed(prop.quads)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    prop = prop.moved(turn, np.array([0.1, -0.2, 0.3]))
    extent = np.ptp(prop.vertices @ turn, axis=0)
    assert 0.0015 < extent.min() and extent.max() < 0.33  # everyday things
    points = prop.vertices[rng.integers(0, len(prop.vertices), 40)] + rng.normal(0, 0.01, (40, 3))
    brute = to_surface(points, prop.vertices[triangles_of(prop.quads)])
    inside = winding(points, prop.vertices[triangles_of(prop.quads)]) > 0.5
    got = prop.distance(points)
    if kind == "cup":  # counts as full: its own points are never outside it
        assert prop.distance(prop.vertices).max() < 1e-3
        return
    clear = brute > 6e-4
    np.testing.assert_array_equal(got[clear] < 0, inside[clear])
    np.testing.assert_allclose(np.abs(got), brute, atol=6e-4)  # 28 facets for a circle
    assert prop.paint.shape == (len(prop.quads), 3) and 0 < prop.paint.min() and prop.paint.max() <= 0.9


def test_a_turned_profile_has_its_volume() -> None:
    """A cylinder: pi r^2 h, less what 28 facets cut off."""
    vertices, quads, _ = turned([(0, -0.05), (0.02, -0.05), (0.02, 0.05), (0, 0.05)])
    a, b, c = np.moveaxis(vertices[triangles_of(quads)], 1, 0)
    volume = float(np.einsum("ti,ti->", a, np.cross(b, c)) / 6)
    polygon = 14 * np.sin(2 * np.pi / 28) * 0.02**2
    assert volume == pytest.approx(polygon * 0.1, rel=0.01)


# -- grasps


def test_grips_touch_and_do_not_enter(model: HandModel) -> None:
    """Skin that gives way by `SOFTNESS` and a part of a step; at least three fingers at what is wrapped."""
    rng = np.random.default_rng(7)
    shape = model.sample_shape(rng)
    rest = model.rest(shape)
    wrist = HandPose.from_degrees(wrist_flexion=10)
    kinds = []
    for kind in HELD:
        for _ in range(3):
            grip = hold(rng, model, rest, wrist, {kind: 1.0})
            if grip is not None:
                break
        assert grip is not None, kind
        assert grip.prop.kind == kind
        kinds.append(kind)
        assert (grip.pose.angles >= LIMITS[:, 0]).all() and (grip.pose.angles <= LIMITS[:, 1]).all()
        assert grip.pose["wrist_flexion"] == pytest.approx(wrist["wrist_flexion"])
        skin = model.pose(rest, grip.pose)
        owner = model.vertex_segment
        near = grip.prop.distance(skin.vertices)
        assert near.min() > -3 * SOFTNESS
        if kind in ("pen", "card"):
            thumb, index = (near[(owner >= 2 + 3 * f) & (owner < 5 + 3 * f)].min() for f in (0, 1))
            assert thumb < 0.003 and index < 0.003
            continue
        fingers = [near[(owner >= 2 + 3 * f) & (owner < 5 + 3 * f)].min() for f in range(5)]
        assert sum(d < 0.001 for d in fingers) >= 3
    assert kinds == list(HELD) and set(HELD) | set(IN_FRONT) <= set(PROPS)


def test_things_in_front_stand_there_and_hide_a_share(model: HandModel) -> None:
    rng = np.random.default_rng(9)
    camera = centred_intrinsics(90.0, 64, 64)
    joints = rng.uniform((-0.08, -0.08, 0.48), (0.08, 0.08, 0.55), (21, 3))
    skin = joints - [0, 0, 0.01]
    hidden = []
    for _ in range(20):
        prop = put_in_front(rng, joints, camera, skin)
        if prop is None:
            continue
        assert prop.vertices[:, 2].max() < skin[:, 2].min() and prop.vertices[:, 2].min() > 0.1
        # Brute force: a joint is hidden when a point of its line of sight lies in the object (a cup: in its hull).
        steps = joints[:, None] * np.linspace(0.2, 0.95, 600)[:, None]
        distance = prop.distance(steps.reshape(-1, 3)).reshape(21, 600)
        hidden.append(float((distance.min(1) < 0).mean()))
        corner = project(camera, prop.vertices.astype(np.float32))[prop.quads]
        along = corner[:, :1] + np.linspace(0, 1, 41)[:, None] * (corner[:, 2:3] - corner[:, :1])  # a rod may cross
        assert ((along > 0) & (along < 63)).all(-1).any()
    assert len(hidden) == 20
    assert np.mean(hidden) == pytest.approx(np.mean([*HIDDEN]), abs=0.2)
    assert max(hidden) < HIDDEN[1] + 0.1 and np.mean(np.array(hidden) > 0) > 0.9


def test_something_comes_in_front_of_nearly_every_hand(model: HandModel) -> None:
    """Also where the arm comes nearer to the camera than its hand, or passes beside it: there nothing fits before all
    of the skin, and what stands next to the arm keeps off it."""
    rng = np.random.default_rng(12)
    tried, found, behind, hidden = 60, 0, 0, []
    for _ in range(tried):
        hand = model.pose(model.sample_shape(rng), HandPose.from_degrees(wrist_flexion=float(rng.uniform(-40, 40))))
        rotation, translation, camera = place_hand(rng, hand, 64)
        skin, joints = (points @ rotation.T + translation for points in (hand.vertices, hand.joints))
        prop = put_in_front(rng, joints, camera, skin)
        if prop is None:
            continue
        found += 1
        behind += bool(prop.vertices[:, 2].max() > skin[:, 2].min())
        assert prop.vertices[:, 2].max() < joints[:, 2].min() and prop.distance(skin).min() > 0
        pixels = project(camera, joints.astype(np.float32))
        outline = ConvexHull(project(camera, prop.vertices.astype(np.float32)).astype(float)).equations
        hidden.append(float((pixels @ outline[:, :2].T + outline[:, 2] < 0).all(1).mean()))
    assert found >= 0.97 * tried and behind >= 5
    assert HIDDEN[0] <= min(hidden) and max(hidden) <= HIDDEN[1] and 0.24 < np.mean(hidden) < 0.36


# -- what is worn


@pytest.mark.parametrize("kind", GLOVES)
def test_gloves_lie_on_the_skin_and_carry_its_labels(
    kind: str, model: HandModel, posed: list[PosedHand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handaug.render.wear.GLOVES", (kind,))
    rng = np.random.default_rng(2)
    for hand in posed[:2]:
        worn = glove(rng, model, hand)
        part, mask = np.broadcast_to(worn.part, len(worn.quads)), np.broadcast_to(worn.mask, len(worn.quads))
        np.testing.assert_array_equal(mask, np.where(part == 0, 2, 1))
        skin = hand.vertices[model.quads].mean(1)
        centre = worn.vertices[worn.quads].mean(1)
        away, nearest = cKDTree(skin).query(centre)
        assert away.max() < 0.02 and np.median(away) < 0.0025
        # The skin beneath a face lies near and looks the same way; a finger that touches it looks another, as do hems.
        alike = (_facing(worn.vertices, worn.quads) * _facing(hand.vertices, model.quads)[nearest]).sum(1) > 0.9
        assert alike.mean() > 0.8 and (part == model.face_segment[nearest])[alike].mean() > 0.97
        covered = set(part.tolist())
        tips = {SEGMENTS.index(f"{finger}_3") for finger in ("thumb", "index", "little")}
        assert covered >= {1} and (tips <= covered) == (kind != "fingerless")
        assert worn.paint.shape == (len(worn.quads), 3)
        # The skin of the hand lies within: where the glove is closed but for its cuff, winding numbers are near 1.
        if kind != "fingerless":
            inner = hand.vertices[np.unique(model.quads[np.isin(model.face_segment, list(range(5, 17)))])]
            some = inner[rng.integers(0, len(inner), 12)]
            assert np.median(winding(some, worn.vertices.astype(float)[triangles_of(worn.quads)])) > 0.6


@pytest.mark.parametrize("kind", ["knitted", "rubber", "fingerless"])
def test_hems_of_gloves_run_straight(kind: str, model: HandModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the flat hand: cuffs straight across the arm, fingerless ones straight across each finger too, at its PIP."""
    monkeypatch.setattr("handaug.render.wear.GLOVES", (kind,))
    flat = model.pose(model.mean_shape, HandPose(np.zeros(24)))
    for seed in range(5):
        worn = glove(np.random.default_rng(seed), model, flat)
        start, end = worn.quads.astype(np.int64), np.roll(worn.quads, -1, 1).astype(np.int64)
        loose = ~np.isin(start * 10**6 + end, end * 10**6 + start)
        rim = worn.vertices[np.unique(start[loose])]  # the turned-in edge, next to the hem
        cuff = rim[rim[:, 1] < 0.01]
        assert len(cuff) > 20 and np.ptp(cuff[:, 1]) < 0.002  # the skin there slopes, and the hem with it
        ends = rim[rim[:, 1] >= 0.01]
        assert (len(ends) > 0) == (kind == "fingerless")
        if not len(ends):
            continue
        for finger in range(5):
            joint, beyond = flat.joints[[4 * finger + 2, 4 * finger + 3]].astype(float)
            mine = ends[np.linalg.norm(ends - joint, axis=1) < 0.014]
            assert len(mine) > 8
            assert np.abs((mine - joint) @ (beyond - joint) / np.linalg.norm(beyond - joint)).max() < 0.0035


@pytest.mark.parametrize(("kind", "stripes"), [("coated", False), ("knitted", True)])
def test_second_colours_lie_where_they_were_laid_out(
    kind: str, stripes: bool, model: HandModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coat on the palm's side; stripes of one width along the flat hand."""
    monkeypatch.setattr("handaug.render.wear.GLOVES", (kind,))
    flat = model.pose(model.mean_shape, HandPose(np.zeros(24)))
    worn = [glove(np.random.default_rng(seed), model, flat) for seed in range(20)]
    coats = [(thing, thing.coat) for thing in worn if thing.coat is not None]
    assert 0 < len(coats) < 20 if stripes else len(coats) == 20
    for thing, coat in coats:
        assert coat.within.shape == (len(thing.vertices),) and (coat.colour > 0).all()
        if stripes:
            assert 0.012 <= coat.width <= 0.025
            np.testing.assert_allclose(np.ptp(coat.within - thing.vertices[:, 1]), 0, atol=0.004)
            continue
        assert coat.width > 0.5  # never again
        facing = _facing(thing.vertices, thing.quads)[:, 2]
        inside = coat.within[thing.quads].mean(1) > 0
        clear = np.abs(facing) > 0.5
        assert (inside == (facing > 0))[clear].mean() > 0.97


def _facing(vertices: NDArray[Any], quads: NDArray[Any]) -> NDArray[np.float64]:
    """(F, 3) unit normals."""
    corner = vertices[quads].astype(np.float64)
    out = np.cross(corner[:, 2] - corner[:, 0], corner[:, 3] - corner[:, 1])
    return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-15))


def radial(thing: Thing, root: NDArray[Any], axis: NDArray[Any], points: NDArray[Any]) -> NDArray[np.float64]:
    """How far outside of a tube points lie, in shares of its radius in their direction (negative: inside)."""
    u = np.linalg.svd(axis[None])[2][1:]
    own, other = (thing.vertices - root) @ u.T, (points - root) @ u.T
    along, place = (thing.vertices - root) @ axis, (points - root) @ axis
    scale = np.array([0.004, 0.004, 0.02])
    key = np.stack([*(own / np.linalg.norm(own, axis=1, keepdims=True)).T * scale[0] * 8, along], 1)
    ask = np.stack([*(other / np.linalg.norm(other, axis=1, keepdims=True)).T * scale[0] * 8, place], 1)
    nearest = cKDTree(key).query(ask)[1]
    return np.asarray(np.linalg.norm(other, axis=1) / np.linalg.norm(own[nearest], axis=1) - 1)


def test_a_sleeve_goes_round_the_forearm(model: HandModel, posed: list[PosedHand]) -> None:
    for k, hand in enumerate(posed):
        worn = sleeve(np.random.default_rng(k), model, hand)
        axis = (hand.elbow - hand.joints[0]) / np.linalg.norm(hand.elbow - hand.joints[0])
        place = (worn.vertices - hand.joints[0]) @ axis
        assert place.min() > 0 and place.max() > 0.15 and worn.mask == 2 and worn.part == 0
        skin = hand.vertices[np.unique(model.quads[model.face_segment == 0])]
        covered = skin[((at := (skin - hand.joints[0]) @ axis) > place.min() + 0.01) & (at < place.max() - 0.02)]
        root = hand.joints[0] + axis * 0.1
        centre = (worn.vertices - np.outer((worn.vertices - root) @ axis, axis)).mean(0)
        assert (radial(worn, centre, axis, covered) < 0.02).mean() > 0.93


def farthest_out(worn: Thing, points: NDArray[Any]) -> float:
    """How far the farthest of the points lies outside of a sleeve: along rays from the middle of its nearest ring."""
    middles = worn.vertices.reshape(-1, 40, 3).mean(1).astype(float)
    triangles = worn.vertices[triangles_of(worn.quads)].astype(float)
    out = []
    for point in points:
        middle = middles[np.linalg.norm(middles - point, axis=1).argmin()]
        share, _ = see((point - middle)[None], triangles - middle)
        out.append((1 - share[0]) * np.linalg.norm(point - middle))
    return float(max(out))


def test_a_sleeve_goes_over_the_glove(model: HandModel, posed: list[PosedHand]) -> None:
    """The hand, sleeve and glove of which one came through the other, by 0.4 mm; one that ends before the sleeve
    begins leaves it as it is on the bare arm."""
    hand, met = posed[0], set()
    for seed in (0, 1, 6, 23):
        bare = sleeve(np.random.default_rng(seed), model, hand)
        worn = glove(np.random.default_rng(1000 + seed), model, hand)
        over = sleeve(np.random.default_rng(seed), model, hand, [worn])
        axis = (hand.elbow - hand.joints[0]) / np.linalg.norm(hand.elbow - hand.joints[0])
        arm = worn.vertices[np.unique(worn.quads[worn.mask == 2])]
        begin = ((bare.vertices - hand.joints[0]) @ axis).min()
        covered = arm[(arm - hand.joints[0]) @ axis > begin + 0.003]
        met.add(len(covered) > 0)
        if not len(covered):
            np.testing.assert_array_equal(over.vertices, bare.vertices)
            continue
        assert seed not in (0, 23) or farthest_out(bare, covered) > 1e-4
        assert farthest_out(over, covered) < -0.001
    assert met == {False, True}


def test_a_drawn_hand_that_wears_both_has_its_sleeve_over_its_glove(
    model: HandModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    beneath: list[Thing] = []

    def over(*given: Any) -> Thing:
        beneath.extend(given[3])
        return sleeve(*given)

    monkeypatch.setattr(posing, "sleeve", over)
    drawn = posing.sample_hand(RenderConfig(clothing="both", seed=4), model, 21)
    assert [len(thing.quads) for thing in beneath] == [len(drawn.scene.things[-1].quads)], "the glove that it wears"


def test_rings_and_watches_sit_where_they_are_worn(model: HandModel, posed: list[PosedHand]) -> None:
    fingers = set()
    for k in range(12):
        hand = posed[k % len(posed)]
        band = ring(np.random.default_rng(k), model, hand)
        segment = int(np.asarray(band.part))
        finger = (segment - 2) // 3
        fingers.add(finger)
        assert SEGMENTS[segment].endswith("_1") and finger > 0 and band.mask == 1 and band.metallic == 1
        root, end = hand.joints[4 * finger + 1], hand.joints[4 * finger + 2]
        share = (band.vertices.mean(0) - root) @ (end - root) / ((end - root) ** 2).sum()
        assert 0.45 < share < 0.8
        assert np.ptp(band.vertices, axis=0).max() < 0.035
    assert len(fingers) >= 3
    for k, hand in enumerate(posed):
        strap, case = watch(np.random.default_rng(k), model, hand)
        axis = (hand.elbow - hand.joints[0]) / np.linalg.norm(hand.elbow - hand.joints[0])
        at = (case.vertices.mean(0) - hand.joints[0]) @ axis
        assert 0.02 < at < 0.06 and strap.mask == case.mask == 2
        # The case lies on the back: -z of the hand's frame, beyond the strap's middle.
        assert case.vertices[:, 2].mean() < strap.vertices[:, 2].mean() - 0.01


def test_jewellery_gives_way_to_clothes(model: HandModel, posed: list[PosedHand]) -> None:
    """No ring with a glove, no watch where cloth lies; what is said to be worn is worn, as it was without clothes."""
    seen = set()
    for k in range(24):
        hand = posed[k % len(posed)]
        said, bare = adorn(np.random.default_rng(k), model, hand, "both", [])
        assert said == "both" and len(bare) == 3
        axis = (hand.elbow - hand.joints[0]) / np.linalg.norm(hand.elbow - hand.joints[0])
        low, high = np.quantile(
            (np.concatenate([thing.vertices for thing in bare[1:]]) - hand.joints[0]) @ axis, (0, 1)
        )
        held = Thing(hand.vertices, model.quads, np.zeros((1, 3), np.float32), 0.5, 0.0, 254, 3)
        dressed = (("sleeve", [sleeve]), ("glove", [glove]), ("two", [sleeve, glove]))
        for name, garments in dressed:
            rng = np.random.default_rng(k)
            clothes = [make(rng, model, hand) for make in garments]
            said, worn = adorn(np.random.default_rng(k), model, hand, "both", [held, *clothes])
            covered = False
            for thing in clothes:
                arm = thing.vertices[np.unique(thing.quads[np.broadcast_to(thing.mask == 2, len(thing.quads))])]
                place = (arm - hand.joints[0]) @ axis
                covered |= bool(((place > low) & (place < high)).any())
            ringed, timed = name == "sleeve", said in ("watch", "both")
            assert said in (("ring", "both") if ringed else ("none", "watch")) and not (covered and timed)
            assert [thing.part for thing in worn] == [thing.part for thing in bare[not ringed : None if timed else 1]]
            for one, other in zip(worn, bare[not ringed :], strict=False):
                np.testing.assert_array_equal(one.vertices, other.vertices)
            seen.add((name, timed))
        assert adorn(np.random.default_rng(k), model, hand, "ring", [glove(rng, model, hand)]) == ("none", [])
        assert adorn(np.random.default_rng(k), model, hand, "none", []) == ("none", [])
    assert seen >= {(name, timed) for name in ("sleeve", "glove") for timed in (False, True)}


def test_things_move_and_mirror(model: HandModel, posed: list[PosedHand]) -> None:
    band = watch(np.random.default_rng(0), model, posed[0])[1]
    flip = np.diag([-1.0, 1, 1])
    there = band.moved(flip, np.zeros(3))
    assert_volume = [_volume(thing.vertices, thing.quads) for thing in (band, there)]
    assert assert_volume[0] == pytest.approx(assert_volume[1], rel=1e-4) and assert_volume[0] > 0
    np.testing.assert_array_equal(there.moved(flip, np.zeros(3)).vertices, band.vertices)


def _volume(vertices: NDArray[Any], quads: NDArray[Any]) -> float:
    """Signed; of an open thing about its own middle."""
    a, b, c = np.moveaxis((vertices - vertices.mean(0)).astype(float)[triangles_of(quads)], 1, 0)
    return float(np.einsum("ti,ti->", a, np.cross(b, c)) / 6)


def test_a_hand_that_holds_something_has_no_kind_of_pose(model: HandModel) -> None:
    config = RenderConfig(occluders=True, occluder_kinds="held", pose_kinds="open", seed=4)
    for pose in range(4):
        drawn = posing.sample_hand(config, model, pose)
        known = dict(zip(posing.POSE_FACTORS, drawn.rows[0]["pose_factors"].tolist(), strict=True))
        assert (known["pose_kind"] == -1) == (known["object"] >= 0)

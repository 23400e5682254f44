"""Camera placement: fill, centring, coverage of directions, determinism."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("anny") is None:
    pytest.skip("the hand model needs anny", allow_module_level=True)

from handaug.data_specs.camera import project
from handaug.data_specs.joints import FINGERS
from handaug.render.hand import HandModel, PosedHand
from handaug.render.pose_prior import HandPose, sample_pose
from handaug.render.viewpoint import ARM_TILT, CAMERAS, FIELD_OF_VIEW, FILL, place_hand, to_camera

N = 250
LEFT = np.array([-1, 1, 1], np.float32)


def test_frames_are_filled_and_directions_cover_the_sphere() -> None:
    model = HandModel.load()
    rng = np.random.default_rng(0)
    fill, fov, eye, tilt, offset = [], [], [], [], []
    for _ in range(N):
        posed = model.pose(model.mean_shape, sample_pose(rng))
        rotation, translation, camera = place_hand(rng, posed, 64)
        assert np.allclose(rotation @ rotation.T, np.eye(3)) and np.linalg.det(rotation) == pytest.approx(1)
        joints = to_camera(posed.joints, rotation, translation)
        pixel = project(camera, joints)
        assert (pixel > -0.5).all() and (pixel < 63.5).all()  # no joint leaves the frame
        # The skin lies 8 mm beyond the outer joints, at their own depth.
        reach = 0.008 * camera[0, 0] / joints[:, 2:]
        low, high = (pixel - reach).min(0), (pixel + reach).max(0)
        fill.append((high - low).max() / 64)
        offset.append((low + high) / 2 - 31.5)
        fov.append(np.degrees(2 * np.arctan(32 / camera[0, 0])))
        at = -rotation.T @ translation
        eye.append(at / np.linalg.norm(at))
        arm = rotation @ (posed.elbow - posed.joints[9])
        tilt.append(np.degrees(np.arctan2(arm[0], arm[1])))
        assert np.linalg.norm(to_camera(posed.vertices, rotation, translation), axis=1).min() > 0.119
    assert min(fill) > FILL[0] - 0.01 and max(fill) < FILL[1] + 0.01
    assert np.ptp(fill) > 0.25
    assert min(fov) > FIELD_OF_VIEW[0] - 0.01 and max(fov) < FIELD_OF_VIEW[1] + 0.01
    eyes = np.array(eye)
    for axis, least in ((0, 0.35), (1, 0.2), (2, 0.35)):  # from the elbow's side (y < 0) less, where the arm hides it
        assert (eyes[:, axis] > 0).mean() > 0.35 and (eyes[:, axis] < 0).mean() > least
    assert (eyes[:, 2] > 0.7).mean() > 0.08 and (eyes[:, 2] < -0.7).mean() > 0.08  # palm and back
    # the arm comes from below, leaning evenly to both sides up to the limit
    assert np.abs(tilt).max() < ARM_TILT + 1e-6
    assert np.histogram(tilt, 4, (-ARM_TILT, ARM_TILT))[0].min() > 0.15 * N
    assert np.abs(np.mean(offset, 0)).max() < 1.0 and np.std(offset) > 2


def test_left_hands_other_shapes_and_determinism() -> None:
    model = HandModel.load()
    right = model.pose(model.sample_shape(np.random.default_rng(3)), sample_pose(np.random.default_rng(3)))
    posed = PosedHand(right.vertices * LEFT, right.joints * LEFT, right.elbow * LEFT)
    first = place_hand(np.random.default_rng(4), posed, (48, 96))
    second = place_hand(np.random.default_rng(4), posed, (48, 96))
    for a, b in ((first[0], second[0]), (first[1], second[1]), (first[2], second[2])):
        assert np.array_equal(np.asarray(a), np.asarray(b))
    rotation, translation, camera = first
    pixel = project(camera, to_camera(posed.joints, rotation, translation))
    assert (pixel > -0.5).all() and (pixel < [95.5, 47.5]).all()
    assert camera[0, 2] == 47.5 and camera[1, 2] == 23.5 and camera.dtype == np.float32


def test_a_small_hand_before_a_wide_lens_gets_a_longer_one() -> None:
    """A child's fist would have to stand 5 cm before a lens of 60 degrees to fill the frame."""
    model = HandModel.load()
    curled = {f"{finger}_{part}_flexion": 80.0 for finger in FINGERS if finger != "thumb" for part in ("mcp", "pip")}
    posed = model.pose(model.mean_shape, HandPose.from_degrees(**curled))
    small = replace(posed, vertices=posed.vertices * 0.5, joints=posed.joints * 0.5, elbow=posed.elbow * 0.5)
    wide = replace(CAMERAS["close-up"], field_of_view=(59.0, 60.0))
    for seed in range(10):
        rotation, translation, camera = place_hand(np.random.default_rng(seed), small, 64, wide)
        assert np.linalg.norm(to_camera(small.vertices, rotation, translation), axis=1).min() > 0.119
        assert 10 < np.degrees(2 * np.arctan(32 / camera[0, 0])) < 60

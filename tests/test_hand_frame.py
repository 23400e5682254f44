"""Canonical pose, viewpoint and 3DPose: closed form, an independent composition of rotations, motions, round trips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handaug.data_specs.camera import flip_points_3d
from handaug.data_specs.errors import InputError
from handaug.models.hand_frame import hand_frame, hand_points, nearest_rotation, rotation_angle, with_root


def hands(seed: int = 0, count: int = 6) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Random points, with no degenerate frame among them."""
    rng = np.random.default_rng(seed)
    return rng.normal((0, 0, 0.5), 0.04, (count, 21, 3)), rng.integers(0, 2, count)


def test_the_canonical_frame_is_where_it_is_defined_to_be() -> None:
    points, side = hands()
    frame = hand_frame(points, side)
    assert frame.usable.all()
    assert np.allclose(frame.cpose[:, 0], 0)
    assert np.allclose(frame.cpose[:, 9, [0, 2]], 0) and (frame.cpose[:, 9, 1] < 0).all()
    assert np.allclose(frame.cpose[:, 17, 2], 0) and (frame.cpose[:, 17, 0] > 0).all()
    assert np.allclose(np.linalg.norm(frame.cpose[:, 10] - frame.cpose[:, 9], axis=-1), 1)
    assert np.allclose(frame.scale, np.linalg.norm(points[:, 10] - points[:, 9], axis=-1))
    assert np.allclose(np.linalg.det(frame.viewpoint), 1)
    assert np.allclose(np.einsum("nij,nkj->nik", frame.viewpoint, frame.viewpoint), np.eye(3))


def test_three_elementary_rotations_give_the_same_pose() -> None:
    """The way Zimmermann & Brox go: turn about z, then x, to bring middle mcp onto -y; then about y for little mcp."""
    points, side = hands(1)
    frame = hand_frame(points, side)
    for row, w in enumerate(points):
        p = (w - w[0]) / np.linalg.norm(w[10] - w[9])
        p = p @ Rotation.from_euler("z", np.arctan2(p[9, 0], p[9, 1])).as_matrix().T  # x of middle mcp becomes 0
        p = p @ Rotation.from_euler("x", np.pi - np.arctan2(p[9, 2], p[9, 1])).as_matrix().T  # z too, y negative
        p = p @ Rotation.from_euler("y", np.arctan2(p[17, 2], p[17, 0])).as_matrix().T  # little mcp: z 0, x positive
        p[:, 2] *= -1 if side[row] else 1
        assert np.allclose(p, frame.cpose[row], atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["wrist", "palm"]))
def test_round_trip(seed: int, root: str) -> None:
    points, side = hands(seed, 4)
    frame = hand_frame(points, side, root)
    ok = frame.usable
    back = hand_points(frame.cpose, frame.viewpoint, side, frame.scale, frame.root)
    assert np.allclose(back[ok], with_root(points, root)[ok], atol=1e-9)
    assert np.allclose(hand_points(frame.cpose, frame.viewpoint, side)[ok], frame.pose3d[ok], atol=1e-7)


def test_motions_of_the_picture_in_closed_form() -> None:
    points, side = hands(2)
    frame = hand_frame(points, side)
    mirrored = hand_frame(flip_points_3d(points), 1 - side)
    mirror, flip = np.diag([-1.0, 1, 1]), np.diag([1.0, 1, -1])
    assert np.allclose(mirrored.cpose, frame.cpose)
    assert np.allclose(mirrored.viewpoint, mirror @ frame.viewpoint @ flip)
    turn = Rotation.from_euler("z", 40, degrees=True).as_matrix()
    turned = hand_frame(points @ turn.T, side)
    assert np.allclose(turned.cpose, frame.cpose)
    assert np.allclose(turned.viewpoint, turn @ frame.viewpoint)
    assert np.allclose(rotation_angle(turned.viewpoint, frame.viewpoint), 40)


def test_flexed_fingers_of_either_side_bend_the_same_way() -> None:
    """The sign of the flip: flexed fingertips have z < 0 on left hands, and on right ones after the flip."""
    flat = np.zeros((1, 21, 3))
    for finger in range(5):
        for joint in range(4):
            # A left hand in the canonical frame itself: fingers towards -y, thumb at -x, little finger at +x.
            flat[0, 1 + 4 * finger + joint] = (finger - 2.0, -3.0 - joint, 0)
    flat[0, [4, 8, 12, 16, 20], 2] = -1.0
    left = hand_frame(flat, np.array([0]))
    right = hand_frame(flip_points_3d(flat), np.array([1]))
    assert (left.cpose[0, [4, 8, 12, 16, 20], 2] < 0).all()
    assert np.allclose(right.cpose, left.cpose)


def test_hands_without_a_frame_are_not_usable() -> None:
    points, side = hands(3)
    points[0, 5, 1] = np.nan
    points[1, 17] = points[1, 0] + 2 * (points[1, 9] - points[1, 0])  # little mcp in line with middle mcp
    points[2, 10] = points[2, 9]  # no scale
    frame = hand_frame(points, side)
    assert frame.usable.tolist() == [False, False, False, True, True, True]
    for part in (frame.cpose, frame.viewpoint, frame.pose3d, frame.scale, frame.root):
        assert np.isfinite(part).all()
    with pytest.raises(InputError, match="root elbow: choose one of wrist, palm"):
        hand_frame(points, side, "elbow")


def test_the_palm_is_the_midpoint_of_wrist_and_middle_mcp() -> None:
    points, side = hands(4)
    frame = hand_frame(points, side, "palm")
    assert np.allclose(frame.root, (points[:, 0] + points[:, 9]) / 2)
    assert np.allclose(frame.pose3d[:, 9] * frame.scale[:, None], (points[:, 9] - points[:, 0]) / 2)


def test_nearest_rotation_is_proper_and_leaves_rotations_alone() -> None:
    rotations = Rotation.random(5, random_state=0).as_matrix()
    assert np.allclose(nearest_rotation(3.0 * rotations), rotations)
    noisy = rotations + np.random.default_rng(0).normal(0, 0.1, rotations.shape)
    assert np.allclose(nearest_rotation(noisy), Rotation.from_matrix(noisy).as_matrix(), atol=1e-9)
    mirrored = nearest_rotation(rotations @ np.diag([1.0, 1, -1]))
    assert np.allclose(np.linalg.det(mirrored), 1)
    broken = nearest_rotation(np.stack([rotations[0], np.full((3, 3), np.inf)]))
    assert np.allclose(broken[0], rotations[0]) and np.isnan(broken[1]).all()

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from handaug.data_specs.camera import (
    centred_intrinsics,
    flip_camera,
    flip_keypoints_2d,
    flip_points_3d,
    inside_image,
    project,
)


@given(st.integers(0, 2**32 - 1), st.integers(16, 512), st.integers(16, 512))
def test_projection_agrees_with_opencv(seed: int, width: int, height: int) -> None:
    rng = np.random.default_rng(seed)
    camera = centred_intrinsics(float(rng.uniform(20, 900)), width, height)
    camera[:2, 2] += rng.uniform(-5, 5, 2).astype(np.float32)
    points = rng.uniform((-0.2, -0.2, 0.3), (0.2, 0.2, 2), (21, 3))
    theirs = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.astype(float), np.zeros(5))[0][:, 0]
    assert np.abs(project(camera, points) - theirs).max() < 2e-3


def test_centre_and_image_border() -> None:
    camera = centred_intrinsics(50, 64, 32)
    assert project(camera, np.array([[0.0, 0.0, 1.0]])).tolist() == [[31.5, 15.5]]
    points = np.array([[-0.5, 0], [63.49, 31.49], [63.5, 0], [0, -0.6], [np.nan, 1]])
    assert inside_image(points, 64, 32).tolist() == [True, True, False, False, False]


def test_points_behind_the_camera_do_not_project() -> None:
    assert np.isnan(project(centred_intrinsics(50, 64, 64), np.array([[0.1, 0.1, -1.0], [0.1, 0.1, 0.0]]))).all()


@given(st.integers(0, 2**32 - 1), st.integers(2, 300))
def test_flip_commutes_with_projection_and_undoes_itself(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    camera = centred_intrinsics(100, width, 64)
    camera[0, 2] += np.float32(rng.uniform(-9, 9))
    camera[0, 1] = np.float32(rng.uniform(-3, 3))
    points = rng.uniform((-0.2, -0.2, 0.5), (0.2, 0.2, 1), (21, 3))
    pixels = project(camera, points)
    assert np.allclose(
        project(flip_camera(camera, width), flip_points_3d(points)), flip_keypoints_2d(pixels, width), atol=1e-3
    )
    assert np.allclose(flip_keypoints_2d(flip_keypoints_2d(pixels, width), width), pixels, atol=1e-3)
    assert np.allclose(flip_camera(flip_camera(camera, width), width), camera, atol=1e-4)
    assert np.array_equal(flip_points_3d(flip_points_3d(points)), points)


def test_flip_moves_keypoints_with_their_pixels() -> None:
    image = np.zeros((8, 11), np.uint8)
    image[5, 2] = 255
    flipped = image[:, ::-1]
    x, y = flip_keypoints_2d(np.array([2.0, 5.0]), 11)
    assert flipped[int(y), int(x)] == 255

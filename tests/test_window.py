"""Where a scene is seen. That Blender sees nothing outside is a test of tests/test_render.py."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handaug.render.pose_prior import HandPose
from handaug.render.scene import HandScene, OtherHand, Thing
from handaug.render.window import Window, window_of

FLAT = HandPose.from_degrees()


def scene_of(points: list[tuple[float, float, float]], size: int = 40) -> HandScene:
    """Points before a camera of focal length 40, its principal point in the middle."""
    camera = np.array([[40, 0, 19.5], [0, 40, 19.5], [0, 0, 1]], np.float32)
    return HandScene(np.array(points, np.float32), camera, size, False, FLAT, (0, 0, 1))


def thing(points: list[tuple[float, float, float]]) -> Thing:
    quads, paint = np.zeros((0, 4), np.int32), np.zeros((0, 3), np.float32)
    return Thing(np.array(points, np.float32), quads, paint, 1.0, 0.0, 0, 1)


def test_a_window_reaches_three_pixels_around_what_is_seen_and_not_beyond_the_picture() -> None:
    # x = 0.1 m at 1 m is column 23.5, y = -0.2 is row 11.5.
    assert window_of(scene_of([(0.1, -0.2, 1)])) == Window(8, 16, 20, 28, 40)
    assert window_of(scene_of([(-2, 0, 1), (2, 0, 1)])) == Window(16, 24, 0, 40, 40)


def test_things_widen_the_window_and_a_surface_takes_it_all() -> None:
    scene = scene_of([(0.1, -0.2, 1)])
    assert window_of(replace(scene, things=(thing([(0.1, 0.2, 1)]),))) == Window(8, 32, 20, 28, 40)
    other = OtherHand(np.array([(0.1, 0.2, 1)], np.float32), True, FLAT)
    assert window_of(replace(scene, other=other)) == Window(8, 32, 20, 28, 40)
    assert window_of(replace(scene, surface=thing([(0.1, 0.2, 1)]))) == Window.whole(40)


@pytest.mark.parametrize("points", [[(9, 0, 1)], [(0, -9, 1)], [(0, 0, 1), (0.1, 0.1, 0)], [(0, 0, 1), (0.1, 0, -1)]])
def test_what_is_out_of_sight_or_reaches_behind_the_camera_takes_the_whole_picture(
    points: list[tuple[float, float, float]],
) -> None:
    assert window_of(scene_of(points)) == Window.whole(40)


@given(st.integers(0, 5), st.integers(1, 5), st.integers(0, 5), st.integers(1, 5))
def test_pasting_is_the_inverse_of_cutting(top: int, height: int, left: int, width: int) -> None:
    window = Window(top, top + height, left, left + width, 10)
    picture = np.arange(1, 301, dtype=np.float32).reshape(10, 10, 3)
    again = window.paste(window.cut(picture))
    np.testing.assert_array_equal(window.cut(again), window.cut(picture))
    assert np.count_nonzero(again) == height * width * 3

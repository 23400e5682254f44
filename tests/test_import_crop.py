"""Labels and intrinsics follow the crop exactly: dots drawn in the source are found under the keypoints stored."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts.hands import RIGHT, intrinsics, make_hand, pinhole
from numpy.typing import NDArray

from handaug.data_specs.camera import flip_camera, flip_keypoints_2d, flip_points_3d, project
from handaug.data_specs.importers.crop import Row, cut_hand
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import Hand, all_visible


def hand_of(pixels: NDArray[Any] | None = None, **more: Any) -> Hand:
    return Hand(
        "a.png", lambda: np.empty((0, 0), np.uint8), "a", "a", RIGHT, all_visible(), keypoints_2d=pixels, **more
    )


def blobs(pixels: NDArray[Any], size: tuple[int, int], sigma: float) -> NDArray[np.uint8]:
    """A smooth bright dot at each subpixel place; pixel (i, j) shows the dot's value at its centre."""
    y, x = np.mgrid[: size[1], : size[0]].astype(float)
    light = sum(np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2)) for u, v in pixels)
    return np.repeat(np.clip(250 * np.asarray(light), 0, 250).astype(np.uint8)[..., None], 3, 2)


def middle_of_light(image: NDArray[np.uint8], near: NDArray[Any], reach: float) -> NDArray[np.float64]:
    y, x = np.indices(image.shape)
    light = image.astype(float) * (np.hypot(x - near[0], y - near[1]) < reach)
    middle: NDArray[np.float64] = np.array([(light * x).sum(), (light * y).sum()]) / light.sum()
    return middle


def cut(hand: Hand, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None, **options: Any) -> Row:
    row = cut_hand(hand, image, mask, ImportOptions(**{"channels": "rgb", **options}))
    assert row is not None
    return row


DOTS = np.array(
    [[60.3, 50.8], [140.6, 48.2], [100.1, 120.7], [62.4, 160.2], [150.9, 158.5], [101.0, 83.0], [110.7, 190.4]]
)
PIXELS = DOTS[np.arange(21) % 7]


@pytest.mark.parametrize("size", [64, 97, 128, 240, 300])
@pytest.mark.parametrize("crop", ["square", "none"])
def test_dots_lie_under_their_keypoints(crop: str, size: int) -> None:
    image = blobs(DOTS, (203, 240), 4.0)
    row = cut(hand_of(PIXELS), image, crop=crop, size=size)
    scale = row["images"].shape[1] / (203 if crop == "none" else 179 * 240 / 240)
    for k in range(7):
        found = middle_of_light(row["images"][..., 0], row["keypoints_2d"][k], 14 * scale)
        np.testing.assert_allclose(found, row["keypoints_2d"][k], atol=0.1)


@settings(deadline=None)
@given(
    seed=st.integers(0, 999), size=st.integers(8, 300), margin=st.floats(0, 2), crop=st.sampled_from(["square", "none"])
)
def test_intrinsics_project_onto_the_keypoints(seed: int, size: int, margin: float, crop: str) -> None:
    rng = np.random.default_rng(seed)
    points = make_hand(seed, RIGHT, rng.uniform(0.3, 1.5), tuple(rng.normal(0, 0.1, 2)))
    camera = intrinsics(*rng.uniform(300, 900, 2), *rng.uniform(100, 300, 2))
    hand = hand_of(pinhole(camera, points), keypoints_3d=points, camera=camera)
    row = cut_hand(hand, np.zeros((240, 320, 3), np.uint8), None, ImportOptions(crop=crop, size=size, margin=margin))
    inside = ((pinhole(camera, points) >= -0.5) & (pinhole(camera, points) < (319.5, 239.5))).all(-1)
    if row is None:
        assert not inside.any()
        return
    np.testing.assert_array_equal(row["keypoints_2d"], project(row["camera"], row["keypoints_3d"]))
    flat = cut_hand(hand_of(pinhole(camera, points)), np.zeros((240, 320, 3), np.uint8), None,
                    ImportOptions(crop=crop, size=size, margin=margin))  # fmt: skip
    assert flat is not None
    np.testing.assert_allclose(row["keypoints_2d"], flat["keypoints_2d"], atol=0.01)
    np.testing.assert_array_equal(row["visibility"] > 0, inside)
    np.testing.assert_array_equal(row["keypoints_3d"], points.astype(np.float32))


def test_whole_image_at_its_own_size_is_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    camera = intrinsics(500, 501, 60, 45)
    hand = hand_of(keypoints_3d=make_hand(0, RIGHT, 1.5), camera=camera)
    row = cut(hand, image, crop="none")
    np.testing.assert_array_equal(row["images"], image[..., ::-1])
    np.testing.assert_array_equal(row["camera"], camera.astype(np.float32))


def test_beyond_the_border_is_black_and_not_labelled() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    pixels = np.tile([[50.0, 50.0]], (21, 1))
    pixels[4], pixels[8], pixels[12] = (99.4, 50), (99.6, 50), (-30, 50)
    row = cut(hand_of(pixels), image, size=64, margin=0.5)
    assert row["visibility"].tolist() == [0 if k in (8, 12) else 2 for k in range(21)]
    assert np.isfinite(row["keypoints_2d"]).all()  # where it lies is known all the same
    assert (row["images"][:, -5:] == 0).all() and (row["images"][:, :30] == 200).all()


def test_hand_off_the_image_is_no_hand() -> None:
    assert cut_hand(hand_of(np.full((21, 2), -9.0)), np.zeros((9, 9, 3), np.uint8), None, ImportOptions()) is None


def test_mask_follows_the_image_and_keeps_its_values() -> None:
    mask = np.zeros((240, 203), np.uint8)
    mask[100:141, 80:121] = 3
    row = cut(hand_of(PIXELS), np.repeat(mask[..., None] * 80, 3, 2), mask, size=96)
    assert set(np.unique(row["mask"])) == {0, 3}
    np.testing.assert_array_equal(row["mask"] > 0, row["images"][..., 0] >= 120)


def test_shrinking_averages_and_passes_no_pixel_over() -> None:
    image = np.zeros((240, 240, 3), np.uint8)
    image[:, ::4] = 200  # interpolation at every fourth pixel would see all of it, or nothing
    pixels = np.tile([[20.0, 20.0], [220.0, 220.0], [120.0, 120.0]], (7, 1))
    for crop in ("square", "none"):
        shrunk = cut(hand_of(pixels), image, crop=crop, size=60, margin=0)["images"][2:-2, 2:-2].astype(int)
        assert abs(shrunk.mean() - 50) < 2 and shrunk.max() < 80


def test_grey_is_luminance() -> None:
    colours = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 0], [255, 255, 255], [77, 77, 77]], np.uint8)
    image = np.repeat(colours[None], 8, 0)
    pixels = np.tile([[2.0, 2.0]], (21, 1))
    grey = cut(hand_of(pixels), image, crop="none", channels="mono")["images"][0, :, 0]
    light = np.array([0.2126, 0.7152, 0.0722])
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(grey[:3], expected, atol=1)
    assert grey[3:].tolist() == [255, 77]
    every = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (4, 1, 3))
    np.testing.assert_array_equal(
        cut(hand_of(pixels), every, crop="none", channels="mono")["images"][0, :, 0], every[0, :, 0]
    )


def test_horizontal_flip_mirrors_once_and_returns_twice() -> None:
    points = make_hand(3, RIGHT, 0.6)
    camera = intrinsics(500, 510, 100, 90)
    image = blobs(pinhole(camera, points), (203, 200), 2.0)
    row = cut(hand_of(keypoints_3d=points, camera=camera), image, size=64)
    mirrored = flip_camera(row["camera"], 64), flip_points_3d(row["keypoints_3d"])
    np.testing.assert_allclose(project(*mirrored), flip_keypoints_2d(row["keypoints_2d"], 64), atol=1e-3)
    twice = flip_keypoints_2d(flip_keypoints_2d(row["keypoints_2d"], 64), 64)
    np.testing.assert_allclose(twice, row["keypoints_2d"], atol=1e-5)
    np.testing.assert_array_equal(flip_points_3d(mirrored[1]), row["keypoints_3d"])
    np.testing.assert_allclose(flip_camera(mirrored[0], 64), row["camera"], atol=1e-5)

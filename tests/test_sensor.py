"""The sensor model against closed forms."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from handaug.render.scene import Sensor
from handaug.render.sensor import develop, shoulder, srgb_encode

PERFECT = Sensor(
    exposure_value=0.0,
    white_balance=1.0,
    mono_weights=(0.5, 0.3, 0.2),
    gamma=2.0,
    blur=0.0,
    vignetting=0.0,
    shot_noise=0.0,
    read_noise=0.0,
)


def sensor(**changes: float) -> Sensor:
    return replace(PERFECT, **changes)  # type: ignore[arg-type]


def light(size: int, *rgb: float) -> NDArray[np.float32]:
    return np.broadcast_to(np.array(rgb, np.float32), (size, size, 3)).copy()


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_srgb_curve_has_the_published_values() -> None:
    # IEC 61966-2-1: the linear part's slope and end, mid grey, white.
    got = srgb_encode(np.array([0.0, 0.001, 0.0031308, 0.2140411, 1.0]))
    np.testing.assert_allclose(got, [0, 0.01292, 0.04045, 0.5, 1.0], atol=2e-5)


def test_shoulder_is_smooth_and_never_reaches_white() -> None:
    x = np.linspace(0, 4, 4001)
    y = shoulder(x)
    np.testing.assert_array_equal(y[x <= 0.7], x[x <= 0.7])
    slope = np.diff(y) / np.diff(x)
    assert (slope > 0).all() and (np.abs(np.diff(slope)) < 0.01).all() and y.max() < 1


def test_mono_weighs_the_colours_and_applies_its_gamma() -> None:
    stored = develop(light(4, 0.2, 0.1, 0.4), PERFECT, 1, rng())
    assert stored.shape == (4, 4, 1) and stored.dtype == np.uint8
    assert (stored == round(255 * (0.5 * 0.2 + 0.3 * 0.1 + 0.2 * 0.4) ** 0.5)).all()


def test_rgb_keeps_its_order() -> None:
    stored = develop(light(4, 0.2158605, 0.0031308, 0.0), PERFECT, 3, rng())
    assert stored[0, 0].tolist() == [128, 10, 0]


def test_vignetting_darkens_the_corner_by_its_share() -> None:
    stored = develop(light(200, 0.5, 0.5, 0.5), sensor(vignetting=0.4, gamma=1.0), 1, rng())[..., 0] / 255
    assert stored[100, 100] == pytest.approx(0.5, abs=0.004)
    assert stored[0, 0] == pytest.approx(0.5 * 0.6, abs=0.006)
    assert stored[0, 100] == pytest.approx(0.5 * 0.8, abs=0.006)


def test_noise_has_the_stated_variance() -> None:
    noisy = sensor(shot_noise=2e-3, read_noise=0.02, gamma=1.0)
    for level in (0.1, 0.5):
        stored = develop(light(400, level, level, level), noisy, 1, rng()).astype(float) / 255
        expected = level * 2e-3 + 0.02**2 + 1 / 255**2 / 12  # with the variance of rounding
        assert stored.var() == pytest.approx(expected, rel=0.03)
        assert stored.mean() == pytest.approx(level, abs=3e-4)


def test_blur_has_the_stated_width_and_keeps_the_light() -> None:
    point = np.zeros((64, 64, 3), np.float32)
    point[32, 32] = 7.0
    stored = develop(point, sensor(blur=1.5, gamma=1.0), 1, rng())[..., 0].astype(float)
    offset = np.arange(64) - 32
    spread = (stored.sum(0) * offset**2).sum() / stored.sum()
    assert spread == pytest.approx(1.5**2, rel=0.05)
    assert stored.sum() / 255 == pytest.approx(7.0, rel=0.02)


def test_noise_is_a_function_of_its_generator_alone() -> None:
    noisy = sensor(shot_noise=1e-3, read_noise=0.01)
    picture = light(16, 0.3, 0.3, 0.3)
    first = develop(picture, noisy, 3, np.random.default_rng(5))
    assert (first == develop(picture, noisy, 3, np.random.default_rng(5))).all()
    assert (first != develop(picture, noisy, 3, np.random.default_rng(6))).any()

"""How bright an appearance is: the panorama's irradiance, the lamps' strengths, the exposure and the white balance.

The exposure is a function of the appearance alone, never of an image: it aims a surface with the skin's albedo, lit
as a mean over the normals that a camera sees, at a grey that follows the tone by the power `_ADAPTATION` (a camera
that adapted fully would make all tones equal, one that did not at all would leave dark skin black).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from handaug.render.environment import block_means, directions
from handaug.render.scene import Appearance
from handaug.render.skin_model import LUMINANCE

__all__ = ["Light", "measure", "rotation_matrix"]

Floats = NDArray[np.float32]
_GREY, _ALBEDO, _ADAPTATION = 0.27, 0.33, 0.65
"""A skin of albedo `_ALBEDO` is exposed to `_GREY` of full scale."""


@dataclass(frozen=True)
class Light:
    """What an appearance amounts to, once its panorama is known."""

    environment_strength: float
    """Factor on the panorama's pixels."""
    lamp_watts: tuple[float, ...]
    """Power of each lamp at unit distance of the hand; at distance z it is z^2 times that."""
    exposure: float
    """Factor from radiance to full scale."""
    balance: tuple[float, float, float]
    """White balance: factor on red, green and blue."""


def rotation_matrix(q: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """(3, 3) rotation of the unit quaternion (w, x, y, z)."""
    w, x, y, z = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@lru_cache(1)
def _seen_normals() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Normals (24, 3) towards the camera (-z) and weights: how much of a convex body's picture has that normal."""
    turn = np.arange(24) * math.pi * (3 - math.sqrt(5))
    cos = np.sqrt((np.arange(24) + 0.5) / 24)  # uniform in cos^2: equal weights on the picture's disc
    sin = np.sqrt(1 - cos**2)
    return np.stack([sin * np.cos(turn), sin * np.sin(turn), -cos], -1), np.full(24, 1 / 24)


def _small(panorama: Floats, rows: int = 32) -> Floats:
    height, width = panorama.shape[:2]
    k = max(1, height // rows)
    return block_means(panorama[: height // k * k, : width // k * k], k)


def measure(appearance: Appearance, panorama: Floats, channels: int) -> Light:
    """Strengths, exposure and white balance of an appearance.

    Args:
        appearance: The appearance.
        panorama: (H, W, 3) linear, first row up.
        channels: 1 to meter with the sensitivity of the mono chip, 3 with luminance.
    """
    small = _small(panorama)
    d = directions(*small.shape[:2])
    solid = np.sqrt(np.maximum(1 - d[..., 2] ** 2, 0))
    solid *= 4 * math.pi / solid.sum()
    mean = float((small @ LUMINANCE * solid).sum() / (4 * math.pi))
    strength = appearance.environment_share / max(mean, 1e-6)

    normals, weights = _seen_normals()
    turned = normals @ rotation_matrix(appearance.rotation).T
    cos = np.maximum(turned @ d.reshape(-1, 3).T, 0) * solid.reshape(-1)
    light = strength * weights @ cos @ small.reshape(-1, 3) / math.pi
    watts = []
    for lamp in appearance.lamps:
        # A lamp of P watts and area A has radiance P / (pi A): at r, P / (pi r^2) falls on what faces it: share pi.
        watts.append(lamp.share * math.pi**2 * lamp.distance**2)
        light = light + lamp.share * np.array(lamp.color) * float(weights @ np.maximum(normals @ lamp.direction, 0))

    sensitivity = np.array(appearance.sensor.mono_weights) if channels == 1 else LUMINANCE
    albedo = float(np.array(appearance.skin.color) @ sensitivity)
    balance = np.ones(3)
    if channels == 3:
        balance = (float(light @ LUMINANCE) / np.maximum(light, 1e-6)) ** appearance.sensor.white_balance
    goal = _GREY * (albedo / _ALBEDO) ** _ADAPTATION * 2.0**appearance.sensor.exposure_value
    seen = float((light * balance * np.array(appearance.skin.color)) @ sensitivity)
    return Light(
        strength, tuple(watts), goal / max(seen, 1e-6), (float(balance[0]), float(balance[1]), float(balance[2]))
    )

"""From linear light to stored bytes: lens blur, vignetting, noise, tone curve, quantisation.

*Mono*: the chip weighs red, green and blue, sees light plus shot and read noise, saturates, and stores light^(1/gamma).
*RGB*: the same chip with its own noise for each channel, then a fixed tone curve (a soft shoulder in place of hard
clipping, since photographs of hands rarely show flat white patches) and the sRGB transfer curve. Nothing is fitted to
the image.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from handaug.render.scene import Sensor

__all__ = ["develop", "shoulder", "srgb_encode"]

_KNEE = 0.7


def srgb_encode(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sRGB transfer curve (IEC 61966-2-1) on 0..1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


def shoulder(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Identity up to 0.7, then bends towards 1 with a continuous slope."""
    over = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
    return np.where(light <= _KNEE, light, _KNEE + (1 - _KNEE) * (1 - np.exp(-over)))


def develop(light: NDArray[np.float32], sensor: Sensor, channels: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The stored image.

    Args:
        light: (H, W, 3) linear Rec. 709, exposed: 1 is full scale.
        sensor: The chip.
        channels: 1 or 3.
        rng: For the noise, one draw for each stored value.

    Returns:
        (H, W, channels).
    """
    height, width = light.shape[:2]
    chip = np.asarray(light, np.float64)
    if channels == 1:
        chip = (chip @ np.array(sensor.mono_weights))[..., None]
    sigma = sensor.blur * width / 64
    if sigma > 0:
        # Saturate before blurring, at a level far above white: a lamp in the backdrop must not flood the image.
        chip = gaussian_filter(np.minimum(chip, 8.0), (sigma, sigma, 0), mode="nearest")
    y, x = (np.arange(height) - (height - 1) / 2) / (height / 2), (np.arange(width) - (width - 1) / 2) / (width / 2)
    chip = chip * (1 - sensor.vignetting * (y[:, None] ** 2 + x**2) / 2)[..., None]
    noise = rng.standard_normal(chip.shape)
    chip = chip + noise * np.sqrt(np.clip(chip, 0, 1) * sensor.shot_noise + sensor.read_noise**2)
    chip = shoulder(np.maximum(chip, 0))
    encoded = srgb_encode(chip) if channels == 3 else chip ** (1 / sensor.gamma)
    return np.asarray(np.clip(encoded * 255 + 0.5, 0, 255), np.uint8)

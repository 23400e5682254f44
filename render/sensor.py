"""From linear light to stored bytes: lens blur, vignetting, noise, tone curve, quantisation.

*Mono*: the chip weighs red, green and blue, sees light plus shot and read noise, saturates, and stores light^(1/gamma).
*RGB*: the same chip with its own noise for each channel, then a fixed tone curve (a soft shoulder in place of hard
clipping, since photographs of hands rarely show flat white patches) and the sRGB transfer curve. Nothing is fitted to
the image. Movement and defocus blur the hand before it is laid over its background (`smear`); contrast and JPEG come
last.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter

from handaug.render.scene import Sensor

__all__ = ["develop", "shoulder", "smear", "srgb_encode"]

_KNEE = 0.7


def srgb_encode(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sRGB transfer curve (IEC 61966-2-1) on 0..1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


def shoulder(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Identity up to 0.7, then bends towards 1 with a continuous slope."""
    over = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
    return np.where(light <= _KNEE, light, _KNEE + (1 - _KNEE) * (1 - np.exp(-over)))


def smear(light: NDArray[np.float32], sensor: Sensor) -> NDArray[np.float32]:
    """What the hand's own movement and a focus that missed it do to its picture.

    Both kernels are symmetric: labels hold for the middle of the exposure.

    Args:
        light: (H, W, C) linear; colours premultiplied by alpha, alpha last.
        sensor: Its `motion` and `defocus`.
    """
    side = light.shape[1]
    reach = np.array(sensor.motion) * side / 2
    radius = sensor.defocus * side
    if not (radius > 0 or reach.any()):
        return light
    half = int(np.ceil(np.abs(reach).max() + radius)) + 1
    fine = 4  # samples of a pixel in each direction
    spots = np.zeros((2 * half + 1, 2 * half + 1), np.float64)
    disc = np.mgrid[-half * fine : half * fine + 1, -half * fine : half * fine + 1].reshape(2, -1)[::-1].T / fine
    disc = disc[np.hypot(*disc.T) <= max(radius, 1e-9)]
    for t in np.linspace(-1, 1, 2 * fine * half + 1 if reach.any() else 1):
        at = disc + t * reach if reach.any() else disc
        low = np.floor(at).astype(int)
        rest = at - low
        for dx in (0, 1):
            for dy in (0, 1):
                weight = np.abs(1 - dx - rest[:, 0]) * np.abs(1 - dy - rest[:, 1])
                np.add.at(spots, (low[:, 1] + dy + half, low[:, 0] + dx + half), weight)
    kernel = spots / spots.sum()
    return np.stack([convolve(light[..., c], kernel, mode="nearest") for c in range(light.shape[2])], -1)


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
    elif sensor.temperature:
        chip = chip * np.exp(sensor.temperature * np.array([0.5, 0.0, -0.5]))
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
    if sensor.contrast != 1:
        encoded = _tone(np.clip(encoded, 0, 1), sensor.contrast)
    stored = np.asarray(np.clip(encoded * 255 + 0.5, 0, 255), np.uint8)
    return _pack(stored, sensor.jpeg) if sensor.jpeg else stored


def _tone(x: NDArray[np.float64], slope: float) -> NDArray[np.float64]:
    """A curve through black, middle grey and white with this slope in the middle: two powers that meet there."""
    low = 0.5 * (2 * np.minimum(x, 0.5)) ** slope
    high = 1 - 0.5 * (2 * np.minimum(1 - x, 0.5)) ** slope
    return np.where(x < 0.5, low, high)


def _pack(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Compress as JPEG and read back."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "JPEG", quality=quality)
    unpacked = np.asarray(Image.open(file))
    return unpacked[..., None] if unpacked.ndim == 2 else unpacked.copy()

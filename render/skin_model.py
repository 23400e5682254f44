"""Colour of skin from what colours it: melanin in the epidermis, blood in the dermis. Spectral, then sRGB primaries.

Model: light crosses the epidermis, where melanin absorbs, is scattered back by the dermis, where blood absorbs, and
crosses the epidermis again. Sources:

* absorption of melanin 6.6e11 l^-3.33 /cm (l in nm) by volume fraction; Jacques, Skin Optics (Oregon Medical Laser
  Center, 1998);
* absorption of haemoglobin: molar extinction at 10 nm steps, Prahl (OMLC, 1999), 150 g/l in whole blood;
* skin without both: 7.84e8 l^-3.255 /cm, Saidi (1992); reduced scattering 46 (l / 500)^-1.421 /cm, Jacques, Optical
  properties of biological tissues: a review, Phys. Med. Biol. 58 (2013), Table 1;
* melanin lies in grains and patches, so light finds ways between: with an exponential distribution of absorbance of
  mean m, the mean of exp(-x) is 1 / (1 + m). Without this sieve, dark skin would come out orange;
* diffuse reflectance of the dermis from the reduced albedo, Flock et al., IEEE Trans. Biomed. Eng. 36 (1989), Eq. 8
  for a half space;
* colour matching functions: Wyman, Sloan and Shirley, J. Computer Graphics Techniques 2 (2013), the multi-lobe fit,
  under equal-energy light as white.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LUMINANCE",
    "MELANIN",
    "MONK",
    "TYPICAL_BLOOD",
    "cielab",
    "melanin_of_tone",
    "nearest_monk",
    "skin_reflectance",
]

Floats = NDArray[np.float64]

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
"""Of linear Rec. 709."""
MELANIN = (0.005, 0.7)
"""Volume fraction of melanin where there is any in the epidermis, lightest and darkest skin."""
TYPICAL_BLOOD = 0.012
"""Volume fraction of blood in the dermis."""

MONK = ("f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a", "292420")
"""sRGB of the ten tones of the Monk Skin Tone scale (Monk, 2019), light to dark."""

_WAVELENGTHS = np.arange(400.0, 701.0, 10.0)
# Molar extinction of oxygenated and deoxygenated haemoglobin, /cm/(mol/l), 400..700 nm in steps of 10.
_HBO2 = np.array([
    266232, 466840, 480360, 246072, 102580, 62816, 44480, 33209, 26629, 23684, 20933, 20035, 24202, 39957, 53236, 43016,
    32613, 44496, 50104, 14401, 3200, 1506, 942, 610, 442, 368, 320, 294, 278, 276, 290,
], np.float64)  # fmt: skip
_HB = np.array([
    223296, 303956, 407560, 528600, 413280, 103292, 23389, 16156, 14550, 16684, 20862, 25774, 31590, 39036, 46592,
    53412, 53788, 45072, 37020, 28324, 14677, 9444, 6510, 5149, 4345, 3750, 3227, 2795, 2408, 2052, 1794,
], np.float64)  # fmt: skip
_OXYGEN = 0.75
_EPIDERMIS_CM = 0.01
_OBLIQUE = 2.0  # mean path of diffuse light through a thin layer, in thicknesses
_BEFORE_MELANIN = 0.012  # share of light that the outermost layer sends back
_INNER_REFLECTION = 2.2  # k = (1 + r) / (1 - r) of Flock et al. for a refractive index of 1.4
_XYZ_TO_RGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])


def skin_reflectance(melanin: float, blood: float, oxygen: float = _OXYGEN) -> Floats:
    """Albedo (3,), linear Rec. 709, of skin.

    Args:
        melanin: Volume fraction in the epidermis, 0 to 0.5.
        blood: Volume fraction in the dermis, 0 to 0.1.
        oxygen: Saturation of the blood: 1 is the redder.

    Example:
        >>> light, dark = skin_reflectance(0.02, 0.01), skin_reflectance(0.3, 0.01)
        >>> bool((light > dark).all() and light[0] > light[1] > light[2])
        True
    """
    l = _WAVELENGTHS  # noqa: E741
    whole_blood = np.log(10) * (oxygen * _HBO2 + (1 - oxygen) * _HB) * 150 / 64500
    dermis = blood * whole_blood + (1 - blood) * 7.84e8 * l**-3.255
    scattering = 46 * (l / 500) ** -1.421
    albedo = scattering / (scattering + dermis)
    k = _INNER_REFLECTION
    back = albedo / (1 + 2 * k * (1 - albedo) + (1 + 2 * k / 3) * np.sqrt(3 * (1 - albedo)))
    absorbance = 2 * _OBLIQUE * _EPIDERMIS_CM * melanin * 6.6e11 * l**-3.33
    through = 1 / (1 + absorbance)
    spectrum = _BEFORE_MELANIN + (1 - _BEFORE_MELANIN) * back * through
    return np.asarray(np.clip(_matching() @ spectrum, 0.002, 1.0))


@cache
def _matching() -> Floats:
    """(3, L) from a reflectance spectrum to linear Rec. 709, white to (1, 1, 1)."""

    def lobe(height: float, middle: float, below: float, above: float) -> Floats:
        width = np.where(_WAVELENGTHS < middle, below, above)
        return np.asarray(height * np.exp(-0.5 * ((_WAVELENGTHS - middle) / width) ** 2))

    x = lobe(1.056, 599.8, 37.9, 31.0) + lobe(0.362, 442.0, 16.0, 26.7) + lobe(-0.065, 501.1, 20.4, 26.2)
    y = lobe(0.821, 568.8, 46.9, 40.5) + lobe(0.286, 530.9, 16.3, 31.1)
    z = lobe(1.217, 437.0, 11.8, 36.0) + lobe(0.681, 459.0, 26.0, 13.8)
    rgb = _XYZ_TO_RGB @ np.stack([x, y, z])
    return np.asarray(rgb / rgb.sum(1, keepdims=True))


@cache
def _ramp() -> tuple[Floats, Floats]:
    """Tone 0..1 (linear in the logarithm of luminance) of a range of melanin."""
    melanin = np.geomspace(*MELANIN, 64)
    luminance = np.array([skin_reflectance(m, TYPICAL_BLOOD) @ LUMINANCE for m in melanin])
    depth = -np.log(luminance)
    return (depth - depth[0]) / (depth[-1] - depth[0]), np.log(melanin)


def melanin_of_tone(tone: float) -> float:
    """Melanin of a tone: 0 the lightest skin, 1 the darkest, even steps in the logarithm of luminance between."""
    return float(np.exp(np.interp(tone, *_ramp())))


def cielab(rgb: NDArray[np.floating[Any]]) -> Floats:
    """CIE L*a*b* (..., 3) of linear Rec. 709, D65 white."""
    matrix = np.linalg.inv(_XYZ_TO_RGB)
    xyz = np.asarray(rgb, np.float64) @ matrix.T / matrix.sum(1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(np.maximum(xyz, 1e-9)), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def nearest_monk(tone: float) -> int:
    """Number 1..10 on the Monk scale: the tones' range cut where the scale's lightness is halfway between two of its
    tones, the scale's lightest and darkest at the ends of our range."""
    swatch = np.array([[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for code in MONK])
    linear = np.where(swatch <= 0.04045, swatch / 12.92, ((swatch + 0.055) / 1.055) ** 2.4)
    depth = -np.log(linear @ LUMINANCE)
    place = (depth - depth[0]) / (depth[-1] - depth[0])
    return int(np.abs(place - tone).argmin()) + 1

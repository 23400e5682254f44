"""Many appearances from one trace: light is a sum, so a lamp that was traced once can be dimmed, tinted and added later.

A *rig* is what appearances may share: panorama and its turn, the places and sizes of the lamps, the relief and gloss of
the skin. Blender traces each light of a rig by itself, once for a pose (`blender.session.trace`). An appearance is then
a weighted sum over lights k, pixel by pixel and for each channel:

    radiance = sum_k w_k (A E_k + G_k)

E_k is the irradiance that the surface sends back as its diffuse albedo A says, G_k what it reflects as gloss, which does
not depend on the skin's colour. A is linear in the colours that the material mixes (`Skin.paints`), and Blender tells the
weights, so that a new skin needs no new trace. Exact for light that meets the skin once; between fingers, light that met
it twice keeps the traced skin's tint.

Why one light at a time, and not all together as light groups: with several lamps a path picks one of them at random. In
the sum of all lamps that choice hardly shows; taken apart, each lamp misses in some pixels and is counted double in
others. At equal samples, lights traced apart come out 2 to 5 dB cleaner, and Blender's own passes split each into
diffuse and gloss, which light groups do not.

What remains of the noise:

* the panorama's light, seen from everywhere, is denoised as any rendering (OIDN);
* a lamp by itself is nearly clean after one path per pixel: a mean over the 5 x 5 pixels around, weighted by likeness
  of normal and depth, does the rest. Its weights are found once for a pose;
* subsurface scattering is left out of the trace, where it costs a sixth of the time and half of the noise; the irradiance
  is spread over the surface instead, as Jimenez et al., Screen-space perceptual rendering of human skin (ACM TAP 2009),
  do it: a Gaussian for each channel, narrower than a finger, that stops at edges of depth.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handaug.render.scene import Appearance, Skin

__all__ = ["Guide", "Traced", "assemble", "relight"]

Floats = NDArray[np.float32]
Passes = dict[str, Floats]

_REACH, _WIDTH = 2, 1.2
"""Pixels to each side in the mean, and the standard deviation of its bell."""
_NORMAL_SPREAD, _DEPTH_SPREAD = 0.15, 0.010  # squared difference of unit normals; metres
_MEAN_FREE_PATHS = (1.0, 0.35, 0.2)
"""Of red, green and blue light in skin, as in the material."""
_SAME_SKIN = 0.008
"""Metres of depth over which light still spreads."""
_LEAST = 1e-4


@dataclass(frozen=True, eq=False)
class Traced:
    """The lights of a rig on a pose, each alone: the panorama with mean radiance 1, then white lamps of share 1."""

    irradiance: Floats
    """(L, H, W, 3)."""
    gloss: Floats
    """(L, H, W, 3), premultiplied by alpha."""
    albedo: Floats
    """(H, W, 3) of the skin traced and of all else, premultiplied by alpha."""
    weights: Floats
    """(4, H, W, 3) of the four paints of a skin in `albedo`."""
    paints: Floats
    """(4, 3) of the skin traced."""
    alpha: Floats
    """(H, W)."""


class Guide:
    """Which pixels around a pixel see the same surface; found once for a pose.

    Args:
        passes: Of the pose, any trace.
    """

    def __init__(self, passes: Sequence[Passes]) -> None:
        alpha = _mean(passes, "Combined")[..., 3]
        normal = _mean(passes, "Denoising Normal")
        normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-3)
        self.depth = np.where(alpha > 0, _mean(passes, "Denoising Depth")[..., 0] / np.maximum(alpha, 1e-3), 1e3)
        self._weights: list[tuple[int, int, Floats]] = []
        for dy, dx, depth, other in _around(self.depth, normal):
            unlike = ((other - normal) ** 2).sum(-1) / _NORMAL_SPREAD + ((depth - self.depth) / _DEPTH_SPREAD) ** 2
            far = (dy**2 + dx**2) / (2 * _WIDTH**2)
            self._weights.append((dy, dx, np.exp(-np.minimum(unlike + far, 60)).astype(np.float32)))

    def smooth(self, values: Floats, cover: Floats) -> Floats:
        """Mean over the like pixels around.

        Args:
            values: (L, H, W, C).
            cover: (L, H, W) how much of each counts.

        Returns:
            (L, H, W, C).
        """
        height, width = cover.shape[1:]
        both = np.concatenate([values * cover[..., None], cover[..., None]], -1)
        both = np.pad(both, ((0, 0), (_REACH, _REACH), (_REACH, _REACH), (0, 0)))
        total = np.zeros((*cover.shape, both.shape[-1]), np.float32)
        for dy, dx, weight in self._weights:
            y, x = _REACH + dy, _REACH + dx
            total += weight[..., None] * both[:, y : y + height, x : x + width]
        return np.asarray(total[..., :-1] / np.maximum(total[..., -1:], 1e-6))


    def fill(self, values: Floats, inside: Floats) -> Floats:
        """(H, W, C) with the values outside taken from inside, where there is any near."""
        found = self.smooth(values[None], inside[None])[0]
        near = self.smooth(inside[None, ..., None], np.ones_like(inside)[None])[0] > 1e-3
        return np.asarray(np.where((inside > 0)[..., None] | ~near, values, found))


def assemble(
    passes: Sequence[Passes],
    names: Sequence[str],
    cover: str,
    *,
    guide: Guide,
    denoise: Callable[[Floats], Floats],
    skin: Skin,
    pixel: float,
) -> Traced:
    """Make what `relight` needs from Blender's passes.

    Args:
        passes: One set for the panorama, then one for each lamp.
        names: Passes of the weights of the skin's paints.
        cover: Pass of how much of a pixel is skin.
        guide: Of this pose.
        denoise: For the panorama's light.
        skin: As it was traced.
        pixel: Metres that a pixel spans on the hand.
    """
    albedo = _mean(passes, "Diffuse Color")[..., :3]
    alpha = np.clip(_mean(passes, "Combined")[..., 3], 0, 1)
    gloss = [(p["Glossy Direct"] + p["Glossy Indirect"])[..., :3] * p["Glossy Color"][..., :3] for p in passes]
    diffuse = [(p["Diffuse Direct"] + p["Diffuse Indirect"])[..., :3] for p in passes]

    clean = denoise(passes[0]["Combined"][..., :3])
    shine, matt = _blur(gloss[0]), _blur(diffuse[0] * passes[0]["Diffuse Color"][..., :3])
    share = np.where(albedo > _LEAST, np.clip(shine / np.maximum(shine + matt, 1e-6), 0, 1), 1)
    own = _mean(passes[:1], "Combined")[..., 3:]
    both = np.concatenate([clean * (1 - share) / np.maximum(albedo, _LEAST), clean * share / np.maximum(own, 0.1)], -1)
    # The denoiser smooths outlines, which albedo and alpha keep: at the edge light is taken from inside.
    inside = (alpha > 0.99).astype(np.float32)
    both = guide.fill(both, inside)
    irradiance, shines = [both[..., :3]], [both[..., 3:] * alpha[..., None]]
    if len(passes) > 1:
        seen = np.stack([p["Combined"][..., 3] for p in passes[1:]])
        lamps = np.stack([
            np.concatenate([d, g / np.maximum(p["Combined"][..., 3:], 1e-3)], -1)
            for p, d, g in zip(passes[1:], diffuse[1:], gloss[1:], strict=True)
        ])  # fmt: skip
        smooth = guide.smooth(lamps, seen)
        irradiance += list(smooth[..., :3])
        shines += list(smooth[..., 3:] * alpha[..., None])
    skin_share = np.clip(_mean(passes, cover)[..., 0], 0, 1)
    spread = _spread(np.stack(irradiance), skin_share, guide.depth, skin.subsurface / pixel)
    spread *= (skin_share / np.maximum(alpha, _LEAST)).clip(0, 1)[..., None]
    whole = np.stack(irradiance) * (1 - (skin_share / np.maximum(alpha, _LEAST)).clip(0, 1))[..., None]
    return Traced(
        irradiance=(spread + whole).astype(np.float32),
        gloss=np.stack(shines).astype(np.float32),
        albedo=albedo,
        weights=np.stack([_mean(passes, name)[..., :3] for name in names]),
        paints=skin.paints.astype(np.float32),
        alpha=alpha,
    )


def relight(traced: Traced, appearance: Appearance) -> Floats:
    """The hand in an appearance of the rig that was traced.

    Returns:
        (H, W, 4) radiance, premultiplied by alpha, not exposed.
    """
    strengths = np.array(
        [[appearance.environment_share] * 3, *(np.multiply(lamp.share, lamp.color) for lamp in appearance.lamps)],
        np.float32,
    )
    change = appearance.skin.paints.astype(np.float32) - traced.paints
    albedo = traced.albedo + np.einsum("ihwc,ic->hwc", traced.weights, change)
    light = np.einsum("khwc,kc->hwc", traced.irradiance, strengths) * np.maximum(albedo, 0)
    light += np.einsum("khwc,kc->hwc", traced.gloss, strengths)
    return np.concatenate([light, traced.alpha[..., None]], -1)


def _mean(passes: Sequence[Passes], name: str) -> Floats:
    """Mean over all samples; each set has its `samples`."""
    total = sum(p["samples"][0] for p in passes)
    return np.asarray(sum(p[name] * (p["samples"][0] / total) for p in passes), np.float32)


def _blur(image: Floats) -> Floats:
    """Binomial over 5 x 5 pixels, standard deviation 1."""
    for axis in (0, 1):
        edge = [(2, 2) if k == axis else (0, 0) for k in range(3)]
        padded = np.pad(image, edge, mode="edge")
        n = image.shape[axis]
        image = sum(  # type: ignore[assignment]
            weight / 16 * (padded[k : k + n] if axis == 0 else padded[:, k : k + n])
            for k, weight in enumerate((1, 4, 6, 4, 1))
        )
    return image


def _around(depth: Floats, normal: Floats) -> list[tuple[int, int, Floats, Floats]]:
    """(dy, dx, depth, normal) of the neighbours at each offset."""
    r, (height, width) = _REACH, depth.shape
    deep, turned = np.pad(depth, r, constant_values=1e3), np.pad(normal, ((r, r), (r, r), (0, 0)))
    return [
        (y - r, x - r, deep[y : y + height, x : x + width], turned[y : y + height, x : x + width])
        for y in range(2 * r + 1)
        for x in range(2 * r + 1)
    ]


def _spread(irradiance: Floats, skin: Floats, depth: Floats, path: float) -> Floats:
    """Irradiance after scattering below the skin.

    Args:
        irradiance: (L, H, W, 3).
        skin: (H, W) how much of a pixel is skin.
        depth: (H, W) metres.
        path: Mean free path of red light in pixels.
    """
    out = irradiance.copy()
    for channel, relative in enumerate(_MEAN_FREE_PATHS):
        width = path * relative
        if width < 0.15:
            continue
        reach = math.ceil(2.5 * width)
        # Shares of the bell that fall on whole pixels: the width may be less than one.
        edges = [math.erf((k - 0.5) / width / math.sqrt(2)) for k in range(-reach, reach + 2)]
        for axis in (0, 1):
            values = np.moveaxis(out[..., channel], axis + 1, 1)
            here, cover = np.moveaxis(depth, axis, 0), np.moveaxis(skin, axis, 0)
            n = len(here)
            deep = np.pad(here, ((reach, reach), (0, 0)), constant_values=1e3)
            known = np.pad(cover, ((reach, reach), (0, 0)))
            padded = np.pad(values, ((0, 0), (reach, reach), (0, 0)))
            total, weights = np.zeros_like(values), np.zeros_like(here)
            for k in range(2 * reach + 1):
                part = np.s_[k : k + n]
                weight = known[part] * (edges[k + 1] - edges[k])
                weight = weight * np.exp(-np.minimum(((deep[part] - here) / _SAME_SKIN) ** 2, 60))
                total += weight * padded[:, part]
                weights += weight
            found = np.where(weights > 1e-4, total / np.maximum(weights, 1e-4), values)
            out[..., channel] = np.moveaxis(found, 1, axis + 1)
    return out

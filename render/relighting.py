"""Many appearances from one trace: light is a sum, so a lamp traced once can be dimmed, tinted and added later.

A *rig* is what appearances may share: panorama and its turn, places and sizes of the lamps, relief and gloss of the
skin. Blender traces each light of a rig by itself, once for a pose (`blender.session.BlenderSession.trace`). An
appearance is then a weighted sum over lights k, pixel by pixel and for each channel:

    radiance = sum_k w_k (A E_k + G_k)

E_k is the light that the surface sends back in proportion to its diffuse albedo A, G_k what it reflects as gloss, which
does not depend on the skin's colour. Blender tells the shares of the colours that the material mixes (`Skin.paints`),
so that the albedo of another skin needs no new trace; what darkens them all (lines, veins) stays. Exact for light that
meets the skin once; between fingers, light that met it twice keeps the traced skin's tint.

Why one light at a time, and not all together as light groups: with several lamps a path picks one of them at random.
In the sum of all lamps that choice hardly shows; taken apart, each lamp misses in some pixels and is counted double in
others. Lights traced apart come out cleaner at equal samples, and Blender's own passes split each into diffuse and
gloss, which light groups do not.

What remains of the noise:

* the panorama's light is denoised as any rendering (OIDN), told the albedo and normals of all samples;
* a lamp by itself is nearly clean after one path per pixel: a mean over the 5 x 5 pixels around, weighted by likeness
  of normal and depth, does the rest. Its weights are found once for a pose;
* subsurface scattering is left out of the trace, where it brings half of the noise; instead, the light is spread over
  the surface as by Jimenez, Sundstedt and Gutierrez, Screen-space perceptual rendering of human skin (ACM TAP 2009):
  a Gaussian for each channel that stops at edges of depth.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from handaug.render.scene import Appearance, Skin
from handaug.render.window import Window

__all__ = ["SAMPLES", "SHARES_PASS", "SKIN_PASS", "Gathered", "Guide", "Traced", "assemble", "gather", "relight"]

SKIN_PASS, SHARES_PASS = "skin", "shares"
"""Passes: how much of a pixel is skin; how much of it is red, palm and nail."""

Floats = NDArray[np.float32]
Passes = dict[str, Floats]
SAMPLES = "samples"
"""Entry of a set of passes: its number of samples per pixel."""

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
    """The lights of a rig on a pose, each alone: the panorama with mean radiance 1, then white lamps of share 1.

    In the part of the picture, h x w, that the hand takes; elsewhere is nothing.
    """

    irradiance: Floats
    """(L, h, w, 3)."""
    gloss: Floats
    """(L, h, w, 3)."""
    albedo: Floats
    """(h, w, 3) of the skin traced and of all else."""
    shares: Floats
    """(h, w, 4) of the four paints of a skin; sums to how much of what is seen is skin."""
    paints: Floats
    """(4, 3) of the skin traced."""
    alpha: Floats
    """(h, w) how much of a pixel is covered; all else is of what covers it."""
    window: Window
    """This part."""


@dataclass(frozen=True, eq=False)
class Gathered:
    """What is kept of Blender's passes for a rig, one set for the panorama, then one for each lamp.

    Of the part of the picture, h x w, that was traced."""

    samples: int
    """Per pixel, of all sets together."""
    combined: Floats
    """(h, w, 3) of the panorama alone, premultiplied by alpha."""
    diffuse: Floats
    """(L, h, w, 3) divided by albedo."""
    gloss: Floats
    """(L, h, w, 3) premultiplied by alpha."""
    cover: Floats
    """(L, h, w) alpha."""
    albedo: Floats
    """(h, w, 3) premultiplied by alpha, as all that follows, and a mean over all samples."""
    shares: Floats
    """(h, w, 3) red, palm, nail."""
    skin: Floats
    """(h, w)."""
    alpha: Floats
    """(h, w)."""
    normal: Floats
    """(h, w, 3)."""
    depth: Floats
    """(h, w) metres."""


def gather(passes: Sequence[Passes]) -> Gathered:
    """Keep what is needed.

    Args:
        passes: One set for the panorama, then one for each lamp; each has its `SAMPLES`.
    """
    shine = [(p["Glossy Direct"] + p["Glossy Indirect"])[..., :3] * p["Glossy Color"][..., :3] for p in passes]
    return Gathered(
        samples=int(sum(p[SAMPLES][0] for p in passes)),
        combined=passes[0]["Combined"][..., :3],
        diffuse=np.stack([(p["Diffuse Direct"] + p["Diffuse Indirect"])[..., :3] for p in passes]),
        gloss=np.stack(shine),
        cover=np.stack([p["Combined"][..., 3] for p in passes]),
        albedo=_mean(passes, "Diffuse Color")[..., :3],
        shares=_mean(passes, SHARES_PASS)[..., :3],
        skin=_mean(passes, SKIN_PASS)[..., 0],
        alpha=_mean(passes, "Combined")[..., 3],
        normal=_mean(passes, "Denoising Normal"),
        depth=_mean(passes, "Denoising Depth")[..., 0],
    )


class Guide:
    """What the rigs of a pose have in common: the outline, and which pixels around a pixel see the same surface.

    Args:
        gathered: Of all its rigs.
    """

    def __init__(self, gathered: Sequence[Gathered]) -> None:
        weights = np.array([g.samples for g in gathered], np.float32)
        weights /= weights.sum()
        alpha, normal, depth = (
            sum(w * getattr(g, name) for w, g in zip(weights, gathered, strict=True))
            for name in ("alpha", "normal", "depth")
        )
        self.alpha: Floats = np.clip(alpha, 0, 1)
        normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-3)
        self.depth: Floats = np.where(alpha > 0, depth / np.maximum(alpha, 1e-3), np.float32(1e3))
        self._weights: list[tuple[int, int, Floats]] = []
        for dy, dx, near, other in _around(self.depth, normal):
            unlike = ((other - normal) ** 2).sum(-1) / _NORMAL_SPREAD + ((near - self.depth) / _DEPTH_SPREAD) ** 2
            far = (dy**2 + dx**2) / (2 * _WIDTH**2)
            self._weights.append((dy, dx, np.exp(-np.minimum(unlike + far, 60)).astype(np.float32)))

    def smooth(self, values: Floats, cover: Floats) -> Floats:
        """Mean over the like pixels around.

        Args:
            values: (L, H, W, C).
            cover: (L, H, W) how much of each counts.

        Returns:
            (L, H, W, C); 0 where nothing near counts.
        """
        height, width = cover.shape[1:]
        # Channels first: numpy's inner loops then run along rows.
        both = np.concatenate([np.moveaxis(values * cover[..., None], 3, 1), cover[:, None]], 1)
        both = np.pad(both, ((0, 0), (0, 0), (_REACH, _REACH), (_REACH, _REACH)))
        total = np.zeros((*both.shape[:2], height, width), np.float32)
        for dy, dx, weight in self._weights:
            y, x = _REACH + dy, _REACH + dx
            total += weight * both[..., y : y + height, x : x + width]
        return np.moveaxis(total[:, :-1] / np.maximum(total[:, -1:], 1e-5), 1, 3)


def assemble(
    gathered: Sequence[Gathered],
    window: Window,
    *,
    denoise: Callable[[Floats, Floats, Floats], Floats],
    skins: Sequence[Skin],
    pixel: float,
) -> list[Traced]:
    """Make what `relight` needs.

    Args:
        gathered: Of each rig of a pose.
        window: What part of the picture that is.
        denoise: For the panorama's light, told albedo and normal.
        skins: As they were traced.
        pixel: Metres that a pixel spans on the hand.

    Returns:
        One for each rig, in order.
    """
    clean = [replace(g, combined=denoise(g.combined, g.albedo, g.normal)) for g in gathered]
    guide = Guide(clean)
    return [_assemble(g, guide, skin, pixel, window) for g, skin in zip(clean, skins, strict=True)]


def _assemble(g: Gathered, guide: Guide, skin: Skin, pixel: float, window: Window) -> Traced:
    alpha = g.alpha[..., None]
    shine, matt = _blur(np.stack([g.gloss[0], g.diffuse[0] * g.albedo]))
    share = np.where(g.albedo > _LEAST, np.clip(shine / np.maximum(shine + matt, 1e-6), 0, 1), 1)
    own = np.maximum(g.cover[0, ..., None], 0.1)
    lights = np.concatenate([g.diffuse, g.gloss / np.maximum(g.cover, 1e-3)[..., None]], -1)
    lights[0] = np.concatenate([g.combined * (1 - share) / np.maximum(g.albedo, _LEAST), g.combined * share / own], -1)
    # The denoiser smooths outlines too, and a pixel there may be seen by few samples: at the edge, all is taken from
    # inside, and the outline itself from the samples of all rigs.
    inside = g.alpha > 0.99
    cover = g.cover.copy()
    denoised, cover[0] = lights[0], inside
    lights = guide.smooth(lights, cover)
    lights[0] = np.where(inside[..., None] | (lights[0].max(-1, keepdims=True) <= 0), denoised, lights[0])
    surface = np.concatenate([g.albedo, g.shares, g.skin[..., None]], -1) / np.maximum(alpha, 1e-3)
    surface = np.where(inside[..., None], surface, guide.smooth(surface[None], g.alpha[None])[0])
    albedo, shares, skinned = surface[..., :3], surface[..., 3:6], np.clip(surface[..., 6:], 0, 1)
    spread = _spread(lights[..., :3], skinned[..., 0] * guide.alpha, guide.depth, skin.subsurface / pixel)
    return Traced(
        irradiance=skinned * spread + (1 - skinned) * lights[..., :3],
        gloss=lights[..., 3:],
        albedo=albedo,
        shares=np.concatenate([np.maximum(skinned - shares.sum(-1, keepdims=True), 0), shares], -1),
        paints=skin.paints.astype(np.float32),
        alpha=guide.alpha,
        window=window,
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
    before, after = traced.shares @ traced.paints, traced.shares @ appearance.skin.paints.astype(np.float32)
    part = traced.shares.sum(-1, keepdims=True)
    albedo = traced.albedo * (1 + part * (after / np.maximum(before, _LEAST) - 1) * (before > _LEAST))
    light = np.einsum("khwc,kc->hwc", traced.irradiance, strengths) * albedo
    light += np.einsum("khwc,kc->hwc", traced.gloss, strengths)
    alpha = traced.alpha[..., None]
    return traced.window.paste(np.concatenate([light * alpha, alpha], -1))


def _mean(passes: Sequence[Passes], name: str) -> Floats:
    """Mean over all samples; each set has its `SAMPLES`."""
    total = sum(p[SAMPLES][0] for p in passes)
    return np.asarray(sum(p[name] * (p[SAMPLES][0] / total) for p in passes), np.float32)


def _blur(images: Floats) -> Floats:
    """(L, H, W, C), binomial over 5 x 5 pixels, standard deviation 1."""
    for axis in (1, 2):
        n = images.shape[axis]
        padded = np.pad(images, [(2, 2) if k == axis else (0, 0) for k in range(4)], mode="edge")
        parts = [padded[:, k : k + n] if axis == 1 else padded[:, :, k : k + n] for k in range(5)]
        images = (parts[0] + parts[4]) * np.float32(1 / 16) + (parts[1] + parts[3]) * np.float32(1 / 4)
        images += parts[2] * np.float32(3 / 8)
    return images


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
    widths = [path * relative for relative in _MEAN_FREE_PATHS]
    reach = math.ceil(2.5 * widths[0])
    bells = np.array([[_bell(k, width) for width in widths] for k in range(-reach, reach + 1)], np.float32)
    light = np.moveaxis(irradiance, 3, 1)
    for _axis in range(2):  # along columns, then along rows
        light, depth, skin = light.swapaxes(2, 3), depth.T, skin.T
        n = depth.shape[1]
        deep = np.pad(depth, ((0, 0), (reach, reach)), constant_values=1e3)
        known = np.pad(skin, ((0, 0), (reach, reach)))
        padded = np.pad(light, ((0, 0), (0, 0), (0, 0), (reach, reach)))
        total, weights = np.zeros(light.shape, np.float32), np.zeros((3, *depth.shape), np.float32)
        for k, bell in enumerate(bells):
            apart = ((deep[:, k : k + n] - depth) / _SAME_SKIN) ** 2
            weight = bell[:, None, None] * (known[:, k : k + n] * np.exp(-np.minimum(apart, 60))).astype(np.float32)
            total += weight * padded[..., k : k + n]
            weights += weight
        light = np.where(weights > 1e-4, total / np.maximum(weights, 1e-4), light)
    return np.moveaxis(light, 1, 3)


def _bell(k: int, width: float) -> float:
    """Share of a Gaussian of this standard deviation in pixels that falls on the k-th pixel: the width may be less than
    one."""
    if width < 0.15:
        return float(k == 0)
    return 0.5 * (math.erf((k + 0.5) / width / math.sqrt(2)) - math.erf((k - 0.5) / width / math.sqrt(2)))

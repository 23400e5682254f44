"""The networks of handaug's own disentangler: one U-Net for what a picture shows, one small net that redraws the hand.

A picture is a hand in front of a plate: image = m * hand + (1 - m) * plate, with the mask m. The U-Net gives, for
every pixel, the mask, features of the hand's geometry g that do not depend on light or skin, and the plate behind the
hand. Light is not predicted but *fitted*: the hand's pixels are regressed on their geometry features, so the same
coefficients draw another pose under the same light. With features that behave like the surface normal's spherical
harmonics this is the classic linear model of diffuse light (Ramamoorthi and Hanrahan 2001; Basri and Jacobs 2003);
a small modulated network adds what it lacks (shadows, gloss, texture). Off the hand there is no geometry: features are
0 there, since whatever they held would be the background's and not the pose's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from handaug.data_specs.joints import JOINTS

__all__ = ["LayeredNet", "Layers", "Look", "fit_light"]

_GROUPS = 8
_LEVELS = 4
_RIDGE = 1e-2
_NO_HAND, _HAND = 0.1, 0.3
"""Of the mask: with less there is no geometry, with more there is all of it."""


class _Block(nn.Sequential):
    """Two 3x3 convolutions, each with group normalisation and SiLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        layers: list[nn.Module] = []
        for channels in (channels_in, channels_out):
            layers += [nn.Conv2d(channels, channels_out, 3, padding=1), nn.GroupNorm(_GROUPS, channels_out)]
            layers.append(nn.SiLU(inplace=True))
        super().__init__(*layers)


class _UNet(nn.Module):
    """From half to a sixteenth of the resolution and back; pixels come in and go out as blocks of 2x2."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width * min(2**level, 4) for level in range(_LEVELS)]
        inputs = [4 * channels, *widths[:-1]]
        self.down = nn.ModuleList(_Block(i, o) for i, o in zip(inputs, widths, strict=True))
        self.up = nn.ModuleList(_Block(here + deep, here) for here, deep in zip(widths, widths[1:], strict=False))
        self.deepest = widths[-1]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) in [0, 1] -> features (N, width, H/2, W/2) and (N, 4 * width, H/16, W/16)."""
        features = functional.pixel_unshuffle(images * 4.0 - 2.0, 2)
        skips = []
        for level, block in enumerate(self.down):
            features = block(functional.max_pool2d(features, 2) if level else features)
            skips.append(features)
        deep = features
        for block, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            features = block(torch.cat([skip, functional.interpolate(features, scale_factor=2, mode="nearest")], 1))
        return features, deep


class _Modulated(nn.Module):
    """A 3x3 convolution whose normalised channels are scaled and shifted by a style (Perez et al. 2018, FiLM)."""

    def __init__(self, channels_in: int, channels_out: int, style: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.normalisation = nn.GroupNorm(_GROUPS, channels_out, affine=False)
        self.modulation = nn.Linear(style, 2 * channels_out)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        return self.modulate(self.convolution(features), style)

    def modulate(self, convolved: Tensor, style: Tensor) -> Tensor:
        """All that follows the convolution."""
        scale, shift = self.modulation(style)[..., None, None].chunk(2, dim=1)
        out: Tensor = functional.silu(self.normalisation(convolved) * (1.0 + scale) + shift)
        return out


@dataclass(frozen=True)
class Layers:
    """What the U-Net sees in N images of (C, H, W)."""

    geometry: Tensor
    """(N, 4 * K, H/2, W/2) in [-1, 1]: K features per pixel as blocks of 2x2, 0 where the mask is below 0.1."""
    mask: Tensor
    """(N, 1, H, W) logits of the hand and all that belongs to the pose."""
    plate: Tensor
    """(N, C, H, W) in [0, 1], the background as the network guesses it behind the hand. It is learned from and not
    shown: mixes take the picture with the hand painted out (`plate`)."""
    features: Tensor
    """(N, width, H/2, W/2), for the style."""
    deep: Tensor
    """(N, 4 * width, H/16, W/16), for the style."""


@dataclass(frozen=True)
class Look:
    """Light and style of N hands."""

    light: Tensor
    """(N, K + 1, C): pixel = light[0] + sum over k of light[k + 1] * geometry[k]."""
    style: Tensor
    """(N, style)."""


def fit_light(geometry: Tensor, images: Tensor, weight: Tensor) -> Tensor:
    """Regress pixels on geometry features by least squares with a small ridge, in closed form.

    Args:
        geometry: (N, 4 * K, H/2, W/2).
        images: (N, C, H, W).
        weight: (N, 1, H, W) of each pixel, >= 0: the hand's mask.

    Returns:
        (N, K + 1, C) coefficients, the constant first.
    """
    basis = _basis(geometry)
    weighted = basis * weight.float().flatten(2)
    count = weight.float().flatten(2).sum(2, keepdim=True).clamp_min(1.0)
    normal = weighted @ basis.transpose(1, 2) / count
    right = weighted @ images.float().flatten(2).transpose(1, 2) / count
    ridge = torch.full((normal.shape[-1],), _RIDGE, device=normal.device)
    ridge[0] = 1e-4  # hardly any on the constant: without features the fit is the mean
    solution: Tensor = torch.linalg.solve(normal + torch.diag(ridge), right)
    return solution


def _basis(geometry: Tensor) -> Tensor:
    """(N, 4 * K, H/2, W/2) -> (N, K + 1, H * W) float32, a 1 first."""
    pixels = functional.pixel_shuffle(geometry.float(), 2).flatten(2)
    return torch.cat([torch.ones_like(pixels[:, :1]), pixels], dim=1)


class LayeredNet(nn.Module):
    """Pose code: geometry and mask. Appearance code: plate, light and style.

    Args:
        channels: Image channels C.
        width: Channels of the U-Net at half resolution.
        geometry: Features per pixel K.
        style: Length of the style.
    """

    def __init__(self, channels: int, width: int, geometry: int, style: int) -> None:
        super().__init__()
        self.channels, self.geometry_features = channels, geometry
        self.unet = _UNet(channels, width)
        # 3x3, not 1x1: the four pixels of a block see more than one another, else the blocks show.
        # Not named `geometry`, as the weights of before were, which knew no hand's end and do not fit.
        self.surface = nn.Conv2d(width, 4 * geometry, 3, padding=1)
        self.mask = nn.Conv2d(width, 4, 3, padding=1)
        self.plate = nn.Conv2d(width, 4 * channels, 3, padding=1)
        self.places = nn.Conv2d(4 * geometry, len(JOINTS), 1)
        self.style = nn.Linear(width + self.unet.deepest + (geometry + 1) * channels, style)
        self.first = _Modulated(4 * (geometry + channels), width, style)
        self.second = _Modulated(width, width, style)
        self.residual = nn.Conv2d(width, 4 * channels, 3, padding=1)
        # Begin with the fitted light alone.
        for weights in self.residual.parameters():
            nn.init.zeros_(weights)

    def forward(self, images: Tensor) -> Layers:
        """Images (N, C, H, W) in [0, 1], H and W multiples of 16 -> layers."""
        features, deep = self.unet(images)
        mask = self.mask(features)
        # Detached: what the mask is, the pictures of the hand shall not say by way of its geometry.
        there = ((mask.detach().float().sigmoid() - _NO_HAND) / (_HAND - _NO_HAND)).clamp(0.0, 1.0)
        surface = torch.tanh(self.surface(features))
        return Layers(
            geometry=surface * there.to(surface.dtype).repeat(1, self.geometry_features, 1, 1),
            mask=functional.pixel_shuffle(mask, 2),
            plate=functional.pixel_shuffle(self.plate(features), 2).sigmoid(),
            features=features,
            deep=deep,
        )

    def look(self, images: Tensor, layers: Layers, mask: Tensor) -> Look:
        """Light and style of the hands in `images`; `mask` (N, 1, H, W) in [0, 1] says where they are."""
        light = fit_light(layers.geometry, images, mask)
        weight = functional.avg_pool2d(mask, 2)
        hand = (layers.features * weight).sum((2, 3)) / weight.sum((2, 3)).clamp_min(1.0)
        return Look(light, self.style(torch.cat([hand, layers.deep.mean((2, 3)), light.flatten(1)], dim=1)))

    def lit(self, geometry: Tensor, light: Tensor) -> Tensor:
        """The hand layer by the linear model: (N, C, H, W) float32, not clipped."""
        pixels = light.float().transpose(1, 2) @ _basis(geometry)
        return pixels.view(*pixels.shape[:2], 2 * geometry.shape[2], 2 * geometry.shape[3])

    def hand(self, geometry: Tensor, look: Look) -> tuple[Tensor, Tensor]:
        """The hand layer (N, C, H, W), and the part of it that the linear model draws."""
        lit = self.lit(geometry, look.light)
        inputs = torch.cat([geometry, functional.pixel_unshuffle(lit, 2).to(geometry.dtype)], dim=1)
        details = self.residual(self.second(self.first(inputs, look.style), look.style))
        return lit + functional.pixel_shuffle(details.float(), 2), lit

    def hand_shared(self, geometry: Tensor, which: Tensor, look: Look) -> Tensor:
        """The hand layers of N looks on P geometries: the first of what `hand(geometry[which], look)` returns.

        The first convolution is linear, so its part over the geometry is computed once for each geometry.

        Args:
            geometry: (P, 4 * K, H/2, W/2).
            which: (N,) the geometry of each look.
            look: N looks.
        """
        channels, weight = geometry.shape[1], self.first.convolution.weight
        pixels = look.light.float().transpose(1, 2) @ _basis(geometry)[which]
        lit = pixels.view(*pixels.shape[:2], 2 * geometry.shape[2], 2 * geometry.shape[3])
        fixed = functional.conv2d(geometry, weight[:, :channels], self.first.convolution.bias, padding=1)
        blocks = functional.pixel_unshuffle(lit, 2).to(geometry.dtype).contiguous(memory_format=torch.channels_last)
        features = functional.conv2d(blocks, weight[:, channels:], padding=1) + fixed[which]
        details = self.residual(self.second(self.first.modulate(features, look.style), look.style))
        return lit + functional.pixel_shuffle(details.float(), 2)

    def compose(self, mask: Tensor, hand: Tensor, plate: Tensor) -> Tensor:
        """Images (N, C, H, W) float32 of a mask's logits, a hand layer and a plate; not clipped."""
        inside = mask.float().sigmoid()
        return inside * hand + (1.0 - inside) * plate.float()

    def place_maps(self, geometry: Tensor) -> Tensor:
        """Logits (N, 21, H/2, W/2) of each joint's place."""
        maps: Tensor = self.places(geometry)
        return maps

"""The blocks of Li et al. 2019, section 4.2, and the discriminator that the paper leaves open.

All tensors are NCHW. "Depth 4" means four halvings: an image of (H, W) becomes features of (H/16, W/16), so both
sides must be multiples of 16. Level k of a network of width w has w * 2**k channels (U-Net's rule; the paper gives no
width). There are no skip connections anywhere here: they would let the decoders bypass the latent codes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from handaug.data_specs.errors import InputError

__all__ = ["DEPTH", "Discriminator", "EncoderBlock", "ImageDecoder", "PoseDecoder", "Trunk", "check_size", "initialise"]

DEPTH = 4
"""Down-samplings of the encoder and up-samplings of the decoders (section 4.2)."""


def check_size(size: tuple[int, int], what: str) -> None:
    """Raise InputError unless both sides of `size` (H, W) are multiples of 16; `what` names the network to the user."""
    factor = 2**DEPTH
    if any(side < factor or side % factor for side in size):
        raise InputError(
            f"{what} halves the image {DEPTH} times and cannot take {size[1]}x{size[0]} pixels: "
            f"use data whose sides are multiples of {factor} (render with --size 64)"
        )


def initialise(module: nn.Module) -> None:
    """Draw all weights at random (He et al. 2015, for ReLU) from torch's global generator and zero the biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in" if isinstance(layer, nn.Conv2d) else "fan_out")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _two_convolutions(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
    ]


class EncoderBlock(nn.Sequential):
    """Two 3x3 convolutions, each with a ReLU, then 2x2 max-pooling with stride 2."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(*_two_convolutions(channels_in, channels_out), nn.MaxPool2d(2))


class Trunk(nn.Module):
    """The first three encoder blocks, which pose and appearance share "before the last downsampling layer"."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [channels, *(width * 2**level for level in range(DEPTH - 1))]
        self.blocks = nn.Sequential(*(EncoderBlock(i, o) for i, o in zip(widths, widths[1:], strict=False)))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> (N, 4 * width, H/8, W/8)."""
        features: Tensor = self.blocks(images * 4.0 - 2.0)  # about zero mean, unit variance
        return features


class PoseDecoder(nn.Module):
    """D_p: four blocks of one 2x2 deconvolution and two 3x3 convolutions, then 21 heatmaps at full resolution."""

    def __init__(self, joints: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level in reversed(range(DEPTH)):
            channels_in = width * 2 ** min(level + 1, DEPTH - 1)
            layers.append(nn.ConvTranspose2d(channels_in, width * 2**level, 2, stride=2))
            layers.extend(_two_convolutions(width * 2**level, width * 2**level))
        self.blocks = nn.Sequential(*layers)
        self.heatmaps = nn.Conv2d(width, joints, 1)

    def forward(self, pose: Tensor) -> Tensor:
        """Pose code (N, 8 * width, H/16, W/16) -> heatmaps (N, joints, H, W), linear, peak about 1."""
        maps: Tensor = self.heatmaps(self.blocks(pose))
        return maps


class _UpConvolution(nn.Conv2d):
    """Nearest-neighbour up-sampling by 2 followed by this 3x3 convolution, in one pass.

    Doubling is a transposed convolution with a 2x2 kernel of ones, so both together are one transposed convolution
    with the 4x4 kernel ones(2, 2) * weight: the same numbers with 16 instead of 36 products per input pixel and
    channel pair, and without the doubled tensor in memory.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        kernel = self.weight.flip(2, 3)
        kernel = functional.pad(kernel, (1, 1, 1, 1))
        kernel = kernel[..., :-1, :] + kernel[..., 1:, :]
        kernel = kernel[..., :-1] + kernel[..., 1:]
        return functional.conv_transpose2d(input, kernel.transpose(0, 1), self.bias, stride=2, padding=1)


class ImageDecoder(nn.Module):
    """D_I: four blocks of nearest-neighbour up-sampling and two 3x3 convolutions.

    The paper replaces only the deconvolution; its Fig. 3 does not say how many convolutions follow. The convolution
    after the up-sampling counts as the first of the block's two, because the decoder runs four times in each training
    step.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level in reversed(range(DEPTH)):
            # The first block reads pose and appearance codes side by side, each of 8 * width channels.
            channels_in = width * 2 ** (level + 1)
            layers += [_UpConvolution(channels_in, width * 2**level), nn.ReLU(inplace=True)]
            layers += [nn.Conv2d(width * 2**level, width * 2**level, 3, padding=1), nn.ReLU(inplace=True)]
        self.blocks = nn.Sequential(*layers)
        self.pixels = nn.Conv2d(width, channels, 1)

    def forward(self, pose: Tensor, appearance: Tensor) -> Tensor:
        """Two codes (N, 8 * width, H/16, W/16) -> images (N, C, H, W) in [0, 1]."""
        pixels: Tensor = self.pixels(self.blocks(torch.cat([pose, appearance], dim=1)))
        return pixels.sigmoid()


class Discriminator(nn.Module):
    """D: says for each patch of the image whether it is real.

    The paper leaves it open. Three strided 4x4 convolutions and a 3x3 one: logits of (H/8, W/8), each seeing about 38
    pixels, so that it judges sharpness and texture and leaves the layout to the L1 terms. No normalisation: batch
    statistics would leak between real and generated halves.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = [channels, width, 2 * width, 4 * width]
        for channels_in, channels_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        self.blocks = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> logits (N, 1, H/8, W/8), positive for real."""
        logits: Tensor = self.blocks(images * 2.0 - 1.0)
        return logits

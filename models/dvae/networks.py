"""Encoders and decoders of Yang & Yao 2019, section 4.1: ResNet-18, DCGAN, six fully connected layers of 512.

The supplementary with the exact architectures is not at hand. What it would have fixed and is chosen here: ResNet-18
is torchvision's with random weights, its first convolution takes our channels and its last layer gives mean and
log-variance; DCGAN starts from a grid of a sixteenth of the image's sides and doubles it four times, batch
normalisation and ReLU between, tanh at the end; the six fully connected layers of 512 are hidden ones with ReLU, and a
linear seventh gives the numbers. Log-variances are clamped to -20..10, which no trained value reaches.
"""

from typing import cast

import torch
from torch import Tensor, nn

__all__ = [
    "HIDDEN_LAYERS",
    "HIDDEN_UNITS",
    "ImageDecoder",
    "ImageEncoder",
    "Posterior",
    "VectorDecoder",
    "VectorEncoder",
]

HIDDEN_LAYERS = 6
HIDDEN_UNITS = 512

Posterior = tuple[Tensor, Tensor]
"""Mean and log-variance (N, d) of a Gaussian with independent dimensions."""


def _hidden(dims: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in [dims] + [HIDDEN_UNITS] * (HIDDEN_LAYERS - 1):
        layers += [nn.Linear(width, HIDDEN_UNITS), nn.ReLU(inplace=True)]
    return layers


def _initialise(module: nn.Module) -> None:
    """He et al. 2015 for the layers under a ReLU, DCGAN's normal of 0.02 for its own; zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)


def _posterior(numbers: Tensor) -> Posterior:
    mean, log_variance = numbers.float().chunk(2, dim=1)
    return mean, log_variance.clamp(-20.0, 10.0)


def _start_near_prior(head: nn.Linear) -> None:
    """Every posterior starts close to N(0, 1), with means that already differ by about a half."""
    nn.init.normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)


class VectorEncoder(nn.Module):
    """q(z | y) of a vector: six hidden layers of 512."""

    def __init__(self, dims: int, latent: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(*_hidden(dims))
        self.head = nn.Linear(HIDDEN_UNITS, 2 * latent)
        _initialise(self)
        _start_near_prior(self.head)

    def forward(self, vectors: Tensor) -> Posterior:
        """(N, dims) -> mean and log-variance, each (N, latent) float32."""
        return _posterior(self.head(self.hidden(vectors)))


class VectorDecoder(nn.Module):
    """Mean of p(y | z) for a vector: six hidden layers of 512."""

    def __init__(self, latent: int, dims: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(*_hidden(latent))
        self.head = nn.Linear(HIDDEN_UNITS, dims)
        _initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        """(N, latent) -> (N, dims) float32."""
        return cast(Tensor, self.head(self.hidden(z))).float()


class ImageEncoder(nn.Module):
    """q(z | image): ResNet-18.

    Args:
        channels: Image channels.
        latent: Dimensions of z.
        side_given: Whether `forward` is told the side of the hand; it becomes one more, constant input channel.
    """

    def __init__(self, channels: int, latent: int, *, side_given: bool = False) -> None:
        super().__init__()
        self.side_given = side_given
        # Seconds to import, and whoever names the methods meets this module.
        from torchvision.models import resnet18

        self.network = resnet18(weights=None, num_classes=2 * latent)
        self.network.conv1 = nn.Conv2d(channels + side_given, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.network.conv1.weight, mode="fan_out", nonlinearity="relu")
        _start_near_prior(self.network.fc)

    def forward(self, images: Tensor, side: Tensor | None = None) -> Posterior:
        """Images (N, C, H, W) in -1..1, side (N,) -1 left or 1 right -> mean and log-variance, each (N, latent)."""
        if self.side_given:
            if side is None:
                raise ValueError("this encoder must be told the side of every hand")
            plane = side.to(images.dtype)[:, None, None, None].expand(-1, 1, *images.shape[2:])
            images = torch.cat([images, plane], dim=1)
        return _posterior(self.network(images))


class ImageDecoder(nn.Module):
    """Mean of p(image | z): DCGAN's generator."""

    def __init__(self, latent: int, channels: int, size: tuple[int, int], width: int) -> None:
        super().__init__()
        self.grid = (8 * width, size[0] // 16, size[1] // 16)
        self.project = nn.Linear(latent, self.grid[0] * self.grid[1] * self.grid[2], bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(8 * width), nn.ReLU(inplace=True)]
        for factor in (4, 2, 1):
            layers.append(nn.ConvTranspose2d(2 * factor * width, factor * width, 4, 2, 1, bias=False))
            layers += [nn.BatchNorm2d(factor * width), nn.ReLU(inplace=True)]
        layers.append(nn.ConvTranspose2d(width, channels, 4, 2, 1))
        self.blocks = nn.Sequential(*layers)
        nn.init.normal_(self.project.weight, std=0.02)
        _initialise(self.blocks)

    def forward(self, z: Tensor) -> Tensor:
        """(N, latent) -> images (N, C, H, W) float32 in -1..1."""
        features = self.project(z).view(-1, *self.grid)
        return cast(Tensor, self.blocks(features)).float().tanh()

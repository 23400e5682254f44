"""Building blocks that the small estimators share."""

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Residual", "convolution", "standardised"]

_LEAST_STD = 0.02
"""About 5 grey levels of 255: an even image stays even instead of becoming all noise."""


def standardised(images: Tensor) -> Tensor:
    """Each image (N, C, H, W) to mean 0 and standard deviation 1: exposure says nothing about where joints are."""
    flat = images.flatten(1)
    mean = flat.mean(1).view(-1, 1, 1, 1)
    spread = flat.var(1, correction=0).sqrt().view(-1, 1, 1, 1)
    return (images - mean) / (spread + _LEAST_STD)


def convolution(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016); the block starts as its shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = convolution(channels_in, channels_out, stride=stride)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        nn.init.zeros_(self.norm.weight)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(self.shortcut(features) + self.norm(self.second(self.first(features))))

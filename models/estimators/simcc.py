"""Coordinate classification: each joint's x and y as a distribution over bins of half a pixel.

The representation is SimCC's (Li et al. 2022), the head RTMPose's (Jiang et al. 2023, section 3.3): a convolution gives
each joint one map, the flattened maps become tokens, a gated attention unit (Hua et al. 2022) lets joints see each
other, and two linear layers classify x and y. Labels are Gaussians over the bins. Where it differs: the backbone is a
small ResNet of our own in place of CSPNeXt, and places are the expectation over the bins around the highest one, which
is finer than a bin.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from handaug.data_specs.joints import JOINTS
from handaug.models.estimators.base import Estimator, labelled_joints, register_estimator
from handaug.models.estimators.blocks import Residual, convolution, standardised
from handaug.models.networks import check_size, initialise

__all__ = ["SimCCEstimator"]

_BINS_PER_PX = 2
_REACH_BINS = 4
"""Bins on either side of the highest one that the expectation reads."""


class _ScaleNorm(nn.Module):
    """x / rms(x) times one learned number."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.gain * functional.normalize(x, dim=-1) * x.shape[-1] ** 0.5
        return scaled


class _GatedAttention(nn.Module):
    """Attention with squared ReLU and one shared key and query space (Hua et al. 2022, FLASH, Eqs. 3 and 4)."""

    def __init__(self, tokens: int, features: int, shared: int) -> None:
        super().__init__()
        self.norm = _ScaleNorm()
        self.shared = shared
        self.spread = nn.Linear(features, 4 * features + shared)
        self.scale = nn.Parameter(torch.ones(2, shared))
        self.shift = nn.Parameter(torch.zeros(2, shared))
        self.bias = nn.Parameter(torch.zeros(tokens, tokens))
        self.out = nn.Linear(2 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        features = x.shape[-1]
        spread = functional.silu(self.spread(self.norm(x)))
        gate, value, base = torch.split(spread, [2 * features, 2 * features, self.shared], dim=-1)
        query, key = (base.unsqueeze(-2) * self.scale + self.shift).unbind(-2)
        weights = functional.relu(query @ key.transpose(-1, -2) / self.shared**0.5 + self.bias).square()
        mixed: Tensor = x + self.out(gate * (weights @ value) / x.shape[-2])
        return mixed


@register_estimator("simcc")
class SimCCEstimator(Estimator):
    """Small ResNet and an RTMPose-style head.

    Args:
        size: Image height and width in pixels, multiples of 16.
        channels: Image channels.
        width: Channels at stride 4.
        tokens: Features of each joint's token.
        sigma: Of the labels, pixels of a 64 pixel image.
    """

    def __init__(
        self, size: tuple[int, int], channels: int, *, width: int = 32, tokens: int = 128, sigma: float = 1.5
    ) -> None:
        super().__init__(size, channels, width=width, tokens=tokens, sigma=sigma)
        check_size(size, "the simcc estimator")
        self.sigma_px = sigma * min(size) / 64.0
        self.backbone = nn.Sequential(
            convolution(channels, width, 7, stride=4),
            Residual(width, 2 * width),
            Residual(2 * width, 4 * width, stride=2),
            Residual(4 * width, 8 * width, stride=2),
        )
        self.to_maps = nn.Conv2d(8 * width, len(JOINTS), 3, padding=1)
        self.to_tokens = nn.Sequential(_ScaleNorm(), nn.Linear(size[0] * size[1] // 256, tokens, bias=False))
        self.attention = _GatedAttention(len(JOINTS), tokens, 64)
        self.classify_x = nn.Linear(tokens, size[1] * _BINS_PER_PX)
        self.classify_y = nn.Linear(tokens, size[0] * _BINS_PER_PX)
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> logits of x (N, 21, 2 W) and of y (N, 21, 2 H)."""
        maps = self.to_maps(self.backbone(standardised(images)))
        tokens = self.attention(self.to_tokens(maps.flatten(2)))
        return self.classify_x(tokens), self.classify_y(tokens)

    def loss(
        self,
        output: tuple[Tensor, Tensor],
        keypoints: Tensor,
        visibility: Tensor,
        weights: Tensor | None = None,
        keypoints_3d: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy with a Gaussian over the bins, in nats, x and y added."""
        labelled = labelled_joints(keypoints, visibility, weights)
        places = torch.where(labelled[..., None] > 0, keypoints.float(), torch.zeros_like(keypoints))
        total = torch.zeros_like(labelled)
        for axis, logits in enumerate(output):
            target = torch.exp(-((_bins(logits) - places[..., axis, None]) ** 2) / (2 * self.sigma_px**2))
            target = target / target.sum(-1, keepdim=True).clamp_min(1e-6)
            total = total - (target * logits.float().log_softmax(-1)).sum(-1)
        return (total * labelled).sum() / labelled.sum().clamp_min(1.0)

    def keypoints(self, output: tuple[Tensor, Tensor]) -> Tensor:
        """Expectation over the bins around the highest one."""
        places = []
        for logits in output:
            centres = torch.arange(logits.shape[-1], device=logits.device)
            peak = logits.argmax(-1, keepdim=True)
            near = (centres - peak).abs() <= _REACH_BINS
            weights = logits.float().masked_fill(~near, float("-inf")).softmax(-1)
            places.append((weights * _bins(logits)).sum(-1))
        return torch.stack(places, dim=-1)


def _bins(logits: Tensor) -> Tensor:
    """Pixel coordinate of each bin: like the cells of a heatmap whose stride is half a pixel."""
    return (torch.arange(logits.shape[-1], dtype=torch.float32, device=logits.device) + 0.5) / _BINS_PER_PX - 0.5

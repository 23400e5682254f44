"""A perceptual distance after LPIPS (Zhang et al. 2018), on the features of any network at hand.

The weights of LPIPS and of the networks it was calibrated on cannot be downloaded everywhere, so this is its
uncalibrated form on an estimator of ours: figures of one network compare models with each other, and are not those of
any paper.
"""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["perceptual_distance"]

_LAYERS = 5
_BATCH = 64


@torch.no_grad()
def perceptual_distance(network: nn.Module, images: Tensor, others: Tensor) -> Tensor:
    """Distance of images in feature space.

    The outputs of five convolutions, evenly spread over the network's depth, are normalised over their channels at
    every place; their squared difference is summed over channels, averaged over places, then over layers.

    Args:
        network: Takes (N, C, H, W) in [0, 1]; in evaluation mode.
        images: (N, C, H, W) in [0, 1].
        others: The same shape.

    Returns:
        (N,) float32 on the CPU: 0 for equal images, at most 4.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    picked = [layers[round(i)] for i in torch.linspace(0, len(layers) - 1, min(_LAYERS, len(layers))).tolist()]
    device = next(network.parameters()).device
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        kept.append(nn.functional.normalize(output.float(), dim=1))

    handles = [layer.register_forward_hook(keep) for layer in picked]
    try:
        distances = []
        for a, b in zip(torch.split(images, _BATCH), torch.split(others, _BATCH), strict=True):
            network(torch.cat([a, b]).to(device))
            half = len(a)
            parts = [(f[:half] - f[half:]).square().sum(1).mean((1, 2)) for f in kept]
            distances.append(torch.stack(parts).mean(0).cpu())
            kept.clear()
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(distances)

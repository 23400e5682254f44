"""Images under affine maps: turned, mirrored, scaled, moved."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["warp"]


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Images as seen through affine maps, bilinear; beyond the border its pixels are repeated.

    Args:
        images: (N, C, H, W) float.
        maps: (N, 2, 3) float32, or (1, 2, 3) for all: pixels (x, y, 1) of the result to pixels of the image.

    Returns:
        (N, C, H, W).
    """
    count, _, height, width = images.shape
    half = torch.tensor([width / 2, height / 2], device=maps.device)
    middle = half - 0.5
    linear, shift = maps[:, :, :2], maps[:, :, 2]
    # From pixels to grid_sample's -1..1, whose zero is the middle of the image and whose one is its border.
    shift = (linear @ middle + shift - middle) / half
    linear = linear * half / half[:, None]
    theta = torch.cat([linear, shift[:, :, None]], dim=2).to(images.device).expand(count, -1, -1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)

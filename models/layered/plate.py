"""The background of a picture with the hand painted out.

What stood behind a hand cannot be known, and the network, which is asked for it in training, draws the hand's own edges
again, faintly: a second hand, which misleads whoever learns from the picture. So in mixes the hole is filled from what
surrounds it, by the push-pull of Gortler et al. 1996 (The Lumigraph, section 3.4): averages of what is known on coarser
and coarser grids, and back, each level used only where the finer ones know nothing.
"""

from torch import Tensor
from torch.nn import functional

__all__ = ["paint_out"]

_RIM = 2
"""Pixels about the hand that are painted out with it, since half a pixel of another hand is seen at once."""
_SURELY_NOT, _SURELY = 0.1, 0.3
"""Of the mask: what is less is background, what is more is hand. Low, because a fingertip costs more than a rim."""
_FAINT = 1e-4
"""Weight of the hand's own pixels, which count only where there is nothing else."""


def paint_out(images: Tensor, mask: Tensor) -> Tensor:
    """Fill the place of the hand from its surroundings.

    Args:
        images: (N, C, H, W).
        mask: (N, 1, H, W) in [0, 1], the hand.

    Returns:
        (N, C, H, W) float32: the images where the mask and a rim about it are clear, a smooth filling elsewhere; the
        image's mean where the mask covers everything.
    """
    images, near = images.float(), functional.max_pool2d(mask.float(), 2 * _RIM + 1, 1, _RIM)
    known = 1.0 - ((near - _SURELY_NOT) / (_SURELY - _SURELY_NOT)).clamp(0.0, 1.0 - _FAINT)
    levels = [(images * known, known)]
    while all(side % 2 == 0 for side in levels[-1][0].shape[2:]):
        seen, weight = levels[-1]
        levels.append((functional.avg_pool2d(seen, 2), functional.avg_pool2d(weight, 2)))
    seen, weight = levels.pop()
    filled = seen + (1.0 - weight) * seen.mean((2, 3), keepdim=True) / weight.mean((2, 3), keepdim=True)
    for seen, weight in reversed(levels):
        coarse = functional.interpolate(filled, scale_factor=2, mode="bilinear", align_corners=False)
        filled = seen + (1.0 - weight) * coarse
    return filled

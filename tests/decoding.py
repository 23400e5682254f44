"""Images of codes in any number, by the function that remix draws blocks with."""

import numpy as np
import torch
from numpy.typing import NDArray

from handaug.augment.codes import decode_levels, padded
from handaug.models.methods import PoseAppearanceModel

__all__ = ["decode_images"]

_BLOCK = 64


def decode_images(
    model: PoseAppearanceModel, pose: NDArray[np.float32], appearance: NDArray[np.float32], device: str
) -> NDArray[np.uint8]:
    """Images (N, H, W, C) uint8 of N pose and N appearance codes."""
    out = []
    for start in range(0, len(pose), _BLOCK):
        block = slice(start, start + _BLOCK)
        p, a = (torch.from_numpy(padded(code[block])).to(device) for code in (pose, appearance))
        levels = decode_levels(model, p, torch.arange(len(p), device=device), a)
        out.append(levels[: len(pose[block])].permute(0, 2, 3, 1).cpu().numpy())
    return np.ascontiguousarray(np.concatenate(out))

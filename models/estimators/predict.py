"""What a trained estimator says of images."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.models.estimators.base import Estimator

__all__ = ["Prediction", "predict"]


@dataclass(frozen=True)
class Prediction:
    """Places by one estimator; first axis N."""

    keypoints: NDArray[np.float32]
    """(N, 21, 2) pixels."""
    keypoints_3d: NDArray[np.float32] | None
    """(N, 21, 3) metres, camera frame, relative to the wrist; None where it estimates 2D only."""


@torch.no_grad()
def predict(estimator: Estimator, images: NDArray[np.uint8]) -> Prediction:
    """Places in a block of images, in one pass.

    Args:
        estimator: On any device; put into evaluation mode.
        images: (N, H, W, C), N of a few hundred.

    Raises:
        InputError: It gives NaN or infinity. Left alone, such a joint would count as one without a label.
    """
    estimator.eval()
    device = next(estimator.parameters()).device
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device).float() / 255.0
    output = estimator(pixels.contiguous(memory_format=torch.channels_last))
    places = estimator.keypoints(output).float().cpu().numpy()
    spatial = estimator.keypoints_3d(output).float().cpu().numpy() if estimator.dimensions == 3 else None
    for found in (places, spatial):
        if found is not None and not np.isfinite(found).all():
            bad = int((~np.isfinite(found)).any((1, 2)).sum())
            raise InputError(
                f"--estimator {estimator.name}: gives NaN or infinity for {bad} of {len(images)} images; lower its "
                "learning rate or repair it"
            )
    return Prediction(places, spatial)

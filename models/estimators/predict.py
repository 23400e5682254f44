"""What a trained estimator says of images."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handaug.data_specs.errors import InputError
from handaug.models.estimators.base import Estimator
from handaug.models.estimators.views import back, view_transforms
from handaug.models.warp import warp

__all__ = ["Prediction", "predict"]


@dataclass(frozen=True)
class Prediction:
    """Places by one estimator; first axis N."""

    keypoints: NDArray[np.float32]
    """(N, 21, 2) pixels."""
    keypoints_3d: NDArray[np.float32] | None
    """(N, 21, 3) metres, camera frame, relative to the wrist; None where it estimates 2D only."""


@torch.no_grad()
def predict(estimator: Estimator, images: NDArray[np.uint8], views: int = 1) -> Prediction:
    """Places in a block of images.

    Args:
        estimator: On any device; put into evaluation mode.
        images: (N, H, W, C), N of a few hundred.
        views: How many views of each image it is asked about, in a pass each (`handaug.models.estimators.views`); each
            coordinate is the median of what it says. With 1, the image itself alone.

    Raises:
        InputError: It gives NaN or infinity. Left alone, such a joint would count as one without a label.
    """
    estimator.eval()
    device = next((part.device for part in (*estimator.parameters(), *estimator.buffers())), torch.device("cpu"))
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device).float() / 255.0
    flat, deep = [], []
    for number, transform in enumerate(view_transforms(views, (images.shape[1], images.shape[2]))):
        seen = warp(pixels, torch.from_numpy(transform)[None]) if number else pixels
        output = estimator(seen.contiguous(memory_format=torch.channels_last))
        places = _finite(estimator.keypoints(output), estimator, len(images))
        spatial = _finite(estimator.keypoints_3d(output), estimator, len(images)) if estimator.dimensions == 3 else None
        places, spatial = back(places, spatial, transform)
        flat.append(places)
        deep += [] if spatial is None else [spatial]
    return Prediction(np.median(flat, 0).astype(np.float32), np.median(deep, 0).astype(np.float32) if deep else None)


def _finite(found: Tensor, estimator: Estimator, rows: int) -> NDArray[np.float32]:
    """An estimator's answer as an array."""
    answer: NDArray[np.float32] = found.float().cpu().numpy()
    if not np.isfinite(answer).all():
        bad = int((~np.isfinite(answer)).any((1, 2)).sum())
        raise InputError(
            f"estimator {estimator.name}: gives NaN or infinity for {bad} of {rows} images; repair it, or train it "
            "with a lower learning rate"
        )
    return answer

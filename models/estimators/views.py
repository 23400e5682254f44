"""Ways to look at one image: turned, scaled and moved a little, so that an estimator can be asked several times.

A network's answer jumps between the hands it takes an image for; such jumps differ from view to view, and the median
over views leaves most of them out. Test-time augmentation costs a forward pass for each view and no training.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["back", "look", "view_transforms"]

TURN = np.radians(30.0)
"""Most that a view is turned by, either way; with `SCALE` and `SHIFT` inside what training's transforms show."""
SCALE = 1.2
"""Most that a view is enlarged or reduced by."""
SHIFT = 0.05
"""Most that a view is moved by along either axis, of the image's side."""
_DRAW = 83


def view_transforms(number: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """The first `number` views of an endless list that never changes; the first one is the image itself.

    Args:
        number: At least 1.
        size: Image height and width in pixels.

    Returns:
        (number, 2, 3): pixels (x, y, 1) of a view to pixels of the image.
    """
    height, width = size
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(_DRAW,)))
    maps = np.tile(np.eye(2, 3), (number, 1, 1))
    for one in maps[1:]:
        angle, zoom, *shift = rng.uniform(-1, 1, 4)
        cosine, sine = np.cos(angle * TURN), np.sin(angle * TURN)
        one[:, :2] = np.array([[cosine, -sine], [sine, cosine]]) * SCALE**zoom
        one[:, 2] = middle + np.array(shift) * SHIFT * (width, height) - one[:, :2] @ middle
    return maps.astype(np.float32)


def look(images: Tensor, transform: NDArray[np.float32]) -> Tensor:
    """Images (N, C, H, W) as one view (2, 3) shows them, bilinear; beyond the border its pixels are repeated, as in
    training."""
    height, width = images.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32), torch.arange(width, dtype=torch.float32), indexing="ij"
    )
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ torch.from_numpy(transform).T
    grid = (places + 0.5) * 2.0 / torch.tensor([width, height]) - 1.0
    return functional.grid_sample(
        images,
        grid.to(images.device).expand(len(images), -1, -1, -1),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )


def back(
    places: NDArray[np.float32], spatial: NDArray[np.float32] | None, transform: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Answers about a view as answers about the image.

    Args:
        places: (N, 21, 2) pixels of the view.
        spatial: (N, 21, 3) metres, camera frame, relative to the wrist. Turning a picture about its middle is turning
            the camera about its axis; scale and shift change nothing but perspective.
        transform: (2, 3), of `view_transforms`.
    """
    linear = transform[:, :2]
    places = places @ linear.T + transform[:, 2]
    if spatial is not None:
        turn = linear / np.sqrt(np.linalg.det(linear))
        spatial = np.concatenate([spatial[..., :2] @ turn.T, spatial[..., 2:]], axis=-1)
    return places, spatial

"""Ways to look at one image: turned, scaled and moved a little, so that an estimator can be asked several times.

A network's answer jumps between the hands it takes an image for; such jumps differ from view to view, and the median
over views leaves most of them out. Test-time augmentation costs a forward pass for each view and no training.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["back", "view_transforms"]

_TURN = np.radians(30.0)
"""Most that a view is turned by, either way; with `_SCALE` and `_SHIFT` inside what training's transforms show."""
_SCALE = 1.2
"""Most that a view is enlarged or reduced by."""
_SHIFT = 0.05
"""Most that a view is moved by along either axis, of the image's side."""
_DRAW = 83


def view_transforms(number: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """The first `number` views of an endless list that never changes; the first one is the image itself.

    Args:
        number: At least 1.
        size: Image height and width in pixels.

    Returns:
        (number, 2, 3): pixels (x, y, 1) of a view to pixels of the image, for `handaug.models.warp`.
    """
    height, width = size
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    rng = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(_DRAW,)))
    maps = np.tile(np.eye(2, 3), (number, 1, 1))
    for one in maps[1:]:
        angle, zoom, *shift = rng.uniform(-1, 1, 4)
        cosine, sine = np.cos(angle * _TURN), np.sin(angle * _TURN)
        one[:, :2] = np.array([[cosine, -sine], [sine, cosine]]) * _SCALE**zoom
        one[:, 2] = middle + np.array(shift) * _SHIFT * (width, height) - one[:, :2] @ middle
    return maps.astype(np.float32)


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

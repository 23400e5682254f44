"""Telling that two rows show the very same picture, whatever their files say of them."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.reader import HandDataset

__all__ = ["EVEN", "picture_ids", "pictures_of"]

EVEN = 0
"""The number of every picture of one level, such as a black frame: two of these are no relatives."""

_BLOCK = 1024


def picture_ids(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """A 63-bit hash of each picture's pixels, `EVEN` for those of one level.

    Args:
        images: (B, H, W, C).
    """
    ids = [int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest(), "big") >> 1 for image in images]
    even = images.min((1, 2, 3)) == images.max((1, 2, 3))
    return np.where(even, EVEN, np.array(ids, np.int64))


def pictures_of(data: HandDataset) -> NDArray[np.int64]:
    """(N,) the same for all rows of a view, read in blocks."""
    blocks = [picture_ids(data.read("images", slice(k, k + _BLOCK))) for k in range(0, len(data), _BLOCK)]
    return np.concatenate(blocks) if blocks else np.empty(0, np.int64)

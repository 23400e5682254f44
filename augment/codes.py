"""Pose and appearance codes of source images, each encoded once and kept in memory-mapped files.

Encoding is bounded by the number of sources, not by the number of images minted from them. Rows are encoded in fixed
blocks, so that a code never depends on who asked for it first: a resumed run finds the same codes to the last bit.
They are kept in half precision: their error is far below one of the 256 levels of an image.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.models.dvae.api import Dvae
from handaug.models.dvae.data import read_poses
from handaug.models.methods import PoseAppearanceModel

__all__ = ["CodeStore", "decode_images", "encode_block", "padded"]

_BLOCK = 128
_MULTIPLE = 64


def padded(rows: NDArray[Any]) -> NDArray[Any]:
    """Repeat the last row until their number is a multiple of 64.

    What passes the check varies, and so does the length of a block. The CPU backend keeps kernels and buffers for every
    batch size it meets: without this, remix grew from 1.6 to 2.4 GB while it minted 20,000 images.
    """
    missing = -len(rows) % _MULTIPLE
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


@torch.no_grad()
def encode_block(model: PoseAppearanceModel, images: NDArray[np.uint8], what: str, device: str) -> NDArray[np.float32]:
    """Codes of uint8 NHWC images, first axis the images.

    Args:
        model: The disentangler, in evaluation mode.
        images: (N, H, W, C).
        what: `pose` or `appearance`.
        device: Where the model is.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device).float() / 255
    code = model.encode_pose(pixels) if what == "pose" else model.encode_appearance(pixels)
    return code.float().cpu().numpy()


@torch.no_grad()
def decode_images(
    model: PoseAppearanceModel, pose: NDArray[np.float32], appearance: NDArray[np.float32], device: str
) -> NDArray[np.uint8]:
    """Images (N, H, W, C) uint8 of codes: clipped to [0, 1], rounded to the nearest of 256 levels, as they will be
    stored.
    """
    codes = (torch.from_numpy(padded(code)).to(device) for code in (pose, appearance))
    images = model.decode(*codes)[: len(pose)]
    levels = (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.cpu().numpy().transpose(0, 2, 3, 1))


class CodeStore:
    """Codes of the rows of one dataset view, encoded block by block when they are first asked for.

    Args:
        model: The disentangler, in evaluation mode.
        data: The view.
        what: `pose` or `appearance`.
        folder: Where the code file lies; it is written anew.
        device: Where the model is.
        mirror: Encode the mirrored images.
    """

    def __init__(
        self,
        model: PoseAppearanceModel,
        data: HandDataset,
        what: str,
        folder: Path,
        device: str,
        *,
        mirror: bool = False,
    ) -> None:
        self._model, self._data, self._what, self._device, self._mirror = model, data, what, device, mirror
        self._path = folder / f"codes-{what}{'-mirrored' if mirror else ''}.npy"
        self._codes: NDArray[np.float16] | None = None
        self._done = np.zeros(-(-len(data) // _BLOCK), bool)

    def get(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Codes of rows by their place in the view, first axis as `index`."""
        for block in np.unique(index // _BLOCK):
            if not self._done[block]:
                self._encode(int(block))
        assert self._codes is not None, "an empty index has no code"
        return self._codes[index].astype(np.float32)

    def encode_all(self, progress: Progress = SILENT) -> None:
        """Encode every block that is missing."""
        with progress.task(f"encode {self._what}", len(self._data), "images") as advance:
            for block in range(len(self._done)):
                if not self._done[block]:
                    self._encode(block)
                advance(min(_BLOCK, len(self._data) - block * _BLOCK))

    def _encode(self, block: int) -> None:
        span = slice(block * _BLOCK, (block + 1) * _BLOCK)
        if self._what == "pose" and isinstance(self._model, Dvae):
            # Its pose factor is encoded from labels, which is what the minted image's label will be.
            rows = np.arange(len(self._data))[span]
            codes = self._model.encode_labels(read_poses(self._data, self._model.config.root, rows)).cpu().numpy()
        else:
            images = self._data.read("images", span)
            images = np.ascontiguousarray(images[:, :, ::-1]) if self._mirror else images
            codes = encode_block(self._model, images, self._what, self._device)
        if self._codes is None:
            self._codes = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
                self._path, mode="w+", dtype=np.float16, shape=(len(self._data), *codes.shape[1:])
            )
        self._codes[span] = codes
        self._done[block] = True

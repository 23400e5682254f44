"""Pose and appearance codes of source images, and images of codes.

Encoding is bounded by the number of sources, not by the number of images minted from them. Codes are made
once, in blocks of fixed rows, and lie in a file that all processes read; they are read by `pread`, not through a
memory map, whose pages would count as memory of each process. Where pose and appearance rows are of different files, or
pose codes too large to keep, each shard makes those of its own pose rows. All are kept in half precision: their error
is far below one of the 256 levels of an image.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handaug.data_specs.errors import WorkError
from handaug.data_specs.reader import HandDataset
from handaug.models.dvae.api import Dvae
from handaug.models.layered.api import LayeredDisentangler
from handaug.models.methods import PoseAppearanceModel
from handaug.models.pose_codes import pose_codes

__all__ = [
    "ENCODE_ROWS",
    "PAD_ROWS",
    "CodeFile",
    "blend_appearances",
    "decode_levels",
    "encode_block",
    "encode_both",
    "encode_poses",
    "padded",
    "prior_block",
]

ENCODE_ROWS = 512
"""Rows of a code file that are encoded in one go."""

PAD_ROWS = 16
"""Blocks are padded to a multiple of this many rows."""

_BLOCK = 64
_PRIOR = 24


def padded(rows: NDArray[Any], multiple: int = PAD_ROWS) -> NDArray[Any]:
    """Repeat the last row until their number is a multiple.

    What passes the check varies, and so does the length of a block. The CPU backend keeps kernels and buffers for every
    batch size it meets: without this, remix grew from 1.6 to 2.4 GB while it minted 20,000 images.
    """
    missing = -len(rows) % multiple
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


@torch.inference_mode()
def encode_block(model: PoseAppearanceModel, images: NDArray[np.uint8], what: str, device: str) -> NDArray[np.float32]:
    """Codes of uint8 NHWC images, first axis the images.

    Args:
        model: The disentangler, in evaluation mode.
        images: (N, H, W, C).
        what: `pose` or `appearance`.
        device: Where the model is.
    """
    out = []
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        pixels = torch.from_numpy(np.ascontiguousarray(padded(block).transpose(0, 3, 1, 2))).to(device).float() / 255
        code = model.encode_pose(pixels) if what == "pose" else model.encode_appearance(pixels)
        out.append(code[: len(block)].float().cpu().numpy())
    return np.concatenate(out)


@torch.inference_mode()
def encode_both(
    model: PoseAppearanceModel, images: NDArray[np.uint8], device: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pose and appearance codes of uint8 NHWC images, in one pass where the model can."""
    if not isinstance(model, LayeredDisentangler):
        return encode_block(model, images, "pose", device), encode_block(model, images, "appearance", device)
    poses, appearances = [], []
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        pixels = torch.from_numpy(np.ascontiguousarray(padded(block).transpose(0, 3, 1, 2))).to(device).float() / 255
        pose, appearance = model.encode_both(pixels)
        poses.append(pose[: len(block)].float().cpu().numpy())
        appearances.append(appearance[: len(block)].float().cpu().numpy())
    return np.concatenate(poses), np.concatenate(appearances)


def encode_poses(
    model: PoseAppearanceModel, data: HandDataset, index: NDArray[np.int64], device: str
) -> NDArray[np.float16]:
    """Pose codes of rows of a view, by their places in it.

    The dVAEs encode poses from labels where they are complete (`handaug.models.pose_codes`), all others from images.
    """
    if isinstance(model, Dvae):
        return pose_codes(model, data, index).cpu().numpy().astype(np.float16)
    blocks = [
        encode_block(model, data.read("images", index[start : start + _BLOCK]), "pose", device).astype(np.float16)
        for start in range(0, len(index), _BLOCK)
    ]
    return np.concatenate(blocks)


def prior_block(model: Dvae, first: int, count: int, seed: int) -> NDArray[np.float32]:
    """Appearance codes number `first` .. `first + count - 1` that a seed draws from the prior.

    `first` is a multiple of `ENCODE_ROWS`, and `count` no larger than that.
    """
    block = first // ENCODE_ROWS
    state = np.random.SeedSequence(seed, spawn_key=(_PRIOR, block)).generate_state(1)
    codes: NDArray[np.float32] = model.prior_appearance(ENCODE_ROWS, int(state[0]))[:count].cpu().numpy()
    return codes


def blend_appearances(
    model: PoseAppearanceModel, first: NDArray[np.float32], second: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Appearance codes between two, weight * first + (1 - weight) * second.

    Of the layered method only light and style are blended. Its plate is a picture: half of two backgrounds would be
    neither of them, so the first one's stays whole.

    Args:
        model: The disentangler.
        first: (N, ...) codes.
        second: (N, ...) codes.
        weight: (N,) of the first.
    """
    share = weight.reshape(-1, *[1] * (first.ndim - 1))
    out: NDArray[np.float32] = share * first + (1 - share) * second
    if isinstance(model, LayeredDisentangler):
        plate = model.channels * model.size[0] * model.size[1]
        out[:, :plate] = first[:, :plate]
    return out


@torch.inference_mode()
def decode_levels(model: PoseAppearanceModel, pose: Tensor, which: Tensor, appearance: Tensor) -> Tensor:
    """Images (N, C, H, W) uint8 of codes on the model's device, clipped to [0, 1] and rounded to the nearest of 256
    levels, as they will be stored.

    Args:
        model: The disentangler.
        pose: (P, ...) codes of distinct poses.
        which: (N,) the pose of each image.
        appearance: (N, ...) codes.
    """
    if isinstance(model, LayeredDisentangler):
        images = model.decode_shared(pose, which, appearance)
    else:
        images = model.decode(pose[which], appearance)
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8)


class CodeFile:
    """Codes of all rows of a source, in half precision; a place in the file is a row.

    Args:
        path: The file.
        rows: How many.
        shape: Of one code.
    """

    def __init__(self, path: Path, rows: int, shape: Sequence[int]) -> None:
        self.path, self.rows, self.shape = path, rows, tuple(shape)
        self._bytes = 2 * int(np.prod(self.shape))
        self._marks = path.with_suffix(".done")
        self._handle: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.rows * self._bytes

    def missing(self) -> list[int]:
        """First rows of the blocks that are not encoded yet; makes the file where there is none.

        Raises:
            WorkError: The disk is full.
        """
        starts = range(0, self.rows, ENCODE_ROWS)
        marks = self._marks.read_bytes() if self._marks.exists() and self.path.exists() else b""
        if len(marks) != len(starts) or self.path.stat().st_size != self.size:
            with open(self.path, "wb") as handle:
                try:
                    os.posix_fallocate(handle.fileno(), 0, max(1, self.size))
                except OSError as error:
                    raise WorkError(
                        f"{self.path}: writing failed ({error.strerror}); free space and run again"
                    ) from error
                handle.truncate(self.size)
            marks = bytes(len(starts))
            self._marks.write_bytes(marks)
        return [start for start, mark in zip(starts, marks, strict=True) if not mark]

    def write(self, start: int, codes: NDArray[np.float32]) -> None:
        """Write a block and wait until the disk has it."""
        handle = os.open(self.path, os.O_WRONLY)
        try:
            os.pwrite(handle, np.ascontiguousarray(codes.astype(np.float16)).tobytes(), start * self._bytes)
            os.fsync(handle)
        finally:
            os.close(handle)

    def mark(self, start: int) -> None:
        """Note that a block is there; one process alone does so."""
        with open(self._marks, "rb+") as handle:
            handle.seek(start // ENCODE_ROWS)
            handle.write(b"\x01")

    def read(self, index: NDArray[np.int64]) -> NDArray[np.float16]:
        """Codes of rows, first axis as `index`."""
        if self._handle is None:
            self._handle = os.open(self.path, os.O_RDONLY)
        out = np.empty((len(index), *self.shape), np.float16)
        flat = out.reshape(len(index), -1).view(np.uint8)
        for k, row in enumerate(index):
            os.preadv(self._handle, [flat[k]], int(row) * self._bytes)
        return out

    def get(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Codes of rows in single precision."""
        return self.read(index).astype(np.float32)

    def close(self) -> None:
        """Let go of the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

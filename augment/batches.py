"""Rows of datasets as training batches, each a function of (seed, step) alone.

Batch slots are filled in a fixed order: slot s of step t holds real row number t * B + s of an endless sequence of
seeded epochs. Where minted rows are mixed in they take the first slots, and the real rows that stay are those that
would stand there anyway: arms of an experiment differ in the minted rows and in nothing else.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from handaug.augment.prefetch import made_beside
from handaug.augment.transforms import PoseBatch, TrainTransform
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.models.fit import Batch

__all__ = ["RowPool", "TrainingBatches", "check_share", "epoch_order"]

# Kinds of random draws: each has its own spawn key, so that one never moves another.
_ORDER, _MINTED_ORDER, _TRANSFORM = 1, 2, 3


class RowPool:
    """Rows of one or more datasets of the same size, under one running index. Labels lie in memory, images stay in
    the files.

    Args:
        datasets: One after the other.
        spatial: Whether to read 3D, relative to the wrist.
        weight_scale: Pixels s at which a checked label counts half: a minted row whose checker disagrees by e weighs
            s^2 / (s^2 + e^2), as a measurement does whose variance grows from s^2 to s^2 + e^2. None weighs all rows 1.

    Raises:
        InputError: 3D is asked for and a dataset has none.
    """

    def __init__(
        self, datasets: Sequence[HandDataset], *, spatial: bool = False, weight_scale: float | None = None
    ) -> None:
        self.datasets = tuple(datasets)
        self._starts = np.cumsum([0, *(len(data) for data in self.datasets)])
        points = np.concatenate([data.read("keypoints_2d") for data in self.datasets])
        self.visibility: NDArray[np.uint8] = np.concatenate([data.read("visibility") for data in self.datasets])
        self.keypoints_2d: NDArray[np.float32] = points
        self.handedness: NDArray[np.uint8] = np.concatenate([data.read("handedness") for data in self.datasets])
        self.size, self.channels = self.datasets[0].size, self.datasets[0].channels
        self.keypoints_3d: NDArray[np.float32] | None = None
        if spatial:
            places = np.concatenate([_three_dimensional(data) for data in self.datasets])
            self.keypoints_3d = places - places[:, :1]
        self.weights: NDArray[np.float32] | None = None
        if weight_scale is not None:
            self.weights = np.concatenate([_weights(data, weight_scale) for data in self.datasets])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def both_hands(self) -> bool:
        """Whether left and right hands occur."""
        return len(np.unique(self.handedness)) == 2

    def images(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images (len(index), H, W, C), in the order asked for."""
        out = np.empty((len(index), *self.size, self.channels), np.uint8)
        owner = np.searchsorted(self._starts, index, side="right") - 1
        for k, data in enumerate(self.datasets):
            mine = np.flatnonzero(owner == k)
            if mine.size:
                out[mine] = data.read("images", index[mine] - self._starts[k])
        return out

    def take(self, index: NDArray[np.int64]) -> PoseBatch:
        """Rows by running index."""
        spatial = None if self.keypoints_3d is None else self.keypoints_3d[index]
        return PoseBatch(
            self.images(index), self.keypoints_2d[index], self.visibility[index], self.handedness[index], spatial
        )

    def weigh(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Weight of each row, by running index."""
        return np.ones(len(index), np.float32) if self.weights is None else self.weights[index]


def _three_dimensional(data: HandDataset) -> NDArray[np.float32]:
    if not data.has("keypoints_3d"):
        raise InputError(f"{data.path}: has no keypoints_3d, which a 3D estimator learns from; give data that has it")
    places: NDArray[np.float32] = data.read("keypoints_3d")
    return places


def _weights(data: HandDataset, scale: float) -> NDArray[np.float32]:
    if not data.has("provenance/label_error_px"):
        return np.ones(len(data), np.float32)
    error = data.read("provenance/label_error_px").astype(np.float32)
    return (scale**2 / (scale**2 + error**2)).astype(np.float32)


def _to_torch(batch: PoseBatch, weights: NDArray[np.float32] | None) -> Batch:
    """Images as NCHW bytes beside their labels; weights and 3D where they are in use."""
    images = torch.from_numpy(np.ascontiguousarray(batch.images.transpose(0, 3, 1, 2)))
    points, visibility = torch.from_numpy(batch.keypoints_2d), torch.from_numpy(batch.visibility)
    if batch.keypoints_3d is not None:
        each = np.ones(len(images), np.float32) if weights is None else weights
        return images, points, visibility, torch.from_numpy(each), torch.from_numpy(batch.keypoints_3d)
    if weights is not None:
        return images, points, visibility, torch.from_numpy(weights)
    return images, points, visibility


def _joined(first: PoseBatch, second: PoseBatch) -> PoseBatch:
    """Rows of one batch before those of another."""
    spatial = None
    if first.keypoints_3d is not None and second.keypoints_3d is not None:
        spatial = np.concatenate([first.keypoints_3d, second.keypoints_3d])
    return PoseBatch(
        np.concatenate([first.images, second.images]),
        np.concatenate([first.keypoints_2d, second.keypoints_2d]),
        np.concatenate([first.visibility, second.visibility]),
        np.concatenate([first.handedness, second.handedness]),
        spatial,
    )


def epoch_order(total: int, seed: int, kind: int, first: int, count: int) -> NDArray[np.int64]:
    """Entries first .. first + count - 1 of the endless sequence of seeded permutations of range(total)."""
    out: list[NDArray[np.int64]] = []
    while count > 0:
        epoch, offset = divmod(first, total)
        order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(kind, epoch))).permutation(total)
        part = order[offset : offset + count]
        out.append(part)
        first, count = first + len(part), count - len(part)
    return np.concatenate(out) if out else np.empty(0, np.int64)


def check_share(flag: str, share: float, batch_size: int) -> None:
    """Refuse a share of the slots that is less than one: arms that differ in it would be the same.

    Args:
        flag: The option that gives the share.
        share: 0 to 1.
        batch_size: Slots in a batch.
    """
    if round(share * batch_size) < 1:
        raise InputError(f"{flag} {share:g}: is no row of --batch-size {batch_size}; raise one of the two")


class TrainingBatches:
    """Endless training batches for `handaug.models.fit.fit_estimator`, images as bytes.

    Args:
        real: Rows that fill the slots.
        batch_size: Slots in a batch.
        seed: Orders and transforms; the order of the real slots does not depend on `minted` or `transform`.
        minted: Rows (minted, or rendered in a further arm) that replace the first `minted_fraction` of the slots. Where
            they have weights, every batch has a weight for each of its rows.
        minted_fraction: Share of the slots, 0 to 1.
        transform: Applied to every row of the batch.
        processes: That make them; 0 makes each where and when it is asked for. Changes no batch.
    """

    def __init__(
        self,
        real: RowPool,
        *,
        batch_size: int,
        seed: int,
        minted: RowPool | None = None,
        minted_fraction: float = 0.25,
        transform: TrainTransform | None = None,
        processes: int = 0,
    ) -> None:
        self._real, self._minted, self._transform = real, minted, transform
        self._batch_size, self._seed, self._processes = batch_size, seed, processes
        self._from_minted = 0 if minted is None else round(minted_fraction * batch_size)

    def __call__(self, first: int) -> Iterator[Batch]:
        """Those of the steps from `first` on, counted from 0; what lies before costs nothing."""
        if self._processes:
            return made_beside(self.of_step, first, self._processes)
        return map(self.of_step, itertools.count(first))

    def of_step(self, step: int) -> Batch:
        """The batch of one step."""
        index = epoch_order(len(self._real), self._seed, _ORDER, step * self._batch_size, self._batch_size)
        index = index[self._from_minted :]
        batch, weights = self._real.take(index), None
        if self._minted is not None and self._from_minted:
            first = step * self._from_minted
            drawn = epoch_order(len(self._minted), self._seed, _MINTED_ORDER, first, self._from_minted)
            batch = _joined(self._minted.take(drawn), batch)
            if self._minted.weights is not None:
                weights = np.concatenate([self._minted.weigh(drawn), self._real.weigh(index)])
        if self._transform is not None:
            state = np.random.SeedSequence(self._seed, spawn_key=(_TRANSFORM, step)).generate_state(1)
            batch = self._transform(batch, seed=int(state[0]))
        return _to_torch(batch, weights)

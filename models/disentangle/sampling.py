"""Which rows make a batch: shuffled passes over the labelled rows, half without labels, or pairs of one pose.

Every draw follows from (seed, epoch), so a run that was stopped goes on with the same batches.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handaug.models.disentangle.config import PAIRED

__all__ = ["RowSampler"]

_ORDER, _MORE, _PAIR = 1, 2, 3
"""Spawn keys, so that these draws share nothing with other uses of the seed."""


class RowSampler:
    """Row numbers of each step; an epoch is one pass over the labelled rows in every phase.

    Args:
        labelled: Rows with labels, numbers 0 to labelled - 1; at least 2.
        unlabelled: Rows without, the numbers after them.
        pose_id: (labelled,) of the labelled rows; None where unknown.
        batch_size: Rows per step, even; fewer where there are fewer labelled rows.
        seed: Of the order.
    """

    def __init__(
        self, labelled: int, unlabelled: int, pose_id: NDArray[np.int64] | None, batch_size: int, seed: int
    ) -> None:
        self._labelled, self._unlabelled, self._seed = labelled, unlabelled, seed
        self.batch = min(batch_size, labelled // 2 * 2)
        """Rows per step."""
        self.epoch_steps = labelled // self.batch
        """Steps per epoch; the last incomplete batch is left out, another one each epoch."""
        ids = np.arange(labelled) if pose_id is None else pose_id
        order = np.argsort(ids, kind="stable")
        cuts = np.flatnonzero(np.diff(ids[order])) + 1
        self.pairs: list[NDArray[np.int64]] = [rows for rows in np.split(order, cuts) if len(rows) > 1]
        """Rows of each pose that has several."""

    def rows_at(self, step: int, phase: int) -> Tensor:
        """Row numbers of a batch; image i of it is paired with image i + half.

        In phase 7 both show one pose. Elsewhere the partner is any other row; where there are unlabelled rows, half of
        the batch is theirs, but not in phase 1, which could not learn from them.
        """
        epoch, position = divmod(step, self.epoch_steps)
        if phase == PAIRED:
            return torch.from_numpy(self._paired(epoch, position))
        if phase == 1 or not self._unlabelled:
            return torch.from_numpy(self._turn(_ORDER, epoch, position, self.batch, self._labelled))
        # Each kind turns at its own pace, and they are shuffled together, so that every kind of pair occurs.
        half = self.batch // 2
        own = self._turn(_ORDER, *divmod(step, max(1, self._labelled // half)), half, self._labelled)
        turns = max(1, self._unlabelled // half)
        more = self._labelled + self._turn(_MORE, *divmod(step, turns), half, self._unlabelled)
        mixed = self._rng(_MORE, epoch, position + 1).permutation(np.concatenate([own, more]))
        return torch.from_numpy(mixed)

    def _turn(self, key: int, epoch: int, position: int, count: int, total: int) -> NDArray[np.int64]:
        """The `position`-th `count` rows of a shuffled pass; a pass shorter than `count` is repeated."""
        order = self._rng(key, epoch).permutation(total)
        return np.resize(order, max(count, total))[position * count : (position + 1) * count]

    def _paired(self, epoch: int, position: int) -> NDArray[np.int64]:
        rng = self._rng(_PAIR, epoch, position)
        poses = rng.choice(len(self.pairs), self.batch // 2, replace=len(self.pairs) < self.batch // 2)
        two = np.stack([rng.choice(self.pairs[pose], 2, replace=False) for pose in poses])
        return two.T.reshape(-1)

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))

"""Training batches: the same real rows in every arm, weights and 3D labels that stay with their rows."""

import multiprocessing
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from toy import write_minted, write_toy

from handaug.augment.batches import RowPool, TrainingBatches
from handaug.augment.transforms import TrainTransform
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset


def test_real_slots_are_the_same_in_every_arm(tmp_path: Path) -> None:
    real = RowPool([HandDataset(write_toy(tmp_path / "real.h5", 12, size=32), split="train")])
    minted = RowPool([HandDataset(write_toy(tmp_path / "other.h5", 12, size=32, seed=9))])
    plain = TrainingBatches(real, batch_size=8, seed=4)(0)
    mixed = TrainingBatches(real, batch_size=8, seed=4, minted=minted, minted_fraction=0.25)(0)
    for _ in range(6):  # more than two epochs
        (images, points), (images_m, points_m) = next(plain)[:2], next(mixed)[:2]
        assert torch.equal(images[2:], images_m[2:]) and torch.equal(points[2:], points_m[2:])
        assert not torch.equal(images[:2], images_m[:2])


def test_an_epoch_visits_every_row_once(tmp_path: Path) -> None:
    pool = RowPool([HandDataset(write_toy(tmp_path / "real.h5", 12, size=32), split="train")])
    batches = TrainingBatches(pool, batch_size=4, seed=0, transform=None)(0)
    seen = torch.cat([next(batches)[1][:, 0] for _ in range(len(pool) // 4)])
    want = torch.from_numpy(pool.keypoints_2d[:, 0])
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, want.tolist()))
    again = TrainingBatches(pool, batch_size=4, seed=0, transform=TrainTransform("light"))(0)
    third = TrainingBatches(pool, batch_size=4, seed=0, transform=TrainTransform("light"))(0)
    assert torch.equal(next(again)[0], next(third)[0])


def test_an_arm_without_real_rows_sees_none(tmp_path: Path) -> None:
    real = RowPool([HandDataset(write_toy(tmp_path / "real.h5", 12, size=32), split="train")])
    other = RowPool([HandDataset(write_toy(tmp_path / "other.h5", 12, size=32, seed=9))])
    points = TrainingBatches(real, batch_size=8, seed=4, minted=other, minted_fraction=1.0).of_step(0)[1]
    known = {tuple(row) for row in other.keypoints_2d[:, 0].tolist()}
    assert all(tuple(row) in known for row in points[:, 0].tolist())


def test_weights_follow_the_label_error_and_stay_with_their_rows(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "real.h5", 12, size=32)
    real = RowPool([HandDataset(source, split="train")])
    error = np.linspace(0, 8, len(real)).astype(np.float32)
    path = write_minted(tmp_path / "minted.h5", source, **{"provenance/label_error_px": error})
    minted = RowPool([HandDataset(path)], weight_scale=2.0)
    assert minted.weights is not None and minted.weights[0] == 1.0
    assert np.interp(2.0, error, minted.weights) == pytest.approx(0.5, abs=0.02), "half at the scale"
    batches = TrainingBatches(real, batch_size=6, seed=0, minted=minted, transform=TrainTransform("light"))(0)
    for _ in range(4):
        images, _, _, weights = next(batches)  # type: ignore[misc]
        assert weights[3:].tolist() == [1.0] * 3 and (weights[:3] < 1.0).any() and len(images) == 6
    assert len(TrainingBatches(real, batch_size=4, seed=0).of_step(0)) == 3, (
        "nobody is told of weights that are not in use"
    )


def test_turning_and_mirroring_a_picture_turns_and_mirrors_3d(tmp_path: Path) -> None:
    """A weak camera (depth the same for all joints): pixels relative to the wrist are metres times f / z, always."""
    pool = RowPool([HandDataset(write_toy(tmp_path / "real.h5", 12, size=32), split="train")], spatial=True)
    batch = TrainingBatches(pool, batch_size=16, seed=0, transform=TrainTransform("standard", flips=True)).of_step(0)
    points, spatial = batch[1].numpy(), batch[4].numpy()  # type: ignore[misc]
    pixels, metres = points - points[:, :1], spatial[..., :2]
    scale = (pixels * metres).sum((1, 2)) / (metres**2).sum((1, 2))
    assert np.abs(pixels - scale[:, None, None] * metres).max() < 0.05
    assert np.ptp(scale) > 10, "the transform did scale"
    assert not spatial[:, 0].any()
    write_toy(tmp_path / "flat.h5", 4, size=32)
    with h5py.File(tmp_path / "flat.h5", "a") as file:
        del file["keypoints_3d"]
    with pytest.raises(InputError, match="has no keypoints_3d"):
        RowPool([HandDataset(tmp_path / "flat.h5")], spatial=True)


def test_batches_made_beside_are_the_same_and_fail_the_same(tmp_path: Path) -> None:
    """From any step on, by any number of processes, which end with the training."""
    path = write_toy(tmp_path / "real.h5", 12, size=32)
    pool = RowPool([HandDataset(path, split="train")])

    def batches(processes: int) -> TrainingBatches:
        standard = TrainTransform("standard", flips=True)
        return TrainingBatches(pool, batch_size=4, seed=1, transform=standard, processes=processes)

    here, beside = batches(0)(7), batches(2)(7)
    for _ in range(12):
        for mine, theirs in zip(next(here), next(beside), strict=True):
            assert torch.equal(mine, theirs)
    del beside
    path.unlink()  # those who make them open it anew
    with pytest.raises(InputError, match=rf"^{path}: no such file[^\n]*$"):
        next(batches(1)(0))
    assert not multiprocessing.active_children()

"""The checker: folds by relation, estimators that never saw what they judge, resume, refusals."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from toy import write_toy

import handaug.augment.batches as batches_module
import handaug.augment.checker as checker_module
from handaug.augment.batches import RowPool
from handaug.augment.checker import (
    CheckerConfig,
    Checkers,
    estimate,
    fingerprint,
    row_errors,
    train_checkers,
)
from handaug.augment.folds import cut_folds
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset

CONFIG = CheckerConfig(width=8, steps=40, batch_size=16)


def pixels(images: NDArray[np.uint8]) -> torch.Tensor:
    """As the checker takes them."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("checker") / "toy.h5", 24, size=32)


@pytest.fixture(scope="module")
def folder(data: Path) -> Path:
    return train_checkers(data, data.parent / "checker", CONFIG, workers=1)


def test_folds_are_balanced_and_never_part_relatives() -> None:
    rng = np.random.default_rng(0)
    group, image = rng.integers(0, 300, 2000), rng.integers(0, 1500, 2000)
    pose = group * 10 + rng.integers(0, 3, 2000)  # poses lie inside groups
    frame = np.where(rng.random(2000) < 0.02, image, 10_000 + np.arange(2000))  # a few frames tie groups together
    fold = cut_folds(group, pose, frame, np.ones(len(group), bool), seed=3)
    for ids in (group, pose, frame):
        for value in np.unique(ids):
            assert len(np.unique(fold[ids == value])) == 1
    assert abs(np.mean(fold) - 0.5) < 0.01
    assert np.array_equal(fold, cut_folds(group, pose, frame, np.ones(len(group), bool), seed=3))
    assert not np.array_equal(fold, cut_folds(group, pose, frame, np.ones(len(group), bool), seed=4))


def test_row_errors_are_mean_distances_over_labelled_joints() -> None:
    true = np.zeros((2, 21, 2), np.float32)
    found = true + np.array([3.0, 4.0], np.float32)
    seen = np.zeros((2, 21), np.uint8)
    seen[0, :2] = (1, 2)
    found[0, 0] = 0
    errors = row_errors(found, true, seen)
    assert errors[0] == pytest.approx(2.5) and np.isnan(errors[1])


def test_estimator_k_is_trained_without_fold_k(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image that reaches training is recorded: none of fold k, nor of its groups, reaches estimator k."""
    true_pool = RowPool
    seen: list[NDArray[Any]] = []

    class Recorder(true_pool):  # type: ignore[valid-type,misc]
        def images(self, index: NDArray[Any]) -> NDArray[Any]:
            seen[-1] = np.union1d(seen[-1], self.datasets[0].rows[index])
            result: NDArray[Any] = super().images(index)
            return result

        def __init__(self, datasets: list[HandDataset]) -> None:
            seen.append(np.empty(0, np.int64))
            super().__init__(datasets)

    monkeypatch.setattr(batches_module, "RowPool", Recorder)
    checkers = Checkers.load(train_checkers(data, tmp_path / "checker", CONFIG, workers=1))
    view = HandDataset(data, split="train")
    folds, groups = checkers.folds_of(view), view.read("group")
    assert set(folds) == {0, 1} and len(seen) == 2
    for k in (0, 1):
        trained_groups = groups[np.isin(view.rows, seen[k])]
        assert len(trained_groups) and not np.isin(trained_groups, groups[folds == k]).any()
        assert set(seen[k]) == set(view.rows[folds != k]), "40 steps of 16 rows see every row of the other fold"


def test_unlabelled_rows_follow_their_labelled_relatives(tmp_path: Path) -> None:
    group, alone = np.array([0, 0, 1, 1, 2, 3]), np.arange(6)
    labelled = np.array([True, False, True, True, False, True])
    fold = cut_folds(group, alone, alone, labelled, seed=0)
    assert fold[0] == fold[1] != -1 and fold[2] == fold[3] != -1 and fold[4] == -1, "a row of strangers is free"
    path = write_toy(tmp_path / "toy.h5", 24, size=32, pool=12)
    with h5py.File(path, "r+") as file:
        first = np.unique(file["pose_id"][:], return_index=True)[1]
        file["visibility"][np.sort(first)] = 0
    view = HandDataset(path, split="train")
    checkers = Checkers.load(train_checkers(path, tmp_path / "checker", replace(CONFIG, steps=1), workers=1))
    folds, poses = checkers.folds_of(view), view.read("pose_id")
    assert set(folds) == {0, 1} and all(len(set(folds[poses == pose])) == 1 for pose in poses)


def test_threshold_is_the_90th_percentile_of_held_out_errors(data: Path, folder: Path) -> None:
    checkers = Checkers.load(folder)
    view = HandDataset(data, split="train")
    images, true, seen = (view.read(name) for name in ("images", "keypoints_2d", "visibility"))
    folds = checkers.folds_of(view)
    errors = np.empty(len(view))
    for k in (0, 1):
        errors[folds == k] = row_errors(
            checkers.predict(k, pixels(images[folds == k])), true[folds == k], seen[folds == k]
        )
    assert checkers.threshold_px == pytest.approx(np.percentile(errors, 90), rel=1e-4)
    assert np.isfinite(errors).all()


def test_rows_of_val_and_test_were_never_seen(data: Path, folder: Path) -> None:
    checkers = Checkers.load(folder)
    for split in ("val", "test"):
        assert (checkers.folds_of(HandDataset(data, split=split)) == -1).all()


def test_other_files_are_known_by_pose_and_group(data: Path, folder: Path, tmp_path: Path) -> None:
    checkers = Checkers.load(folder)
    own = checkers.folds_of(HandDataset(data))
    # The same poses in another file (other appearances): the relation is seen though the checksum differs.
    twin = HandDataset(write_toy(tmp_path / "twin.h5", 24, size=32, pool=12))
    assert twin.checksum != HandDataset(data).checksum
    assert np.array_equal(checkers.folds_of(twin), own)
    stranger = write_toy(tmp_path / "stranger.h5", 24, size=32, seed=5)
    _edit(stranger, pose_id=lambda v: v + 1000, group=lambda v: v + 1000)
    assert (checkers.folds_of(HandDataset(stranger)) == -1).all()
    # A pose of fold 0 in a group of fold 1: both estimators saw relatives, none may judge.
    view = HandDataset(data)
    poses = view.read("pose_id")
    other_side = int(poses[own == 1][0])
    torn = write_toy(tmp_path / "torn.h5", 24, size=32, pool=12)
    _edit(torn, group=lambda v: np.where(v == int(poses[own == 0][0]), other_side, v))
    with pytest.raises(InputError, match="both of its estimators saw"):
        checkers.folds_of(HandDataset(torn))


def _edit(path: Path, **changes: object) -> None:
    with h5py.File(path, "r+") as file:
        for name, change in changes.items():
            file[name][:] = change(file[name][:])  # type: ignore[operator]


def test_data_of_another_size_is_refused(folder: Path, tmp_path: Path) -> None:
    other = HandDataset(write_toy(tmp_path / "small.h5", 8, size=16))
    with pytest.raises(InputError, match="16 x 16 px"):
        Checkers.load(folder).folds_of(other)


def test_an_interrupted_training_keeps_its_finished_fold(
    data: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_train = checker_module._train_fold

    def stop_at_the_second(*args: object) -> object:
        if args[3] == 1:
            raise KeyboardInterrupt
        return true_train(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(checker_module, "_train_fold", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        train_checkers(data, tmp_path / "checker", CONFIG, workers=1)
    assert not (tmp_path / "checker").exists()
    first = tmp_path / "checker.partial" / "fold-0" / "model.safetensors"
    written = first.stat().st_mtime_ns
    monkeypatch.undo()
    train_checkers(data, tmp_path / "checker", CONFIG, workers=1)
    assert (tmp_path / "checker" / "fold-0" / "model.safetensors").stat().st_mtime_ns == written
    assert not (tmp_path / "checker.partial").exists()
    assert fingerprint(tmp_path / "checker") == fingerprint(folder), "the same settings give the same checker"


def test_a_checker_learns(tmp_path: Path) -> None:
    """Against the trivial estimator that always answers with the mean pose."""
    source = write_toy(tmp_path / "toy.h5", 64, size=32)
    checkers = Checkers.load(
        train_checkers(source, tmp_path / "checker", CheckerConfig(width=8, steps=220, batch_size=16), workers=1)
    )
    view = HandDataset(source, split="val")
    images, true, seen = (view.read(name) for name in ("images", "keypoints_2d", "visibility"))
    trivial = row_errors(np.broadcast_to(true.mean((0, 1)), true.shape), true, seen).mean()
    for k in (0, 1):
        assert row_errors(checkers.predict(k, pixels(images)), true, seen).mean() < 0.75 * trivial
    assert estimate(checkers._estimators[0], images[:3]).shape == (3, 21, 2)


def test_other_settings_and_foreign_folders_are_refused(data: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--overwrite"):
        train_checkers(data, folder, CheckerConfig(width=8, steps=41, batch_size=16), workers=1)
    assert train_checkers(data, folder, CONFIG, workers=1) == folder
    with pytest.raises(InputError, match="no such file"):
        Checkers.load(tmp_path)
    with pytest.raises(InputError, match="at least 1"):
        CheckerConfig(steps=0)

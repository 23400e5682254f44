"""Rows of the test that an arm or a model has seen are found by every id they may share."""

from pathlib import Path

import numpy as np
import pytest
from toy import write_minted, write_toy

from handaug.augment.leaks import check_leaks, unknown_training
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset


def test_leaks_are_refused(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "real.h5", 20, size=32)
    train, val, test = (HandDataset(source, split=name) for name in ("train", "val", "test"))
    clean = HandDataset(write_minted(tmp_path / "clean.h5", source))
    check_leaks([train, clean], test, val)
    test_row = int(test.rows[0])
    leaks = {
        "group": {"group": np.full(len(train), int(test.read("group")[0]))},
        "pose_id": {"pose_id": np.full(len(train), int(val.read("pose_id")[0]))},
        "appearance_id": {"appearance_id": np.full(len(train), int(test.read("appearance_id")[0]))},
        "appearance_source": {"provenance/appearance_source": np.full(len(train), test_row)},
        "pose_source": {"provenance/pose_source": np.full(len(train), test_row)},
    }
    for name, changed in leaks.items():
        minted = HandDataset(write_minted(tmp_path / f"{name}.h5", source, **changed))
        with pytest.raises(InputError, match=name):
            check_leaks([train, minted], test, val)
    with pytest.raises(InputError, match="share their group"):
        check_leaks([HandDataset(source)], test, val)
    other = HandDataset(write_toy(tmp_path / "other.h5", 20, size=32), split="test")
    with pytest.raises(InputError, match="group"):
        check_leaks([HandDataset(source, rows=np.arange(40))], other, val)


def test_models_trained_on_a_file_that_nobody_gave_are_named(tmp_path: Path) -> None:
    source = HandDataset(write_toy(tmp_path / "real.h5", 12, size=32))
    minted = HandDataset(write_minted(tmp_path / "minted.h5", source.path))
    assert unknown_training(minted, [source]) == [], "a file without a record says nothing"
    minted.attrs |= {"disentangler_data_checksum": source.checksum, "checker_data_checksum": "another"}
    assert unknown_training(minted, [source]) == ["checker"]

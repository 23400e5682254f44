"""Rows of the test that an arm or a model has seen are found by every id they may share."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from toy import write_minted, write_toy

from handaug.augment.leaks import check_leaks, unknown_training
from handaug.data_specs.errors import InputError
from handaug.data_specs.pictures import EVEN, pictures_of
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import RELATIONS
from handaug.models.seen import seen_attribute


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


def test_held_out_rows_lend_nothing_whatever_their_split_and_other_looks_may_be_allowed(tmp_path: Path) -> None:
    """Photographs of a file whose rows all say train."""
    path = write_toy(tmp_path / "photos.h5", 20, size=32)
    with h5py.File(path, "r+") as file:
        file["split"][:] = 0
    other = write_toy(tmp_path / "renders.h5", 20, size=32, seed=9)
    with h5py.File(other, "r+") as file:
        for name in ("group", "pose_id", "appearance_id"):
            file[name][:] = file[name][:] + 1000
    photos, first = HandDataset(path), 20
    renders, validation = (HandDataset(other, split=name) for name in ("train", "val"))
    after = HandDataset(path, rows=np.arange(first, len(photos)))

    def minted(name: str, **sources: int) -> HandDataset:
        fields = {field: renders.read(field) for field in ("group", "pose_id", "appearance_id")}
        fields |= {f"provenance/{field}": np.full(len(renders), row) for field, row in sources.items()}
        found = HandDataset(write_minted(tmp_path / f"{name}.h5", renders.path, **fields))
        found.attrs |= dict.fromkeys((f"{field}_checksum" for field in sources), photos.checksum)
        return found

    check_leaks([minted("looks", appearance_source=first - 1)], photos, validation, looks=after)
    for name, sources in (("after", {"appearance_source": first}), ("pose", {"pose_source": 0})):
        with pytest.raises(InputError, match=f"minted from a test row .*{next(iter(sources))}"):
            check_leaks([minted(name, **sources)], photos, validation, looks=after)


def test_models_trained_on_a_file_that_nobody_gave_are_named(tmp_path: Path) -> None:
    source = HandDataset(write_toy(tmp_path / "real.h5", 12, size=32))
    minted = HandDataset(write_minted(tmp_path / "minted.h5", source.path))
    assert unknown_training(minted, [source]) == [], "a file without a record says nothing"
    minted.attrs |= {"disentangler_data_checksum": source.checksum, "checker_data_checksum": "another"}
    assert unknown_training(minted, [source]) == ["checker"]
    train, val, test = (HandDataset(source.path, split=name) for name in ("train", "val", "test"))
    minted.attrs |= {seen_attribute(field): train.read(field) for field in RELATIONS}
    assert unknown_training(minted, [source]) == [], "it tells what its models learned from"
    check_leaks([train, minted], test, val)
    for rows, name in ((test, "test"), (val, "validation")):
        minted.attrs[seen_attribute("group")] = np.append(train.read("group"), rows.read("group")[-1])
        with pytest.raises(InputError, match=f"disentangler or checker learned from .* {name} rows"):
            check_leaks([train, minted], test, val)


def _renamed(path: Path) -> Path:
    """Other ids, as an importer gives them to the same pictures under edited annotations."""
    with h5py.File(path, "r+") as file:
        for name in ("group", "pose_id", "appearance_id"):
            file[name][:] = file[name][:] + 1000
    return path


def test_the_same_picture_is_known_whatever_its_file_says(tmp_path: Path) -> None:
    real = write_toy(tmp_path / "real.h5", 20, size=32)
    train, val, test = (HandDataset(real, split=name) for name in ("train", "val", "test"))
    copy = HandDataset(_renamed(write_toy(tmp_path / "copy.h5", 20, size=32)), rows=test.rows[1:])
    with pytest.raises(InputError, match=rf"copy.h5: {len(test) - 1} rows show the very pictures of test rows of .*"):
        check_leaks([train, copy], test, val)
    with pytest.raises(InputError, match="very pictures of test rows"):
        check_leaks([train], test, copy)
    fresh = _renamed(write_toy(tmp_path / "fresh.h5", 20, size=32, seed=9))
    check_leaks([train, HandDataset(fresh)], test, val)
    black = [Path(shutil.copy(path, tmp_path / f"black-{path.name}")) for path in (fresh, real)]
    for path in black:  # frames of one level are no relatives
        with h5py.File(path, "r+") as file:
            file["images"][:] = 0
    check_leaks([HandDataset(black[0])], *(HandDataset(black[1], split=name) for name in ("test", "val")))


def test_pictures_of_the_test_lend_neither_pose_nor_look_from_whatever_file(tmp_path: Path) -> None:
    real, frames = (write_toy(tmp_path / f"{name}.h5", 20, size=32, seed=k) for k, name in enumerate(("real", "lends")))
    train, val, test = (HandDataset(real, split=name) for name in ("train", "val", "test"))
    fresh, known = pictures_of(HandDataset(frames)), pictures_of(test)
    count = len(train)

    def minted(name: str, *, last: int) -> HandDataset:
        pictures = {f"provenance/{which}_picture": fresh[:count].copy() for which in ("pose", "appearance")}
        pictures[f"provenance/{name}_picture"][-1] = last
        return HandDataset(write_minted(tmp_path / "minted.h5", real, **pictures))

    check_leaks([train, minted("pose", last=int(fresh[-1]))], test, val)
    check_leaks([train, minted("pose", last=EVEN)], test, val)
    for name in ("pose", "appearance"):
        with pytest.raises(
            InputError, match=rf"row {count - 1} was minted from a test row of .*real.h5 .{name}_source"
        ):
            check_leaks([train, minted(name, last=int(known[-1]))], test, val)
    others = HandDataset(real, rows=test.rows[:-1])
    check_leaks([train, minted("appearance", last=int(known[-1]))], test, val, looks=others)
    with pytest.raises(InputError, match="pose_source"):
        check_leaks([train, minted("pose", last=int(known[-1]))], test, val, looks=others)

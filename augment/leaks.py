"""No training row may be related to a row that measures it.

Rows are related where they share a group, a pose or the very picture, pixel for pixel. For minted rows the sources
count: the pose source gave `group` and `pose_id`, the appearance source gave `appearance_id`, the pixels of both are
known by a hash, and where the sources are rows of the very file that is tested, the split of these rows is looked up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.data_specs.pictures import EVEN, pictures_of
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import RELATIONS, TRAIN
from handaug.models.seen import related, seen_attribute

__all__ = ["check_leaks", "saw", "shared_rows", "unknown_training"]


def check_leaks(
    training: Sequence[HandDataset], test: HandDataset, validation: HandDataset, *, looks: HandDataset | None = None
) -> None:
    """No row of `training` is related to a row of `test` or `validation`.

    Args:
        training: Views of what estimators learn from: real, minted, renders.
        test: The test rows.
        validation: The rows that choose checkpoints.
        looks: Those test rows whose looks nobody may have learned either; all of them by default.

    Raises:
        InputError: A relation, with the row and the remedy.
    """
    held_out = [_HeldOut.of(test, looks, "test"), _HeldOut.of(validation, None, "validation")]
    for data in training:
        for part in held_out:
            for field in RELATIONS:
                _check_field(data, part.rows, field, part.name)
            if data.kind == "minted":
                _check_models(data, part)
                _check_field(data, part.looks, "appearance_id", part.name)
                for field, row in _held_out_sources(data, part):
                    raise InputError(
                        f"{data.path}: row {row} was minted from a {part.name} row of {part.rows.path} ({field}); mint "
                        "from its train split alone"
                    )
        if data.kind != "minted":
            _check_pictures(data, pictures_of(data), held_out)
    for field in RELATIONS:
        _check_field(validation, test, field, "test")
    _check_pictures(validation, held_out[1].pictures, held_out[:1])


def saw(minted: HandDataset, rows: HandDataset) -> NDArray[np.bool_] | None:
    """Which rows share a group or a pose with what the models behind a minted file learned from; None where the file
    keeps no record of it.
    """
    names = {field: seen_attribute(field) for field in RELATIONS}
    if not set(names.values()) <= set(minted.attrs):
        return None
    return related(rows, {field: minted.attrs[name] for field, name in names.items()})


def _check_models(minted: HandDataset, part: "_HeldOut") -> None:
    shared = saw(minted, part.rows)
    if shared is not None and shared.any():
        raise InputError(
            f"{minted.path}: its disentangler or checker learned from groups or poses of {int(shared.sum())} "
            f"{part.name} rows of {part.rows.path} (the first is row {int(part.rows.rows[shared.argmax()])}); train "
            "them on other data and mint again"
        )


@dataclass(frozen=True)
class _HeldOut:
    rows: HandDataset
    looks: HandDataset
    """Those of its rows that may lend no looks."""
    name: str
    pictures: NDArray[np.int64]
    look_pictures: NDArray[np.int64]

    @classmethod
    def of(cls, rows: HandDataset, looks: HandDataset | None, name: str) -> "_HeldOut":
        pictures = pictures_of(rows)
        if looks is None:
            return cls(rows, rows, name, pictures, pictures)
        return cls(rows, looks, name, pictures, pictures_of(looks))


def _check_pictures(data: HandDataset, pictures: NDArray[np.int64], held_out: Sequence[_HeldOut]) -> None:
    """Other files, other ids, the same pictures: annotations that overlap, or were edited."""
    for part in held_out:
        shared = _same_pictures(pictures, part.pictures)
        if shared.any():
            raise InputError(
                f"{data.path}: {int(shared.sum())} rows show the very pictures of {part.name} rows of {part.rows.path} "
                f"(the first is row {int(data.rows[shared.argmax()])}); separate the two"
            )


def _same_pictures(pictures: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(np.isin(pictures, others) & (pictures != EVEN))


def unknown_training(minted: HandDataset, known: Sequence[HandDataset]) -> list[str]:
    """Models behind a minted file that were trained on none of the files at hand.

    Disentanglers and checkers read the train split of their file alone, so those of a known file have seen no test row
    that the splits keep apart. Of an unknown file nothing can be said.

    Args:
        minted: The minted file.
        known: The files of the experiment.

    Returns:
        Of "disentangler" and "checker" those whose training file is unknown, where the minted file does not tell what
        they learned from (`check_leaks` has looked at it then); a file that names no training file counts as known.
    """
    if saw(minted, minted) is not None:
        return []
    checksums = {data.checksum for data in known}
    found = {name: str(minted.attrs.get(f"{name}_data_checksum", "")) for name in ("disentangler", "checker")}
    return [name for name, checksum in found.items() if checksum and checksum not in checksums]


def shared_rows(data: HandDataset, other: HandDataset, field: str) -> NDArray[np.bool_]:
    """Rows of `data` whose value in a field some row of `other` has too; none where a file lacks the field."""
    if not (data.has(field) and other.has(field)):
        return np.zeros(len(data), bool)
    return np.isin(data.read(field), other.read(field))


def _check_field(data: HandDataset, held_out: HandDataset, field: str, name: str) -> None:
    shared = shared_rows(data, held_out, field)
    if shared.any():
        raise InputError(
            f"{data.path}: {int(shared.sum())} training rows share their {field} with {name} rows of "
            f"{held_out.path} (the first "
            f"is row {int(data.rows[shared.argmax()])}); a gain would be measured on what was learned: separate the "
            "splits"
        )


def _held_out_sources(data: HandDataset, part: _HeldOut) -> Iterator[tuple[str, int]]:
    """Minted rows whose source is held out: by its number, where the source file is the held-out file itself (also
    where that row is outside the train split), and by its picture, whatever the file. Looks count for those of the
    held-out rows alone that may lend none."""
    whole = HandDataset(part.rows.path, fields=["split"])
    split: NDArray[np.uint8] = whole.read("split")
    for name in ("pose_source", "appearance_source", "appearance_source_2"):
        rows, pictures = part.looks.rows, part.look_pictures
        if name == "pose_source":
            rows, pictures = part.rows.rows, part.pictures
        bad = np.zeros(len(data), bool)
        if data.attrs.get(f"{name.removesuffix('_2')}_checksum") == part.rows.checksum and data.has(
            f"provenance/{name}"
        ):
            sources = data.read(f"provenance/{name}")
            bad |= (split[sources] != TRAIN) | np.isin(sources, rows)
        picture = f"provenance/{name.replace('source', 'picture')}"
        if data.has(picture):
            bad |= _same_pictures(data.read(picture), pictures)
        if bad.any():
            yield name, int(data.rows[bad.argmax()])

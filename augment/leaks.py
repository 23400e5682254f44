"""No training row may be related to a row that measures it.

Rows are related where they share a group or a pose. For minted rows the sources count: the pose source gave `group`
and `pose_id`, the appearance source gave `appearance_id`, and where the sources are rows of the very file that is
tested, the split of these rows is looked up.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import TRAIN

__all__ = ["RELATIONS", "check_leaks", "shared_rows", "unknown_training"]

RELATIONS = ("group", "pose_id")
"""Fields that related rows share."""


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
    for data in training:
        for held_out, unseen, name in (
            (test, test if looks is None else looks, "test"),
            (validation, validation, "validation"),
        ):
            for field in RELATIONS:
                _check_field(data, held_out, field, name)
            if data.kind == "minted":
                _check_field(data, unseen, "appearance_id", name)
                for field, row in _held_out_sources(data, held_out, unseen):
                    raise InputError(
                        f"{data.path}: row {row} was minted from a {name} row of {held_out.path} ({field}); mint "
                        "from its train "
                        "split alone"
                    )
    _check_field(validation, test, "group", "test")


def unknown_training(minted: HandDataset, known: Sequence[HandDataset]) -> list[str]:
    """Models behind a minted file that were trained on none of the files at hand.

    Disentanglers and checkers read the train split of their file alone, so those of a known file have seen no test row
    that the splits keep apart. Of an unknown file nothing can be said.

    Args:
        minted: The minted file.
        known: The files of the experiment.

    Returns:
        Of "disentangler" and "checker" those whose training file is unknown; a file without a record counts as known.
    """
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


def _held_out_sources(data: HandDataset, held_out: HandDataset, unseen: HandDataset) -> Iterator[tuple[str, int]]:
    """Minted rows whose source is outside the train split or held out, where the source file is the held-out file
    itself; of the held-out rows only those of `unseen` may lend no looks."""
    whole = HandDataset(held_out.path, fields=["split"])
    split: NDArray[np.uint8] = whole.read("split")
    for name in ("pose_source", "appearance_source", "appearance_source_2"):
        if data.attrs.get(f"{name.removesuffix('_2')}_checksum") == held_out.checksum and data.has(
            f"provenance/{name}"
        ):
            sources = data.read(f"provenance/{name}")
            rows = held_out.rows if name == "pose_source" else unseen.rows
            bad = (split[sources] != TRAIN) | np.isin(sources, rows)
            if bad.any():
                yield name, int(data.rows[bad.argmax()])

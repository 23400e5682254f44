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

__all__ = ["check_leaks", "unknown_training"]


def check_leaks(training: Sequence[HandDataset], test: HandDataset, validation: HandDataset) -> None:
    """No row of `training` is related to a row of `test` or `validation`.

    Args:
        training: Views of what estimators learn from: real, minted, renders.
        test: The test rows.
        validation: The rows that choose checkpoints.

    Raises:
        InputError: A relation, with the row and the remedy.
    """
    for data in training:
        for held_out, name in ((test, "test"), (validation, "validation")):
            for field in ("group", "pose_id"):
                _check_field(data, held_out, field, name)
            if data.kind == "minted":
                _check_field(data, held_out, "appearance_id", name)
                for field, row in _sources_outside_train(data, held_out):
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


def _check_field(data: HandDataset, held_out: HandDataset, field: str, name: str) -> None:
    if not (data.has(field) and held_out.has(field)):
        return
    shared = np.isin(data.read(field), np.unique(held_out.read(field)))
    if shared.any():
        raise InputError(
            f"{data.path}: {int(shared.sum())} training rows share their {field} with {name} rows of "
            f"{held_out.path} (the first "
            f"is row {int(data.rows[shared.argmax()])}); a gain would be measured on what was learned: separate the "
            "splits"
        )


def _sources_outside_train(data: HandDataset, held_out: HandDataset) -> Iterator[tuple[str, int]]:
    """Minted rows whose source is a held-out row, where the source file is the held-out file itself."""
    whole = HandDataset(held_out.path, fields=["split"])
    split: NDArray[np.uint8] = whole.read("split")
    for name in ("pose_source", "appearance_source", "appearance_source_2"):
        if data.attrs.get(f"{name.removesuffix('_2')}_checksum") == held_out.checksum and data.has(
            f"provenance/{name}"
        ):
            sources = data.read(f"provenance/{name}")
            bad = split[sources] != TRAIN
            if bad.any():
                yield name, int(data.rows[bad.argmax()])

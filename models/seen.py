"""What a model has seen: the groups and poses of its training rows, so that nothing of it is ever tested on them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import RELATIONS
from handaug.data_specs.writer import write_atomically

__all__ = ["SEEN", "check_seen", "read_seen", "related", "seen_attribute", "seen_rows", "write_seen"]

SEEN = "seen.safetensors"


def write_seen(folder: Path, learned_from: Iterable[HandDataset], start: Path | None) -> None:
    """Write what a model saw, beside its weights.

    Args:
        folder: Of the checkpoint; made if missing.
        learned_from: Views of the training rows.
        start: The checkpoint it went on from, whose record is added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = (read_seen(start) or {}) if start is not None else {}
    known: dict[str, NDArray[np.int64]] = {}
    views = list(learned_from)
    for field in RELATIONS:
        parts = [data.read(field).astype(np.int64) for data in views if data.has(field)]
        known[field] = np.unique(np.concatenate([*parts, before.get(field, np.empty(0, np.int64))]))
    write_atomically(folder / SEEN, safetensors.numpy.save(known))


def read_seen(folder: Path) -> dict[str, NDArray[np.int64]] | None:
    """Groups and poses that a checkpoint has seen; None where it keeps no record."""
    path = folder / SEEN
    if not path.is_file():
        return None
    try:
        known: dict[str, NDArray[np.int64]] = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: is damaged or truncated; train the model again") from error
    return known


def seen_attribute(field: str) -> str:
    """The root attribute of minted data that holds the ids of a field which the models behind it have seen."""
    return f"models_saw_{field}"


def seen_rows(folder: Path, rows: HandDataset) -> NDArray[np.bool_] | None:
    """Rows that share a group or a pose with what a checkpoint has seen; None where it keeps no record."""
    known = read_seen(folder)
    return None if known is None else related(rows, known)


def related(rows: HandDataset, known: Mapping[str, NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Rows that share an id with known ones, by field."""
    found = np.zeros(len(rows), bool)
    for field, ids in known.items():
        if rows.has(field):
            found |= np.isin(rows.read(field), ids)
    return found


def check_seen(folder: Path, rows: HandDataset, what: str) -> bool:
    """Refuse a checkpoint that has seen relatives of `rows`.

    Args:
        folder: The checkpoint.
        rows: Rows that shall measure or choose it.
        what: Their name to the user: "test" or "validation".

    Returns:
        Whether there was a record to check.

    Raises:
        InputError: It has seen one of their groups or poses.
    """
    shared = seen_rows(folder, rows)
    if shared is None:
        return False
    if shared.any():
        raise InputError(
            f"{folder}: was trained on rows that share their group or pose with {int(shared.sum())} {what} rows of "
            f"{rows.path}; choose a checkpoint that never saw them"
        )
    return True

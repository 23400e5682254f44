"""Some rows of a dataset as a file of their own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from handaug.data_specs.partial import PartialOutput
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import FIELDS
from handaug.data_specs.writer import DatasetWriter

__all__ = ["write_subset"]

_BLOCK = 512
Rows = dict[str, NDArray[Any]]


def write_subset(
    view: HandDataset,
    out: Path,
    config: Mapping[str, Any],
    fields: Sequence[str],
    *,
    kind: str | None = None,
    change: Callable[[Rows], Rows] = lambda rows: rows,
) -> None:
    """Write the rows of a view; a file that was written with this config before stays as it is.

    Args:
        view: The rows.
        out: The new dataset.
        config: Recorded in it; says what the rows are.
        fields: Optional fields to write beside those that every dataset has.
        kind: `rendered`, `minted` or `imported`; the view's by default.
        change: Applied to each block of rows by field, first axis rows.

    Raises:
        InputError: `out` cannot be written, or holds something else.
    """
    work = PartialOutput.open(out, config, overwrite=False)
    if work is None:
        return
    if not work.is_done(0):
        with DatasetWriter(
            work.shard(0),
            kind=kind or view.kind,
            config=dict(config),
            seed=view.seed,
            size=view.size,
            channels=view.channels,
            fields=list(fields),
        ) as writer:
            required = [name for name, field in FIELDS.items() if field.required]
            for block in view.iter_batches(_BLOCK, [*required, *fields]):
                writer.append(change(block))
    work.assemble(1, seed=view.seed)

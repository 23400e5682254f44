"""Merging datasets by copying chunks: pixels are never decompressed, memory does not grow with the number of rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py

from handaug.data_specs.checksum import content_checksum
from handaug.data_specs.errors import InputError
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import check_header, open_file
from handaug.data_specs.schema import FIELDS
from handaug.data_specs.writer import (
    create_field,
    partial_path,
    release_space,
    replace_atomically,
    reserve_space,
    write_attributes,
)

__all__ = ["merge_datasets"]

_LABEL_BLOCK = 8192


def merge_datasets(
    sources: Sequence[Path],
    out: Path,
    *,
    config: Mapping[str, Any],
    seed: int,
    attrs: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> Path:
    """Append datasets of the same kind, size and fields into one file.

    Args:
        sources: The files, in order; at least one.
        out: The merged file; written as `OUT.partial`, then renamed.
        config: The merged file's config.
        seed: Its seed.
        attrs: Further root attributes.
        progress: Told of each file copied.

    Raises:
        InputError: A source is not a finished dataset, or differs from the first in kind, fields or row shapes.
    """
    rows, shapes, kind = _survey(sources)
    temporary = partial_path(out)
    try:
        with h5py.File(temporary, "w", libver=("v110", "v110")) as target:
            reserve_space(temporary, sum(path.stat().st_size for path in sources))
            write_attributes(target, kind=kind, config=config, seed=seed, attrs=attrs or {})
            for name, shape in shapes.items():
                create_field(target, name, sum(rows), shape)
            start = 0
            with progress.task("assemble", len(sources), "files") as advance:
                for path, count in zip(sources, rows, strict=True):
                    with open_file(path) as source:
                        for name in shapes:
                            _copy(source[name], target[name], start)
                    start += count
                    advance(1)
            target.attrs["checksum"] = content_checksum(target)
            target.attrs["complete"] = True
        release_space(temporary)
        replace_atomically(temporary, out)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return out


def _survey(sources: Sequence[Path]) -> tuple[list[int], dict[str, tuple[int, ...]], str]:
    """Rows of each source, the shared row shapes, and the kind."""
    rows: list[int] = []
    first: tuple[dict[str, tuple[int, ...]], str] | None = None
    for path in sources:
        with open_file(path) as file:
            check_header(file, path)
            this = ({name: file[name].shape[1:] for name in FIELDS if name in file}, str(file.attrs["kind"]))
            rows.append(file["images"].shape[0])
        if first is None:
            first = this
        elif this != first:
            raise InputError(f"{path}: differs from {sources[0]} in kind, fields or image size; merge like with like")
    if first is None:
        raise ValueError("nothing to merge")
    return rows, *first


def _copy(source: h5py.Dataset, target: h5py.Dataset, start: int) -> None:
    row_chunks = (1, *source.shape[1:])
    same_storage = source.chunks == target.chunks == row_chunks and source.compression == target.compression
    if same_storage and source.compression_opts == target.compression_opts:
        rest = (0,) * (source.ndim - 1)
        for row in range(source.shape[0]):
            mask, chunk = source.id.read_direct_chunk((row, *rest))
            target.id.write_direct_chunk((start + row, *rest), chunk, mask)
        return
    step = 1 if source.chunks == row_chunks else _LABEL_BLOCK
    for row in range(0, source.shape[0], step):
        block = source[row : row + step]
        target[start + row : start + row + len(block)] = block

"""`export_dataset`: one dataset file in, one folder of a trainer's format out, in bounded memory and resumable.

Rows go through in blocks. A block writes its images into the work folder and leaves its text in a part of its own,
renamed when complete; `Exporter.finish` joins the parts. A kill costs the block in flight.
"""

import json
import math
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from handaug import __version__
from handaug.data_specs.errors import InputError, WorkError, is_full
from handaug.data_specs.exporters.base import ExportConfig, Exporter, Part, Row, get_exporter
from handaug.data_specs.exporters.folder import PartialFolder
from handaug.data_specs.joints import BONES, JOINTS
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import FIELDS, SPLITS
from handaug.data_specs.writer import partial_path, replace_atomically

__all__ = ["ExportCounts", "export_dataset"]

BLOCK_ROWS = 1024
"""Rows that a kill may cost, where the format itself has no shards."""

BATCH_BYTES = 16 << 20
"""Rows held in memory at a time."""

_COUNTS = "counts.json"

_Add = Callable[[str, bytes], None]
"""Takes the name of a file and its content."""


@dataclass(frozen=True)
class ExportCounts:
    """What an export holds."""

    images: int
    """Image files."""
    rows: int
    """Hands."""
    left_out: int
    """Rows that the format cannot hold."""


@dataclass(frozen=True)
class _Block:
    """Rows that are written together."""

    split: str
    number: int
    """Which block of its split."""
    first: int
    """Position of the first row in the split's order."""
    rows: NDArray[np.int64]
    """Row numbers in the file."""
    starts: NDArray[np.int64]
    """Where each image's rows begin in `rows`."""


def export_dataset(
    data: Path, out: Path, config: ExportConfig, *, overwrite: bool = False, progress: Progress = SILENT
) -> ExportCounts | None:
    """Export a dataset.

    Args:
        data: A dataset file.
        out: The folder to make.
        config: What to export, and how.
        overwrite: Whether another export under that name may be replaced.
        progress: Told of each batch of rows.

    Returns:
        What was written; None where `out` is this very export already.

    Raises:
        InputError: The file is no dataset, is damaged or lacks what the format needs, no row is left, or `out` cannot
            be written.
        WorkError: The disk is full.

    Example:
        >>> export_dataset(Path("renders.h5"), Path("coco"), ExportConfig("coco", split="train"))  # doctest: +SKIP
    """
    dataset = HandDataset(data)
    exporter = get_exporter(config.format)(dataset, config)
    blocks, unfit = _plan(dataset, exporter)
    identity = {"export": asdict(config), "source": {"checksum": dataset.checksum, "kind": dataset.kind}}
    with _full_disk_named(out):
        work = PartialFolder.open(out, identity, source=Path(data), overwrite=overwrite)
        if work is None:
            return None
        try:
            with progress.task(f"export {config.format}", sum(len(block.rows) for block in blocks), "rows") as advance:
                for index, block in enumerate(blocks):
                    if not work.is_done(index):
                        with work.block(index) as part:
                            for count in _write(exporter, block, work.folder, part):
                                advance(count)
                    else:
                        advance(len(block.rows))
            parts: dict[str, list[Part]] = {}
            for index, block in enumerate(blocks):
                parts.setdefault(block.split, []).append(work.part(index))
            counts = _count(parts, unfit)
            more = exporter.finish(work.folder, parts)
            work.finish({**_describe(dataset), "counts": asdict(counts), **more})
        except InputError:
            work.remove()  # nothing to go on with: the dataset itself is damaged
            raise
        finally:
            work.release()
    return counts


@contextmanager
def _full_disk_named(out: Path) -> Iterator[None]:
    """Turn a full disk, a quota or a limit on files into one line that names the output."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise WorkError(
                f"{out}: the disk is full; free some space, then the same command goes on from here"
            ) from error
        raise


def _plan(dataset: HandDataset, exporter: Exporter) -> tuple[list[_Block], int]:
    """All blocks, and how many rows the format cannot hold. Each split is numbered for itself."""
    config = exporter.config
    splits = dataset.read("split")
    rows = np.arange(len(dataset))
    if config.split != "all":
        rows = rows[splits == SPLITS[config.split]]
    if not rows.size:
        raise InputError(f"{dataset.path}: has no row of the split {config.split}; there is nothing to export")
    if config.limit is not None:
        rows = _first(dataset, rows, config.limit, exporter.by_frame)
    size = config.shard_rows or exporter.shard_rows or BLOCK_ROWS
    blocks: list[_Block] = []
    for name, value in SPLITS.items():
        mine = exporter.select(rows[splits[rows] == value])
        if not len(mine):
            continue
        order, starts = _frames(dataset, mine, exporter.by_frame)
        cuts = np.searchsorted(starts, np.arange(0, len(order), size)).tolist()  # the first image at or after each
        for number, (low, high) in enumerate(zip(cuts, [*cuts[1:], len(starts)], strict=True)):
            if low == high:
                continue
            first = int(starts[low])
            last = int(starts[high]) if high < len(starts) else len(order)
            blocks.append(_Block(name, number, first, order[first:last], starts[low:high] - first))
    kept = sum(len(block.rows) for block in blocks)
    if not kept:
        why = f"no row has {exporter.needs}, which {config.format} needs"
        raise InputError(f"{dataset.path}: {why}; choose another format")
    return blocks, len(rows) - kept


def _first(dataset: HandDataset, rows: NDArray[np.int64], limit: int, by_frame: bool) -> NDArray[np.int64]:
    """The first `limit` rows; of whole images as many as they hold, since a hand left out would be background."""
    order, starts = _frames(dataset, rows, by_frame)
    ends = np.append(starts[1:], len(order))
    whole = ends[ends <= limit]
    if not whole.size:
        raise InputError(
            f"--limit {limit}: the {ends[0]} hands of the first image stay together; give {ends[0]} or more"
        )
    return np.sort(order[: whole[-1]])


def _frames(
    dataset: HandDataset, rows: NDArray[np.int64], by_frame: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows with those of one image next to each other, in the order of each image's first row; where each begins."""
    if not by_frame or not dataset.has("image_id") or not rows.size:
        return rows, np.arange(len(rows))
    _, first, inverse = np.unique(dataset.read("image_id", rows), return_index=True, return_inverse=True)
    leader = first[inverse.reshape(-1)]
    order = np.argsort(leader, kind="stable")
    leader = leader[order]
    return rows[order], np.flatnonzero(np.r_[True, leader[1:] != leader[:-1]])


def _write(exporter: Exporter, block: _Block, folder: Path, part: Path) -> Iterator[int]:
    """Write one block; yields the number of rows done, batch by batch."""
    images = left_out = 0
    with ExitStack() as stack:
        streams: dict[str, TextIO] = {}
        shard = folder / f"{block.split}-{block.number:06d}.tar"
        add = stack.enter_context(_tar(shard) if exporter.shard_rows is not None else _loose(folder))
        for batch in _batches(exporter, block):
            for place, rows in batch:
                converted = exporter.convert(block.split, place, rows)
                for name, content in converted.files:
                    add(name, content)
                for stream, text in converted.lines:
                    if stream not in streams:
                        streams[stream] = stack.enter_context(open(part / stream, "w", encoding="utf-8"))
                    streams[stream].write(text + "\n")
                images += converted.images
                left_out += converted.left_out
            yield sum(len(rows) for _, rows in batch)
    counts = {"images": images, "rows": len(block.rows) - left_out, "left_out": left_out}
    (part / _COUNTS).write_text(json.dumps(counts), encoding="utf-8")


def _batches(exporter: Exporter, block: _Block) -> Iterator[list[tuple[int, list[Row]]]]:
    """The images of a block with their places, as many at a time as `BATCH_BYTES` allow."""
    ends = np.append(block.starts[1:], len(block.rows)).tolist()
    starts = block.starts.tolist()
    step = max(1, BATCH_BYTES // _row_bytes(exporter))
    for low in range(0, len(starts), step):
        bounds = list(zip(starts[low : low + step], ends[low : low + step], strict=True))
        first, last = bounds[0][0], bounds[-1][1]
        numbers = block.rows[first:last]
        columns = {name: exporter.dataset.read(name, numbers) for name in exporter.fields}
        rows = [{"row": number, **{name: c[i] for name, c in columns.items()}} for i, number in enumerate(numbers)]
        yield [(block.first + a, rows[a - first : b - first]) for a, b in bounds]


def _row_bytes(exporter: Exporter) -> int:
    """Bytes of the pixels of one row."""
    sizes: dict[int | str, int] = {"H": exporter.height, "W": exporter.width, "C": exporter.dataset.channels}
    shapes = [(FIELDS[name].dtype, FIELDS[name].shape) for name in exporter.fields if FIELDS[name].pixels]
    return sum(np.dtype(dtype).itemsize * math.prod(sizes.get(d, 1) for d in shape) for dtype, shape in shapes)


@contextmanager
def _loose(folder: Path) -> Iterator[_Add]:
    """Write files under a folder."""
    made: set[Path] = set()

    def add(name: str, content: bytes) -> None:
        path = folder / name
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        path.write_bytes(content)

    yield add


@contextmanager
def _tar(path: Path) -> Iterator[_Add]:
    """Write files into one tar, the same bytes for the same content; it gets its name when it is complete."""
    temporary = partial_path(path)
    with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:

        def add(name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))

        yield add
    replace_atomically(temporary, path)


def _count(parts: dict[str, list[Part]], unfit: int) -> ExportCounts:
    """The sums over all parts."""
    counts = [json.loads((p.folder / _COUNTS).read_text(encoding="utf-8")) for many in parts.values() for p in many]
    images, rows, left_out = (sum(count[name] for count in counts) for name in ("images", "rows", "left_out"))
    return ExportCounts(images, rows, left_out + unfit)


def _describe(dataset: HandDataset) -> dict[str, Any]:
    """What a reader of the export has to know."""
    return {
        "handaug_version": __version__,
        "source": dataset.path.name,
        "joints": JOINTS,
        "bones": BONES,
        "conventions": {
            "pixels": "x right, y down; the centre of the top-left pixel is (0, 0) unless the format says otherwise",
            "points": "metres, camera frame: x right, y down, z forward",
            "visibility": "0 outside the image or not labelled, 1 hidden, 2 visible",
            "flip": "mirrors x and the handedness; no joint changes its place",
        },
    }

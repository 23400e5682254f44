"""From an opened source to a dataset file: choose, check, decode, cut, write; bounded memory, resumable.

Units are read in the source's order by a few threads (decoding and resizing release the interpreter), and written in
shards of `SHARD_UNITS` units; a shard that is complete is never made again.
"""

import itertools
import json
import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.data_specs.importers.changes import files_digest, listing_digest
from handaug.data_specs.importers.checks import check_hand, check_sample
from handaug.data_specs.importers.crop import DEFAULT_SIZE, Row, cut_hand, whole_size
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import DamagedError, Hand, MissingError, Pixels, Source, Unit, stable_id
from handaug.data_specs.importers.registry import Format, find_format, open_source
from handaug.data_specs.importers.splits import Splitter
from handaug.data_specs.partial import PartialOutput, check_name, claim_output
from handaug.data_specs.progress import SILENT, Advance, Progress
from handaug.data_specs.reader import open_file
from handaug.data_specs.schema import NOT_LABELLED, RIGHT, TRAIN, VAL
from handaug.data_specs.writer import DatasetWriter

__all__ = ["import_dataset"]

SHARD_UNITS = 512
_BLOCK_ROWS, _BLOCK_BYTES = 512, 8 << 20
"""Rows are written in blocks of up to so many, or so many bytes of pixels."""
_SAMPLE_UNITS = 64
_AHEAD = 4
"""Units in flight for each thread."""
_NAMED = 5
"""Left-out files that are named; the rest is counted."""
_IDS = ("pose_id", "image_id")
_FILES = "label_files"
"""Key and attribute: the state of label files that come by the unit. A shard whose files changed is made again, so that
a damaged file that was replaced stops no import from going on."""


@dataclass
class _Result:
    """What came of one unit."""

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> number of hands, or of units whose labels could not be read."""
    named: list[str] = field(default_factory=list)
    """Messages of what `--skip-missing` left out."""


def import_dataset(
    format_name: str,
    source: Path,
    out: Path,
    options: ImportOptions,
    *,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Path:
    """Import a public dataset.

    Args:
        format_name: A key of `handaug.data_specs.importers.registry.FORMATS`.
        source: The dataset's folder, or a COCO JSON file.
        out: The dataset file to write.
        options: What to take and how to cut it.
        overwrite: Whether an output of another configuration may be replaced.
        progress: Told of units done, and of what was left out.

    Returns:
        `out`.

    Raises:
        InputError: The source is not what the format wants, a file or label in it is missing or damaged, or `out`
            cannot be written or holds something else.
        WorkError: The disk is full.
    """
    check_name(out)
    find_format(format_name, source, options)  # before folders are made for the output
    if not out.is_file():
        claim_output(out)  # before the labels are read, which may take minutes
    form, opened = open_source(format_name, source, options)
    splitter = Splitter(opened, options)
    config = {
        "command": "import",
        "format": form.name,
        "source": source.resolve().name,  # where it lies may change
        "units": len(opened),
        "listing": listing_digest(opened),
        "labels": opened.labels,
        _FILES: files_digest(opened, range(len(opened))),
        **options.identity(),
    }
    work = PartialOutput.open(out, config, overwrite=overwrite, by_shard=(_FILES,), absent={"views": "all"})
    if work is None:
        progress.note(f"{out}: complete, nothing to do")
        return out
    for note in (*opened.notes, *splitter.notes):
        progress.note(f"{form.name}: {note}")
    title = f"{source} ({form.title})"
    try:
        sample = _sample(opened, splitter, title)
        job = _Job(opened, splitter, form, options, work, config, _stored_size(sample, options))
        shards, left_out, rows = job.run(progress)
    except BaseException:
        if not any(work.folder.glob("shard-*.h5")):
            work.remove()  # nothing to go on from, so nothing to stand in the way of other options
        work.close()
        raise
    for reason, count in sorted(left_out.items()):
        progress.note(f"{form.name}: {count:,} {reason}")
    if not rows:
        work.remove()
        raise InputError(f"{title}: no hand came through ({_listed(left_out)}); change the options or the source")
    work.assemble(shards, seed=0, attrs={"left_out": json.dumps(left_out, sort_keys=True)}, progress=progress)
    with open_file(out) as file:
        parts, labelled = set(file["split"][:].tolist()), bool(file["visibility"][:].any())
    if labelled and TRAIN in parts and VAL not in parts and options.only is None:
        remedy = "" if options.val or options.shares else "; --val 0.1 takes it from the train part"
        progress.note(f"{form.name}: no val part, which train-pose needs{remedy}")
    return out


def _listed(left_out: Counter[str]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items())) or "it has none"


def _sample(source: Source, splitter: Splitter, title: str) -> list[Hand]:
    """Hands spread over the source; units, axes and order of joints of the labelled ones were found right.

    Raises:
        InputError: The part asked for is empty, or labels are not what the format says.
    """
    chosen = [index for index in range(len(source)) if splitter.wanted(source.unit(index))]
    if not chosen:
        raise InputError(f"{title}: has nothing for --split {splitter.name}; choose another part")
    hands: list[Hand] = []
    for k in np.unique(np.linspace(0, len(chosen) - 1, _SAMPLE_UNITS).astype(int)):
        try:
            hands += source.read(chosen[k])
        except (MissingError, DamagedError):
            continue  # met again in its turn, and named
    sound = [hand for hand in hands if _is_sound(hand)]
    if sound:
        check_sample(sound, title)
    return hands


def _is_sound(hand: Hand) -> bool:
    labelled = hand.visibility != NOT_LABELLED
    values = (v for v in (hand.keypoints_2d, hand.keypoints_3d) if v is not None)
    return bool(labelled.any()) and all(bool(np.isfinite(v[labelled]).all()) for v in values)


def _stored_size(sample: Sequence[Hand], options: ImportOptions) -> tuple[int, int]:
    """Height and width of the stored images."""
    if options.crop == "square":
        side = options.size or DEFAULT_SIZE
        return side, side
    for hand in sample:
        try:
            height, width = hand.image().shape[:2]
        except (MissingError, DamagedError):
            continue  # met again in its turn, and named
        return whole_size(width, height, options)[::-1]
    return DEFAULT_SIZE, DEFAULT_SIZE  # nothing can be read: the first unit says why


class _Job:
    """One import under way."""

    def __init__(
        self,
        source: Source,
        splitter: Splitter,
        form: Format,
        options: ImportOptions,
        work: PartialOutput,
        config: dict[str, Any],
        size: tuple[int, int],
    ) -> None:
        self.source, self.splitter, self.form, self.options = source, splitter, form, options
        self.work, self.config, self.size = work, config, size
        self._named = 0

    def run(self, progress: Progress) -> tuple[int, Counter[str], int]:
        """Make every shard; return their number, what was left out, and the number of rows."""
        left_out: Counter[str] = Counter()
        rows = shards = 0
        made = False  # what a shard may still hold of --limit follows from those before it
        threads = min(4, os.cpu_count() or 1)
        with progress.task("import", len(self.source), "units") as advance, ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(self.source), SHARD_UNITS):
                units = range(start, min(start + SHARD_UNITS, len(self.source)))
                wanted = None if self.options.limit is None else self.options.limit - rows
                if wanted == 0:
                    break
                files = files_digest(self.source, units)
                if not (made and wanted is not None) and self._stands(shards, files):
                    advance(len(units))
                else:
                    made = True
                    results = _ordered(pool, self._unit, units, threads * _AHEAD)
                    self._write(self.work.shard(shards), files, results, wanted, advance, progress)
                with open_file(self.work.shard(shards)) as file:
                    rows += int(file["images"].shape[0])
                    left_out.update(json.loads(file.attrs["left_out"]))
                shards += 1
        return shards, left_out, rows

    def _stands(self, shard: int, files: str) -> bool:
        """Whether a shard is there, and was made from label files in this state."""
        if not self.work.is_done(shard):
            return False
        with open_file(self.work.shard(shard)) as file:
            return bool(file.attrs[_FILES] == files)

    def _write(
        self,
        path: Path,
        files: str,
        results: Iterator[_Result],
        wanted: int | None,
        advance: Advance,
        progress: Progress,
    ) -> None:
        """Write one shard, from label files in the state `files`; `wanted` rows at most."""
        left_out: Counter[str] = Counter()
        with DatasetWriter(
            path,
            kind="imported",
            config=self.config,
            seed=0,
            size=self.size,
            channels=self.options.n_channels,
            fields=(*self.source.fields, *_IDS),
        ) as writer:
            block: list[Row] = []
            rows_at_once = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // (math.prod(self.size) * self.options.n_channels)))
            for result in results:
                left_out.update(result.left_out)
                self._tell(result.named, progress)
                block += result.rows
                if wanted is not None:
                    del block[max(0, wanted - writer.rows) :]
                if len(block) >= rows_at_once:
                    writer.append(_stacked(block))
                    block = []
                advance(1)
                if wanted is not None and writer.rows + len(block) >= wanted:
                    break
            if block:
                writer.append(_stacked(block))
            writer.set_attributes({"left_out": json.dumps(left_out, sort_keys=True), _FILES: files})

    def _tell(self, named: Sequence[str], progress: Progress) -> None:
        for line in named:
            self._named += 1
            if self._named <= _NAMED:
                progress.note(f"left out: {line}")
            elif self._named == _NAMED + 1:
                progress.note("left out: more; the number follows at the end")

    def _unit(self, index: int) -> _Result:
        """Everything of one unit; runs in a thread."""
        result = _Result()
        unit = self.source.unit(index)
        if not self.splitter.wanted(unit):
            return result
        try:
            hands = list(self.source.read(index))
        except (MissingError, DamagedError) as error:
            self._leave_out(result, error)
            return result
        images: dict[Pixels, NDArray[np.uint8]] = {}
        for hand in hands:
            side = RIGHT if hand.side is None and self.options.hands == "both" else hand.side
            if side not in self.options.sides:
                if side is None:
                    result.left_out["hands of unknown side left out by --hands"] += 1
                continue
            try:
                check_hand(hand)
                row = self._cut(hand, images)
            except (MissingError, DamagedError) as error:
                self._leave_out(result, error)
                continue
            if row is None:
                result.left_out["hands without a labelled joint on the image left out"] += 1
                continue
            if hand.side is None and hand.labelled:
                result.left_out["hands of unknown side stored as right"] += 1
            result.rows.append({**row, **self._ids(hand, side, unit)})
        return result

    def _cut(self, hand: Hand, images: dict[Pixels, NDArray[np.uint8]]) -> Row | None:
        for pixels in (hand.image, hand.mask):
            if pixels is not None and pixels not in images:
                images[pixels] = pixels()
        row = cut_hand(hand, images[hand.image], images[hand.mask] if hand.mask else None, self.options)
        if row is not None and row["images"].shape[:2] != self.size:
            height, width = row["images"].shape[:2]
            raise DamagedError(
                f"{hand.name}: its image would be stored as {width} x {height} px, others as {self.size[1]} x "
                f"{self.size[0]}; use --crop square, which makes them alike"
            )
        return row

    def _ids(self, hand: Hand, side: int, unit: Unit) -> Row:
        split, group = self.splitter.place(unit)
        origin = self.source.origin
        return {
            "handedness": np.array(side, np.uint8),
            "split": np.array(split, np.uint8),
            "group": np.array(stable_id(origin, "group", group), np.int64),
            "pose_id": np.array(stable_id(origin, "pose", hand.pose_key), np.int64),
            "image_id": np.array(stable_id(origin, "image", hand.image_key), np.int64),
        }

    def _leave_out(self, result: _Result, error: InputError) -> None:
        if not self.options.skip_missing:
            raise error
        missing = isinstance(error, MissingError)
        result.left_out["left out: a file is missing" if missing else "left out: a file or label is damaged"] += 1
        result.named.append(str(error).replace(", or add --skip-missing", ""))


def _stacked(block: Sequence[Row]) -> Row:
    return {name: np.stack([row[name] for row in block]) for name in block[0]}


def _ordered(
    pool: ThreadPoolExecutor, work: Callable[[int], _Result], items: Sequence[int], ahead: int
) -> Iterator[_Result]:
    """Results in the order of the items, with a bounded number of them under way."""
    waiting: deque[Future[_Result]] = deque()
    rest = iter(items)
    try:
        for item in itertools.islice(rest, ahead):
            waiting.append(pool.submit(work, item))
        while waiting:
            yield waiting.popleft().result()
            for item in itertools.islice(rest, 1):
                waiting.append(pool.submit(work, item))
    finally:
        for future in waiting:
            future.cancel()

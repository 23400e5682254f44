"""Minting labelled images: the pose of one hand, the appearance of another, a label that was checked.

For pose row x and appearance row y the disentangler draws D(p(x), a(y)), rounded to the 256 levels that will be
stored; an estimator that saw neither source (`handaug.augment.checker`) finds the joints in it, and the image is kept
with the label of x only where that estimate is

* within the threshold of x's label (mean Euclidean distance over the joints with visibility >= 1), and
* nearer to x's label than to y's: an appearance code that carries its own pose would put y's hand under x's label, and
* not what the estimator answers for an empty image (nearer to that than 95 % of its answers for true images are): where
  no hand was drawn it falls back on its mean pose, which lies within a wide threshold of many labels.

Each pose row has a quota, filled up with fresh appearances where the check rejects, so that hard poses are not
thinned out; what a pose cannot fill in `max_tries` draws for each wanted image goes to other poses of the same kind,
and the report says so. Work is cut into shards by pose rows; a shard depends on (config, shard) and on the outcome of
earlier passes alone, so a killed run goes on where it was and ends in the same file.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.augment.mint import Mint, RemixConfig
from handaug.augment.pairing import split_quota
from handaug.augment.remix_plan import ShardPlan, ShardState, Tally, first_plans, refill_plans
from handaug.augment.remix_report import RemixReport, read_report, write_report
from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.partial import PartialOutput
from handaug.data_specs.progress import SILENT, Advance, Progress
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.writer import DatasetWriter

__all__ = ["MIN_KEPT_SHARE", "RemixConfig", "remix", "remix_capacity"]

MIN_KEPT_SHARE = 0.10
"""Below this the disentangler is not good enough to mint with."""

_JUDGED_BEFORE_STOPPING = 512
_DECODE_ROWS = 256
_REJECTED_SHOWN = 8
_SHARDS_WITH_REJECTED = 8


def remix_capacity(config: RemixConfig) -> int:
    """How many distinct images the sources could be minted into before the check."""
    return int(Mint(config, "cpu").capacity.sum())


def remix(
    config: RemixConfig, out: Path, *, device: str = "cpu", progress: Progress = SILENT, overwrite: bool = False
) -> RemixReport:
    """Mint a dataset.

    Args:
        config: What from what.
        out: The dataset; side files are `out` with .json (figures) and .png (examples).
        device: Where to decode and check.
        progress: Told of images kept, of the expected time and of the result.
        overwrite: Whether an output of another config may be replaced.

    Returns:
        The report; that of the existing file where `out` is complete.

    Raises:
        InputError: Sources, models or output are wrong, `n` exceeds what the sources can give or the disk can hold.
        WorkError: Fewer than 10 % of the images pass the check, or too few to reach `n`.
    """
    mint = Mint(config, device)
    if mint.capacity.sum() < config.n:
        raise InputError(
            f"--n {config.n}: these sources have {int(mint.capacity.sum())} new combinations; lower --n or give "
            "more --appearances"
        )
    work = PartialOutput.open(out, mint.identity, overwrite=overwrite)
    if work is None:
        progress.note(f"{out}: complete, nothing to do")
        return read_report(out)
    _check_disk(out, config.n, mint.pose_data)
    mint.open_codes(work.folder, progress)
    _expect(mint, config.n, progress)
    tally, shards = _mint_all(mint, work, progress)
    report = write_report(
        out,
        shards=[(work.shard(i), _stats_path(work, i)) for i in range(shards)],
        tally=tally,
        mint_info={**mint.identity, "held_out_percentiles_px": mint.checkers.info["held_out_percentiles_px"]},
        bins=mint.bins,
        bin_names=mint.bin_names,
        poses=mint.poses,
        appearances=mint.appearances,
        tones=mint.tones,
        pose_data=mint.pose_data,
        appearance_data=mint.appearance_data,
    )
    work.assemble(shards, seed=config.seed, attrs=_attributes(mint), progress=progress)
    return report


def _attributes(mint: Mint) -> dict[str, Any]:
    """Root attributes that trace a row back: checksums of the sources, fingerprints of the models."""
    return {
        "pose_source_checksum": mint.pose_data.checksum,
        "appearance_source_checksum": mint.appearance_data.checksum,
        "pose_source_file": mint.pose_data.path.name,
        "appearance_source_file": mint.appearance_data.path.name,
        "disentangler_fingerprint": mint.identity["disentangler"],
        "disentangler_data_checksum": str(mint.model.info.get("data_checksum", "")),
        "checker_fingerprint": mint.identity["checker"],
        "checker_data_checksum": str(mint.checkers.info["data_checksum"]),
        "label_error_threshold_px": mint.threshold,
    }


def _check_disk(out: Path, n: int, data: HandDataset) -> None:
    """Shards and the merged file stand side by side at the end: twice the pixels, with labels and chunk tables."""
    row = data.size[0] * data.size[1] * (data.channels + 0.2) + 1400
    need, free = int(2 * n * row), shutil.disk_usage(out.parent).free
    if need > free:
        raise InputError(
            f"--n {n}: needs about {need / 1e9:.1f} GB in {out.parent}, {free / 1e9:.1f} GB are free; lower --n or "
            "choose another disk"
        )


def _expect(mint: Mint, n: int, progress: Progress) -> None:
    """Say how long it will take, from one block that is timed and thrown away (the one before it warms up)."""
    pose = np.flatnonzero(mint.capacity > 0)[:_DECODE_ROWS]
    picked = [mint.pairing.candidates(int(i), 0, 1)[0] for i in pose]
    appearance = np.concatenate(picked)
    mint.judge(pose[:16], appearance[:16])
    start = time.perf_counter()
    judged = mint.judge(pose, appearance)
    rate = len(pose) / (time.perf_counter() - start)
    share = max(float(judged.keep.mean()), MIN_KEPT_SHARE)
    progress.note(
        f"remix: {n:,} images from {len(mint.poses):,} pose rows x {len(mint.appearances):,} appearance rows, label "
        "error up to "
        f"{mint.threshold:.2f} px; about {n / share / rate / 60:.1f} min on {mint.device} ({rate:,.0f} drawn and "
        "checked a second)"
    )


def _mint_all(mint: Mint, work: PartialOutput, progress: Progress) -> tuple[Tally, int]:
    """All passes: the quotas, then what they left over, until there are `n` images."""
    config = mint.config
    usable = np.flatnonzero(mint.capacity > 0)
    quota = np.zeros(len(mint.poses), np.int64)
    quota[usable] = split_quota(config.n, len(usable), config.seed)
    tally = Tally.empty(quota)
    plans = first_plans(tally, config.seed)
    shards = 0
    with progress.task("remix", config.n, "images") as advance:
        while plans:
            for plan in plans:
                stats = _stats_path(work, shards)
                if not (stats.exists() and work.is_done(shards)):
                    _mint_shard(mint, plan, work.shard(shards), stats, shards, tally, advance)
                else:
                    with np.load(stats) as done:
                        advance(int(done["kept"].sum()))
                with np.load(stats) as done:
                    tally.add(done)
                shards += 1
            plans = refill_plans(tally, mint.capacity, mint.bins, config.seed + shards) if tally.missing else []
    _stop_if_hopeless(tally.tried.sum(), tally.kept.sum(), mint)
    if tally.missing:
        raise WorkError(
            f"{work.out}: only {tally.kept.sum():,} of {config.n:,} images passed the check and no combination is "
            "left; lower --n, "
            "raise --max-label-error or give more --appearances"
        )
    return tally, shards


def _stats_path(work: PartialOutput, shard: int) -> Path:
    return work.folder / f"stats-{shard:06d}.npz"


def _stop_if_hopeless(tried: int, kept: int, mint: Mint) -> None:
    if kept < MIN_KEPT_SHARE * tried:
        raise WorkError(
            f"remix: only {kept:,} of {tried:,} minted images ({kept / tried:.1%}) passed the label check at "
            f"{mint.threshold:.2f} px; train the disentangler longer (handaug disentangle --epochs) or raise "
            "--max-label-error"
        )


def _mint_shard(
    mint: Mint, plan: ShardPlan, path: Path, stats: Path, number: int, tally: Tally, advance: Advance
) -> None:
    """Mint one shard: its images to `path`, its counts to `stats` (first, so that a finished shard always has them)."""
    fields = [*mint.fields, "appearance_id", "image_id", *_provenance()]
    state = plan.start_state(len(mint.tones.names))
    with DatasetWriter(
        path,
        kind="minted",
        config={"shard": number},
        seed=mint.config.seed,
        size=mint.pose_data.size,
        channels=mint.pose_data.channels,
        fields=fields,
    ) as writer:
        for slot, appearance in _rounds(mint, plan, state):
            pose = plan.poses[slot]
            judged = mint.judge(pose, appearance)
            writer.append(mint.rows(pose, appearance, judged))
            tone = mint.tones.index(mint.appearances.tone[appearance])
            state.count(slot, judged.keep, judged.strays, tone, judged.error)
            if number < _SHARDS_WITH_REJECTED:
                state.show_rejected(pose, appearance, judged.images, judged.error, ~judged.keep, _REJECTED_SHOWN)
            advance(int(judged.keep.sum()))
            tried = tally.tried.sum() + state.tried.sum()
            if tried >= _JUDGED_BEFORE_STOPPING:
                _stop_if_hopeless(int(tried), int(tally.kept.sum() + state.kept.sum()), mint)
        state.save(stats)


def _provenance() -> Iterator[str]:
    for name in ("pose_source", "appearance_source", "label_error_px", "label_error_max_px"):
        yield f"provenance/{name}"


def _rounds(mint: Mint, plan: ShardPlan, state: ShardState) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Blocks of (slot in the plan, appearance): each round draws as many candidates as are still wanted, never more."""
    while True:
        slots: list[NDArray[np.int64]] = []
        picked: list[NDArray[np.int64]] = []
        for slot in np.flatnonzero(state.wanted(mint.config.max_tries) > 0):
            want = int(state.wanted(mint.config.max_tries)[slot])
            found, state.place[slot] = mint.pairing.candidates(int(plan.poses[slot]), int(state.place[slot]), want)
            if len(found) < want:
                state.ended[slot] = True
            slots.append(np.full(len(found), slot, np.int64))
            picked.append(found)
        if not slots or not sum(map(len, slots)):
            return
        slot_all, picked_all = np.concatenate(slots), np.concatenate(picked)
        for start in range(0, len(slot_all), _DECODE_ROWS):
            block = slice(start, start + _DECODE_ROWS)
            yield slot_all[block], picked_all[block]

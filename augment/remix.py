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
earlier passes alone, so a killed run goes on where it was and ends in the same file, and so do many processes at a
time.
"""

import json
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.augment.checker import Checkers
from handaug.augment.crew import Crew, hire
from handaug.augment.fits import check_fits
from handaug.augment.mint import Mint, check_prior
from handaug.augment.pairing import split_quota
from handaug.augment.rarity import pose_rarity
from handaug.augment.remix_config import PRIOR, RemixConfig, open_sources, requested
from handaug.augment.remix_plan import Cut, Tally, first_plans, refill_plans
from handaug.augment.remix_report import RemixReport, check_side_file, pose_bins, read_report, write_report
from handaug.augment.remix_work import (
    MIN_KEPT_SHARE,
    Job,
    Shard,
    adopt,
    encode_rows,
    forget,
    mint_shard,
    stop_if_hopeless,
    time_block,
)
from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.partial import PartialOutput
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.space import require_space
from handaug.models.methods import load_run
from handaug.models.seen import read_seen, seen_attribute

__all__ = [
    "MIN_KEPT_SHARE",
    "PRIOR",
    "RemixConfig",
    "check_request",
    "default_workers",
    "find_finished",
    "remix",
    "remix_capacity",
]

_WORTH_PROCESSES = 4096
_WORKER_BYTES = 1 << 30
_ON_GPU = 4
_TIMED_POSES = 24


def remix_capacity(config: RemixConfig) -> int:
    """How many distinct images the sources could be minted into before the check."""
    return int(Mint(config, "cpu").capacity.sum())


def default_workers(n: int, device: str) -> int:
    """Processes for `n` images: one for each core on a CPU as far as memory allows, a few on a GPU, and none beside
    this one where they would take longer to start than to work.
    """
    if n < _WORTH_PROCESSES:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _ON_GPU if device.startswith("cuda") else cores
    return max(1, min(cores, limit, memory // _WORKER_BYTES))


def check_request(config: RemixConfig, out: Path, *, given: Collection[str] = (), training: Path | None = None) -> None:
    """Check, before a missing model is trained, what can be known without it.

    Args:
        config: What from what.
        out: The dataset.
        given: The models that must be there already (`disentangler`, `checker`); others may be.
        training: Dataset that a missing model would be trained on.

    Raises:
        InputError: The sources or a model that is there are wrong or do not fit each other or the training data,
            there are fewer pairs than `n`, or the disk is too small.
    """
    _check_target(config, out)
    poses, lends = open_sources(config)
    if training is not None:
        check_fits(HandDataset(training), poses.size, poses.channels, str(poses.path))
    if "disentangler" in given or config.disentangler.exists():
        model = load_run(config.disentangler)
        check_fits(poses, (model.size[0], model.size[1]), model.channels, str(config.disentangler))
        if config.from_prior:
            check_prior(model)
    elif config.from_prior:
        raise InputError(
            f"--appearances {PRIOR}: there is no {config.disentangler} yet, and what would be trained has none; run "
            "'handaug disentangle --method dvae' first"
        )
    if "checker" in given or config.checker.exists():
        checkers = Checkers.load(config.checker)
        check_fits(poses, checkers.size, checkers.channels, str(config.checker))
    if not config.from_prior and config.n > len(poses) * len(lends):
        raise InputError(
            f"--n {config.n}: {len(poses):,} pose rows and {len(lends):,} appearance rows have fewer pairs; lower --n "
            "or give more --appearances"
        )
    require_space(out, config.n, poses.size, poses.channels, f"--n {config.n}")


def find_finished(config: RemixConfig, out: Path) -> bool:
    """Whether `out` is what this request makes, as far as can be told without a model that is gone.

    Raises:
        InputError: It is something else.
    """
    _check_target(config, out)
    if not out.is_file():
        return False
    wanted = requested(config, *open_sources(config))
    if config.max_label_error is not None:
        wanted["max_label_error_px"] = config.max_label_error
    found = json.loads(HandDataset(out).attrs["config"])
    if any(found.get(name) != value for name, value in wanted.items()):
        raise InputError(f"{out}: exists with another configuration; add --overwrite, or choose another output")
    return True


def _check_target(config: RemixConfig, out: Path) -> None:
    """Before anything is trained, and before --overwrite removes what stands there."""
    if out.resolve() in (config.poses.resolve(), config.lends.resolve()):
        raise InputError(f"{out}: is what the images would be minted from; choose another OUT")
    check_side_file(out)


def remix(
    config: RemixConfig,
    out: Path,
    *,
    device: str = "cpu",
    progress: Progress = SILENT,
    overwrite: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
) -> RemixReport:
    """Mint a dataset.

    Args:
        config: What from what.
        out: The dataset; side files are `out` with .json (figures) and .png (examples).
        device: Where to decode and check.
        progress: Told of images kept, of the expected time and of the result.
        overwrite: Whether an output of another config may be replaced.
        workers: Processes, `default_workers` by default; their number changes nothing of the result.
        scheduler: Address of a Dask scheduler whose workers mint in place of local processes; they must see the files
            and `out`'s folder under the same paths.

    Returns:
        The report; that of the existing file where `out` is complete.

    Raises:
        InputError: Sources, models or output are wrong, `n` exceeds what the sources can give or the disk can hold.
        WorkError: Fewer than 10 % of the images pass the check, or too few to reach `n`.
    """
    if workers is not None and scheduler is not None:
        raise InputError("--workers and --scheduler exclude each other: the scheduler has its own workers, drop one")
    _check_target(config, out)
    count = 1 if scheduler else workers or default_workers(config.n, device)
    if config.from_prior and not out.exists():  # before tables of as many draws are made
        poses, _ = open_sources(config)
        require_space(out, config.n, poses.size, poses.channels, f"--n {config.n}")
    mint = Mint(config, device if count == 1 and scheduler is None else "cpu")
    work = PartialOutput.open(out, mint.identity, overwrite=overwrite)
    if work is None:
        progress.note(f"{out}: complete, nothing to do")
        return read_report(out)
    job = Job(_absolute(config), device, work.folder.resolve())
    try:
        _check_room(mint, work)
        with hire(count, scheduler) as crew:
            tally, shards = _mint_all(mint, work, job, crew, progress)
        report = write_report(out, mint, [(work.shard(i), _stats_path(work, i)) for i in range(shards)], tally)
        work.assemble(shards, seed=config.seed, attrs=_attributes(mint), progress=progress)
    except InputError:
        if not work.shard(0).exists():
            work.remove()  # nothing to resume: leave no trace, and no claim on the name
        raise
    finally:
        forget(job)
        work.close()
    return report


def _absolute(config: RemixConfig) -> RemixConfig:
    """Processes elsewhere have other working directories."""
    lends = config.appearances
    return replace(
        config,
        poses=config.poses.resolve(),
        disentangler=config.disentangler.resolve(),
        checker=config.checker.resolve(),
        appearances=lends if lends is None or config.from_prior else Path(lends).resolve(),
    )


def _check_room(mint: Mint, work: PartialOutput) -> None:
    """Combinations, pairs that are allowed at all, and the disk."""
    n, total = mint.config.n, int(mint.capacity.sum())
    if total == 0:
        raise InputError(
            f"{mint.config.lends}: none of its train rows may be paired with any pose of {mint.config.poses}: they "
            "show occluders where the poses show none, or the other way round, or the same poses; give other "
            "--appearances"
        )
    if total < n:
        raise InputError(f"--n {n}: these sources have {total} new combinations; lower --n or give more --appearances")
    pose = mint.pose_file(work.folder)
    codes = sum(file.size for file in mint.code_files(work.folder).values()) + (pose.size if pose else 0)
    data = mint.pose_data
    require_space(work.out, n, data.size, data.channels, f"--n {n}", more=codes)


def _attributes(mint: Mint) -> dict[str, Any]:
    """Root attributes that trace a row back: checksums of the sources, fingerprints of the models."""
    prior = mint.config.from_prior
    return {
        "pose_source_checksum": mint.pose_data.checksum,
        "appearance_source_checksum": mint.identity["appearances"],
        "pose_source_file": mint.pose_data.path.name,
        "appearance_source_file": "prior of the disentangler" if prior else mint.appearance_data.path.name,
        "disentangler_fingerprint": mint.identity["disentangler"],
        "disentangler_data_checksum": str(mint.model.info.get("data_checksum", "")),
        "checker_fingerprint": mint.identity["checker"],
        "checker_data_checksum": mint.checkers.data_checksum,
        "label_error_threshold_px": mint.threshold,
        "label_checked": mint.config.check,
        **_seen(mint),
    }


def _seen(mint: Mint) -> dict[str, NDArray[np.int64]]:
    """Groups and poses that disentangler and checkers learned from, as root attributes: a gain is measured on none of
    them. Nothing where the disentangler keeps no record.
    """
    known = read_seen(mint.config.disentangler)
    if known is None:
        return {}
    return {seen_attribute(field): np.union1d(ids, mint.checkers.seen[field]) for field, ids in known.items()}


def _mint_all(mint: Mint, work: PartialOutput, job: Job, crew: Crew, progress: Progress) -> tuple[Tally, int]:
    """Codes, then all passes: the quotas, then what they left over, until there are `n` images."""
    config = mint.config
    mint.save_sources(work.folder)
    mint.open_codes(work.folder)
    if crew.inside:
        adopt(job, mint)
    _encode(mint, job, crew, progress)
    quota = _quota(mint)
    tally, cut = Tally.empty(quota), Cut.of(config.n, mint.pose_code_bytes)
    plans = first_plans(tally, config.seed, cut)
    bins, _ = pose_bins(mint.pose_data)
    _expect(mint, job, crew, plans[0].poses[:_TIMED_POSES], progress)
    shards = 0
    with progress.task("remix", config.n, "images") as advance:
        while plans:
            todo = [
                Shard(shards + i, plan, work.shard(shards + i).resolve(), _stats_path(work, shards + i).resolve())
                for i, plan in enumerate(plans)
            ]
            missing = [shard for shard in todo if not (shard.stats.exists() and work.is_done(shard.number))]
            left = {shard.number for shard in missing}
            advance(sum(_kept(shard.stats) for shard in todo if shard.number not in left))
            finished = crew.run(mint_shard, [(job, shard) for shard in missing])
            # Shards are ready in any order and count in their own.
            for shard in todo:
                while shard.number in left:
                    number = next(finished)
                    left.discard(number)
                    advance(_kept(todo[number - shards].stats))
                with np.load(shard.stats) as done:
                    tally.add(done)
                stop_if_hopeless(int(tally.tried.sum()), int(tally.kept.sum()), mint.threshold)
            shards += len(plans)
            seed = config.seed + shards
            plans = refill_plans(tally, mint.capacity, bins, seed, cut) if tally.missing else []
    stop_if_hopeless(int(tally.tried.sum()), int(tally.kept.sum()), mint.threshold, least=1)
    if tally.missing:
        raise WorkError(
            f"{work.out}: only {tally.kept.sum():,} of {config.n:,} images passed the check and no combination is "
            "left; lower --n, raise --max-label-error or give more --appearances"
        )
    return tally, shards


def _kept(stats: Path) -> int:
    with np.load(stats) as done:
        return int(done["kept"].sum())


def _encode(mint: Mint, job: Job, crew: Crew, progress: Progress) -> None:
    """Encode every source once, appearances also mirrored where pairs need it."""
    missing = {flag: set(file.missing()) for flag, file in mint.codes.items()}
    if mint.pose_codes is not None:
        missing[False] |= set(mint.pose_codes.missing())
    calls = [(job, flag, start) for flag, starts in missing.items() for start in sorted(starts)]
    with progress.task("encode", len(calls), "blocks") as advance:
        for flag, start in crew.run(encode_rows, calls):
            mint.codes[flag].mark(start)
            if mint.pose_codes is not None and not flag:
                mint.pose_codes.mark(start)
            advance(1)


def _quota(mint: Mint) -> NDArray[np.int64]:
    """Images wanted of each pose row: alike, or by rarity."""
    weights = (mint.capacity > 0).astype(np.float64)
    if mint.config.pairs == "coverage":
        weights *= pose_rarity(mint.pose_data, mint.poses, mint.config.seed)
    usable = np.flatnonzero(weights)
    quota = np.zeros(len(mint.poses), np.int64)
    quota[usable] = split_quota(mint.config.n, weights[usable], mint.config.seed)
    return quota


def _expect(mint: Mint, job: Job, crew: Crew, poses: NDArray[np.int64], progress: Progress) -> None:
    """Say how long it will take, from blocks that all processes draw, time and throw away."""
    measured = list(crew.run(time_block, [(job, poses)] * crew.size))
    rate = sum(rate for rate, _ in measured)
    share = max(measured[0][1], MIN_KEPT_SHARE)
    crowd = "1 process" if crew.size == 1 else f"{crew.size} processes"
    progress.note(
        f"remix: {mint.config.n:,} images from {len(mint.poses):,} pose rows x {len(mint.appearances):,} appearance "
        f"rows, label error up to {mint.threshold:.2f} px; about {mint.config.n / share / rate / 60:.1f} min on "
        f"{job.device} with {crowd} ({rate:,.0f} drawn and checked a second)"
    )


def _stats_path(work: PartialOutput, shard: int) -> Path:
    return work.folder / f"stats-{shard:06d}.npz"

"""The work of a remix in pieces that any process can do: encode a block of appearances, time a block, mint a shard.

Every process computes with one thread and opens models and sources once, so the number of processes, and where they
run, changes no byte of the result.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.augment.codes import ENCODE_ROWS, encode_block, encode_both, prior_block
from handaug.augment.mint import Judged, Mint
from handaug.augment.parallel import one_thread
from handaug.augment.remix_config import RemixConfig
from handaug.augment.remix_plan import Example, ShardPlan, ShardState
from handaug.augment.remix_report import Tones
from handaug.data_specs.errors import WorkError
from handaug.data_specs.writer import DatasetWriter
from handaug.models.dvae.api import Dvae

__all__ = [
    "MIN_KEPT_SHARE",
    "Job",
    "Shard",
    "adopt",
    "encode_rows",
    "forget",
    "mint_shard",
    "rounds",
    "stop_if_hopeless",
    "time_block",
]

MIN_KEPT_SHARE = 0.10
"""Below this the disentangler is not good enough to mint with."""

_JUDGED_BEFORE_STOPPING = 512
_BLOCK_ROWS = {"cpu": 64, "cuda": 1024}
_WRITE_ROWS = 512
_REJECTED_SHOWN = 8
_SHARDS_WITH_REJECTED = 8


@dataclass(frozen=True)
class Job:
    """What a process needs to know."""

    config: RemixConfig
    device: str
    folder: Path
    """The work folder, with the tables of the sources and the appearance codes."""

    @property
    def block(self) -> int:
        """Images drawn at a time."""
        return _BLOCK_ROWS[self.device.partition(":")[0]]


@dataclass(frozen=True)
class Shard:
    """One shard to mint."""

    number: int
    plan: ShardPlan
    path: Path
    """Its images."""
    stats: Path
    """Its counts."""


_lock = threading.Lock()
_mints: dict[Job, Mint] = {}


def adopt(job: Job, mint: Mint) -> None:
    """Use this `Mint` in this process."""
    _mints[job] = mint


def forget(job: Job) -> None:
    """Let go of it."""
    _mints.pop(job, None)


def _mint_of(job: Job) -> Mint:
    """The `Mint` of this process, opened when it is first asked for; one at a time."""
    mint = _mints.get(job)
    if mint is None:
        _mints.clear()
        mint = _mints[job] = Mint(job.config, job.device, job.folder)
        mint.open_codes(job.folder)
    return mint


def encode_rows(job: Job, mirror: bool, start: int) -> tuple[bool, int]:
    """Encode the appearances from row `start` on into the code file, and with them the poses where they are of the
    same rows; returns which file and row.
    """
    with _lock, one_thread():
        mint = _mint_of(job)
        count = min(ENCODE_ROWS, len(mint.appearances) - start)
        if job.config.from_prior:
            assert isinstance(mint.model, Dvae)
            codes = prior_block(mint.model, start, count, job.config.seed)
        else:
            images = mint.appearance_data.read("images", slice(start, start + count))
            if mirror or mint.pose_codes is None:
                images = images[:, :, ::-1] if mirror else images
                codes = encode_block(mint.model, images, "appearance", job.device)
            else:
                pose, codes = encode_both(mint.model, images, job.device)
                mint.pose_codes.write(start, pose)
        mint.codes[mirror].write(start, codes)
        return mirror, start


def time_block(job: Job, poses: NDArray[np.int64]) -> tuple[float, float]:
    """Images drawn and checked in a second by this process, and the share of them kept.

    Args:
        job: The job.
        poses: Pose rows to try; what is drawn is thrown away.
    """
    with _lock, one_thread():
        mint = _mint_of(job)
        drawn = [mint.pairing.candidates(int(pose), 0, 8)[0] for pose in poses]
        pose, appearance = np.repeat(poses, [len(d) for d in drawn]), np.concatenate(drawn)
        mint.open_poses(poses)
        rate, kept, total = 0.0, 0, 0
        for begin in range(0, len(pose), job.block):
            block = slice(begin, begin + job.block)
            start = time.perf_counter()
            judged = mint.judge(pose[block], appearance[block])
            # The first block warms up.
            rate = max(rate, len(judged.keep) / (time.perf_counter() - start))
            kept, total = kept + int(judged.keep.sum()), total + len(judged.keep)
        return rate, kept / total


def stop_if_hopeless(tried: int, kept: int, threshold: float, least: int = _JUDGED_BEFORE_STOPPING) -> None:
    """Raise WorkError where too few images pass to go on, of `least` that were judged or more."""
    if tried >= least and kept < MIN_KEPT_SHARE * tried:
        raise WorkError(
            f"remix: only {kept:,} of {tried:,} minted images ({kept / tried:.1%}) passed the label check at "
            f"{threshold:.2f} px; train the disentangler longer (handaug disentangle --epochs) or raise "
            "--max-label-error"
        )


def mint_shard(job: Job, shard: Shard) -> int:
    """Mint one shard; its counts are written before its images get their name, so a finished shard always has them.

    Returns:
        Its number.
    """
    with _lock, one_thread():
        mint = _mint_of(job)
        plan, tones = shard.plan, Tones.of(mint.appearances.tone)
        state = plan.start_state(len(tones.names))
        mint.open_poses(plan.poses)
        with DatasetWriter(
            shard.path,
            kind="minted",
            config={"shard": shard.number},
            seed=job.config.seed,
            size=mint.pose_data.size,
            channels=mint.pose_data.channels,
            fields=mint.written,
        ) as writer:
            buffer: list[dict[str, NDArray[Any]]] = []
            for slot, appearance in rounds(mint, plan, state, job.block):
                pose = plan.poses[slot]
                judged = mint.judge(pose, appearance)
                buffer.append(mint.rows(pose, appearance, judged))
                state.count(
                    slot, judged.keep, judged.nearer, judged.blind, tones.index(mint.appearances.tone[appearance])
                )
                if shard.number < _SHARDS_WITH_REJECTED:
                    _show_rejected(state, pose, appearance, judged)
                if sum(len(rows["split"]) for rows in buffer) >= _WRITE_ROWS:
                    _write(writer, buffer)
                # The first shard speaks for all: its poses are drawn from all of them.
                if shard.number == 0:
                    stop_if_hopeless(int(state.tried.sum()), int(state.kept.sum()), mint.threshold)
            _write(writer, buffer)
            state.save(shard.stats)
        return shard.number


def _write(writer: DatasetWriter, buffer: list[dict[str, NDArray[Any]]]) -> None:
    """Append blocks as one: a write costs much more than a row of it."""
    if buffer:
        writer.append({name: np.concatenate([rows[name] for rows in buffer]) for name in buffer[0]})
        buffer.clear()


def _show_rejected(state: ShardState, pose: NDArray[np.int64], appearance: NDArray[np.int64], judged: Judged) -> None:
    """Remember a few rejected images for the picture."""
    for i in np.flatnonzero(~judged.keep)[: max(0, _REJECTED_SHOWN - len(state.examples))]:
        state.examples.append(
            Example(int(pose[i]), int(appearance[i]), int(judged.second[i]), float(judged.error[i]), judged.images[i])
        )


def rounds(
    mint: Mint, plan: ShardPlan, state: ShardState, block: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Blocks of (slot in the plan, appearance): each round draws as many candidates as are still wanted, never more."""
    while True:
        wanted = state.wanted(mint.config.max_tries)
        slots: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        picked: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        for slot in np.flatnonzero(wanted):
            found, state.place[slot] = mint.pairing.candidates(
                int(plan.poses[slot]), int(state.place[slot]), int(wanted[slot])
            )
            state.ended[slot] = len(found) < wanted[slot]
            slots.append(np.full(len(found), slot, np.int64))
            picked.append(found)
        slot_all, picked_all = np.concatenate(slots), np.concatenate(picked)
        if not len(slot_all):
            return
        # Side by side what the same estimator checks, so that a block is checked in one go.
        order = np.argsort(mint.pairing.checker_of(plan.poses[slot_all], picked_all), kind="stable")
        for start in range(0, len(order), block):
            here = order[start : start + block]
            yield slot_all[here], picked_all[here]

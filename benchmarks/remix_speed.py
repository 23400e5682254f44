"""Speed of a remix against its limit, in one run.

    python benchmarks/remix_speed.py WORKSPACE 100000 [--workers 2] [--device cpu] [--pairs random]

WORKSPACE holds renders.h5, disentangler/ and checker/ (a bare `handaug remix` makes the last two). Printed are

* minted images/s end to end: kept, and tried, over the whole of `remix()`: starting processes, reading, encoding,
  mixing, decoding, checking, writing, merging, the report and its picture,
* the limit: decoder plus checker forward alone, per tried image, on the same device, in as many processes of one
  thread, with the batches that a shard of this remix really had, on codes and weights that lie in memory. It is
  measured before and after the remix, since other programs on the machine slow down both, and the mean is taken,
* their ratio, per tried image, by the clock; the same without starting processes and encoding; and by processor time,
  which other programs on the machine disturb less: what the tried images would have cost at the limit, over what the
  remix took in all its processes.
"""

import resource
import tempfile
import time
from contextlib import AbstractContextManager
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import numpy as np
import torch
from commands import Parser, positive

from handaug.augment.codes import ENCODE_ROWS
from handaug.augment.mint import Mint
from handaug.augment.remix import RemixConfig, default_workers, remix
from handaug.augment.remix_config import PAIRS
from handaug.augment.remix_plan import SHARD_IMAGES, ShardPlan
from handaug.augment.remix_work import Job, adopt, encode_rows, rounds
from handaug.cli.common import pick_device, run_script
from handaug.data_specs.progress import SILENT, Advance

__all__ = ["main"]

_LIMIT_SECONDS = 12.0


class _Stages:
    """Progress that notes when each stage began."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}

    def task(self, label: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        self.began.setdefault(label, time.perf_counter())
        return SILENT.task(label, total, unit)

    def note(self, text: str) -> None:
        print(text, flush=True)


def _limit(config: RemixConfig, device: str, need: int, results: "SimpleQueue[tuple[float, float]]") -> None:
    """Draw and check the blocks of a shard over and over for some seconds.

    Args:
        config: What from what.
        device: Where.
        need: Images wanted of each pose row.
        results: Takes images a second and processor seconds for an image.
    """
    torch.set_num_threads(1)
    mint = Mint(config, device)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(config, device, Path(folder))
        mint.open_codes(Path(folder))
        adopt(job, mint)
        # The first rows stand for all: the limit has no encoding in it.
        for flag, file in mint.codes.items():
            file.missing()
            if mint.pose_codes is not None:
                mint.pose_codes.missing()
            encode_rows(job, flag, 0)
        poses = np.flatnonzero(mint.capacity[:ENCODE_ROWS] > 0)[: -(-SHARD_IMAGES // need)]
        plan = ShardPlan(poses, np.full(len(poses), need), np.zeros(len(poses), np.int64))
        state = plan.start_state(1)
        mint.open_poses(poses)
        blocks = []
        for slot, drawn in rounds(mint, plan, state, job.block):
            pose, appearance = poses[slot], drawn % min(ENCODE_ROWS, len(mint.appearances))
            judged = mint.judge(pose, appearance)
            state.count(slot, judged.keep, judged.nearer, judged.blind, np.zeros(len(slot), np.int64))
            blocks.append((len(slot), *mint.tensors(pose, appearance)))
        done, start, used = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - start < _LIMIT_SECONDS:
            for k, (count, *block) in enumerate(blocks):
                mint.forward(k % 2, *block)
                done += count
        results.put((done / (time.perf_counter() - start), (time.process_time() - used) / done))


def _limits(config: RemixConfig, device: str, workers: int, need: int) -> tuple[float, float]:
    """Images a second of all processes together, and processor seconds for an image."""
    context = get_context("spawn")
    results: SimpleQueue[tuple[float, float]] = context.SimpleQueue()
    crowd = [context.Process(target=_limit, args=(config, device, need, results)) for _ in range(workers)]
    for process in crowd:
        process.start()
    found = [results.get() for _ in crowd]
    for process in crowd:
        process.join()
    return sum(rate for rate, _ in found), sum(seconds for _, seconds in found) / workers


def _used() -> float:
    """Processor seconds of this process and of those that it waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> int:
    """Measure what the command line says."""
    parser = Parser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("n", type=positive)
    parser.add_argument("--workers", type=positive)
    parser.add_argument("--device", type=pick_device, default="cpu")
    parser.add_argument("--pairs", choices=PAIRS, default="random")
    given = parser.parse_args()
    place: Path = given.workspace
    config = RemixConfig(given.n, place / "renders.h5", place / "disentangler", place / "checker", pairs=given.pairs)
    workers = given.workers or default_workers(given.n, given.device)
    need = max(1, given.n // len(Mint(config, "cpu").poses))
    before, cost_before = _limits(config, given.device, workers, need)
    stages = _Stages()
    with tempfile.TemporaryDirectory(dir=place) as folder:
        start, used = time.perf_counter(), _used()
        figures = remix(config, Path(folder) / "m.h5", device=given.device, workers=workers, progress=stages).figures
        seconds, used = time.perf_counter() - start, _used() - used
    after, cost_after = _limits(config, given.device, workers, need)
    limit, cost = (before + after) / 2, (cost_before + cost_after) / 2
    tried, kept = figures["tried"], figures["kept"]
    began = {name: moment - start for name, moment in stages.began.items()}
    warm = tried / (seconds - began["remix"]) / limit
    print(
        f"{kept:,} kept of {tried:,} tried ({kept / tried:.1%}), {workers} processes, {given.device}, {seconds:.1f} s:"
    )
    print(", ".join(f"{name} began at {moment:.1f} s" for name, moment in began.items()))
    print(f"end to end   {kept / seconds:8.0f} minted images/s, {tried / seconds:8.0f} tried images/s")
    print(f"limit        {limit:8.0f} tried images/s (before {before:.0f}, after {after:.0f})")
    print(f"ratio        {tried / seconds / limit:8.2f} end to end, {warm:.2f} after start and encoding")
    print(f"processor    {cost * tried:8.1f} s at the limit, {used:.1f} s used: ratio {cost * tried / used:.2f}")
    return 0


if __name__ == "__main__":
    run_script(main)

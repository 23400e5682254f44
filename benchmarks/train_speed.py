"""Training speed: samples/s of every disentangler and estimator, and the share of the device's peak that they reach.

    python benchmarks/train_speed.py RENDERS [--methods handaug,self,dvae,dvae-pose] [--estimators compact,unet,...]
        [--steps 12] [--precisions 32-true,bf16-mixed] [--device cpu] [--threads 1] [--makers P]

Each trains for a few steps with its defaults for the device, data resident as in a real run: a method with phases or
stages goes through all of them in its own shares. Time and floating-point operations (forward and backward, counted
by PyTorch over the same steps again) are means over the steps but the first and the last one. The peak is that of a
large matrix product in the same precision in the same run: nothing in a network can be faster, so `of peak` says how
much of the hardware a step uses. "fed" is the share of an estimator's speed that is left when its batches are read
and transformed as in a real run: on a CPU by its own thread, on a GPU by --makers processes beside it (as a rule all
cores but one).

What is not counted: validation, pictures, saving. Networks take images as they do in training: channels_last, but for
the dVAEs.
"""

import argparse
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from commands import Parser, at_least, check_labelled, listed, one_of, positive
from torch.utils.flop_counter import FlopCounterMode

from handaug.augment.batches import RowPool, TrainingBatches
from handaug.augment.gain_config import default_training
from handaug.augment.prefetch import makers
from handaug.augment.transforms import TrainTransform
from handaug.cli.common import pick_device, run_script
from handaug.data_specs.progress import Advance, Progress
from handaug.data_specs.reader import HandDataset
from handaug.models.estimators import build_estimator
from handaug.models.fabric import PRECISIONS
from handaug.models.fit import Batches, fit_estimator
from handaug.models.methods import METHODS, resolve

_FEWEST_STEPS = 4
_LONGER, _TURNS = 2, 3
"""Times as many steps where batches are made: those that lie ready at the start are soon used up. And how often either
way is timed, by turns: a machine that others share changes its speed within a minute."""
_SIDE = {"cpu": 2048, "cuda": 8192}


class Watch:
    """A `Progress` that notes what stands on a counter whenever a step ends."""

    def __init__(self, device: str, counter: FlopCounterMode | None = None) -> None:
        self.device, self.counter, self.marks = device, counter, [0.0]

    @contextmanager
    def task(self, label: str, total: int, unit: str) -> Iterator[Advance]:
        def advance(n: int) -> None:
            if unit == "steps" and n:
                self.marks.append(self._reading())

        self.marks = [self._reading()]
        yield advance

    def note(self, text: str) -> None:
        pass

    def _reading(self) -> float:
        if self.counter is not None:
            return float(self.counter.get_total_flops())
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    @property
    def mean(self) -> float:
        """Of the steps but the first, which warms up, and the final one, which validates."""
        return float(np.mean(np.diff(self.marks)[1:-1]))


def peak(device: str, precision: str) -> float:
    """FLOP/s of a large square matrix product, the best of five."""
    kind = "cpu" if device == "cpu" else "cuda"
    side = _SIDE[kind]
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        if kind == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def seconds_and_work(train: Callable[[int, Progress], object], steps: int, device: str) -> tuple[float, float]:
    """Seconds and floating-point operations of a step of `train(steps, progress)`."""
    watch = Watch(device)
    train(steps, watch)
    with FlopCounterMode(display=False) as counter:
        counting = Watch(device, counter)
        train(steps, counting)
    return watch.mean, counting.mean


def of_method(name: str, data: Path, precision: str, options: argparse.Namespace) -> tuple[int, float, float]:
    """Batch size, seconds and operations of a step of a disentangler."""
    rows = HandDataset(data, split="train")
    settings = resolve(METHODS[name].default_config)(name, len(rows), rows.size, options.device)

    def train(steps: int, progress: Progress) -> None:
        short = dataclasses.replace(settings, precision=precision, steps=steps, validate_every=steps)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            resolve(METHODS[name].train)(data, out, short, device=options.device, progress=progress)

    return settings.batch_size, *seconds_and_work(train, options.steps, options.device)


def of_estimator(name: str, data: Path, precision: str, options: argparse.Namespace) -> tuple[int, float, float, float]:
    """Batch size, seconds and operations of a step of an estimator, and the share of its speed with its batches."""
    rows = HandDataset(data, split="train")
    pool = RowPool([rows], spatial=build_estimator(name, size=rows.size, channels=rows.channels).dimensions == 3)
    size = default_training(options.device)["batch_size"]
    batches = TrainingBatches(
        pool, batch_size=size, seed=0, transform=TrainTransform(flips=True), processes=options.makers
    )
    made = [batches.of_step(step) for step in range(options.steps)]

    def train(batches: Batches, steps: int, progress: Progress) -> None:
        fit_estimator(
            build_estimator(name, size=pool.size, channels=pool.channels),
            batches,
            steps=steps,
            checkpoints=1,
            validate=None,
            device=options.device,
            precision=precision,
            progress=progress,
        )

    ready: Batches = lambda _: itertools.cycle(made)  # noqa: E731
    learning, work = seconds_and_work(partial(train, ready), options.steps, options.device)
    spent = [0.0, 0.0]
    for turn in range(2 * _TURNS):
        watch = Watch(options.device)
        train((ready, batches)[turn % 2], _LONGER * options.steps, watch)
        spent[turn % 2] += watch.mean
    return size, learning, work, spent[0] / spent[1]


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("renders", type=Path)
    parser.add_argument("--methods", type=listed(one_of(METHODS), 0), default="handaug,self,dvae,dvae-pose")
    parser.add_argument("--estimators", type=listed(str, 0), default="compact,unet,heatmap,simcc,resnet18")
    parser.add_argument("--steps", type=at_least(_FEWEST_STEPS), default=12)
    parser.add_argument("--precisions", type=listed(one_of(PRECISIONS)), default="32-true,bf16-mixed")
    parser.add_argument("--device", type=pick_device, default="cpu")
    parser.add_argument("--threads", type=positive, default=1, help="of PyTorch on a CPU")
    parser.add_argument("--makers", type=at_least(0), help="processes that make an estimator's batches")
    options = parser.parse_args()
    options.makers = makers(options.device) if options.makers is None else options.makers
    rows = HandDataset(options.renders, split="train")
    check_labelled([rows], "train split")
    for name in options.estimators:
        build_estimator(name, size=rows.size, channels=rows.channels)
    torch.set_num_threads(options.threads)
    print("| network | precision | batch | ms a step | samples/s | GFLOP a sample | GFLOP/s | of peak | fed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for precision in options.precisions:
        limit = peak(options.device, precision)
        print(f"| matrix product | {precision} | | | | | {limit / 1e9:,.0f} | 100 % | |", flush=True)
        for name in options.methods:
            size, seconds, work = of_method(name, options.renders, precision, options)
            show(name, precision, size, seconds, work, limit, "")
        for name in options.estimators:
            size, seconds, work, fed = of_estimator(name, options.renders, precision, options)
            show(name, precision, size, seconds, work, limit, f"{100 * fed:.0f} %")
    return 0


def show(name: str, precision: str, size: int, seconds: float, work: float, limit: float, fed: str) -> None:
    """Print a line of the table."""
    print(
        f"| {name} | {precision} | {size} | {1e3 * seconds:,.1f} | {size / seconds:,.0f} | {work / size / 1e9:.3f} "
        f"| {work / seconds / 1e9:,.1f} | {100 * work / seconds / limit:.0f} % | {fed} |",
        flush=True,
    )


if __name__ == "__main__":
    run_script(main)

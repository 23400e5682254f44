"""What share of minted images, and what weight, serves best: chosen on validation, test rows stay closed.

    python benchmarks/mixing.py REAL MINTED OUT [--fractions 0.25,0.5,0.75] [--weight-scales none,8] [--seeds 2]

Trains the arm real+minted+albumentations with every combination, and real+albumentations beside it, with equal steps
and the same seeds. Prints the mean over seeds of the best of five checkpoints on the val split of REAL, best first.
Runs that are complete are not trained again; OUT takes runs of one REAL, MINTED, --batch-size and --lr.
"""

import argparse
import math
from functools import partial
from pathlib import Path

import numpy as np
from commands import Parser, as_number, at_least, check_labelled, claim, listed, positive, rate, share

from handaug.augment.batches import RowPool, check_share
from handaug.augment.fits import check_fits
from handaug.augment.gain_runs import ARMS, BASELINE, CANDIDATE, Recipe, Training, train_run, validation_of
from handaug.augment.leaks import check_leaks
from handaug.augment.parallel import run_trainings
from handaug.cli.common import RichProgress, pick_device, run_script
from handaug.data_specs.reader import HandDataset

CHECKPOINTS = 5


def scale(text: str) -> float:
    """A type for argparse: pixels, or infinitely many for "none"."""
    pixels = math.inf if text == "none" else as_number(text)
    if not pixels > 0 or (math.isinf(pixels) and text != "none"):
        raise argparse.ArgumentTypeError(f"{text}: give a number of pixels above 0, or none")
    return pixels


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("real", type=Path)
    parser.add_argument("minted", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fractions", type=listed(share), default="0.25,0.5,0.75")
    parser.add_argument(
        "--weight-scales", type=listed(scale), default="none,8", help="pixels, or none: all rows count alike"
    )
    parser.add_argument("--seeds", type=positive, default=2)
    parser.add_argument("--steps", type=at_least(CHECKPOINTS), default=4000)
    parser.add_argument("--batch-size", type=positive, default=16)
    parser.add_argument("--lr", type=rate, default=2e-3)
    parser.add_argument("--device", type=pick_device, default="auto")
    given = parser.parse_args()
    for fraction in given.fractions:
        check_share("--fractions", fraction, given.batch_size)
    train, held_out = (HandDataset(given.real, split=split) for split in ("train", "val"))
    minted = HandDataset(given.minted)
    for rows, part in ((train, "train split"), (held_out, "val split"), (minted, "whole length")):
        check_labelled([rows], part)
    check_fits(minted, train.size, train.channels, str(given.real))
    check_leaks([train, minted], HandDataset(given.real, split="test"), held_out)
    # What a run's folder does not name.
    settings = {"batch_size": given.batch_size, "lr": given.lr, "real": train.checksum, "minted": minted.checksum}
    claim(given.out, settings)
    real, validation = RowPool([train]), RowPool([held_out])
    arms = {arm.name: arm for arm in ARMS}
    jobs, folders = [], {}

    def add(name: str, arm: str, fraction: float, extra: RowPool | None) -> None:
        training = Training(
            Recipe("compact"), given.steps, given.batch_size, given.lr, CHECKPOINTS, fraction, given.device,
            real.both_hands,
        )  # fmt: skip
        folders[name] = [given.out / f"{given.steps} steps" / name / f"seed-{number}" for number in range(given.seeds)]
        learned = [train, *([minted] if extra else [])]
        for number, folder in enumerate(folders[name]):
            jobs.append(partial(train_run, folder, arms[arm], number, 0, training, real, extra, validation, learned))

    add("real", BASELINE, 0.5, None)
    for pixels in given.weight_scales:
        pool = RowPool([minted], weight_scale=None if math.isinf(pixels) else pixels)
        text = "none" if math.isinf(pixels) else f"{pixels:g}"
        for fraction in given.fractions:
            add(f"minted {fraction:g}, weight scale {text}", CANDIDATE, fraction, pool)
    steps = len(jobs) * given.steps
    run_trainings(jobs, steps=steps, label=f"{len(jobs)} runs", device=given.device, progress=RichProgress())
    found = {name: [min(validation_of(folder)) for folder in places] for name, places in folders.items()}
    for name, values in sorted(found.items(), key=lambda item: float(np.mean(item[1]))):
        print(f"{name:<32} {np.mean(values):6.3f} px   seeds {' '.join(f'{value:.3f}' for value in values)}")
    return 0


if __name__ == "__main__":
    run_script(main)

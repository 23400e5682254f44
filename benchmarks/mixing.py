"""What share of minted images, and what weight, serves best: chosen on validation, test rows stay closed.

    python benchmarks/mixing.py REAL MINTED OUT [--fractions 0.25,0.5,0.75] [--weight-scales none,8] [--seeds 2]

Trains the arm real+minted+albumentations with every combination, and real+albumentations beside it, with equal steps
and the same seeds. Prints the mean over seeds of the best of five checkpoints on the val split of REAL, best first.
Runs that are complete are not trained again.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from handaug.augment.batches import RowPool
from handaug.augment.gain_runs import ARMS, BASELINE, CANDIDATE, Recipe, Training, train_run, validation_of
from handaug.augment.parallel import run_trainings
from handaug.cli.common import RichProgress, pick_device, run_script
from handaug.data_specs.reader import HandDataset


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("minted", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fractions", default="0.25,0.5,0.75")
    parser.add_argument("--weight-scales", default="none,8", help="pixels, or none: all rows count alike")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = pick_device(given.device)
    train, minted = HandDataset(given.real, split="train"), HandDataset(given.minted)
    real, validation = RowPool([train]), RowPool([HandDataset(given.real, split="val")])
    arms = {arm.name: arm for arm in ARMS}
    jobs, folders = [], {}

    def add(name: str, arm: str, fraction: float, extra: RowPool | None) -> None:
        training = Training(Recipe("compact"), given.steps, given.batch_size, given.lr, 5, fraction, device)
        folders[name] = [given.out / f"{given.steps} steps" / name / f"seed-{number}" for number in range(given.seeds)]
        learned = [train, *([minted] if extra else [])]
        for number, folder in enumerate(folders[name]):
            jobs.append(partial(train_run, folder, arms[arm], number, 0, training, real, extra, validation, learned))

    add("real", BASELINE, 0.5, None)
    for text in given.weight_scales.split(","):
        pool = RowPool([minted], weight_scale=None if text == "none" else float(text))
        for fraction in map(float, given.fractions.split(",")):
            add(f"minted {fraction:g}, weight scale {text}", CANDIDATE, fraction, pool)
    steps = len(jobs) * given.steps
    run_trainings(jobs, steps=steps, label=f"{len(jobs)} runs", device=device, progress=RichProgress(), workers=None)
    found = {name: [min(validation_of(folder)) for folder in places] for name, places in folders.items()}
    for name, values in sorted(found.items(), key=lambda item: float(np.mean(item[1]))):
        print(f"{name:<32} {np.mean(values):6.3f} px   seeds {' '.join(f'{value:.3f}' for value in values)}")
    return 0


if __name__ == "__main__":
    run_script(main)

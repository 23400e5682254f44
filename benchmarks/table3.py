"""Table 3 of Li et al. 2019: Inception Score (and FID) of held-out swaps, and which of two methods people prefer.

    python benchmarks/table3.py scores RENDERS RUN... --features FEATURES [--swaps N] [--out scores.json]
    python benchmarks/table3.py sheet RENDERS RUN_A RUN_B OUT [--trials 64]
    python benchmarks/table3.py count OUT/key.csv answers.csv...

`scores` cuts the poses of the test split in two. The rows of one half are the reference; of the other half pose and
appearance of random rows of one side and of different poses are swapped, the same rows for every run. Both scores
depend on the number of images, so every line is of as many. FEATURES is a file of stock Inception weights
(pt_inception-2015-12-05-6726825d.pth, the network of the published scores), or the folder of an estimator of ours,
whose figures **compare with no published one**. The first line of the table is true renders of the other half: what
perfect mixes would get. The last is what the paper reports.

`sheet` writes OUT/preference.html, which works in any browser without a network, and OUT/key.csv, which the person does
not get. `count` reads the answers that the sheet saves and prints the share with a 95 % interval (Wilson).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from commands import Parser, at_least, make_folder, positive
from numpy.typing import NDArray

from handaug.augment.fits import check_fits
from handaug.augment.preference import Trial, count_answers, write_sheet
from handaug.cli.common import pick_device, run_script
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.models.feature_scores import feature_scores, load_feature_network
from handaug.models.methods import PoseAppearanceModel, load_run
from handaug.models.pose_codes import pose_codes

PAPER = "paper: I.S. 4.96 +- 0.11 (paired data), 5.10 +- 0.10 (self); preferred 51.66 % (529) to 48.33 % (495) of 1,024"
_BATCH = 64


def draw_pairs(rows: HandDataset, count: int, seed: int, flag: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of x and y in the view: one side, different poses. `flag` gave the count."""
    if not len(rows):
        raise InputError(f"{rows.path}: has no rows in its test split; give data that has")
    rng, side, pose = np.random.default_rng(seed), rows.read("handedness"), rows.read("pose_id")
    x, y = (rng.integers(0, len(rows), 20 * count) for _ in range(2))
    good = np.flatnonzero((side[x] == side[y]) & (pose[x] != pose[y]))[:count]
    if len(good) < count:
        raise InputError(f"{flag} {count}: {rows.path} has too few test rows for as many swaps; ask for fewer")
    return x[good], y[good]


def load_runs(folders: Sequence[Path], rows: HandDataset, device: str) -> list[PoseAppearanceModel]:
    """Runs that draw images like those of the rows."""
    models, one = [load_run(folder, device) for folder in folders], np.zeros(1, np.int64)
    for folder, model in zip(folders, models, strict=True):
        check_fits(rows, (model.size[0], model.size[1]), model.channels, str(folder))
        swap(model, rows, one, one)  # some methods draw none, and say so
    return models


def swap(
    model: PoseAppearanceModel, rows: HandDataset, x: NDArray[np.int64], y: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """D(p(x), a(y)) of rows of a view, by their places in it, as uint8 (N, H, W, C)."""
    drawn = []
    for start in range(0, len(x), _BATCH):
        i, j = x[start : start + _BATCH], y[start : start + _BATCH]
        look = torch.from_numpy(rows.read("images", j)).permute(0, 3, 1, 2).float() / 255.0
        mixed = model.decode(pose_codes(model, rows, i), model.encode_appearance(look)).clamp(0, 1)
        drawn.append((mixed.cpu() * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.ascontiguousarray(np.concatenate(drawn))


def halves(rows: HandDataset, seed: int) -> tuple[HandDataset, HandDataset]:
    """Two views of a view, the poses of one not those of the other."""
    ids, number = np.unique(rows.read("pose_id"), return_inverse=True)
    if len(ids) < 2:
        raise InputError(f"{rows.path}: has fewer than two poses in its test split; give data that has")
    first = (np.random.default_rng(seed).permutation(len(ids)) < len(ids) // 2)[number]
    return HandDataset(rows.path, rows=rows.rows[first]), HandDataset(rows.path, rows=rows.rows[~first])


def scores(options: argparse.Namespace) -> None:
    reference, others = halves(HandDataset(options.renders, split="test"), options.seed)
    network = load_feature_network(options.features, HandDataset(options.renders, split="train"), options.device)
    count = options.swaps or len(others)
    if count > len(others):
        raise InputError(f"--swaps {count}: there are {len(others)} true renders to compare with; ask for fewer")
    x, y = draw_pairs(others, count, options.seed, "--swaps")
    models = load_runs(options.runs, others, options.device)
    if options.out:
        make_folder(options.out.parent)
        if options.out.is_dir():
            raise InputError(f"--out {options.out}: is a folder; give the name of a file to write")
    real = reference.read("images")
    true = others.read("images", np.sort(np.random.default_rng(options.seed).permutation(len(others))[:count]))
    table = {"true renders": feature_scores(network, real, true)}
    for run, model in zip(options.runs, models, strict=True):
        table[f"{model.method} ({run})"] = feature_scores(network, real, swap(model, others, x, y))
    print(f"{len(reference)} true renders as reference, {count} images in every line; {network.note}")
    for name, row in table.items():
        print(f"{name:32} I.S. {row['inception_score']:.2f} +- {row['inception_score_std']:.2f}   FID {row['fid']:.2f}")
    print(PAPER)
    if options.out:
        stored = {"note": network.note, "swaps": count, "features": str(options.features), "rows": table}
        options.out.write_text(json.dumps(stored, indent=1) + "\n")


def sheet(options: argparse.Namespace) -> None:
    test = HandDataset(options.renders, split="test")
    x, y = draw_pairs(test, options.trials, options.seed, "--trials")
    models = load_runs((options.first, options.second), test, options.device)
    names = [f"{model.method}:{run}" for model, run in zip(models, (options.first, options.second), strict=True)]
    if options.first.resolve() == options.second.resolve():
        raise InputError(f"{options.second}: is the same run as the first; give another")
    make_folder(options.out)
    images = test.read("images")
    drawn = [swap(model, test, x, y) for model in models]
    trials = [Trial(images[i], images[j], a, b) for i, j, a, b in zip(x, y, drawn[0], drawn[1], strict=True)]
    page, key = write_sheet(options.out, trials, (names[0], names[1]), options.seed)
    print(f"{page}: {len(trials)} lines to fill in; {key} says whose is whose, keep it from the person")


def count(options: argparse.Namespace) -> None:
    found = count_answers(options.key, options.answers)
    low, high = found.ci95
    print(
        f"{found.names[0]} preferred in {found.share:.1%} ({found.counts[0]} of {sum(found.counts)}; 95 %: {low:.1%} "
        f"to {high:.1%}) against {found.names[1]}; {found.undecided} undecided"
    )
    print(PAPER)


def main() -> int:
    parser = Parser(description=__doc__)
    parts = parser.add_subparsers(required=True)
    one = parts.add_parser("scores")
    one.add_argument("renders", type=Path)
    one.add_argument("runs", type=Path, nargs="+")
    one.add_argument("--features", type=Path, required=True)
    one.add_argument("--swaps", type=positive, help="as many as half of the test split has rows, if not given")
    one.add_argument("--out", type=Path)
    two = parts.add_parser("sheet")
    for name in ("renders", "first", "second", "out"):
        two.add_argument(name, type=Path)
    two.add_argument("--trials", type=positive, default=64)
    for part in (one, two):
        part.add_argument("--seed", type=at_least(0), default=0)
        part.add_argument("--device", type=pick_device, default="cpu")
    three = parts.add_parser("count")
    three.add_argument("key", type=Path)
    three.add_argument("answers", type=Path, nargs="+")
    for part, work in ((one, scores), (two, sheet), (three, count)):
        part.set_defaults(work=work)
    options = parser.parse_args()
    options.work(options)
    return 0


if __name__ == "__main__":
    run_script(main)

"""Every method side by side on the same renders: the comparison of section 4.4 of Li et al. 2019, with measures.

    python benchmarks/disentangle_methods.py RENDERS OUT [--methods handaug,self,dvae,...] [--seeds 3]

Trains every method with its defaults for the device (or `--steps` of each), and one label checker, which judges the
swaps; then measures on the val split, which none has seen, everything that `handaug evaluate` prints of a
disentangler (`models/leakage.py` says what each figure means). Ends with a table of means over seeds and the range.
Runs that are complete are not trained again.

OUT/table2.png is their Table 2: above, one appearance in many poses; below, one pose in many appearances; a line of
images for each method, seed 0. OUT/fig5.png is their Fig. 5: two images of one pose, and for each method what it draws
of each with its own pose code and with the other's, which should change nothing.
"""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from commands import Parser, listed, make_folder, one_of, positive
from numpy.typing import NDArray

from handaug.augment.checker import default_checker_config, train_checkers
from handaug.augment.fits import check_fits
from handaug.cli.common import pick_device, run_script
from handaug.data_specs.draw import as_rgb, image_grid, save_png
from handaug.data_specs.errors import InputError
from handaug.data_specs.progress import SILENT
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.writer import partial_path
from handaug.models.dvae.pictures import framed, pixels
from handaug.models.estimators import load_estimator
from handaug.models.judge import measure_run
from handaug.models.methods import METHODS, PoseAppearanceModel, load_run, resolve
from handaug.models.pose_codes import pose_codes

DRAWING = tuple(name for name in METHODS if name not in ("dvae-pose", "cross-modal"))
"""Methods that draw images from a pose and an appearance."""

_ACROSS = 8
_PAIRS = 3
Picture = NDArray[np.uint8]


def mixed(
    model: PoseAppearanceModel, rows: HandDataset, poses: NDArray[np.int64], looks: NDArray[np.int64]
) -> list[Picture]:
    """The poses of some rows of a view in the appearances of others, by their places in it."""
    images = torch.from_numpy(rows.read("images", looks)).permute(0, 3, 1, 2).float() / 255.0
    return [
        as_rgb(one) for one in pixels(model.decode(pose_codes(model, rows, poses), model.encode_appearance(images)))
    ]


def table2(models: dict[str, PoseAppearanceModel], val: HandDataset) -> Picture:
    """One appearance in many poses, then one pose in many appearances; the order of lines is printed."""
    side = val.read("handedness")
    rows = np.flatnonzero(side == np.bincount(side).argmax())
    pose = rows[np.sort(np.unique(val.read("pose_id")[rows], return_index=True)[1])][: _ACROSS + 1]
    fixed, many = np.repeat(pose[:1], len(pose) - 1), pose[1:]
    lines: list[list[Picture]] = []
    for poses, looks in ((many, fixed), (fixed, many)):
        lines += [[framed(one) for one in val.read("images", rows)] for rows in (poses, looks)]
        lines += [mixed(model, val, poses, looks) for model in models.values()]
    return image_grid(lines, scale=2)


def shared_poses(val: HandDataset) -> list[NDArray[np.int64]]:
    """Places of two rows of each of the first poses that have as many."""
    ids = val.read("pose_id")
    return [np.flatnonzero(ids == one)[:2] for one in np.unique(ids) if (ids == one).sum() > 1][:_PAIRS]


def fig5(models: dict[str, PoseAppearanceModel], val: HandDataset) -> Picture:
    """Lines of two images of one pose: both inputs, then for each method both with the own and the other's pose."""
    lines = []
    for pair in shared_poses(val):
        images = val.read("images", pair)
        line = [framed(one) for one in images]
        for model in models.values():
            line += mixed(model, val, pair, pair) + mixed(model, val, pair[::-1].copy(), pair)
        lines.append(line)
    return image_grid(lines, scale=2)


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("renders", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", type=listed(one_of(DRAWING)), default=",".join(DRAWING))
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, help="of every method; its default for device and data if not given")
    parser.add_argument("--checker", type=Path, help="a label checker of these renders; trained if not given")
    parser.add_argument("--device", type=pick_device, default="cpu")
    options = parser.parse_args()
    make_folder(options.out)
    train, val = (HandDataset(options.renders, split=split) for split in ("train", "val"))
    if not len(shared_poses(val)):
        raise InputError(f"{options.renders}: no two val rows share a pose; render with --appearances 2 or more")
    if options.checker:
        judge, _ = load_estimator(options.checker / "fold-0")
        check_fits(train, judge.size, judge.channels, f"--checker {options.checker}")
    checker = options.checker or train_checkers(
        options.renders,
        options.out / "checker",
        default_checker_config(options.device),
        device=options.device,
        progress=SILENT,
    )
    table: dict[str, list[dict[str, float]]] = {}
    for name in options.methods:
        method = METHODS[name]
        for seed in range(options.seeds):
            settings = resolve(method.default_config)(name, len(train), train.size, options.device)
            settings = dataclasses.replace(settings, seed=seed, steps=options.steps or settings.steps)
            folder, started = options.out / f"{name}-{seed}", time.monotonic()
            whole = not folder.exists() and not partial_path(folder).exists()
            resolve(method.train)(options.renders, folder, settings, device=options.device, progress=SILENT)
            # A run that was there, or went on, says nothing of how long it takes.
            row = {"training_seconds": time.monotonic() - started} if whole else {}
            row |= measure_run(folder, val, judge=checker / "fold-0", device=options.device)
            table.setdefault(name, []).append(row)
            print(name, seed, json.dumps({key: round(value, 4) for key, value in row.items()}), flush=True)
    for key in dict.fromkeys(key for rows in table.values() for row in rows for key in row):
        cells = []
        for rows in table.values():
            values = [row[key] for row in rows if key in row]
            cells.append(f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else "-")
        print(f"| {key} | " + " | ".join(cells) + " |")
    (options.out / "methods.json").write_text(json.dumps(table, indent=1) + "\n")
    models = {name: load_run(options.out / f"{name}-0", options.device) for name in table}
    save_png(options.out / "table2.png", table2(models, val))
    save_png(options.out / "fig5.png", fig5(models, val))
    print(
        f"lines of table2.png, above and below: poses, appearances, {', '.join(models)}; fig5.png: pairs in that order"
    )
    return 0


if __name__ == "__main__":
    run_script(main)

"""Which disentangler mints best: every method on the same renders, judged by the same independent estimator.

    python benchmarks/disentangle_methods.py RENDERS OUT [--methods handaug,self] [--seeds 3] [--device cpu]

Trains every method with its defaults for the device (the time each takes is printed), and one label checker. On the val
split, which none has seen, each image is drawn in the appearance of another:

* pair_psnr_db: against the true render of that mix, inside the hand; copy_psnr_db is what returning x would score.
* error_to_x_px, error_to_y_px: the checker's estimate on the mix against the label of x, and against that of y; beside
  them its error on the untouched images, the floor. A pose that leaks through the appearance code pulls towards y.

Ends with a table of means over seeds and the range. Runs that are complete are not trained again.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch

from handaug.augment.checker import Checkers, default_checker_config, row_errors, train_checkers
from handaug.data_specs.progress import SILENT
from handaug.data_specs.reader import HandDataset
from handaug.models.disentangle.validation import load_validation, validate
from handaug.models.methods import METHODS, load_run, resolve

ROWS = 400


def mixes(folder: Path, renders: Path, checkers: Checkers, device: str) -> dict[str, float]:
    """Measures of one trained run."""
    model = load_run(folder, device)
    val = HandDataset(renders, split="val")
    measured = validate(model, load_validation(val))  # type: ignore[arg-type]  # methods without a pose branch fail here
    rows = np.arange(min(ROWS, len(val)))
    images = torch.from_numpy(val.read("images", rows)).permute(0, 3, 1, 2).float() / 255
    keypoints, visibility = val.read("keypoints_2d", rows), val.read("visibility", rows)
    hands = val.read("handedness", rows)
    other = np.array([next((j for j in np.roll(rows, -i - 2) if hands[j] == hands[i]), i) for i in rows])
    drawn = [
        model.decode(model.encode_pose(x), model.encode_appearance(y)).cpu()
        for x, y in zip(images.split(64), images[other].split(64), strict=True)
    ]
    pixels = (torch.cat(drawn) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    found = checkers.predict(0, np.ascontiguousarray(pixels))
    plain = checkers.predict(0, val.read("images", rows))
    return {
        "pair_psnr_db": measured["pair_psnr_db"],
        "copy_psnr_db": measured["copy_psnr_db"],
        "error_to_x_px": float(np.nanmean(row_errors(found, keypoints, visibility))),
        "error_to_y_px": float(np.nanmean(row_errors(found, keypoints[other], visibility[other]))),
        "error_on_true_px": float(np.nanmean(row_errors(plain, keypoints, visibility))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("renders", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", default="handaug,self")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    config = default_checker_config(options.device)
    checker = train_checkers(options.renders, options.out / "checker", config, device=options.device, progress=SILENT)
    checkers = Checkers.load(checker, device=options.device)
    train = HandDataset(options.renders, split="train")
    table: dict[str, list[dict[str, float]]] = {}
    for name in options.methods.split(","):
        method = METHODS[name]
        for seed in range(options.seeds):
            settings = resolve(method.default_config)(name, len(train), train.size, options.device)
            folder, started = options.out / f"{name}-{seed}", time.monotonic()
            settings = dataclasses.replace(settings, seed=seed)
            resolve(method.train)(options.renders, folder, settings, device=options.device, progress=SILENT)
            row = {**mixes(folder, options.renders, checkers, options.device), "seconds": time.monotonic() - started}
            table.setdefault(name, []).append(row)
            print(name, seed, json.dumps({key: round(value, 2) for key, value in row.items()}), flush=True)
    for name, rows in table.items():
        for key in rows[0]:
            values = [row[key] for row in rows]
            print(f"{name:12} {key:18} {np.mean(values):8.2f}  ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()

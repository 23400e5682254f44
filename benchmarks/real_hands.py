"""Real hands, by estimators that never saw a real label: trained on renders alone, and on renders + minted images.

    python benchmarks/real_hands.py OUT --real DATA.h5 [--renders A.h5 ...] [--minted M.h5] [--arm NAME=B.h5,C.h5 ...]

DATA.h5 comes from `handaug import`, or a folder is given that `handaug import coco` reads: then its whole images are
imported at the size and channels of the renders, or with --margin M squares about the hands. The hand must take a share
of the frame that renders show too (both are printed; renders: about 0.5 to 0.85), and a square that reaches beyond the
source's border is black there, which no render is: on images that are crops already it made errors a quarter larger.
Without --renders, --poses are rendered with the defaults. Every --arm is a further set of renders; with --minted half
of each batch is minted in the arm `renders+minted`. All arms take the same number of steps, all with albumentations; a
run keeps the checkpoint that is best on the *renders'* val split.

Real rows are cut by their order: rows 0 to --first are for trying things out, --gap rows are left out, and the rest is
measured only with --open-rest: once, at the end. Runs that ended are not run again, so that costs seconds.

Figures are those of `handaug evaluate`: distances of joints with visibility >= 1 over the longer side of the labelled
joints' box. "median" and "mean" are in % of it; "no knuckles" leaves the MCP joints out, which other data sets put up
to 2 cm elsewhere; "own renders" is the renders' own test split, the error without any step to reality; "mean pose" is
what the mean pose of the renders scores, whatever the image.
The 95 % interval draws seeds and blocks of neighbouring frames, which are near-duplicates, with replacement.
OUT holds real_hands.json, the runs, and examples-ARM.png: real images, not to be shared where their licence forbids it.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.augment.batches import RowPool
from handaug.augment.fits import check_fits
from handaug.augment.gain_runs import Arm, Recipe, Training, predict_run, train_run
from handaug.augment.leaks import check_leaks
from handaug.augment.parallel import run_trainings
from handaug.cli.common import RichProgress, pick_device, run_script
from handaug.data_specs.draw import draw_skeleton, image_grid, save_png
from handaug.data_specs.errors import InputError
from handaug.data_specs.importers.job import import_dataset
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.joints import FINGERS
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import LEFT, RIGHT
from handaug.models.fabric import check_precision
from handaug.models.metrics import KeypointMetrics, error_by_joint, hand_box_sides
from handaug.render.config import RenderConfig
from handaug.render.job import render_dataset

__all__ = ["RightHands", "frames", "main", "median_interval", "reduction_interval"]

BLOCK = 12
"""Neighbouring frames that are drawn together in the bootstrap."""
REPLICATES = 1000
_DRAW = 61
KNUCKLES = [joints[0] for finger, joints in FINGERS.items() if finger != "thumb"]

Floats = NDArray[np.float64]


class RightHands(RowPool):
    """Rows in which every left hand is mirrored, so that an estimator has one kind of hand to learn. The side must be
    known, at test time too."""

    def __init__(self, datasets: Sequence[HandDataset]) -> None:
        super().__init__(datasets)
        self._left = self.handedness == LEFT
        mirrored = self.keypoints_2d * np.array([-1, 1], np.float32) + np.array([self.size[1] - 1, 0], np.float32)
        self.keypoints_2d = np.where(self._left[:, None, None], mirrored, self.keypoints_2d)
        self.handedness = np.full_like(self.handedness, RIGHT)

    def images(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images (len(index), H, W, C), in the order asked for."""
        out = super().images(index)
        left = self._left[index]
        out[left] = out[left][:, :, ::-1]
        return out


def frames(total: int, first: int, gap: int) -> dict[str, NDArray[np.int64]]:
    """Row numbers to try things out on, and those that are opened once; `gap` rows between them are left out.

    Raises:
        InputError: No row is left for one of the parts.
    """
    if not 0 < first < total - gap:
        raise InputError(f"--first {first}, --gap {gap}: leave rows for both parts of {total}")
    return {"first": np.arange(first), "rest": np.arange(first + gap, total)}


def _draws(seeds: int, rows: int, block: int, replicates: int, seed: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Of each replicate the seeds and the rows."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DRAW,)))
    blocks = np.array_split(np.arange(rows), max(1, rows // block))
    return [
        (
            rng.integers(seeds, size=seeds),
            np.concatenate([blocks[k] for k in rng.integers(len(blocks), size=len(blocks))]),
        )
        for _ in range(replicates)
    ]


def median_interval(
    shares: Floats, *, block: int = BLOCK, replicates: int = REPLICATES, seed: int = 0
) -> tuple[float, float]:
    """2.5th and 97.5th percentile of the median of errors (seeds, rows, joints), NaN where a joint has no label."""
    draws = _draws(*shares.shape[:2], block, replicates, seed)
    medians = [float(np.nanmedian(shares[of_seed][:, of_row])) for of_seed, of_row in draws]
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def reduction_interval(
    base: Floats, candidate: Floats, *, block: int = BLOCK, replicates: int = REPLICATES, seed: int = 0
) -> tuple[float, float, float]:
    """By how many % the candidate's median error is lower, and its 95 % interval; both arms get the same draws."""
    draws = _draws(*base.shape[:2], block, replicates, seed)

    def reduction(of_seed: NDArray[Any] | slice, of_row: NDArray[Any] | slice) -> float:
        one, other = (float(np.nanmedian(arm[of_seed][:, of_row])) for arm in (base, candidate))
        return 100 * (1 - other / one)

    low, high = np.percentile([reduction(*draw) for draw in draws], (2.5, 97.5))
    return reduction(slice(None), slice(None)), float(low), float(high)


def prepare(arguments: argparse.Namespace, progress: RichProgress) -> tuple[dict[str, list[Path]], Path]:
    """Files of each arm, rendered if none are given, and the real data, imported if a folder is given."""
    real: Path = arguments.real
    # Said before renders are made, which takes minutes.
    if real.suffix == ".h5":
        HandDataset(real)
    elif not real.is_dir():
        raise InputError(f"--real {real}: no such folder; give one that `handaug import coco` reads, or a dataset")
    renders = arguments.renders
    if not renders:
        renders = [arguments.out / "renders.h5"]
        config = RenderConfig(
            poses=arguments.poses, appearances=1, appearance_pool=arguments.poses, channels=arguments.channels
        )
        render_dataset(config, renders[0], workers=arguments.workers, progress=progress)
    arms = {"renders": renders}
    for text in arguments.arm:
        name, _, files = text.partition("=")
        if not files or name in (*arms, "renders+minted"):
            raise InputError(f"--arm {text}: give NAME=FILE[,FILE...] with a name of its own")
        arms[name] = [Path(file) for file in files.split(",")]
    if real.suffix != ".h5":
        first = HandDataset(renders[0])
        channels = "rgb" if first.channels == 3 else "mono"
        options = ImportOptions(size=first.size[0], channels=channels, crop="none")
        if arguments.margin is not None:
            options = replace(options, crop="square", margin=arguments.margin)
        real = import_dataset("coco", real, arguments.out / "real.h5", options, progress=progress)
    return arms, real


def box_share(rows: HandDataset) -> float:
    """Median share of the frame that the longer side of the joints' box takes."""
    return float(np.nanmedian(hand_box_sides(rows.read("keypoints_2d"), rows.read("visibility"))) / rows.size[1])


def claim(out: Path, key: dict[str, Any]) -> None:
    """Note what OUT is made from; refuse to mix it with anything else."""
    text, place = json.dumps(key, indent=2, sort_keys=True) + "\n", out / "config.json"
    if place.exists() and place.read_text() != text:
        raise InputError(f"{out}: holds runs of other data or options; choose another OUT")
    place.write_text(text)


def errors(folders: Sequence[Path], recipe: Recipe, rows: RowPool, device: str) -> tuple[Floats, NDArray[np.float32]]:
    """Shares of the box (seeds, N, 21), and the places (seeds, N, 21, 2) px."""
    places = [predict_run(folder, recipe, rows, device).keypoints for folder in folders]
    return np.stack([shares_of(found, rows) for found in places]), np.stack(places)


def shares_of(found: NDArray[np.floating[Any]], rows: RowPool) -> Floats:
    """Distances (N, 21) of places from the labels, over the longer side of the labelled joints' box."""
    metrics = KeypointMetrics()
    metrics.update(found, rows.keypoints_2d, rows.visibility)
    return metrics.box_distances()


def mean_pose(rows: RowPool) -> Floats:
    """(21, 2) px: the answer of one who looks at no image."""
    labelled = np.where(rows.visibility[..., None] > 0, rows.keypoints_2d, np.nan)
    return np.asarray(np.nanmean(labelled, 0), np.float64)


def figures(shares: Floats) -> dict[str, Any]:
    """What is reported of errors (seeds, rows, joints), in % of the box."""
    others = np.delete(shares, KNUCKLES, axis=2)
    return {
        "rows": shares.shape[1],
        "seeds": shares.shape[0],
        "median": 100 * float(np.nanmedian(shares)),
        "median_ci95": [100 * value for value in median_interval(shares)],
        "median_of_seeds": [100 * float(np.nanmedian(one)) for one in shares],
        "mean": 100 * float(np.nanmean(shares)),
        "median_no_knuckles": 100 * float(np.nanmedian(others)),
        "mean_by_joint": {name: 100 * value for name, value in error_by_joint(shares.reshape(-1, 21)).items()},
    }


def draw_examples(rows: RowPool, shares: Floats, places: NDArray[np.float32], out: Path) -> None:
    """Median rows, then the worst ones: truth above, the first seed's answer below."""
    order = np.argsort(np.nanmean(shares[0], 1))
    middle = len(order) // 2
    lines: list[list[NDArray[np.uint8]]] = []
    scale = max(1, 192 // rows.size[0])
    for block in (order[middle - 4 : middle + 4], order[::-1][:8]):
        images = rows.images(block)
        lines.append(
            [draw_skeleton(one, rows.keypoints_2d[k], scale=scale) for one, k in zip(images, block, strict=True)]
        )
        lines.append([draw_skeleton(one, places[0, k], scale=scale) for one, k in zip(images, block, strict=True)])
    save_png(out, image_grid(lines))


@dataclass(frozen=True)
class Source:
    """What an arm learns from."""

    arm: Arm
    train: list[HandDataset]
    validation: list[HandDataset]
    test: list[HandDataset]
    minted: HandDataset | None = None

    @property
    def learned_from(self) -> list[HandDataset]:
        """All rows it sees."""
        return [*self.train, *([self.minted] if self.minted is not None else [])]


def open_sources(arguments: argparse.Namespace, files: dict[str, list[Path]], real: HandDataset) -> dict[str, Source]:
    """The arms' data, checked against the real rows and their own validation rows."""
    sources = {}
    for name, paths in files.items():
        train = [HandDataset(path, split="train") for path in paths]
        if arguments.rows is not None:
            train = [HandDataset(rows.path, rows=rows.rows[: arguments.rows]) for rows in train]
        held_out = [[HandDataset(path, split=split) for path in paths] for split in ("val", "test")]
        sources[name] = Source(Arm(name, (), transformed=True), train, *held_out)
    if arguments.minted:
        arm = Arm("renders+minted", ("minted",), transformed=True)
        sources[arm.name] = replace(sources["renders"], arm=arm, minted=HandDataset(arguments.minted))
    for source in sources.values():
        for rows in source.learned_from:
            check_fits(rows, real.size, real.channels, str(real.path))
        for rows in source.validation:
            check_leaks(source.learned_from, real, rows)
    return sources


def train_all(arguments: argparse.Namespace, sources: dict[str, Source], device: str) -> dict[str, list[Path]]:
    """Train every arm with every seed; returns the folders of each arm's runs."""
    pool = RightHands if arguments.as_right else RowPool
    training = Training(
        recipe_of(arguments), arguments.steps, arguments.batch_size, arguments.lr, arguments.checkpoints,
        arguments.minted_fraction, device, arguments.precision,
    )  # fmt: skip
    folders = {name: [arguments.out / "runs" / name / f"seed-{k}" for k in range(arguments.seeds)] for name in sources}
    pools = {
        name: (pool(s.train), None if s.minted is None else pool([s.minted]), pool(s.validation))
        for name, s in sources.items()
    }
    trainings = [
        partial(train_run, folders[name][k], s.arm, k, 0, training, *pools[name], s.learned_from)
        for k in range(arguments.seeds)  # arms of one seed side by side: a run cut short leaves whole comparisons
        for name, s in sources.items()
    ]
    run_trainings(
        trainings,
        steps=len(trainings) * arguments.steps,
        label=f"{len(trainings)} runs",
        device=device,
        progress=RichProgress(),
        workers=arguments.workers,
    )
    return folders


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The estimator asked for."""
    return Recipe(arguments.estimator, arguments.width)


def measure(
    arguments: argparse.Namespace, sources: dict[str, Source], folders: dict[str, list[Path]], real: Path, device: str
) -> dict[str, Any]:
    """Figures of every arm on the parts of the real rows that may be opened, and on its own renders."""
    pool, recipe = RightHands if arguments.as_right else RowPool, recipe_of(arguments)
    parts = frames(len(HandDataset(real)), arguments.first, arguments.gap)
    if not arguments.open_rest:
        del parts["rest"]
    table: dict[str, Any] = {"arms": {name: {} for name in sources}, "comparisons": {}}
    guess = mean_pose(pool(sources["renders"].train))
    table["arms"]["mean pose"] = {}
    for part, numbers in parts.items():
        rows, shares = pool([HandDataset(real, rows=numbers)]), {}
        table["arms"]["mean pose"][part] = figures(shares_of(np.broadcast_to(guess, (len(rows), 21, 2)), rows)[None])
        for name in sources:
            shares[name], places = errors(folders[name], recipe, rows, device)
            table["arms"][name][part] = figures(shares[name])
            if part == "first":
                draw_examples(rows, shares[name], places, arguments.out / f"examples-{name}.png")
        for name in list(sources)[1:]:
            found = reduction_interval(shares["renders"], shares[name])
            table["comparisons"].setdefault(name, {})[part] = found
    for name, source in sources.items():
        own, _ = errors(folders[name], recipe, pool(source.test), device)
        table["arms"][name]["own renders"] = figures(own)
    return table


def show(table: dict[str, Any]) -> None:
    """Print the table."""
    print(f"\n{'arm':18}{'part':13}{'rows':>6}{'seeds':>7}{'median %':>10}{'95 %':>15}{'no knuckles':>13}{'mean %':>9}")
    for name, parts in table["arms"].items():
        for part, row in parts.items():
            low, high = row["median_ci95"]
            print(
                f"{name:18}{part:13}{row['rows']:6}{row['seeds']:7}{row['median']:10.1f}{low:8.1f} to{high:5.1f}"
                f"{row['median_no_knuckles']:13.1f}{row['mean']:9.1f}"
            )
    for name, parts in table["comparisons"].items():
        for part, (mean, low, high) in parts.items():
            print(f"median of {name} against renders, {part}: {mean:+.1f} % lower (95 %: {low:+.1f} to {high:+.1f})")


def run(arguments: argparse.Namespace) -> None:
    """Everything, from nothing to the table."""
    device = pick_device(arguments.device)
    check_precision(arguments.precision)
    arguments.out.mkdir(parents=True, exist_ok=True)
    files, real = prepare(arguments, RichProgress())
    whole = HandDataset(real)
    frames(len(whole), arguments.first, arguments.gap)
    sources = open_sources(arguments, files, whole)
    kept = (
        "rows",
        "estimator",
        "width",
        "steps",
        "batch_size",
        "lr",
        "checkpoints",
        "minted_fraction",
        "as_right",
        "precision",
    )
    data = {name: [rows.checksum for rows in source.learned_from] for name, source in sources.items()}
    claim(arguments.out, {**{name: getattr(arguments, name) for name in kept}, "data": data})
    own = box_share(sources["renders"].train[0])
    print(f"joints' box over the frame, median: real {box_share(whole):.2f}, renders {own:.2f}")
    table = measure(arguments, sources, train_all(arguments, sources, device), real, device)
    (arguments.out / "real_hands.json").write_text(json.dumps(table, indent=2) + "\n")
    show(table)


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--real", type=Path, required=True, help="real hands: a dataset, or what `import coco` reads")
    parser.add_argument("--renders", type=Path, nargs="*", default=[], help="renders to learn from")
    parser.add_argument("--minted", type=Path, help="minted images, for the arm renders+minted")
    parser.add_argument("--arm", action="append", default=[], metavar="NAME=FILE[,FILE]", help="further renders")
    parser.add_argument("--as-right", action="store_true", help="mirror left hands, in training and on real images")
    parser.add_argument("--open-rest", action="store_true", help="measure on the rest of the real rows too: once")
    parser.add_argument("--first", type=int, default=292)
    parser.add_argument("--gap", type=int, default=10)
    parser.add_argument("--margin", type=float, help="import squares about the hands; whole images by default")
    parser.add_argument("--poses", type=int, default=2000, help="to render where no renders are given")
    parser.add_argument("--channels", choices=("rgb", "mono"), default="rgb", help="of renders made here")
    parser.add_argument("--rows", type=int, help="train rows of each file of renders; all by default")
    parser.add_argument("--estimator", default="compact")
    parser.add_argument("--width", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--checkpoints", type=int, default=5)
    parser.add_argument("--minted-fraction", type=float, default=0.5)
    parser.add_argument("--precision", default="32-true", help="or bf16-mixed")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    run(arguments)
    return 0


if __name__ == "__main__":
    run_script(main)

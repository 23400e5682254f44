"""Real hands, by estimators trained on renders alone, on renders + minted images, and with a few real labels.

    python benchmarks/real_hands.py OUT --real DATA.h5 [--renders A.h5 ...] [--minted M.h5] [--arm NAME=B.h5,C.h5 ...]
        [--labels 25,100]

DATA.h5 comes from `handaug import`, or a folder is given that `handaug import coco` reads: then its whole images are
imported at the size and channels of the renders, or with --margin M squares about the hands. The hand must take a share
of the frame that renders show too (both are printed; renders: about 0.5 to 0.85), and a square that reaches beyond the
source's border is black there, which no render is: on images that are crops already it made errors a quarter larger.
Without --renders, --poses are rendered with the defaults. Every --arm is a further set of renders; with --minted half
of each batch is minted in the arm `renders+minted`. All arms take the same number of steps, all with albumentations,
which mirrors half of the rows in every arm if the --renders show both hands, in none otherwise; a run keeps the
checkpoint that is best on the *renders'* val split. None of these ever sees a real label.

--labels N adds two arms that do: `labels-N` learns from N rows among the first ones, evenly spread, and from nothing
else; in `renders+labels-N` they are a quarter of each batch. Of these N rows every fifth is kept back and chooses the
checkpoint. They are measured on the rest alone: neighbouring frames are near-duplicates. With --estimator CKPT, a run
of the arm `renders`, all arms go on from there: `labels-N` is then the usual fine-tuning.

Real rows are cut by their order: rows 0 to --first are for trying things out, --gap rows are left out, and the rest is
measured only with --open-rest: once, at the end. Runs that ended are not run again, so that costs seconds. --views 16
asks about 16 views of each image (turned, scaled, moved) and measures the median answer, in all arms alike.

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
from commands import Parser, at_least, check_labelled, claim, listed, make_folder, positive, rate, share
from numpy.typing import NDArray
from real_errors import draw_examples, errors, figures, frames, mean_pose, reduction_interval, shares_of, show

from handaug.augment.batches import RowPool, check_share
from handaug.augment.checker import fingerprint
from handaug.augment.fits import check_fits
from handaug.augment.gain_runs import Arm, Recipe, Training, make_estimator, train_run
from handaug.augment.leaks import check_leaks
from handaug.augment.parallel import run_trainings
from handaug.cli.common import RichProgress, pick_device, run_script
from handaug.data_specs.errors import InputError
from handaug.data_specs.importers.job import import_dataset
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import LEFT, RIGHT
from handaug.models.fabric import check_precision
from handaug.models.metrics import hand_box_sides
from handaug.models.seen import check_seen
from handaug.render.config import RenderConfig
from handaug.render.job import render_dataset

__all__ = ["RightHands", "main"]


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


def prepare(arguments: argparse.Namespace, progress: RichProgress) -> tuple[dict[str, list[Path]], Path]:
    """Files of each arm, rendered if none are given, and the real data, imported if a folder is given.

    What can be wrong with files and estimator is said before renders are made, which takes minutes.
    """
    real: Path = arguments.real
    config = RenderConfig(
        poses=arguments.poses, appearances=1, appearance_pool=arguments.poses, channels=arguments.channels
    )
    arms = {"renders": arguments.renders or [arguments.out / "renders.h5"]}
    for text in arguments.arm:
        name, _, files = text.partition("=")
        if not files or not name or "/" in name or name in (*arms, "renders+minted"):
            raise InputError(f"--arm {text}: give NAME=FILE[,FILE...] with a name of its own")
        arms[name] = [Path(file) for file in files.split(",")]
    further = [file for files in list(arms.values())[1:] for file in files]
    given = [HandDataset(path) for path in (*arguments.renders, *further, *filter(None, [arguments.minted]))]
    size, channels = (config.size, config.size), 3 if arguments.channels == "rgb" else 1
    if arguments.renders:
        size, channels = given[0].size, given[0].channels
    make_estimator(recipe_of(arguments), size, channels)
    if real.suffix == ".h5":
        given.append(HandDataset(real))
        frames(len(given[-1]), arguments.first, arguments.gap)
    elif not real.is_dir():
        raise InputError(f"--real {real}: no such folder; give one that `handaug import coco` reads, or a dataset")
    for rows in given:
        check_fits(rows, size, channels, str(arguments.renders[0]) if arguments.renders else "what is rendered")
    if not arguments.renders:
        render_dataset(config, arms["renders"][0], workers=arguments.workers, progress=progress)
    if real.suffix != ".h5":
        options = ImportOptions(size=size[0], channels="rgb" if channels == 3 else "mono", crop="none")
        if arguments.margin is not None:
            options = replace(options, crop="square", margin=arguments.margin)
        real = import_dataset("coco", real, arguments.out / "real.h5", options, progress=progress)
    return arms, real


def box_share(rows: HandDataset) -> float:
    """Median share of the frame that the longer side of the joints' box takes."""
    return float(np.nanmedian(hand_box_sides(rows.read("keypoints_2d"), rows.read("visibility"))) / rows.size[1])


@dataclass(frozen=True)
class Source:
    """What an arm learns from."""

    arm: Arm
    train: list[HandDataset]
    validation: list[HandDataset]
    test: list[HandDataset]
    extra: HandDataset | None = None
    """Minted or labelled real rows."""
    share: float = 0.0
    """Of a batch that they take beside renders."""

    @property
    def learned_from(self) -> list[HandDataset]:
        """All rows it sees."""
        return [*([] if self.arm.alone else self.train), *([self.extra] if self.extra is not None else [])]


def open_sources(arguments: argparse.Namespace, files: dict[str, list[Path]], real: HandDataset) -> dict[str, Source]:
    """The arms' data, checked against the real rows and their own validation rows."""
    sources = {}
    after = HandDataset(real.path, rows=np.arange(arguments.first, len(real)))
    for name, paths in files.items():
        train = [HandDataset(path, split="train") for path in paths]
        if arguments.rows is not None:
            train = [HandDataset(rows.path, rows=rows.rows[: arguments.rows]) for rows in train]
        held_out = [[HandDataset(path, split=split) for path in paths] for split in ("val", "test")]
        sources[name] = Source(Arm(name, (), transformed=True), train, *held_out)
    if arguments.minted:
        arm = Arm("renders+minted", ("minted",), transformed=True)
        minted = HandDataset(arguments.minted)
        sources[arm.name] = replace(sources["renders"], arm=arm, extra=minted, share=arguments.minted_fraction)
    for source in sources.values():
        for rows in source.learned_from:
            check_fits(rows, real.size, real.channels, str(real.path))
        for rows in source.validation:
            check_leaks(source.learned_from, real, rows, looks=after)
        for views, split in ((source.train, "train"), (source.validation, "val"), (source.test, "test")):
            check_labelled(views, f"{split} split")
        if source.extra is not None:
            check_labelled([source.extra], "whole length")
    for part, numbers in frames(len(real), arguments.first, arguments.gap).items():
        check_labelled([HandDataset(real.path, rows=numbers)], f"{part} rows (--first, --gap)")
    rest = HandDataset(real.path, rows=frames(len(real), arguments.first, arguments.gap)["rest"])
    for count in arguments.labels:
        chosen = np.linspace(0, arguments.first - 1, count).round().astype(np.int64)
        kept_back = np.arange(count) % 5 == 4
        labelled, choosing = (HandDataset(real.path, rows=chosen[which]) for which in (~kept_back, kept_back))
        for name, alone in ((f"labels-{count}", True), (f"renders+labels-{count}", False)):
            arm = Arm(name, ("labels",), transformed=True, alone=alone)
            source = replace(
                sources["renders"], arm=arm, validation=[choosing], extra=labelled, share=arguments.labelled_fraction
            )
            check_leaks(source.learned_from, rest, choosing)
            for views in ([labelled], [choosing]):
                check_labelled(views, f"rows for --labels {count}")
            sources[name] = source
    return sources


def train_all(arguments: argparse.Namespace, sources: dict[str, Source], device: str) -> dict[str, list[Path]]:
    """Train every arm with every seed; returns the folders of each arm's runs."""
    pool = RightHands if arguments.as_right else RowPool
    folders = {name: [arguments.out / "runs" / name / f"seed-{k}" for k in range(arguments.seeds)] for name in sources}
    pools = {
        name: (pool(s.train), None if s.extra is None else pool([s.extra]), pool(s.validation))
        for name, s in sources.items()
    }
    training = Training(
        recipe_of(arguments), arguments.steps, arguments.batch_size, arguments.lr, arguments.checkpoints,
        0.0, device, pools["renders"][0].both_hands, arguments.precision,
    )  # fmt: skip
    trainings = [
        partial(
            train_run,
            folders[name][k],
            s.arm,
            k,
            0,
            replace(training, minted_fraction=s.share),
            *pools[name],
            s.learned_from,
        )
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
    table: dict[str, Any] = {"views": arguments.views, "arms": {name: {} for name in sources}, "comparisons": {}}
    guess = mean_pose(pool(sources["renders"].train))
    table["arms"]["mean pose"] = {}
    for part, numbers in parts.items():
        rows, shares = pool([HandDataset(real, rows=numbers)]), {}
        table["arms"]["mean pose"][part] = figures(shares_of(np.broadcast_to(guess, (len(rows), 21, 2)), rows)[None])
        for name, source in sources.items():
            if part == "first" and "labels" in source.arm.extra:
                continue  # it has learned from them
            shares[name], places = errors(folders[name], recipe, rows, device, arguments.views)
            table["arms"][name][part] = figures(shares[name])
            if part == "first":
                draw_examples(rows, shares[name], places, arguments.out / f"examples-{name}.png")
        for name in list(shares)[1:]:
            found = reduction_interval(shares["renders"], shares[name])
            table["comparisons"].setdefault(name, {})[part] = found
    for name, source in sources.items():
        own, _ = errors(folders[name], recipe, pool(source.test), device, arguments.views)
        table["arms"][name]["own renders"] = figures(own)
    return table


def settings(arguments: argparse.Namespace, sources: dict[str, Source]) -> dict[str, Any]:
    """What the runs in OUT are made from."""
    kept = ["rows", "estimator", "width", "steps", "batch_size", "lr", "checkpoints", "minted_fraction", "as_right"]
    kept.append("precision")
    if arguments.labels:  # --first and --gap say which real rows are learned from, and which are never seen
        kept += ["labels", "labelled_fraction", "first", "gap"]
    data = {name: [rows.checksum for rows in source.learned_from] for name, source in sources.items()}
    start = recipe_of(arguments).start
    weights = {} if start is None else {"start": fingerprint(start)}
    return {**{name: getattr(arguments, name) for name in kept}, "data": data, **weights}


def run(arguments: argparse.Namespace) -> None:
    """Everything, from nothing to the table."""
    device = arguments.device
    check_precision(arguments.precision)
    most = max(arguments.labels, default=0)
    if most > arguments.first:
        raise InputError(f"--labels {most}: more than the {arguments.first} rows of --first; lower it or raise --first")
    if arguments.labels and not arguments.open_rest:
        raise InputError("--labels: these arms are measured on the rest alone; add --open-rest")
    if arguments.minted:
        check_share("--minted-fraction", arguments.minted_fraction, arguments.batch_size)
    if arguments.labels:
        check_share("--labelled-fraction", arguments.labelled_fraction, arguments.batch_size)
    if arguments.checkpoints > arguments.steps:
        raise InputError(f"--steps {arguments.steps}: train {arguments.checkpoints} or more, one for each checkpoint")
    if arguments.margin is not None:
        ImportOptions(margin=arguments.margin)
    make_folder(arguments.out)
    files, real = prepare(arguments, RichProgress())
    whole = HandDataset(real)
    frames(len(whole), arguments.first, arguments.gap)
    sources = open_sources(arguments, files, whole)
    start = recipe_of(arguments).start
    if start is not None:
        check_seen(start, whole, "test")
    claim(arguments.out, settings(arguments, sources))
    own = box_share(sources["renders"].train[0])
    print(f"joints' box over the frame, median: real {box_share(whole):.2f}, renders {own:.2f}")
    table = measure(arguments, sources, train_all(arguments, sources, device), real, device)
    (arguments.out / "real_hands.json").write_text(json.dumps(table, indent=2) + "\n")
    show(table)


def main() -> int:
    """Parse the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--real", type=Path, required=True, help="real hands: a dataset, or what `import coco` reads")
    parser.add_argument("--renders", type=Path, nargs="*", default=[], help="renders to learn from")
    parser.add_argument("--minted", type=Path, help="minted images, for the arm renders+minted")
    parser.add_argument("--arm", action="append", default=[], metavar="NAME=FILE[,FILE]", help="further renders")
    parser.add_argument(
        "--labels", type=listed(at_least(5)), default=[], metavar="N,M", help="arms with so many labels"
    )
    parser.add_argument("--labelled-fraction", type=share, default=0.25, help="of a batch, beside renders")
    parser.add_argument("--as-right", action="store_true", help="mirror left hands, in training and on real images")
    parser.add_argument("--open-rest", action="store_true", help="measure on the rest of the real rows too: once")
    parser.add_argument("--first", type=positive, default=292)
    parser.add_argument("--gap", type=at_least(0), default=10)
    parser.add_argument("--views", type=positive, default=1, help="of each image, whose median answer is measured")
    parser.add_argument("--margin", type=float, help="import squares about the hands; whole images by default")
    parser.add_argument("--poses", type=positive, default=2000, help="to render where no renders are given")
    parser.add_argument("--channels", choices=("rgb", "mono"), default="rgb", help="of renders made here")
    parser.add_argument("--rows", type=positive, help="train rows of each file of renders; all by default")
    parser.add_argument("--estimator", default="compact")
    parser.add_argument("--width", type=positive)
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, default=4000)
    parser.add_argument("--batch-size", type=positive, default=16)
    parser.add_argument("--lr", type=rate, default=2e-3)
    parser.add_argument("--checkpoints", type=positive, default=5)
    parser.add_argument("--minted-fraction", type=share, default=0.5)
    parser.add_argument("--precision", default="32-true", help="or bf16-mixed")
    parser.add_argument("--device", type=pick_device, default="auto")
    parser.add_argument("--workers", type=positive)
    arguments = parser.parse_args()
    run(arguments)
    return 0


if __name__ == "__main__":
    run_script(main)

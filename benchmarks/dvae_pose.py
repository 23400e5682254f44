"""Pose estimation by the dVAE: the protocols, tables and figures of Yang & Yao 2019, section 4.4, each as one command.

    python benchmarks/dvae_pose.py protocol rhd RHD_published_v2 OUT      # table and Figs. 7, 8: 41k train, 2.7k test
    python benchmarks/dvae_pose.py protocol stb STB OUT --seeds 3         # 15k train, 3k test
    python benchmarks/dvae_pose.py protocol renders renders.h5 OUT        # the same on our renders
    python benchmarks/dvae_pose.py figures RUN DATA OUT                   # Figs. 7, 8 of a trained run
    python benchmarks/dvae_pose.py labelled DATA OUT --percent 5 20 40 60 80 100 --seeds 3    # Fig. 9

SRC is the dataset's folder as downloaded (`handaug import` reads it) or an HDF5 file that was imported before in the
same way. Of RHD each image gives one hand, the one with more pixels in the mask, as in the reader of Zimmermann & Brox;
of STB each stereo pair gives its left image (the paper does not say which). Both are compared at the palm's centre, as
published: RHD's root is the midpoint of wrist and middle mcp, STB labels it. Side and scale are given at test. Errors
are means over the seeds; the gain over the cross-modal VAE has a 95 % interval, bootstrap over seeds and test groups
(of RHD the images, of STB the two test sequences). Every training resumes where it was stopped.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from commands import Parser, as_number, at_least, handaug, make_folder, positive
from numpy.typing import NDArray

from handaug.augment.bootstrap import ErrorSums, Gain, relative_gain
from handaug.augment.dvae_figures import PAPER_FIG7, PAPER_LABELLED, line_figure, pck_figure, text_table
from handaug.augment.report import name_seeds
from handaug.augment.walk import check_images
from handaug.cli.common import RichProgress, pick_device, run_script
from handaug.data_specs.draw import save_png
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.models.dvae.api import Dvae, load_dvae
from handaug.models.dvae.config import SUPERVISIONS, DvaeConfig, default_dvae_config
from handaug.models.dvae.data import first_rows, read_poses
from handaug.models.dvae.measure import Estimates, Rows, estimate_rows, mean_pose, measure, read_rows
from handaug.models.dvae.pictures import draw_estimates
from handaug.models.dvae.train import train_dvae
from handaug.models.methods import change_config

__all__ = ["main"]

METHODS = ("dvae-pose", "cross-modal")
PAPER_NAME = {"dvae-pose": "dVAE (ours)", "cross-modal": "cross-modal VAE (ours)"}
IMPORTED = {
    "rhd": {"format": "rhd", "split": "official", "hands": "prominent"},
    "stb": {"format": "stb", "split": "official", "views": "BB_left", "wrist": "palm"},
}
"""What the config of an imported file says that holds the rows of a protocol."""
MEAN_POSE = "the mean labelled pose, always"
_REPLICATES = 2000


def fetch(name: str, source: Path, out: Path, arguments: argparse.Namespace) -> Path:
    """The dataset as HDF5: SRC itself, or imported from its folder."""
    words = import_words(name)
    if source.is_file():
        config = HandDataset(source).config
        if words and not IMPORTED[name].items() <= config.items():
            raise InputError(f"{source}: is not of this protocol; import it with `handaug import {name} ... {words}`")
        return source
    target = out / f"{name}.h5"
    sizes = ("--size", arguments.size, "--channels", arguments.channels)
    handaug("import", name, source, target, *sizes, *words.split())
    return target


def import_words(name: str) -> str:
    """The options of `handaug import` that make a dataset the protocol's; empty for our renders."""
    options = IMPORTED.get(name, {}).items()
    return " ".join(f"--{option} {value}" for option, value in options if option != "format")


def config_of(arguments: argparse.Namespace, method: str, rows: int, size: tuple[int, int]) -> DvaeConfig:
    """A method's configuration with the common options of the command line."""
    config: DvaeConfig = change_config(default_dvae_config(method, rows, size, arguments.device), arguments.set)
    return replace(config, steps=arguments.steps) if arguments.steps else config


def check_test(data: Path) -> None:
    """Refuse data on which nothing can be measured, before anything is trained."""
    if not len(HandDataset(data, split="test")):
        raise InputError(f"{data}: has no rows in its test split; give data that has")


def draw(curves: Mapping[str, NDArray[np.float64]], models: Mapping[str, Dvae], rows: Rows, out: Path) -> None:
    """Fig. 7 of PCK curves by name, and Fig. 8 of each model."""
    pck_figure(curves, out / "fig7.png")
    for name, model in models.items():
        save_png(out / f"fig8-{name}.png", draw_estimates(model, rows))


def protocol(arguments: argparse.Namespace) -> None:
    """Train on the train split, measure on the test split, set beside the paper's numbers."""
    out, device = arguments.out, arguments.device
    make_folder(out)
    for method in METHODS:
        config_of(arguments, method, 1, (64, 64))  # says what is wrong before an import, which takes minutes
    data = fetch(arguments.dataset, arguments.source, out, arguments)
    check_test(data)
    root = "palm" if arguments.dataset == "rhd" else "wrist"
    view, test = (HandDataset(data, split=split) for split in ("train", "test"))
    rows = read_rows(test, root)
    configs = {method: replace(config_of(arguments, method, len(view), view.size), root=root) for method in METHODS}
    setting = text_table(
        [
            {
                "method": PAPER_NAME[method],
                "imported with": import_words(arguments.dataset) or None,
                "train rows": len(view),
                "test rows": len(rows),
                "seeds": arguments.seeds,
                **weights(config),
            }
            for method, config in configs.items()
        ]
    )
    print(setting, flush=True)
    found: dict[str, list[Estimates]] = {}
    firsts: dict[str, Dvae] = {}
    for method, config in configs.items():
        runs = [(out / f"{method}-seed{seed}", replace(config, seed=seed)) for seed in range(arguments.seeds)]
        models = [load_dvae(train_dvae(data, *run, device=device, progress=RichProgress()), device) for run in runs]
        found[method] = [estimate_rows(model, rows) for model in models]
        firsts[PAPER_NAME[method].split()[0]] = models[0]
    curves = {
        f"{PAPER_NAME[method]} {pose}": np.mean([one.curve(pose) for one in seeds], 0)
        for method, seeds in found.items()
        for pose in seeds[0].distances
    }
    draw(curves, firsts, rows, out)
    results: dict[str, Any] = {method: [one.figures() for one in seeds] for method, seeds in found.items()}
    table = text_table(paper_rows(arguments.dataset) + [row_of(method, results[method]) for method in METHODS])
    gain = gain_of(found, test.read("group")[read_poses(test, root).known.numpy()])
    low, high = gain.ci95
    told = (
        f"gain of the dVAE over the cross-modal VAE, 3DPose EPE: {gain.mean:+.1f} % (95 % interval {low:+.1f} to "
        f"{high:+.1f}, {name_seeds(gain.n_seeds)})"
    )
    finish(out, "protocol", {**results, "gain": asdict(gain)}, f"{setting}\n{table}\n{told}\n")


def weights(config: DvaeConfig) -> dict[str, Any]:
    """What of a configuration the paper states, or should: length, batch, size of z, weight of its KL."""
    d = sum(dimensions for _, dimensions in config.blocks)
    return {"steps": config.steps, "batch": config.batch_size, "d": d, "beta": config.beta}


def paper_rows(dataset: str) -> list[dict[str, Any]]:
    """What Fig. 7 prints, in the columns of `row_of`."""
    return [
        {
            "method": f"{name} (as printed)",
            "CPose EPE mm": cpose,
            "3DPose EPE mm": pose3d,
            "s.d. over seeds": None,
            "AUC 20-50 mm": auc,
        }
        for name, (cpose, pose3d, auc) in PAPER_FIG7.get(dataset, {}).items()
    ]


def row_of(method: str, seeds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """A row of the table: means over the seeds."""

    def mean(name: str) -> float | None:
        return float(np.mean([one[name] for one in seeds])) if name in seeds[0] else None

    return {
        "method": PAPER_NAME[method],
        "CPose EPE mm": mean("cpose_epe_mean_mm"),
        "3DPose EPE mm": mean("pose3d_epe_mean_mm"),
        "s.d. over seeds": spread([one["pose3d_epe_mean_mm"] for one in seeds]),
        "AUC 20-50 mm": mean("pose3d_auc_20_50_mm"),
    }


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation over seeds; None of one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def gain_of(found: Mapping[str, Sequence[Estimates]], groups: NDArray[np.int64]) -> Gain:
    """By how many % the dVAE's 3DPose error is lower than the cross-modal VAE's."""
    sums = {
        method: ErrorSums.of(np.stack([one.distances["pose3d"] for one in seeds]), groups)
        for method, seeds in found.items()
    }
    return relative_gain(sums["cross-modal"], sums["dvae-pose"], replicates=_REPLICATES, seed=0)


def labelled(arguments: argparse.Namespace) -> None:
    """Fig. 9: mean EPE over the labelled share, supervised, semi- and weakly supervised, over seeds.

    Beside them what always answering the mean of the labelled poses scores.
    """
    out = arguments.out
    make_folder(out)
    check_test(arguments.data)
    view = HandDataset(arguments.data, split="train")
    whole = config_of(arguments, "dvae-pose", len(view), view.size)
    rows = read_rows(HandDataset(arguments.data, split="test"), whole.root)
    results: list[dict[str, Any]] = []
    for share in arguments.percent:
        known = read_poses(view, whole.root, np.arange(first_rows(len(view), share)))
        results.append({"supervision": MEAN_POSE, "percent": share, **mean_pose(known, rows).figures()})
        for supervision in arguments.supervision:
            # With every label there is nothing left that the kinds of supervision treat differently.
            kind = supervision if share < 100 else "supervised"
            for seed in range(arguments.seeds):
                config = replace(whole, labelled=share, supervision=kind, seed=seed)
                run = train_dvae(
                    arguments.data, out / f"{kind}-{share:g}-seed{seed}", config,
                    device=arguments.device, progress=RichProgress(),
                )  # fmt: skip
                found = measure(load_dvae(run, arguments.device), rows)
                results.append({"supervision": supervision, "percent": share, "seed": seed, **found})
    series, table = {}, []
    for supervision in (*arguments.supervision, MEAN_POSE):
        means = []
        for share in arguments.percent:
            values = [
                r["pose3d_epe_mean_mm"] for r in results if (r["supervision"], r["percent"]) == (supervision, share)
            ]
            means.append(float(np.mean(values)))
            row = {"supervision": supervision, "percent": share, "EPE mm": means[-1]}
            table.append({**row, "s.d. over seeds": spread(values)})
        series[supervision] = (list(arguments.percent), means)
    line_figure(series, out / "fig9.png", x="Labelled percentage (%)", y="Average EPE (mm)")
    finish(out, "labelled", results, text_table(table) + f"\nThe paper, on RHD: {PAPER_LABELLED}.\n")


def finish(out: Path, name: str, results: Any, table: str) -> None:
    """Write figures and table, and print the table."""
    (out / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
    (out / f"{name}.md").write_text(table)
    print(table)


def show(arguments: argparse.Namespace) -> None:
    """Figs. 7 and 8 of a trained run."""
    make_folder(arguments.out)
    check_test(arguments.data)
    model = load_dvae(arguments.run, arguments.device)
    data = HandDataset(arguments.data, split="test")
    check_images(model, data)
    rows = read_rows(data, model.config.root)
    found = estimate_rows(model, rows)
    draw({f"dVAE {pose}": found.curve(pose) for pose in found.distances}, {"dVAE": model}, rows, arguments.out)
    figures = {"rows": len(rows), **found.figures()}
    finish(arguments.out, "figures", figures, text_table([figures]))


def percentage(text: str) -> float:
    """A type for argparse: above 0 and up to 100."""
    value = as_number(text)
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"{text}: give a percentage above 0 and up to 100")
    return value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(description=__doc__)
    parts = top.add_subparsers(required=True)
    common = Parser(add_help=False)
    common.add_argument("--device", type=pick_device, default="auto")
    common.add_argument("--steps", type=positive, help="in place of the method's default")
    common.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as of `handaug disentangle`")
    one = parts.add_parser("protocol", parents=[common])
    one.add_argument("dataset", choices=["rhd", "stb", "renders"])
    one.add_argument("source", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("--size", type=at_least(8), default=64, help="pixels of the crops")
    one.add_argument("--channels", default="rgb", choices=["mono", "rgb"])
    one.add_argument("--seeds", type=positive, default=3)
    one.set_defaults(work=protocol)
    two = parts.add_parser("figures", parents=[common])
    two.add_argument("run", type=Path)
    two.add_argument("data", type=Path)
    two.add_argument("out", type=Path)
    two.set_defaults(work=show)
    three = parts.add_parser("labelled", parents=[common])
    three.add_argument("data", type=Path)
    three.add_argument("out", type=Path)
    three.add_argument("--percent", type=percentage, nargs="+", default=[5.0, 20.0, 40.0, 60.0, 80.0, 100.0])
    three.add_argument("--supervision", nargs="+", default=list(SUPERVISIONS), choices=SUPERVISIONS)
    three.add_argument("--seeds", type=positive, default=3)
    three.set_defaults(work=labelled)
    return top


def main() -> int:
    """Run the chosen part."""
    arguments = parser().parse_args()
    arguments.work(arguments)
    return 0


if __name__ == "__main__":
    run_script(main)

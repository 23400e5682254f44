"""Pose estimation by the dVAE: the protocols, tables and figures of Yang & Yao 2019, section 4.4, each as one command.

    python benchmarks/dvae_pose.py protocol rhd RHD_published_v2 OUT      # table and Figs. 7, 8: 41k train, 2.7k test
    python benchmarks/dvae_pose.py protocol stb STB OUT                   # 15k train, 3k test
    python benchmarks/dvae_pose.py protocol renders renders.h5 OUT        # the same on our renders
    python benchmarks/dvae_pose.py figures RUN DATA OUT                   # Figs. 7, 8 of a trained run
    python benchmarks/dvae_pose.py labelled DATA OUT --percent 5 20 40 60 80 100 --seeds 3    # Fig. 9

SRC is the dataset's folder as downloaded (`handaug import` reads it) or an HDF5 file that was imported before. RHD and
STB are compared at the palm's centre, as published: RHD's root is the midpoint of wrist and middle mcp, STB labels it.
Side and scale are given at test. Every training resumes where it was stopped.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from commands import Parser, as_number, at_least, handaug, make_folder, positive

from handaug.augment.dvae_figures import PAPER_FIG7, PAPER_LABELLED, line_figure, pck_figure, text_table
from handaug.cli.common import RichProgress, pick_device, run_script
from handaug.data_specs.draw import save_png
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.models.dvae.api import load_dvae
from handaug.models.dvae.config import SUPERVISIONS, DvaeConfig, default_dvae_config
from handaug.models.dvae.measure import estimate_rows, measure, read_rows
from handaug.models.dvae.pictures import draw_estimates
from handaug.models.dvae.train import train_dvae
from handaug.models.methods import change_config

__all__ = ["main"]

METHODS = ("dvae-pose", "cross-modal")
PAPER_NAME = {"dvae-pose": "dVAE (ours)", "cross-modal": "cross-modal VAE (ours)"}


def fetch(name: str, source: Path, out: Path, arguments: argparse.Namespace) -> Path:
    """The dataset as HDF5: SRC itself, or imported from its folder."""
    if source.is_file():
        return source
    target = out / f"{name}.h5"
    wrist = ["--wrist", "palm"] if name == "stb" else []
    handaug("import", name, source, target, "--size", arguments.size, "--channels", arguments.channels, *wrist)
    return target


def train(data: Path, out: Path, method: str, arguments: argparse.Namespace, **changes: Any) -> Path:
    """Train one run, with the common options of the command line."""
    view = HandDataset(data, split="train")
    config = replace(config_of(arguments, method, len(view), view.size), **changes)
    return train_dvae(data, out, config, device=arguments.device, progress=RichProgress())


def config_of(arguments: argparse.Namespace, method: str, rows: int, size: tuple[int, int]) -> DvaeConfig:
    """A method's configuration with the common options of the command line."""
    config = change_config(default_dvae_config(method, rows, size, arguments.device), arguments.set)
    return replace(config, steps=arguments.steps) if arguments.steps else config


def check_test(data: Path) -> None:
    """Refuse data on which nothing can be measured, before anything is trained."""
    if not len(HandDataset(data, split="test")):
        raise InputError(f"{data}: has no rows in its test split; give data that has")


def figures(run: Path, data: Path, out: Path, device: str, name: str = "dVAE") -> dict[str, Any]:
    """Figs. 7 and 8 of one run on the test split; returns its figures and PCK curves."""
    model = load_dvae(run, device)
    rows = read_rows(HandDataset(data, split="test"), model.config.root)
    found = estimate_rows(model, rows)
    curves = {f"{name} {pose}": found.curve(pose) for pose in found.distances}
    save_png(out / f"fig8-{name.split()[0]}.png", draw_estimates(model, rows))
    return {"figures": {"rows": len(rows), **found.figures()}, "curves": curves}


def protocol(arguments: argparse.Namespace) -> None:
    """Train on the train split, measure on the test split, set beside the paper's numbers."""
    out = arguments.out
    make_folder(out)
    for method in METHODS:
        config_of(arguments, method, 1, (64, 64))  # says what is wrong before an import, which takes minutes
    data = fetch(arguments.dataset, arguments.source, out, arguments)
    check_test(data)
    root = "palm" if arguments.dataset == "rhd" else "wrist"
    table: list[dict[str, Any]] = [
        {"method": f"{name} (as printed)", "rows": None, "CPose EPE mm": c, "3DPose EPE mm": p, "AUC 20-50 mm": auc}
        for name, (c, p, auc) in PAPER_FIG7.get(arguments.dataset, {}).items()
    ]
    curves: dict[str, Any] = {}
    results: dict[str, Any] = {}
    for method in METHODS:
        run = train(data, out / method, method, arguments, root=root)
        done = figures(run, data, out, arguments.device, PAPER_NAME[method])
        curves |= done["curves"]
        results[method] = done["figures"]
        table.append(
            {
                "method": PAPER_NAME[method],
                "rows": done["figures"]["rows"],
                "CPose EPE mm": done["figures"].get("cpose_epe_mean_mm"),
                "3DPose EPE mm": done["figures"]["pose3d_epe_mean_mm"],
                "AUC 20-50 mm": done["figures"]["pose3d_auc_20_50_mm"],
            }
        )
    pck_figure(curves, out / "fig7.png")
    finish(out, "protocol", results, text_table(table))


def labelled(arguments: argparse.Namespace) -> None:
    """Fig. 9: mean EPE over the labelled share, supervised, semi- and weakly supervised, over seeds."""
    out = arguments.out
    make_folder(out)
    check_test(arguments.data)
    results: list[dict[str, Any]] = []
    for share in arguments.percent:
        for supervision in arguments.supervision:
            # With every label there is nothing left that the kinds of supervision treat differently.
            kind = supervision if share < 100 else "supervised"
            for seed in range(arguments.seeds):
                run = train(
                    arguments.data, out / f"{kind}-{share:g}-seed{seed}", "dvae-pose", arguments,
                    labelled=share, supervision=kind, seed=seed,
                )  # fmt: skip
                model = load_dvae(run, arguments.device)
                rows = read_rows(HandDataset(arguments.data, split="test"), model.config.root)
                found = measure(model, rows)
                results.append({"supervision": supervision, "percent": share, "seed": seed, **found})
    series, table = {}, []
    for supervision in arguments.supervision:
        means = []
        for share in arguments.percent:
            values = [
                r["pose3d_epe_mean_mm"] for r in results if (r["supervision"], r["percent"]) == (supervision, share)
            ]
            means.append(float(np.mean(values)))
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
            table.append({"supervision": supervision, "percent": share, "EPE mm": means[-1], "s.d. over seeds": spread})
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
    done: Mapping[str, Any] = figures(arguments.run, arguments.data, arguments.out, arguments.device)
    pck_figure(done["curves"], arguments.out / "fig7.png")
    finish(arguments.out, "figures", done["figures"], text_table([done["figures"]]))


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

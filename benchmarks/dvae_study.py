"""What the supplementary of Yang & Yao 2019 studied and section 2.1 claims, on the user's data.

    python benchmarks/dvae_study.py weights DATA OUT --method dvae --betas 1 10 100 1000 --latents 16 32 64 128
    python benchmarks/dvae_study.py joint DATA OUT --seeds 3

`weights` varies beta at d = 64 and d at the paper's beta. A run whose factor collapses to its prior counts as
"collapsed". `joint` trains the cross-modal VAE with both inputs, jointly and alternating as Spurr et al. 2018 do, for
equally many optimiser steps, and compares how the error on validation rows moves: "roughness" is the mean absolute
change of the error between neighbouring validations of the second half, in mm.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from commands import Parser, make_folder, positive

from handaug.augment.dvae_figures import line_figure, text_table
from handaug.cli.common import RichProgress, pick_device, run_script
from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.reader import HandDataset
from handaug.models.dvae.config import DvaeConfig, default_dvae_config
from handaug.models.dvae.measure import COLLAPSED_NATS
from handaug.models.dvae.train import train_dvae
from handaug.models.methods import change_config

__all__ = ["main"]

SHOWN = (
    "image_l1",
    "pair_psnr_db",
    "synth_pose3d_epe_mean_mm",
    "pose3d_epe_mean_mm",
    "cpose_epe_mean_mm",
    "label_pose3d_epe_mean_mm",
)


def run(arguments: argparse.Namespace, name: str, config: DvaeConfig) -> tuple[list[dict[str, Any]], bool]:
    """Train one configuration; its log, and whether it collapsed."""
    out = arguments.out / name
    try:
        train_dvae(arguments.data, out, config, device=arguments.device, progress=RichProgress())
    except WorkError as error:
        if "collapsed" not in str(error):
            raise
        lines = out.with_name(out.name + ".partial").joinpath("log.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines], True
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()], False


def base(arguments: argparse.Namespace, method: str) -> DvaeConfig:
    """The method's default with the options of the command line."""
    view = HandDataset(arguments.data, split="train")
    config = default_dvae_config(method, len(view), view.size, arguments.device)
    if arguments.steps:
        config = replace(config, steps=arguments.steps)
    return change_config(config, arguments.set)


def with_latent(config: DvaeConfig, dims: int) -> DvaeConfig:
    """The same with d = `dims`, split evenly."""
    if config.z_u:
        return replace(config, factors=tuple((name, dims - dims // 2) for name, _ in config.factors), z_u=dims // 2)
    share = dims // len(config.factors)
    return replace(config, factors=tuple((name, share) for name, _ in config.factors))


def weights(arguments: argparse.Namespace) -> None:
    """Beta at d = 64, and d at the paper's beta."""
    start = base(arguments, arguments.method)
    cases = {f"beta-{beta:g}": replace(start, beta=beta) for beta in arguments.betas}
    cases |= {f"d-{dims}": with_latent(start, dims) for dims in arguments.latents}
    if not cases:
        raise InputError("--betas, --latents: give a value of one of them")
    table: list[dict[str, Any]] = []
    for name, config in cases.items():
        log, empty = run(arguments, name, config)
        last = log[-1]
        kl = last["kl_nats"]
        factors = [values for name, values in kl.items() if not name.startswith("embed/")] or list(kl.values())
        table.append(
            {
                "run": name,
                "beta": config.beta,
                "d": sum(dims for _, dims in config.blocks),
                "collapsed": str(empty),
                # Of z; each encoder of the embedding step says the same z once more.
                "KL nats": sum(sum(values) for values in factors),
                "active dimensions": sum(value >= COLLAPSED_NATS for values in factors for value in values),
                **{key: last["validation"].get(key) for key in SHOWN},
            }
        )
    key = next(name for name in SHOWN if table[0][name] is not None)
    by_beta = [row for row in table if row["run"].startswith("beta")]
    if by_beta:
        line = ([row["beta"] for row in by_beta], [row[key] for row in by_beta])
        line_figure({arguments.method: line}, arguments.out / "beta.png", x="beta", y=key, log_x=True)
    write(arguments.out, "weights", table)


def joint(arguments: argparse.Namespace) -> None:
    """Joint against alternating training of the cross-modal VAE."""
    start = replace(base(arguments, "cross-modal"), embed=("image", "pose3d"))
    start = replace(start, validate_every=max(1, start.steps // 40))
    table: list[dict[str, Any]] = []
    series = {}
    for alternating in (False, True):
        name = "alternating" if alternating else "joint"
        curves = []
        for seed in range(arguments.seeds):
            log, _ = run(arguments, f"{name}-seed{seed}", replace(start, alternating=alternating, seed=seed))
            curves.append([line["validation"]["pose3d_epe_mean_mm"] for line in log])
        values = np.array(curves)
        late = values[:, values.shape[1] // 2 :]
        table.append(
            {
                "training": name,
                "seeds": len(curves),
                "last EPE mm": float(values[:, -1].mean()),
                "best EPE mm": float(values.min(1).mean()),
                "roughness mm": float(np.abs(np.diff(late, axis=1)).mean()),
                "s.d. of last over seeds": float(values[:, -1].std(ddof=1)) if len(curves) > 1 else None,
            }
        )
        series[name] = ([line["step"] for line in log], values.mean(0).tolist())
    line_figure(series, arguments.out / "joint.png", x="Optimiser steps", y="EPE of 3DPose, validation rows (mm)")
    write(arguments.out, "joint", table)


def write(out: Path, name: str, table: list[dict[str, Any]]) -> None:
    """Write and print the table."""
    (out / f"{name}.json").write_text(json.dumps(table, indent=2) + "\n")
    (out / f"{name}.md").write_text(text_table(table))
    print(text_table(table))


def main() -> int:
    """Run the chosen study."""
    top = Parser(description=__doc__)
    parts = top.add_subparsers(required=True)
    common = Parser(add_help=False)
    common.add_argument("data", type=Path)
    common.add_argument("out", type=Path)
    common.add_argument("--device", type=pick_device, default="auto")
    common.add_argument("--steps", type=positive, help="in place of the method's default")
    common.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as of `handaug disentangle`")
    one = parts.add_parser("weights", parents=[common])
    one.add_argument("--method", default="dvae", choices=["dvae", "dvae-zu", "dvae-pose"])
    one.add_argument("--betas", type=float, nargs="*", default=[1.0, 10.0, 100.0, 1000.0])
    one.add_argument("--latents", type=positive, nargs="*", default=[16, 32, 64, 128])
    one.set_defaults(work=weights)
    two = parts.add_parser("joint", parents=[common])
    two.add_argument("--seeds", type=positive, default=3)
    two.set_defaults(work=joint)
    arguments = top.parse_args()
    make_folder(arguments.out)
    arguments.work(arguments)
    return 0


if __name__ == "__main__":
    run_script(main)

"""`handaug train-pose`: measure what minted data is worth."""

from pathlib import Path

import click

from handaug.cli.common import (
    DATA_FILE,
    FOLDER,
    RichProgress,
    Workspace,
    debug_option,
    device_option,
    overwrite_option,
    pick_device,
    seed_option,
    workspace_option,
)
from handaug.data_specs.errors import InputError

__all__ = ["command"]

DEFAULT_ESTIMATOR = "compact"


@click.command(short_help="Train pose estimators with and without minted data; report the gain.")
@click.option(
    "--real",
    type=DATA_FILE,
    metavar="DATA",
    show_default="the workspace's renders play real",
    help="Labelled data: its train split is shared by all arms, its val split chooses checkpoints.",
)
@click.option("--minted", type=DATA_FILE, metavar="DATA", show_default="the workspace's", help="Minted data.")
@click.option(
    "--renders",
    type=DATA_FILE,
    metavar="DATA",
    show_default="none",
    help="Rendered data whose train split the arms with renders learn from.",
)
@click.option(
    "--unchecked",
    type=DATA_FILE,
    metavar="DATA",
    show_default="none",
    help="Data minted without the label check (remix --no-check).",
)
@click.option(
    "--arms",
    default="",
    metavar="NAME,NAME",
    show_default="none",
    help="Arms beside the four, all with albumentations: real+renders, real+renders+minted, renders, minted, "
    "real+unchecked.",
)
@click.option(
    "--test", type=DATA_FILE, metavar="DATA", show_default="that of --real", help="Data whose test split measures."
)
@click.option(
    "--estimator",
    default=DEFAULT_ESTIMATOR,
    metavar="NAME|module:factory|CKPT",
    help="Estimator to train: heatmap, resnet18, resnet50, simcc, unet, compact, compact-3d, dvae-pose, an entry "
    "point's name, a factory of your own, or the folder of a checkpoint to go on from.",
)
@click.option(
    "--trust",
    metavar="module:factory",
    help="Your own code that the checkpoint of --estimator names; it is imported only if you name it too.",
)
@click.option(
    "--backbone",
    type=DATA_FILE,
    metavar="FILE",
    show_default="random weights",
    help="Weights of the backbone of resnet18 or resnet50 (torchvision's .pth); nothing is downloaded.",
)
@click.option("--seeds", type=int, default=3, help="Seeds of each arm; 5 or more for a claim.")
@click.option(
    "--steps",
    metavar="N[,N...]",
    show_default="2400 on a CPU, 10000 on a GPU",
    help="Optimiser steps of each run; of several lengths every arm is trained at each and counts at the one that is "
    "best for it on validation.",
)
@click.option("--batch-size", type=int, default=None, show_default="16 on a CPU, 64 on a GPU", help="Images in a step.")
@click.option("--lr", type=float, default=2e-3, help="Highest learning rate.")
@click.option(
    "--precision",
    metavar="32-true|bf16-mixed",
    default=None,
    show_default="bf16-mixed on a GPU, 32-true on a CPU",
    help="Number format of the networks' arithmetic.",
)
@click.option("--label-budgets", default="all", metavar="100,500,all", help="Label budgets, counted in poses.")
@click.option(
    "--minted-fraction",
    type=float,
    default=0.25,
    help="Share of each batch that minted images (or renders) take beside real ones.",
)
@click.option(
    "--weight-scale",
    type=float,
    metavar="PX",
    default=None,
    show_default="all count alike",
    help="Label error at which a minted image counts half: weight PX^2 / (PX^2 + error^2).",
)
@click.option("--out", type=FOLDER, metavar="RUN", show_default="pose in the workspace", help="Folder of the results.")
@seed_option
@device_option
@workspace_option
@overwrite_option
@debug_option
def command(
    real: Path | None,
    minted: Path | None,
    renders: Path | None,
    unchecked: Path | None,
    arms: str,
    test: Path | None,
    estimator: str,
    trust: str | None,
    backbone: Path | None,
    seeds: int,
    steps: str | None,
    batch_size: int | None,
    lr: float,
    precision: str | None,
    label_budgets: str,
    minted_fraction: float,
    weight_scale: float | None,
    out: Path | None,
    seed: int,
    device: str,
    workspace: Workspace,
    overwrite: bool,
) -> None:
    """Train pose estimators with and without minted data, with equal budgets, and report the gain.

    Writes gain.json and report.html. The arms are {real, real + minted} x {plain, albumentations}; --arms adds more.
    An interrupted experiment goes on with the same command.
    """
    for path, default, how in (
        (real, workspace.renders, "run 'handaug render' first or give --real"),
        (minted, workspace.minted, "run 'handaug remix' first or give --minted"),
    ):
        if not (path or default).exists():
            raise InputError(f"{path or default}: no such file; {how}")
    place = pick_device(device)
    from handaug.augment.checker import default_checker_config
    from handaug.augment.gain import GainConfig, default_training, measure_gain
    from handaug.augment.gain_config import parse_steps

    sized = default_training(place)
    config = GainConfig(
        real=real or workspace.renders,
        minted=minted or workspace.minted,
        test=test,
        renders=renders,
        unchecked=unchecked,
        arms=arms,
        estimator=estimator,
        trust=trust,
        backbone=backbone,
        seeds=seeds,
        steps=(sized["steps"],) if steps is None else parse_steps(steps),
        batch_size=sized["batch_size"] if batch_size is None else batch_size,
        lr=lr,
        precision=precision or ("bf16-mixed" if place.startswith("cuda") else "32-true"),
        minted_fraction=minted_fraction,
        weight_scale=weight_scale,
        label_budgets=label_budgets,
        seed=seed,
        real_is_rendered=real is None,
        checker=default_checker_config(place),
    )
    result = measure_gain(config, out or workspace.pose, device=place, progress=RichProgress(), overwrite=overwrite)
    for line in result.lines():
        click.echo(line)

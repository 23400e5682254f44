"""`handaug evaluate`: measure a trained pose estimator on a dataset."""

from pathlib import Path

import click

from handaug.cli.common import (
    DATA_FILE,
    FOLDER,
    RichProgress,
    Workspace,
    debug_option,
    device_option,
    json_option,
    pick_device,
    workspace_judge,
    workspace_option,
)
from handaug.data_specs.errors import InputError

__all__ = ["command"]

SPLITS = ("train", "val", "test", "all")


@click.command(short_help="Measure a pose estimator on a dataset.")
@click.argument("checkpoint", metavar="CKPT|module:factory", type=FOLDER)
@click.argument("data", metavar="[DATA]", required=False, type=DATA_FILE)
@click.option("--split", metavar="|".join(SPLITS), default="test", help="Rows to measure on.")
@click.option(
    "--estimator",
    metavar="module:factory",
    help="Your own code that CKPT names; nothing a checkpoint names is imported unless you name it too.",
)
@click.option(
    "--judge",
    type=FOLDER,
    metavar="CKPT",
    show_default="the workspace's label checker, else one trained in half a minute",
    help="An estimator that reads the swapped images of a disentangler.",
)
@click.option(
    "--views",
    type=click.IntRange(1, 256),
    default=1,
    help="Views of each image (turned, scaled, moved) that an estimator is asked about; the median answer counts.",
)
@device_option
@json_option
@workspace_option
@debug_option
def command(
    checkpoint: Path,
    data: Path | None,
    split: str,
    estimator: str | None,
    judge: Path | None,
    views: int,
    device: str,
    as_json: bool,
    workspace: Workspace,
) -> None:
    """Measure the estimator CKPT on DATA: end-point error, both readings of MSE, PCK, AUC, and PA-MPJPE.

    DATA is the workspace's renders.h5 by default. CKPT is a folder that `handaug train-pose` or `handaug disentangle`
    wrote, or an estimator of your own as it stands, by its package.module:factory or the name of its entry point
    (docs/estimators.md). Of a disentangler the pose branch is measured, and how well it disentangles: swaps read by an
    independent estimator, probes of either code against chance, reconstruction on and off the hand, mixes against their
    true renders. Figures count joints with visibility 1 or 2; pixels are those of DATA, "box" is the longer side of the
    box of a hand's labelled joints. Millimetres are relative to the wrist and appear where CKPT estimates 3D and DATA
    has it; PA-MPJPE uses proper rotations only. AUC is the area under PCK over 0-30 px in steps of 1, 0-0.3 box in
    steps of 0.01, and 20-50 and 0-50 mm in steps of 1. --json adds the curves.
    """
    import json

    from handaug.data_specs.reader import HandDataset
    from handaug.models.evaluate import evaluate_checkpoint

    if split not in SPLITS:
        raise InputError(f"--split {split}: choose one of {', '.join(SPLITS)}")
    data = data or workspace.renders
    rows = HandDataset(data, split=None if split == "all" else split)
    if not len(rows):
        raise InputError(f"{data}: has no rows in split {split}; choose another with --split")
    figures = evaluate_checkpoint(
        checkpoint,
        rows,
        trust=estimator,
        judge=judge,
        default_judge=workspace_judge(workspace, rows.size, rows.channels),
        views=views,
        device=pick_device(device),
        progress=RichProgress(),
    )
    if as_json:
        click.echo(json.dumps({"checkpoint": str(checkpoint), "data": str(data), "split": split, **figures}))
        return
    figures.pop("pck", None)
    for name, value in figures.items():
        parts = {f"{name}.{part}": one for part, one in value.items()} if isinstance(value, dict) else {name: value}
        for label, one in parts.items():
            click.echo(f"{label:32} {one:.6g}")

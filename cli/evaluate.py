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
    workspace_option,
)
from handaug.data_specs.errors import InputError

__all__ = ["command"]

SPLITS = ("train", "val", "test", "all")


@click.command(short_help="Measure a pose estimator on a dataset.")
@click.argument("checkpoint", metavar="CKPT", type=FOLDER)
@click.argument("data", metavar="[DATA]", required=False, type=DATA_FILE)
@click.option("--split", metavar="|".join(SPLITS), default="test", help="Rows to measure on.")
@device_option
@json_option
@workspace_option
@debug_option
def command(checkpoint: Path, data: Path | None, split: str, device: str, as_json: bool, workspace: Workspace) -> None:
    """Measure the estimator CKPT on DATA: end-point error, both readings of MSE, PCK, AUC.

    DATA is the workspace's renders.h5 by default. CKPT is a folder that `handaug train-pose` or `handaug disentangle`
    wrote; of a disentangler the pose branch is measured. Figures count joints with visibility 1 or 2; pixels are those
    of DATA.
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
    figures = evaluate_checkpoint(checkpoint, rows, device=pick_device(device), progress=RichProgress())
    if as_json:
        click.echo(json.dumps({"checkpoint": str(checkpoint), "data": str(data), "split": split, **figures}))
        return
    for name, value in figures.items():
        click.echo(f"{name:24} {value:.6g}")

"""`handaug disentangle`: train a model that splits images into pose and appearance."""

from pathlib import Path
from typing import Any

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

METHODS = "self"
"""What `--method` takes; kept equal to the library's list by a test."""


@click.command(short_help="Train a model that splits images into pose and appearance.")
@click.argument("data", required=False, type=DATA_FILE)
@click.option(
    "--method",
    metavar=METHODS,
    default="self",
    help="self: self-disentanglement (Li et al. 2019), which needs no paired images.",
)
@click.option(
    "--out", type=FOLDER, metavar="RUN", show_default="the workspace's", help="Folder to write the trained model to."
)
@click.option("--epochs", type=float, metavar="E", help="Length of the training in passes over the train split.")
@click.option(
    "--steps",
    type=int,
    metavar="N",
    show_default="by device and data; about 12 minutes on two CPU cores",
    help="Length of the training in optimiser steps, in place of --epochs.",
)
@click.option("--batch-size", type=int, metavar="B", show_default="32 on a CPU, 128 on a GPU", help="Images per step.")
@click.option(
    "--width", type=int, metavar="W", show_default="8 on a CPU, 64 on a GPU", help="Channels at full resolution."
)
@click.option(
    "--phase",
    "phases",
    multiple=True,
    metavar="MODEL:SHARE",
    show_default="by device",
    help="A model of the paper's Table 4 (1 to 6) and its share of the steps; repeat it "
    "for a schedule, such as --phase 3:0.5 --phase 6:0.5.",
)
@click.option(
    "--precision",
    metavar="32-true|bf16-mixed",
    show_default="bf16-mixed on a GPU, 32-true on a CPU",
    help="Number format of the networks' arithmetic.",
)
@seed_option
@device_option
@workspace_option
@overwrite_option
@debug_option
def command(
    data: Path | None,
    out: Path | None,
    workspace: Workspace,
    device: str,
    overwrite: bool,
    epochs: float | None,
    steps: int | None,
    phases: tuple[str, ...],
    **options: Any,
) -> None:
    """Train a disentangler on DATA, the workspace's renders.h5 by default.

    Only the train split is trained on; the val split is drawn and measured. RUN/grid.png shows poses (top row) mixed
    with appearances (left column) after each epoch, RUN/log.jsonl holds every loss term.
    A run that was stopped goes on with the same command.
    """
    from dataclasses import replace

    from handaug.data_specs.reader import HandDataset
    from handaug.models.disentangle import default_config, train_disentangler

    if epochs is not None and steps is not None:
        raise InputError("--epochs and --steps: give one of them")
    source, place, chosen = data or workspace.renders, out or workspace.disentangler, pick_device(device)
    train = HandDataset(source, split="train")
    given = {name: value for name, value in options.items() if value is not None}
    if phases:
        given["phases"] = tuple(_parse_phase(text) for text in phases)
    if steps is not None:
        given["steps"] = steps
    config = replace(default_config(len(train), train.size, chosen), **given)
    if epochs is not None:
        config = replace(config, steps=_steps(epochs, len(train), config.batch_size))
    shown = RichProgress()
    train_disentangler(source, place, config, device=chosen, overwrite=overwrite, progress=shown)
    shown.note(f"Done: {place}; {place / 'grid.png'} shows poses mixed with appearances.")


def _parse_phase(text: str) -> tuple[int, float]:
    model, _, share = text.partition(":")
    try:
        return int(model), float(share or 1.0)
    except ValueError as error:
        raise InputError(f"--phase {text}: give MODEL:SHARE, such as 3:0.5") from error


def _steps(epochs: float, rows: int, batch_size: int) -> int:
    if not 0 < epochs < 1e6:
        raise InputError(f"--epochs {epochs:g}: must be above 0")
    return max(1, round(epochs * max(1, rows // min(batch_size, max(2, rows)))))

"""`handaug disentangle`: train a model that splits images into pose and appearance."""

from pathlib import Path
from typing import Any

import click

from handaug.cli.common import (
    DATA_FILE,
    FOLDER,
    RichProgress,
    Workspace,
    check_seed,
    debug_option,
    device_option,
    overwrite_option,
    pick_device,
    seed_option,
    workspace_judge,
    workspace_option,
)
from handaug.data_specs.errors import InputError

__all__ = ["command"]

METHODS = "self|dvae|dvae-zu|dvae-pose|cross-modal|handaug|autoencoder|paired"
"""What `--method` takes; kept equal to the library's list by a test."""


@click.command(short_help="Train a model that splits images into pose and appearance.")
@click.argument("data", required=False, type=DATA_FILE)
@click.option(
    "--method",
    metavar=METHODS,
    show_default="handaug on renders, self on other data",
    help="handaug: our own, layers of hand and background, learned from the true render of every mix. self: "
    "self-disentanglement (Li et al. 2019), which needs no paired images. dvae: 3DPose and content from tag "
    "images (Yang & Yao 2019); dvae-zu: the same without tags; dvae-pose: canonical pose and viewpoint, for pose "
    "estimation; cross-modal: one latent space for image and pose. autoencoder and paired: the baselines of Li et al., "
    "nothing told about orthogonality, and pairs of one pose.",
)
@click.option(
    "--out", type=FOLDER, metavar="RUN", show_default="the workspace's", help="Folder to write the trained model to."
)
@click.option("--epochs", type=float, metavar="E", help="Length of the training in passes over the train split.")
@click.option(
    "--steps",
    type=int,
    metavar="N",
    show_default="by device and data; about ten minutes on two CPU cores",
    help="Length of the training in optimiser steps, in place of --epochs.",
)
@click.option("--batch-size", type=int, metavar="B", show_default="by method and device", help="Images per step.")
@click.option(
    "--width", type=int, metavar="W", show_default="by method and device", help="Channels of the first level."
)
@click.option(
    "--phase",
    "phases",
    multiple=True,
    metavar="MODEL:SHARE",
    show_default="by device",
    help="A model of the paper's Table 4 (1 to 6) and its share of the steps; repeat it "
    "for a schedule, such as --phase 3:0.5 --phase 6:0.5. 7: paired data.",
)
@click.option(
    "--unlabelled",
    type=DATA_FILE,
    metavar="DATA",
    help="self, autoencoder: more images whose labels, if any, are not read; half of each batch.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other field of the method's configuration, such as --set beta=50; repeatable. A wrong name lists them.",
)
@click.option(
    "--triples",
    type=DATA_FILE,
    metavar="DATA",
    help="dvae-pose: more data whose 3D labels teach the pose space without their images.",
)
@click.option(
    "--precision",
    metavar="32-true|bf16-mixed",
    show_default="bf16-mixed on a GPU, 32-true on a CPU",
    help="Number format of the networks' arithmetic.",
)
@click.option(
    "--measure/--no-measure",
    default=True,
    help="At the end, measure on the val split how well pose and appearance are kept apart.",
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
    method: str | None,
    epochs: float | None,
    steps: int | None,
    phases: tuple[str, ...],
    changes: tuple[str, ...],
    triples: Path | None,
    unlabelled: Path | None,
    measure: bool,
    **options: Any,
) -> None:
    """Train a disentangler on DATA, the workspace's renders.h5 by default.

    Only the train split is trained on; the val split is drawn and measured. RUN/grid.png shows poses (top row) mixed
    with appearances (left column), or estimated poses; RUN/log.jsonl holds every loss term; RUN/disentanglement.json
    how well the two are kept apart, by an independent estimator, by probes and against true renders.
    A run that was stopped goes on with the same command.
    """
    from dataclasses import replace

    from handaug.data_specs.reader import HandDataset
    from handaug.models.methods import best_method, change_config, method_named, resolve

    if epochs is not None and steps is not None:
        raise InputError("--epochs and --steps: give one of them")
    source, place, chosen = data or workspace.renders, out or workspace.disentangler, pick_device(device)
    train = HandDataset(source, split="train")
    method = method or best_method(train)
    known = method_named(method)
    config = resolve(known.default_config)(method, len(train), train.size, chosen)
    given = {name: value for name, value in options.items() if value is not None}
    if phases:
        if not hasattr(config, "phases"):
            raise InputError(f"--phase: belongs to --method self, autoencoder and paired, not to {method}")
        given["phases"] = tuple(_parse_phase(text) for text in phases)
    if steps is not None:
        given["steps"] = steps
    config = change_config(replace(config, **given), changes)
    check_seed(config.seed)
    if epochs is not None:
        config = replace(config, steps=_steps(epochs, len(train), config.batch_size))
    more: dict[str, Any] = {}
    if triples is not None:
        if method != "dvae-pose":
            raise InputError(f"--triples: belongs to --method dvae-pose, not to {method}")
        more["triples"] = triples
    if unlabelled is not None:
        if method not in ("self", "autoencoder"):
            raise InputError(f"--unlabelled: belongs to --method self and autoencoder, not to {method}")
        more["unlabelled"] = unlabelled
    shown = RichProgress()
    resolve(known.train)(source, place, config, device=chosen, overwrite=overwrite, progress=shown, **more)
    if measure:
        for line in _measured(place, source, workspace, chosen, shown):
            click.echo(line)
    picture = place / "grid.png"
    shown.note(f"Done: {place}" + (f"; {picture} shows what it does." if picture.exists() else ""))


def _measured(run: Path, source: Path, workspace: Workspace, device: str, shown: RichProgress) -> list[str]:
    """Lines on how well a finished run disentangles, measured once and kept beside it."""
    import json
    from contextlib import suppress

    from handaug.data_specs.reader import HandDataset
    from handaug.data_specs.writer import replace_atomically
    from handaug.models.judge import measure_run
    from handaug.models.leakage import summary

    kept = run / "disentanglement.json"
    with suppress(FileNotFoundError, ValueError, TypeError):  # damaged ones are measured again
        return summary(dict(json.loads(kept.read_text())))
    val = HandDataset(source, split="val")
    if not len(val):
        return []
    judge = workspace_judge(workspace, val.size, val.channels)
    figures = measure_run(run, val, judge=judge, device=device, progress=shown)
    temporary = run / f"{kept.name}.tmp"
    temporary.write_text(json.dumps(figures, indent=1) + "\n")
    replace_atomically(temporary, kept)
    return summary(figures)


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

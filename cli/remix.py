"""`handaug remix`: mint a labelled dataset."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from handaug.cli.common import (
    DATA_FILE,
    FOLDER,
    OUT_FILE,
    RichProgress,
    Workspace,
    debug_option,
    device_option,
    overwrite_option,
    pick_device,
    seed_option,
    workers_option,
    workspace_option,
)
from handaug.data_specs.errors import InputError

if TYPE_CHECKING:
    from handaug.data_specs.progress import Progress

__all__ = ["command", "train_what_is_missing"]


@click.command(short_help="Mint new labelled images from pose x appearance pairs.")
@click.argument("out", required=False, type=OUT_FILE)
@click.option("--n", "n", type=int, default=100_000, help="Images kept in the end.")
@click.option(
    "--checkpoint",
    type=FOLDER,
    metavar="RUN",
    show_default="the workspace's; trained first if there is none",
    help="Folder of a disentangler.",
)
@click.option(
    "--checker",
    type=FOLDER,
    metavar="CKPT",
    show_default="the workspace's; trained first if there is none",
    help="Folder of a label checker.",
)
@click.option(
    "--poses",
    type=DATA_FILE,
    metavar="DATA",
    show_default="the workspace's renders",
    help="Dataset whose train split gives poses and labels.",
)
@click.option(
    "--appearances",
    metavar="DATA|prior",
    show_default="that of --poses",
    help="Dataset whose train split lends its appearance, labelled or not; prior: draws from the disentangler's own "
    "prior (dvae, dvae-zu).",
)
@click.option(
    "--pairs",
    metavar="random|coverage|interpolate",
    default="random",
    help="How pairs are chosen: all alike; rare poses and rare appearances more often; blends of two appearances.",
)
@click.option(
    "--max-label-error",
    type=float,
    metavar="PX",
    show_default="90th percentile of the checker's error on images it never saw",
    help="Largest mean distance in pixels between the label and the checker's estimate.",
)
@click.option(
    "--no-check",
    is_flag=True,
    help="Keep also what fails the label check, to measure what the check is worth (train-pose --unchecked).",
)
@seed_option
@device_option
@workers_option
@click.option(
    "--scheduler",
    metavar="ADDR",
    help="Use the Dask cluster of this scheduler (tcp://host:8786 or a scheduler file) in place of --workers; "
    "its workers must see the files and OUT's folder.",
)
@workspace_option
@overwrite_option
@debug_option
def command(
    out: Path | None,
    n: int,
    checkpoint: Path | None,
    checker: Path | None,
    poses: Path | None,
    appearances: str | None,
    pairs: str,
    max_label_error: float | None,
    no_check: bool,
    seed: int,
    device: str,
    workers: int | None,
    scheduler: str | None,
    workspace: Workspace,
    overwrite: bool,
) -> None:
    """Mint a labelled dataset into OUT (default: minted.h5 of the workspace).

    Each image shows the pose of one hand in the appearance of another; an estimator that saw neither checks its
    label. Beside OUT lie the figures (.json) and examples (.png). An interrupted run goes on with the same command, and
    the number of processes changes nothing of the result.
    """
    if no_check and max_label_error is not None:
        raise InputError("--no-check and --max-label-error: give one of them")
    target = out or workspace.minted
    source = poses or workspace.renders
    if not source.exists():
        remedy = (
            "run 'handaug render' first or give --poses" if poses is None else "give an existing dataset as --poses"
        )
        raise InputError(f"{source}: no such file; {remedy}")
    from handaug.augment.remix import PRIOR, RemixConfig, check_request, find_finished, remix
    from handaug.data_specs.partial import check_name, claim_output

    config = RemixConfig(
        n=n,
        poses=source,
        disentangler=checkpoint or workspace.disentangler,
        checker=checker or workspace.checker,
        appearances=appearances if appearances in (None, PRIOR) else Path(appearances),
        max_label_error=max_label_error,
        check=not no_check,
        seed=seed,
        pairs=pairs,
    )
    if workers is not None and scheduler is not None:
        raise InputError("--workers and --scheduler exclude each other: the scheduler has its own workers, drop one")
    if target.is_file():  # a complete one may lie in a read-only place
        check_name(target)
    else:
        claim_output(target)
    place = pick_device(device)
    progress = RichProgress()
    training = workspace.renders if workspace.renders.exists() else source
    if not (config.disentangler.exists() and config.checker.exists()):
        if not overwrite and find_finished(config, target):
            progress.note(f"{target}: complete, nothing to do; the models that made it are gone")
            return
        given = {"disentangler": checkpoint, "checker": checker}
        check_request(config, target, given=[kind for kind, folder in given.items() if folder], training=training)
        if place == "cpu":
            progress.note("What is missing is trained first: 10 to 30 minutes on two cores, less for a small file.")
    train_what_is_missing(
        training,
        None if checkpoint else workspace.disentangler,
        None if checker else workspace.checker,
        seed=seed,
        device=place,
        progress=progress,
        overwrite=overwrite,
    )
    report = remix(
        config, target, device=place, progress=progress, overwrite=overwrite, workers=workers, scheduler=scheduler
    )
    for line in report.lines():
        click.echo(line)


def train_what_is_missing(
    data: Path,
    disentangler: Path | None,
    checker: Path | None,
    *,
    seed: int,
    device: str,
    progress: "Progress",
    overwrite: bool = False,
) -> None:
    """Train the workspace's disentangler and checker where there is none yet, and say so.

    Args:
        data: Dataset to train on.
        disentangler: Folder that must hold a disentangler in the end; None where the user gave one.
        checker: Folder that must hold a checker in the end; None where the user gave one.
        seed: Of both trainings.
        device: Where to train.
        progress: Told of the steps.
        overwrite: Whether an unfinished training of another configuration may be dropped.
    """
    from dataclasses import replace

    if disentangler is not None and not disentangler.exists():
        from handaug.models.methods import train_method

        progress.note(f"{disentangler}: no disentangler yet, training one on {data} first")
        train_method(data, disentangler, seed=seed, device=device, progress=progress, overwrite=overwrite)
    if checker is not None and not checker.exists():
        from handaug.augment.checker import default_checker_config, train_checkers

        progress.note(f"{checker}: no label checker yet, training one on {data} first")
        settings = replace(default_checker_config(device), seed=seed)
        train_checkers(data, checker, settings, device=device, progress=progress, overwrite=overwrite)

"""`handaug transfer`: every pose in every appearance, as a picture."""

from pathlib import Path

import click

from handaug.cli.common import (
    DATA_FILE,
    FOLDER,
    OUT_FILE,
    Workspace,
    check_picture,
    debug_option,
    device_option,
    pick_device,
    seed_option,
    workspace_option,
)
from handaug.cli.walk import SPLITS, parse_rows
from handaug.data_specs.errors import InputError

__all__ = ["command"]


@click.command(short_help="Draw poses by appearances.")
@click.argument("data", required=False, type=DATA_FILE)
@click.option("--checkpoint", type=FOLDER, metavar="RUN", show_default="the workspace's", help="A disentangler.")
@click.option("--out", type=OUT_FILE, metavar="PNG", show_default="transfer.png of the workspace", help="The picture.")
@click.option("--n-poses", type=int, metavar="N", default=6, help="Poses down the picture.")
@click.option("--n-appearances", type=int, metavar="N", default=8, help="Appearances across the picture.")
@click.option("--pose-rows", metavar="A,B,...", show_default="drawn", help="Row numbers of DATA that give poses.")
@click.option(
    "--appearance-rows", metavar="C,D,...", show_default="drawn", help="Row numbers that lend their appearance."
)
@click.option(
    "--appearances",
    metavar="images|prior",
    default="images",
    help="images of DATA, or draws from the prior: one pose, many images (dvae and dvae-zu).",
)
@click.option("--split", metavar="|".join(SPLITS), default="test", help="Split that rows are drawn from.")
@seed_option
@device_option
@workspace_option
@debug_option
def command(
    data: Path | None,
    checkpoint: Path | None,
    out: Path | None,
    n_poses: int,
    n_appearances: int,
    pose_rows: str | None,
    appearance_rows: str | None,
    appearances: str,
    split: str,
    seed: int,
    device: str,
    workspace: Workspace,
) -> None:
    """Draw hands of DATA (default: the workspace's renders.h5) in each other's appearance.

    The first column gives the poses, the second shows their labels, the first row lends the appearances.
    """
    from handaug.augment.walk import pick_rows, rows_of, transfer_sheet
    from handaug.data_specs.draw import save_png
    from handaug.data_specs.partial import claim_place
    from handaug.data_specs.reader import HandDataset
    from handaug.models.methods import load_run

    if split not in SPLITS:
        raise InputError(f"--split {split}: choose one of {', '.join(SPLITS)}")
    if appearances not in ("images", "prior"):
        raise InputError(f"--appearances {appearances}: choose images or prior")
    if appearances == "prior" and appearance_rows is not None:
        raise InputError(f"--appearance-rows {appearance_rows}: --appearances prior reads no rows; leave one out")
    for option, number in (("--n-poses", n_poses), ("--n-appearances", n_appearances)):
        if not 1 <= number <= 64:
            raise InputError(f"{option} {number}: must lie in 1..64")
    source, target = data or workspace.renders, out or workspace.root / "transfer.png"
    check_picture(target, source)
    view = HandDataset(source, split=split)
    if pose_rows is None:
        gives = pick_rows(view, n_poses, seed, differ="pose_id")
    else:
        gives = rows_of(source, parse_rows("--pose-rows", pose_rows))
    lends: HandDataset | int = n_appearances
    if appearances == "images" and appearance_rows is None:
        lends = pick_rows(view, n_appearances, seed + 1, differ="appearance_id")
    elif appearance_rows is not None:
        lends = rows_of(source, parse_rows("--appearance-rows", appearance_rows))
    model = load_run(checkpoint or workspace.disentangler, pick_device(device))
    claim_place(target)
    sheet = transfer_sheet(model, gives, lends, seed=seed)
    save_png(target, sheet.image)
    for name, value in sheet.figures.items():
        click.echo(f"{name:24} {value:.6g}")
    click.echo(f"Done: {target}; poses of rows {gives.rows.tolist()}.")

"""`handaug walk`: a walk through the latent space, as a picture."""

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
from handaug.data_specs.errors import InputError

__all__ = ["command", "parse_rows"]

SPLITS = ("train", "val", "test")


@click.command(short_help="Draw a walk through pose and appearance space.")
@click.argument("data", required=False, type=DATA_FILE)
@click.option("--checkpoint", type=FOLDER, metavar="RUN", show_default="the workspace's", help="A disentangler.")
@click.option("--out", type=OUT_FILE, metavar="PNG", show_default="walk.png of the workspace", help="The picture.")
@click.option("--steps", type=int, metavar="N", default=8, help="Images of each walk, its ends included.")
@click.option("--pose-rows", metavar="A,B", show_default="drawn", help="Row numbers of DATA whose poses are the ends.")
@click.option(
    "--appearance-rows", metavar="C,D", show_default="drawn", help="Row numbers of DATA whose appearances are the ends."
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
    steps: int,
    pose_rows: str | None,
    appearance_rows: str | None,
    split: str,
    seed: int,
    device: str,
    workspace: Workspace,
) -> None:
    """Walk between two poses and between two appearances of DATA (default: the workspace's renders.h5).

    Lines of the picture: the pose walk in either appearance, its decoded skeletons, the appearance walk in one pose,
    and the skeletons read back from it. Red frames and skeletons were given, all else is decoded.
    """
    from handaug.augment.walk import pick_rows, rows_of, walk_sheet
    from handaug.data_specs.draw import save_png
    from handaug.data_specs.partial import claim_place
    from handaug.data_specs.reader import HandDataset
    from handaug.models.methods import load_run

    if split not in SPLITS:
        raise InputError(f"--split {split}: choose one of {', '.join(SPLITS)}")
    if not 2 <= steps <= 64:
        raise InputError(f"--steps {steps}: must lie in 2..64")
    source, target = data or workspace.renders, out or workspace.root / "walk.png"
    check_picture(target, source)
    view = HandDataset(source, split=split)
    ends = []
    for option, text, differ, draw in (
        ("--pose-rows", pose_rows, "pose_id", seed),
        ("--appearance-rows", appearance_rows, "appearance_id", seed + 1),
    ):
        numbers = None if text is None else parse_rows(option, text)
        if numbers is not None and len(numbers) != 2:
            raise InputError(f"{option} {text}: give two row numbers, such as 3,17")
        drawn = pick_rows(view, 2, draw, differ=differ) if numbers is None else rows_of(source, numbers)
        if len(drawn) < 2:
            raise InputError(f"{source}: has only one {differ} of that side in split {split}; give {option}")
        ends.append(drawn)
    model = load_run(checkpoint or workspace.disentangler, pick_device(device))
    claim_place(target)
    sheet = walk_sheet(model, ends[0], ends[1], steps=steps)
    save_png(target, sheet.image)
    for name, value in sheet.figures.items():
        click.echo(f"{name:24} {value:.6g}")
    click.echo(f"Done: {target}; poses of rows {ends[0].rows.tolist()}, appearances of rows {ends[1].rows.tolist()}.")


def parse_rows(option: str, text: str) -> list[int]:
    """Row numbers from "3,17".

    Raises:
        InputError: It is anything else.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{option} {text}: give row numbers such as 3,17") from error
    if not all(0 <= number < 1 << 63 for number in numbers):
        raise InputError(f"{option} {text}: row numbers start at 0 and end below 2**63; choose among the rows")
    return numbers

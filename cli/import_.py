"""`handaug import`: public datasets in."""

from pathlib import Path
from typing import Any

import click

from handaug.cli.common import (
    FOLDER,
    OUT_FILE,
    RichProgress,
    Workspace,
    debug_option,
    overwrite_option,
    workspace_option,
)

__all__ = ["command"]


@click.command()
@click.argument("format_name", metavar="FORMAT")
@click.argument("source", metavar="SRC", type=FOLDER)
@click.argument("out", required=False, type=OUT_FILE)
@click.option(
    "--split",
    metavar="NAME|A:B:C",
    default="official",
    help="official; train, val or test: that part alone; shares such as 8:1:1: split anew, along whole groups. "
    "dexycb: also s0 (official), s1, s2, s3.",
)
@click.option(
    "--val",
    metavar="SHARE",
    type=float,
    default=0.0,
    help="Share of the official train part that becomes val, in whole groups; train-pose needs a val part.",
)
@click.option("--crop", metavar="square|none", default="square", help="A square around each hand, or the whole image.")
@click.option(
    "--margin",
    metavar="SHARE",
    type=float,
    default=0.25,
    help="Room on each side of the labelled joints' box, as a share of its longer side.",
)
@click.option(
    "--size",
    metavar="S",
    type=int,
    show_default="64; with --crop none as it is",
    help="Side of the stored square, or longer side of the whole image, in pixels, 8 to 4096.",
)
@click.option("--channels", metavar="mono|rgb", default="mono", help="Store grey or colour.")
@click.option(
    "--hands",
    metavar="left|right|both|prominent",
    default="both",
    help="Which hands; prominent: of each image of rhd the hand with more pixels in the mask, as in published figures.",
)
@click.option("--limit", metavar="N", type=int, show_default="all", help="At most that many hands, the first ones.")
@click.option(
    "--skip-missing", is_flag=True, help="Leave out and count what is missing or damaged, in place of stopping there."
)
@click.option(
    "--wrist",
    metavar="extrapolate|palm|drop",
    show_default="extrapolate",
    help="stb only, which labels the palm's centre: extrapolate the wrist, store the palm as wrist, or leave it out.",
)
@click.option(
    "--views",
    metavar="all|BB|BB_left|BB_right|SK_color",
    default="all",
    help="stb only, which cameras: one of them takes each frame once, BB both images of the stereo pair.",
)
@workspace_option
@overwrite_option
@debug_option
def command(
    format_name: str, source: Path, out: Path | None, workspace: Workspace, overwrite: bool, **options: Any
) -> None:
    """Import the dataset that lies in SRC to OUT, the workspace's FORMAT.h5 by default.

    FORMAT is one of rhd, stb, freihand, interhand, ho3d, dexycb, coco-wholebody, onehand10k, panoptic, umetrack, coco
    (any COCO keypoints JSON that names the 21 joints) and frames (a folder of pictures without labels). Joints are
    mapped by name, units become metres, axes OpenCV's; labels and intrinsics follow the crop. An import that was
    stopped goes on with the same command.
    """
    from handaug.data_specs.importers.options import ImportOptions

    chosen = ImportOptions(**options)
    from handaug.data_specs.importers.job import import_dataset

    place = out or workspace.root / f"{format_name}.h5"
    shown = RichProgress()
    import_dataset(format_name, source, place, chosen, overwrite=overwrite, progress=shown)
    shown.note(f"Done: {place}; look at it with 'handaug inspect {place}'.")

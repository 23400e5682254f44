"""`handaug export`: a dataset in the format of another trainer."""

from pathlib import Path

import click

from handaug.cli.common import (
    DATA_FILE,
    FOLDER,
    RichProgress,
    Workspace,
    debug_option,
    overwrite_option,
    workspace_option,
)

__all__ = ["command"]


@click.command()
@click.argument("format", metavar="FORMAT")
@click.argument("data", required=False, type=DATA_FILE)
@click.argument("out", required=False, type=FOLDER)
@click.option("--split", metavar="all|train|val|test", default="all", help="Which rows; all: each split in its place.")
@click.option(
    "--limit", metavar="N", type=int, default=None, show_default="every row", help="At most N rows, the file's first."
)
@click.option(
    "--quality",
    metavar="Q",
    type=int,
    default=None,
    show_default="PNG, without loss",
    help="JPEG images of quality 1 to 100.",
)
@click.option(
    "--shard-rows",
    metavar="N",
    type=int,
    default=None,
    show_default="5000",
    help="Rows of one tar file (webdataset only).",
)
@workspace_option
@overwrite_option
@debug_option
def command(
    format: str,
    data: Path | None,
    out: Path | None,
    split: str,
    limit: int | None,
    quality: int | None,
    shard_rows: int | None,
    workspace: Workspace,
    overwrite: bool,
) -> None:
    """Export the dataset DATA to the folder OUT in another trainer's FORMAT.

    DATA is the workspace's renders.h5 by default, OUT stands beside DATA as NAME-FORMAT.

    \b
    FORMAT:
      coco        COCO keypoints (pycocotools, mmpose, detectron2)
      freihand    FreiHAND's layout; left hands are mirrored into right ones
      png         a PNG and a JSON file for each row, every field
      webdataset  tar shards, every field
      yolo-pose   Ultralytics' layout, with a flip_idx that permutes no joint

    A run that was stopped goes on with the same command. docs/export.md shows how to load each.
    """
    from handaug.data_specs.exporters import ExportConfig, export_dataset

    config = ExportConfig(format, split, limit, quality, shard_rows)
    source = data or workspace.renders
    place = out or source.with_name(f"{source.stem}-{format}")
    counts = export_dataset(source, place, config, overwrite=overwrite, progress=(shown := RichProgress()))
    if counts is None:
        shown.note(f"{place} is complete; nothing to do.")
        return
    left_out = f" ({counts.left_out:,} that {format} cannot hold were left out)" if counts.left_out else ""
    shown.note(f"Done: {place} holds {counts.images:,} images and {counts.rows:,} hands{left_out}.")

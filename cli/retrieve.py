"""`handaug retrieve`: the hands nearest to a query in pose and in appearance, as a picture."""

from pathlib import Path

import click

from handaug.cli.common import (
    DATA_FILE,
    FOLDER,
    OUT_FILE,
    RichProgress,
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


@click.command(short_help="Find the nearest hands in pose and in appearance.")
@click.argument("data", required=False, type=DATA_FILE)
@click.option("--checkpoint", type=FOLDER, metavar="RUN", show_default="the workspace's", help="A disentangler.")
@click.option("--out", type=OUT_FILE, metavar="PNG", show_default="retrieve.png of the workspace", help="The picture.")
@click.option("--n-queries", type=int, metavar="N", default=2, help="Queries to draw.")
@click.option("--query-rows", metavar="A,B,...", show_default="drawn", help="Row numbers of DATA to ask with.")
@click.option("--gallery", type=DATA_FILE, metavar="DATA2", show_default="DATA", help="Dataset to search.")
@click.option("--top", type=int, metavar="N", default=20, help="Rows to find for each query.")
@click.option(
    "--split", metavar="|".join(SPLITS), default="test", help="Split that is searched, and that queries are drawn from."
)
@seed_option
@device_option
@workspace_option
@debug_option
def command(
    data: Path | None,
    checkpoint: Path | None,
    out: Path | None,
    n_queries: int,
    query_rows: str | None,
    gallery: Path | None,
    top: int,
    split: str,
    seed: int,
    device: str,
    workspace: Workspace,
) -> None:
    """Find the hands of DATA (default: the workspace's renders.h5) that are nearest to a query by either code.

    For each query the upper block is found by the pose code, the lower by the appearance code; the query stands in a
    red frame. Printed are the distance of the joints found from the query's, and the share found of the rows that share
    its pose or its appearance, beside chance.
    """
    from handaug.augment.retrieval import retrieval_sheet
    from handaug.augment.walk import pick_rows, rows_of
    from handaug.data_specs.draw import save_png
    from handaug.data_specs.partial import claim_place
    from handaug.data_specs.reader import HandDataset
    from handaug.models.methods import load_run

    if split not in SPLITS:
        raise InputError(f"--split {split}: choose one of {', '.join(SPLITS)}")
    for option, number in (("--n-queries", n_queries), ("--top", top)):
        if not 1 <= number <= 1000:
            raise InputError(f"{option} {number}: must lie in 1..1000")
    source, target = data or workspace.renders, out or workspace.root / "retrieve.png"
    check_picture(target, source, *([gallery] if gallery else []))
    if query_rows is None:
        queries = pick_rows(HandDataset(source, split=split), n_queries, seed, differ="pose_id")
    else:
        queries = rows_of(source, parse_rows("--query-rows", query_rows))
    searched = HandDataset(gallery or source, split=split)
    model = load_run(checkpoint or workspace.disentangler, pick_device(device))
    claim_place(target)
    sheet = retrieval_sheet(model, queries, searched, top=top, progress=RichProgress())
    save_png(target, sheet.image)
    for name, value in sheet.figures.items():
        click.echo(f"{name:32} {value:.6g}")
    click.echo(f"Done: {target}; queries are rows {queries.rows.tolist()}.")

"""`handaug verify`: is this dataset what it says it is?"""

import json
from pathlib import Path

import click

from handaug.cli.common import DATA_FILE, RichProgress, Workspace, debug_option, json_option, workspace_option

__all__ = ["command"]


@click.command()
@click.argument("data", required=False, type=DATA_FILE)
@json_option
@workspace_option
@debug_option
def command(data: Path | None, as_json: bool, workspace: Workspace) -> int:
    """Check the dataset DATA: schema, ranges, projection, pairs, splits, checksum.

    DATA is the workspace's renders.h5 by default. Prints one line for each problem; exit code 1 if there are any.
    """
    from handaug.data_specs.verify import verify_dataset

    path = data if data is not None else workspace.renders
    problems = verify_dataset(path, RichProgress())
    if as_json:
        click.echo(json.dumps({"path": str(path), "ok": not problems, "problems": problems}))
    else:
        for line in problems or [f"{path}: sound"]:
            click.echo(line)
    if problems:
        click.echo(f"Error: {path}: damaged ({len(problems)} found); make it again.", err=True)
    return 1 if problems else 0

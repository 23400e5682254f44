"""`handaug inspect`: what is in a dataset, in numbers and in a picture."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from handaug.cli.common import (
    DATA_FILE,
    OUT_FILE,
    Workspace,
    check_picture,
    debug_option,
    echo_table,
    json_option,
    workspace_option,
)
from handaug.data_specs.errors import InputError

if TYPE_CHECKING:
    from handaug.data_specs.reader import HandDataset

__all__ = ["command"]


@click.command()
@click.argument("data", required=False, type=DATA_FILE)
@click.argument("other", required=False, type=DATA_FILE)
@click.option(
    "--out", metavar="PNG", type=OUT_FILE, show_default="DATA with suffix .png", help="Where the contact sheet goes."
)
@click.option("--count", type=click.IntRange(1, 512), default=32, help="Images on the contact sheet, at most.")
@click.option(
    "--stats",
    is_flag=True,
    help="Also plot how poses, viewpoints, shapes, visibility, brightness and what was drawn are distributed, next to "
    "the contact sheet with suffix .stats.png.",
)
@json_option
@workspace_option
@debug_option
def command(
    data: Path | None,
    other: Path | None,
    out: Path | None,
    count: int,
    stats: bool,
    as_json: bool,
    workspace: Workspace,
) -> None:
    """Summarise the dataset DATA and draw its contact sheet.

    DATA is the workspace's renders.h5 by default. On the sheet each image stands above its copy with the keypoints
    drawn: dots are visible joints, rings hidden ones. With --stats a second dataset OTHER is plotted over the first.
    """
    if other is not None and not stats:
        raise InputError(f"{other}: a second dataset is compared by --stats; add --stats or leave the file out")
    from handaug.data_specs.draw import save_png
    from handaug.data_specs.reader import HandDataset
    from handaug.data_specs.summary import sample_sheet, summarise

    dataset = HandDataset(data if data is not None else workspace.renders)
    sheet = out or dataset.path.with_suffix(".png")
    for picture in (sheet, *([sheet.with_suffix(".stats.png")] if stats else [])):
        check_picture(picture, dataset.path, *([other] if other else []))
    summary = summarise(dataset)
    if dataset.kind == "rendered":
        from handaug.cli.render import command_of
        from handaug.render.config import SCENE_VERSION

        version = dataset.config.get("scene_version")
        summary["command"] = command_of(dataset.config)
        if version != SCENE_VERSION:
            summary["command"] += f"  # of scene version {version!r}, this handaug draws {SCENE_VERSION}"
    summary["sheet"] = str(save_png(sheet, sample_sheet(dataset, count)))
    if stats:
        summary.update(_plot(dataset, HandDataset(other) if other else None, sheet.with_suffix(".stats.png")))
    if as_json:
        click.echo(json.dumps(summary))
    else:
        echo_table(_lines(summary))


def _plot(dataset: "HandDataset", other: "HandDataset | None", out: Path) -> dict[str, Any]:
    """Plot the distributions; JSON-ready."""
    from handaug.data_specs.draw import save_png
    from handaug.data_specs.stats import collect_stats, overlap
    from handaug.data_specs.stats_plot import plot_stats

    files = [(str(one.path), collect_stats(one)) for one in (dataset, other) if one is not None]
    first = files[0][1]
    found: dict[str, Any] = {"stats": {name: histogram.summary() for name, histogram in first.items()}}
    if other is not None:
        second = files[1][1]
        both = [name for name in first if name in second and first[name].categories == second[name].categories]
        found["other"] = {
            "path": str(other.path),
            "stats": {name: histogram.summary() for name, histogram in second.items()},
            "overlap": {name: round(overlap(first[name], second[name]), 4) for name in both},
        }
    found["plot"] = str(save_png(out, plot_stats(files)))
    return found


def _lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of the table: name and text."""
    lines = [
        ("file", f"{summary['path']} ({summary['bytes'] / 1e6:,.1f} MB, {summary['kind']})"),
        ("rows", f"{summary['rows']:,}"),
        ("images", f"{summary['width']} x {summary['height']} px, {'mono' if summary['channels'] == 1 else 'RGB'}"),
        *((name, f"{s['rows']:,} rows, {s['groups']:,} groups") for name, s in summary["splits"].items()),
    ]
    lines += [(name, f"{summary[name]:,}") for name in ("poses", "appearances") if summary[name] is not None]
    lines.append(("hands", ", ".join(f"{count:,} {side}" for side, count in summary["hands"].items())))
    lines.append(("keypoints", ", ".join(f"{share:.1%} {name}" for name, share in summary["visibility"].items())))
    if summary["hand_size_px"] is not None:
        lines.append(("hand size", f"{summary['hand_size_px']:.1f} px (median, longer side of the keypoints' box)"))
    lines.append(("grey levels", f"mean {summary['image_mean']:.1f}, standard deviation {summary['image_std']:.1f}"))
    if "label_error_px" in summary:
        error = summary["label_error_px"]
        lines.append(("label error", f"mean {error['mean']:.2f} px, 90th percentile {error['p90']:.2f} px"))
    lines += [
        ("fields", ", ".join(summary["fields"])),
        ("made by", f"handaug {summary['handaug_version']}, schema {summary['schema']}, seed {summary['seed']}"),
        *([("command", summary["command"])] if "command" in summary else []),
        ("config", json.dumps(summary["config"])),
        ("checksum", summary["checksum"]),
        ("sheet", summary["sheet"]),
    ]
    if "plot" in summary:
        lines += [(name, _range(found)) for name, found in summary["stats"].items() if "p50" in found]
        if "other" in summary:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in summary["other"]["overlap"].items())
            lines.append(("overlap", shares))
        lines.append(("plot", summary["plot"]))
    return lines


def _range(found: dict[str, float]) -> str:
    return f"median {found['p50']:.4g}, from {found['p5']:.4g} to {found['p95']:.4g} (5th and 95th percentile)"

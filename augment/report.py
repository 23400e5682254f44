"""report.html of a gain experiment: one file, pictures inside, nothing loaded from anywhere."""

import base64
import html
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handaug.augment.batches import RowPool
from handaug.augment.remix_report import read_report
from handaug.data_specs.draw import draw_skeleton
from handaug.data_specs.joints import JOINTS
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.writer import write_atomically
from handaug.models.metrics import PX_GRID, pck_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ReportData", "name_seeds", "write_gain_report"]

_COLOURS = {
    "real": "#9aa5b1",
    "real+albumentations": "#4477aa",
    "real+minted": "#ddaa33",
    "real+minted+albumentations": "#bb3355",
    "real+renders+albumentations": "#228833",
    "real+renders+minted+albumentations": "#225588",
    "renders+albumentations": "#66ccaa",
    "minted+albumentations": "#aa66bb",
    "real+unchecked+albumentations": "#775533",
}
_BASELINE, _CANDIDATE = "real+albumentations", "real+minted+albumentations"
_REFUSALS = {
    "nearer_other_pose": "because the estimate was nearer to the pose of the image that lent the appearance",
    "no_hand": "because no hand was seen",
    "label_error": "for their label error",
}
_KINDS = ("visible", "hidden")
_LENGTHS = {False: "same steps", True: "the same lengths tried, the best of them by validation"}
_HISTOGRAM_ROWS = 200_000
_SHOWN = 6
_WIDE = '<div style="overflow-x:auto">'
"""About a table: on a narrow screen it scrolls, and the page does not."""


@dataclass(frozen=True)
class ReportData:
    """What the report shows; arrays by arm, of the largest budget."""

    figures: dict[str, Any]
    """Content of gain.json."""
    errors: dict[str, NDArray[np.float64]]
    """(seeds, rows, 21) pixels, NaN where not labelled."""
    predicted: dict[str, NDArray[np.float32]]
    """(seeds, rows, 21, 2) pixels."""
    test: RowPool
    minted: Path
    """The minted data of that budget, for its label errors."""


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _embed(figure: "Figure", alt: str) -> str:
    """An <img> that holds the picture itself."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _clean(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)


def _pck_and_validation(data: ReportData) -> str:
    figure = _figure(11, 3.8)
    left, right = figure.subplots(1, 2)
    for name, errors in data.errors.items():
        left.plot(PX_GRID, 100 * pck_curve(errors, PX_GRID), color=_COLOURS[name], label=name, lw=2)
        arm = data.figures["arms"][name]
        found = np.array(arm["validation_px"])
        steps = np.arange(1, found.shape[1] + 1) * arm["steps"] / found.shape[1]
        right.plot(steps, found.mean(0), color=_COLOURS[name], lw=2, marker="o", ms=3)
        right.fill_between(steps, found.min(0), found.max(0), color=_COLOURS[name], alpha=0.15, lw=0)
    left.set(
        xlabel="threshold, px", ylabel="joints within it, %", title="PCK on the test rows", xlim=(0, 30), ylim=(0, 101)
    )
    left.legend(frameon=False, fontsize=8, loc="lower right")
    right.set(
        xlabel="optimiser steps",
        ylabel="mean joint error, px",
        title="Validation: mean and range over seeds",
    )
    for axis in (left, right):
        _clean(axis)
    return _embed(figure, "PCK curves of the arms, and their validation error over the training steps")


def _per_joint(data: ReportData) -> str:
    figure = _figure(11, 3.4)
    axis = figure.subplots()
    width = 0.8 / len(data.errors)
    for k, (name, errors) in enumerate(data.errors.items()):
        labelled = np.isfinite(errors).sum((0, 1))
        axis.bar(
            np.arange(len(JOINTS)) + (k - (len(data.errors) - 1) / 2) * width,
            np.nansum(errors, (0, 1)) / np.where(labelled, labelled, np.nan),
            width,
            color=_COLOURS[name],
            label=name,
        )
    axis.set_xticks(
        np.arange(len(JOINTS)), [name.replace("_", " ") for name in JOINTS], rotation=60, ha="right", fontsize=8
    )
    axis.set(ylabel="mean error, px", title="Error of each joint on the test rows")
    axis.margins(y=0.3)  # room for the legend above the bars
    axis.legend(frameon=False, fontsize=8, ncols=4, loc="upper left")
    _clean(axis)
    return _embed(figure, "Mean error of each of the 21 joints in each arm")


def _gain_curve(data: ReportData) -> str:
    """Gain over label budgets, where there are several."""
    curve = data.figures["curve"]
    if len(curve) < 2:
        return ""
    figure = _figure(11, 3.4)
    left, right = figure.subplots(1, 2)
    poses = [point["poses"] for point in curve]
    mean = np.array([point["gain"]["mean"] for point in curve])
    ends = np.array([point["gain"]["ci95"] for point in curve])
    # With one seed and one test group the interval is a point, beside which rounding may put the mean.
    reach = np.maximum(0, [mean - ends[:, 0], ends[:, 1] - mean])
    left.errorbar(poses, mean, yerr=reach, color=_COLOURS[_CANDIDATE], marker="o", capsize=4)
    left.axhline(0, color="#888", lw=1)
    left.set(xscale="log", xlabel="labelled poses", ylabel="error reduction, %", title="Gain with its 95 % interval")
    for name in data.errors:
        known = [(point["poses"], point["arms"][name]) for point in curve if name in point["arms"]]
        right.plot(*zip(*known, strict=True), color=_COLOURS[name], marker="o", label=name)
    right.set(xscale="log", xlabel="labelled poses", ylabel="mean joint error, px", title="Error of each arm")
    right.legend(frameon=False, fontsize=8)
    for axis in (left, right):
        _clean(axis)
        axis.set_xticks(poses, [f"{number:,}" for number in poses])
        axis.set_xticks([], minor=True)
    return "<h2>Label budgets</h2>" + _embed(figure, "Gain and error over label budgets")


def _minted_labels(data: ReportData) -> str:
    """How well the minted labels were checked."""
    minted = HandDataset(data.minted)
    if not minted.has("provenance/label_error_px"):
        return "<p>The minted file carries no label errors.</p>"
    errors = minted.read("provenance/label_error_px", slice(0, _HISTOGRAM_ROWS))
    report = read_report(data.minted).figures
    figure = _figure(11, 3.4)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    left.hist(errors, bins=60, color=_COLOURS["real+minted"])
    threshold = minted.attrs.get("label_error_threshold_px")
    if threshold is not None:
        left.axvline(float(threshold), color="#333", ls="--", lw=1)
        left.set_title(f"Label error of the minted images kept (threshold {float(threshold):.2f} px)")
    left.set(xlabel="distance of the independent estimate to the label, px", ylabel="images")
    rows = {name: row for name, row in report.get("by_pose", {}).items() if row["tried"]}
    right.barh(list(rows), [100 * row["kept_share"] for row in rows.values()], color=_COLOURS["real+albumentations"])
    right.set(xlabel="kept, %", title="Share kept by pose", xlim=(0, 100))
    right.tick_params(axis="y", labelsize=8)
    for axis in (left, right):
        _clean(axis)
    text = ""
    if report:
        # A file minted by an earlier version may count its refusals by other names.
        refused = [f"{report['rejected'].get(key, 0):,} {why}" for key, why in _REFUSALS.items()]
        text = (
            f"<p>{report['kept']:,} of {report['tried']:,} minted images were kept ({report['kept_share']:.1%}). "
            f"Refused: {', '.join(refused)}.</p>"
        )
    return text + _embed(figure, "Histogram of label errors of the minted images, and the share kept by pose")


def _examples(data: ReportData) -> str:
    """Worst and median test rows of the candidate, seed 0: the label, the baseline's estimate, the candidate's."""
    errors = np.where(np.isfinite(data.errors[_CANDIDATE][0]), data.errors[_CANDIDATE][0], np.nan)
    labelled = np.flatnonzero(np.isfinite(errors).any(1))
    order = labelled[np.argsort(np.nanmean(errors[labelled], 1), kind="stable")]
    middle = max(0, len(order) // 2 - _SHOWN // 2)
    picks = {"worst": order[::-1][:_SHOWN], "median": order[middle : middle + _SHOWN]}
    figure = _figure(11, 11.6)
    parts: Any = figure.subfigures(2, 1)
    scale = max(1, round(192 / data.test.size[0]))
    for part, (title, rows) in zip(parts, picks.items(), strict=True):
        part.suptitle(
            f"{title} test rows of {_CANDIDATE}, seed 0; without minted is {_BASELINE}", fontweight="bold", fontsize=10
        )
        axes = part.subplots(3, _SHOWN, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for column, row in enumerate(rows):
            image = data.test.images(np.array([row]))[0]
            seen = data.test.visibility[row]
            shown = {"label": data.test.keypoints_2d[row], "without minted": data.predicted[_BASELINE][0, row]}
            shown["with minted"] = data.predicted[_CANDIDATE][0, row]
            for line, (what, points) in enumerate(shown.items()):
                arm = (None, _BASELINE, _CANDIDATE)[line]
                value = "" if arm is None else f" {np.nanmean(data.errors[arm][0, row]):.2f} px"
                axes[line, column].imshow(draw_skeleton(image, points, seen, scale=scale))
                axes[line, column].set_title(what + value, fontsize=7)
    return _embed(figure, "Worst and median test rows with the label and the estimates of two arms")


def _table(data: ReportData) -> str:
    columns = [
        ("EPE mean, px", "epe_mean_px", ".3f"),
        ("EPE median, px", "epe_median_px", ".3f"),
        ("MSE as mean distance, px", "mse_mean_distance_px", ".3f"),
        ("MSE as mean square, px²", "mse_mean_square_px2", ".2f"),
        ("PCK AUC 0–30 px", "auc_0_30_px", ".4f"),
        ("median, share of box", "epe_median_box", ".1%"),
        ("PCK AUC 0–0.3 box", "auc_0_0.3_box", ".4f"),
        ("within 5 px", "pck_5_px", ".1%"),
    ]
    columns += [
        ("EPE mean, mm", "epe_mean_mm", ".1f"),
        ("PCK AUC 20–50 mm", "auc_20_50_mm", ".4f"),
        ("PA-MPJPE, mm", "pa_mpjpe_mm", ".1f"),
    ]
    columns = [column for column in columns if all(column[1] in arm for arm in data.figures["arms"].values())]
    head = "".join(f"<th>{title}</th>" for title, _, _ in columns)
    rows = []
    for name, arm in data.figures["arms"].items():
        cells = "".join(f"<td>{arm[key]:{form}}</td>" for _, key, form in columns)
        kinds = arm["per_visibility_px"]
        cells += "".join(f"<td>{kinds[kind]:.3f}</td>" if kind in kinds else "<td></td>" for kind in _KINDS)
        seeds = ", ".join(f"{one['epe_mean_px']:.3f}" for one in arm["per_seed"])
        dot = f'<span class="dot" style="background:{_COLOURS[name]}"></span>'
        rows.append(f"<tr><th>{dot}{html.escape(name)}</th>{cells}<td>{seeds}</td></tr>")
    head += "<th>visible, px</th><th>hidden, px</th><th>EPE of each seed</th>"
    return f"{_WIDE}<table><tr><th>arm</th>{head}</tr>{''.join(rows)}</table></div>"


def _lengths(data: ReportData) -> str:
    """Every arm at every length, where there are several."""
    points = data.figures.get("by_steps", [])
    if not points:
        return ""
    best = {name: arm["steps"] for name, arm in data.figures["arms"].items()}
    rows = []
    for point in points:
        cells = "".join(
            f"<td><b>{error:.3f}</b></td>" if best[name] == point["steps"] else f"<td>{error:.3f}</td>"
            for name, error in point["arms"].items()
        )
        low, high = point["gain"]["ci95"]
        gain = f"<td>{point['gain']['mean']:+.1f} % ({low:+.1f} to {high:+.1f})</td>"
        rows.append(f"<tr><th>{point['steps']:,} steps</th>{cells}{gain}</tr>")
    head = "".join(f"<th>{html.escape(name)}</th>" for name in best)
    return (
        "<h2>Lengths</h2><p>Every arm was trained at every length; bold is the one that was best for it on validation, "
        "by which the headline counts it. EPE mean on the test rows, px, and the headline's gain had all arms been "
        f"trained alike.</p>{_WIDE}<table><tr><th></th>{head}<th>gain</th></tr>{''.join(rows)}</table></div>"
    )


def _comparisons(data: ReportData) -> str:
    """Every other pair of arms with albumentations that was compared."""
    rows = []
    for pair in data.figures["comparisons"]:
        low, high = pair["ci95"]
        rows.append(
            f"<tr><th>{html.escape(pair['candidate'])}</th><td>{html.escape(pair['baseline'])}</td>"
            f"<td>{pair['mean']:+.1f} %</td><td>{low:+.1f} to {high:+.1f}</td></tr>"
        )
    if not rows:
        return ""
    return (
        f"<h2>Further comparisons</h2>{_WIDE}<table><tr><th>arm</th><th>against</th><th>error reduction</th>"
        f"<th>95 % interval</th></tr>{''.join(rows)}</table></div>"
    )


_STYLE = """ :root{color-scheme:light}body{font:15px/1.5 system-ui,sans-serif;max-width:1120px;margin:2rem
auto;padding:0 1rem;color:#1d2733} h1{font-size:1.5rem;margin:.8rem 0}h2{font-size:1.1rem;margin:2rem 0
.5rem}img{max-width:100%} .first{background:#fff6dd;border-left:4px solid #ddaa33;padding:.6rem .9rem;margin:0}
.gain{font-size:2.6rem;font-weight:700}.sub{color:#5a6673}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px}
td,th{padding:.35rem .6rem;border-bottom:1px solid
#e3e8ee;text-align:right}th:first-child{text-align:left;white-space:nowrap} tr:first-child
th{font-weight:600;color:#5a6673}.dot{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.5em}
pre{background:#f4f6f8;padding:.8rem;overflow:auto;font-size:12px}
"""


def name_seeds(count: int) -> str:
    """Beside an interval: of one seed it knows the spread of the test groups alone."""
    return f"{count} seeds" if count > 1 else "over test groups alone: one seed has no spread"


def write_gain_report(path: Path, data: ReportData) -> None:
    """Write the report beside gain.json."""
    figures = data.figures
    gain, plain, mse, facts = figures["gain"], figures["gain_plain"], figures["gain_mse"], figures["data"]
    low, high = gain["ci95"]
    metric = gain["metric"][0].upper() + gain["metric"][1:]
    verdict = (
        "The interval lies above zero."
        if low > 0
        else "The interval lies below zero."
        if high < 0
        else "The interval includes zero."
        if low <= 0 <= high
        else "There is no interval."
    )
    tuned = "by_steps" in figures
    body = f"""<p class="first">{html.escape(figures["first_line"])}</p>
<h1>Does minted data make the pose estimator better?</h1>
<p><span class="gain">{gain["mean"]:+.1f} %</span>
<span class="sub">error reduction, 95 % interval {low:+.1f} to {high:+.1f}, {name_seeds(gain["n_seeds"])}. {verdict}
</span></p>
<p>{html.escape(metric)}. Positive is better. By mean square error: {mse["mean"]:+.1f} %
({mse["ci95"][0]:+.1f} to {mse["ci95"][1]:+.1f}). Without albumentations in either arm:
{plain["mean"]:+.1f} % ({plain["ci95"][0]:+.1f} to {plain["ci95"][1]:+.1f}).</p>
<p class="sub">{facts["train_rows"]:,} real train rows ({facts["train_poses"]:,} poses),
{facts["minted_rows"]:,} minted rows, {facts["validation_rows"]:,} validation rows,
{facts["test_rows"]:,} test rows in {facts["test_groups"]:,} groups. All arms: {_LENGTHS[tuned]}, same initial
weights and order for each seed, best of the same number of checkpoints on validation; the test rows were opened once,
at the end.</p>
<h2>Arms</h2>{_table(data)}
{_comparisons(data)}
{_lengths(data)}
<h2>Curves</h2>{_pck_and_validation(data)}
{_per_joint(data)}
{_gain_curve(data)}
<h2>Minted labels</h2>{_minted_labels(data)}
<h2>Test rows</h2>{_examples(data)}
<h2>Configuration</h2><pre>{html.escape(json.dumps(figures["config"], indent=2))}</pre>"""
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>handaug: gain</title><style>{_STYLE}</style>"
    )
    page = f"{head}<body>{body}</body></html>\n"
    write_atomically(path, page.encode())

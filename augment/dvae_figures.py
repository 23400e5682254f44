"""The plots of Yang & Yao 2019: PCK curves (Fig. 7), error over the labelled share (Fig. 9), studies of beta and d."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.models.metrics import MM_GRID

__all__ = ["PAPER_FIG7", "PAPER_LABELLED", "line_figure", "pck_figure", "text_table"]

PAPER_FIG7: dict[str, dict[str, tuple[float | None, float, float]]] = {
    "rhd": {
        "Zimmermann & Brox": (16.37, 30.42, 0.675),
        "Spurr et al.": (None, 19.73, 0.849),
        "Yang & Yao": (13.93, 19.95, 0.849),
    },
    "stb": {
        "Zimmermann & Brox": (6.07, 8.68, 0.986),
        "Spurr et al.": (None, 8.56, 0.983),
        "Yang & Yao": (6.09, 8.66, 0.991),
    },
}
"""Mean EPE in mm of CPose and 3DPose, and the area under the PCK of 3DPose over 20-50 mm, as Fig. 7 prints them."""

PAPER_LABELLED = "up to 3.5 % lower mean EPE with pose triples, up to 7.5 % with images and viewpoints (section 4.4)"


def pck_figure(curves: Mapping[str, NDArray[np.float64]], path: Path) -> Path:
    """Draw PCK curves over 20-50 mm with the area under each in its name, as Fig. 7 does.

    Args:
        curves: PCK over `MM_GRID` by name.
        path: PNG or SVG to write.
    """
    chosen = (MM_GRID >= 20.0) & (MM_GRID <= 50.0)
    series = {}
    for name, curve in curves.items():
        inside = curve[chosen]
        area = float(((inside[1:] + inside[:-1]) / 2).mean())
        series[f"{name} (AUC={area:.3f})"] = (MM_GRID[chosen].tolist(), inside.tolist())
    return line_figure(series, path, x="Error threshold (mm)", y="3D PCK")


def line_figure(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path, *, x: str, y: str, log_x: bool = False
) -> Path:
    """Lines with markers, one for each name.

    Raises:
        InputError: The place cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, (at, values) in series.items():
        axes.plot(at, values, marker="o" if len(at) < 15 else None, markersize=3, linewidth=1.5, label=name)
    if log_x:
        axes.set_xscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    try:
        figure.savefig(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another output") from error
    return path


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of rows that share their keys; numbers with four digits, None as a dash."""
    names = list(rows[0])

    def cell(value: Any) -> str:
        return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return "\n".join([*lines, *("| " + " | ".join(cell(row[name]) for name in names) + " |" for row in rows)]) + "\n"

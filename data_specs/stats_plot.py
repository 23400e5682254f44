"""One picture of a dataset's distributions, or of two side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.stats import Histogram, overlap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_stats"]

_COLOURS = ("#0072b2", "#d55e00")
_MAPS = ("Blues", "Oranges")
_LOOK = ("#dddddd", "#999999", "#0072b2"), ("#f0e0d0", "#e0a080", "#d55e00")
_COLUMNS = 4
_SQUARE = {"viewpoint": (12, 24), "place": (24, 24)}
"""Panels that are pictures: rows and columns of their cells."""


def plot_stats(files: Sequence[tuple[str, Mapping[str, Histogram]]]) -> NDArray[np.uint8]:
    """Draw every histogram that one of the files has.

    Args:
        files: Name and histograms of one file or two.

    Returns:
        (height, width, 3) uint8.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for _, stats in files for name in stats))
    places = sum(len(_having(name, files)) if name in _SQUARE else 1 for name in names)
    rows = -(-places // _COLUMNS)
    figure = Figure(figsize=(5.2 * _COLUMNS, 3.5 * rows), dpi=70, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    axes = iter(figure.subplots(rows, _COLUMNS, squeeze=False).ravel())
    for name in names:
        having = _having(name, files)
        if name in _SQUARE:
            for which in having:
                _picture(next(axes), name, files[which][1][name], which, files[which][0])
        else:
            _panel(next(axes), name, [(which, files[which][1][name]) for which in having])
    for left in axes:
        left.axis("off")
    title = "   ".join(f"{('blue', 'orange')[k]}: {name}" for k, (name, _) in enumerate(files))
    figure.suptitle(title, fontsize=13)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _having(name: str, files: Sequence[tuple[str, Mapping[str, Histogram]]]) -> list[int]:
    return [k for k, (_, stats) in enumerate(files) if name in stats]


def _panel(axes: "Axes", name: str, shown: list[tuple[int, Histogram]]) -> None:
    first = shown[0][1]
    title = first.panel
    if len(shown) == 2 and shown[1][1].categories == first.categories:
        title += f"  (overlap {overlap(first, shown[1][1]):.0%})"
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=8)
    draw: Any = _stacked if name == "visibility" else _bars if first.edges is None else _ranges
    if first.edges is not None and len(first.names) == 1:
        draw = _steps
    for place, (which, histogram) in enumerate(shown):
        draw(axes, histogram, which, place, len(shown))


def _steps(axes: "Axes", histogram: Histogram, which: int, place: int, count: int) -> None:
    assert histogram.edges is not None
    share = histogram.share()[0]
    axes.stairs(share, histogram.edges, color=_COLOURS[which], fill=count == 1, alpha=0.9, linewidth=1.6)
    used = np.flatnonzero(share)
    low, high = axes.get_xlim() if place else (np.inf, -np.inf)
    edges = histogram.edges
    axes.set_xlim(min(low, edges[max(used[0] - 1, 0)]), max(high, edges[min(used[-1] + 2, len(edges) - 1)]))
    axes.set_yticks([])


def _ranges(axes: "Axes", histogram: Histogram, which: int, place: int, count: int) -> None:
    """A thin bar from the 5th to the 95th percentile of each quantity, a thick one over its middle half, the median."""
    y = np.arange(len(histogram.names)) + (place - (count - 1) / 2) * 0.35
    low, quarter, median, third, high = (histogram.quantile(q) for q in (0.05, 0.25, 0.5, 0.75, 0.95))
    axes.hlines(y, low, high, color=_COLOURS[which], linewidth=1)
    axes.hlines(y, quarter, third, color=_COLOURS[which], linewidth=4)
    axes.plot(median, y, "|", color="black", markersize=6)
    axes.set_yticks(range(len(histogram.names)), histogram.names, fontsize=7)
    axes.set_ylim(len(histogram.names) - 0.5, -0.5)


def _bars(axes: "Axes", histogram: Histogram, which: int, place: int, count: int) -> None:
    assert histogram.categories is not None
    x = np.arange(len(histogram.categories)) + (place - (count - 1) / 2) * 0.4
    axes.bar(x, histogram.share()[0], 0.8 / count, color=_COLOURS[which])
    turn = 90 if len(histogram.categories) > 10 else 35
    axes.set_xticks(range(len(histogram.categories)), histogram.categories, fontsize=8, rotation=turn, ha="right")


def _stacked(axes: "Axes", histogram: Histogram, which: int, place: int, count: int) -> None:
    assert histogram.categories is not None
    x = np.arange(len(histogram.names)) + (place - (count - 1) / 2) * 0.42
    base = np.zeros(len(x))
    for colour, share, name in zip(
        _LOOK[which][::-1], histogram.share().T[::-1], histogram.categories[::-1], strict=True
    ):
        axes.bar(x, share, 0.8 / count, bottom=base, color=colour, label=name)
        base = base + share
    axes.set_xticks(range(len(histogram.names)), histogram.names, fontsize=6, rotation=90)
    axes.set_ylim(0, 1)
    if not place:
        axes.legend(fontsize=7, loc="lower right", framealpha=0.8)


def _picture(axes: "Axes", name: str, histogram: Histogram, which: int, file: str) -> None:
    grid = histogram.share()[0].reshape(_SQUARE[name])
    view = name == "viewpoint"
    axes.imshow(
        grid,
        cmap=_MAPS[which],
        origin="lower" if view else "upper",
        extent=(-180, 180, -1, 1) if view else (0, 1, 1, 0),
        aspect="auto" if view else "equal",
        vmin=0,
    )
    axes.set_title(f"{histogram.panel}: {file}", fontsize=10)
    axes.tick_params(labelsize=8)
    if view:
        axes.set_xticks([-180, -90, 0, 90, 180], ["back", "little's side", "palm", "thumb's side", "back"])
        axes.set_yticks([-0.9, 0, 0.9], ["from the arm", "", "at the tips"])

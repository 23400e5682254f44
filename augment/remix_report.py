"""What a remix kept and what it refused: figures by pose bin, side and tone, and a picture of examples.

Pose bins come from the labels alone. Curl is the distance from a finger's base to its tip over the length of its
bones (1 straight), averaged over the fingers; the view is the sign of the palm's normal along the camera's axis. Tone
bins are thirds of the appearance sources by the mean brightness of the hand's pixels.
"""

import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.augment.pairing import SourceTable
from handaug.augment.remix_plan import Tally
from handaug.data_specs.camera import flip_keypoints_2d
from handaug.data_specs.draw import draw_skeleton
from handaug.data_specs.joints import FINGERS
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import RIGHT
from handaug.data_specs.writer import replace_atomically

__all__ = ["RemixReport", "Tones", "pose_bins", "read_report", "write_report"]

_STRAIGHT, _CLOSED = 0.85, 0.65
_FACING = 0.4
_SHOWN = 4
_PERCENTILES = (10, 50, 90, 99)


@dataclass(frozen=True)
class RemixReport:
    """Figures of a remix; the same object lies beside the data as JSON."""

    path: Path
    """The dataset."""
    figures: dict[str, Any]
    """JSON-able: kept, tried, kept_share, rejected, label_error_px, by_pose, by_side, by_tone, sources."""

    def lines(self) -> list[str]:
        """Summary for a terminal."""
        f = self.figures
        if not f:
            return [f"{self.path}: complete"]
        out = [
            f"{self.path}: {f['kept']:,} images kept of {f['tried']:,} minted ({f['kept_share']:.1%}); rejected "
            f"{f['rejected']['label_error']:,} for label error, {f['rejected']['other_pose']:,} as nearer to "
            "the other pose or to no hand",
            f"label error of the kept: median {f['label_error_px']['50']:.2f} px, threshold {f['threshold_px']:.2f} px",
        ]
        for title in ("by_pose", "by_side", "by_tone"):
            parts = [f"{name} {row['kept_share']:.0%}" for name, row in f[title].items() if row["tried"]]
            out.append(f"kept {title.replace('_', ' ')}: {', '.join(parts)}")
        if f["shortfall"]:
            out.append(
                f"{f['shortfall']:,} images of quotas that could not be filled went to other poses (see by_pose)"
            )
        return out


@dataclass(frozen=True)
class Tones:
    """Thirds of the appearance sources by brightness."""

    limits: tuple[float, float]
    """Brightness, 0 to 255, between dark and middle and between middle and light."""

    @classmethod
    def of(cls, tone: NDArray[np.float32]) -> "Tones":
        """Limits at the thirds of the sources."""
        low, high = np.percentile(tone, (100 / 3, 200 / 3))
        return cls((float(low), float(high)))

    @property
    def names(self) -> list[str]:
        """Names of the bins with their limits."""
        low, high = self.limits
        return [f"dark (<{low:.0f})", f"middle ({low:.0f}-{high:.0f})", f"light (>{high:.0f})"]

    def index(self, tone: NDArray[np.float32]) -> NDArray[np.int64]:
        """Bin of each brightness."""
        return np.digitize(tone, self.limits).astype(np.int64)


def pose_bins(data: HandDataset) -> tuple[NDArray[np.int64], list[str]]:
    """Bin of each row of a view and the bins' names: curl x view where there are 3D labels, curl in the image
    otherwise.
    """
    points = data.read("keypoints_3d" if data.has("keypoints_3d") else "keypoints_2d").astype(np.float64)
    straight = []
    for joints in FINGERS.values():
        chain = points[:, list(joints)]
        bones = np.linalg.norm(np.diff(chain, axis=1), axis=-1).sum(1)
        straight.append(np.linalg.norm(chain[:, -1] - chain[:, 0], axis=-1) / np.maximum(bones, 1e-9))
    # Rows without labels are in no bin that matters; NaN falls into the first.
    reach = np.nan_to_num(np.mean(straight, axis=0), nan=1.0)
    curl = np.digitize(-reach, (-_STRAIGHT, -_CLOSED))
    names = ["open", "half closed", "closed"]
    if not data.has("keypoints_3d"):
        return curl.astype(np.int64), names
    index, little = points[:, FINGERS["index"][0]] - points[:, 0], points[:, FINGERS["little"][0]] - points[:, 0]
    normal = np.cross(index, little)
    depth = normal[:, 2] / np.maximum(np.linalg.norm(normal, axis=1), 1e-12)
    # A right hand that shows its palm to the camera has the index to the right of the little finger: the normal
    # points at the camera.
    towards = np.nan_to_num(-depth * np.where(data.read("handedness") == RIGHT, 1, -1))
    view = np.digitize(towards, (-_FACING, _FACING))
    return (curl * 3 + view).astype(np.int64), [f"{c}, {v}" for c in names for v in ("back", "side", "palm")]


def _share(kept: int, tried: int) -> dict[str, Any]:
    return {"tried": tried, "kept": kept, "kept_share": kept / tried if tried else None}


def _by(labels: NDArray[Any], names: Sequence[str], tally: Tally) -> dict[str, Any]:
    """Counts by a label of the pose rows; the shortfall is what the quotas of these rows left to others."""
    out = {}
    for k, name in enumerate(names):
        mine = labels == k
        row = _share(int(tally.kept[mine].sum()), int(tally.tried[mine].sum()))
        row["quota"] = int(tally.quota[mine].sum())
        row["shortfall"] = int(np.maximum(tally.quota - tally.kept, 0)[mine].sum())
        out[name] = row
    return out


def write_report(
    out: Path,
    *,
    shards: Sequence[tuple[Path, Path]],
    tally: Tally,
    mint_info: dict[str, Any],
    bins: NDArray[np.int64],
    bin_names: Sequence[str],
    poses: SourceTable,
    appearances: SourceTable,
    tones: Tones,
    pose_data: HandDataset,
    appearance_data: HandDataset,
) -> RemixReport:
    """Write OUT.stem.json and OUT.stem.png from the finished shards and their counts.

    Args:
        out: The dataset that the shards will become.
        shards: Each shard's file and counts.
        tally: Counts by pose row.
        mint_info: Config and threshold, copied into the figures.
        bins: Pose bin of each pose row.
        bin_names: Their names.
        poses: The pose rows.
        appearances: The appearance rows.
        tones: The tone bins.
        pose_data: View of the pose rows, for the picture.
        appearance_data: View of the appearance rows, for the picture.
    """
    tone_tried, tone_kept = np.zeros(3, np.int64), np.zeros(3, np.int64)
    errors: list[NDArray[np.float32]] = []
    for path, stats in shards:
        with np.load(stats) as counts:
            tone_tried += counts["tone_tried"]
            tone_kept += counts["tone_kept"]
        errors.append(HandDataset(path).read("provenance/label_error_px"))
    kept_errors = np.concatenate(errors)
    tried, kept, strays = int(tally.tried.sum()), int(tally.kept.sum()), int(tally.strays.sum())
    figures = {
        "kept": kept,
        "tried": tried,
        "kept_share": kept / tried,
        "rejected": {"label_error": tried - kept - strays, "other_pose": strays},
        "threshold_px": mint_info["max_label_error_px"],
        "label_error_px": {str(q): float(np.percentile(kept_errors, q)) for q in _PERCENTILES},
        "checker_held_out_px": mint_info["held_out_percentiles_px"],
        "shortfall": int(np.maximum(tally.quota - tally.kept, 0).sum()),
        "by_pose": _by(bins, bin_names, tally),
        "by_side": _by(poses.handedness, ("left", "right"), tally),
        "by_tone": {name: _share(int(tone_kept[k]), int(tone_tried[k])) for k, name in enumerate(tones.names)},
        "config": {key: value for key, value in mint_info.items() if key != "held_out_percentiles_px"},
    }
    picture = _Picture(shards, errors, poses, appearances, pose_data, appearance_data)
    picture.save(out.with_suffix(".png"), figures)
    temporary = out.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(figures, indent=2) + "\n")
    replace_atomically(temporary, out.with_suffix(".json"))
    return RemixReport(out, figures)


def read_report(out: Path) -> RemixReport:
    """The report beside a finished dataset; without figures where its JSON is gone."""
    try:
        return RemixReport(out, json.loads(out.with_suffix(".json").read_text()))
    except (OSError, ValueError):
        return RemixReport(out, {})


@dataclass(frozen=True)
class _Example:
    """One minted image with its sources (indices into the source tables)."""

    pose: int
    appearance: int
    error: float
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class _Picture:
    """Examples beside their sources: best, median and worst kept, and some that were rejected."""

    shards: Sequence[tuple[Path, Path]]
    errors: Sequence[NDArray[np.float32]]
    poses: SourceTable
    appearances: SourceTable
    pose_data: HandDataset
    appearance_data: HandDataset

    def _kept(self, distance: Any) -> list[_Example]:
        """The kept rows with the smallest `distance(error)`, one for each pose row."""
        nearest: list[tuple[float, int, int]] = []
        for shard, errors in enumerate(self.errors):
            keys = distance(errors)
            for row in np.argsort(keys, kind="stable")[: 4 * _SHOWN]:
                nearest.append((float(keys[row]), shard, int(row)))
            nearest = heapq.nsmallest(8 * _SHOWN, nearest)
        out: list[_Example] = []
        for _, shard, row in nearest:
            data = HandDataset(self.shards[shard][0], rows=[row])
            source = int(data.read("provenance/pose_source")[0])
            pose = int(np.searchsorted(self.poses.rows, source))
            appearance = int(np.searchsorted(self.appearances.rows, int(data.read("provenance/appearance_source")[0])))
            if all(example.pose != pose for example in out):
                out.append(_Example(pose, appearance, float(self.errors[shard][row]), data.read("images")[0]))
            if len(out) == _SHOWN:
                break
        return out

    def _rejected(self) -> list[_Example]:
        out: list[_Example] = []
        for _, stats in self.shards:
            with np.load(stats) as counts:
                for k in range(len(counts["rejected_pose"])):
                    pose = int(counts["rejected_pose"][k])
                    if len(out) < _SHOWN and all(example.pose != pose for example in out):
                        error = float(counts["rejected_error"][k])
                        out.append(
                            _Example(pose, int(counts["rejected_appearance"][k]), error, counts["rejected_images"][k])
                        )
        return out

    def _panels(self, example: _Example, scale: int) -> list[NDArray[np.uint8]]:
        """Pose source with its label, appearance source as it was used, minted image plain and with the label."""
        points, seen = self.poses.keypoints_2d[example.pose], self.poses.visibility[example.pose]
        x = self.pose_data.read("images", np.array([example.pose]))[0]
        y = self.appearance_data.read("images", np.array([example.appearance]))[0]
        points_y, seen_y = (
            self.appearances.keypoints_2d[example.appearance],
            self.appearances.visibility[example.appearance],
        )
        if self.poses.handedness[example.pose] != self.appearances.handedness[example.appearance]:
            y, points_y = np.ascontiguousarray(y[:, ::-1]), flip_keypoints_2d(points_y, y.shape[1]).astype(np.float32)
        return [
            draw_skeleton(x, points, seen, scale=scale),
            draw_skeleton(y, points_y, seen_y, scale=scale),
            draw_skeleton(example.image, points, np.zeros_like(seen), scale=scale),
            draw_skeleton(example.image, points, seen, scale=scale),
        ]

    def save(self, path: Path, figures: dict[str, Any]) -> None:
        """Draw the examples in four blocks of columns."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        median = float(np.median(np.concatenate(self.errors)))
        blocks = [
            ("best kept", self._kept(lambda e: e)),
            ("median kept", self._kept(lambda e: np.abs(e - median))),
            ("worst kept", self._kept(lambda e: -e)),
            ("rejected", self._rejected()),
        ]
        scale = max(1, round(192 / self.pose_data.size[0]))
        figure = Figure(figsize=(16, 6.8), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(
            f"{figures['kept']:,} minted images kept of {figures['tried']:,} ({figures['kept_share']:.1%}), label "
            "error "
            f"up to {figures['threshold_px']:.2f} px. Groups of four: pose source, appearance source, minted, with "
            "label"
        )
        parts: Any = figure.subfigures(2, 2, wspace=0.03, hspace=0.03)
        for block, (part, (title, examples)) in enumerate(zip(parts.flat, blocks, strict=True)):
            part.suptitle(title, fontweight="bold", color="#b03030" if block == 3 else "#205080")
            axes = part.subplots(2, 8)
            for axis in axes.flat:
                axis.axis("off")
            for k, example in enumerate(examples):
                for j, panel in enumerate(self._panels(example, scale)):
                    axis = axes[k // 2, 4 * (k % 2) + j]
                    axis.imshow(panel)
                    axis.set_title(("pose", "appearance", "minted", f"{example.error:.2f} px")[j], fontsize=8)
        temporary = path.with_name(path.name + ".tmp")
        figure.savefig(temporary, format="png", dpi=110)
        replace_atomically(temporary, path)

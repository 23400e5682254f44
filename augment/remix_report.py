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

import h5py
import numpy as np
from numpy.typing import NDArray

from handaug.augment.mint import Mint
from handaug.augment.remix_plan import Example, Tally
from handaug.data_specs.camera import flip_keypoints_2d
from handaug.data_specs.draw import draw_skeleton
from handaug.data_specs.errors import InputError
from handaug.data_specs.joints import FINGERS
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import RIGHT
from handaug.data_specs.writer import replace_atomically, write_atomically

__all__ = ["RemixReport", "Tones", "check_side_file", "pose_bins", "read_report", "write_report"]

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
        refused = f["rejected"]
        if not f.get("checked", True):
            middle = f"label error: median {f['label_error_px']['50']:.2f} px"
            return [
                f"{self.path}: {f['kept']:,} images, kept whatever the label check says of them (--no-check); {middle}"
            ]
        out = [
            f"{self.path}: {f['kept']:,} images kept of {f['tried']:,} minted ({f['kept_share']:.1%}); rejected "
            f"{refused['nearer_other_pose']:,} ({refused['nearer_other_pose'] / f['tried']:.1%}) as nearer to the pose "
            f"of the image that lent its appearance, {refused['no_hand']:,} as no hand, {refused['label_error']:,} for "
            "label error alone",
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

    limits: tuple[float, float] | None
    """Brightness, 0 to 255, between dark and middle and between middle and light; None where none is known."""

    @classmethod
    def of(cls, tone: NDArray[np.float32]) -> "Tones":
        """Limits at the thirds of the sources; appearances from a prior have no tone."""
        if np.isnan(tone).any():
            return cls(None)
        low, high = np.percentile(tone, (100 / 3, 200 / 3))
        return cls((float(low), float(high)))

    @property
    def names(self) -> list[str]:
        """Names of the bins with their limits."""
        if self.limits is None:
            return ["drawn from the prior"]
        low, high = self.limits
        return [f"dark (<{low:.0f})", f"middle ({low:.0f}-{high:.0f})", f"light (>{high:.0f})"]

    def index(self, tone: NDArray[np.float32]) -> NDArray[np.int64]:
        """Bin of each brightness."""
        if self.limits is None:
            return np.zeros(len(tone), np.int64)
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


def write_report(out: Path, mint: Mint, shards: Sequence[tuple[Path, Path]], tally: Tally) -> RemixReport:
    """Write OUT.stem.json and OUT.stem.png from the finished shards and their counts.

    Args:
        out: The dataset that the shards will become.
        mint: Sources and rules.
        shards: Each shard's file and counts.
        tally: Counts by pose row.
    """
    tones = Tones.of(mint.appearances.tone)
    tone_tried, tone_kept = np.zeros(len(tones.names), np.int64), np.zeros(len(tones.names), np.int64)
    errors: list[NDArray[np.float32]] = []
    for path, stats in shards:
        with np.load(stats) as counts:
            tone_tried += counts["tone_tried"]
            tone_kept += counts["tone_kept"]
        with h5py.File(path) as file:
            errors.append(file["provenance/label_error_px"][:])
    kept_errors = np.concatenate(errors)
    tried, kept, nearer, blind = (int(getattr(tally, name).sum()) for name in ("tried", "kept", "nearer", "blind"))
    bins, bin_names = pose_bins(mint.pose_data)
    figures = {
        "checked": mint.config.check,
        "kept": kept,
        "tried": tried,
        "kept_share": kept / tried,
        "rejected": {"label_error": tried - kept - nearer - blind, "nearer_other_pose": nearer, "no_hand": blind},
        "threshold_px": mint.threshold,
        "label_error_px": {str(q): float(np.percentile(kept_errors, q)) for q in _PERCENTILES},
        "checker_held_out_px": mint.checkers.held_out_percentiles_px,
        "shortfall": int(np.maximum(tally.quota - tally.kept, 0).sum()),
        "poses_without_appearance": int((mint.poses.labelled & (mint.capacity == 0)).sum()),
        "by_pose": _by(bins, bin_names, tally),
        "by_side": _by(mint.poses.handedness, ("left", "right"), tally),
        "by_tone": {name: _share(int(tone_kept[k]), int(tone_tried[k])) for k, name in enumerate(tones.names)},
        "config": mint.identity,
    }
    _Picture(shards, errors, mint).save(out.with_suffix(".png"), figures)
    write_atomically(out.with_suffix(".json"), (json.dumps(figures, indent=2) + "\n").encode())
    return RemixReport(out, figures)


def read_report(out: Path) -> RemixReport:
    """The report beside a finished dataset; without figures where its JSON is gone, or something else."""
    try:
        figures = json.loads(out.with_suffix(".json").read_text())
    except (OSError, ValueError):
        figures = {}
    return RemixReport(out, figures if _is_report(figures) else {})


def check_side_file(out: Path) -> None:
    """Refuse to write figures over a JSON file of someone else's beside a dataset that is to be made.

    Raises:
        InputError: There is one.
    """
    side = out.with_suffix(".json")
    if side.exists() and not out.exists() and not read_report(out).figures:
        raise InputError(f"{side}: is in the way of the figures; move it, or choose another OUT")


def _is_report(figures: Any) -> bool:
    return isinstance(figures, dict) and {"kept", "tried", "kept_share", "rejected", "by_pose"} <= set(figures)


@dataclass(frozen=True)
class _Picture:
    """Examples beside their sources: best, median and worst kept, and some that were rejected."""

    shards: Sequence[tuple[Path, Path]]
    errors: Sequence[NDArray[np.float32]]
    mint: Mint

    def _kept(self, distance: Any) -> list[Example]:
        """The kept rows with the smallest `distance(error)`, one for each pose row."""
        nearest: list[tuple[float, int, int]] = []
        for shard, errors in enumerate(self.errors):
            keys = distance(errors)
            for row in np.argsort(keys, kind="stable")[: 4 * _SHOWN]:
                nearest.append((float(keys[row]), shard, int(row)))
            nearest = heapq.nsmallest(8 * _SHOWN, nearest)
        out: list[Example] = []
        for _, shard, row in nearest:
            data = HandDataset(self.shards[shard][0], rows=[row])
            pose = int(np.searchsorted(self.mint.poses.rows, data.read("provenance/pose_source")[0]))
            names = ["provenance/appearance_source", "provenance/appearance_source_2"]
            lent = [
                int(np.searchsorted(self.mint.appearances.rows, data.read(name)[0])) for name in names if data.has(name)
            ]
            if all(example.pose != pose for example in out):
                error = float(self.errors[shard][row])
                out.append(Example(pose, lent[0], lent[-1], error, data.read("images")[0]))
            if len(out) == _SHOWN:
                break
        return out

    def _rejected(self) -> list[Example]:
        out: list[Example] = []
        for _, stats in self.shards:
            with np.load(stats) as counts:
                found = zip(
                    counts["rejected_rows"].tolist(),
                    counts["rejected_error"].tolist(),
                    counts["rejected_images"],
                    strict=True,
                )
                for rows, error, image in found:
                    if len(out) < _SHOWN and all(example.pose != rows[0] for example in out):
                        out.append(Example(rows[0], rows[1], rows[2], error, image))
        return out

    def _panels(self, example: Example, scale: int) -> list[NDArray[np.uint8]]:
        """Pose source with its label, appearance source as it was used (two of a blend), minted image plain and with
        the label.
        """
        poses = self.mint.poses
        points, seen = poses.keypoints_2d[example.pose], poses.visibility[example.pose]
        x = self.mint.pose_data.read("images", np.array([example.pose]))[0]
        lent = [self._lent(example.pose, row, scale) for row in dict.fromkeys((example.appearance, example.second))]
        return [
            draw_skeleton(x, points, seen, scale=scale),
            np.concatenate(lent, axis=1),
            draw_skeleton(example.image, points, np.zeros_like(seen), scale=scale),
            draw_skeleton(example.image, points, seen, scale=scale),
        ]

    def _lent(self, pose: int, row: int, scale: int) -> NDArray[np.uint8]:
        """An appearance source as it was used, with its label; grey where the prior gave it."""
        mint, where = self.mint, np.array([row])
        points, seen = mint.appearances.keypoints_2d[row], mint.appearances.visibility[row]
        if mint.config.from_prior:
            y = np.full((*mint.pose_data.size, mint.pose_data.channels), 200, np.uint8)
        else:
            y = mint.appearance_data.read("images", where)[0]
        if mint.mirrored(np.array([pose]), where)[0]:
            y, points = np.ascontiguousarray(y[:, ::-1]), flip_keypoints_2d(points, y.shape[1]).astype(np.float32)
        return draw_skeleton(y, points, seen, scale=scale)

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
        scale = max(1, round(192 / self.mint.pose_data.size[0]))
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

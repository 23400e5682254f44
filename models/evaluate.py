"""Measure a stored model's keypoints on a dataset: 2D always, root-relative 3D where model and data have it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.models.checkpoint import CONFIG
from handaug.models.disentangle.api import Disentangler
from handaug.models.dvae.config import METHODS as DVAE_METHODS
from handaug.models.dvae.measure import evaluate_dvae
from handaug.models.estimators import load_estimator
from handaug.models.estimators.base import KIND, Estimator
from handaug.models.estimators.plugins import build_outside, is_outside, named_failures
from handaug.models.estimators.predict import Prediction, predict
from handaug.models.judge import draws_images, measure_run
from handaug.models.layered.api import LayeredDisentangler
from handaug.models.methods import load_run, method_of_run
from handaug.models.metrics import (
    BOX_GRID,
    MM_GRID,
    PX_GRID,
    KeypointMetrics,
    KeypointMetrics3D,
    error_by_joint,
    error_by_visibility,
    pck_curve,
)
from handaug.models.seen import seen_rows
from handaug.models.trained import KIND as DISENTANGLER

__all__ = ["evaluate_checkpoint"]

_BATCH = 256
_ROOT_RELATIVE = "keypoints_3d"


def evaluate_checkpoint(
    checkpoint: Path,
    rows: HandDataset,
    *,
    trust: str | None = None,
    judge: Path | None = None,
    default_judge: Path | None = None,
    views: int = 1,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Measure an estimator, or the pose branch of a disentangler and how well it disentangles.

    Args:
        checkpoint: Folder of the model; or an estimator from outside as it stands, by its module:factory or entry point
            (`handaug.models.estimators.plugins`), which is imported.
        rows: What to measure on.
        trust: The module:factory that may be imported, where the checkpoint names one.
        judge: An estimator's checkpoint that judges the swaps of a disentangler; see `handaug.models.judge`.
        default_judge: Judges where none was given and there are swaps to judge.
        views: Views of each image that an estimator is asked about; see `handaug.models.estimators.views`.
        device: Where to compute.
        progress: Told of the rows.

    Returns:
        `rows`; `rows_related_to_training`, those that share a group or pose with what an estimator learned from, where
        it keeps a record; the figures of `KeypointMetrics.compute`, and those of `KeypointMetrics3D.compute` where
        model and data have 3D; `per_joint_px`, `per_visibility_px` (and `_mm`): mean errors by name; `pck`: for each
        unit the thresholds and the share of joints within them. Figures that cannot be computed are left out. Of a dVAE
        those of `handaug.models.dvae.measure`. Of a disentangler also `disentanglement`: the figures of
        `handaug.models.leakage`.

    Raises:
        InputError: The checkpoint cannot be read, takes other images, or gives NaN; several views of a disentangler,
            or a judge of what draws no images.
    """
    if trust is not None and _outside(checkpoint):
        raise InputError(f"--estimator {trust}: {checkpoint} is no checkpoint that names code; leave the option out")
    if judge is not None and (_is_estimator(checkpoint) or not draws_images(checkpoint)):
        raise InputError(f"--judge {judge}: {checkpoint} draws no images that it could read; leave the option out")
    judge = judge or default_judge
    if views > 1 and not _is_estimator(checkpoint):
        raise InputError(f"--views {views}: {checkpoint} is no pose estimator; leave the option out")
    if method_of_run(checkpoint) in DVAE_METHODS:
        figures: dict[str, Any] = dict(evaluate_dvae(checkpoint, rows, device=device))
        return figures | _disentanglement(checkpoint, rows, judge, device, progress)
    model, size, channels = _load(checkpoint, rows, device, trust, views)
    if rows.size != size or rows.channels != channels:
        raise InputError(
            f"{rows.path}: has {rows.size[1]}x{rows.size[0]} px with {rows.channels} channels, {checkpoint} takes "
            f"{size[1]}x{size[0]} px with {channels}; give data of that size"
        )
    flat, spatial, seen = KeypointMetrics(), KeypointMetrics3D(), []
    wanted = ["images", "keypoints_2d", "visibility", *([_ROOT_RELATIVE] if rows.has(_ROOT_RELATIVE) else [])]
    with progress.task("evaluate", total=len(rows), unit="images") as advance:
        for batch in rows.iter_batches(_BATCH, wanted):
            found = model(batch["images"])
            flat.update(found.keypoints, batch["keypoints_2d"], batch["visibility"])
            if found.keypoints_3d is not None and _ROOT_RELATIVE in batch:
                spatial.update(found.keypoints_3d, batch[_ROOT_RELATIVE], batch["visibility"])
            seen.append(batch["visibility"])
            advance(len(batch["images"]))
    measured: dict[str, Any] = {"rows": float(len(rows)), **_figures(flat, spatial, np.concatenate(seen))}
    known = seen_rows(checkpoint, rows)
    if known is not None:
        measured["rows_related_to_training"] = float(known.sum())
        if known.any():
            progress.note(
                f"{int(known.sum())} of {len(rows)} rows share their group or pose with rows that {checkpoint} learned "
                "from: these figures say little about new images"
            )
    if _kind(checkpoint) == DISENTANGLER:
        measured |= _disentanglement(checkpoint, rows, judge, device, progress)
    return measured


def _disentanglement(
    checkpoint: Path, rows: HandDataset, judge: Path | None, device: str, progress: Progress
) -> dict[str, Any]:
    """The measures under their heading; nothing for runs that draw no images."""
    measured = measure_run(checkpoint, rows, judge=judge, device=device, progress=progress)
    return {"disentanglement": measured} if measured else {}


def _figures(flat: KeypointMetrics, spatial: KeypointMetrics3D, visibility: NDArray[np.uint8]) -> dict[str, Any]:
    """Everything that is known of the errors."""
    pixels, boxes, millimetres = flat.distances(), flat.box_distances(), spatial.distances()
    figures: dict[str, Any] = {name: value for name, value in flat.compute().items() if value == value}
    curves = {"px": (pixels, PX_GRID), "box": (boxes, BOX_GRID)}
    breakdown = {"px": pixels}
    if millimetres.size:
        figures |= {name: value for name, value in spatial.compute().items() if value == value}
        curves["mm"], breakdown["mm"] = (millimetres, MM_GRID), millimetres
    for unit, errors in breakdown.items():
        figures[f"per_joint_{unit}"] = error_by_joint(errors)
        figures[f"per_visibility_{unit}"] = error_by_visibility(errors, visibility)
    figures["pck"] = {
        unit: {"thresholds": [round(float(t), 6) for t in grid], "share": pck_curve(errors, grid).tolist()}
        for unit, (errors, grid) in curves.items()
        if np.isfinite(errors).any()
    }
    return figures


def _load(
    checkpoint: Path, rows: HandDataset, device: str, trust: str | None, views: int
) -> tuple[Callable[[NDArray[np.uint8]], Prediction], tuple[int, int], int]:
    """A function from uint8 images (N, H, W, C) to keypoints, and what images it takes."""
    if _kind(checkpoint) == DISENTANGLER:
        model = load_run(checkpoint, device)
        assert isinstance(model, Disentangler | LayeredDisentangler)
        read = model.pose_keypoints

        def pose_branch(images: NDArray[np.uint8]) -> Prediction:
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0
            return Prediction(read(model.encode_pose(pixels)).cpu().numpy(), None)

        return pose_branch, model.size, model.channels
    if _outside(checkpoint):
        # A factory that draws weights draws the same ones each time.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built = build_outside(str(checkpoint), size=rows.size, channels=rows.channels, option="", trains=False)
        assert built is not None, "there is such a name"
        estimator: Estimator = built.to(device)

        def ask(images: NDArray[np.uint8]) -> Prediction:
            with named_failures(estimator, option=""):
                return predict(estimator, images, views)

        return ask, estimator.size, estimator.channels
    estimator, _ = load_estimator(checkpoint, device, trust=trust)
    return lambda images: predict(estimator, images, views), estimator.size, estimator.channels


def _is_estimator(checkpoint: Path) -> bool:
    """Whether it is a pose estimator, in a folder or from outside, and no disentangler."""
    return _outside(checkpoint) or _kind(checkpoint) == KIND


def _outside(checkpoint: Path) -> bool:
    """Whether the user named code and no folder."""
    return len(checkpoint.parts) == 1 and not checkpoint.exists() and is_outside(str(checkpoint))


def _kind(checkpoint: Path) -> str:
    """The kind in the checkpoint's config; empty where it cannot be read, which the loader explains."""
    try:
        return str(json.loads((checkpoint / CONFIG).read_text())["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""

"""Measure a stored model's 2D keypoints on a dataset."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from handaug.data_specs.errors import InputError
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.models.checkpoint import CONFIG
from handaug.models.disentangle.api import KIND as DISENTANGLER
from handaug.models.disentangle.api import load_disentangler
from handaug.models.dvae.config import METHODS as DVAE_METHODS
from handaug.models.dvae.measure import evaluate_dvae
from handaug.models.estimators import load_estimator
from handaug.models.fit import predict_keypoints
from handaug.models.methods import method_of_run
from handaug.models.metrics import KeypointMetrics

__all__ = ["evaluate_checkpoint"]

_BATCH = 256


def evaluate_checkpoint(
    checkpoint: Path, rows: HandDataset, *, device: str = "cpu", progress: Progress = SILENT
) -> dict[str, float]:
    """Measure an estimator, or the pose branch of a disentangler.

    Args:
        checkpoint: Folder of the model.
        rows: What to measure on.
        device: Where to compute.
        progress: Told of the rows.

    Returns:
        The figures of `KeypointMetrics.compute`, and `rows`. Figures that cannot be computed are left out. Of a dVAE
        those of `handaug.models.dvae.measure`.

    Raises:
        InputError: The checkpoint cannot be read, or takes other images.
    """
    if method_of_run(checkpoint) in DVAE_METHODS:
        return evaluate_dvae(checkpoint, rows, device=device)
    predict, size, channels = _load(checkpoint, device)
    if rows.size != size or rows.channels != channels:
        raise InputError(
            f"{rows.path}: has {rows.size[1]}x{rows.size[0]} px with {rows.channels} channels, {checkpoint} takes "
            f"{size[1]}x{size[0]} px with {channels}; give data of that size"
        )
    metrics = KeypointMetrics()
    with progress.task("evaluate", total=len(rows), unit="images") as advance:
        for batch in rows.iter_batches(_BATCH, ["images", "keypoints_2d", "visibility"]):
            images = torch.from_numpy(batch["images"]).permute(0, 3, 1, 2)
            metrics.update(predict(images).numpy(), batch["keypoints_2d"], batch["visibility"])
            advance(len(images))
    figures = {name: value for name, value in metrics.compute().items() if value == value}
    return {"rows": float(len(rows)), **figures}


def _load(checkpoint: Path, device: str) -> tuple[Callable[[Tensor], Tensor], tuple[int, int], int]:
    """A function from uint8 images to keypoints, and what images it takes."""
    if _kind(checkpoint) == DISENTANGLER:
        model = load_disentangler(checkpoint, device)
        return (
            lambda images: model.pose_keypoints(model.encode_pose(images.float() / 255.0)).cpu(),
            model.size,
            model.channels,
        )
    estimator, _ = load_estimator(checkpoint, device)
    return lambda images: predict_keypoints(estimator, images), estimator.size, estimator.channels


def _kind(checkpoint: Path) -> str:
    """The kind in the checkpoint's config; empty where it cannot be read, which the loader explains."""
    try:
        return str(json.loads((checkpoint / CONFIG).read_text())["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""

"""The measures of `handaug.models.leakage` for a stored run, with an estimator that judges it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from handaug.data_specs.errors import InputError
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.summary import spread_rows
from handaug.models.disentangle.api import Disentangler
from handaug.models.dvae.api import Dvae
from handaug.models.estimators import Estimator, build_estimator, load_estimator
from handaug.models.fit import Batch, fit_estimator
from handaug.models.leakage import measure_disentanglement
from handaug.models.methods import PoseAppearanceModel, load_run

__all__ = ["draws_images", "load_judge", "measure_run", "quick_judge"]

_STEPS = 800
_BATCH = 16
_EPOCHS = 30
_SEED = 71
_FEWEST = 24


def quick_judge(rows: HandDataset, *, device: str = "cpu", progress: Progress = SILENT) -> Estimator:
    """A compact estimator trained on `rows` for half a minute of one core, from a seed of its own.

    It is no good estimator; its own error on untouched images stands beside everything it says.
    """
    used = spread_rows(len(rows), _STEPS * _BATCH)  # no more can be asked for
    images = torch.from_numpy(rows.read("images", used)).permute(0, 3, 1, 2)
    keypoints, visibility = (torch.from_numpy(rows.read(name, used)) for name in ("keypoints_2d", "visibility"))
    steps = max(1, min(_STEPS, _EPOCHS * len(rows) // _BATCH))

    def batches(first: int) -> Iterator[Batch]:
        for step in range(first, steps):
            rng = np.random.default_rng((_SEED, step))
            picked = torch.from_numpy(rng.integers(0, len(used), _BATCH))
            yield images[picked], keypoints[picked], visibility[picked]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        judge = build_estimator("compact", size=rows.size, channels=rows.channels)
    fit_estimator(
        judge,
        batches,
        steps=steps,
        checkpoints=1,
        validate=None,
        device=device,
        label="an independent estimator to judge swaps",
        progress=progress,
    )
    return judge


def load_judge(folder: Path, model: PoseAppearanceModel, device: str) -> Estimator:
    """A trained estimator that takes the model's images.

    Raises:
        InputError: It cannot be read, or takes other images.
    """
    judge, _ = load_estimator(folder, device)
    if judge.size != tuple(model.size) or judge.channels != model.channels:
        raise InputError(
            f"{folder}: takes {judge.size[1]}x{judge.size[0]} px with {judge.channels} channels, the disentangler "
            f"{model.size[1]}x{model.size[0]} px with {model.channels}; give an estimator of that size with --judge"
        )
    return judge


def draws_images(folder: Path) -> bool:
    """Whether a stored run draws images from two codes, which a judge could read."""
    return _draws(load_run(folder, "cpu"))


def measure_run(
    folder: Path,
    asked: HandDataset,
    *,
    judge: Path | None = None,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> dict[str, float]:
    """Measure a stored run of any method that draws images from pose and appearance.

    Args:
        folder: The run.
        asked: Rows to measure on. The train split of their file teaches the probes, and the judge if none is given.
        judge: Folder of an estimator that shares nothing with the run; one is trained quickly if None.
        device: Where to compute.
        progress: Told of the judge's training.

    Returns:
        Figures of `measure_disentanglement`; empty for runs that draw no images from two codes.

    Raises:
        InputError: The run or the judge cannot be read, or takes other images.
    """
    model = load_run(folder, device)
    if not _draws(model):
        return {}
    if asked.size != tuple(model.size) or asked.channels != model.channels:
        raise InputError(
            f"{asked.path}: has {asked.size[1]}x{asked.size[0]} px with {asked.channels} channels, {folder} takes "
            f"{model.size[1]}x{model.size[0]} px with {model.channels}; give data of that size"
        )
    known = HandDataset(asked.path, split="train")
    known = HandDataset(asked.path, rows=np.setdiff1d(known.rows, asked.rows))
    if judge is not None:
        estimator: Estimator | None = load_judge(judge, model, device)
    else:
        estimator = quick_judge(known, device=device, progress=progress) if len(known) >= _FEWEST else None
    return measure_disentanglement(model, known, asked, estimator, progress)


def _draws(model: PoseAppearanceModel) -> bool:
    if isinstance(model, Dvae):
        return model.draws_images and model.reads_images
    return not isinstance(model, Disentangler) or model.draws_images

"""One run of a gain experiment: an arm, a seed, an estimator trained on it, its best checkpoint on validation.

Arms differ in one thing each. Within a seed every arm starts from the same weights, takes the same number of steps of
the same size, fills its real slots in the same order, and chooses among the same number of checkpoints on the same
validation rows. Nothing is stopped early, and there is one setting for all arms, so each has the same number of
tuning trials: one.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from handaug.augment.batches import RowPool, training_batches
from handaug.augment.checker import estimate
from handaug.augment.transforms import TrainTransform
from handaug.data_specs.errors import InputError
from handaug.data_specs.joints import N_JOINTS
from handaug.data_specs.progress import Progress
from handaug.models.checkpoint import CONFIG, load_model, load_weights, read_config, save_model
from handaug.models.estimators import (
    Estimator,
    build_estimator,
    estimator_names,
    load_estimator,
    save_estimator,
)
from handaug.models.estimators.base import KIND
from handaug.models.fit import fit_estimator
from handaug.models.metrics import keypoint_distances

__all__ = ["ARMS", "Arm", "Training", "make_estimator", "predict_run", "train_run", "validation_of"]

_RUN_SEED = 51
_PREDICT_ROWS = 1024


@dataclass(frozen=True)
class Arm:
    """What an arm trains on."""

    name: str
    """As in gain.json."""
    minted: bool
    """Whether minted rows take their share of the slots."""
    transformed: bool
    """Whether the albumentations pipeline runs."""


ARMS = (
    Arm("real", minted=False, transformed=False),
    Arm("real+albumentations", minted=False, transformed=True),
    Arm("real+minted", minted=True, transformed=False),
    Arm("real+minted+albumentations", minted=True, transformed=True),
)
"""The four arms of the contract."""


@dataclass(frozen=True)
class Training:
    """What all arms share."""

    estimator: str
    """Name in the registry, or `module:factory`."""
    steps: int
    batch_size: int
    lr: float
    checkpoints: int
    minted_fraction: float
    width: int | None
    """Channels of a registered estimator's first level."""
    device: str


def make_estimator(name: str, size: tuple[int, int], channels: int, width: int | None = None) -> Estimator:
    """Build an estimator.

    Args: name: A name of the registry, or `module:factory` where `factory(size=(H, W), channels=C)` returns a torch
        module with the methods of `handaug.models.estimators.Estimator`. size: Image height and width. channels: 1 or
        3.

    Raises:
        InputError: Unknown name, or the factory's module does not do what an estimator does.
    """
    if ":" not in name:
        if name not in estimator_names():
            raise InputError(
                f"--estimator {name}: choose one of {', '.join(estimator_names())}, or module:factory of your own"
            )
        return build_estimator(name, size=size, channels=channels, **({} if width is None else {"width": width}))
    module, _, factory = name.partition(":")
    try:
        build: Callable[..., Any] = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"--estimator {name}: cannot be imported ({error}); give an importable module:factory"
        ) from error
    estimator = build(size=size, channels=channels)
    _check_estimator(name, estimator, size, channels)
    return cast(Estimator, estimator)


def _check_estimator(name: str, estimator: Any, size: tuple[int, int], channels: int) -> None:
    """A module of the user's: the methods are there and give the shapes that training needs."""
    missing = [m for m in ("loss", "keypoints") if not callable(getattr(estimator, m, None))]
    if missing or not isinstance(estimator, torch.nn.Module):
        what = f"lacks {', '.join(missing)}" if missing else "is no torch.nn.Module"
        raise InputError(f"--estimator {name}: what it returns {what}; see handaug.models.estimators.Estimator")
    estimator.eval()
    with torch.no_grad():
        output = estimator(torch.zeros(2, channels, *size))
        known = cast(Estimator, estimator)
        points = known.keypoints(output)
        loss = known.loss(output, torch.zeros(2, N_JOINTS, 2), torch.full((2, N_JOINTS), 2, dtype=torch.uint8))
    if tuple(points.shape) != (2, N_JOINTS, 2):
        raise InputError(
            f"--estimator {name}: keypoints are {tuple(points.shape)} for 2 images, must be (2, {N_JOINTS}, 2)"
        )
    if loss.numel() != 1:
        raise InputError(f"--estimator {name}: loss is {tuple(loss.shape)}, must be one number")


def _predict(estimator: Estimator, rows: RowPool) -> NDArray[np.float32]:
    """Keypoints (rows, 21, 2) in pixels."""
    out = []
    for start in range(0, len(rows), _PREDICT_ROWS):
        index = np.arange(start, min(start + _PREDICT_ROWS, len(rows)))
        out.append(estimate(estimator, rows.images(index)))
    return np.concatenate(out)


def _mean_error(estimator: Estimator, rows: RowPool) -> float:
    """Mean joint error in pixels."""
    found = _predict(estimator, rows)
    return float(np.nanmean(keypoint_distances(found, rows.keypoints_2d, rows.visibility)))


def train_run(
    folder: Path,
    arm: Arm,
    number: int,
    seed: int,
    training: Training,
    *,
    real: RowPool,
    minted: RowPool,
    validation: RowPool,
    progress: Progress,
) -> None:
    """Train one arm with one seed and store its best checkpoint; nothing is done where it lies there already.

    Args:
        folder: Of the checkpoint.
        arm: What to train on.
        number: Of the seed, from 0.
        seed: Of the experiment.
        training: What all arms share.
        real: Real rows.
        minted: Minted rows.
        validation: Rows on which the checkpoint is chosen.
        progress: Told of the steps.
    """
    if (folder / CONFIG).exists():
        return
    own = int(np.random.SeedSequence(seed, spawn_key=(_RUN_SEED, number)).generate_state(1)[0])
    torch.manual_seed(own)  # the same initialisation in every arm
    estimator = make_estimator(training.estimator, real.size, real.channels, training.width)
    batches = training_batches(
        real,
        batch_size=training.batch_size,
        seed=own,
        minted=minted if arm.minted else None,
        minted_fraction=training.minted_fraction,
        transform=TrainTransform("standard", flips=real.both_hands) if arm.transformed else None,
    )
    result = fit_estimator(
        estimator,
        batches,
        steps=training.steps,
        lr=training.lr,
        checkpoints=training.checkpoints,
        validate=lambda model: _mean_error(model, validation),
        device=training.device,
        progress=progress,
        label=f"{arm.name}, seed {number}",
    )
    info = {"arm": arm.name, "seed": number, "steps": training.steps, "validation_px": list(result.validation)}
    _save(folder, estimator, training.estimator, info)


def _save(folder: Path, estimator: Estimator, name: str, info: dict[str, Any]) -> None:
    """Write a checkpoint; one of the user's own module names its factory, which `predict_run` calls again."""
    if ":" not in name:
        save_estimator(folder, estimator, info)
        return
    height, width = estimator.size
    config = {"kind": KIND, "estimator": name, "size": [height, width], "channels": estimator.channels, "info": info}
    save_model(folder, estimator.state_dict(), config)


def predict_run(folder: Path, rows: RowPool, device: str) -> NDArray[np.float32]:
    """Keypoints (rows, 21, 2) in pixels by a stored run."""
    name = str(read_config(folder, KIND)["estimator"])
    if ":" in name:
        estimator = make_estimator(name, rows.size, rows.channels)
        load_weights(estimator, load_model(folder, KIND)[0], folder)
    else:
        estimator = load_estimator(folder, device)[0]
    return _predict(estimator.to(device), rows)


def validation_of(folder: Path) -> list[float]:
    """Validation error in pixels at each checkpoint of a stored run."""
    return [float(value) for value in read_config(folder, KIND)["info"]["validation_px"]]

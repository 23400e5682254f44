"""One loop that fits a pose estimator, for every arm of an experiment alike.

The number of steps and the number of validations are fixed; the weights of the best validation are kept. There is no
early stopping: arms that are compared take equally many steps and equally many looks at validation. A fit whose state
is kept goes on where a kill left it, and on the same machine ends with the same weights.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.progress import SILENT, Progress
from handaug.models.checkpoint import load_state, save_state
from handaug.models.estimators.base import Estimator
from handaug.models.fabric import one_device
from handaug.models.loop import SAVE_SECONDS

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Batch", "Batches", "FitResult", "fit_estimator", "predict_keypoints"]

_LOOK_EVERY = 50
"""Steps between looks at the loss, for which a GPU has to be waited for."""


Batch = (
    tuple[Tensor, Tensor, Tensor]
    | tuple[Tensor, Tensor, Tensor, Tensor]
    | tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
)
"""Images (N, C, H, W), uint8 or float in [0, 1]; keypoints (N, 21, 2) pixels; visibility (N, 21), 0 not labelled; the
weight of each sample (N,), if it has four parts; root-relative 3D (N, 21, 3) metres, if it has five."""

Batches = Callable[[int], Iterable[Batch]]
"""Batches of the steps from a given one on, counted from 0."""


@dataclass(frozen=True)
class FitResult:
    """What a fit found; the estimator itself holds the weights of the best checkpoint."""

    best: int
    """Index of the checkpoint that was kept: the first of the lowest score, or the last one without validation."""
    steps: tuple[int, ...]
    """Steps taken at each checkpoint."""
    validation: tuple[float, ...]
    """Score at each checkpoint; empty without validation."""
    losses: tuple[float, ...]
    """Mean training loss up to each checkpoint since the one before."""


def fit_estimator(
    estimator: Estimator,
    batches: Batches,
    *,
    steps: int,
    lr: float = 2e-3,
    checkpoints: int = 10,
    validate: Callable[[Estimator], float] | None,
    device: str = "cpu",
    precision: str = "32-true",
    state: Path | None = None,
    label: str = "fit",
    progress: Progress = SILENT,
) -> FitResult:
    """Fit an estimator in place.

    AdamW (weight decay 1e-4) with a cosine from `lr` to 1 % of it after a warm-up over the first 5 % of the steps;
    gradients are clipped to norm 5.

    Args:
        estimator: Moved to `device`; ends in evaluation mode with the best weights.
        batches: Those from a step on, up to `steps` at least; the loop draws nothing at random.
        steps: Optimiser steps.
        lr: Highest learning rate.
        checkpoints: Validations, evenly spaced, the last one at the end.
        validate: Score of the estimator (in evaluation mode, without gradients), lower is better. None looks at no
            validation rows and keeps the last weights.
        device: "cpu", "cuda" or "cuda:N".
        precision: "32-true" or "bf16-mixed".
        state: File that holds, from minute to minute, all it takes to go on; gone on from where it exists. Whoever
            has stored the result removes it. None starts afresh and keeps nothing.
        label: Name of the progress bar.
        progress: Where to show progress.

    Raises:
        ValueError: `batches` ran out, or steps < checkpoints.
        WorkError: The loss stopped being finite.
    """
    if not 1 <= checkpoints <= steps:
        raise ValueError(f"{checkpoints} checkpoints do not fit in {steps} steps")
    fabric = one_device(device, precision)
    estimator.to(fabric.device).train()
    optimiser = torch.optim.AdamW(estimator.parameters(), lr=lr, weight_decay=1e-4, fused=True)
    looks = [round(steps * (i + 1) / checkpoints) for i in range(checkpoints)]
    known = _Known(torch.zeros((), device=fabric.device))
    if state is not None and state.exists():
        found = _load(state, estimator, optimiser)
        if found is None:
            progress.note(f"{label}: {state} is damaged; starts afresh")
        else:
            progress.note(f"{label}: goes on from step {found.step:,}")
            known = found
    losses, scores = known.losses, known.scores
    source, saved_at = iter(batches(known.step)), time.monotonic()
    with progress.task(label, total=steps, unit="steps") as advance:
        advance(known.step)
        for step in range(known.step, steps):
            for group in optimiser.param_groups:
                group["lr"] = lr * _schedule(step, steps)
            batch = next(source, None)
            if batch is None:
                raise ValueError(f"the batches ran out after {step} of {steps} steps")
            known.loss = known.loss + _step(estimator, optimiser, fabric, batch)
            advance(1)
            saves = state is not None and time.monotonic() - saved_at >= SAVE_SECONDS
            if saves or (step + 1) % _LOOK_EVERY == 0 or step + 1 == looks[len(losses)]:
                # Before it is saved: what a rerun goes on from must be sound.
                if not math.isfinite(float(known.loss)):
                    raise WorkError(f"{label}: the loss is not finite by step {step + 1}; lower the learning rate")
            if step + 1 == looks[len(losses)]:
                losses.append(float(known.loss) / (step + 1 - (looks[len(losses) - 1] if losses else 0)))
                known.loss = torch.zeros_like(known.loss)
                if validate is not None:
                    scores.append(_score(estimator, validate))
                    if scores[-1] < min(scores[:-1], default=math.inf) or not known.best:
                        known.best = {name: tensor.detach().clone() for name, tensor in estimator.state_dict().items()}
            if state is not None and saves:
                known.step = step + 1
                _save(state, known, estimator, optimiser)
                saved_at = time.monotonic()
    if known.best:
        estimator.load_state_dict(known.best)
    estimator.eval()
    kept = scores.index(min(scores)) if scores else checkpoints - 1
    return FitResult(kept, tuple(looks), tuple(scores), tuple(losses))


@dataclass
class _Known:
    """What a fit knows beside weights and optimiser."""

    loss: Tensor
    """Sum of the losses since the last checkpoint; on the device, so that no step waits for it."""
    step: int = 0
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best checkpoint."""


def _save(path: Path, known: _Known, estimator: Estimator, optimiser: torch.optim.Optimizer) -> None:
    # An estimator from outside may draw in its forward pass (dropout).
    draws = {"cpu": torch.get_rng_state()}
    if known.loss.is_cuda:
        draws["cuda"] = torch.cuda.get_rng_state(known.loss.device)
    parts = {"estimator": estimator.state_dict(), "optimiser": optimiser.state_dict(), "draws": draws}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_state(path, {**parts, **vars(known)})


def _load(path: Path, estimator: Estimator, optimiser: torch.optim.Optimizer) -> _Known | None:
    state = load_state(path)
    if state is None:
        return None
    device = next(estimator.parameters()).device
    try:
        estimator.load_state_dict(state.pop("estimator"))
        optimiser.load_state_dict(state.pop("optimiser"))
        draws = state.pop("draws")
        torch.set_rng_state(draws["cpu"])
        if device.type == "cuda" and "cuda" in draws:
            torch.cuda.set_rng_state(draws["cuda"], device)
        return _Known(**{**state, "loss": state["loss"].to(device)})
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"{path}: is no state of this estimator; remove it, and its run starts afresh") from error


def _step(estimator: Estimator, optimiser: torch.optim.Optimizer, fabric: "Fabric", batch: Batch) -> Tensor:
    """One optimiser step; returns the loss without waiting for the device."""
    images, keypoints, visibility, *weights = (fabric.to_device(part) for part in batch)
    scaled = images.float() / 255.0 if images.dtype == torch.uint8 else images.float()
    with fabric.autocast():
        output = estimator(scaled.contiguous(memory_format=torch.channels_last))
    # The user's own estimators need not know sample weights unless the batches have them.
    loss = estimator.loss(output, keypoints, visibility, *weights)
    optimiser.zero_grad(set_to_none=True)
    fabric.backward(loss)
    torch.nn.utils.clip_grad_norm_(estimator.parameters(), 5.0)
    optimiser.step()
    return loss.detach()


def _schedule(step: int, steps: int) -> float:
    """Share of the highest learning rate at `step` (from 0)."""
    warm_up = max(1, steps // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return 0.01 + 0.99 * (1.0 + math.cos(math.pi * done)) / 2.0


def _score(estimator: Estimator, validate: Callable[[Estimator], float]) -> float:
    estimator.eval()
    with torch.no_grad():
        score = float(validate(estimator))
    estimator.train()
    return score if math.isfinite(score) else math.inf


@torch.no_grad()
def predict_keypoints(estimator: Estimator, images: Tensor, *, batch_size: int = 256) -> Tensor:
    """Keypoints of many images.

    Args:
        estimator: In evaluation mode.
        images: (N, C, H, W), uint8, or float in [0, 1], on any device.
        batch_size: Images at a time.

    Returns:
        (N, 21, 2) float32 pixels on the CPU.
    """
    device = next(estimator.parameters()).device
    places = []
    for block in torch.split(images, batch_size):
        moved = block.to(device)
        scaled = moved.float() / 255.0 if moved.dtype == torch.uint8 else moved.float()
        places.append(estimator.keypoints(estimator(scaled.contiguous(memory_format=torch.channels_last))).cpu())
    return torch.cat(places) if places else torch.empty(0, 21, 2)

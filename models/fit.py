"""One loop that fits a pose estimator, for every arm of an experiment alike.

The number of steps and the number of validations are fixed; the weights of the best validation are kept. There is no
early stopping: arms that are compared take equally many steps and equally many looks at validation.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from handaug.data_specs.errors import WorkError
from handaug.data_specs.progress import SILENT, Progress
from handaug.models.estimators.base import Estimator
from handaug.models.fabric import one_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Batch", "FitResult", "fit_estimator", "predict_keypoints"]


Batch = (
    tuple[Tensor, Tensor, Tensor]
    | tuple[Tensor, Tensor, Tensor, Tensor]
    | tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
)
"""Images (N, C, H, W), uint8 or float in [0, 1]; keypoints (N, 21, 2) pixels; visibility (N, 21), 0 not labelled; the
weight of each sample (N,), if it has four parts; root-relative 3D (N, 21, 3) metres, if it has five."""


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
    batches: Iterable[Batch],
    *,
    steps: int,
    lr: float = 2e-3,
    checkpoints: int = 10,
    validate: Callable[[Estimator], float] | None,
    device: str = "cpu",
    precision: str = "32-true",
    label: str = "fit",
    progress: Progress = SILENT,
) -> FitResult:
    """Fit an estimator in place.

    AdamW (weight decay 1e-4) with a cosine from `lr` to 1 % of it after a warm-up over the first 5 % of the steps;
    gradients are clipped to norm 5.

    Args:
        estimator: Moved to `device`; ends in evaluation mode with the best weights.
        batches: At least `steps` of them; their order is the caller's, and the loop draws nothing at random.
        steps: Optimiser steps.
        lr: Highest learning rate.
        checkpoints: Validations, evenly spaced, the last one at the end.
        validate: Score of the estimator (in evaluation mode, without gradients), lower is better. None looks at no
            validation rows and keeps the last weights.
        device: "cpu", "cuda" or "cuda:N".
        precision: "32-true" or "bf16-mixed".
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
    optimiser = torch.optim.AdamW(estimator.parameters(), lr=lr, weight_decay=1e-4)
    looks = [round(steps * (i + 1) / checkpoints) for i in range(checkpoints)]
    scores: list[float] = []
    losses: list[float] = []
    best: dict[str, Tensor] = {}
    total, source = torch.zeros((), device=fabric.device), iter(batches)
    with progress.task(label, total=steps, unit="steps") as advance:
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = lr * _schedule(step, steps)
            batch = next(source, None)
            if batch is None:
                raise ValueError(f"the batches ran out after {step} of {steps} steps")
            total = total + _step(estimator, optimiser, fabric, batch)
            advance(1)
            if step + 1 != looks[len(losses)]:
                continue
            losses.append(float(total) / (step + 1 - (looks[len(losses) - 1] if losses else 0)))
            if not math.isfinite(losses[-1]):
                raise WorkError(f"{label}: the loss is not finite before step {step + 1}; lower the learning rate")
            total = torch.zeros_like(total)
            if validate is not None:
                scores.append(_score(estimator, validate))
                if scores[-1] < min(scores[:-1], default=math.inf) or not best:
                    best = {name: tensor.detach().clone() for name, tensor in estimator.state_dict().items()}
    if best:
        estimator.load_state_dict(best)
    estimator.eval()
    kept = scores.index(min(scores)) if scores else checkpoints - 1
    return FitResult(kept, tuple(looks), tuple(scores), tuple(losses))


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

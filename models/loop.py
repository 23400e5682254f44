"""One training loop for every disentangler: it counts steps, saves, resumes, logs, and leaves the learning to others.

The whole state is saved at every validation and once a minute. What a `Trainee` draws at random must follow from its
seed and the number of the step; then a killed run goes on where it was saved and, on the same machine, ends with the
same weights.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.progress import Progress
from handaug.models.checkpoint import load_state, save_state

__all__ = ["LOG", "RESIDENT_BYTES", "STATE", "NotFiniteError", "Trainee", "finite_values", "run_training"]

SAVE_SECONDS = 60.0
"""At most this much work is lost to a kill."""

RESIDENT_BYTES = 8 * 2**30
"""Images above this stay in the computer's memory and are copied to the GPU batch by batch."""

STATE = "state.pt"
"""Name of the saved state in the folder of a run."""

_REMEDY = "Start again with --overwrite and --precision 32-true or another --seed"

LOG = "log.jsonl"
"""Name of the log in the folder of a run."""


class Trainee(Protocol):
    """What learns."""

    def parts(self) -> Mapping[str, Any]:
        """Everything with a `state_dict` that the next step depends on, by name."""

    def train_step(self, step: int) -> dict[str, float]:
        """Take step number `step`, from 0; returns its loss terms by name (see `finite_values`)."""

    def validate(self, step: int) -> tuple[dict[str, Any], str]:
        """Measure after `step` steps, draw, and put the weights where others find them.

        Returns:
            What is logged, and a line for the user.
        """


class NotFiniteError(Exception):
    """A loss term is not finite; the optimisers have not moved."""


def finite_values(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """Loss terms as numbers, in one transfer from the device. Call it before any optimiser moves.

    Raises:
        NotFiniteError: With the name of the first term that is not finite.
    """
    stacked = torch.stack([term.detach().float() for term in terms.values()]).tolist()
    for name, value in zip(terms, stacked, strict=True):
        if not np.isfinite(value):
            raise NotFiniteError(name)
    return dict(zip(terms, stacked, strict=True))


def run_training(
    trainee: Trainee,
    folder: Path,
    *,
    steps: int,
    validate_every: int,
    label: str,
    progress: Progress,
    keep_state: bool = False,
) -> None:
    """Run the steps that are left; validate, log and save on the way, and remove the state at the end.

    Args:
        trainee: Freshly built; its saved state, if any, is loaded here.
        folder: Of the run; `log.jsonl` gets a line at each validation with the means of the terms since the last one.
        steps: In all.
        validate_every: Steps between validations; there is one at the end as well.
        label: Of the progress bar and the notes.
        progress: Where to show progress.
        keep_state: Leave the state (`STATE`), so that a longer run can go on from it.

    Raises:
        WorkError: A loss or a weight stopped being finite; the last good state is kept.
    """
    state = load_state(folder / STATE) if (folder / STATE).exists() else {}
    if state is None:
        progress.note(f"{label}: {folder / STATE} is damaged; starts afresh")
    step, sums, counts = _resume(trainee, folder, state or {})
    if step:
        progress.note(f"{label}: goes on from step {step:,}")
    saved_at, kept = time.monotonic(), bool(state)
    with progress.task(label, total=steps, unit="steps") as advance:
        advance(step)
        while step < steps:
            buffers = {} if kept else _buffers(trainee)
            try:
                values = trainee.train_step(step)
            except NotFiniteError as error:
                if step and not kept and _weights_finite(trainee):
                    _restore(trainee, buffers)
                    _save(trainee, folder, step, sums, counts)
                kept_too = "the last good state is kept" if (folder / STATE).exists() else "no step had ended"
                raise WorkError(
                    f"{folder}: the loss term {error} is not finite at step {step + 1}; {kept_too}. {_REMEDY}"
                ) from error
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + 1
            step += 1
            advance(1)
            due = step % validate_every == 0 or step == steps
            if not due and time.monotonic() - saved_at < SAVE_SECONDS:
                continue
            if not _weights_finite(trainee):
                raise WorkError(
                    f"{folder}: weights are not finite after step {step}; the last saved state is kept. {_REMEDY}"
                )
            if due:
                measured, line = trainee.validate(step)
                _log(folder, {"step": step, "train": {n: sums[n] / counts[n] for n in sums}, **measured})
                progress.note(line)
                sums, counts = {}, {}
            _save(trainee, folder, step, sums, counts)
            saved_at, kept = time.monotonic(), True
    if not keep_state:
        (folder / STATE).unlink(missing_ok=True)


def _resume(trainee: Trainee, folder: Path, state: dict[str, Any]) -> tuple[int, dict[str, float], dict[str, int]]:
    """Load a saved state, and cut the log back to it.

    Raises:
        InputError: It belongs to another network.
    """
    log = folder / LOG
    if not state:
        log.unlink(missing_ok=True)
        return 0, {}, {}
    try:
        for name, part in trainee.parts().items():
            part.load_state_dict(state[name])
        step, sums, counts = int(state["step"]), dict(state["sums"]), dict(state["counts"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"{folder / STATE}: is no state of this run; remove it, and the run starts afresh") from error
    if log.exists():
        lines = log.read_text(errors="replace").splitlines(keepends=True)
        log.write_text("".join(line for line in lines if _step_of(line) <= step))
    return step, sums, counts


def _step_of(line: str) -> float:
    """The step that a line of the log tells of; infinite where a full disk cut it short."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _weights_finite(trainee: Trainee) -> bool:
    modules = (part for part in trainee.parts().values() if isinstance(part, nn.Module))
    return all(bool(torch.isfinite(tensor).all()) for module in modules for tensor in module.parameters())


def _save(trainee: Trainee, folder: Path, step: int, sums: dict[str, float], counts: dict[str, int]) -> None:
    state = {name: part.state_dict() for name, part in trainee.parts().items()}
    save_state(folder / STATE, {**state, "step": step, "sums": sums, "counts": counts})


def _buffers(trainee: Trainee) -> dict[str, dict[str, Tensor]]:
    """Copies of the running statistics: the forward pass of a bad step spoils them before its loss is known."""
    modules = {name: part for name, part in trainee.parts().items() if isinstance(part, nn.Module)}
    return {name: {key: b.clone() for key, b in part.named_buffers()} for name, part in modules.items()}


def _restore(trainee: Trainee, buffers: dict[str, dict[str, Tensor]]) -> None:
    parts = trainee.parts()
    for name, values in buffers.items():
        parts[name].load_state_dict(values, strict=False)


def _log(folder: Path, line: dict[str, Any]) -> None:
    with open(folder / LOG, "a") as log:
        log.write(json.dumps(line) + "\n")

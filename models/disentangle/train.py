"""Training a disentangler: setup, fit, validate, as plain functions to read from top to bottom.

A run is a function of the data and its config. Every epoch's order is drawn from (seed, epoch), nothing else is
random after the initial weights, and the whole state is saved at every validation and once a minute, so a killed run
goes on where it was saved and, on the same machine, ends with the same weights.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from handaug.data_specs.draw import save_png
from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.joints import JOINTS
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import HIDDEN
from handaug.models.checkpoint import load_state, save_model, save_state
from handaug.models.disentangle.api import KIND, Disentangler, sigma_px
from handaug.models.disentangle.config import PHASES, DisentangleConfig
from handaug.models.disentangle.losses import discriminator_loss, generator_terms, total_loss
from handaug.models.disentangle.model import SelfDisentangler
from handaug.models.disentangle.validation import ValidationSet, draw_grid, load_validation, validate
from handaug.models.fabric import one_device
from handaug.models.heatmaps import render_heatmaps
from handaug.models.networks import Discriminator, check_size, initialise
from handaug.models.run_folder import RunFolder

__all__ = ["train_disentangler"]

SAVE_SECONDS = 60.0
"""At most this much work is lost to a kill."""

_STATE = "state.pt"
_LOG = "log.jsonl"
_ORDER = 1
"""Spawn key of the data order, so that it shares no draw with other uses of the seed."""

_RESIDENT_BYTES = 8 * 2**30
"""Images above this stay in the computer's memory and are copied to the GPU batch by batch."""


@dataclass
class _Job:
    """Everything `fit` needs; only `step`, `sums`, `counts` and what the modules hold change."""

    config: DisentangleConfig
    fabric: Fabric
    folder: Path
    model: SelfDisentangler
    discriminator: Discriminator
    optimiser: torch.optim.Optimizer
    discriminator_optimiser: torch.optim.Optimizer
    images: Tensor
    keypoints: Tensor
    visibility: Tensor
    validation: ValidationSet
    size: tuple[int, int]
    channels: int
    info: dict[str, Any]
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """Images per step: the config's, or all rows of a smaller set."""
        return min(self.config.batch_size, len(self.images) // 2 * 2)

    @property
    def epoch_steps(self) -> int:
        """Steps per epoch; the last incomplete batch is left out, another one each epoch."""
        return len(self.images) // self.batch

    @property
    def validate_every(self) -> int:
        """Steps between validations: whole epochs, as many as make 50 steps."""
        return self.config.validate_every or self.epoch_steps * -(-50 // self.epoch_steps)


def train_disentangler(
    data: Path,
    out: Path,
    config: DisentangleConfig,
    *,
    device: str = "cpu",
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Path:
    """Train a disentangler on split 0 of a dataset.

    Args:
        data: Dataset with keypoints. Split 1, where there is one, is drawn and measured and changes no weight: the last
            weights are kept.
        out: Folder to make: `model.safetensors`, `config.json`, `log.jsonl`, `grid.png`, `grids/epoch-*.png`.
        config: What to train.
        device: "cpu", "cuda" or "cuda:N"; not part of the result's identity.
        overwrite: Whether a run of another configuration may be replaced.
        progress: Where to show progress.

    Returns:
        `out`.

    Raises:
        InputError: The data or `out` cannot be used.
        WorkError: A loss stopped being finite; the last good state is kept.
    """
    train = HandDataset(data, split="train")
    check_size(train.size, "the disentangler")
    if len(train) < 2:
        raise InputError(f"{data}: has {len(train)} train rows, mixing needs at least 2; render more with --poses")
    run = RunFolder.open(out, {"config": config.to_json(), "data": train.checksum}, overwrite=overwrite)
    if run is None:
        progress.note(f"{out}: is complete, nothing to do")
        return out
    with run:
        job = _setup(train, HandDataset(data, split="val"), config, run.folder, device, progress)
        _fit(job, progress)
        (run.folder / _STATE).unlink()
        return run.finish()


def _setup(
    train: HandDataset, val: HandDataset, config: DisentangleConfig, folder: Path, device: str, progress: Progress
) -> _Job:
    """Read the data, build the networks, and load the saved state of an unfinished run."""
    fabric = one_device(device, config.precision)
    images = torch.from_numpy(train.read("images")).permute(0, 3, 1, 2).contiguous()
    keypoints = torch.from_numpy(train.read("keypoints_2d")).to(fabric.device)
    visibility = torch.from_numpy(train.read("visibility"))
    resident = images.nbytes <= _RESIDENT_BYTES
    schedule = ", then ".join(f"{share:.0%} as {PHASES[phase]}" for phase, share in config.phases)
    progress.note(
        f"disentangle: {len(train):,} train rows ({images.nbytes / 2**20:.0f} MiB in memory), {len(val):,} validation "
        f"rows; {config.steps:,} steps of {config.batch_size} images on {device}, {schedule}"
    )
    if not len(val):
        progress.note(f"{train.path}: has no val rows; grids and measures are of train rows")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        # Built on the CPU, so that every device starts from the same weights.
        model = SelfDisentangler(len(JOINTS), train.channels, config.width)
        discriminator = Discriminator(train.channels, config.discriminator_width)
        initialise(discriminator)
    for network in (model, discriminator):
        network.to(fabric.device).to(memory_format=torch.channels_last)
    job = _Job(
        config=config,
        fabric=fabric,
        folder=folder,
        model=model,
        discriminator=discriminator,
        optimiser=torch.optim.Adam(model.parameters(), lr=config.learning_rate),
        discriminator_optimiser=torch.optim.Adam(
            discriminator.parameters(), lr=config.discriminator_learning_rate, betas=(0.5, 0.999)
        ),
        images=images.to(fabric.device) if resident else images,
        keypoints=keypoints,
        visibility=visibility.to(fabric.device),
        validation=load_validation(val if len(val) else train),
        size=train.size,
        channels=train.channels,
        info={"data_checksum": train.checksum, "train_rows": len(train)},
    )
    _resume(job, progress)
    return job


def _resume(job: _Job, progress: Progress) -> None:
    """Load the saved state, if any, and cut the log back to it."""
    log = job.folder / _LOG
    if not (job.folder / _STATE).exists():
        log.unlink(missing_ok=True)
        return
    state = load_state(job.folder / _STATE)
    for name, part in _parts(job).items():
        part.load_state_dict(state[name])
    job.step = int(state["step"])
    job.sums, job.counts = dict(state["sums"]), dict(state["counts"])
    if log.exists():
        kept = [line for line in log.read_text().splitlines(keepends=True) if json.loads(line)["step"] <= job.step]
        log.write_text("".join(kept))
    progress.note(f"disentangle: goes on from step {job.step:,}")


def _parts(job: _Job) -> dict[str, Any]:
    return {
        "model": job.model,
        "discriminator": job.discriminator,
        "optimiser": job.optimiser,
        "discriminator_optimiser": job.discriminator_optimiser,
    }


def _save(job: _Job) -> None:
    state = {name: part.state_dict() for name, part in _parts(job).items()}
    counters = {"step": job.step, "sums": job.sums, "counts": job.counts}
    save_state(job.folder / _STATE, {**state, **counters})


def _batches(job: _Job) -> Iterator[Tensor]:
    """Row numbers of every batch from the current step on; image i of a batch is paired with image i + half."""
    for step in range(job.step, job.config.steps):
        epoch, position = divmod(step, job.epoch_steps)
        if position == 0 or step == job.step:
            sequence = np.random.SeedSequence(job.config.seed, spawn_key=(_ORDER, epoch))
            order = torch.from_numpy(np.random.default_rng(sequence).permutation(len(job.images)))
        yield order[position * job.batch : (position + 1) * job.batch]


def _fit(job: _Job, progress: Progress) -> None:
    """Run the steps that are left; validate, log, draw and save on the way."""
    saved_at = time.monotonic()
    with progress.task("disentangle", total=job.config.steps, unit="steps") as advance:
        advance(job.step)
        for rows in _batches(job):
            for name, value in _train_step(job, rows).items():
                job.sums[name] = job.sums.get(name, 0.0) + value
                job.counts[name] = job.counts.get(name, 0) + 1
            job.step += 1
            advance(1)
            if job.step % job.validate_every == 0 or job.step == job.config.steps:
                _validate(job, progress)
            elif time.monotonic() - saved_at < SAVE_SECONDS:
                continue
            _save(job)
            saved_at = time.monotonic()


def _train_step(job: _Job, rows: Tensor) -> dict[str, float]:
    """One step of both optimisers; returns the loss terms by name."""
    config, fabric = job.config, job.fabric
    phase = config.phase_at(job.step)
    images = fabric.to_device(job.images[rows.to(job.images.device)]).float() / 255.0
    images = images.contiguous(memory_format=torch.channels_last)
    rows = rows.to(fabric.device)
    sigma = sigma_px(config, job.size)
    heatmaps = render_heatmaps(job.keypoints[rows], job.size, sigma)
    labelled = (job.visibility[rows] >= HIDDEN).float()
    adversary = job.discriminator if config.alpha_gan > 0 else None

    with fabric.autocast():
        terms, reconstructed = generator_terms(job.model, adversary, images, heatmaps, labelled, sigma, phase)
    loss = total_loss(terms, config)
    if adversary is not None and reconstructed is not None:
        with fabric.autocast():
            terms["discriminator"] = discriminator_loss(adversary, images, reconstructed)
    # One transfer for all terms, and before either optimiser moves: a bad step leaves the last good weights.
    values = dict(zip(terms, torch.stack([term.detach().float() for term in terms.values()]).tolist(), strict=True))
    _check_finite(job, values)
    job.optimiser.zero_grad(set_to_none=True)
    fabric.backward(loss)
    job.optimiser.step()
    if "discriminator" in terms:
        job.discriminator_optimiser.zero_grad(set_to_none=True)
        fabric.backward(config.alpha_discriminator * terms["discriminator"])
        job.discriminator_optimiser.step()
    return values


def _check_finite(job: _Job, values: dict[str, float]) -> None:
    bad = [name for name, value in values.items() if not np.isfinite(value)]
    if bad:
        if job.step and not (job.folder / _STATE).exists():
            _save(job)
        raise WorkError(
            f"{job.folder}: the loss term {bad[0]} is not finite at step {job.step + 1}; the state before it is kept. "
            "Start again with --overwrite and --precision 32-true or another --seed"
        )


def _validate(job: _Job, progress: Progress) -> None:
    """Measure, log and draw, and put the weights where others find them."""
    disentangler = Disentangler(job.model, job.config, job.size, job.channels, job.info)
    phase = job.config.phase_at(job.step - 1)
    measured = validate(disentangler, job.validation, decoder=phase > 1)
    means = {name: job.sums[name] / job.counts[name] for name in job.sums}
    job.sums, job.counts = {}, {}
    epoch = -(-job.step // job.epoch_steps)
    line = {"step": job.step, "epoch": epoch, "phase": phase, "train": means, "validation": measured}
    with open(job.folder / _LOG, "a") as log:
        log.write(json.dumps(line) + "\n")
    if phase > 1:
        picture = draw_grid(disentangler, job.validation)
        (job.folder / "grids").mkdir(exist_ok=True)
        save_png(job.folder / "grids" / f"epoch-{epoch:03d}.png", picture)
        save_png(job.folder / "grid.png", picture)
    info = {**job.info, "step": job.step, "validation": measured}
    size, config = list(job.size), job.config.to_json()
    stored = {"kind": KIND, "config": config, "size": size, "channels": job.channels, "info": info}
    save_model(job.folder, job.model.state_dict(), stored)
    progress.note(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in measured.items()))

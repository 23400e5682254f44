"""Training a self-disentangler: setup, one step, validation.

A run is a function of the data and its config: every epoch's order is drawn from (seed, epoch), and nothing else is
random after the initial weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from handaug.data_specs.draw import save_png
from handaug.data_specs.errors import InputError
from handaug.data_specs.joints import JOINTS
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import HIDDEN
from handaug.models.checkpoint import save_model
from handaug.models.disentangle.api import KIND, Disentangler, sigma_px
from handaug.models.disentangle.config import PHASES, DisentangleConfig
from handaug.models.disentangle.losses import discriminator_loss, generator_terms, total_loss
from handaug.models.disentangle.model import SelfDisentangler
from handaug.models.disentangle.validation import ValidationSet, draw_grid, load_validation, validate
from handaug.models.fabric import one_device
from handaug.models.heatmaps import render_heatmaps
from handaug.models.loop import RESIDENT_BYTES, finite_values, run_training
from handaug.models.networks import Discriminator, check_size, initialise
from handaug.models.run_folder import RunFolder

__all__ = ["train_disentangler"]

_ORDER = 1
"""Spawn key of the data order, so that it shares no draw with other uses of the seed."""


@dataclass
class _Job:
    """The networks, the rows in memory, and one step."""

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

    def parts(self) -> Mapping[str, Any]:
        return {
            "model": self.model,
            "discriminator": self.discriminator,
            "optimiser": self.optimiser,
            "discriminator_optimiser": self.discriminator_optimiser,
        }

    def train_step(self, step: int) -> dict[str, float]:
        """One step of both optimisers."""
        config, fabric = self.config, self.fabric
        rows = self._rows_at(step)
        images = fabric.to_device(self.images[rows.to(self.images.device)]).float() / 255.0
        images = images.contiguous(memory_format=torch.channels_last)
        rows = rows.to(fabric.device)
        sigma = sigma_px(config, self.size)
        heatmaps = render_heatmaps(self.keypoints[rows], self.size, sigma)
        labelled = (self.visibility[rows] >= HIDDEN).float()
        adversary = self.discriminator if config.alpha_gan > 0 else None
        with fabric.autocast():
            terms, reconstructed = generator_terms(
                self.model, adversary, images, heatmaps, labelled, sigma, config.phase_at(step)
            )
        loss = total_loss(terms, config)
        if adversary is not None and reconstructed is not None:
            with fabric.autocast():
                terms["discriminator"] = discriminator_loss(adversary, images, reconstructed)
        values = finite_values(terms)
        self.optimiser.zero_grad(set_to_none=True)
        fabric.backward(loss)
        self.optimiser.step()
        if "discriminator" in terms:
            self.discriminator_optimiser.zero_grad(set_to_none=True)
            fabric.backward(config.alpha_discriminator * terms["discriminator"])
            self.discriminator_optimiser.step()
        return values

    def _rows_at(self, step: int) -> Tensor:
        """Row numbers of a batch; image i of it is paired with image i + half."""
        epoch, position = divmod(step, self.epoch_steps)
        sequence = np.random.SeedSequence(self.config.seed, spawn_key=(_ORDER, epoch))
        order = torch.from_numpy(np.random.default_rng(sequence).permutation(len(self.images)))
        return order[position * self.batch : (position + 1) * self.batch]

    def validate(self, step: int) -> tuple[dict[str, Any], str]:
        disentangler = Disentangler(self.model, self.config, self.size, self.channels, self.info)
        phase = self.config.phase_at(step - 1)
        measured = validate(disentangler, self.validation, decoder=phase > 1)
        epoch = -(-step // self.epoch_steps)
        if phase > 1:
            picture = draw_grid(disentangler, self.validation)
            (self.folder / "grids").mkdir(exist_ok=True)
            save_png(self.folder / "grids" / f"epoch-{epoch:03d}.png", picture)
            save_png(self.folder / "grid.png", picture)
        info = {**self.info, "step": step, "validation": measured}
        size, config = list(self.size), self.config.to_json()
        stored = {"kind": KIND, "config": config, "size": size, "channels": self.channels, "info": info}
        save_model(self.folder, self.model.state_dict(), stored)
        line = f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in measured.items())
        return {"epoch": epoch, "phase": phase, "validation": measured}, line


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
        run_training(
            job,
            run.folder,
            steps=config.steps,
            validate_every=job.validate_every,
            label="disentangle",
            progress=progress,
        )
        return run.finish()


def _setup(
    train: HandDataset, val: HandDataset, config: DisentangleConfig, folder: Path, device: str, progress: Progress
) -> _Job:
    """Read the data and build the networks."""
    fabric = one_device(device, config.precision)
    images = torch.from_numpy(train.read("images")).permute(0, 3, 1, 2).contiguous()
    keypoints = torch.from_numpy(train.read("keypoints_2d")).to(fabric.device)
    visibility = torch.from_numpy(train.read("visibility"))
    resident = images.nbytes <= RESIDENT_BYTES
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
    return _Job(
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

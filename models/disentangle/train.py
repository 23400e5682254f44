"""Training a self-disentangler: setup, one step, validation.

A run is a function of the data and its config: every epoch's order is drawn from (seed, epoch), and nothing else is
random after the initial weights. The networks that a phase does not train are built all the same, so that a phase can
follow any other.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from handaug.data_specs.draw import save_png
from handaug.data_specs.errors import InputError
from handaug.data_specs.joints import JOINTS
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import HIDDEN
from handaug.models.checkpoint import save_model
from handaug.models.disentangle.api import Disentangler, sigma_px
from handaug.models.disentangle.config import PAIRED, PHASES, DisentangleConfig
from handaug.models.disentangle.losses import (
    discriminator_loss,
    generator_terms,
    leak_loss,
    paired_terms,
    total_loss,
)
from handaug.models.disentangle.model import SelfDisentangler
from handaug.models.disentangle.sampling import RowSampler
from handaug.models.disentangle.validation import ValidationSet, draw_grid, load_validation, validate
from handaug.models.fabric import one_device
from handaug.models.heatmaps import render_heatmaps
from handaug.models.loop import LOG, RESIDENT_BYTES, STATE, finite_values, run_training
from handaug.models.networks import Discriminator, ImageDecoder, check_size, initialise
from handaug.models.run_folder import RunFolder
from handaug.models.seen import write_seen
from handaug.models.trained import KIND, Parts

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["train_disentangler"]


@dataclass
class _Job:
    """The networks, the rows in memory, and one step."""

    config: DisentangleConfig
    fabric: "Fabric"
    folder: Path
    model: SelfDisentangler
    discriminator: Discriminator
    leak: ImageDecoder | None
    optimiser: torch.optim.Optimizer
    discriminator_optimiser: torch.optim.Optimizer
    leak_optimiser: torch.optim.Optimizer | None
    sampler: RowSampler
    images: Tensor
    keypoints: Tensor
    visibility: Tensor
    validation: ValidationSet
    size: tuple[int, int]
    channels: int
    info: dict[str, Any]

    @property
    def validate_every(self) -> int:
        """Steps between validations: whole epochs, as many as make 50 steps."""
        epoch = self.sampler.epoch_steps
        return self.config.validate_every or epoch * -(-50 // epoch)

    def parts(self) -> Mapping[str, Any]:
        parts = {
            "model": self.model,
            "discriminator": self.discriminator,
            "optimiser": self.optimiser,
            "discriminator_optimiser": self.discriminator_optimiser,
        }
        if self.leak is not None:
            parts |= {"leak": self.leak, "leak_optimiser": self.leak_optimiser}
        return parts

    def train_step(self, step: int) -> dict[str, float]:
        """One step of all optimisers."""
        config, fabric = self.config, self.fabric
        phase = config.phase_at(step)
        rows = self.sampler.rows_at(step, phase)
        images = fabric.to_device(self.images[rows.to(self.images.device)]).float() / 255.0
        images = images.contiguous(memory_format=torch.channels_last)
        rows = rows.to(fabric.device)
        sigma = sigma_px(config, self.size)
        heatmaps = render_heatmaps(self.keypoints[rows], self.size, sigma)
        labelled = (self.visibility[rows] >= HIDDEN).float()
        adversary = self.discriminator if config.alpha_gan > 0 else None
        own: dict[str, tuple[Tensor, torch.optim.Optimizer]] = {}
        with fabric.autocast():
            if phase == PAIRED:
                assert self.leak is not None and self.leak_optimiser is not None
                terms, reconstructed, appearance = paired_terms(
                    self.model, adversary, self.leak, images, heatmaps, labelled, sigma
                )
                leaked = leak_loss(self.leak, appearance, images.roll(len(images) // 2, 0))
                own["leak"] = leaked, self.leak_optimiser
            else:
                terms, drawn = generator_terms(self.model, adversary, images, heatmaps, labelled, sigma, phase)
                reconstructed = images if drawn is None else drawn
            if adversary is not None and phase != 1:
                told_apart = config.alpha_discriminator * discriminator_loss(adversary, images, reconstructed)
                own["discriminator"] = told_apart, self.discriminator_optimiser
        loss = total_loss(terms, config)
        values = finite_values({**terms, **{name: value for name, (value, _) in own.items()}})
        self.optimiser.zero_grad(set_to_none=True)
        fabric.backward(loss)
        self.optimiser.step()
        for value, optimiser in own.values():
            optimiser.zero_grad(set_to_none=True)
            fabric.backward(value)
            optimiser.step()
        return values

    def validate(self, step: int) -> tuple[dict[str, Any], str]:
        disentangler = Disentangler(Parts(self.model, self.config, self.size, self.channels, self.info))
        phase = self.config.phase_at(step - 1)
        measured = validate(disentangler, self.validation, decoder=phase > 1)
        epoch = -(-step // self.sampler.epoch_steps)
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
    unlabelled: Path | None = None,
    start: Path | None = None,
    keep_state: bool = False,
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
        unlabelled: More data, whose train rows make up half of each batch from phase 2 on. They take part in Eqs. 2 to
            5 alone; labels they may have are not read, and the file need not have any. Not for method paired.
        start: A finished run with its state, of the same data and of a config whose steps are the first ones of this
            config: the run goes on from its end and gets the weights of a run that was never cut.
        keep_state: Leave the state in `out`, for such a longer run.

    Returns:
        `out`.

    Raises:
        InputError: The data, `start` or `out` cannot be used.
        WorkError: A loss stopped being finite; the last good state is kept.
    """
    train = HandDataset(data, split="train")
    check_size(train.size, "the disentangler")
    if len(train) < 2:
        raise InputError(f"{data}: has {len(train)} train rows, mixing needs at least 2; render more with --poses")
    if not (train.read("visibility") > 0).any():
        raise InputError(f"{data}: none of its train rows is labelled; give labelled data")
    key: dict[str, Any] = {"config": config.to_json(), "data": train.checksum}
    more = None if unlabelled is None else _unlabelled_rows(unlabelled, train, config)
    if more is not None:
        key["unlabelled"] = more.checksum
    if start is not None:
        _check_beginning(start, key, config)
    run = RunFolder.open(out, key, overwrite=overwrite)
    if run is None:
        progress.note(f"{out}: is complete, nothing to do")
        return out
    with run:
        if start is not None and not (run.folder / STATE).exists():
            _begin_from(start, run.folder)
        job = _setup(train, HandDataset(data, split="val"), more, config, run.folder, device, progress)
        run_training(
            job,
            run.folder,
            steps=config.steps,
            validate_every=job.validate_every,
            label="disentangle",
            progress=progress,
            keep_state=keep_state,
        )
        write_seen(run.folder, [train, *([] if more is None else [more])], start)
        return run.finish()


def _unlabelled_rows(path: Path, train: HandDataset, config: DisentangleConfig) -> HandDataset:
    """The rows of --unlabelled, checked."""
    if config.method == "paired":
        raise InputError("--unlabelled: --method paired learns from labelled pairs alone; use self or autoencoder")
    rows = HandDataset(path, split="train", unlabelled=True)
    if not len(rows):
        raise InputError(f"--unlabelled {path}: has no train rows; give data with some")
    if rows.size != train.size or rows.channels != train.channels:
        raise InputError(
            f"--unlabelled {path}: has {rows.size[1]}x{rows.size[0]} px with {rows.channels} channels, {train.path} "
            f"{train.size[1]}x{train.size[0]} px with {train.channels}; make them alike"
        )
    return rows


def _check_beginning(start: Path, key: Mapping[str, Any], config: DisentangleConfig) -> None:
    """Whether the steps of a finished run are the first ones of this one."""
    try:
        stored = json.loads((start / "run.json").read_text())
        before = DisentangleConfig.from_json(stored["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{start}: is not a finished run of this version; train it again") from error
    alike = replace(before, steps=config.steps, phases=config.phases, validate_every=config.validate_every) == config
    first = before.steps <= config.steps and all(
        before.phase_at(step) == config.phase_at(step) for step in range(before.steps)
    )
    if not alike or not first or {**stored, "config": None} != {**key, "config": None}:
        raise InputError(f"{start}: is not the beginning of this run; give one of the same data and configuration")
    if not (start / STATE).is_file():
        raise InputError(f"{start}: was not kept with its state; train it again and keep it")


def _begin_from(start: Path, folder: Path) -> None:
    """Copy state and log of a shorter run; the state last and at once, so that a kill before it begins anew."""
    shutil.copy(start / LOG, folder / LOG)
    temporary = folder / f"{STATE}.copy"
    shutil.copy(start / STATE, temporary)
    temporary.rename(folder / STATE)


def _setup(
    train: HandDataset,
    val: HandDataset,
    more: HandDataset | None,
    config: DisentangleConfig,
    folder: Path,
    device: str,
    progress: Progress,
) -> _Job:
    """Read the data and build the networks."""
    fabric = one_device(device, config.precision)
    views = [train] if more is None else [train, more]
    images = torch.cat([torch.from_numpy(view.read("images")) for view in views]).permute(0, 3, 1, 2).contiguous()
    keypoints, visibility = (torch.from_numpy(train.read(name)) for name in ("keypoints_2d", "visibility"))
    extra = len(images) - len(train)
    keypoints = torch.cat([keypoints, torch.zeros(extra, *keypoints.shape[1:])]).to(fabric.device)
    visibility = torch.cat([visibility, torch.zeros(extra, visibility.shape[1], dtype=torch.uint8)])
    pose_id = train.read("pose_id") if train.has("pose_id") else None
    sampler = RowSampler(len(train), extra, pose_id, config.batch_size, config.seed)
    if config.method == "paired" and not sampler.pairs:
        raise InputError(
            f"{train.path}: no two train rows share a pose_id, which --method paired learns from; render with "
            "--appearances 2, or use --method self"
        )
    resident = images.nbytes <= RESIDENT_BYTES
    schedule = ", then ".join(f"{share:.0%} as {PHASES[phase]}" for phase, share in config.phases)
    without = f" and {extra:,} without labels" if extra else ""
    progress.note(
        f"disentangle: {len(train):,} train rows{without} ({images.nbytes / 2**20:.0f} MiB in memory), {len(val):,} "
        f"validation rows; {config.steps:,} steps of {config.batch_size} images on {device}, {schedule}"
    )
    if not len(val):
        progress.note(f"{train.path}: has no val rows; grids and measures are of train rows")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        # Built on the CPU, so that every device starts from the same weights.
        model = SelfDisentangler(len(JOINTS), train.channels, config.width)
        discriminator = Discriminator(train.channels, config.discriminator_width)
        initialise(discriminator)
        leak = None
        if config.method == "paired":
            leak = ImageDecoder(train.channels, config.width)
            initialise(leak)
    for network in (model, discriminator, *([] if leak is None else [leak])):
        network.to(fabric.device).to(memory_format=torch.channels_last)
    return _Job(
        config=config,
        fabric=fabric,
        folder=folder,
        model=model,
        discriminator=discriminator,
        leak=leak,
        optimiser=torch.optim.Adam(model.parameters(), lr=config.learning_rate),
        discriminator_optimiser=torch.optim.Adam(
            discriminator.parameters(), lr=config.discriminator_learning_rate, betas=(0.5, 0.999)
        ),
        leak_optimiser=None if leak is None else torch.optim.Adam(leak.parameters(), lr=config.learning_rate),
        sampler=sampler,
        images=images.to(fabric.device) if resident else images,
        keypoints=keypoints,
        visibility=visibility.to(fabric.device),
        validation=load_validation(val if len(val) else train),
        size=train.size,
        channels=train.channels,
        info={
            "data_checksum": train.checksum,
            "train_rows": len(train),
            **({} if more is None else {"unlabelled_checksum": more.checksum, "unlabelled_rows": extra}),
        },
    )

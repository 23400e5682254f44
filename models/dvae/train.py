"""Training a dVAE by Algorithm 1 or 2, or a cross-modal VAE by Eq. 1: setup, one step, validation.

A run is a function of the data and its config. Initial weights come from the seed; order, tags, motions and latent
noise of step t from (seed, t). Each stage has an Adam of its own over what learns in it: the noise step's gradients
are a millionth of the image's, and in one optimiser they would be lost among its moments.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from handaug.data_specs.draw import save_png
from handaug.data_specs.errors import WorkError
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.models.checkpoint import save_model
from handaug.models.dvae.api import Dvae
from handaug.models.dvae.config import STAGES, DvaeConfig, stage_at
from handaug.models.dvae.data import TrainRows, read_train_rows
from handaug.models.dvae.losses import stage_terms, total_loss
from handaug.models.dvae.measure import COLLAPSED_NATS, Rows, collapsed, kl_per_dimension, measure, read_rows
from handaug.models.dvae.model import DVAE
from handaug.models.dvae.pictures import draw_estimates, synthesis_grid
from handaug.models.fabric import one_device
from handaug.models.loop import RESIDENT_BYTES, STATE, finite_values, run_training
from handaug.models.networks import check_size
from handaug.models.run_folder import RunFolder
from handaug.models.seen import write_seen
from handaug.models.trained import KIND, Parts

__all__ = ["train_dvae"]

_ORDER, _STEP = 11, 12
"""Spawn keys of the draws."""

_VALIDATION_ROWS = 128
_SETTLED_STEPS = 100
"""Shorter runs are not judged for collapse: the encoders' batch statistics have not settled yet."""

_SHOWN = (
    "pose3d_epe_mean_mm",
    "cpose_epe_mean_mm",
    "viewpoint_mean_deg",
    "label_pose3d_epe_mean_mm",
    "image_l1",
    "synth_pose3d_epe_mean_mm",
    "pair_psnr_db",
    "copy_psnr_db",
)
"""Figures in the note of a validation."""


@dataclass
class _Job:
    """The networks, the rows in memory, and one step; only `stage` and what the modules hold change."""

    config: DvaeConfig
    fabric: Fabric
    folder: Path
    model: DVAE
    optimisers: dict[str, torch.optim.Optimizer]
    rows: TrainRows
    validation: Rows
    size: tuple[int, int]
    channels: int
    info: dict[str, Any]
    stage: str = ""
    """Whose modules are learning; empty where none are."""

    def batch_size(self, stage: str) -> int:
        """Rows per step: the config's, or all rows of a smaller pool."""
        return min(self.config.batch_size, len(self.rows.pools[stage]))

    def epoch_steps(self, stage: str) -> int:
        """Steps per epoch of a stage; the last incomplete batch is left out, another one each epoch."""
        return len(self.rows.pools[stage]) // self.batch_size(stage)

    def parts(self) -> Mapping[str, Any]:
        optimisers = {f"{stage}_optimiser": optimiser for stage, optimiser in self.optimisers.items()}
        return {"model": self.model, **optimisers}

    def train_step(self, step: int) -> dict[str, float]:
        """One step of one stage; returns its terms by name."""
        config, fabric = self.config, self.fabric
        stage, index = stage_at(config, self.epoch_steps("disentangle"), step)
        if stage != self.stage:
            self.model.enter(stage)
            self.stage = stage
        rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(_STEP, step)))
        rows = self._rows_at(stage, index)
        batch = self.rows.batch(stage, rows, rng, fabric.device)
        noise = torch.from_numpy(rng.standard_normal((len(rows), self.model.latent), np.float32)).to(fabric.device)
        with fabric.autocast():
            terms = stage_terms(self.model, stage, batch, noise, index if config.alternating else None)
        loss = total_loss(terms, config)
        values = finite_values(terms)
        optimiser = self.optimisers[stage]
        optimiser.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimiser.step()
        return values

    def _rows_at(self, stage: str, index: int) -> NDArray[np.int64]:
        """The rows of the `index`-th step of a stage: shuffled passes over its pool."""
        epoch, position = divmod(index, self.epoch_steps(stage))
        seed = np.random.SeedSequence(self.config.seed, spawn_key=(_ORDER, STAGES.index(stage), epoch))
        order = np.random.default_rng(seed).permutation(self.rows.pools[stage])
        batch = self.batch_size(stage)
        return order[position * batch : (position + 1) * batch]

    def validate(self, step: int) -> tuple[dict[str, Any], str]:
        config, model = self.config, self.trained()
        stage, _ = stage_at(config, self.epoch_steps("disentangle"), step - 1)
        measured = measure(model, self.validation, embedded=stage == "embed")
        kl = kl_per_dimension(model, self.validation)
        if stage != "embed":
            kl = {name: values for name, values in kl.items() if not name.startswith("embed/")}
        picture = synthesis_grid(model, self.validation) if model.draws_images else None
        if picture is None and stage == "embed" and "image" in config.embed:
            picture = draw_estimates(model, self.validation)
        if picture is not None:
            save_png(self.folder / "grid.png", picture)
        info = {**self.info, "step": step, "validation": measured, "kl_nats": kl}
        stored = {"kind": KIND, "config": config.to_json(), "size": list(self.size), "channels": self.channels}
        save_model(self.folder, self.model.state_dict(), {**stored, "info": info})
        active = ", ".join(
            f"KL {name} {sum(v):.3g} nats in {sum(x >= COLLAPSED_NATS for x in v)}/{len(v)} dimensions"
            for name, v in kl.items()
        )
        shown = ", ".join(f"{name} {measured[name]:.4g}" for name in _SHOWN if name in measured)
        line = f"step {step:,} ({stage}): {', '.join(filter(None, (shown, active)))}"
        return {"stage": stage, "validation": measured, "kl_nats": kl}, line

    def trained(self) -> Dvae:
        """The model as others will use it; the next step puts its modules back to learning."""
        self.model.eval()
        self.stage = ""
        return Dvae(Parts(self.model, self.config, self.size, self.channels, self.info))


def train_dvae(
    data: Path,
    out: Path,
    config: DvaeConfig,
    *,
    device: str = "cpu",
    overwrite: bool = False,
    progress: Progress = SILENT,
    triples: Path | None = None,
) -> Path:
    """Train on split 0 of a dataset.

    Args:
        data: Dataset with 3D labels. Split 1, where there is one, is drawn and measured and changes no weight.
        out: Folder to make: `model.safetensors`, `config.json`, `log.jsonl`, `grid.png`.
        config: What to train.
        device: "cpu", "cuda" or "cuda:N"; not part of the result's identity.
        overwrite: Whether a run of another configuration may be replaced.
        progress: Where to show progress.
        triples: More data whose train rows give pose triples (CPose, viewpoint, 3DPose) without their images to the
            disentangling step; dvae-pose alone.

    Returns:
        `out`.

    Raises:
        InputError: The data or `out` cannot be used.
        WorkError: A loss stopped being finite, or a factor collapsed to its prior; the last state is kept.
    """
    train = HandDataset(data, split="train")
    check_size(train.size, f"--method {config.method}")
    more = None if triples is None else HandDataset(triples, split="train")
    key: dict[str, Any] = {"config": config.to_json(), "data": train.checksum}
    if more is not None:
        key["triples"] = more.checksum
    rows = read_train_rows(train, config, more)
    run = RunFolder.open(out, key, overwrite=overwrite)
    if run is None:
        progress.note(f"{out}: is complete, nothing to do")
        return out
    with run:
        job = _setup(train, HandDataset(data, split="val"), rows, config, run.folder, device, progress)
        run_training(
            job,
            run.folder,
            steps=config.steps,
            validate_every=config.validate_every or max(1, config.steps // 10),
            label=config.method,
            progress=progress,
            keep_state=True,
        )
        _check_collapse(job)
        (run.folder / STATE).unlink()
        write_seen(run.folder, [train, *([] if more is None else [more])], None)
        return run.finish()


def _setup(
    train: HandDataset,
    val: HandDataset,
    rows: TrainRows,
    config: DvaeConfig,
    folder: Path,
    device: str,
    progress: Progress,
) -> _Job:
    """Build the networks."""
    fabric = one_device(device, config.precision)
    if not len(val):
        progress.note(f"{config.method}: no val rows; train rows are drawn and measured instead")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = DVAE(config, train.channels, train.size)
    model.to(fabric.device)
    optimisers: dict[str, torch.optim.Optimizer] = {}
    for stage in STAGES:
        weights = [p for module in model.learners(stage) for p in module.parameters()]
        if stage == "embed" or (config.method != "cross-modal" and (stage == "disentangle" or config.z_u)):
            optimisers[stage] = torch.optim.Adam(weights, lr=config.learning_rate, fused=True)
    if rows.images.nbytes <= RESIDENT_BYTES:
        rows.images = rows.images.to(fabric.device)
    job = _Job(
        config=config,
        fabric=fabric,
        folder=folder,
        model=model,
        optimisers=optimisers,
        rows=rows,
        validation=read_rows(val if len(val) else train, config.root, _VALIDATION_ROWS),
        size=train.size,
        channels=train.channels,
        info={"data_checksum": train.checksum, "train_rows": len(np.unique(rows.pools["embed"]))},
    )
    _say_what_comes(job, progress)
    return job


def _say_what_comes(job: _Job, progress: Progress) -> None:
    config = job.config
    pools = ", ".join(f"{stage} {len(np.unique(job.rows.pools[stage])):,}" for stage in job.optimisers)
    blocks = ", ".join(f"{name} {dims}" for name, dims in config.blocks)
    weights = ", ".join(f"lambda {name} {weight:g}" for name, weight in config.targets)
    parameters = sum(p.numel() for p in job.model.parameters())
    progress.note(
        f"{config.method}: {config.steps:,} steps of {config.batch_size} rows ({pools}); z: {blocks}; {weights}, "
        f"beta {config.beta:g}; {parameters / 1e6:.1f} M weights"
    )


def _check_collapse(job: _Job) -> None:
    """Refuse to call a run finished of which a factor says nothing."""
    if job.config.steps < _SETTLED_STEPS:
        return
    kl = kl_per_dimension(job.trained(), job.validation)
    if job.config.method != "cross-modal" and not job.config.embed_share:
        kl = {name: values for name, values in kl.items() if not name.startswith("embed/")}
    empty = collapsed(kl)
    if empty:
        raise WorkError(
            f"{job.folder}: {empty[0]} has collapsed: each of its {len(kl[empty[0]])} latent dimensions holds under "
            f"{COLLAPSED_NATS} nats; start again with --overwrite and a lower --set beta=..., or more --steps. Weights "
            "and log are kept there"
        )

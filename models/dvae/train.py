"""Training a dVAE by Algorithm 1 or 2, or a cross-modal VAE by Eq. 1: setup, fit, validate, to read from top to bottom.

A run is a function of the data and its config. Initial weights come from the seed; order, tags, motions and latent
noise of step t from (seed, t); so a killed run goes on where it was saved and, on one machine, ends with the same
weights. Each stage has an Adam of its own over what learns in it: the noise step's gradients are a millionth of the
image's, and in one optimiser they would be lost among its moments.
"""

import json
import time
from dataclasses import dataclass, field
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
from handaug.models.checkpoint import load_state, save_model, save_state
from handaug.models.dvae.api import Dvae
from handaug.models.dvae.config import STAGES, DvaeConfig, stage_at
from handaug.models.dvae.data import TrainRows, read_train_rows
from handaug.models.dvae.losses import stage_terms, total_loss
from handaug.models.dvae.measure import COLLAPSED_NATS, Rows, collapsed, kl_per_dimension, measure, read_rows
from handaug.models.dvae.model import DVAE
from handaug.models.dvae.pictures import draw_estimates, synthesis_grid
from handaug.models.fabric import one_device
from handaug.models.networks import check_size
from handaug.models.run_folder import RunFolder
from handaug.models.trained import KIND, Parts

__all__ = ["train_dvae"]

SAVE_SECONDS = 60.0
"""At most this much work is lost to a kill."""

_STATE = "state.pt"
_LOG = "log.jsonl"
_ORDER, _STEP = 11, 12
"""Spawn keys of the draws."""

_VALIDATION_ROWS = 128
_SETTLED_STEPS = 100
"""Shorter runs are not judged for collapse: the encoders' batch statistics have not settled yet."""

_RESIDENT_BYTES = 8 * 2**30
"""Images above this stay in the computer's memory and are copied to the GPU batch by batch."""


@dataclass
class _Job:
    """Everything `fit` needs; only `step`, `sums`, `counts` and what the modules hold change."""

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
    step: int = 0
    stage: str = ""
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def batch_size(self, stage: str) -> int:
        """Rows per step: the config's, or all rows of a smaller pool."""
        return min(self.config.batch_size, len(self.rows.pools[stage]))

    def epoch_steps(self, stage: str) -> int:
        """Steps per epoch of a stage; the last incomplete batch is left out, another one each epoch."""
        return len(self.rows.pools[stage]) // self.batch_size(stage)

    @property
    def validate_every(self) -> int:
        """Steps between validations."""
        return self.config.validate_every or max(1, self.config.steps // 10)


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
        _fit(job, progress)
        _check_collapse(job)
        (run.folder / _STATE).unlink(missing_ok=True)
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
    """Build the networks and load the saved state of an unfinished run."""
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
    if rows.images.nbytes <= _RESIDENT_BYTES:
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
        info={"data_checksum": train.checksum, "train_rows": len(rows.pools["embed"])},
    )
    _say_what_comes(job, progress)
    _resume(job, progress)
    return job


def _say_what_comes(job: _Job, progress: Progress) -> None:
    config = job.config
    pools = ", ".join(f"{stage} {len(job.rows.pools[stage]):,}" for stage in job.optimisers)
    blocks = ", ".join(f"{name} {dims}" for name, dims in config.blocks)
    weights = ", ".join(f"lambda {name} {weight:g}" for name, weight in config.targets)
    parameters = sum(p.numel() for p in job.model.parameters())
    progress.note(
        f"{config.method}: {config.steps:,} steps of {config.batch_size} rows ({pools}); z: {blocks}; {weights}, "
        f"beta {config.beta:g}; {parameters / 1e6:.1f} M weights"
    )


def _resume(job: _Job, progress: Progress) -> None:
    """Load the saved state, if any, and cut the log back to it."""
    log = job.folder / _LOG
    if not (job.folder / _STATE).exists():
        log.unlink(missing_ok=True)
        return
    state = load_state(job.folder / _STATE)
    job.model.load_state_dict(state["model"])
    for stage, optimiser in job.optimisers.items():
        optimiser.load_state_dict(state["optimisers"][stage])
    job.step = int(state["step"])
    job.sums, job.counts = dict(state["sums"]), dict(state["counts"])
    if log.exists():
        kept = [line for line in log.read_text().splitlines(keepends=True) if json.loads(line)["step"] <= job.step]
        log.write_text("".join(kept))
    progress.note(f"{job.config.method}: goes on from step {job.step:,}")


def _save(job: _Job) -> None:
    optimisers = {stage: optimiser.state_dict() for stage, optimiser in job.optimisers.items()}
    counters = {"step": job.step, "sums": job.sums, "counts": job.counts}
    save_state(job.folder / _STATE, {"model": job.model.state_dict(), "optimisers": optimisers, **counters})


def _fit(job: _Job, progress: Progress) -> None:
    """Run the steps that are left; validate, log, draw and save on the way."""
    saved_at = time.monotonic()
    with progress.task(job.config.method, total=job.config.steps, unit="steps") as advance:
        advance(job.step)
        while job.step < job.config.steps:
            for name, value in _train_step(job).items():
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


def _rows_at(job: _Job, stage: str, index: int) -> NDArray[np.int64]:
    """The rows of the `index`-th step of a stage: shuffled passes over its pool."""
    epoch, position = divmod(index, job.epoch_steps(stage))
    seed = np.random.SeedSequence(job.config.seed, spawn_key=(_ORDER, STAGES.index(stage), epoch))
    order = np.random.default_rng(seed).permutation(job.rows.pools[stage])
    batch = job.batch_size(stage)
    return order[position * batch : (position + 1) * batch]


def _train_step(job: _Job) -> dict[str, float]:
    """One step of one stage; returns its terms by name."""
    config = job.config
    stage, index = stage_at(config, job.epoch_steps("disentangle"), job.step)
    if stage != job.stage:
        job.model.enter(stage)
        job.stage = stage
    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(_STEP, job.step)))
    rows = _rows_at(job, stage, index)
    batch = job.rows.batch(stage, rows, rng, job.fabric.device)
    noise = torch.from_numpy(rng.standard_normal((len(rows), job.model.latent), np.float32)).to(job.fabric.device)
    with job.fabric.autocast():
        terms = stage_terms(job.model, stage, batch, noise, index if config.alternating else None)
    loss = total_loss(terms, config)
    # One transfer for all terms, and before the optimiser moves: a bad step leaves the last good weights.
    values = dict(zip(terms, torch.stack([term.detach().float() for term in terms.values()]).tolist(), strict=True))
    _check_finite(job, values)
    optimiser = job.optimisers[stage]
    optimiser.zero_grad(set_to_none=True)
    job.fabric.backward(loss)
    optimiser.step()
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
    config = job.config
    job.model.eval()
    model = Dvae(Parts(job.model, config, job.size, job.channels, job.info))
    stage, _ = stage_at(config, job.epoch_steps("disentangle"), job.step - 1)
    measured = measure(model, job.validation, embedded=stage == "embed")
    kl = kl_per_dimension(model, job.validation)
    if stage != "embed":
        kl = {name: values for name, values in kl.items() if not name.startswith("embed/")}
    means = {name: job.sums[name] / job.counts[name] for name in sorted(job.sums)}
    job.sums, job.counts = {}, {}
    line = {"step": job.step, "stage": stage, "train": means, "validation": measured, "kl_nats": kl}
    with open(job.folder / _LOG, "a") as log:
        log.write(json.dumps(line) + "\n")
    picture = synthesis_grid(model, job.validation) if model.draws_images else None
    if picture is None and stage == "embed" and "image" in config.embed:
        picture = draw_estimates(model, job.validation)
    if picture is not None:
        save_png(job.folder / "grid.png", picture)
    info = {**job.info, "step": job.step, "validation": measured, "kl_nats": kl}
    stored = {
        "kind": KIND,
        "config": config.to_json(),
        "size": list(job.size),
        "channels": job.channels,
        "info": info,
    }
    save_model(job.folder, job.model.state_dict(), stored)
    active = ", ".join(
        f"KL {name} {sum(v):.3g} nats in {sum(x >= COLLAPSED_NATS for x in v)}/{len(v)} dimensions"
        for name, v in kl.items()
    )
    shown = ", ".join(f"{name} {measured[name]:.4g}" for name in _SHOWN if name in measured)
    progress.note(f"step {job.step:,} ({stage}): {', '.join(filter(None, (shown, active)))}")
    job.stage = ""  # the next step puts modules back to learning


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


def _check_collapse(job: _Job) -> None:
    """Refuse to call a run finished of which a factor says nothing."""
    if job.config.steps < _SETTLED_STEPS:
        return
    job.model.eval()
    model = Dvae(Parts(job.model, job.config, job.size, job.channels, job.info))
    kl = kl_per_dimension(model, job.validation)
    if job.config.method != "cross-modal" and not job.config.embed_share:
        kl = {name: values for name, values in kl.items() if not name.startswith("embed/")}
    empty = collapsed(kl)
    if empty:
        raise WorkError(
            f"{job.folder}: {empty[0]} has collapsed: each of its {len(kl[empty[0]])} latent dimensions holds under "
            f"{COLLAPSED_NATS} nats; start again with --overwrite and a lower --set beta=..., or more --steps. Weights "
            "and log are kept there"
        )

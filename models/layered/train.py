"""Training handaug's own disentangler: setup, one step, validation."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handaug.data_specs.draw import save_png
from handaug.data_specs.errors import InputError
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import HIDDEN, MASK_BACKGROUND
from handaug.models.checkpoint import save_model
from handaug.models.disentangle.validation import draw_grid, load_validation, validate
from handaug.models.fabric import one_device
from handaug.models.layered.api import LayeredDisentangler
from handaug.models.layered.config import LayeredConfig
from handaug.models.layered.losses import mix_terms, total_loss
from handaug.models.layered.networks import LayeredNet
from handaug.models.layered.pairs import WalkSampler
from handaug.models.loop import RESIDENT_BYTES, finite_values, run_training
from handaug.models.networks import check_size
from handaug.models.run_folder import RunFolder
from handaug.models.seen import write_seen
from handaug.models.trained import KIND, Parts

__all__ = ["train_layered"]

_NETWORK = 2
"""Raised when the same configuration trains another network, so that an older run is not taken for it. 2: no geometry
off the hand."""
_BATCH = 31
"""Spawn key of the batches."""


def train_layered(
    data: Path,
    out: Path,
    config: LayeredConfig,
    *,
    device: str = "cpu",
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Path:
    """Train on split 0 of a dataset of pairs.

    Args:
        data: Dataset whose rows share poses and appearances, with masks: what `handaug render` writes. Split 1, where
            there is one, is drawn and measured and changes no weight.
        out: Folder to make: `model.safetensors`, `config.json`, `log.jsonl`, `grid.png`.
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
    missing = [name for name in ("mask", "pose_id", "appearance_id") if not train.has(name)]
    if missing:
        raise InputError(f"{data}: has no {missing[0]}, which --method {config.method} learns from; use --method self")
    if not (train.read("visibility") > 0).any():
        raise InputError(f"{data}: none of its train rows is labelled; give labelled data")
    sampler = WalkSampler(train.read("pose_id"), train.read("appearance_id"))
    if not len(sampler.targets):
        raise InputError(
            f"{data}: no train row shares its pose with one row and its appearance with another, as --method "
            f"{config.method} needs; render with --appearances 2 and a smaller --appearance-pool, or use --method self"
        )
    key = {"config": config.to_json(), "data": train.checksum, "network": _NETWORK}
    run = RunFolder.open(out, key, overwrite=overwrite)
    if run is None:
        progress.note(f"{out}: is complete, nothing to do")
        return out
    with run:
        progress.note(
            f"disentangle: {len(train):,} train rows, {len(sampler.targets):,} of them the true render of a mix; "
            f"{config.steps:,} steps of {config.batch_size} images on {device}"
        )
        trainee = _Trainee(train, HandDataset(data, split="val"), sampler, config, run.folder, device)
        every = config.validate_every or max(1, config.steps // 10)
        run_training(
            trainee, run.folder, steps=config.steps, validate_every=every, label="disentangle", progress=progress
        )
        write_seen(run.folder, [train], None)
        return run.finish()


class _Trainee:
    """The networks, the rows in memory, and one step."""

    def __init__(
        self,
        train: HandDataset,
        val: HandDataset,
        sampler: WalkSampler,
        config: LayeredConfig,
        folder: Path,
        device: str,
    ) -> None:
        self.config, self.folder, self.sampler = config, folder, sampler
        self.size, self.channels = train.size, train.channels
        self.info = {"data_checksum": train.checksum, "train_rows": len(train)}
        self.fabric = one_device(device, config.precision)
        images = torch.from_numpy(train.read("images")).permute(0, 3, 1, 2).contiguous()
        inside = torch.from_numpy(train.read("mask") != MASK_BACKGROUND)
        resident = images.nbytes + inside.nbytes <= RESIDENT_BYTES
        self.images, self.inside = (
            part.to(self.fabric.device) if resident else part for part in (images, inside[:, None])
        )
        keypoints = torch.from_numpy(train.read("keypoints_2d")).to(self.fabric.device)
        seen = torch.from_numpy(train.read("visibility")).to(self.fabric.device) >= HIDDEN
        self.labelled = (seen & torch.isfinite(keypoints).all(-1)).float()
        self.keypoints = torch.nan_to_num(keypoints)
        self.validation = load_validation(val if len(val) else train)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            # Built on the CPU, so that every device starts from the same weights.
            self.model = LayeredNet(train.channels, config.width, config.geometry, config.style)
        self.model.to(self.fabric.device).to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=1e-4, fused=True
        )

    def parts(self) -> Mapping[str, Any]:
        return {"model": self.model, "optimiser": self.optimiser}

    def train_step(self, step: int) -> dict[str, float]:
        rng = np.random.default_rng(np.random.SeedSequence(self.config.seed, spawn_key=(_BATCH, step)))
        images, inside, keypoints, labelled, triples = self._batch(rng)
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * _schedule(step, self.config.steps)
        with self.fabric.autocast():
            terms = mix_terms(self.model, images, inside, keypoints, labelled, triples)
        loss = total_loss(terms, self.config)
        values = finite_values(terms)
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return values

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        drawn, triples = self.sampler.batch(rng, self.config.batch_size)
        rows = torch.from_numpy(drawn)
        source = rows.to(self.images.device)
        images = self.fabric.to_device(self.images[source]).float() / 255.0
        inside = self.fabric.to_device(self.inside[source]).float()
        rows = rows.to(self.fabric.device)
        keypoints, labelled = self.keypoints[rows], self.labelled[rows]
        if rng.random() < 0.5:  # a mirrored scene is a scene: light, hand and background turn together
            images, inside = images.flip(3), inside.flip(3)
            keypoints = torch.stack([self.size[1] - 1 - keypoints[..., 0], keypoints[..., 1]], dim=-1)
        images = images.contiguous(memory_format=torch.channels_last)
        return images, inside, keypoints, labelled, torch.from_numpy(triples).to(self.fabric.device)

    def validate(self, step: int) -> tuple[dict[str, Any], str]:
        self.model.eval()
        model = LayeredDisentangler(Parts(self.model, self.config, self.size, self.channels, self.info))
        measured = validate(model, self.validation)
        save_png(self.folder / "grid.png", draw_grid(model, self.validation))
        info = {**self.info, "step": step, "validation": measured}
        stored = {"kind": KIND, "config": self.config.to_json(), "size": list(self.size), "channels": self.channels}
        save_model(self.folder, self.model.state_dict(), {**stored, "info": info})
        self.model.train()
        line = ", ".join(f"{name} {value:.4g}" for name, value in measured.items())
        return {"validation": measured}, f"step {step:,}: {line}"


def _schedule(step: int, steps: int) -> float:
    """Share of the highest learning rate at `step` (from 0)."""
    warm_up = max(1, steps // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return 0.01 + 0.99 * (1.0 + math.cos(math.pi * done)) / 2.0

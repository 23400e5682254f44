"""Configuration of a disentanglement run, and defaults sized for the device and the data."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from handaug.data_specs.errors import InputError
from handaug.models.fabric import check_precision

__all__ = ["METHODS", "PAIRED", "PHASES", "DisentangleConfig", "default_config"]

METHODS = ("self", "autoencoder", "paired")
"""Methods of this package: self-disentanglement, and the two baselines of section 4.4."""

PHASES = {
    1: "baseline pose estimator",
    2: "pose estimator + image reconstruction",
    3: "self-disentanglement",
    4: "self-disentanglement, resumed",
    5: "resumed, the pose estimator also learns from mixed images",
    6: "resumed, and image losses reach the pose code",
    7: "disentanglement by pairs of one pose",
}
"""1 to 6 are the models of Table 4 of Li et al. 2019; 4 trains exactly as 3 and names its continuation. 7 is the
paired-data baseline of section 4.4."""

PAIRED = 7
"""The phase that needs pairs of rows of one pose."""

_ALLOWED = {"self": (1, 2, 3, 4, 5, 6), "autoencoder": (1, 2), "paired": (1, PAIRED)}
"""Phases of each method; the autoencoder of section 4.4 is model 2, whatever it learned first."""


@dataclass(frozen=True)
class DisentangleConfig:
    """What determines a run, together with the data.

    The paper gives no loss weight, no heatmap sigma, no width and no discriminator. The values here are starting
    points, of which only the weight of the places was compared on renders. The loss terms are scaled
    so that each is about 1 where nothing has been learned (see `losses`), so the weights compare like with like.
    """

    method: str = "self"
    """Which objective; one of `METHODS`."""
    steps: int = 1000
    """Optimiser steps in all."""
    batch_size: int = 128
    """Images per step, an even number: each image is x once and y once, so a batch holds batch_size / 2 pairs, mixed
    both ways. 128 is the paper's."""
    phases: tuple[tuple[int, float], ...] = ((3, 0.5), (6, 0.5))
    """`PHASES` in the order they are run, each with its share of the steps: 3, then as long again 6."""
    width: int = 32
    """Channels at full resolution; level k has width * 2**k."""
    learning_rate: float = 1e-3
    """Adam, fixed (section 4.2)."""
    sigma: float = 2.5
    """Standard deviation of the heatmaps in pixels of a 64 pixel image; scales with the shorter side."""
    alpha_place: float = 1.0
    """Weight of the cross-entropy of each joint's place, in nats, beside Eq. 1; ours, see `losses`."""
    alpha_cycle_place: float = 1.0
    """The same beside Eq. 6, for the joints of mixed images."""
    alpha_image: float = 1.0
    """Weight of the image reconstruction (alpha 1 of Eq. 7)."""
    alpha_discriminator: float = 1.0
    """Weight of the discriminator's own loss (alpha 2); its Adam is separate and invariant to it, up to epsilon."""
    alpha_gan: float = 0.02
    """Weight of the generator's adversarial loss (alpha 3); 0 trains without a discriminator."""
    alpha_cycle_image: float = 1.0
    """Weight of the images decoded after the cycle (alpha 4)."""
    alpha_dual_pose: float = 0.1
    """Weight of the pose code's consistency (alpha 5)."""
    alpha_dual_appearance: float = 0.1
    """Weight of the appearance code's consistency (alpha 6)."""
    alpha_cycle_pose: float = 1.0
    """Weight of the heatmaps of mixed images (alpha 7)."""
    alpha_cross: float = 1.0
    """Phase 7: weight of each image decoded with the pose code of the other image of its pair."""
    alpha_reversal: float = 0.2
    """Phase 7: weight of the reversed gradient that takes out of the appearance code what both images share."""
    discriminator_width: int = 32
    """Channels of the discriminator's first layer."""
    discriminator_learning_rate: float = 2e-4
    """Adam with betas (0.5, 0.999), fixed."""
    precision: str = "32-true"
    """One of `fabric.PRECISIONS`; bf16-mixed is for GPUs that have it."""
    seed: int = 0
    """Initial weights and order of the data."""
    validate_every: int = 0
    """Steps between validations with their picture and saved state; 0 for once each epoch."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"--method {self.method}: choose one of {', '.join(METHODS)}")
        _at_least("--steps", self.steps, 1)
        _at_least("--width", self.width, 1)
        _at_least("--seed", self.seed, 0)
        if self.batch_size < 2 or self.batch_size % 2:
            raise InputError(f"--batch-size {self.batch_size}: must be an even number, as images are mixed in pairs")
        check_precision(self.precision)
        allowed = _ALLOWED[self.method]
        if not self.phases or any(phase not in allowed or not share > 0 for phase, share in self.phases):
            raise InputError(
                f"--phase: --method {self.method} takes {', '.join(map(str, allowed))}, with shares above 0, such as "
                f"--phase {allowed[0]}:0.5 --phase {allowed[-1]}:0.5"
            )
        if abs(sum(share for _, share in self.phases) - 1.0) > 1e-6:
            raise InputError("--phase: the shares must add up to 1, such as 3:0.5,6:0.5")
        for name in ("sigma", "learning_rate", "discriminator_learning_rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} {getattr(self, name)}: must be above 0")
        for field in dataclasses.fields(self):
            if field.name.startswith("alpha_") and not getattr(self, field.name) >= 0:
                raise InputError(f"{field.name} {getattr(self, field.name)}: must be 0 or more")

    def phase_at(self, step: int) -> int:
        """The model of Table 4 that step `step` (from 0) trains as."""
        end = 0.0
        for phase, share in self.phases:
            end += share
            if step < round(end * self.steps):
                return phase
        return self.phases[-1][0]

    def to_json(self) -> dict[str, Any]:
        """A mapping of plain JSON values, equal for equal configs."""
        return {**dataclasses.asdict(self), "phases": [list(phase) for phase in self.phases]}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "DisentangleConfig":
        """The inverse of `to_json`; unknown keys raise TypeError."""
        phases = tuple((int(phase), float(share)) for phase, share in stored["phases"])
        return cls(**{**stored, "phases": phases})


def _at_least(flag: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{flag} {value}: must be at least {least}")


def default_config(rows: int, size: tuple[int, int], device: str, method: str = "self") -> DisentangleConfig:
    """The configuration of a bare `handaug disentangle`.

    Args:
        rows: Training rows.
        size: Image height and width in pixels.
        device: "cpu" or a CUDA device.
        method: One of `METHODS`.

    Returns:
        On a GPU the paper's: batch 128, 75 epochs of model 3 and 75 of model 6. On a CPU a narrower network and as
        many steps as two cores do in about ten minutes; most of them train the pose estimator alone, because one such
        step costs a quarter of a whole one and mixing is worth nothing before poses are known. The baselines take as
        many steps, and their own phase in place of 3 and 6.
    """
    if method not in METHODS:
        raise InputError(f"--method {method}: choose one of {', '.join(METHODS)}")
    last = _ALLOWED[method][-1]
    phases: tuple[tuple[int, float], ...]
    if device == "cpu":
        # One step of 32 images of 64 x 64 at width 8 takes 0.07 s on two cores as model 1, 0.3 s as model 3 or 6.
        steps = round(3200 * 64 * 64 / (size[0] * size[1]))
        phases = ((1, 0.55), (3, 0.27), (6, 0.18)) if method == "self" else ((1, 0.55), (last, 0.45))
        # A small set is learned in fewer steps: no more than 75 + 75 epochs.
        steps = max(1, min(steps, 150 * rows // 32))
        return DisentangleConfig(method=method, steps=steps, batch_size=32, width=8, phases=phases)
    phases = ((3, 0.5), (6, 0.5)) if method == "self" else ((last, 1.0),)
    steps = max(2000, 150 * rows // 128)
    return DisentangleConfig(
        method=method, steps=steps, batch_size=128, width=64, phases=phases, precision="bf16-mixed"
    )

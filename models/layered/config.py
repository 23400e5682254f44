"""Configuration of a run of handaug's own disentangler, and defaults sized for the device."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from handaug.data_specs.errors import InputError
from handaug.models.fabric import check_precision

__all__ = ["METHOD", "LayeredConfig", "default_layered_config"]

METHOD = "handaug"
"""Its name on the command line."""


@dataclass(frozen=True)
class LayeredConfig:
    """What determines a run, together with the data. The weights belong to the terms of `losses`."""

    method: str = METHOD
    """Always `METHOD`."""
    steps: int = 1500
    """Optimiser steps in all."""
    batch_size: int = 32
    """Rows per step; each row inside a walk is the target of one mix (see `pairs`)."""
    width: int = 32
    """Channels of the U-Net at half resolution."""
    geometry: int = 12
    """Channels of the pose code per pixel, beside the mask."""
    style: int = 64
    """Numbers of the appearance code beside the plate and the light."""
    learning_rate: float = 2e-3
    """Highest rate of AdamW: a warm-up over 5 % of the steps, then a cosine to 1 % of it."""
    alpha_image: float = 1.0
    """Weight of the composed image."""
    alpha_hand: float = 1.0
    """Weight of the hand layer inside the true mask."""
    alpha_light: float = 1.0
    """Weight of the hand layer as the fitted light alone draws it."""
    alpha_edge: float = 1.0
    """Weight of the differences between neighbouring pixels of the hand layer."""
    alpha_plate: float = 1.0
    """Weight of the background plate outside the true mask."""
    alpha_mask: float = 1.0
    """Weight of the mask's cross-entropy."""
    alpha_same: float = 0.3
    """Weight of the difference between the pose codes of one pose in two appearances."""
    alpha_shade: float = 1.0
    """Weight of what no light explains of one appearance on the geometry code of the other."""
    alpha_place: float = 0.05
    """Weight of the joints' places."""
    precision: str = "32-true"
    """One of `fabric.PRECISIONS`."""
    seed: int = 0
    """Initial weights and batches."""
    validate_every: int = 0
    """Steps between validations with their picture; 0 for ten in all."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("width", 8), ("geometry", 1), ("style", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} {getattr(self, name)}: must be at least {least}")
        if self.width % 8:
            raise InputError(f"--width {self.width}: must be a multiple of 8")
        if self.batch_size < 4:
            raise InputError(f"--batch-size {self.batch_size}: must be at least 4, as rows learn from their neighbours")
        check_precision(self.precision)
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate {self.learning_rate}: must be above 0")
        for field in dataclasses.fields(self):
            if field.name.startswith("alpha_") and not getattr(self, field.name) >= 0:
                raise InputError(f"{field.name} {getattr(self, field.name)}: must be 0 or more")

    def to_json(self) -> dict[str, Any]:
        """A mapping of plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "LayeredConfig":
        """The inverse of `to_json`; unknown keys raise TypeError."""
        return cls(**stored)


def default_layered_config(method: str, rows: int, size: tuple[int, int], device: str) -> LayeredConfig:
    """The configuration of a bare `handaug disentangle`.

    Args:
        method: `METHOD`.
        rows: Training rows.
        size: Image height and width in pixels.
        device: "cpu" or a CUDA device.

    Returns:
        On a CPU as many steps as two cores do in seven minutes to sixteen; on a GPU twice the width and 200 epochs.
    """
    if device == "cpu":
        # A small set is learned in fewer steps: no more than 150 epochs.
        steps = min(round(1500 * 64 * 64 / (size[0] * size[1])), 150 * rows // 32)
        return LayeredConfig(method=method, steps=max(1, steps))
    steps = max(4000, 200 * rows // 128)
    return LayeredConfig(method=method, steps=steps, batch_size=128, width=64, precision="bf16-mixed")

"""What tests of the dVAE share: small configurations and runs, the size of their toy images and the device."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from handaug.models.dvae.config import METHODS, DvaeConfig, default_dvae_config
from handaug.models.dvae.train import train_dvae

__all__ = ["CPU", "RESUMED", "SIZE", "resumable", "tiny", "train_all"]

SIZE = 32
CPU = torch.device("cpu")
RESUMED = ("dvae-zu", "dvae-pose")
"""Methods whose runs tests interrupt."""


def tiny(method: str, **changes: Any) -> DvaeConfig:
    """A configuration that trains in a second."""
    config = default_dvae_config(method, 34, (SIZE, SIZE), "cpu")
    if method == "dvae-pose":
        config = replace(config, factors=(("cpose", 6), ("viewpoint", 5)))
    elif method == "dvae":
        config = replace(config, factors=(("placed_pose", 6), ("content", 5)))
    elif method == "dvae-zu":
        config = replace(config, factors=(("placed_pose", 6),), z_u=5)
    return replace(config, **{"width": 2, "steps": 6, "batch_size": 6, "validate_every": 6, **changes})


def resumable(method: str) -> DvaeConfig:
    """Two validations, and so a state to go on from, where a test interrupts the run."""
    return tiny(method, validate_every=3 if method in RESUMED else 6)


def train_all(data: Path, folder: Path) -> dict[str, Path]:
    """A run of every method."""
    return {method: train_dvae(data, folder / method, resumable(method)) for method in METHODS}

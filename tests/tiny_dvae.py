"""What tests of the dVAE share: small configurations, the size of their toy images and the device."""

from dataclasses import replace
from typing import Any

import torch

from handaug.models.dvae.config import DvaeConfig, default_dvae_config

__all__ = ["CPU", "SIZE", "tiny"]

SIZE = 32
CPU = torch.device("cpu")


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

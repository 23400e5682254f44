"""Disentanglement of pose and appearance: Li et al. 2019, trained without paired images.

The configuration is plain data; what needs torch is imported when it is first asked for, so that `handaug disentangle
--help` answers at once.
"""

from typing import TYPE_CHECKING, Any

from handaug.models.disentangle.config import METHODS, PHASES, DisentangleConfig, default_config

if TYPE_CHECKING:
    from handaug.models.disentangle.api import Disentangler, load_disentangler
    from handaug.models.disentangle.train import train_disentangler

__all__ = [
    "METHODS",
    "PHASES",
    "DisentangleConfig",
    "Disentangler",
    "default_config",
    "load_disentangler",
    "train_disentangler",
]


def __getattr__(name: str) -> Any:
    if name in ("Disentangler", "load_disentangler"):
        from handaug.models.disentangle import api

        return getattr(api, name)
    if name == "train_disentangler":
        from handaug.models.disentangle.train import train_disentangler

        return train_disentangler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

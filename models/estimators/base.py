"""What every pose estimator is, the registry, and their checkpoints.

An estimator takes images and gives its own kind of output; `keypoints` reads places from that output and `loss`
compares it with labels. Joints with visibility 0 or NaN coordinates take no part in any loss. Estimators from outside
(`handaug.models.estimators.plugins`) follow the same protocol, written down in `docs/estimators.md`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from handaug.data_specs.errors import InputError
from handaug.data_specs.schema import HIDDEN
from handaug.models.checkpoint import load_model, load_weights, save_model
from handaug.models.estimators.plugins import build_outside, entry_point_names, is_factory

__all__ = [
    "KIND",
    "Estimator",
    "build_estimator",
    "estimator_names",
    "labelled_joints",
    "load_estimator",
    "register_estimator",
    "save_estimator",
]

KIND = "estimator"
"""The `kind` in the config of their checkpoints."""


class Estimator(nn.Module, ABC):
    """A pose estimator; 2D always, and root-relative 3D where `dimensions` is 3.

    Args:
        size: Image height and width in pixels.
        channels: Image channels, 1 or 3.
        settings: Further constructor arguments, kept for the checkpoint.
    """

    name: str
    """Its name in the registry."""
    dimensions: int = 2
    """2, or 3 where it also estimates root-relative 3D: then `loss` gets `keypoints_3d` and the method of that name
    exists."""
    readout_in_graph: bool = True
    """Whether `keypoints` can be part of an exported graph; otherwise the export ends with the output of `forward`."""

    def __init__(self, size: tuple[int, int], channels: int, **settings: Any) -> None:
        super().__init__()
        self.size = size
        self.channels = channels
        self.settings = settings

    @abstractmethod
    def forward(self, images: Tensor) -> Any:
        """Images (N, C, H, W) float in [0, 1] -> output for `loss` and `keypoints`."""

    @abstractmethod
    def loss(
        self,
        output: Any,
        keypoints: Tensor,
        visibility: Tensor,
        weights: Tensor | None = None,
        keypoints_3d: Tensor | None = None,
    ) -> Tensor:
        """Compare output with labels.

        Args:
            output: Of `forward`.
            keypoints: (N, 21, 2) pixels; anything, NaN too, where visibility is 0.
            visibility: (N, 21), 0 not labelled.
            weights: (N,) weight of each sample, all 1 by default.
            keypoints_3d: (N, 21, 3) metres, camera frame, relative to the wrist; given where `dimensions` is 3.

        Returns:
            Scalar; 0 without any labelled joint.
        """

    @abstractmethod
    def keypoints(self, output: Any) -> Tensor:
        """Output -> places (N, 21, 2) float32 in pixels."""

    def keypoints_3d(self, output: Any) -> Tensor:
        """Output -> places (N, 21, 3) float32 in metres, camera frame, relative to the wrist; `dimensions` 3 only."""
        raise NotImplementedError(f"{type(self).__name__} estimates 2D only")


_REGISTRY: dict[str, Callable[..., Estimator]] = {}


def register_estimator(name: str) -> Callable[[type[Estimator]], type[Estimator]]:
    """Class decorator that makes an estimator known by `name`.

    Raises:
        ValueError: The name is taken.
    """

    def register(cls: type[Estimator]) -> type[Estimator]:
        if name in _REGISTRY:
            raise ValueError(f"an estimator named {name!r} is registered already")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return register


def estimator_names() -> tuple[str, ...]:
    """Names of all registered estimators, sorted; those of installed packages are `plugins.entry_point_names()`."""
    return tuple(sorted(_REGISTRY))


def build_estimator(name: str, *, size: tuple[int, int], channels: int, **settings: Any) -> Estimator:
    """Make an estimator with random weights, drawn from torch's global generator.

    Args:
        name: One of `estimator_names()`, the name of an entry point, or module:factory.
        size: Image height and width in pixels.
        channels: Image channels, 1 or 3.
        settings: Further arguments of a registered estimator.

    Raises:
        InputError: There is no such estimator, it cannot take this size or setting, or it breaks the protocol.
    """
    if name not in _REGISTRY:
        outside = build_outside(name, size=size, channels=channels)
        if outside is None:
            known = ", ".join((*estimator_names(), *entry_point_names()))
            raise InputError(f"--estimator {name}: choose one of {known}, or module:factory of your own")
        if any(weight.dim() == 5 for weight in outside.parameters()):  # of volumes, which have no such layout
            return outside
        return outside.to(memory_format=torch.channels_last)
    try:
        return _build_registered(name, size, channels, settings)
    except TypeError as error:  # an unknown setting
        raise InputError(f"--estimator {name}: {error}; leave the setting out") from error


def _build_registered(name: str, size: tuple[int, int], channels: int, settings: Mapping[str, Any]) -> Estimator:
    return _REGISTRY[name](size, channels, **settings).to(memory_format=torch.channels_last)


def labelled_joints(keypoints: Tensor, visibility: Tensor, weights: Tensor | None) -> Tensor:
    """Weight of each joint in a loss, (N, 21) float32: 0 where it has no label, else its sample's weight."""
    labelled = ((visibility >= HIDDEN) & torch.isfinite(keypoints).all(-1)).float()
    return labelled if weights is None else labelled * weights.float()[:, None]


def save_estimator(folder: Path, estimator: Estimator, info: Mapping[str, Any]) -> None:
    """Write an estimator's checkpoint; `info` is JSON-able and comes back from `load_estimator`.

    One from outside is stored with the name of its factory or entry point, which loading calls again.
    """
    config = {
        "kind": KIND,
        "estimator": estimator.name,
        "size": list(estimator.size),
        "channels": estimator.channels,
        "settings": estimator.settings,
        "info": dict(info),
    }
    save_model(folder, estimator.state_dict(), config)


def load_estimator(
    folder: Path | str, device: str = "cpu", *, trust: str | None = None, flag: str = "--estimator"
) -> tuple[Estimator, dict[str, Any]]:
    """Read a checkpoint of `save_estimator`.

    Args:
        folder: The checkpoint.
        device: Where to put it.
        trust: The module:factory that may be imported, where the checkpoint names one. A checkpoint may come from a
            stranger, so a name in it is never imported on its own word.
        flag: The option that gives `trust`, for the message.

    Returns:
        The estimator in evaluation mode on `device`, and its info.

    Raises:
        InputError: The folder is missing, damaged, or holds something else; the message names the file.
    """
    folder = Path(folder)
    tensors, config = load_model(folder, KIND)
    try:
        size = (int(config["size"][0]), int(config["size"][1]))
        name, channels = str(config["estimator"]), int(config["channels"])
        settings, info = dict(config.get("settings", {})), dict(config.get("info", {}))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{folder}/config.json: is damaged ({error}); train the estimator again") from error
    if is_factory(name) and trust != name:
        raise InputError(f"{folder}: was made by {name}; if you trust that code, give {flag} {name}")
    if not is_factory(name) and name not in (*_REGISTRY, *entry_point_names()):
        raise InputError(f"{folder}: holds estimator {name!r}, this handaug knows {', '.join(estimator_names())}")
    try:
        if name in _REGISTRY:
            estimator = _build_registered(name, size, channels, settings)
        else:
            estimator = build_estimator(name, size=size, channels=channels, **settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"{folder}/config.json: is damaged ({error}); train the estimator again") from error
    load_weights(estimator, tensors, folder)
    return estimator.to(device).eval(), info

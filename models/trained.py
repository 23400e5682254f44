"""What every trained disentangler has in common: its settings, its images, and how its checkpoint is read."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from handaug.data_specs.errors import InputError
from handaug.models.checkpoint import WEIGHTS, load_model, load_weights

__all__ = ["KIND", "Parts", "TrainedDisentangler", "load_parts"]

KIND = "disentangler"
"""The `kind` in the config of the checkpoints of every method."""


class _Config(Protocol):
    @property
    def method(self) -> str:
        """The method it configures."""


Model = TypeVar("Model", bound=nn.Module)
Config = TypeVar("Config", bound=_Config)


@dataclass(frozen=True)
class Parts(Generic[Model, Config]):
    """A trained disentangler as a checkpoint holds it."""

    model: Model
    """The networks, on their device, in evaluation mode."""
    config: Config
    """Of the run."""
    size: tuple[int, int]
    """Image height and width in pixels."""
    channels: int
    """Image channels."""
    info: dict[str, Any]
    """What is known of the training: `data_checksum`, `train_rows`, `step`, `validation`."""


class TrainedDisentangler(Generic[Model, Config]):
    """The networks of a run with what is known of them; subclasses encode and decode.

    Args:
        parts: The networks and their settings.
    """

    def __init__(self, parts: Parts[Model, Config]) -> None:
        self.model = parts.model
        self.config = parts.config
        self.size = parts.size
        self.channels = parts.channels
        self.info = parts.info
        self.device = next(parts.model.parameters()).device

    @property
    def method(self) -> str:
        """The method that trained it."""
        return self.config.method

    def _prepare(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) on the model's device.

        Raises:
            ValueError: They are of another size or number of channels.
        """
        if tuple(images.shape[1:]) != (self.channels, *self.size):
            wanted = (self.channels, *self.size)
            raise ValueError(f"images are {tuple(images.shape[1:])}, the model takes {wanted} (C, H, W)")
        return images.to(self.device)


def load_parts(
    folder: Path | str,
    device: str,
    *,
    methods: Collection[str],
    read_config: Callable[[dict[str, Any]], Config],
    build: Callable[[Config, int, tuple[int, int]], Model],
) -> Parts[Model, Config]:
    """Read the checkpoint of a finished run.

    Args:
        folder: Written by `handaug disentangle`.
        device: Where to compute.
        methods: Those that the caller knows.
        read_config: JSON -> configuration.
        build: (configuration, channels, (H, W)) -> networks, whose weights are then replaced.

    Raises:
        InputError: The folder is missing, damaged, or holds something else; the message names the file.
    """
    folder = Path(folder)
    tensors, stored = load_model(folder, KIND)
    settings = stored.get("config")
    method = settings.get("method") if isinstance(settings, dict) else None
    if method not in methods:
        raise InputError(f"{folder}: was trained by method {method!r}; give a run of {', '.join(methods)}")
    try:
        config = read_config(stored["config"])
        size = (int(stored["size"][0]), int(stored["size"][1]))
        channels, info = int(stored["channels"]), dict(stored["info"])
        model = build(config, channels, size)
    except InputError as error:  # a value out of range, which names no file
        raise InputError(f"{folder}/config.json: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{folder}/config.json: is damaged ({error}); train the disentangler again") from error
    load_weights(model, tensors, folder)
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise InputError(f"{folder / WEIGHTS}: holds weights that are not finite; train the disentangler again")
    model.to(device).eval().requires_grad_(False)
    return Parts(model, config, size, channels, info)

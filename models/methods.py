"""The methods of `handaug disentangle`, in one place: how each is configured, trained and loaded.

A method is a configuration type, a training function and a loader. They are named by text and imported when they are
first used, so that listing the methods costs nothing.
"""

import dataclasses
import importlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Protocol, get_args, get_origin, get_type_hints

from handaug.data_specs.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from handaug.data_specs.progress import Progress
    from handaug.data_specs.reader import HandDataset

__all__ = [
    "METHODS",
    "Method",
    "best_method",
    "PoseAppearanceModel",
    "PoseReader",
    "change_config",
    "load_run",
    "method_named",
    "method_of_run",
    "resolve",
    "train_method",
    "self_config",
]

_CONFIG = "config.json"


class PoseAppearanceModel(Protocol):
    """What `remix`, `walk` and `transfer` ask of a trained model. No method keeps gradients."""

    size: tuple[int, int]
    """Image height and width in pixels."""
    channels: int
    """Image channels."""
    info: dict[str, Any]
    """What is known of the training: `data_checksum`, `train_rows`, `step`, `validation`."""
    device: "torch.device"
    """Where it computes."""

    @property
    def method(self) -> str:
        """The method that trained it."""

    def encode_pose(self, images: "Tensor") -> "Tensor":
        """Images (N, C, H, W) float in [0, 1] -> pose codes, first axis N."""

    def encode_appearance(self, images: "Tensor") -> "Tensor":
        """Images (N, C, H, W) float in [0, 1] -> appearance codes, first axis N."""

    def decode(self, pose: "Tensor", appearance: "Tensor") -> "Tensor":
        """Codes of the same N -> images (N, C, H, W) float32 in [0, 1]."""


class PoseReader(PoseAppearanceModel, Protocol):
    """A model with a pose branch of its own."""

    def pose_keypoints(self, pose: "Tensor") -> "Tensor":
        """Pose codes -> keypoints (N, 21, 2) in pixels."""


@dataclass(frozen=True)
class Method:
    """One value of `--method`. Functions are named "module:function"."""

    name: str
    """As the user types it."""
    default_config: str
    """(method, training rows, image size, device) -> configuration, a frozen dataclass with `method`, `steps`,
    `batch_size`, `seed` and `to_json`."""
    train: str
    """(data, out, config, *, device, overwrite, progress) -> folder."""
    load: str
    """(folder, device) -> model."""


def _dvae(name: str) -> Method:
    place = "handaug.models.dvae"
    return Method(name, f"{place}.config:default_dvae_config", f"{place}.train:train_dvae", f"{place}.api:load_dvae")


def _li(name: str) -> Method:
    place = "handaug.models.disentangle"
    config = "handaug.models.methods:self_config"
    return Method(name, config, f"{place}.train:train_disentangler", f"{place}.api:load_disentangler")


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        _li("self"),
        *(_dvae(name) for name in ("dvae", "dvae-zu", "dvae-pose", "cross-modal")),
        Method(
            "handaug",
            "handaug.models.layered.config:default_layered_config",
            "handaug.models.layered.train:train_layered",
            "handaug.models.layered.api:load_layered",
        ),
        *(_li(name) for name in ("autoencoder", "paired")),
    )
}
"""All methods by name."""


def best_method(data: "HandDataset") -> str:
    """The method for a user who names none: handaug's own where rows are pairs, else self-disentanglement.

    Args:
        data: Training rows. They are pairs where there are masks and at least half of the rows are the true render of
            a mix of two others.
    """
    if not all(data.has(name) for name in ("mask", "pose_id", "appearance_id")):
        return "self"
    from handaug.models.layered.pairs import WalkSampler

    targets = WalkSampler(data.read("pose_id"), data.read("appearance_id")).targets
    return "handaug" if 2 * len(targets) >= len(data) > 0 else "self"


def train_method(
    data: Path,
    out: Path,
    *,
    config: Any = None,
    seed: int,
    device: str,
    progress: "Progress",
    overwrite: bool = False,
) -> Path:
    """Train a disentangler by the best method for the data, or as `config` says.

    Args:
        data: Dataset.
        out: Folder of the run.
        config: Of any method; its default for device and data if None.
        seed: Replaces the one of the config.
        device: Where to train.
        progress: Told of the steps.
        overwrite: Whether a run of another configuration, also an unfinished one, may be replaced.
    """
    from handaug.data_specs.reader import HandDataset

    if config is None:
        view = HandDataset(data, split="train")
        name = best_method(view)
        config = resolve(METHODS[name].default_config)(name, len(view), view.size, device)
    train = resolve(method_named(config.method).train)
    settings = dataclasses.replace(config, seed=seed)
    folder: Path = train(data, out, settings, device=device, progress=progress, overwrite=overwrite)
    return folder


def self_config(method: str, rows: int, size: tuple[int, int], device: str) -> Any:
    """`default_config` of the self-disentangler, called as the registry calls every method's."""
    from handaug.models.disentangle.config import default_config

    return default_config(rows, size, device, method)


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        InputError: There is none.
    """
    if name not in METHODS:
        raise InputError(f"--method {name}: choose one of {', '.join(METHODS)}")
    return METHODS[name]


def resolve(place: str) -> Any:
    """Import "module:name"."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def method_of_run(folder: Path) -> str | None:
    """The method that trained a checkpoint; None where its config cannot be read, which its loader explains."""
    try:
        return str(json.loads((Path(folder) / _CONFIG).read_text())["config"]["method"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_run(folder: Path | str, device: str = "cpu") -> PoseAppearanceModel:
    """Load a finished run of `handaug disentangle`, whatever its method.

    Raises:
        InputError: The folder is missing, damaged, or holds something else; the message names the file.
    """
    method = METHODS.get(method_of_run(Path(folder)) or "self", METHODS["self"])
    model: PoseAppearanceModel = resolve(method.load)(Path(folder), device)
    return model


def change_config(config: Any, changes: Iterable[str]) -> Any:
    """A configuration with the fields changed that `--set NAME=VALUE` gives.

    Args:
        config: A frozen dataclass instance.
        changes: "name=value"; values are numbers, true or false, text, or lists such as "cpose:32,viewpoint:32".

    Raises:
        InputError: There is no such field, or the value is of another type; the message lists the fields.
    """
    hints = get_type_hints(type(config))
    given: dict[str, Any] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in hints or name == "method":
            names = ", ".join(sorted(set(hints) - {"method"}))
            raise InputError(f"--set {change}: give NAME=VALUE with NAME one of {names}")
        try:
            given[name] = _parse(text.strip(), hints[name])
        except (TypeError, ValueError) as error:
            raise InputError(f"--set {change}: cannot be read as {_kind(hints[name])}") from error
    return dataclasses.replace(config, **given)


def _parse(text: str, hint: Any) -> Any:
    """Text as a value of a field's type."""
    if isinstance(hint, UnionType):  # optional fields
        return None if text == "none" else _parse(text, next(a for a in get_args(hint) if a is not type(None)))
    if hint is bool:
        return {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else _refuse(text)
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        if inner[-1] is Ellipsis:
            return tuple(_parse(part.strip(), inner[0]) for part in text.split(",") if part.strip())
        parts = text.split(":")
        return tuple(_parse(part, kind) for part, kind in zip(parts, inner, strict=True))
    return hint(text)


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _kind(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("handaug.", "")

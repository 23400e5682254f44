"""Checkpoints: weights as safetensors beside a readable `config.json`, and training state to go on from.

A checkpoint is a folder with `model.safetensors` and `config.json`. Loading never unpickles: weights are safetensors,
and training state goes through `torch.load(weights_only=True)`. Every file is written beside its final name and
renamed, so a kill leaves the old one or the new one, never half of one.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from handaug.data_specs.errors import InputError
from handaug.data_specs.writer import write_atomically

__all__ = ["CONFIG", "WEIGHTS", "load_model", "load_state", "load_weights", "read_config", "save_model", "save_state"]

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
FORMAT = 1
"""Version of the checkpoint folder; stored in its config."""


def save_model(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        folder: Made if missing.
        tensors: Named weights, on any device.
        config: JSON-able; must hold a `kind`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    write_atomically(folder / WEIGHTS, safetensors.torch.save(weights))
    # The config comes last: a folder with a config is a whole checkpoint.
    text = json.dumps({"format": FORMAT, **config}, indent=2, sort_keys=True) + "\n"
    write_atomically(folder / CONFIG, text.encode())


def read_config(folder: Path, kind: str) -> dict[str, Any]:
    """Read and check the config of a checkpoint.

    Args:
        folder: The checkpoint.
        kind: What the config's `kind` must be.

    Raises:
        InputError: No such folder, no config, not JSON, another kind, or a newer format.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; give the folder of a finished {kind}") from error
    except NotADirectoryError as error:
        raise InputError(f"{folder}: is not a folder; give the folder of a finished {kind}") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as JSON; train the {kind} again") from error
    if not isinstance(config, dict) or not isinstance(config.get("format"), int) or "kind" not in config:
        raise InputError(f"{path}: is not a handaug checkpoint; give the folder of a finished {kind}")
    if config["format"] > FORMAT:
        found = config["format"]
        raise InputError(f"{path}: has checkpoint format {found}, this handaug reads {FORMAT}; install a newer handaug")
    if config["kind"] != kind:
        raise InputError(f"{path}: holds a {config['kind']}, not a {kind}; give the folder of a {kind}")
    return config


def load_model(folder: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint back onto the CPU.

    Returns:
        The named weights and the config.

    Raises:
        InputError: A file is missing, damaged, truncated or foreign; the message names it.
    """
    config = read_config(folder, kind)
    path = folder / WEIGHTS
    try:
        return safetensors.torch.load_file(path), config
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; train the {kind} again") from error
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: is damaged or truncated; train the {kind} again") from error


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Copy named weights into a module of exactly the same names and shapes.

    Raises:
        InputError: They belong to another network.
    """
    own = module.state_dict()
    wrong = sorted(set(own) ^ set(tensors)) or sorted(k for k in own if own[k].shape != tensors[k].shape)
    if wrong:
        raise InputError(
            f"{folder / WEIGHTS}: does not fit its config ({wrong[0]} and {len(wrong) - 1} more differ), perhaps as "
            "another version of handaug made it; train it again with --overwrite"
        )
    module.load_state_dict(dict(tensors))


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write training state (tensors, numbers, strings and containers of them) to go on from."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomically(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any] | None:
    """Read training state onto the CPU.

    Returns:
        None where the file is damaged: nothing can be had from it, and the next state takes its place.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable, or remove it") from error
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # torch raises whatever its zip reader or unpickler meets in a damaged file
        return None
    return state if isinstance(state, dict) else None

"""Estimators from outside: found by entry point or by `module:factory`, and tried before anything is trained.

The protocol is `docs/estimators.md`. A factory is called as `factory(size=(H, W), channels=C)` and returns a
`torch.nn.Module` with the methods of `handaug.models.estimators.Estimator`; it need not derive from that class.
"""

import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from handaug.data_specs.errors import HandaugError, InputError
from handaug.data_specs.joints import N_JOINTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from handaug.models.estimators.base import Estimator

__all__ = [
    "ENTRY_POINTS",
    "build_outside",
    "entry_point_names",
    "is_factory",
    "is_outside",
    "named_failures",
    "source_digest",
]

ENTRY_POINTS = "handaug.estimators"
"""Group of the entry points: name = "package.module:factory"."""

_TRIED = (2, 5)
"""Numbers of images."""


def is_factory(name: str) -> bool:
    """Whether `name` is of the form module:factory."""
    return ":" in name


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def is_outside(name: str) -> bool:
    """Whether `name` is a module:factory or the name of an entry point."""
    return is_factory(name) or name in _entry_points()


def entry_point_names() -> tuple[str, ...]:
    """Names that installed packages offer, sorted; nothing is imported."""
    return tuple(sorted(_entry_points()))


def build_outside(
    name: str, *, size: tuple[int, int], channels: int, option: str = "--estimator ", trains: bool = True
) -> "Estimator | None":
    """Make and try an estimator from outside.

    Args:
        name: An entry point's name or module:factory. Modules are looked for in the working directory last.
        size: Image height and width in pixels.
        channels: Image channels, 1 or 3.
        option: What stands before the name where the user wrote it, for messages.
        trains: Whether it is to be trained. One that is only asked needs no loss, gradient or parameter.

    Returns:
        The module with `name`, `size`, `channels` and `settings` set; None where no entry point has this name.

    Raises:
        InputError: It cannot be imported, the factory raises, or what it returns does not follow the protocol.
    """
    flag = f"{option}{name}"
    point = _entry_points().get(name)
    if point is None and not is_factory(name):
        return None
    try:
        with _working_directory():
            factory: Callable[..., Any] = point.load() if point is not None else _import(name)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise InputError(f"{flag}: cannot be imported ({_short(error)}); give an importable module:factory") from error
    try:
        module = factory(size=size, channels=channels)
    except (Exception, SystemExit) as error:
        height, width = size
        raise InputError(
            f"{flag}: the factory raised {_short(error)} for size=({height}, {width}), channels={channels}; "
            "see docs/estimators.md"
        ) from error
    wanted = ("loss", "keypoints") if trains else ("keypoints",)
    missing = [method for method in wanted if not callable(getattr(module, method, None))]
    if missing or not isinstance(module, nn.Module):
        what = f"lacks {', '.join(missing)}" if missing else "is no torch.nn.Module"
        raise InputError(f"{flag}: what the factory returns {what}; see docs/estimators.md")
    estimator = cast("Estimator", module)
    try:
        estimator.name, estimator.size, estimator.channels, estimator.settings = name, size, channels, {}
        if not hasattr(estimator, "dimensions"):
            estimator.dimensions = 2
    except Exception as error:  # a property without a setter, a layer of that name
        raise InputError(
            f"{flag}: cannot be given name, size, channels and settings ({_short(error)}); call its own otherwise"
        ) from error
    try:
        _try(estimator, flag, trains)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{flag}: raised {_short(error)} on trial images; see docs/estimators.md") from error
    return estimator


def source_digest(name: str) -> str | None:
    """SHA-256 of the file in which an estimator from outside is written; None for our own, and where there is no file.

    Args:
        name: As for `build_outside`, which has imported it.
    """
    point = _entry_points().get(name)
    module = sys.modules.get(point.module if point is not None else name.partition(":")[0])
    path = getattr(module, "__file__", None)
    if path is None or (point is None and not is_factory(name)):
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@contextmanager
def named_failures(estimator: "Estimator", option: str = "--estimator ") -> "Iterator[None]":
    """A block in which what an estimator from outside raises ends in one line that names it, behind `option`.

    Raises:
        InputError: Instead of anything but a full memory or disk.
    """
    try:
        yield
    except (HandaugError, MemoryError, OSError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        if not is_outside(estimator.name):
            raise
        raise InputError(f"{option}{estimator.name}: raised {_short(error)} in use; see docs/estimators.md") from error


@contextmanager
def _working_directory() -> "Iterator[None]":
    """The working directory as the last place of imports: a script's own folder, as `python -m` has it."""
    here = os.getcwd()
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _import(name: str) -> Callable[..., Any]:
    module, _, factory = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), factory)
    return found


def _short(error: BaseException) -> str:
    """Type and first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__


def _try(estimator: "Estimator", flag: str, trains: bool) -> None:
    """A few images, as in use, and if it `trains` forward and backward too and as in training, with one joint that has
    no label: shapes, numbers and gradients.

    Weights, buffers and torch's global generator stay as they were: arms must start alike.
    """
    if trains and not any(parameter.requires_grad for parameter in estimator.parameters()):
        raise InputError(f"{flag}: has no parameter to train; see docs/estimators.md")
    training = estimator.training
    buffers = {name: buffer.clone() for name, buffer in estimator.named_buffers()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for count in _TRIED:
            for mode in (False, True) if trains else (False,):
                _try_images(estimator.train(mode), count, flag, trains)
    with torch.no_grad():
        for name, buffer in estimator.named_buffers():
            if name in buffers:
                buffer.copy_(buffers[name])
    estimator.zero_grad(set_to_none=True)
    estimator.train(training)


def _try_images(estimator: "Estimator", count: int, flag: str, trains: bool) -> None:
    """So many images, in the mode that the estimator is in."""
    images = torch.rand(count, estimator.channels, *estimator.size)
    places = torch.rand(count, N_JOINTS, 2) * min(estimator.size)
    visibility = torch.full((count, N_JOINTS), 2, dtype=torch.uint8)
    places[0, 0], visibility[0, 0] = torch.nan, 0
    labels: list[torch.Tensor | None] = [places, visibility]
    output = estimator(images)
    if estimator.dimensions == 3:
        labels += [None, torch.rand(count, N_JOINTS, 3) * 0.1]
    if not estimator.training:  # nobody asks for places then
        if estimator.dimensions == 3:
            _shape(flag, "keypoints_3d", estimator.keypoints_3d(output), (count, N_JOINTS, 3))
        _shape(flag, "keypoints", estimator.keypoints(output), (count, N_JOINTS, 2))
    if not trains:
        return
    loss = estimator.loss(output, *labels)  # type: ignore[arg-type]
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        raise InputError(f"{flag}: loss must be one number, is {_describe(loss)}")
    if not torch.isfinite(loss):
        raise InputError(
            f"{flag}: the loss is {loss.item()} where a joint has visibility 0 and NaN for a place; leave such "
            "joints out"
        )
    if not loss.requires_grad:
        raise InputError(f"{flag}: the loss has no gradient; compute it from the output with torch operations")
    torch.autograd.backward(loss)
    if any(p.grad is not None and not torch.isfinite(p.grad).all() for p in estimator.parameters()):
        raise InputError(
            f"{flag}: the gradient is not finite where a joint has visibility 0 and NaN for a place; replace such "
            "places before computing with them (torch.where alone keeps NaN in its gradient)"
        )


def _shape(flag: str, what: str, found: Any, wanted: tuple[int, ...]) -> None:
    if not isinstance(found, torch.Tensor) or tuple(found.shape) != wanted:
        raise InputError(f"{flag}: {what} are {_describe(found)} for {wanted[0]} images, must be {wanted}")
    if not torch.isfinite(found).all():
        raise InputError(f"{flag}: {what} hold NaN or infinity; give a finite place for every joint")


def _describe(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"

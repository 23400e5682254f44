"""One device and one precision, by lightning-fabric, which takes seconds to import and is loaded for training alone."""

import logging
import warnings
from typing import TYPE_CHECKING, Literal, cast

from handaug.data_specs.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["PRECISIONS", "check_precision", "one_device"]

PRECISIONS = ("32-true", "bf16-mixed")
"""Of lightning-fabric; bf16-mixed keeps weights and losses in float32."""


def check_precision(name: str) -> None:
    """Refuse what is none of `PRECISIONS`.

    Raises:
        InputError: Names the option --precision and the choices.
    """
    if name not in PRECISIONS:
        raise InputError(f"--precision {name}: choose one of {', '.join(PRECISIONS)}")


def one_device(device: str, precision: str = "32-true") -> "Fabric":
    """A Fabric for one device.

    Args:
        device: "cpu", "cuda" or "cuda:N".
        precision: One of `PRECISIONS`.
    """
    from lightning_fabric import Fabric

    known = cast(Literal["32-true", "bf16-mixed"], precision)
    name, _, number = device.partition(":")
    # Left alone, it says "Using bfloat16 ..." for each Fabric, of which an experiment makes dozens.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on hardware that is there and was not asked for
        return Fabric(accelerator=name, devices=[int(number or 0)] if name == "cuda" else 1, precision=known)

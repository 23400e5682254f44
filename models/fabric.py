"""One device and one precision, by lightning-fabric, which takes seconds to import and is loaded for training alone."""

import warnings
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["one_device"]


def one_device(device: str, precision: str = "32-true") -> "Fabric":
    """A Fabric for one device.

    Args:
        device: "cpu", "cuda" or "cuda:N".
        precision: "32-true" or "bf16-mixed".
    """
    from lightning_fabric import Fabric

    known = cast(Literal["32-true", "bf16-mixed"], precision)
    name, _, number = device.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on hardware that is there and was not asked for
        return Fabric(accelerator=name, devices=[int(number or 0)] if name == "cuda" else 1, precision=known)

"""Weights that a user gives to the choices of a sampler: `held=2,front=1`, or one name alone."""

import math
from collections.abc import Collection, Mapping

from handaug.data_specs.errors import InputError

__all__ = ["mix_text", "parse_mix"]


def parse_mix(text: str, allowed: Collection[str], flag: str) -> dict[str, float]:
    """Read weights.

    Args:
        text: `NAME`, or `NAME=WEIGHT,NAME=WEIGHT,...`; a name without a weight has weight 1, one left out has none.
        allowed: The names that may occur; the result is in their order, whatever the order of the text.
        flag: The option, for messages.

    Returns:
        Weights above 0 that sum to 1.

    Raises:
        InputError: A name is unknown or twice there, a weight is no number or negative, or all are zero.

    Example:
        >>> parse_mix("held=3,none=1", ("none", "held", "front"), "--occluder-kinds")
        {'none': 0.25, 'held': 0.75}
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if name not in allowed or name in found:
            why = "is there twice" if name in found else "is none of them"
            raise InputError(f"{flag} {text}: {name!r} {why}; choose of {', '.join(allowed)}, as NAME=WEIGHT,...")
        try:
            weight = float(number) if equals else 1.0
        except ValueError:
            weight = math.nan
        if not (0 <= weight < math.inf):
            raise InputError(f"{flag} {text}: the weight {number!r} of {name} is not a number of 0 or more")
        found[name] = weight
    total = sum(found.values())
    if not total < math.inf:
        raise InputError(f"{flag} {text}: the weights are too large to add up; make them smaller")
    if total <= 0:
        raise InputError(f"{flag} {text}: all weights are zero, so nothing can be drawn; make one of them positive")
    return {name: found[name] / total for name in allowed if found.get(name, 0) > 0}


def mix_text(weights: Mapping[str, float]) -> str:
    """The text that `parse_mix` reads as these weights."""
    return ",".join(f"{name}={weight:g}" for name, weight in weights.items())

"""Weights that a user gives to the choices of a sampler (`held=2,front=1`, or one name alone), and limits (`20:45`)."""

import math
from collections.abc import Collection, Mapping

from handaug.data_specs.errors import InputError

__all__ = ["mix_text", "parse_limits", "parse_mix"]


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


def parse_limits(text: str, least: float, greatest: float, flag: str) -> tuple[float, float]:
    """Read the limits of what is drawn.

    Args:
        text: `LOW:HIGH`, or one number for both.
        least: What LOW may be at least.
        greatest: What HIGH may be at most.
        flag: The option, for messages.

    Raises:
        InputError: They are no numbers, reversed, or beyond what may be.

    Example:
        >>> parse_limits("20:45", 5, 100, "--field-of-view")
        (20.0, 45.0)
    """
    parts = text.split(":")
    try:
        low, high = float(parts[0]), float(parts[-1])
    except ValueError:
        low = high = math.nan
    if len(parts) > 2 or not least <= low <= high <= greatest:
        why = "the limits are reversed" if high < low else f"no limits from {least:g} to {greatest:g}"
        raise InputError(f"{flag} {text}: {why}; give LOW:HIGH, such as {least:g}:{greatest:g}")
    return low, high


def mix_text(weights: Mapping[str, float]) -> str:
    """The text that `parse_mix` reads as these weights."""
    return ",".join(f"{name}={weight:g}" for name, weight in weights.items())

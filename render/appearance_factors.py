"""What a file records of an appearance: every number of its skin, lamps, backdrop and sensor, and the kind and turn
of its surroundings. What rooms and skies are made of follows from config and seed alone.
"""

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from handaug.render.environment import Room
from handaug.render.scene import Appearance, Backdrop, Lamp, Sensor, Skin

__all__ = ["APPEARANCE_FACTORS", "appearance_factors"]

_AXES = {
    **dict.fromkeys(("color", "palm", "nail", "mono_weights"), ("red", "green", "blue")),
    **dict.fromkeys(("direction", "offset"), ("x", "y", "z")),
    "crop": ("u", "v", "side"),
    "motion": ("x", "y"),
}
"""Of the fields that hold several numbers."""
_SURROUNDINGS = ("environment", "rotation_w", "rotation_x", "rotation_y", "rotation_z")
_PARTS: tuple[tuple[str, type], ...] = (
    ("", Skin),
    ("lamp_1_", Lamp),
    ("lamp_2_", Lamp),
    ("backdrop_", Backdrop),
    ("", Sensor),
)
"""Prefixes of their fields' names."""


def _names(kind: type, prefix: str) -> Iterator[str]:
    for field in fields(kind):
        axes = _AXES.get(field.name)
        yield from (f"{prefix}{field.name}_{axis}" for axis in axes) if axes else (f"{prefix}{field.name}",)


APPEARANCE_FACTORS = (
    *("rig", "environment_share"),
    *(f"{prefix}{name}" for prefix in ("", "backdrop_") for name in _SURROUNDINGS),
    *(name for prefix, kind in _PARTS for name in _names(kind, prefix)),
)
"""Names of the entries of the field `appearance_factors`: those of `scene.Appearance` and of its parts, where they are
explained. Environment: number of the panorama, -1 a room, -2 a sky; that which lights the hand, and behind "backdrop_"
that which stands behind it, if no picture does. They differ where looks share a rig."""


def appearance_factors(a: Appearance, behind: Appearance) -> NDArray[np.float32]:
    """What an appearance was drawn as, in the order of `APPEARANCE_FACTORS`; NaN where it has no such lamp.

    Args:
        a: As it lights the hand.
        behind: The same with its own surroundings in place of its rig's.
    """
    found: list[float] = [a.rig, a.environment_share]
    for each in (a, behind):
        made = 0 if each.surrounding is None else -1 if isinstance(each.surrounding, Room) else -2
        found += [made or each.environment, *each.rotation]
    lamps = (*a.lamps, None, None)[:2]
    for (prefix, kind), part in zip(_PARTS, (a.skin, *lamps, a.backdrop, a.sensor), strict=True):
        if part is None:
            found += [np.nan] * len(list(_names(kind, prefix)))
            continue
        for field in fields(kind):
            value = getattr(part, field.name)
            found += value if isinstance(value, tuple) else (value,)
    return np.array(found, np.float32)

"""Configs of pictures with everything that may be in one, for tests/test_render.py and the script it starts."""

from typing import Any

from handaug.render.config import RenderConfig

__all__ = ["FULL"]

_COMMON: dict[str, Any] = {
    "poses": 8,
    "size": 64,
    "jewellery": "both",
    "occluders": True,
    "depth": True,
    "surfaces": "wood",
}

FULL = (
    RenderConfig(**_COMMON, seed=11, hands="two", clothing="both", occluder_kinds="front"),
    RenderConfig(**_COMMON, seed=14, hands="right", clothing="glove", occluder_kinds="held"),
    RenderConfig(**_COMMON, seed=5, hands="left", clothing="sleeve", occluder_kinds="hand"),
)
"""Two hands with gloves, sleeves, jewellery and something before them; a gloved hand that holds something; a left hand
behind a right one; all before a surface."""

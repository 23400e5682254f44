"""A step without corners."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["smooth_step"]


def smooth_step(x: NDArray[np.floating[Any]] | float, low: float, high: float) -> NDArray[np.float64]:
    """0 up to `low`, 1 from `high` on, between them the cubic that is level at both; of the shape of `x`."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))

"""From body and hand parameters to the coefficients of anny's blend shapes, in numpy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.render.anny_extract import LOCAL_CHANGES, PHENOTYPES, VARIATIONS
from handaug.render.shares import AGES

__all__ = ["LOCAL_MIDDLE", "Phenotypes", "age_of", "aged", "narrowed"]


LOCAL_MIDDLE = (0.1, 0.0, -0.15, 0.0)
"""Where the hand-specific changes are drawn about, which make anny's bones as long as people's (docs/rendering.md)."""


def age_of(shape: NDArray[np.floating[Any]], hand_model: str) -> float:
    """anny's age of a shape vector: 1/3 a child, 2/3 a young adult, 1 old; of MANO's hands, which have none, 2/3."""
    return float(shape[PHENOTYPES.index("age")]) if hand_model == "anny" else 2 / 3


def aged(shape: NDArray[np.float64], shares: Mapping[str, float]) -> NDArray[np.float64]:
    """A shape that was drawn, with the age that it has where ages have these shares (`shares.AGES`).

    MANO's hands, which have none, go with the default shares alone (`RenderConfig`).
    """
    if not AGES.asked(shares):
        return shape
    out, at = shape.copy(), PHENOTYPES.index("age")
    out[at] = AGES.moved(float(shape[at]), shares)
    return out


def narrowed(
    shape: NDArray[np.float64], mean: NDArray[np.float64], spread: float, hand_model: str
) -> NDArray[np.float64]:
    """A shape that was drawn, brought nearer to the middle of those that are drawn, in all but its age.

    Args:
        shape: As drawn.
        mean: The hand model's mean shape.
        spread: What is left of the distance, from 0 to 1.
        hand_model: `anny` or `mano`.
    """
    if spread == 1:
        return shape
    middle = mean.copy()
    if hand_model == "anny":
        middle[PHENOTYPES.index("age")] = shape[PHENOTYPES.index("age")]
        middle[len(PHENOTYPES) : len(PHENOTYPES) + len(LOCAL_MIDDLE)] = LOCAL_MIDDLE
    return middle + spread * (shape - middle)


class Phenotypes:
    """anny's map from shape parameters to blend shape coefficients.

    Args:
        arrays: Of the cached hand model (`handaug.render.anny_extract`).
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._anchors = {name: arrays[f"anchors_{name}"] for name in VARIATIONS if name != "race"}
        self._mask = arrays["variation_mask"].astype(bool)
        self._projection = arrays["projection"]

    def __call__(self, shape: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K,) coefficients of a shape vector."""
        values = dict(zip(PHENOTYPES, shape, strict=False))
        factors = [np.full(3, 1 / 3)]  # anny's default: an even mixture of its three ethnic variations
        factors += [_hat_weights(values.get(name, 0.5), anchors) for name, anchors in self._anchors.items()]
        products = np.where(self._mask, np.concatenate(factors), 1.0).prod(1)
        local = np.clip(shape[len(PHENOTYPES) :][: len(LOCAL_CHANGES)], -1, 1)
        pairs = np.stack([np.maximum(local, 0), np.maximum(-local, 0)], 1).ravel()
        return np.concatenate([products @ self._projection, pairs])


def _hat_weights(value: float, anchors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear interpolation coefficients of `value` among increasing `anchors`, clipped to their range."""
    return np.array([np.interp(value, anchors, row) for row in np.eye(len(anchors))])

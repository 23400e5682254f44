"""Shares of ages and of skin tones: what an even sampler drew, moved so that each range gets the share it is given.

A value keeps its rank: the one below which a tenth of the hands would lie becomes the one below which a tenth lie now.
So nothing is drawn anew: every other draw stays as it was, and with the default shares so does the value, to the bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose
from types import MappingProxyType

import numpy as np

__all__ = ["AGES", "TONES", "Ranges"]


@dataclass(frozen=True)
class Ranges:
    """Ranges that lie side by side, of values that are drawn evenly within each."""

    default: Mapping[str, float]
    """Share of each range among what is drawn; sum 1."""
    edges: tuple[float, ...]
    """Where they begin, and where the last one ends."""

    def asked(self, shares: Mapping[str, float]) -> list[tuple[str, float]]:
        """Shares other than the default ones, for identities; empty where they are the same."""
        same = all(isclose(share, shares.get(name, 0), abs_tol=1e-9) for name, share in self.default.items())
        return [] if same else sorted(shares.items())

    def moved(self, value: float, shares: Mapping[str, float]) -> float:
        """What was drawn by the default shares, as it is by these: the same rank among the values.

        Args:
            value: Within the edges.
            shares: Above 0 and with sum 1; a range that is left out gets nothing.
        """
        if not self.asked(shares):
            return value
        rank = float(np.interp(value, self.edges, np.cumsum([0.0, *self.default.values()])))
        wanted = [shares.get(name, 0.0) for name in self.default]
        ends = np.cumsum(wanted)
        # The first range that ends above the rank; the sum may miss 1 by a rounding, then the last that has a share.
        found = next((k for k, end in enumerate(ends) if rank < end), int(np.flatnonzero(wanted)[-1]))
        low, high = self.edges[found], self.edges[found + 1]
        start = float(ends[found]) - wanted[found]
        return min(max(low + (high - low) * (rank - start) / wanted[found], low), high)


AGES = Ranges(MappingProxyType({"child": 0.15, "adult": 0.425, "old": 0.425}), (0.38, 0.6, 0.8, 1.0))
"""By anny's age (1/3 child, 2/3 young adult, 1 old): about 5 to 15 years, to 50, and above. The shares are what
`HandModel.sample_shape` draws."""
TONES = Ranges(MappingProxyType(dict.fromkeys(("light", "medium", "dark"), 1 / 3)), (0.0, 1 / 3, 2 / 3, 1.0))
"""Thirds of the scale of `skin_model.melanin_of_tone`, on which tones are drawn evenly: of the Monk scale about 1 to 5
and half of 6, to the middle of 8, and to 10."""

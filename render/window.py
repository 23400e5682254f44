"""The part of a picture in which a scene is seen: nothing else need be traced."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handaug.render.scene import HandScene

__all__ = ["Window", "window_of"]

Floats = NDArray[np.float32]
_MARGIN = 3
"""Pixels on each side: one, as a pixel sees half of the next (its filter is 1.5 wide), and two that means over
neighbours take in (`handaug.render.relighting`)."""
_NEAR = 1e-3
"""Metres before the camera; a vertex nearer than that may be seen anywhere."""


@dataclass(frozen=True)
class Window:
    """Rows `top` to `bottom` and columns `left` to `right`, ends not included, of a picture of size x size."""

    top: int
    bottom: int
    left: int
    right: int
    size: int

    @classmethod
    def whole(cls, size: int) -> "Window":
        """All of the picture."""
        return cls(0, size, 0, size, size)

    def cut(self, picture: Floats) -> Floats:
        """(h, w, ...) of a picture (size, size, ...)."""
        return picture[self.top : self.bottom, self.left : self.right]

    def paste(self, part: Floats) -> Floats:
        """(size, size, ...) with (h, w, ...) in its place and nothing around."""
        picture = np.zeros((self.size, self.size, *part.shape[2:]), np.float32)
        self.cut(picture)[:] = part
        return picture


def window_of(scene: HandScene) -> Window:
    """Where anything of a scene may be seen; the whole picture if it has a surface behind, or nothing is in sight."""
    whole, points = Window.whole(scene.size), scene.solid
    if scene.surface is not None or points[:, 2].min() < _NEAR:
        return whole
    seen = points @ np.asarray(scene.intrinsics, np.float64).T
    places = seen[:, :2] / seen[:, 2:]
    left, top = np.clip(np.floor(places.min(0)).astype(int) - _MARGIN, 0, scene.size)
    right, bottom = np.clip(np.ceil(places.max(0)).astype(int) + 1 + _MARGIN, 0, scene.size)
    if left >= right or top >= bottom:
        return whole
    return Window(int(top), int(bottom), int(left), int(right), scene.size)

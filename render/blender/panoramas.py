"""Panoramas that light the hand: read from files or made by formula, averaged down, a few kept."""

from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import bpy
import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.render.backdrop import PANORAMA_SUFFIXES, image_files
from handaug.render.blender.shot import quiet
from handaug.render.environment import directions
from handaug.render.scene import Appearance

__all__ = ["MAP_WIDTH", "Panoramas"]

Floats = NDArray[np.float32]
Key = TypeVar("Key")
MAP_WIDTH = 128
"""Of the panorama that lights, and of its importance map: one smaller than its picture misses small lamps."""
_FINE = 1024
"""Widest panorama kept for the backdrop."""
_KEPT, _KEPT_FILES = 24, 512
"""Rooms, skies and fine pictures, up to 6 MB each; and files as they light, 0.2 MB each: a large one takes seconds to
read, and every picture asks for one."""


class Loaded(NamedTuple):
    """One panorama, as it lights."""

    image: Any
    """The pixels, in Blender."""
    coarse: Floats
    """(H, W, 3) linear, first row up."""


def _files(folder: str | None) -> list[Path]:
    """The panoramas of a folder, or those that come with Blender, by name."""
    place = Path(folder) if folder else Path(bpy.utils.system_resource("DATAFILES")) / "studiolights" / "world"
    return image_files(place, "--hdris", PANORAMA_SUFFIXES)


class Panoramas:
    """Those of a session.

    Args:
        folder: Of files, None for Blender's.

    Raises:
        InputError: The folder has none.
    """

    def __init__(self, folder: str | None) -> None:
        self.files = _files(folder)
        self._read: OrderedDict[int, Loaded] = OrderedDict()
        self._made: OrderedDict[tuple[str, int], Loaded] = OrderedDict()
        self._fine: OrderedDict[int, Floats] = OrderedDict()

    def of(self, appearance: Appearance) -> Loaded:
        """What lights an appearance.

        Raises:
            InputError: Its file cannot be read.
        """
        made, number = appearance.surrounding, appearance.environment
        if made is None:
            if number not in self._read:
                self._open(number)
            self._read.move_to_end(number)
            return self._read[number]
        # A rig's appearances share their room.
        key = ("look", appearance.number) if appearance.rig < 0 else ("rig", appearance.rig)
        if key not in self._made:
            coarse = _average(made.radiance(directions(MAP_WIDTH, 2 * MAP_WIDTH)).astype(np.float32), MAP_WIDTH)
            _keep(self._made, key, Loaded(_as_image("{} {}".format(*key), coarse), coarse), _KEPT)
        self._made.move_to_end(key)
        return self._made[key]

    def behind(self, number: int) -> Floats:
        """Panorama `number` of the files, (H, W, 3) linear, first row up, as fine as it may stand behind a hand.

        Raises:
            InputError: It cannot be read.
        """
        if number not in self._fine:
            self._open(number)
        self._fine.move_to_end(number)
        return self._fine[number]

    def _open(self, number: int) -> None:
        path = self.files[number]
        coarse, fine = _load(path)
        if number not in self._read:
            _keep(self._read, number, Loaded(_as_image(path.stem, coarse), coarse), _KEPT_FILES)
        if len(self._fine) >= _KEPT:
            self._fine.popitem(last=False)
        self._fine[number] = fine


def _keep(kept: OrderedDict[Key, Loaded], key: Key, new: Loaded, most: int) -> None:
    """Add one, and let the one go that was not asked for longest."""
    if len(kept) >= most:
        bpy.data.images.remove(kept.popitem(last=False)[1].image)
    kept[key] = new


def _load(path: Path) -> tuple[Floats, Floats]:
    """Its pixels as they light and as they may stand behind a hand."""
    try:
        with quiet():
            file = bpy.data.images.load(str(path))
        width, height = file.size
        if not width or not height:
            raise RuntimeError("no pixels")
    except RuntimeError as error:
        raise InputError(f"--hdris {path}: not a readable panorama, remove or replace it") from error
    pixels = np.empty(width * height * file.channels, np.float32)
    file.pixels.foreach_get(pixels)
    rgb = np.nan_to_num(pixels.reshape(height, width, file.channels)[::-1, :, :3], posinf=6e4, neginf=0)
    bpy.data.images.remove(file)
    return _average(rgb, min(width, MAP_WIDTH)), _average(rgb, min(width, _FINE))


def _as_image(name: str, pixels: Floats) -> Any:
    image = bpy.data.images.new(name, pixels.shape[1], pixels.shape[0], alpha=False, float_buffer=True)
    filled = np.ones((*pixels.shape[:2], 4), np.float32)
    filled[..., :3] = pixels[::-1]
    image.pixels.foreach_set(filled.ravel())
    image.update()
    return image


def _average(picture: Floats, width: int) -> Floats:
    """Mean over areas, to `width` columns and half as many rows; keeps the light of lamps smaller than a pixel."""
    columns = _averaging(picture.shape[1], width)
    rows = _averaging(picture.shape[0], max(1, width // 2))
    wide = np.einsum("rh,hwc->rwc", rows, picture, optimize=True)
    return np.ascontiguousarray(np.einsum("cw,rwk->rck", columns, wide, optimize=True), np.float32)


def _averaging(old: int, new: int) -> Floats:
    """(new, old) matrix of overlaps of cells; rows sum to 1."""
    edges, cells = np.arange(new + 1) * (old / new), np.arange(old)
    over = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.asarray(np.maximum(over, 0) * (new / old), np.float32)

"""Intel Open Image Denoise, from the library that comes inside the package bpy.

Called here and not by Cycles: Cycles makes a filter anew for each picture and works on pixels where nothing is. With
the same inputs the results are the same (tested).
"""

import ctypes
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import WorkError

__all__ = ["Denoiser"]

Floats = NDArray[np.float32]
_CPU, _FLOAT3, _FAST = 1, 3, 4  # values of OIDNDeviceType, OIDNFormat and OIDNQuality in oidn.h
_GRAIN = 16
"""OIDN fills images up to a multiple of that itself."""
_KEPT = 8
"""Filters; each takes some megabytes."""


@lru_cache(1)
def _library() -> tuple[Any, int]:
    """The library, and a device of one thread."""
    folder = Path(bpy.utils.resource_path("LOCAL")).parent / "lib"
    found = sorted(folder.glob("libOpenImageDenoise.so.*")) + sorted(folder.glob("libOpenImageDenoise*.dylib"))
    if not found:
        raise WorkError(f"{folder} holds no libOpenImageDenoise: install the package bpy anew")
    oidn = ctypes.CDLL(str(found[0]))
    for name in ("oidnNewDevice", "oidnNewFilter"):
        getattr(oidn, name).restype = ctypes.c_void_p
    oidn.oidnNewDevice.argtypes = [ctypes.c_int]
    oidn.oidnNewFilter.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("oidnSetDeviceInt", "oidnSetFilterInt"):
        getattr(oidn, name).argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    oidn.oidnSetFilterBool.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_bool]
    oidn.oidnSetSharedFilterImage.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, *[ctypes.c_size_t] * 5,
    ]  # fmt: skip
    for name in ("oidnCommitDevice", "oidnCommitFilter", "oidnExecuteFilter", "oidnReleaseFilter"):
        getattr(oidn, name).argtypes = [ctypes.c_void_p]
    oidn.oidnGetDeviceError.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p)]
    device = oidn.oidnNewDevice(_CPU)
    oidn.oidnSetDeviceInt(device, b"numThreads", 1)
    oidn.oidnCommitDevice(device)
    return oidn, device


class Denoiser:
    """Takes the noise out of linear images, at OIDN's fast setting. Keeps the filters of the last few sizes."""

    def __init__(self) -> None:
        self._filters: OrderedDict[tuple[int, int, bool], _Filter] = OrderedDict()

    def __call__(self, image: Floats, albedo: Floats | None = None, normal: Floats | None = None) -> Floats:
        """An image without its noise.

        Args:
            image: (H, W, 3), linear.
            albedo: (H, W, 3) of what is seen, as little noise as that may have; with `normal` or not at all.
            normal: (H, W, 3).

        Returns:
            (H, W, 3).
        """
        # Blender has the last row first, and OIDN does not do the same to a picture upside down.
        given = [part[::-1] for part in (image, albedo, normal) if part is not None]
        height, width = image.shape[:2]
        key = (-(-height // _GRAIN) * _GRAIN, -(-width // _GRAIN) * _GRAIN, len(given) > 1)
        if key not in self._filters:
            if len(self._filters) >= _KEPT:
                self._filters.popitem(last=False)[1].release()
            self._filters[key] = _Filter(*key)
        self._filters.move_to_end(key)
        return self._filters[key](given)[::-1]


class _Filter:
    """A filter of one size, height x width, told albedo and normal or not."""

    def __init__(self, height: int, width: int, guided: bool) -> None:
        self._oidn, self._device = _library()
        names = (b"color", *((b"albedo", b"normal") if guided else ()))
        self._inputs: list[Floats] = [np.zeros((height, width, 3), np.float32) for _ in names]
        self._clean: Floats = np.zeros((height, width, 3), np.float32)
        self._filter = self._oidn.oidnNewFilter(self._device, b"RT")
        for name, values in zip((*names, b"output"), (*self._inputs, self._clean), strict=True):
            place = (values.ctypes.data, _FLOAT3, width, height, 0, 0, 0)
            self._oidn.oidnSetSharedFilterImage(self._filter, name, *place)
        self._oidn.oidnSetFilterBool(self._filter, b"hdr", True)
        self._oidn.oidnSetFilterBool(self._filter, b"cleanAux", guided)
        self._oidn.oidnSetFilterInt(self._filter, b"quality", _FAST)
        self._oidn.oidnCommitFilter(self._filter)

    def __call__(self, given: list[Floats]) -> Floats:
        height, width = given[0].shape[:2]
        for kept, values in zip(self._inputs, given, strict=True):
            kept[:height, :width] = values
            kept[height:], kept[:, width:] = 0, 0
        self._oidn.oidnExecuteFilter(self._filter)
        said = ctypes.c_char_p()
        if self._oidn.oidnGetDeviceError(self._device, ctypes.byref(said)):
            raise WorkError(f"the denoiser failed: {(said.value or b'').decode()}")
        return self._clean[:height, :width].copy()

    def release(self) -> None:
        """Give back what the library holds."""
        self._oidn.oidnReleaseFilter(self._filter)

"""Intel Open Image Denoise, from the library that comes inside the package bpy.

Called here and not by Cycles, which spends 4 to 8 ms more on each picture; a device made anew each time would explain
them. With the same inputs the results are the same (tested).
"""

import ctypes
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
    """Takes the noise out of linear images, at OIDN's fast setting. Keeps the filter of the last size."""

    def __init__(self) -> None:
        self._oidn, self._device = _library()
        self._shape = (0, 0)
        self._images: list[Floats] = []
        self._filter: Any = None

    def __call__(self, image: Floats, albedo: Floats, normal: Floats) -> Floats:
        """An image without its noise.

        Args:
            image: (H, W, 3), linear.
            albedo: (H, W, 3) of what is seen, with as little noise as that may have.
            normal: (H, W, 3), likewise.

        Returns:
            (H, W, 3).
        """
        if image.shape[:2] != self._shape:
            self._resize(*image.shape[:2])
        # Blender has the last row first, and OIDN does not do the same to a picture upside down.
        for kept, values in zip(self._images[:3], (image, albedo, normal), strict=True):
            kept[:] = values[::-1]
        self._oidn.oidnExecuteFilter(self._filter)
        said = ctypes.c_char_p()
        if self._oidn.oidnGetDeviceError(self._device, ctypes.byref(said)):
            raise WorkError(f"the denoiser failed: {(said.value or b'').decode()}")
        return self._images[-1][::-1].copy()

    def _resize(self, height: int, width: int) -> None:
        """A filter of exactly this size: a picture filled up with black comes out darker at its border."""
        if self._filter is not None:
            self._oidn.oidnReleaseFilter(self._filter)
        self._shape = (height, width)
        self._images = [np.zeros((height, width, 3), np.float32) for _ in range(4)]
        self._filter = self._oidn.oidnNewFilter(self._device, b"RT")
        for name, values in zip((b"color", b"albedo", b"normal", b"output"), self._images, strict=True):
            place = (values.ctypes.data, _FLOAT3, width, height, 0, 0, 0)
            self._oidn.oidnSetSharedFilterImage(self._filter, name, *place)
        for name in (b"hdr", b"cleanAux"):
            self._oidn.oidnSetFilterBool(self._filter, name, True)
        self._oidn.oidnSetFilterInt(self._filter, b"quality", _FAST)
        self._oidn.oidnCommitFilter(self._filter)

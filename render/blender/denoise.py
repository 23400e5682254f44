"""Intel Open Image Denoise, from the library that comes inside the package bpy."""

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
        raise WorkError(f"{folder} holds no libOpenImageDenoise: give --direct, which needs none")
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
    for name in ("oidnCommitDevice", "oidnCommitFilter", "oidnExecuteFilter"):
        getattr(oidn, name).argtypes = [ctypes.c_void_p]
    oidn.oidnGetDeviceError.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p)]
    device = oidn.oidnNewDevice(_CPU)
    oidn.oidnSetDeviceInt(device, b"numThreads", 1)
    oidn.oidnCommitDevice(device)
    return oidn, device


class Denoiser:
    """Takes the noise out of linear images of one size, at OIDN's fast setting.

    Args:
        size: Side of the images.
    """

    def __init__(self, size: int) -> None:
        self._oidn, self._device = _library()
        self._noisy: Floats = np.zeros((size, size, 3), np.float32)
        self._clean: Floats = np.zeros((size, size, 3), np.float32)
        self._filter = self._oidn.oidnNewFilter(self._device, b"RT")
        for name, image in ((b"color", self._noisy), (b"output", self._clean)):
            self._oidn.oidnSetSharedFilterImage(self._filter, name, image.ctypes.data, _FLOAT3, size, size, 0, 0, 0)
        self._oidn.oidnSetFilterBool(self._filter, b"hdr", True)
        self._oidn.oidnSetFilterInt(self._filter, b"quality", _FAST)
        self._oidn.oidnCommitFilter(self._filter)

    def __call__(self, image: Floats) -> Floats:
        """(size, size, 3) without its noise."""
        self._noisy[:] = image
        self._oidn.oidnExecuteFilter(self._filter)
        said = ctypes.c_char_p()
        if self._oidn.oidnGetDeviceError(self._device, ctypes.byref(said)):
            raise WorkError(f"the denoiser failed ({(said.value or b'').decode()}): give --direct, which needs none")
        return self._clean.copy()

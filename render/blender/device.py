"""The GPU that Cycles traces on."""

from typing import Any

import bpy

from handaug.data_specs.errors import InputError

__all__ = ["use_gpu"]


def use_gpu(scene: Any, kind: str, number: int) -> str:
    """Let Cycles trace on one GPU; returns its name. Without one it would fall back to the CPU and not say so."""
    preferences = bpy.context.preferences.addons["cycles"].preferences
    try:
        preferences.compute_device_type = kind.upper()
        preferences.refresh_devices()
    except (TypeError, RuntimeError) as error:
        raise InputError(f"--device {kind}: this Blender cannot use {kind} here, choose another device") from error
    found = [device for device in preferences.devices if device.type == kind.upper()]
    if not found:
        raise InputError(f"--device {kind}: Blender finds no such GPU here, check its driver or give --device cpu")
    chosen = found[number % len(found)]
    for device in preferences.devices:
        device.use = device is chosen or device == chosen
    scene.cycles.device = "GPU"
    if not chosen.use or not preferences.has_active_device():
        raise InputError(f"--device {kind}: Blender does not take {chosen.name}, check its driver or give --device cpu")
    return str(chosen.name)

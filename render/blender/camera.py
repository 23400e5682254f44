"""One pinhole camera at the origin, from K.

Blender's camera looks along -z with y up, OpenCV's along +z with y down: a point (x, y, z) of the camera's frame
stands at (x, -y, -z) in Blender's world, and the camera never moves. `cx = (W - 1) / 2` in the convention where the
centre of the top-left pixel is (0, 0) is Blender's camera without shift; any other principal point is a shift in
units of the image side.
"""

from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError

__all__ = ["add_camera", "aim_camera", "to_blender"]

_SENSOR_MM = 36.0


def to_blender(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., 3) from the camera's frame (OpenCV) to Blender's world."""
    return points * np.array([1, -1, -1], np.float32)


def add_camera(scene: Any) -> Any:
    """A camera at the origin; made the scene's."""
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.sensor_fit, camera.data.sensor_width = "HORIZONTAL", _SENSOR_MM
    camera.data.clip_start, camera.data.clip_end = 0.001, 100.0
    scene.collection.objects.link(camera)
    scene.camera = camera
    return camera


def aim_camera(scene: Any, intrinsics: NDArray[np.float32], size: int) -> None:
    """Set lens, shift and resolution.

    Args:
        scene: With a camera of `add_camera`.
        intrinsics: (3, 3) K in pixels; square pixels, no skew.
        size: Side of the image.
    """
    k = np.asarray(intrinsics, np.float64)
    if abs(k[0, 0] - k[1, 1]) > 1e-3 * k[0, 0] or abs(k[0, 1]) > 1e-6 * k[0, 0]:
        raise InputError("the renderer draws square pixels without skew: give a camera with fx = fy")
    scene.render.resolution_x = scene.render.resolution_y = size
    data = scene.camera.data
    data.lens = k[0, 0] * _SENSOR_MM / size
    data.shift_x = ((size - 1) / 2 - k[0, 2]) / size
    data.shift_y = (k[1, 2] - (size - 1) / 2) / size

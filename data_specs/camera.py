"""Pinhole cameras and horizontal flips.

Conventions, written once:

* Camera frame: x right, y down, z forward (OpenCV), metres.
* Pixels: x to the right, y down; the centre of the top-left pixel is (0, 0), so an image spans [-0.5, W - 0.5).
* A centred camera has cx = (W - 1) / 2, cy = (H - 1) / 2.
* K is [[fx, s, cx], [0, fy, cy], [0, 0, 1]] in pixels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["centred_intrinsics", "flip_camera", "flip_keypoints_2d", "flip_points_3d", "inside_image", "project"]

FloatArray = NDArray[np.floating[Any]]


def centred_intrinsics(focal_px: float, width: int, height: int) -> NDArray[np.float32]:
    """Intrinsics of a camera that looks at the middle of its image.

    Example:
        >>> centred_intrinsics(100.0, 64, 64)[0].tolist()
        [100.0, 0.0, 31.5]
    """
    return np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1]], np.float32)


def project(camera: FloatArray, points: FloatArray) -> NDArray[np.float32]:
    """Project points in the camera frame to pixels.

    Args:
        camera: (..., 3, 3) intrinsics.
        points: (..., P, 3) metres, camera frame.

    Returns:
        (..., P, 2) float32 pixels, computed in float64. Points with z <= 0 give NaN.
    """
    xyz = np.asarray(points, np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rays = np.where(xyz[..., 2:] > 0, xyz / xyz[..., 2:], np.nan)
        return (rays @ np.swapaxes(np.asarray(camera, np.float64), -1, -2))[..., :2].astype(np.float32)


def inside_image(keypoints: FloatArray, width: int, height: int) -> NDArray[np.bool_]:
    """Which of (..., 2) pixel positions lie on the image; NaN does not."""
    x, y = keypoints[..., 0], keypoints[..., 1]
    with np.errstate(invalid="ignore"):
        return (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)


def flip_keypoints_2d(keypoints: FloatArray, width: int) -> FloatArray:
    """Mirror (..., 2) pixel positions in an image of `width` pixels; joints keep their order."""
    out = np.array(keypoints)
    out[..., 0] = (width - 1) - out[..., 0]
    return out


def flip_points_3d(points: FloatArray) -> FloatArray:
    """Mirror (..., 3) camera-frame points: x changes sign; joints keep their order, the handedness toggles."""
    return np.asarray(points) * np.array([-1, 1, 1], np.asarray(points).dtype)


def flip_camera(camera: FloatArray, width: int) -> FloatArray:
    """Mirror (..., 3, 3) intrinsics: cx becomes W - 1 - cx, the skew changes sign."""
    out = np.array(camera)
    out[..., 0, 2] = (width - 1) - out[..., 0, 2]
    out[..., 0, 1] = -out[..., 0, 1]
    return out

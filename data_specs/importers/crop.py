"""Cutting the stored image out of the source's, with labels and intrinsics that follow exactly.

A crop takes whole pixels of the source, `left .. left + side - 1`, and resizes them. The centre of the top-left pixel
is (0, 0) before and after, so a point x of the source lies at `(x - left + 0.5) * scale - 0.5` of the stored image:
that is what OpenCV's resizing does to pixels. Beyond the source's border the stored image is black.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.camera import inside_image, project
from handaug.data_specs.errors import InputError
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import DamagedError, Hand, Lens
from handaug.data_specs.schema import NOT_LABELLED

__all__ = ["DEFAULT_SIZE", "Row", "cut_hand", "whole_size"]

DEFAULT_SIZE = 64
"""What `handaug render` makes, so that imported and rendered data fit together."""

_SMALLEST_BOX_PX = 8
_LUMINANCE = np.array([0.0722, 0.7152, 0.2126], np.float32)
"""Rec. 709 weights of linear blue, green and red."""

Row = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Window:
    """Whole pixels of the source and the size they get."""

    left: int
    top: int
    width: int
    height: int
    out_width: int
    out_height: int

    def matrix(self) -> NDArray[np.float64]:
        """(3, 3) source pixels -> stored pixels."""
        sx, sy = self.out_width / self.width, self.out_height / self.height
        return np.array([[sx, 0, (0.5 - self.left) * sx - 0.5], [0, sy, (0.5 - self.top) * sy - 0.5], [0, 0, 1]])


def cut_hand(
    hand: Hand, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None, options: ImportOptions
) -> Row | None:
    """Make the stored image and labels of one hand.

    Args:
        hand: The hand.
        image: Its image, (H, W) or (H, W, 3) in OpenCV's order.
        mask: (H, W) or None.
        options: Crop, margin, size and channels.

    Returns:
        images, keypoints_2d, visibility, and camera, keypoints_3d and mask where the source has them, without the row
        axis; None where no labelled joint lies on the image.
    """
    if mask is not None and mask.shape[:2] != image.shape[:2]:
        raise DamagedError(f"{hand.name}: image and mask differ in size; get both of the same release")
    if hand.lens is not None:
        return _cut_through_lens(hand, hand.lens, image, options)
    height, width = image.shape[:2]
    points = _source_points(hand)
    with np.errstate(invalid="ignore"):
        known = (hand.visibility != NOT_LABELLED) & inside_image(points, width, height)
    if hand.labelled and not known.any():
        return None
    if options.crop == "none":
        window = _whole(width, height, options)
    elif known.any():
        window = _square(points[known], options)
    else:
        window = _middle(width, height, options)
    matrix = window.matrix()
    row: Row = {"images": _encode(_resample(image, window, nearest=False), options)}
    if mask is not None:
        row["mask"] = _resample(mask, window, nearest=True)
    if hand.camera is not None and hand.keypoints_3d is not None:
        row["camera"] = (matrix @ hand.camera).astype(np.float32)
        row["keypoints_3d"] = hand.keypoints_3d.astype(np.float32)
        xy = project(row["camera"], row["keypoints_3d"])
    else:
        xy = (points @ matrix[:2, :2].T + matrix[:2, 2]).astype(np.float32)
    return _with_visibility(row, xy, hand, known, window.out_width, window.out_height)


def _source_points(hand: Hand) -> NDArray[np.float64]:
    """(21, 2) pixels of the source's image."""
    if hand.keypoints_3d is not None and hand.camera is not None:
        return project(hand.camera, hand.keypoints_3d).astype(np.float64)
    if hand.keypoints_2d is None:
        raise ValueError(f"{hand.name}: neither 2D keypoints nor 3D keypoints with a camera")
    return hand.keypoints_2d


def _with_visibility(
    row: Row, xy: NDArray[np.float32], hand: Hand, known: NDArray[np.bool_], width: int, height: int
) -> Row:
    """Joints off the source's image or off the stored one count as not labelled, wherever the padding put them."""
    shown = known & inside_image(xy, width, height)
    row["visibility"] = np.where(shown, hand.visibility, NOT_LABELLED).astype(np.uint8)
    row["keypoints_2d"] = np.where((hand.visibility != NOT_LABELLED)[:, None], xy, np.nan).astype(np.float32)
    if "keypoints_3d" in row:
        unlabelled = (hand.visibility == NOT_LABELLED)[:, None]
        row["keypoints_3d"] = np.where(unlabelled, np.nan, row["keypoints_3d"]).astype(np.float32)
    return row


def _square(points: NDArray[np.float64], options: ImportOptions) -> _Window:
    low, high = points.min(0), points.max(0)
    extent = float((high - low).max())
    side = max(_SMALLEST_BOX_PX, math.ceil(extent * (1 + 2 * options.margin)) + 1)
    left, top = np.round((low + high) / 2 - (side - 1) / 2).astype(int)
    size = options.size or DEFAULT_SIZE
    return _Window(int(left), int(top), side, side, size, size)


def _middle(width: int, height: int, options: ImportOptions) -> _Window:
    side, size = min(width, height), options.size or DEFAULT_SIZE
    return _Window((width - side) // 2, (height - side) // 2, side, side, size, size)


def whole_size(width: int, height: int, options: ImportOptions) -> tuple[int, int]:
    """Stored width and height of a whole image."""
    scale = 1.0 if options.size is None else options.size / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _whole(width: int, height: int, options: ImportOptions) -> _Window:
    return _Window(0, 0, width, height, *whole_size(width, height, options))


def _resample(image: NDArray[np.uint8], window: _Window, *, nearest: bool) -> NDArray[np.uint8]:
    import cv2

    height, width = image.shape[:2]
    right, bottom = window.left + window.width, window.top + window.height
    part = image[max(window.top, 0) : max(bottom, 0), max(window.left, 0) : max(right, 0)]
    border = (max(-window.top, 0), max(bottom - height, 0), max(-window.left, 0), max(right - width, 0))
    if any(border):
        top, below, left, beside = border
        part = np.asarray(cv2.copyMakeBorder(part, top, below, left, beside, cv2.BORDER_CONSTANT))
    size = (window.out_width, window.out_height)
    if size == (window.width, window.height):
        return np.ascontiguousarray(part)
    shrinks = window.out_width < window.width
    how = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, size, interpolation=how))


def _encode(image: NDArray[np.uint8], options: ImportOptions) -> NDArray[np.uint8]:
    """OpenCV's (H, W[, 3]) to the stored (H, W, 1 or 3)."""
    import cv2

    if options.n_channels == 3:  # not image[..., ::-1], which is slow to copy later
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.ndim == 3 else cv2.COLOR_GRAY2RGB), np.uint8)
    if image.ndim == 2:
        return image[..., None]
    to_linear, to_srgb = _tables()
    luminance = to_linear[image] @ _LUMINANCE
    grey: NDArray[np.uint8] = to_srgb[np.round(luminance * (len(to_srgb) - 1)).astype(np.uint16)]
    return grey[..., None]


_TABLES: list[tuple[NDArray[np.float32], NDArray[np.uint8]]] = []


def _tables() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """sRGB's curve (IEC 61966-2-1) from 8 bits to light, and back from 16 bits: grey returns as it is."""
    if not _TABLES:
        code = np.arange(256) / 255
        to_linear = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4).astype(np.float32)
        light = np.arange(1 << 16) / ((1 << 16) - 1)
        curve = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
        _TABLES.append((to_linear, np.round(curve * 255).astype(np.uint8)))
    return _TABLES[0]


def _cut_through_lens(hand: Hand, lens: Lens, image: NDArray[np.uint8], options: ImportOptions) -> Row | None:
    """Look at the hand through a pinhole camera that turns towards it: straight lines become straight again.

    The stored camera frame is the source's, turned about its centre; the 3D keypoints turn with it.
    """
    import cv2

    if options.crop != "square":
        raise InputError("--crop none: a fisheye image as a whole has no pinhole camera; use --crop square")
    if hand.keypoints_3d is None:
        raise ValueError(f"{hand.name}: a lens needs 3D keypoints")
    height, width = image.shape[:2]
    with np.errstate(invalid="ignore"):
        known = (hand.visibility != NOT_LABELLED) & inside_image(lens.project(hand.keypoints_3d), width, height)
    if not known.any():
        return None
    turn = _look_at(hand.keypoints_3d[known].mean(0))
    turned = hand.keypoints_3d @ turn.T
    with np.errstate(divide="ignore", invalid="ignore"):
        rays = np.where(turned[:, 2:] > 1e-3, turned[:, :2] / turned[:, 2:], np.nan)
    known &= np.isfinite(rays).all(-1)
    if not known.any():
        return None
    size = options.size or DEFAULT_SIZE
    low, high = rays[known].min(0), rays[known].max(0)
    focal = size / max(float((high - low).max()) * (1 + 2 * options.margin), 1e-3)
    centre = (size - 1) / 2 - focal * (low + high) / 2
    camera = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]], np.float32)
    finer = _oversampling(lens, turn, camera, size)
    grid = (np.arange(size * finer) + 0.5) / finer - 0.5
    x, y = np.meshgrid((grid - camera[0, 2]) / camera[0, 0], (grid - camera[1, 2]) / camera[1, 1])
    where = np.nan_to_num(lens.project(np.stack([x, y, np.ones_like(x)], -1) @ turn), nan=-1e4).astype(np.float32)
    pixels: NDArray[np.uint8] = np.asarray(
        cv2.remap(image, where[..., 0], where[..., 1], cv2.INTER_LINEAR), np.uint8
    )  # black beyond the border
    if finer > 1:
        pixels = np.asarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    row: Row = {"images": _encode(pixels, options), "camera": camera, "keypoints_3d": turned.astype(np.float32)}
    return _with_visibility(row, project(camera, row["keypoints_3d"]), hand, known, size, size)


def _look_at(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) rotation that brings a direction onto +z and keeps the image's x axis level with the source's."""
    z = direction / np.linalg.norm(direction)
    x = np.cross([0.0, 1.0, 0.0], z)
    x = x / np.linalg.norm(x) if np.linalg.norm(x) > 1e-6 else np.array([1.0, 0.0, 0.0])
    return np.stack([x, np.cross(z, x), z])


def _oversampling(lens: Lens, turn: NDArray[np.float64], camera: NDArray[np.float32], size: int) -> int:
    """Samples along each side of a stored pixel, so that no source pixel is passed over."""
    middle = np.array([[-0.5, 0, 1], [0.5, 0, 1]]) / (camera[0, 0], 1, 1)
    step = float(np.linalg.norm(np.diff(lens.project(middle @ turn), axis=0)))
    return int(np.clip(math.ceil(step), 1, 8)) if np.isfinite(step) else 1

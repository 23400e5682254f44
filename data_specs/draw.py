"""Pictures of hands: skeletons, contact sheets, grids. Everything is uint8 RGB."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError, WorkError, is_full
from handaug.data_specs.joints import BONES, FINGERS, N_JOINTS
from handaug.data_specs.schema import NOT_LABELLED, VISIBLE
from handaug.data_specs.writer import write_atomically

__all__ = ["FINGER_COLOURS", "as_rgb", "contact_sheet", "draw_skeleton", "enlarge", "image_grid", "save_png"]

FINGER_COLOURS: dict[str, tuple[int, int, int]] = {
    "thumb": (230, 159, 0),
    "index": (86, 180, 233),
    "middle": (0, 200, 140),
    "ring": (240, 228, 66),
    "little": (220, 110, 180),
}
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""

_WHITE = (255, 255, 255)
_GAP = 4
_SUBPIXEL_BITS = 4  # OpenCV draws at 1/16 px


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W), (H, W, 1) or (H, W, 3) -> (H, W, 3)."""
    image = image[..., None] if image.ndim == 2 else image
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def enlarge(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Repeat each pixel, so that what is seen is what is stored."""
    return np.repeat(np.repeat(image, scale, axis=0), scale, axis=1)


def draw_skeleton(
    image: NDArray[np.uint8],
    keypoints: NDArray[np.floating[Any]],
    visibility: NDArray[np.integer[Any]] | None = None,
    *,
    scale: int = 1,
) -> NDArray[np.uint8]:
    """Draw one hand's bones and joints.

    Args:
        image: (H, W[, C]) uint8.
        keypoints: (21, 2) pixels of the image before enlargement.
        visibility: (21,); visible joints are filled dots, hidden ones rings, unlabelled ones left out.
        scale: Enlargement in whole numbers.

    Returns:
        (H * scale, W * scale, 3) uint8, a new array.
    """
    import cv2

    canvas = np.ascontiguousarray(enlarge(as_rgb(image), scale))
    seen = np.full(N_JOINTS, VISIBLE) if visibility is None else np.asarray(visibility)
    drawn = (seen != NOT_LABELLED) & np.isfinite(keypoints).all(-1)
    # the centre of pixel i is at (i + .5) * scale - .5 after enlargement
    at = np.where(drawn[:, None], (np.nan_to_num(keypoints) + 0.5) * scale - 0.5, 0)
    fixed = np.clip(np.round(at * (1 << _SUBPIXEL_BITS)), -(2**20), 2**20).astype(int)
    colour = [_WHITE] * N_JOINTS
    for finger, joints in FINGERS.items():
        for joint in joints:
            colour[joint] = FINGER_COLOURS[finger]
    for parent, child in BONES:
        if drawn[parent] and drawn[child]:
            cv2.line(
                canvas, fixed[parent].tolist(), fixed[child].tolist(), colour[child], 1, cv2.LINE_AA, _SUBPIXEL_BITS
            )
    radius = max(1, round(0.6 * scale)) << _SUBPIXEL_BITS
    for joint in np.flatnonzero(drawn):
        filled = -1 if seen[joint] == VISIBLE else 1
        cv2.circle(canvas, fixed[joint].tolist(), radius, colour[joint], filled, cv2.LINE_AA, _SUBPIXEL_BITS)
    return canvas


def image_grid(rows: Sequence[Sequence[NDArray[np.uint8]]], *, scale: int = 1, gap: int = _GAP) -> NDArray[np.uint8]:
    """Lay out equally sized images on a white sheet.

    Args:
        rows: Rows of (H, W[, C]) uint8 images; rows may differ in length.
        scale: Enlargement of each image.
        gap: White pixels between and around the images.

    Returns:
        (height, width, 3) uint8.
    """
    height, width = rows[0][0].shape[:2]
    height, width = height * scale, width * scale
    columns = max(len(row) for row in rows)
    sheet = np.full((len(rows) * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            top, left = gap + r * (height + gap), gap + c * (width + gap)
            sheet[top : top + height, left : left + width] = enlarge(as_rgb(image), scale)
    return sheet


def contact_sheet(
    images: NDArray[np.uint8],
    keypoints: NDArray[np.floating[Any]],
    visibility: NDArray[np.integer[Any]] | None = None,
    *,
    columns: int = 8,
    scale: int = 3,
) -> NDArray[np.uint8]:
    """Each image as stored, and below it with its keypoints.

    Args:
        images: (N, H, W, C) uint8, N >= 1.
        keypoints: (N, 21, 2) pixels.
        visibility: (N, 21).
        columns: Images in a row.
        scale: Enlargement.

    Returns:
        (height, width, 3) uint8.
    """
    plain = [enlarge(as_rgb(image), scale) for image in images]
    drawn = [
        draw_skeleton(image, keypoints[i], None if visibility is None else visibility[i], scale=scale)
        for i, image in enumerate(images)
    ]
    rows = []
    for start in range(0, len(plain), columns):
        rows += [plain[start : start + columns], drawn[start : start + columns]]
    return image_grid(rows)


def save_png(path: Path | str, image: NDArray[np.uint8]) -> Path:
    """Write a PNG by an atomic rename.

    Raises:
        InputError: The place cannot be written.
        WorkError: The disk is full.
    """
    import cv2

    path = Path(path)
    try:
        write_atomically(path, cv2.imencode(".png", as_rgb(image)[..., ::-1])[1].tobytes())
    except OSError as error:
        if is_full(error):
            raise WorkError(f"{path}: writing failed (the disk is full); free space and run again") from error
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another output") from error
    return path

"""Pictures of a dVAE's poses and images, for its run folder and the figures: uint8 RGB.

Skeletons show 3DPose or CPose seen from the front (x to the right, y down, z dropped). As in the paper labels are red
and predictions blue.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handaug.data_specs.draw import as_rgb, enlarge, image_grid
from handaug.data_specs.joints import BONES
from handaug.models.dvae.api import Dvae
from handaug.models.dvae.measure import Rows, estimate_rows, subset

__all__ = ["PREDICTED", "TRUE", "draw_estimates", "draw_poses", "framed", "pixels", "skeleton", "synthesis_grid"]

TRUE = (204, 36, 29)
PREDICTED = (32, 84, 200)
_REACH = 5.0
"""Half a picture's width in units of s; an outstretched hand reaches about 4.2 from the wrist."""


def skeleton(
    places: NDArray[np.floating[Any]], size: tuple[int, int], colour: tuple[int, int, int], scale: int = 1
) -> NDArray[np.uint8]:
    """Draw one hand's bones on white.

    Args:
        places: (21, 2) pixels before enlargement.
        size: Height and width in pixels before enlargement.
        colour: RGB.
        scale: Enlargement in whole numbers.
    """
    import cv2

    canvas = np.full((size[0] * scale, size[1] * scale, 3), 255, np.uint8)
    at = np.clip(np.nan_to_num((places + 0.5) * scale - 0.5) * 16, -(2**20), 2**20).round().astype(int)
    for parent, child in BONES:
        cv2.line(canvas, at[parent].tolist(), at[child].tolist(), colour, max(1, scale // 2), cv2.LINE_AA, 4)
    for joint in at:
        cv2.circle(canvas, joint.tolist(), scale * 12, colour, -1, cv2.LINE_AA, 4)
    return canvas


def draw_poses(
    poses: NDArray[np.floating[Any]], size: tuple[int, int], colour: tuple[int, int, int], scale: int = 1
) -> list[NDArray[np.uint8]]:
    """Root-relative poses (N, 21, 3) in units of s from the front, centred on their joints."""
    flat = poses[..., :2]
    middle = (flat.min(1) + flat.max(1)) / 2
    side = min(size)
    places = (flat - middle[:, None]) * (side / 2 / _REACH * 1.3) + np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    return [skeleton(row, size, colour, scale) for row in places]


def framed(image: NDArray[np.uint8], colour: tuple[int, int, int] = TRUE) -> NDArray[np.uint8]:
    """The image inside a frame of its own outermost pixels: the red boxes of Fig. 4, which mark what was given."""
    out = as_rgb(image).copy()
    width = max(1, min(out.shape[:2]) // 32)
    for edge in (out[:width], out[-width:], out[:, :width], out[:, -width:]):
        edge[:] = colour
    return out


def pixels(images: torch.Tensor) -> list[NDArray[np.uint8]]:
    """(N, C, H, W), float in [0, 1] or uint8 -> N images (H, W, C)."""
    if images.dtype != torch.uint8:
        images = (images.clamp(0, 1) * 255.0).round().to(torch.uint8)
    return list(images.permute(0, 2, 3, 1).cpu().numpy())


def draw_estimates(model: Dvae, rows: Rows, count: int = 8, scale: int = 2) -> NDArray[np.uint8]:
    """Fig. 8: image, CPose label and prediction, 3DPose label and prediction, for rows far apart; two rows a line."""
    few = subset(rows, np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)))
    found = estimate_rows(model, few)
    size = model.size
    cells: list[list[NDArray[np.uint8]]] = [[enlarge(as_rgb(image), scale)] for image in pixels(few.images)]
    for name in ("cpose", "pose3d"):
        if name in found.poses:
            labels = few.poses.vector(name).view(-1, 21, 3).numpy()
            for cell, true, guess in zip(
                cells,
                draw_poses(labels, size, TRUE, scale),
                draw_poses(found.poses[name], size, PREDICTED, scale),
                strict=True,
            ):
                cell += [true, guess]
    return image_grid([left + right for left, right in zip(cells[::2], cells[1::2] or cells[::2], strict=False)])


def synthesis_grid(model: Dvae, rows: Rows, count: int = 8, scale: int = 2) -> NDArray[np.uint8]:
    """Poses of labels in the top row (their images), appearances in the left column, decoded images inside."""
    across = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))
    down = across[::-1].copy()
    pose = model.encode_labels(rows.poses.select(torch.from_numpy(across)))
    appearance = model.encode_appearance(rows.images[down].float() / 255.0)
    blank = np.full((*model.size, model.channels), 255, np.uint8)
    sheet = [[blank, *pixels(rows.images[across])]]
    for i, image in enumerate(pixels(rows.images[down])):
        sheet.append([image, *pixels(model.decode(pose, appearance[i : i + 1].expand(len(pose), -1)))])
    return image_grid(sheet, scale=scale)

"""Latent walks and pose transfer, as sheets of images: Figs. 4 to 6 of Yang & Yao 2019, Fig. 4 of Li et al. 2019.

Both work with every model that has pose and appearance codes. Where a model encodes poses from labels (the dVAEs do)
and the row has them, the label gives the pose; else the image does. Images in red frames were given, all others were
decoded. Red skeletons are labels, blue ones decoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handaug.data_specs.draw import as_rgb, enlarge, image_grid
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import HIDDEN
from handaug.models.dvae.api import Dvae
from handaug.models.dvae.pictures import PREDICTED, TRUE, framed, pixels, skeleton
from handaug.models.methods import PoseAppearanceModel
from handaug.models.pose_codes import pose_codes

__all__ = ["Sheet", "check_images", "pick_rows", "rows_of", "transfer_sheet", "walk_sheet"]

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Sheet:
    """A picture and what was measured on it."""

    image: Picture
    """(height, width, 3) uint8 RGB."""
    figures: dict[str, float]
    """Pixels of the data, by name; empty where the model reads no pose back from an image."""


def rows_of(path: Path, numbers: Sequence[int]) -> HandDataset:
    """Rows of a file by their numbers.

    Raises:
        InputError: A number is not one of its rows.
    """
    try:
        return HandDataset(path, rows=np.array(numbers, np.int64))
    except IndexError as error:
        raise InputError(f"{path}: has no row {max(numbers)} ({error}); choose among its rows") from error


def pick_rows(data: HandDataset, count: int, seed: int, *, differ: str) -> HandDataset:
    """Draw rows of one side, each with another value of a field where the file has it.

    Args:
        data: The view to draw from.
        count: Rows wanted; fewer come back where there are fewer.
        seed: Of the draw.
        differ: `pose_id` or `appearance_id`.

    Raises:
        InputError: The view has fewer than two rows.
    """
    if len(data) < 2:
        raise InputError(f"{data.path}: has {len(data)} rows in this split; choose another with --split")
    order = np.random.default_rng(seed).permutation(len(data))
    side = data.read("handedness")
    order = order[side[order] == np.bincount(side).argmax()]
    if data.has(differ):
        first = np.sort(np.unique(data.read(differ)[order], return_index=True)[1])
        order = order[first]
    return HandDataset(data.path, rows=data.rows[order[:count]])


def walk_sheet(
    model: PoseAppearanceModel, poses: HandDataset, appearances: HandDataset, *, steps: int = 8, scale: int = 2
) -> Sheet:
    """Interpolate linearly between two pose codes and between two appearance codes.

    Rows of the sheet: the walk from pose 0 to pose 1 in appearance 0, in appearance 1, and the decoded skeletons; the
    walk from appearance 0 to appearance 1 in the pose of the fourth column, and the skeletons that the model reads back
    from these images, which should stand still.

    Args:
        model: Of any method with both codes.
        poses: Two rows.
        appearances: Two rows.
        steps: Images of each walk, its ends included.
        scale: Enlargement in whole numbers.

    Returns:
        The sheet; `content_drift_px`: the mean distance of joints, over the content walk, from where they were read at
        its beginning; `pose_walk_px`: the same over the pose walk; `largest_step_share`: the largest part of
        the pose walk that happens in one of its steps, 1 / (steps - 1) where it is even.
    """
    if steps < 2:
        raise InputError(f"--steps {steps}: a walk has at least 2 images")
    check_images(model, poses, appearances)
    pose, content = pose_codes(model, poses, np.arange(len(poses))), _appearance_codes(model, appearances)
    along = torch.linspace(0, 1, steps, device=pose.device)
    pose_walk, content_walk = _between(pose, along), _between(content, along)
    fixed = pose_walk[min(3, steps - 1)].expand_as(pose_walk)
    first, second = (model.decode(pose_walk, _repeat(content[i], steps)) for i in (0, 1))
    across = model.decode(fixed, content_walk)
    given, lends = _images(poses), _images(appearances)
    blank = np.full_like(framed(given[0]), 255)
    big = [[blank, *map(framed, given[:1]), *map(as_rgb, pixels(x)), framed(given[1])] for x in (first, second)]
    for row, tag in zip(big, lends, strict=True):
        row[0] = framed(tag)
    content_row = [blank, framed(lends[0]), *map(as_rgb, pixels(across)), framed(lends[1])]
    sheet: list[list[Picture]] = [[enlarge(cell, scale) for cell in row] for row in big]
    figures: dict[str, float] = {}
    decoded = _keypoints(model, pose_walk, _repeat(content[0], steps))
    white = enlarge(blank, scale)
    if decoded is not None:
        ends = [_true_skeleton(poses, i, model.size, scale) for i in (0, 1)]
        bones = [skeleton(row, model.size, PREDICTED, scale) for row in decoded]
        sheet.append([white, ends[0], *bones, ends[1]])
    sheet.append([enlarge(cell, scale) for cell in content_row])
    back = _read_back(model, across, content_walk)
    if back is not None:
        sheet.append([white, white, *(skeleton(row, model.size, PREDICTED, scale) for row in back), white])
        figures["content_drift_px"] = float(np.linalg.norm(back - back[:1], axis=-1)[1:].mean())
    walked = _read_back(model, first, _repeat(content[0], steps))
    if walked is not None:
        figures["pose_walk_px"] = float(np.linalg.norm(walked - walked[:1], axis=-1)[1:].mean())
        moves = np.linalg.norm(np.diff(walked, axis=0), axis=-1).mean(1)
        figures["largest_step_share"] = float(moves.max() / max(moves.sum(), 1e-9))
    return Sheet(image_grid(sheet), figures)


def transfer_sheet(
    model: PoseAppearanceModel,
    poses: HandDataset,
    appearances: HandDataset | int,
    *,
    seed: int = 0,
    scale: int = 2,
) -> Sheet:
    """Every pose in every appearance.

    The first column holds the images that give poses, the second their labels, the first row the images that lend their
    appearance.

    Args:
        model: Of any method with both codes.
        poses: Rows that give poses.
        appearances: Rows that lend appearance, or how many appearances to draw from the model's prior.
        seed: Of the draw from the prior.
        scale: Enlargement in whole numbers.

    Returns:
        The sheet; `own_error_px`: mean distance from the labelled joints of x to what the model itself reads from the
        mixed images.

    Raises:
        InputError: The model takes other images, or has no prior to draw from.
    """
    check_images(model, poses, *([appearances] if isinstance(appearances, HandDataset) else []))
    pose = pose_codes(model, poses, np.arange(len(poses)))
    if isinstance(appearances, HandDataset):
        content, top = _appearance_codes(model, appearances), [framed(image) for image in _images(appearances)]
    else:
        if not isinstance(model, Dvae):
            raise InputError(
                f"--appearances prior: {model.method} has no prior over appearances; give rows, or a run of dvae or "
                "dvae-zu"
            )
        content = model.prior_appearance(appearances, seed)
        top = [np.full((*model.size, 3), 200, np.uint8)] * appearances  # no image gave them
    blank = enlarge(np.full((*model.size, 3), 255, np.uint8), scale)
    sheet: list[list[Picture]] = [[blank, blank, *(enlarge(cell, scale) for cell in top)]]
    errors = []
    true, seen = poses.read("keypoints_2d"), poses.read("visibility") >= HIDDEN
    for i, image in enumerate(_images(poses)):
        mixed = model.decode(_repeat(pose[i], len(content)), content)
        cells = [framed(image), *map(as_rgb, pixels(mixed))]
        big = [enlarge(cell, scale) for cell in cells]
        sheet.append([big[0], _true_skeleton(poses, i, model.size, scale), *big[1:]])
        back = _read_back(model, mixed, content)
        if back is not None and seen[i].any():
            errors.append(np.linalg.norm(back - true[i], axis=-1)[:, seen[i]].mean())
    return Sheet(image_grid(sheet), {"own_error_px": float(np.mean(errors))} if errors else {})


def check_images(model: PoseAppearanceModel, *sources: HandDataset) -> None:
    """Same size and channels everywhere."""
    for data in sources:
        if data.size != tuple(model.size) or data.channels != model.channels:
            raise InputError(
                f"{data.path}: has {data.size[1]}x{data.size[0]} px with {data.channels} channels, the model takes "
                f"{model.size[1]}x{model.size[0]} px with {model.channels}; give data of that size"
            )


def _tensor(data: HandDataset) -> Tensor:
    return torch.from_numpy(data.read("images")).permute(0, 3, 1, 2).float() / 255.0


def _images(data: HandDataset) -> list[Picture]:
    return list(data.read("images"))


def _appearance_codes(model: PoseAppearanceModel, data: HandDataset) -> Tensor:
    return model.encode_appearance(_tensor(data))


def _between(codes: Tensor, along: Tensor) -> Tensor:
    """(2, ...) and (steps,) -> (steps, ...)."""
    weight = along.view(-1, *[1] * (codes.ndim - 1))
    return (1 - weight) * codes[:1] + weight * codes[1:2]


def _repeat(code: Tensor, count: int) -> Tensor:
    return code[None].expand(count, *code.shape)


def _keypoints(model: PoseAppearanceModel, pose: Tensor, appearance: Tensor) -> NDArray[Any] | None:
    """(N, 21, 2) pixels that the model's own pose decoder sees in a code; None where it sees no places."""
    if isinstance(model, Dvae):
        return np.asarray(model.pose_keypoints(pose, appearance).cpu().numpy()) if model.places_hands else None
    decode = getattr(model, "pose_keypoints", None)
    return None if decode is None else np.asarray(decode(pose).cpu().numpy())


def _read_back(model: PoseAppearanceModel, images: Tensor, appearance: Tensor) -> NDArray[Any] | None:
    """Keypoints that the model finds in decoded images."""
    if isinstance(model, Dvae) and not model.reads_images:
        return None
    return _keypoints(model, model.encode_pose(images), appearance)


def _true_skeleton(data: HandDataset, row: int, size: tuple[int, int], scale: int) -> Picture:
    places, seen = data.read("keypoints_2d")[row], data.read("visibility")[row] >= HIDDEN
    if not seen.all():
        return enlarge(np.full((*size, 3), 255, np.uint8), scale)
    return skeleton(places, size, TRUE, scale)

"""What is measured and drawn of a disentangler while it trains.

Renders are pairs, so a mixed image has a true render: x shows pose p, y shows appearance a, and where a row z shows p
in a, the image D(p(x), a(y)) is compared with z inside the hand's mask. Li et al. could not measure this.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handaug.data_specs.draw import image_grid
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import HIDDEN, MASK_HAND, MASK_OCCLUDER
from handaug.data_specs.summary import spread_rows
from handaug.models.methods import PoseAppearanceModel, PoseReader

__all__ = [
    "ValidationSet",
    "draw_grid",
    "find_triples",
    "load_validation",
    "masked_psnr",
    "mix_kinds",
    "spread_poses",
    "swap_partners",
    "validate",
]

MAX_ROWS = 128
"""Rows validated on: enough for stable means, about a second on a CPU."""

GRID = 8
"""Poses across and appearances down the picture."""

_BATCH = 64


@dataclass(frozen=True)
class ValidationSet:
    """Rows in memory. Field axes: N rows, T triples."""

    images: Tensor
    """(N, C, H, W) uint8."""
    keypoints: Tensor
    """(N, 21, 2) float32 pixels."""
    visibility: Tensor
    """(N, 21) uint8."""
    hand: Tensor | None
    """(N, H, W) bool, None without masks."""
    triples: Tensor
    """(T, 3) int64: x gives the pose, y the appearance, z is the true render."""
    partners: Tensor
    """(N,) int64: the row that lends its appearance to a swap, -1 for none."""
    poses: Tensor
    """(<= GRID,) rows across the picture."""
    appearances: Tensor
    """(<= GRID,) rows down the picture."""


def mix_kinds(side: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> NDArray[np.int64]:
    """(N,) what rows must agree in to be mixed, as remix has it: the side, and whether an occluder is in the picture.

    Args:
        side: (N,) handedness.
        mask: (N, H, W) or None where nothing is known of occluders.
    """
    occluded = 0 if mask is None else (mask == MASK_OCCLUDER).any((1, 2))
    return side.astype(np.int64) * 2 + occluded


def swap_partners(pose: NDArray[np.int64], alike: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) for each row the next one of another pose that is `alike`, -1 for none.

    Neighbouring rows of renders show one pose: a code that carries the pose would be rewarded by the next row.
    """
    partners = np.full(len(pose), -1, np.int64)
    for i in range(len(pose)):
        others = np.roll(np.arange(len(pose)), -i - 1)
        good = others[(alike[others] == alike[i]) & (pose[others] != pose[i])]
        if good.size:
            partners[i] = good[0]
    return partners


def find_triples(pose: NDArray[np.int64], appearance: NDArray[np.int64], alike: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find x, y for every row z that is the true render of some mix.

    Args:
        pose: (N,) pose ids.
        appearance: (N,) appearance ids.
        alike: (N,) x and y must agree in it (handedness, whether there are occluders).

    Returns:
        (T, 3) row numbers x, y, z with pose[x] = pose[z], appearance[y] = appearance[z], pose[y] != pose[z] and
        appearance[x] != appearance[z]; at most one triple for each z.
    """
    triples = []
    for z in range(len(pose)):
        x = np.flatnonzero((pose == pose[z]) & (appearance != appearance[z]))
        y = np.flatnonzero((appearance == appearance[z]) & (pose != pose[z]) & (alike == alike[z]))
        if x.size and y.size:
            triples.append((x[0], y[z % len(y)], z))  # spread over the rows that could give the appearance
    return np.array(triples, np.int64).reshape(-1, 3)


def spread_poses(data: HandDataset, most: int) -> NDArray[np.int64]:
    """About `most` places in a view, or all: of poses spread evenly over it, each with two rows or more far apart.

    Two, so that mixes have true renders; far apart, since neighbours may share their light; and not the first rows of
    the view, which may be few poses in many looks.
    """
    if most >= len(data):
        return np.arange(len(data))
    pose = data.read("pose_id") if data.has("pose_id") else np.arange(len(data))
    _, group, counts = np.unique(pose, return_inverse=True, return_counts=True)
    each = max(2 if (counts > 1).any() else 1, -(-most // len(counts)))
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(counts)[:-1])
    chosen = spread_rows(len(counts), max(1, most // each))
    rows = [members[k][spread_rows(counts[k], each)] for k in chosen]
    return np.sort(np.concatenate(rows))


def load_validation(dataset: HandDataset) -> ValidationSet:
    """Read the first `MAX_ROWS` rows of a view of a dataset."""
    count = len(dataset)
    # Neighbouring rows share poses and appearances, so one block keeps more triples than scattered rows.
    rows = np.arange(min(count, MAX_ROWS))
    keypoints, visibility = dataset.read("keypoints_2d", rows), dataset.read("visibility", rows)
    triples = np.zeros((0, 3), np.int64)
    mask = dataset.read("mask", rows) if dataset.has("mask") else None
    hand = None if mask is None else torch.from_numpy(mask == MASK_HAND)
    alike = mix_kinds(dataset.read("handedness", rows), mask)
    pose_key = dataset.read("pose_id", rows) if dataset.has("pose_id") else rows
    appearance_key = rows
    if dataset.has("pose_id") and dataset.has("appearance_id"):
        appearance_key = dataset.read("appearance_id", rows)
        triples = find_triples(pose_key, appearance_key, alike)
    values, counts = np.unique(alike, return_counts=True)
    most = np.flatnonzero(alike == values[counts.argmax()]) if count else rows
    across = _first_of_each(pose_key, most if most.size >= 2 else rows)
    down = _first_of_each(appearance_key, (most if most.size >= 2 else rows)[::-1])
    return ValidationSet(
        torch.from_numpy(dataset.read("images", rows)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(keypoints),
        torch.from_numpy(visibility),
        hand,
        torch.from_numpy(triples),
        torch.from_numpy(swap_partners(pose_key, alike)),
        torch.from_numpy(across),
        torch.from_numpy(down),
    )


def _first_of_each(keys: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Up to GRID of `rows`, each with another key, in their order."""
    first = np.sort(np.unique(keys[rows], return_index=True)[1])
    return np.asarray(rows[first][:GRID])


def validate(model: PoseReader, data: ValidationSet, *, decoder: bool = True) -> dict[str, float]:
    """Measure a disentangler.

    Args:
        model: What to measure.
        data: On what.
        decoder: Whether the image decoder has been trained; if not, only `epe_px` is measured.

    Returns:
        image_l1: own reconstruction, mean per pixel, of 1.
        epe_px: the own pose branch on the images.
        swap_epe_px: the own pose branch on each pose decoded with the appearance of another pose (`swap_partners`).
        pair_psnr_db: D(p(x), a(y)) against the true render inside the hand; `copy_psnr_db` is the same with x itself in
            place of the decoded image, what doing nothing would score. Only where the rows hold such triples.
    """
    images = [batch.float() / 255.0 for batch in _blocks(data.images)]
    codes = [(model.encode_pose(batch), model.encode_appearance(batch)) for batch in images]
    pose, appearance = torch.cat([p for p, _ in codes]), torch.cat([a for _, a in codes])
    keypoints = torch.cat([model.pose_keypoints(p).cpu() for p in _blocks(pose)])
    if not decoder:
        return {"epe_px": _mean_distance(keypoints, data)}
    decoded = _decode(model, pose, appearance)
    true = data.images.float() / 255.0
    out = {"image_l1": float((decoded - true).abs().mean()), "epe_px": _mean_distance(keypoints, data)}
    swapped = data.partners >= 0
    if swapped.any():
        drawn = _decode(model, pose[swapped], appearance[data.partners[swapped]])
        seen = torch.cat([model.pose_keypoints(model.encode_pose(batch)).cpu() for batch in _blocks(drawn)])
        out["swap_epe_px"] = _mean_distance(seen, data, swapped)
    if len(data.triples) and data.hand is not None:
        x, y, z = data.triples.T
        inside = data.hand[z]
        mixed = _decode(model, pose[x], appearance[y])
        out["pair_psnr_db"] = masked_psnr(mixed, true[z], inside)
        out["copy_psnr_db"] = masked_psnr(true[x], true[z], inside)
    return out


def _blocks(rows: Tensor) -> tuple[Tensor, ...]:
    return torch.split(rows, _BATCH)


def _decode(model: PoseAppearanceModel, pose: Tensor, appearance: Tensor) -> Tensor:
    pairs = zip(_blocks(pose), _blocks(appearance), strict=True)
    return torch.cat([model.decode(p, a).cpu() for p, a in pairs])


def _mean_distance(keypoints: Tensor, data: ValidationSet, rows: Tensor | slice = slice(None)) -> float:
    labelled = data.visibility[rows] >= HIDDEN
    return float((keypoints - data.keypoints[rows]).norm(dim=-1)[labelled].mean())


def masked_psnr(images: Tensor, true: Tensor, inside: Tensor) -> float:
    """Of the mean square error over all pixels inside the masks, peak 1."""
    weight = inside[:, None].float()
    square = ((images - true) ** 2 * weight).sum() / (weight.sum() * images.shape[1]).clamp_min(1.0)
    return float(-10.0 * torch.log10(square.clamp_min(1e-10)))


def draw_grid(model: PoseAppearanceModel, data: ValidationSet, scale: int = 2) -> NDArray[np.uint8]:
    """Poses in the top row, appearances in the left column, their mixes inside: uint8 RGB."""
    across, down = data.images[data.poses], data.images[data.appearances]
    pose = model.encode_pose(across.float() / 255.0)
    appearance = model.encode_appearance(down.float() / 255.0)
    blank = np.full_like(_pixels(across)[0], 255)
    rows = [[blank, *_pixels(across)]]
    for i, image in enumerate(_pixels(down)):
        mixed = model.decode(pose, appearance[i : i + 1].expand(len(pose), *appearance.shape[1:]))
        rows.append([image, *_pixels((mixed.cpu() * 255.0).round().to(torch.uint8))])
    return image_grid(rows, scale=scale)


def _pixels(images: Tensor) -> list[NDArray[np.uint8]]:
    return list(images.permute(0, 2, 3, 1).numpy())

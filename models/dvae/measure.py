"""What is measured of a dVAE: KL per dimension, pose errors in millimetres, and images against true renders.

Errors of 3DPose and CPose are distances of joints in millimetres: side and scale are given, so a prediction in units of
s is multiplied by the row's own s; predictions are not moved onto the label's root. Joints count where visibility >= 1.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import HIDDEN, MASK_HAND
from handaug.models.disentangle.validation import find_triples, mix_kinds, spread_poses
from handaug.models.dvae.api import Dvae, load_dvae
from handaug.models.dvae.data import Poses, Tags, read_poses
from handaug.models.dvae.losses import gaussian_kl
from handaug.models.dvae.modalities import POSE_PARTS
from handaug.models.dvae.model import Batch
from handaug.models.hand_frame import nearest_rotation, reflections, rotation_angle, with_root
from handaug.models.metrics import MM_FAR_GRID, MM_GRID, KeypointMetrics, area_under_pck, pck_curve

__all__ = [
    "COLLAPSED_NATS",
    "Estimates",
    "Rows",
    "collapsed",
    "estimate_rows",
    "evaluate_dvae",
    "kl_per_dimension",
    "mean_pose",
    "measure",
    "read_rows",
    "subset",
]

COLLAPSED_NATS = 0.01
"""A dimension whose mean KL is below it carries nothing; a block of nothing but such dimensions has collapsed."""

_BATCH = 128
_TAG_SEED = 0


@dataclass(frozen=True)
class Rows:
    """Rows with complete 3D labels, in memory. First axis N."""

    images: Tensor
    """(N, C, H, W) uint8."""
    poses: Poses
    """Their labels."""
    keypoints: NDArray[np.float64]
    """(N, 21, 2) pixels, of the root asked for."""
    visibility: NDArray[np.uint8]
    """(N, 21), of the root asked for: the palm is visible where wrist or middle mcp is."""
    tags: NDArray[np.int64]
    """(N,) row whose image is the tag; -1 for none."""
    triples: NDArray[np.int64]
    """(T, 3): row x gives the pose, y the appearance, z is the true render of both."""
    hand: Tensor | None
    """(N, H, W) bool; None without masks."""

    def __len__(self) -> int:
        return len(self.images)


def read_rows(data: HandDataset, root: str, most: int | None = None) -> Rows:
    """Read the usable rows of a view, or about `most` of them: of poses spread evenly over the view, two rows each.

    Raises:
        InputError: None of its rows has complete 3D labels.
    """
    index = spread_poses(data, len(data) if most is None else most)
    index = index[read_poses(data, root, index).known.numpy()]
    if not len(index):
        raise InputError(f"{data.path}: has no rows with complete 3D labels in this split; give others")
    seen = data.read("visibility", index)
    if root == "palm":
        seen[:, 0] = np.maximum(seen[:, 0], seen[:, 9])
    tags, triples = np.full(len(index), -1, np.int64), np.zeros((0, 3), np.int64)
    mask = data.read("mask", index) if data.has("mask") else None
    hand = None if mask is None else torch.from_numpy(mask == MASK_HAND)
    if data.has("appearance_id") and data.has("pose_id"):
        appearance, pose = data.read("appearance_id", index), data.read("pose_id", index)
        possible = Tags(appearance, pose)
        found = np.flatnonzero(possible.exist)
        tags[found] = possible.draw(found, np.random.default_rng(_TAG_SEED))
        triples = find_triples(pose, appearance, mix_kinds(data.read("handedness", index), mask))
    images = torch.from_numpy(data.read("images", index)).permute(0, 3, 1, 2).contiguous()
    places = with_root(data.read("keypoints_2d", index), root)
    return Rows(images, read_poses(data, root, index), places, seen, tags, triples, hand)


@dataclass(frozen=True)
class Estimates:
    """Predictions for N rows beside their labels."""

    distances: dict[str, NDArray[np.float64]]
    """(N, 21) millimetres by pose modality, NaN where a joint does not count."""
    poses: dict[str, NDArray[np.float32]]
    """(N, 21, 3) predictions in units of s."""
    viewpoint_degrees: NDArray[np.float64] | None
    """(N,) angle between predicted and true viewpoint."""

    def figures(self) -> dict[str, float]:
        """EPE in mm (mean, median), AUC over 0-50 and 20-50 mm of each pose, and the viewpoint's mean error."""
        out = {}
        for name, distance in self.distances.items():
            finite = distance[np.isfinite(distance)]
            out[f"{name}_epe_mean_mm"] = float(finite.mean()) if finite.size else float("nan")
            out[f"{name}_epe_median_mm"] = float(np.median(finite)) if finite.size else float("nan")
            out[f"{name}_auc_0_50_mm"] = area_under_pck(distance, MM_GRID)
            out[f"{name}_auc_20_50_mm"] = area_under_pck(distance, MM_FAR_GRID)
        if self.viewpoint_degrees is not None:
            out["viewpoint_mean_deg"] = float(self.viewpoint_degrees.mean())
        return out

    def curve(self, name: str) -> NDArray[np.float64]:
        """PCK of a pose over `MM_GRID`."""
        return pck_curve(self.distances[name], MM_GRID)


def estimate_rows(model: Dvae, rows: Rows) -> Estimates:
    """Estimate every row's pose from its image, its side and its scale."""
    found = [model.estimate(rows.images[block].float() / 255.0, rows.poses.side[block]) for block in _blocks(len(rows))]
    return compare({name: torch.cat([part[name] for part in found]).cpu() for name in found[0]}, rows)


def mean_pose(known: Poses, rows: Rows) -> Estimates:
    """What always answering the mean pose of known labels scores, whatever the image shows."""
    some = known.select(known.known)
    return compare({name: some.vector(name).mean(0).expand(len(rows), -1) for name in ("pose3d", "cpose")}, rows)


def compare(predicted: dict[str, Tensor], rows: Rows) -> Estimates:
    """Set predicted vectors (N, dims) beside the labels of the rows."""
    scale = rows.poses.scale.numpy()[:, None]
    counted = rows.visibility >= HIDDEN
    poses: dict[str, NDArray[np.float32]] = {}
    distances: dict[str, NDArray[np.float64]] = {}
    for name in ("pose3d", "cpose"):
        if name in predicted:
            poses[name] = predicted[name].view(-1, 21, 3).numpy()
            error = poses[name].astype(np.float64) - rows.poses.vector(name).view(-1, 21, 3).numpy()
            distances[name] = np.where(counted, np.linalg.norm(error, axis=-1) * scale * 1000.0, np.nan)
    angle = None
    if "viewpoint" in predicted:
        found, true = (v.view(-1, 3, 3).double().numpy() for v in (predicted["viewpoint"], rows.poses.viewpoint))
        undo = reflections((rows.poses.side.numpy() > 0).astype(np.int64))
        angle = rotation_angle(nearest_rotation(found @ undo), true @ undo)
    return Estimates(distances, poses, angle)


@torch.inference_mode()
def kl_per_dimension(model: Dvae, rows: Rows) -> dict[str, list[float]]:
    """Mean KL from the prior of each latent dimension, nats, by encoder: the factors' own, and the embedders'."""
    sums: dict[str, Tensor] = {}
    count = 0
    names = [name for name, _ in model.config.blocks] if model.config.method != "cross-modal" else []
    for block in _blocks(len(rows)):
        batch = _batch(model, rows, block)
        found = {name: model.model.encode_factor(name, batch) for name in names}
        found |= {f"embed/{name}": model.model.embed(name, batch) for name in model.config.embed}
        for name, posterior in found.items():
            kl = gaussian_kl(*posterior).sum(0).double().cpu()
            sums[name] = sums[name] + kl if name in sums else kl
        count += len(block)
    return {name: (total / count).tolist() for name, total in sums.items()}


def collapsed(kl: dict[str, list[float]]) -> list[str]:
    """Encoders of which no dimension carries anything."""
    return [name for name, values in kl.items() if not max(values) >= COLLAPSED_NATS]


def measure(model: Dvae, rows: Rows, *, embedded: bool = True) -> dict[str, float]:
    """Everything that can be measured of a run on some rows.

    Args:
        model: What to measure.
        rows: On what.
        embedded: Whether the embedding step has begun; before it, nothing is read from images.

    Returns:
        pose3d_*, cpose_*, viewpoint_*: estimates from the images (see `Estimates.figures`).
        label_pose3d_epe_mean_mm: labels encoded and decoded again.
        image_l1: decoded from label and tag, with z_u from label and own image, against the row's own image, mean per
            pixel, of 1.
        synth_pose3d_epe_mean_mm: the own pose read from the image decoded from label and tag, against the label; the
            tag gives z_u too, since that of the own image may carry the pose.
        pair_psnr_db, copy_psnr_db: label of x with the appearance of y against their true render inside the hand's
            mask, and what x's own image would score.
    """
    out: dict[str, float] = {}
    reads = model.reads_images and embedded
    if reads:
        out |= estimate_rows(model, rows).figures()
    if model.config.factors:
        again = _relabel(model, rows)
        out["label_pose3d_epe_mean_mm"] = compare(again, rows).figures()["pose3d_epe_mean_mm"]
    if model.draws_images:
        out |= _measure_images(model, rows, reads)
    return out


def evaluate_dvae(checkpoint: Path, data: HandDataset, *, device: str = "cpu") -> dict[str, float]:
    """Measure a stored run on a dataset.

    Returns:
        The figures of `measure`; `epe_mean_px` where the run decodes where the hand lies; the summed KL of each encoder
        in nats and how many of its dimensions carry something; and `rows`, those with complete 3D labels.

    Raises:
        InputError: The run cannot be read, or takes other images, or the data has no 3D labels.
    """
    model = load_dvae(checkpoint, device)
    if data.size != model.size or data.channels != model.channels:
        raise InputError(
            f"{data.path}: has {data.size[1]}x{data.size[0]} px with {data.channels} channels, {checkpoint} takes "
            f"{model.size[1]}x{model.size[0]} px with {model.channels}; give data of that size"
        )
    rows = read_rows(data, model.config.root)
    out = {"rows": float(len(rows)), **measure(model, rows)}
    if model.draws_images and model.reads_images and model.places_hands:
        pixels = KeypointMetrics()
        for block in _blocks(len(rows)):
            found = model.estimate(rows.images[block].float() / 255.0, rows.poses.side[block])
            places = model.placed_keypoints(found).cpu().numpy()
            pixels.update(places, rows.keypoints[block], rows.visibility[block])
        out |= {name: value for name, value in pixels.compute().items() if value == value}
    for name, values in kl_per_dimension(model, rows).items():
        out[f"kl_{name}_nats"] = sum(values)
        out[f"kl_{name}_active"] = float(sum(value >= COLLAPSED_NATS for value in values))
    return out


def _blocks(count: int) -> list[NDArray[np.int64]]:
    return [np.arange(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH)]


def _batch(model: Dvae, rows: Rows, block: NDArray[np.int64]) -> Batch:
    """Every modality of some rows; the tag of a row without one is the row itself, which changes no other figure."""
    poses = rows.poses.select(torch.from_numpy(block)).to(model.device)
    tag = np.where(rows.tags[block] < 0, block, rows.tags[block])
    batch: Batch = {"side": poses.side}
    batch["image"] = rows.images[block].to(model.device).float() / 127.5 - 1.0
    batch["content"] = rows.images[tag].to(model.device).float() / 127.5 - 1.0
    for name in ("pose3d", "cpose", "viewpoint", "placement", *POSE_PARTS):
        batch[name] = poses.vector(name)
    return batch


def _relabel(model: Dvae, rows: Rows) -> dict[str, Tensor]:
    """Labels through q(z | y) and back; where z also needs an image, its own tag or image gives it."""
    parts = []
    with torch.inference_mode():
        for block in _blocks(len(rows)):
            batch = _batch(model, rows, block)
            found = model.vectors(model.model.encode_factors(batch)[0])
            parts.append({**found, "pose3d": model.pose3d(found, batch["side"])})
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}


def _measure_images(model: Dvae, rows: Rows, reads: bool) -> dict[str, float]:
    # Where a row's labels do not say where the hand lies, they cannot be drawn by a model that asks for it.
    usable = rows.poses.placed.cpu().numpy() if model.places_hands else np.ones(len(rows), bool)
    every, tagged = np.flatnonzero(usable), np.flatnonzero((rows.tags >= 0) & usable)
    out: dict[str, float] = {}
    if model.config.z_u and len(every):
        true = rows.images[every].float() / 255.0
        out["image_l1"] = float((_draw(model, rows, every, every) - true).abs().mean())
    if len(tagged):
        drawn = _draw(model, rows, tagged, rows.tags[tagged])
        if not model.config.z_u:
            out["image_l1"] = float((drawn - rows.images[tagged].float() / 255.0).abs().mean())
        if reads:
            some = subset(rows, tagged)
            found = [model.estimate(drawn[block], some.poses.side[block]) for block in _blocks(len(some))]
            predicted = {name: torch.cat([part[name] for part in found]).cpu() for name in found[0]}
            out["synth_pose3d_epe_mean_mm"] = compare(predicted, some).figures()["pose3d_epe_mean_mm"]
    triples = rows.triples[usable[rows.triples[:, 0]]]
    if len(triples) and rows.hand is not None:
        x, y, z = triples.T
        true, inside = rows.images[z].float() / 255.0, rows.hand[z]
        out["pair_psnr_db"] = _psnr(_draw(model, rows, x, y), true, inside)
        out["copy_psnr_db"] = _psnr(rows.images[x].float() / 255.0, true, inside)
    return out


def _draw(model: Dvae, rows: Rows, pose: NDArray[np.int64], appearance: NDArray[np.int64]) -> Tensor:
    """Images (len, C, H, W) on the CPU of the labels of some rows in the appearance of others."""
    parts = []
    for block in _blocks(len(pose)):
        p = model.encode_labels(rows.poses.select(torch.from_numpy(pose[block])))
        a = model.encode_appearance(rows.images[appearance[block]].float() / 255.0)
        parts.append(model.decode(p, a).cpu())
    return torch.cat(parts)


def subset(rows: Rows, index: NDArray[np.int64]) -> Rows:
    """Some of the rows, without their tags and true renders."""
    labels = rows.poses.select(torch.from_numpy(index))
    none = np.full(len(index), -1, np.int64)
    return Rows(rows.images[index], labels, rows.keypoints[index], rows.visibility[index], none, rows.triples[:0], None)


def _psnr(images: Tensor, true: Tensor, inside: Tensor) -> float:
    """Of the mean square error over all pixels inside the masks, peak 1."""
    weight = inside[:, None].float()
    square = ((images - true) ** 2 * weight).sum() / (weight.sum() * images.shape[1]).clamp_min(1.0)
    return float(-10.0 * torch.log10(square.clamp_min(1e-10)))

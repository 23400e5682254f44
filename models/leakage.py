"""How well a model keeps pose and appearance apart: swaps judged by an independent estimator, probes, and true renders.

Li et al. 2019 name "a more direct and quantitative measure of the effectiveness of disentanglement" as future work.
The papers measure none of this, so there are no figures of theirs to stand beside ours but for what
`benchmarks/table4.py` and `benchmarks/table3.py` measure.

* Swaps. x is drawn in the appearance of y, another pose that remix might pair it with, and read by an estimator that
  shares nothing with the model: `swap_error_to_x_px` should be near `judge_error_px`, the judge's error on the
  untouched images; an appearance code that carries pose pulls the hand towards y, which lowers `swap_error_to_y_px`
  and raises `nearer_to_y_share` above `judge_nearer_to_y_share`, what the judge's own errors make of the untouched
  images.
* Probes (`handaug.models.probes`): what can be read from the wrong code, beside chance and beside the right code.
* True renders: where rows share poses and appearances, the mix exists as a render.
* Other pictures of the same: Fig. 5 of Li et al. as a number. z drawn with the pose code of another picture of its
  pose, or with the appearance code of another picture of its appearance, against z drawn with its own codes: nothing
  should change. A probe finds what may be read from a code, this what the decoder makes of it. Either alone is won by
  a decoder that ignores that code, so they stand side by side.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import HIDDEN, MASK_BACKGROUND, MASK_FOREARM, MASK_HAND, RIGHT
from handaug.models.disentangle.validation import find_triples, masked_psnr, mix_kinds, spread_poses, swap_partners
from handaug.models.estimators import Estimator
from handaug.models.fit import predict_keypoints
from handaug.models.methods import PoseAppearanceModel
from handaug.models.metrics import keypoint_distances
from handaug.models.perceptual import perceptual_distance
from handaug.models.pose_codes import pose_codes
from handaug.models.probes import Target, angle_error_deg, features_of, fit_and_predict, point_error, r_squared

FloatArray = NDArray[np.float64]

__all__ = ["FIT_ROWS", "TEST_ROWS", "measure_disentanglement", "summary"]

FIT_ROWS = 600
"""Rows that probes learn from."""

TEST_ROWS = 400
"""Rows that everything is measured on."""

_FEWEST = 24
"""Rows under which a probe is not tried."""

_BATCH = 64


@dataclass(frozen=True)
class _Rows:
    """Rows in memory and their codes; first axis N."""

    images: Tensor
    """(N, C, H, W) float in [0, 1]."""
    pose: Tensor
    appearance: Tensor
    keypoints: NDArray[np.float32]
    visibility: NDArray[np.uint8]
    side: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None
    pose_id: NDArray[np.int64]
    """Their own numbers where the file has no such ids."""
    appearance_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def alike(self) -> NDArray[np.int64]:
        """What rows must agree in to be mixed."""
        return mix_kinds(self.side, self.mask)


def measure_disentanglement(
    model: PoseAppearanceModel,
    known: HandDataset,
    asked: HandDataset,
    judge: Estimator | None,
    progress: Progress = SILENT,
) -> dict[str, float]:
    """Measure a trained model.

    Args:
        model: Of any method that draws images from pose and appearance.
        known: Rows that probes learn from, about `FIT_ROWS` of them, spread over the poses; they may be the model's
            training rows.
        asked: Rows that neither the model nor the judge has seen, about `TEST_ROWS` of them, spread over the poses.
        judge: An estimator that shares nothing with the model, in evaluation mode; None leaves out what needs one.
        progress: Told of each part.

    Returns:
        Figures by name. Those that the rows do not allow (no masks, one side alone, no true renders) are left out.

        judge_error_px, swap_error_to_x_px, swap_error_to_y_px, nearer_to_y_share, judge_nearer_to_y_share: see above.
        pose_from_appearance_px, pose_from_pose_px, pose_chance_px: mean distance of joints, by probe and by the mean.
        hand_look_from_pose_r2, hand_look_from_appearance_r2: brightness and contrast of the hand, share of variance;
            chance is 0. hand_look_from_label_r2 is what the true joints say of them. background_look_...: the same of
            the background.
        side_from_appearance, side_from_pose, side_chance: share of sides told right; chance is always saying the
            more frequent one.
        forearm_from_appearance_deg, forearm_from_pose_deg, forearm_chance_deg: angle in the image between the true
            direction from wrist to forearm and the predicted one.
        inside_l1, outside_l1, inside_psnr_db, outside_psnr_db: own reconstruction, on the hand and off it.
        pair_psnr_db, pair_ssim, pair_perceptual and the same with copy_: the mix, and x itself, against the true
            render; PSNR inside the hand, the others over the image.
        same_pose_psnr_db, same_look_psnr_db: agreement on the hand of drawings whose pose code, or appearance code,
            comes of another picture of the same.
    """
    enough = min(len(known), len(asked)) >= _FEWEST
    with progress.task("measures of disentanglement", 5, "parts") as advance:
        test = _read(model, asked, TEST_ROWS)
        advance(1)
        out: dict[str, float] = {}
        if judge is not None and len(test) > 1:
            out |= _swaps(model, test, judge)
        advance(1)
        fit = _read(model, known, FIT_ROWS, features=True) if enough else None
        advance(1)
        if fit is not None:
            out |= _probes(fit, test)
        advance(1)
        if test.mask is not None:
            out |= _reconstruction(model, test)
            out |= _pairs(model, test, judge)
        advance(1)
    return out


def _read(model: PoseAppearanceModel, data: HandDataset, most: int, *, features: bool = False) -> _Rows:
    """Read and encode; with `features` codes are kept as probes see them, which is far less at large sizes."""
    index = spread_poses(data, most)
    images = torch.from_numpy(data.read("images", index)).permute(0, 3, 1, 2).float() / 255.0

    cuts = np.arange(_BATCH, len(index), _BATCH)

    def kept(codes: Tensor) -> Tensor:
        return torch.from_numpy(features_of(codes.cpu().numpy())) if features else codes

    return _Rows(
        images,
        torch.cat([kept(pose_codes(model, data, block)).float().cpu() for block in np.split(index, cuts)]),
        _blocks(lambda block: kept(model.encode_appearance(block)), images),
        data.read("keypoints_2d", index),
        data.read("visibility", index),
        data.read("handedness", index),
        data.read("mask", index) if data.has("mask") else None,
        data.read("pose_id", index) if data.has("pose_id") else index,
        data.read("appearance_id", index) if data.has("appearance_id") else index,
    )


def _blocks(function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    blocks = zip(*(torch.split(part, _BATCH) for part in rows), strict=True)
    return torch.cat([function(*block).float().cpu() for block in blocks])


def _decode(model: PoseAppearanceModel, pose: Tensor, appearance: Tensor) -> Tensor:
    return _blocks(lambda p, a: model.decode(p.to(model.device), a.to(model.device)).clamp(0, 1), pose, appearance)


def _swaps(model: PoseAppearanceModel, rows: _Rows, judge: Estimator) -> dict[str, float]:
    """Each row in the appearance of another pose (`swap_partners`)."""
    partners = swap_partners(rows.pose_id, rows.alike)
    x = np.flatnonzero(partners >= 0)
    if not x.size:
        return {}
    y = partners[x]
    drawn = (_decode(model, rows.pose[x], rows.appearance[y]) * 255.0).round().to(torch.uint8)
    plain, swapped = (
        predict_keypoints(judge, images).numpy() for images in ((rows.images[x] * 255.0).round().to(torch.uint8), drawn)
    )
    to_x, to_y, own, other = (_row_error(found, rows, of) for found in (swapped, plain) for of in (x, y))
    known = np.isfinite(to_x) & np.isfinite(to_y)
    if not known.any():
        return {}
    return {
        "judge_error_px": float(np.nanmean(own)),
        "swap_error_to_x_px": float(to_x[known].mean()),
        "swap_error_to_y_px": float(to_y[known].mean()),
        "nearer_to_y_share": float((to_y < to_x)[known].mean()),
        "judge_nearer_to_y_share": float((other < own)[known].mean()),
    }


def _row_error(found: NDArray[np.float32], rows: _Rows, of: NDArray[np.int64]) -> FloatArray:
    """(N,) mean distance over the labelled joints; NaN without any."""
    distances = keypoint_distances(found, rows.keypoints[of], rows.visibility[of])
    count = np.isfinite(distances).sum(1)
    sums = np.nan_to_num(distances).sum(1)
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)


def _probes(fit: _Rows, test: _Rows) -> dict[str, float]:
    """What can be read from either code, and by chance."""
    known = {one.name: Target(one.read(fit), one.groups(fit)) for one in _QUANTITIES}
    true = {one.name: one.read(test) for one in _QUANTITIES}
    usable = [one for one in _QUANTITIES if _enough(known[one.name].values) and _enough(true[one.name])]
    if len(np.unique(fit.side)) < 2 or len(np.unique(test.side)) < 2:
        usable = [one for one in usable if one.name != "side"]
    targets = {one.name: known[one.name] for one in usable}
    out: dict[str, float] = {}
    for code, a, b in (("pose", fit.pose, test.pose), ("appearance", fit.appearance, test.appearance)):
        found = fit_and_predict(features_of(a.numpy()), targets, features_of(b.numpy()))
        for one in usable:
            use = np.isfinite(true[one.name]).all(1)
            mean = np.nanmean(known[one.name].values, axis=0)
            out[f"{one.name}_from_{code}{one.unit}"] = one.score(found[one.name][use], true[one.name][use], mean)
    for one in usable:
        if one.unit != "_r2":  # of which chance is 0 by definition
            use = np.isfinite(true[one.name]).all(1)
            mean = np.nanmean(known[one.name].values, axis=0)
            guess = np.broadcast_to(mean, true[one.name][use].shape)
            out[f"{one.name}_chance{one.unit}"] = one.score(guess, true[one.name][use], mean)
    if "pose" in targets:
        out |= {f"{one.name}_from_label_r2": _from_label(known, true, one.name) for one in usable if one.unit == "_r2"}
    return out


def _enough(values: FloatArray) -> bool:
    return int(np.isfinite(values).all(1).sum()) >= _FEWEST


def _from_label(known: dict[str, Target], true: dict[str, FloatArray], name: str) -> float:
    """What the true joints say of a look."""
    learn, use = (np.isfinite(joints).all(1) for joints in (known["pose"].values, true["pose"]))
    look = Target(known[name].values[learn], known[name].groups[learn])
    found = fit_and_predict(known["pose"].values[learn], {"look": look}, true["pose"][use])["look"]
    both = np.isfinite(true[name][use]).all(1)
    return r_squared(found[both], true[name][use][both], np.nanmean(look.values, axis=0))


def _joints(rows: _Rows) -> FloatArray:
    """(N, 42) pixels, NaN where a joint has no label."""
    seen = (rows.visibility >= HIDDEN)[..., None]
    return np.where(seen, rows.keypoints, np.nan).reshape(len(rows), -1).astype(np.float64)


def _look(rows: _Rows, kind: int) -> FloatArray:
    """(N, 2 C): mean and deviation of the pixels of one kind of the mask, NaN where there are none."""
    out = np.full((len(rows), 2 * rows.images.shape[1]), np.nan)
    if rows.mask is not None:
        for i, (image, mask) in enumerate(zip(rows.images.numpy(), rows.mask, strict=True)):
            part = image[:, mask == kind]
            if part.shape[1]:
                out[i] = np.concatenate([part.mean(axis=1), part.std(axis=1)])
    return out


def _side(rows: _Rows) -> FloatArray:
    """(N, 1): 1 right, -1 left."""
    return np.where(rows.side == RIGHT, 1.0, -1.0)[:, None]


def _forearm(rows: _Rows) -> FloatArray:
    """(N, 2) unit vector in the image from the wrist to the middle of the forearm's pixels; NaN where there are few."""
    out = np.full((len(rows), 2), np.nan)
    if rows.mask is not None:
        fewest = rows.mask[0].size // 200
        for i, mask in enumerate(rows.mask):
            y, x = np.nonzero(mask == MASK_FOREARM)
            if len(x) >= fewest and rows.visibility[i, 0] >= HIDDEN:
                arm = np.array([x.mean(), y.mean()]) - rows.keypoints[i, 0]
                out[i] = arm / max(float(np.linalg.norm(arm)), 1e-9)
    return out


def summary(figures: dict[str, float]) -> list[str]:
    """The figures of `measure_disentanglement` as lines for a terminal; what was not measured is left out."""
    lines = []
    for names, text in _LINES:
        if all(name in figures for name in names):
            lines.append(text.format(**figures))
    return lines


_LINES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("swap_error_to_x_px", "judge_nearer_to_y_share"),
        "swapped images, read by an independent estimator: {swap_error_to_x_px:.2f} px from the pose of x, "
        "{swap_error_to_y_px:.2f} px from that of y, {nearer_to_y_share:.0%} nearer to y; on the untouched images "
        "{judge_error_px:.2f} px and {judge_nearer_to_y_share:.0%}",
    ),
    (
        ("pose_from_appearance_px",),
        "pose read from the appearance code: {pose_from_appearance_px:.2f} px off (chance {pose_chance_px:.2f}, from "
        "the pose code {pose_from_pose_px:.2f})",
    ),
    (
        ("hand_look_from_pose_r2", "background_look_from_pose_r2"),
        "brightness and contrast read from the pose code: {hand_look_from_pose_r2:.0%} of their variance on the hand, "
        "{background_look_from_pose_r2:.0%} on the background (chance 0 %, from the appearance code "
        "{hand_look_from_appearance_r2:.0%} and {background_look_from_appearance_r2:.0%})",
    ),
    (
        ("side_from_appearance",),
        "side read from the appearance code: {side_from_appearance:.0%} right (chance {side_chance:.0%}, from the pose "
        "code {side_from_pose:.0%})",
    ),
    (
        ("forearm_from_appearance_deg",),
        "forearm's direction read from the appearance code: {forearm_from_appearance_deg:.0f} degrees off (chance "
        "{forearm_chance_deg:.0f}, from the pose code {forearm_from_pose_deg:.0f})",
    ),
    (
        ("inside_l1",),
        "own reconstruction: L1 {inside_l1:.4f} on the hand ({inside_psnr_db:.2f} dB), {outside_l1:.4f} off it "
        "({outside_psnr_db:.2f} dB)",
    ),
    (
        ("pair_psnr_db",),
        "mixes against their true renders: {pair_psnr_db:.2f} dB on the hand (x itself {copy_psnr_db:.2f}), SSIM "
        "{pair_ssim:.3f} ({copy_ssim:.3f})",
    ),
    (
        ("pair_perceptual",),
        "perceptual distance to the true render, on the judge's features: {pair_perceptual:.3f} (x itself "
        "{copy_perceptual:.3f})",
    ),
    (
        ("same_pose_psnr_db",),
        "drawings agree on the hand to {same_pose_psnr_db:.2f} dB where the pose code is of another picture of the "
        "pose, to {same_look_psnr_db:.2f} dB where the appearance code is of another of the appearance",
    ),
)


@dataclass(frozen=True)
class _Quantity:
    """What probes look for."""

    name: str
    unit: str
    """Ending of the figure's name."""
    read: Callable[[_Rows], FloatArray]
    groups: Callable[[_Rows], NDArray[np.int64]]
    """Rows that share it are relatives for the probe."""
    score: Callable[[FloatArray, FloatArray, FloatArray], float]
    """(predicted, true, mean of the known rows) -> figure."""


_QUANTITIES = (
    _Quantity("pose", "_px", _joints, lambda rows: rows.pose_id, lambda p, t, m: point_error(p, t)),
    _Quantity("hand_look", "_r2", lambda r: _look(r, MASK_HAND), lambda r: r.appearance_id, r_squared),
    _Quantity("background_look", "_r2", lambda r: _look(r, MASK_BACKGROUND), lambda r: r.appearance_id, r_squared),
    _Quantity("side", "", _side, lambda rows: rows.pose_id, lambda p, t, m: float(((p > 0) == (t > 0)).mean())),
    _Quantity("forearm", "_deg", _forearm, lambda rows: rows.pose_id, lambda p, t, m: angle_error_deg(p, t)),
)


def _reconstruction(model: PoseAppearanceModel, rows: _Rows) -> dict[str, float]:
    assert rows.mask is not None
    drawn = _decode(model, rows.pose, rows.appearance)
    hand = torch.from_numpy(rows.mask == MASK_HAND)
    out = {}
    for name, where in (("inside", hand), ("outside", ~hand)):
        weight = where[:, None].float()
        total = (weight.sum() * drawn.shape[1]).clamp_min(1.0)
        out[f"{name}_l1"] = float(((drawn - rows.images).abs() * weight).sum() / total)
        out[f"{name}_psnr_db"] = masked_psnr(drawn, rows.images, where)
    return out


def _pairs(model: PoseAppearanceModel, rows: _Rows, judge: Estimator | None) -> dict[str, float]:
    """The mix of x and y against z, the true render of x's pose in y's appearance."""
    assert rows.mask is not None
    triples = find_triples(rows.pose_id, rows.appearance_id, rows.alike)
    if not len(triples):
        return {}
    x, y, z = triples.T
    hand = torch.from_numpy(rows.mask[z] == MASK_HAND)
    truth = rows.images[z]
    out = {}
    for name, images in (("pair", _decode(model, rows.pose[x], rows.appearance[y])), ("copy", rows.images[x])):
        out[f"{name}_psnr_db"] = masked_psnr(images, truth, hand)
        similarity = structural_similarity_index_measure(images, truth, data_range=1.0)
        assert isinstance(similarity, Tensor)
        out[f"{name}_ssim"] = float(similarity)
        if judge is not None:
            out[f"{name}_perceptual"] = float(perceptual_distance(judge, images, truth).mean())
    own = _decode(model, rows.pose[z], rows.appearance[z])
    out["same_pose_psnr_db"] = masked_psnr(_decode(model, rows.pose[x], rows.appearance[z]), own, hand)
    out["same_look_psnr_db"] = masked_psnr(_decode(model, rows.pose[z], rows.appearance[y]), own, hand)
    return out

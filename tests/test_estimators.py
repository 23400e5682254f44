"""Every registered estimator: shapes, gradients, missing labels, checkpoints, and that it learns."""

import itertools
import logging
from collections.abc import Iterator
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torchvision.models import resnet18
from toy import toy_arrays

from handaug.data_specs.errors import InputError, WorkError
from handaug.models import fit
from handaug.models.checkpoint import load_state, save_state
from handaug.models.estimators import (
    Estimator,
    build_estimator,
    estimator_names,
    load_backbone,
    load_estimator,
    register_estimator,
    save_estimator,
)
from handaug.models.estimators.predict import predict
from handaug.models.estimators.resnet import _peaks
from handaug.models.fabric import one_device
from handaug.models.fit import Batch, Batches, FitResult, fit_estimator, predict_keypoints
from handaug.models.heatmaps import render_heatmaps

SIZE = (32, 48)
"""Not square, so that a swap of x and y shows."""

LEARNING: dict[str, dict[str, Any]] = {
    "heatmap": {"width": 16, "sigma": 4.0},
    "resnet18": {"width": 32, "sigma": 4.0},
    "unet": {"width": 16},
}
"""Settings for the toy set; a newly registered estimator is tested with its own defaults."""

STEPS = {"heatmap": 300, "resnet18": 80, "dvae-pose": 100}
"""Steps for the toy set where 150 are too few or take too long."""

COPIES = {"dvae-pose": 4}
"""Copies of the toy set in a batch, where more than one: the deepest maps of this ResNet-18 have one cell at 32 px, and
the variance of four values in training is not the one that batch normalisation keeps for use."""


def _build(name: str, size: tuple[int, int] = SIZE, channels: int = 1, **settings: Any) -> Estimator:
    torch.manual_seed(0)
    return build_estimator(name, size=size, channels=channels, **settings)


def _labels(count: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.random((count, 1, *SIZE), np.float32))
    keypoints = torch.from_numpy(rng.uniform(2, 30, (count, 21, 2)).astype(np.float32))
    return images, keypoints, torch.full((count, 21), 2, dtype=torch.uint8)


def test_names_are_unique_and_unknown_ones_explained() -> None:
    assert {"heatmap", "unet", "compact", "compact-3d", "dvae-pose", "resnet18", "resnet50", "simcc"} == set(
        estimator_names()
    )
    with pytest.raises(ValueError, match="registered already"):
        register_estimator("unet")(type("Other", (Estimator,), {}))
    with pytest.raises(InputError, match="--estimator nothing: choose one of compact, compact-3d, dvae-pose, heatmap"):
        build_estimator("nothing", size=SIZE, channels=1)
    with pytest.raises(InputError, match="unexpected keyword argument 'depth'"):
        build_estimator("unet", size=SIZE, channels=1, depth=3)


@pytest.mark.parametrize("name", estimator_names())
def test_shapes_and_finite_gradients_for_every_parameter(name: str) -> None:
    estimator = _build(name, channels=3, width=4)
    images, keypoints, visibility = _labels()
    output = estimator(images.expand(-1, 3, -1, -1))
    places = estimator.keypoints(output)
    assert places.shape == (3, 21, 2) and torch.isfinite(places).all()
    extra = {"keypoints_3d": torch.rand(3, 21, 3)} if estimator.dimensions == 3 else {}
    torch.autograd.backward(estimator.loss(output, keypoints, visibility, **extra))
    for parameter in estimator.parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("name", estimator_names())
def test_missing_labels_and_weightless_samples_change_nothing(name: str) -> None:
    estimator = _build(name, width=4)
    images, keypoints, visibility = _labels()
    output = estimator(images)
    visibility[0, 3] = visibility[1] = 0
    one = estimator.loss(output, keypoints, visibility)
    keypoints[0, 3] = float("nan")
    keypoints[1] = 1e6
    assert estimator.loss(output, keypoints, visibility).item() == pytest.approx(one.item(), rel=1e-6)
    outputs = output if isinstance(output, tuple) else (output,)
    used = outputs[:1] if estimator.dimensions == 3 else outputs  # without 3D labels the 3D part learns nothing
    for gradient in torch.autograd.grad(estimator.loss(output, keypoints, visibility), used, retain_graph=True):
        assert torch.isfinite(gradient).all() and not gradient[1].any() and not gradient[0, 3].any()
        assert gradient[2].any()
    weighted = estimator.loss(output, keypoints, visibility, torch.tensor([1.0, 1.0, 0.0]))
    first = tuple(part[:1] for part in outputs) if isinstance(output, tuple) else output[:1]
    assert weighted.item() == pytest.approx(estimator.loss(first, keypoints[:1], visibility[:1]).item(), rel=1e-5)
    assert estimator.loss(output, keypoints, torch.zeros_like(visibility)).item() == 0.0


@pytest.mark.parametrize("name", estimator_names())
def test_a_saved_estimator_predicts_the_same(name: str, tmp_path: Path) -> None:
    estimator = _build(name, width=4).eval()
    images = _labels()[0]
    save_estimator(tmp_path, estimator, {"note": "x"})
    loaded, info = load_estimator(tmp_path)
    assert info == {"note": "x"}
    assert torch.equal(predict_keypoints(loaded, images), predict_keypoints(estimator, images))


@pytest.mark.parametrize("name", estimator_names())
def test_sizes_that_do_not_halve_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="multiples of 16"):
        build_estimator(name, size=(40, 32), channels=1)


@pytest.mark.parametrize("name", sorted(set(estimator_names()) - {"resnet50", "dvae-pose"}))
def test_it_learns_a_toy_set(name: str) -> None:
    """Four hands of 32 pixels by heart, to 1.5 px on average; with all-zero heatmaps the error would be over 10 px.

    Not resnet50, which is a slower resnet18 with the same head; dvae-pose is tested with its 3D below.
    """
    rows = toy_arrays(4, per_pose=1, size=32)
    images = torch.from_numpy(rows["images"]).permute(0, 3, 1, 2)
    batch: Batch = (images, torch.from_numpy(rows["keypoints_2d"]), torch.from_numpy(rows["visibility"]))
    estimator = _build(name, (32, 32), **LEARNING.get(name, {}))

    def error(model: Estimator) -> float:
        return float((predict_keypoints(model, images) - batch[1]).norm(dim=-1).mean())

    steps = STEPS.get(name, 150)
    result = fit_estimator(estimator, _forever(batch), steps=steps, lr=2e-3, checkpoints=3, validate=error)
    assert min(result.validation) < 1.5
    assert result.losses[-1] < result.losses[0]


@pytest.mark.parametrize("name", ["compact-3d", "dvae-pose"])
def test_3d_is_learned_relative_to_the_wrist(name: str) -> None:
    """Random places of a hand's size by heart: to 10 mm from some 40 mm, wherever the wrist was; and those in the
    image to 2 px."""
    torch.manual_seed(0)
    rows = toy_arrays(4, per_pose=1, size=32)
    images = torch.from_numpy(rows["images"]).permute(0, 3, 1, 2)
    places = (torch.rand(4, 21, 3, generator=torch.Generator().manual_seed(1)) - 0.5) * 0.1
    places -= places[:, :1]
    places[3, 5] = torch.nan
    points, visibility = torch.from_numpy(rows["keypoints_2d"]), torch.from_numpy(rows["visibility"])
    estimator = _build(name, (32, 32))
    batch = _copied((images, points, visibility, torch.ones(4), places), COPIES.get(name, 1))
    fit_estimator(estimator, _forever(batch), steps=STEPS.get(name, 150), lr=2e-3, checkpoints=1, validate=None)
    answer = predict(estimator, rows["images"])
    found = torch.from_numpy(answer.keypoints_3d)
    assert (torch.from_numpy(answer.keypoints) - points).norm(dim=-1).mean() < 2
    assert not found[:, 0].any()
    assert (found - places).norm(dim=-1).nanmean() < 0.01 < 0.035 < places.norm(dim=-1).nanmean()
    with pytest.raises(NotImplementedError):
        _build("compact").keypoints_3d(None)


def test_dvae_pose_loses_what_its_likelihood_and_its_posterior_cost() -> None:
    """Eq. 1 with beta, written out by torch.distributions, for a known posterior and exact places in the image."""
    estimator: Any = _build("dvae-pose", latent=5)
    _, keypoints, visibility = _labels()
    generator = torch.Generator().manual_seed(2)
    pose, true = (torch.randn(3, 21, 3, generator=generator) for _ in range(2))
    mean, log_variance = (torch.randn(3, 5, generator=generator) for _ in range(2))
    places = 0.044 * (true - true[:, :1])
    places[0, 4], places[1], visibility[2, 7] = torch.nan, torch.nan, 0
    counted = torch.isfinite(places).all(-1) & (visibility > 0)
    weights = torch.tensor([1.0, 0.5, 2.0])

    found = Normal(pose - pose[:, :1], 1.0)
    cost = found.log_prob(found.mean) - found.log_prob(true - true[:, :1])  # type: ignore[no-untyped-call]
    divergence = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1)
    rows = (cost.sum(-1) * counted).sum(1) + 0.01 * divergence
    output = (keypoints, pose, mean, log_variance)
    least = estimator.loss((keypoints, pose, 0 * mean, 0 * log_variance), keypoints, visibility)  # 0.01 px of its own
    assert least.item() == pytest.approx(0.01 / estimator.sigma_px, rel=1e-4)
    found_loss = estimator.loss(output, keypoints, visibility, weights, places)
    assert (found_loss - least).item() == pytest.approx((rows * weights).sum().item() / 3.5, rel=1e-5)
    assert (estimator.loss(output, keypoints, visibility) - least).item() == pytest.approx(
        0.01 * divergence.mean().item(), rel=1e-4
    )


def test_dvae_pose_draws_z_in_training_alone() -> None:
    estimator: Any = _build("dvae-pose")
    images = _labels()[0]
    assert not torch.equal(estimator(images)[0], estimator(images)[0])
    estimator.eval()
    places, pose, mean, _ = estimator(images)
    assert torch.equal(estimator(images)[0], places) and torch.equal(estimator(images)[1], pose)
    assert torch.equal(estimator.decoder(mean).view(3, 21, 3), pose)


def test_backbones_come_from_a_file_and_from_nowhere_else(tmp_path: Path) -> None:
    torch.manual_seed(7)
    donor = resnet18(weights=None)
    torch.save(donor.state_dict(), tmp_path / "resnet18.pth")
    safetensors.torch.save_file(donor.state_dict(), tmp_path / "resnet18.safetensors")
    for suffix in ("pth", "safetensors"):
        estimator: Any = _build("resnet18", channels=3, width=4)
        load_backbone(estimator, tmp_path / f"resnet18.{suffix}")
        assert torch.equal(estimator.backbone.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)
    # Features of our forward pass are those of torchvision's own network on an image of its own size.
    large: Any = build_estimator("resnet18", size=(128, 160), channels=3, width=4).eval()
    load_backbone(large, tmp_path / "resnet18.pth")
    images = torch.rand(1, 3, 128, 160)
    donor.eval()
    trunk = torch.nn.Sequential(*list(donor.children())[:-2])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wanted = trunk((images - mean[:, None, None]) / std[:, None, None])
    maps = large.maps(large.deconvolutions(wanted))
    assert torch.allclose(large(images), maps, atol=1e-5) and maps.shape[-2:] == (32, 40)
    bad = {"none.pth": "no such file", "text.pth": "no state dict", "other.pth": "another network"}
    (tmp_path / "text.pth").write_text("not weights")
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    for name, says in bad.items():
        with pytest.raises(InputError, match=says):
            load_backbone(large, tmp_path / name)
    with pytest.raises(InputError, match="has no ResNet"):
        load_backbone(_build("unet", width=4), tmp_path / "resnet18.pth")


@pytest.mark.parametrize(("stride", "sigma"), [(2, 2.0), (4, 4.0), (4, 2.0)])
def test_peaks_of_gaussians_are_read_exactly_up_to_the_frame(stride: int, sigma: float) -> None:
    places = torch.rand(50, 1, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([63.0, 47.0])
    maps = 0.3 * render_heatmaps(places, (48, 64), sigma, stride)
    outer = (places < stride / 2 - 0.5) | (places > torch.tensor([63.0, 47.0]) - stride / 2 + 0.5)
    error = (_peaks(maps, stride) - places).abs()
    assert error[~outer].max() < 0.02 * stride and error.max() <= stride


def _copied(batch: Batch, copies: int) -> Batch:
    """Every row of a batch so many times."""
    return tuple(part.repeat(copies, *[1] * (part.ndim - 1)) for part in batch)  # type: ignore[return-value]


def _forever(batch: Batch) -> Batches:
    return lambda _: itertools.repeat(batch)


def test_fit_keeps_the_best_checkpoint_and_looks_as_often_as_told() -> None:
    estimator = _build("unet", width=4)
    scores, seen = iter([3.0, 1.0, 2.0]), []

    def score(model: Estimator) -> float:
        assert not model.training and not torch.is_grad_enabled()
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return next(scores)

    result = fit_estimator(estimator, _forever(_labels()), steps=7, checkpoints=3, validate=score)
    assert (result.best, result.steps, result.validation) == (1, (2, 5, 7), (3.0, 1.0, 2.0))
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in estimator.state_dict().items())
    assert not torch.equal(seen[1]["maps.weight"], seen[2]["maps.weight"])


def test_fit_is_a_function_of_weights_and_batches() -> None:
    fits = []
    for draw in (1, 2):
        estimator = _build("unet", width=4)
        torch.manual_seed(draw)  # nothing in the loop may draw from here
        fit_estimator(estimator, _forever(_labels()), steps=5, checkpoints=1, validate=None)
        fits.append(estimator.state_dict())
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])


def test_a_fit_that_was_killed_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "SAVE_SECONDS", 0.0)

    def batches(first: int) -> Iterator[Batch]:
        for step in range(first, 9):
            rng = np.random.default_rng(step)
            images = torch.from_numpy(rng.random((3, 1, *SIZE), np.float32))
            keypoints = torch.from_numpy(rng.uniform(2, 30, (3, 21, 2)).astype(np.float32))
            yield images, keypoints, torch.full((3, 21), 2, dtype=torch.uint8)

    def killed(first: int) -> Iterator[Batch]:
        yield from itertools.islice(batches(first), 5)
        raise KeyboardInterrupt

    def train(source: Batches, state: Path | None, left: list[float]) -> tuple[Estimator, FitResult]:
        estimator, scores = _build("unet", width=4), iter(left)
        # A dropout, as an estimator from outside may have: what it draws must go on as well.
        estimator.register_forward_pre_hook(lambda _, given: (given[0] * (torch.rand(1, 1, *SIZE) > 0.3),))
        return estimator, fit_estimator(
            estimator, source, steps=9, checkpoints=3, validate=lambda _: next(scores), state=state
        )

    state = tmp_path / "run" / "state.pt"
    torch.manual_seed(0)
    whole, expected = train(batches, None, [3.0, 1.0, 2.0])
    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        train(killed, state, [3.0])
    saved = load_state(state)
    assert saved is not None and saved["step"] == 5
    again, result = train(batches, state, [1.0, 2.0])
    assert result == expected
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in whole.state_dict().items())

    state.write_bytes(b"nothing")
    torch.manual_seed(0)
    afresh, result = train(batches, state, [3.0, 1.0, 2.0])
    assert result == expected
    assert all(torch.equal(tensor, afresh.state_dict()[name]) for name, tensor in whole.state_dict().items())
    save_state(state, {"estimator": {}})
    with pytest.raises(InputError, match="state.pt: is no state of this estimator; remove it"):
        train(batches, state, [])


def test_mixed_precision_says_nothing_at_each_fit() -> None:
    heard = BufferingHandler(100)
    logging.getLogger("lightning_fabric").addHandler(heard)
    one_device("cpu", "bf16-mixed")
    logging.getLogger("lightning_fabric").removeHandler(heard)
    assert not heard.buffer


def test_fit_says_when_batches_run_out_or_numbers_do() -> None:
    estimator = _build("unet", width=4)
    with pytest.raises(ValueError, match="ran out after 2 of 3"):
        fit_estimator(estimator, lambda _: [_labels()] * 2, steps=3, checkpoints=1, validate=None)
    images, keypoints, visibility = _labels()
    with pytest.raises(WorkError, match="not finite"):
        fit_estimator(
            estimator, _forever((images * float("inf"), keypoints, visibility)), steps=2, checkpoints=1, validate=None
        )


def test_a_loss_that_turns_nan_ends_a_long_fit_soon_and_its_state_is_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "SAVE_SECONDS", 0.0)
    images, keypoints, visibility = _labels()
    drawn: list[int] = []

    def batches(first: int) -> Iterator[Batch]:
        for step in range(first, 4000):
            drawn.append(step)
            yield (images * float("inf") if step == 7 else images), keypoints, visibility

    for seconds, last in ((0.0, 7), (1e9, 49)):
        monkeypatch.setattr(fit, "SAVE_SECONDS", seconds)
        with pytest.raises(WorkError, match=f"not finite by step {last + 1}"):
            fit_estimator(
                _build("unet", width=4), batches, steps=4000, checkpoints=1, validate=None, state=tmp_path / "state.pt"
            )
        assert drawn[-1] == last
        state = load_state(tmp_path / "state.pt")
        assert state is not None and state["step"] == 7
        assert all(torch.isfinite(tensor).all() for tensor in state["estimator"].values())

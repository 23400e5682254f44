"""Heatmaps: the cell convention, both read-outs against known places and a second fit, and the balanced L1."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from handaug.models.heatmaps import cell_centres, gaussian_fit, heatmap_l1, render_heatmaps, soft_argmax

SIZE = (48, 64)


def _places(values: list[list[float]]) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float32)


def test_a_cell_of_stride_s_lies_at_its_pixel() -> None:
    assert cell_centres(3, 1).tolist() == [0.0, 1.0, 2.0]
    assert cell_centres(2, 4).tolist() == [1.5, 5.5]
    # A joint in the middle of the 2x2 pixels (10, 11) x (4, 5) sits exactly on cell (5, 2) of stride 2.
    maps = render_heatmaps(_places([[10.5, 4.5]]), SIZE, 2.0, stride=2)
    assert maps.shape == (1, 1, 24, 32)
    assert maps[0, 0, 2, 5] == 1.0


def test_volume_is_that_of_a_gaussian() -> None:
    maps = render_heatmaps(_places([[30.2, 20.7]]), SIZE, 2.5)
    assert maps.sum().item() == pytest.approx(2 * np.pi * 2.5**2, rel=1e-5)


def test_missing_joints_draw_empty_maps() -> None:
    maps = render_heatmaps(_places([[float("nan"), float("nan")]]), SIZE, 2.0)
    assert maps.abs().max() == 0.0


@settings(deadline=None, max_examples=60)
@given(
    x=st.floats(0, SIZE[1] - 1),
    y=st.floats(0, SIZE[0] - 1),
    sigma=st.floats(1.5, 4.0),
    stride=st.sampled_from([1, 2]),
    scale=st.floats(0.05, 3.0),
)
def test_gaussian_fit_finds_the_joint_up_to_the_frame(
    x: float, y: float, sigma: float, stride: int, scale: float
) -> None:
    place = _places([[x, y]])
    found = gaussian_fit(scale * render_heatmaps(place, SIZE, sigma * stride, stride), sigma * stride, stride)
    assert (found - place).abs().max() < 0.05


@settings(deadline=None, max_examples=30)
@given(x=st.floats(8, 55), y=st.floats(8, 39), stride=st.sampled_from([1, 2]))
def test_soft_argmax_finds_the_joint_away_from_the_frame(x: float, y: float, stride: int) -> None:
    place = _places([[x, y]])
    logits = render_heatmaps(place, SIZE, 1.8, stride).clamp_min(1e-12).log()
    assert (soft_argmax(logits, stride) - place).abs().max() < 0.05


def test_gaussian_fit_agrees_with_nonlinear_least_squares() -> None:
    rng = np.random.default_rng(0)
    row, column = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)

    def gaussian(_: object, peak: float, x: float, y: float, sigma: float) -> Any:
        return (peak * np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * sigma**2))).ravel()

    for _ in range(10):
        x, y = rng.uniform(6, 40, size=2)
        noisy = gaussian(None, 0.8, x, y, 2.5) + rng.normal(0, 0.01, row.size)
        best, _ = curve_fit(gaussian, None, noisy, p0=[1.0, round(x), round(y), 2.0])
        found = gaussian_fit(torch.from_numpy(noisy.reshape(1, 1, *SIZE)), 2.5)[0, 0]
        assert np.abs(found.numpy() - best[1:3]).max() < 0.1


def test_read_outs_of_flat_and_broken_maps_are_finite() -> None:
    flat = torch.zeros(1, 1, *SIZE)
    spike = flat.clone()
    spike[0, 0, 7, 9] = 1.0
    assert torch.isfinite(gaussian_fit(flat, 2.0)).all()
    assert gaussian_fit(spike, 2.0)[0, 0].tolist() == [9.0, 7.0]
    assert soft_argmax(flat)[0, 0].tolist() == pytest.approx([31.5, 23.5])


def test_l1_is_one_for_empty_maps_zero_for_exact_ones_and_blind_to_unlabelled_joints() -> None:
    target = render_heatmaps(_places([[30.0, 20.0], [25.3, 28.1]]), SIZE, 2.5)
    both, first = torch.ones(1, 2), torch.tensor([[1.0, 0.0]])
    assert heatmap_l1(torch.zeros_like(target), target, both, 2.5).item() == pytest.approx(1.0, abs=1e-3)
    assert heatmap_l1(target, target, both, 2.5).item() == 0.0
    wrong = target.clone()
    wrong[:, 1] += 5.0
    assert heatmap_l1(wrong, target, first, 2.5).item() == 0.0
    assert heatmap_l1(wrong, target, torch.zeros(1, 2), 2.5).item() == 0.0


def test_balance_raises_maps_where_plain_l1_flattens_them() -> None:
    """A joint equally likely in 48 places: from nearly empty maps, plain L1 goes to zero, the balanced one does not."""
    places = torch.tensor([[[10.0 + 3 * (i % 8), 10.0 + 3 * (i // 8)]] for i in range(48)])
    targets = render_heatmaps(places, SIZE, 2.5)
    maps = torch.full((1, 1, *SIZE), 0.02, requires_grad=True)
    same = maps.expand_as(targets)
    (plain,) = torch.autograd.grad((same - targets).abs().sum(), maps, retain_graph=True)
    (balanced,) = torch.autograd.grad(heatmap_l1(same, targets, torch.ones(48, 1), 2.5), maps)
    assert (plain > 0).all()  # gradient descent lowers every pixel
    assert balanced[0, 0, 18, 20] < 0 < balanced[0, 0, 40, 60]  # raised among the places, lowered elsewhere

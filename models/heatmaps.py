"""Heatmaps and how to read a joint's place from them.

Convention, written once: cell i of a heatmap of stride s lies at pixel (i + 0.5) * s - 0.5 of the image (centre of the
top-left pixel is (0, 0)); at stride 1 cell i is pixel i. Sigmas and places are in image pixels at every stride. A
heatmap has peak 1 where the joint sits on a cell. Axes: (N, joints, rows = y, columns = x); places are (x, y).
"""

import math

import torch
from torch import Tensor

__all__ = ["cell_centres", "gaussian_fit", "heatmap_l1", "place_cross_entropy", "render_heatmaps", "soft_argmax"]


def cell_centres(cells: int, stride: int, device: torch.device | None = None) -> Tensor:
    """Pixel coordinates of the cells along one axis, (cells,) float32.

    Example:
        >>> cell_centres(3, 2).tolist()
        [0.5, 2.5, 4.5]
    """
    return (torch.arange(cells, dtype=torch.float32, device=device) + 0.5) * stride - 0.5


def render_heatmaps(keypoints: Tensor, size: tuple[int, int], sigma: float, stride: int = 1) -> Tensor:
    """Draw exp(-|cell - joint|^2 / (2 sigma^2)) for every joint: the P(x) of Li et al. 2019, section 3.1.

    Args:
        keypoints: (N, J, 2) x, y in pixels, any float dtype; NaN draws an empty map.
        size: Image height and width in pixels, multiples of `stride`.
        sigma: Standard deviation in pixels.
        stride: Pixels per cell.

    Returns:
        (N, J, H / stride, W / stride) float32, peak at most 1.
    """
    height, width = size
    places = keypoints.float()
    scale = 1.0 / (2.0 * sigma * sigma)
    columns = cell_centres(width // stride, stride, places.device)
    rows = cell_centres(height // stride, stride, places.device)
    along_x = torch.exp(-((columns - places[..., :1]) ** 2) * scale)
    along_y = torch.exp(-((rows - places[..., 1:]) ** 2) * scale)
    return torch.nan_to_num(along_y.unsqueeze(-1) * along_x.unsqueeze(-2))


def heatmap_l1(predicted: Tensor, target: Tensor, labelled: Tensor, sigma: float, stride: int = 1) -> Tensor:
    """L1 between heatmaps, Eqs. 1 and 6 of Li et al. 2019, balanced so that it learns sparse maps.

    The best constant answer to a plain L1 is the median of the target over all images that look alike to the network:
    zero everywhere until a joint's place is known to about a sigma. Trained so from random weights the maps go to zero
    and stay there (measured: 300 steps at sigma 2.5 without leaving it). So the error of a pixel weighs
    1 + balance * max(P, P_hat^2), held constant in the gradient, with balance such that a whole Gaussian weighs four
    times as much as an empty map: a place then rises from zero once it is likelier than about 0.5 %. Weighting by the
    target alone would make a second, wrong peak nearly free, and maps would show every place that is possible; with
    the prediction in the weight a peak stops at about the root of the odds of its place, so the highest one is the
    likeliest. The square leaves low peaks cheap, which is what the start needs. The loss is zero exactly where Eq. 1
    is.

    Args:
        predicted: (N, J, rows, columns).
        target: (N, J, rows, columns), of `render_heatmaps`.
        labelled: (N, J), weight of each joint; 0 leaves it out whatever its target holds.
        sigma: Of the targets, pixels.
        stride: Pixels per cell.

    Returns:
        Scalar; 1 for all-zero maps of joints well inside the frame, 0 without any labelled joint.
    """
    # Integrals of P and of P^2 over the plane, in cells.
    volume, square = (2.0 * math.pi * (sigma / stride) ** 2, math.pi * (sigma / stride) ** 2)
    balance = 4.0 * target.shape[-2] * target.shape[-1] / volume
    maps = predicted.float()
    weight = 1.0 + balance * torch.maximum(target, maps.detach().clamp(0.0, 1.0) ** 2)
    per_map = (weight * (maps - target).abs()).sum((-2, -1))
    return (per_map * labelled).sum() / ((volume + balance * square) * labelled.sum().clamp_min(1.0))


def place_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy between the softmax of each map and its target, both taken as distributions over the cells.

    Args:
        logits: (N, J, rows, columns), any float dtype.
        target: (N, J, rows, columns), of `render_heatmaps`.

    Returns:
        (N, J) nats; ln(rows * columns) for flat maps, 0 where the target is empty.
    """
    wanted = target.flatten(-2)
    wanted = wanted / wanted.sum(-1, keepdim=True).clamp_min(1e-6)
    return -(wanted * logits.float().flatten(-2).log_softmax(-1)).sum(-1)


def soft_argmax(logits: Tensor, stride: int = 1) -> Tensor:
    """Expected place under the softmax of each map (integral regression).

    Args:
        logits: (N, J, rows, columns), any float dtype.
        stride: Pixels per cell.

    Returns:
        (N, J, 2) float32 pixels; differentiable, never outside the span of the cell centres.
    """
    rows, columns = logits.shape[-2:]
    weights = logits.float().flatten(-2).softmax(-1).view(*logits.shape)
    x = (weights.sum(-2) * cell_centres(columns, stride, logits.device)).sum(-1)
    y = (weights.sum(-1) * cell_centres(rows, stride, logits.device)).sum(-1)
    return torch.stack([x, y], dim=-1)


@torch.no_grad()
def gaussian_fit(heatmaps: Tensor, sigma: float, stride: int = 1) -> Tensor:
    """Fit an isotropic Gaussian to each map and return its mean, as section 4.5 of Li et al. 2019 reads its heatmaps.

    The logarithm of a Gaussian is a paraboloid, ln h = a + b x + c y + d (x^2 + y^2), with its mean at (-b, -c) / (2
    d). It is fitted by least squares, weighted with h^2 (the variance of ln h is that of h over h^2; Guo 2011), to
    the cells within 2 sigma of the highest one. Unlike the centre of mass this has no bias where the frame cuts the
    Gaussian. A map that does not bend downwards, or whose mean leaves the window, is read at its highest cell.

    Args:
        heatmaps: (N, J, rows, columns), any float dtype; values <= 0 count as empty.
        sigma: Standard deviation the maps were trained with, in pixels; sets the window only.
        stride: Pixels per cell.

    Returns:
        (N, J, 2) float32 pixels.
    """
    count, joints, rows, columns = heatmaps.shape
    flat = heatmaps.float().reshape(count * joints, rows * columns)
    peak, index = flat.max(dim=1)
    row, column = index // columns, index % columns
    radius = max(1, math.ceil(2.0 * sigma / stride))
    offsets = torch.arange(-radius, radius + 1, device=flat.device)
    dy, dx = (grid.flatten() for grid in torch.meshgrid(offsets, offsets, indexing="ij"))
    near = (dx * dx + dy * dy) <= radius * radius
    dy, dx = dy[near], dx[near]
    at_row, at_column = row[:, None] + dy, column[:, None] + dx
    inside = (at_row >= 0) & (at_row < rows) & (at_column >= 0) & (at_column < columns)
    cells = at_row.clamp(0, rows - 1) * columns + at_column.clamp(0, columns - 1)
    # Relative to the peak, so that the fit does not depend on the map's scale; far below it the logarithm is all noise.
    values = flat.gather(1, cells) / peak.clamp_min(1e-12)[:, None]
    weights = torch.where(inside & (values > 0.02), values, torch.zeros_like(values)) ** 2

    # Offsets in units of the radius keep the 4x4 normal equations well conditioned.
    x, y = dx.float() / radius, dy.float() / radius
    design = torch.stack([torch.ones_like(x), x, y, x * x + y * y], dim=1).double()
    weighted = weights.double()[:, :, None] * design
    normal = torch.einsum("nki,kj->nij", weighted, design)
    target = torch.einsum("nki,nk->ni", weighted, values.clamp_min(1e-6).log().double())
    normal = normal + 1e-9 * torch.eye(4, dtype=torch.float64, device=flat.device)
    solution = torch.linalg.solve(normal, target)
    bend = solution[:, 3].clamp_max(-1e-6)
    offset = (-solution[:, 1:3] / (2.0 * bend[:, None]) * radius).float()
    good = (solution[:, 3] < -1e-6) & (offset.abs().amax(dim=1) <= radius) & torch.isfinite(offset).all(dim=1)
    offset = torch.where(good[:, None], offset, torch.zeros_like(offset))
    place = torch.stack([column, row], dim=1).float() + offset
    return ((place + 0.5) * stride - 0.5).reshape(count, joints, 2)

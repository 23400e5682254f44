"""What handaug's own disentangler is trained to: the true render of every mix, layer by layer.

For rows x, y, z where z shows the pose of x in the appearance of y (see `pairs`), with masks from the labels:

* image: L1 of the composed mix against z; pixels of the hand count three times, because there are fewer of them.
* hand: L1 of the hand layer against z inside z's mask. light: the same of its linear part.
* edge: L1 between the differences of neighbouring pixels of the hand layer and of z, both inside z's mask: plain L1
  is content with a flat hand, and fingers in front of a palm are seen by their edges alone.
* plate: L1 of y's plate against z outside z's mask; where y's own hand stood, z shows what is behind it. To know what
  stands behind a hand is to know where it ends: trained without it, 51 poses gave mixes 1.6 dB worse on unseen ones.
* mask: cross-entropy of each row's mask.
* shade: the pixels of x, fitted linearly by the geometry code of z, which shows the same pose in another light. What
  no choice of light can explain is what the code does not know of the surface. As in photometric stereo, the same
  shape under two lights gives the shape away.
* same: L1 between the geometry codes of x and z, per pixel of the hand: they show the same pose, so nothing in them
  may come from the light or the background.
* place: cross-entropy of each joint's place, in nats, read from the geometry code by one linear map.

The L1 terms are divided by 0.1, the order of a hand image's contrast, as in `handaug.models.disentangle.losses`.
"""

import torch
from torch import Tensor
from torch.nn import functional

from handaug.models.heatmaps import place_cross_entropy, render_heatmaps
from handaug.models.layered.config import LayeredConfig
from handaug.models.layered.networks import LayeredNet, Layers, Look, fit_light

__all__ = ["STRIDE", "mix_terms", "total_loss"]

STRIDE = 2
"""Of the maps of places."""

_SCALE = 0.1
_HAND_WEIGHT = 2.0
_SIGMA = 1.5


def mix_terms(
    model: LayeredNet, images: Tensor, inside: Tensor, keypoints: Tensor, labelled: Tensor, triples: Tensor
) -> dict[str, Tensor]:
    """All terms, unweighted.

    Args:
        model: The networks.
        images: (N, C, H, W) in [0, 1].
        inside: (N, 1, H, W) true masks, 0 or 1.
        keypoints: (N, 21, 2) pixels, finite.
        labelled: (N, 21), 1 where the joint is labelled.
        triples: (M, 3) places x, y, z in the batch, M >= 1.
    """
    x, y, z = triples.T
    layers = model(images)
    look = model.look(images, layers, inside)
    mixed = Look(look.light[y], look.style[y])
    hand, lit = model.hand(layers.geometry[x], mixed)
    composed = model.compose(layers.mask[x], hand, layers.plate[y])
    truth, mask = images[z], inside[z]
    sigma = _SIGMA * min(images.shape[2:]) / 64.0
    entropy = place_cross_entropy(
        model.place_maps(layers.geometry), render_heatmaps(keypoints, (images.shape[2], images.shape[3]), sigma, STRIDE)
    )
    return {
        "image": _l1(composed, truth, 1.0 + _HAND_WEIGHT * mask, torch.ones_like(mask)),
        "hand": _l1(hand, truth, mask),
        "light": _l1(lit, truth, mask),
        "edge": _edge(hand, truth, mask),
        "plate": _l1(layers.plate[y], truth, 1.0 - mask),
        "mask": functional.binary_cross_entropy_with_logits(layers.mask.float(), inside),
        "shade": _shade(model, layers, images, inside, x, z),
        "same": _same(layers.geometry[x], layers.geometry[z], mask),
        "place": (entropy * labelled).sum() / labelled.sum().clamp_min(1.0),
    }


def _shade(model: LayeredNet, layers: Layers, images: Tensor, inside: Tensor, x: Tensor, z: Tensor) -> Tensor:
    fitted = model.lit(layers.geometry[z], fit_light(layers.geometry[z], images[x], inside[z]))
    return _l1(fitted, images[x], inside[z])


def _same(one: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    features = one.shape[1] // 4
    return (one.float() - other.float()).abs().sum() / (features * mask.sum().clamp_min(1.0))


def _edge(drawn: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    across = _l1(drawn.diff(dim=3), truth.diff(dim=3), mask[..., 1:] * mask[..., :-1])
    down = _l1(drawn.diff(dim=2), truth.diff(dim=2), mask[..., 1:, :] * mask[..., :-1, :])
    return across + down


def _l1(drawn: Tensor, truth: Tensor, weight: Tensor, over: Tensor | None = None) -> Tensor:
    """Weighted mean of the absolute difference, over the sum of `over` (of the weights if not given)."""
    total = (weight if over is None else over).sum().clamp_min(1.0) * truth.shape[1]
    return ((drawn.float() - truth).abs() * weight).sum() / total / _SCALE


def total_loss(terms: dict[str, Tensor], config: LayeredConfig) -> Tensor:
    """The weighted sum."""
    return torch.stack([getattr(config, f"alpha_{name}") * term for name, term in terms.items()]).sum()

"""The cheap estimator: a ResNet of four blocks behind a stride of 4, read by an integral over 16ths of the image.

At 64 px an image costs half of what the narrow U-Net asks for, and it learns well in small batches; what it gives up is
detail, which only pays once places are known to a few pixels (docs/results.md). Its 3D sibling adds the pose relative
to the wrist.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from handaug.data_specs.joints import N_JOINTS
from handaug.models.estimators.base import Estimator, labelled_joints, register_estimator
from handaug.models.estimators.blocks import Residual, convolution
from handaug.models.heatmaps import place_cross_entropy, render_heatmaps, soft_argmax
from handaug.models.networks import check_size, initialise

__all__ = ["Compact3DEstimator", "CompactEstimator"]

_STRIDE = 4
_HAND_M = 0.02
"""Scale of the 3D term: about a finger's breadth."""


@register_estimator("compact")
class CompactEstimator(Estimator):
    """Residual blocks at strides 4, 8 and 16, brought back to stride 4, and a softmax over each joint's cells.

    The loss is that of `UNetEstimator`: mean distance over sigma plus cross-entropy with a Gaussian at the label.

    Args:
        size: Image height and width in pixels, multiples of 16.
        channels: Image channels.
        width: Channels at stride 4; twice, four and eight times as many further down.
        sigma: Of the target Gaussian, pixels of a 64 pixel image.
    """

    def __init__(self, size: tuple[int, int], channels: int, *, width: int = 16, sigma: float = 2.0) -> None:
        super().__init__(size, channels, width=width, sigma=sigma)
        check_size(size, f"the {self.name} estimator")
        self.sigma_px = sigma * min(size) / 64.0
        self.stem = convolution(channels, width, 7, stride=_STRIDE)
        self.first = Residual(width, 2 * width)
        self.second = Residual(2 * width, 4 * width, stride=2)
        self.third = Residual(4 * width, 8 * width, stride=2)
        self.up_second = convolution(8 * width, 4 * width, 1)
        self.up_first = nn.Conv2d(4 * width, 2 * width, 1)
        self.last = convolution(2 * width, 2 * width)
        self.maps = nn.Conv2d(2 * width, N_JOINTS, 1)
        initialise(self)
        # Start from flat maps: the middle of the image is the best guess before anything is known.
        nn.init.normal_(self.maps.weight, std=1e-3)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> features (N, 8 width, H/16, W/16) and logits (N, 21, H/4, W/4)."""
        fine = self.first(self.stem(images * 4.0 - 2.0))
        middle = self.second(fine)
        deep = self.third(middle)
        mixed = functional.interpolate(self.up_second(deep), scale_factor=2.0, mode="nearest") + middle
        mixed = functional.interpolate(self.up_first(mixed), scale_factor=2.0, mode="nearest") + fine
        return deep, self.maps(self.last(mixed))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Images -> logits (N, 21, H/4, W/4)."""
        return self.features(images)[1]

    def loss(
        self,
        output: Tensor | tuple[Tensor, Tensor],
        keypoints: Tensor,
        visibility: Tensor,
        weights: Tensor | None = None,
        keypoints_3d: Tensor | None = None,
    ) -> Tensor:
        """Mean distance over sigma plus cross-entropy, both over the labelled joints."""
        assert isinstance(output, Tensor)
        labelled = labelled_joints(keypoints, visibility, weights)
        places = torch.where(labelled[..., None] > 0, keypoints.float(), torch.zeros_like(keypoints))
        entropy = place_cross_entropy(output, render_heatmaps(places, self.size, self.sigma_px, _STRIDE))
        # The square root's slope at zero is infinite; 0.01 px is below any label's accuracy.
        distance = ((soft_argmax(output, _STRIDE) - places).square().sum(-1) + 1e-4).sqrt() / self.sigma_px
        return ((entropy + distance) * labelled).sum() / labelled.sum().clamp_min(1.0)

    def keypoints(self, output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """Soft-argmax of each map."""
        assert isinstance(output, Tensor)
        return soft_argmax(output, _STRIDE)


@register_estimator("compact-3d")
class Compact3DEstimator(CompactEstimator):
    """The same, with root-relative 3D: a linear layer on the deepest features beside the places of the maps.

    Metric size cannot be seen in one crop, so what is learned is the size of the hands in the training data; PA-MPJPE
    does not depend on it. Rows without a finite wrist teach 2D only.
    """

    dimensions = 3

    def __init__(self, size: tuple[int, int], channels: int, *, width: int = 16, sigma: float = 2.0) -> None:
        super().__init__(size, channels, width=width, sigma=sigma)
        cells = size[0] * size[1] // 256
        self.lift = nn.Sequential(
            nn.Linear(8 * width * cells + 2 * N_JOINTS, 256), nn.ReLU(inplace=True), nn.Linear(256, 3 * N_JOINTS)
        )
        last = self.lift[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=1e-3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images -> logits (N, 21, H/4, W/4) and places (N, 21, 3) in metres, not yet moved to the wrist."""
        deep, logits = self.features(images)
        size = torch.tensor([self.size[1], self.size[0]], dtype=torch.float32, device=logits.device)
        seen = (soft_argmax(logits, _STRIDE).detach() / size - 0.5).flatten(1)
        lifted = self.lift(torch.cat([deep.flatten(1), seen.to(deep.dtype)], dim=1)).float() * _HAND_M
        return logits, lifted.unflatten(1, (N_JOINTS, 3))

    def loss(
        self,
        output: Tensor | tuple[Tensor, Tensor],
        keypoints: Tensor,
        visibility: Tensor,
        weights: Tensor | None = None,
        keypoints_3d: Tensor | None = None,
    ) -> Tensor:
        """The 2D loss plus the mean 3D distance over 20 mm, of joints that are labelled in both."""
        assert isinstance(output, tuple)
        flat = super().loss(output[0], keypoints, visibility, weights)
        if keypoints_3d is None:
            return flat
        finite = torch.isfinite(keypoints_3d).all(-1)
        labelled = labelled_joints(keypoints, visibility, weights) * finite
        places = torch.where(finite[..., None], keypoints_3d.float(), torch.zeros_like(keypoints_3d))
        distance = ((self.keypoints_3d(output) - places).square().sum(-1) + 1e-8).sqrt() / _HAND_M
        return flat + (distance * labelled).sum() / labelled.sum().clamp_min(1.0)

    def keypoints(self, output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """Soft-argmax of each map."""
        return super().keypoints(output[0])

    def keypoints_3d(self, output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """Places relative to the wrist."""
        return output[1] - output[1][:, :1]

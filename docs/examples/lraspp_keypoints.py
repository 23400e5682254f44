"""A third-party network as a hand pose estimator: torchvision's LR-ASPP segmentation network, 21 classes, one a joint.

    PYTHONPATH=docs/examples handaug train-pose --estimator lraspp_keypoints:factory

A segmentation network gives each pixel a score for each class. Read as a map of places, the class of a joint is its
heatmap: the softmax over the pixels says where the joint is, and its expectation is the place.
"""

import torch
from torch import Tensor, nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

JOINTS = 21
SIGMA = 0.03
"""Width of the label, as a share of the image's shorter side."""


class LrasppKeypoints(nn.Module):
    """What handaug asks of an estimator: `forward`, `loss` and `keypoints`."""

    def __init__(self, size: tuple[int, int], channels: int) -> None:
        super().__init__()
        height, width = size
        self.network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=JOINTS)
        self.sigma = SIGMA * min(size)
        # Pixel coordinates: the centre of the top-left pixel is (0, 0).
        self.register_buffer("x", torch.arange(width, dtype=torch.float32), persistent=False)
        self.register_buffer("y", torch.arange(height, dtype=torch.float32)[:, None], persistent=False)
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] -> logarithm of each joint's distribution over the pixels (N, 21, H, W)."""
        scores = self.network(images.expand(-1, 3, -1, -1) * 4 - 2)["out"].float()
        return scores.flatten(2).log_softmax(-1).view_as(scores)

    def loss(self, output: Tensor, keypoints: Tensor, visibility: Tensor, weights: Tensor | None = None) -> Tensor:
        """Cross-entropy with a Gaussian at the label. Joints with visibility 0 take no part; their place may be NaN."""
        labelled = (visibility > 0).float()
        if weights is not None:
            labelled = labelled * weights[:, None]
        places = torch.where(labelled[..., None] > 0, keypoints, torch.zeros_like(keypoints))[..., None, None]
        target = torch.exp(-((self.x - places[:, :, 0]) ** 2 + (self.y - places[:, :, 1]) ** 2) / (2 * self.sigma**2))
        target = target / target.sum((2, 3), keepdim=True).clamp_min(1e-6)
        return (-(target * output).sum((2, 3)) * labelled).sum() / labelled.sum().clamp_min(1.0)

    def keypoints(self, output: Tensor) -> Tensor:
        """Expected place of each joint (N, 21, 2), pixels."""
        share = output.exp()
        return torch.stack([(share * self.x).sum((2, 3)), (share * self.y).sum((2, 3))], dim=-1)


def factory(size: tuple[int, int], channels: int) -> LrasppKeypoints:
    """What `--estimator lraspp_keypoints:factory` calls."""
    return LrasppKeypoints(size, channels)

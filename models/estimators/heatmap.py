"""The pose branch of Li et al. 2019 alone: E_p and D_p with the L1 heatmap loss, model 1 of their Table 4."""

from torch import Tensor

from handaug.data_specs.joints import JOINTS
from handaug.models.estimators.base import Estimator, labelled_joints, register_estimator
from handaug.models.heatmaps import gaussian_fit, heatmap_l1, render_heatmaps
from handaug.models.networks import EncoderBlock, PoseDecoder, Trunk, check_size, initialise

__all__ = ["HeatmapEstimator"]


@register_estimator("heatmap")
class HeatmapEstimator(Estimator):
    """Heatmaps at full resolution, read by a Gaussian fit.

    Args:
        size: Image height and width in pixels, multiples of 16.
        channels: Image channels.
        width: Channels at full resolution.
        sigma: Of the heatmaps, pixels of a 64 pixel image.
    """

    readout_in_graph = False

    def __init__(self, size: tuple[int, int], channels: int, *, width: int = 16, sigma: float = 2.5) -> None:
        super().__init__(size, channels, width=width, sigma=sigma)
        check_size(size, "the heatmap estimator")
        self.sigma_px = sigma * min(size) / 64.0
        self.trunk = Trunk(channels, width)
        self.pose_encoder = EncoderBlock(4 * width, 8 * width)
        self.pose_decoder = PoseDecoder(len(JOINTS), width)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Images -> heatmaps (N, 21, H, W)."""
        maps: Tensor = self.pose_decoder(self.pose_encoder(self.trunk(images)))
        return maps

    def loss(
        self,
        output: Tensor,
        keypoints: Tensor,
        visibility: Tensor,
        weights: Tensor | None = None,
        keypoints_3d: Tensor | None = None,
    ) -> Tensor:
        """Eq. 1 of the paper, as `heatmap_l1` scales it."""
        target = render_heatmaps(keypoints, self.size, self.sigma_px)
        return heatmap_l1(output, target, labelled_joints(keypoints, visibility, weights), self.sigma_px)

    def keypoints(self, output: Tensor) -> Tensor:
        """Mean of the Gaussian fitted to each map."""
        return gaussian_fit(output, self.sigma_px)

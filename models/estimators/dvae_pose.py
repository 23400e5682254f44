"""The pose model of Yang & Yao 2019 as an estimator: image -> z -> 3D pose, by the networks of `handaug.models.dvae`.

It minimises Eq. 1 with the weights of Eqs. 2 and 4, in the units of `handaug.models.dvae.modalities`,

    -log p(3DPose | z) + beta * KL(q(z | image) || N(0, I)) + distance over sigma of the joints in the image,

for the places that every estimator gives are read from z too. In training z is drawn from q; in use it is the mean, so
the same image has the same answer.

What makes z disentangled, the factors and the two steps of Algorithm 1 (Eqs. 2 to 5), is left to `handaug disentangle
--method dvae-pose`: CPose cannot be had without the side of the hand, which no estimator is told.
"""

import torch
from torch import Tensor, nn

from handaug.data_specs.joints import N_JOINTS
from handaug.models.dvae.losses import gaussian_kl, gaussian_nll, sample
from handaug.models.dvae.modalities import modality
from handaug.models.dvae.networks import ImageEncoder, VectorDecoder
from handaug.models.estimators.base import Estimator, labelled_joints, register_estimator
from handaug.models.networks import check_size

__all__ = ["DvaePoseEstimator"]

_POSE = modality("pose3d")
_UNIT_M = 0.044
"""One s for all hands, that of our renders of adults: the hand's own, which the paper is given, an estimator is not."""

Output = tuple[Tensor, Tensor, Tensor, Tensor]
"""Places (N, 21, 2) in pixels, 3DPose (N, 21, 3) in units of s and not yet moved to the wrist, mean and log-variance of
q(z | image), each (N, latent)."""


@register_estimator("dvae-pose")
class DvaePoseEstimator(Estimator):
    """ResNet-18 to z; six fully connected layers of 512 from z to 3D, a small head from z to places in the image.

    Metric size cannot be seen in one crop, so what is learned is the size of the hands in the training data. Joints
    without 3D teach 2D only.

    Args:
        size: Image height and width in pixels, multiples of 16.
        channels: Image channels.
        width: Hidden units of the head of the places; encoder and pose decoder have the paper's size.
        latent: Dimensions d of z.
        beta: Weight of the KL divergence, under a 3D likelihood of weight 1: a noise of sqrt(beta) s, 4.4 mm.
        sigma: Distance in the image that costs 1, pixels of a 64 pixel image.
    """

    dimensions = 3

    def __init__(
        self,
        size: tuple[int, int],
        channels: int,
        *,
        width: int = 256,
        latent: int = 64,
        beta: float = 0.01,
        sigma: float = 2.0,
    ) -> None:
        super().__init__(size, channels, width=width, latent=latent, beta=beta, sigma=sigma)
        check_size(size, f"the {self.name} estimator")
        self.beta = beta
        self.sigma_px = sigma * min(size) / 64.0
        self.encoder = ImageEncoder(channels, latent)
        self.decoder = VectorDecoder(latent, _POSE.dims)
        last = nn.Linear(width, 2 * N_JOINTS)
        # Start in the middle of the image, the best guess before anything is known.
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(nn.Linear(latent, width), nn.ReLU(inplace=True), last)

    def forward(self, images: Tensor) -> Output:
        """Images -> what z decodes to, and q(z | image) itself."""
        mean, log_variance = self.encoder(images * 2.0 - 1.0)
        z = sample(mean, log_variance, torch.randn_like(mean)) if self.training else mean
        sides = torch.tensor([self.size[1], self.size[0]], dtype=torch.float32, device=z.device)
        # In half sides of the image from its middle.
        halves = self.head(z).float().unflatten(1, (N_JOINTS, 2))
        pose = self.decoder(z).unflatten(1, (N_JOINTS, 3))
        return (halves + 1.0) * sides / 2.0 - 0.5, pose, mean, log_variance

    def loss(
        self,
        output: Output,
        keypoints: Tensor,
        visibility: Tensor,
        weights: Tensor | None = None,
        keypoints_3d: Tensor | None = None,
    ) -> Tensor:
        """Mean distance over sigma of the labelled joints, plus the mean over rows of the 3D likelihood and the KL.

        Both are sums over dimensions, and joints without 3D add nothing, as in `handaug.models.dvae.losses`. A row
        without any labelled joint has no KL either.
        """
        mean, log_variance = output[2:]
        labelled = labelled_joints(keypoints, visibility, weights)
        places = torch.where(labelled[..., None] > 0, keypoints.float(), torch.zeros_like(keypoints))
        # The square root's slope at zero is infinite; 0.01 px is below any label's accuracy.
        distance = ((output[0] - places).square().sum(-1) + 1e-4).sqrt() / self.sigma_px
        flat = (distance * labelled).sum() / labelled.sum().clamp_min(1.0)
        terms = self.beta * gaussian_kl(mean, log_variance).sum(1)
        if keypoints_3d is not None:
            known = ((labelled > 0) & torch.isfinite(keypoints_3d).all(-1))[..., None]
            target = torch.where(known, keypoints_3d.float() / _UNIT_M, torch.zeros_like(keypoints_3d))
            terms = terms + gaussian_nll(_relative(output[1]) * known, target, _POSE.unit)
        rows = labelled.amax(1)
        return flat + (terms * rows).sum() / rows.sum().clamp_min(1.0)

    def keypoints(self, output: Output) -> Tensor:
        """Places as the head gives them, outside the image too."""
        return output[0]

    def keypoints_3d(self, output: Output) -> Tensor:
        """3DPose in metres."""
        return _relative(output[1]) * _UNIT_M


def _relative(pose: Tensor) -> Tensor:
    """Joints (N, 21, 3) relative to the wrist."""
    return pose - pose[:, :1]

"""A trained disentangler, ready to use: encode, mix, decode."""

from pathlib import Path

import torch
from torch import Tensor

from handaug.data_specs.errors import InputError
from handaug.data_specs.joints import JOINTS
from handaug.models.disentangle.config import METHODS, DisentangleConfig
from handaug.models.disentangle.model import SelfDisentangler
from handaug.models.heatmaps import gaussian_fit
from handaug.models.trained import TrainedDisentangler, load_parts

__all__ = ["Disentangler", "load_disentangler", "sigma_px"]


def sigma_px(config: DisentangleConfig, size: tuple[int, int]) -> float:
    """Sigma of the heatmaps in pixels of an image of `size` (H, W)."""
    return config.sigma * min(size) / 64.0


class Disentangler(TrainedDisentangler[SelfDisentangler, DisentangleConfig]):
    """Pose and appearance codes of images, and images of codes. All methods run without gradients.

    Example:
        model = load_disentangler(Path("handaug-work/disentangler"))
        minted = model.decode(model.encode_pose(x), model.encode_appearance(y))
    """

    @torch.inference_mode()
    def encode_pose(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) float in [0, 1] -> pose codes (N, D, H/16, W/16)."""
        return self.model.pose_encoder(self.model.trunk(self._prepare(images)))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def encode_appearance(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) float in [0, 1] -> appearance codes (N, D, H/16, W/16)."""
        return self.model.appearance_encoder(self.model.trunk(self._prepare(images)))  # type: ignore[no-any-return]

    @property
    def draws_images(self) -> bool:
        """Whether its image decoder was trained; that of model 1 of Table 4 alone was not."""
        return any(phase != 1 for phase, _ in self.config.phases)

    @torch.inference_mode()
    def decode(self, pose: Tensor, appearance: Tensor) -> Tensor:
        """Codes of the same N -> images (N, C, H, W) float32 in [0, 1]."""
        if not self.draws_images:
            raise InputError(
                "--checkpoint: this run trained no image decoder (phase 1 alone); give one that draws images"
            )
        images: Tensor = self.model.image_decoder(pose, appearance)
        return images.float()

    @torch.inference_mode()
    def pose_keypoints(self, pose: Tensor) -> Tensor:
        """Pose codes -> keypoints (N, 21, 2) in pixels, by the model's own pose decoder and a Gaussian fit."""
        return gaussian_fit(self.model.pose_decoder(pose), sigma_px(self.config, self.size))

    def _prepare(self, images: Tensor) -> Tensor:
        return super()._prepare(images).contiguous(memory_format=torch.channels_last)


def load_disentangler(folder: Path | str, device: str = "cpu") -> Disentangler:
    """Load a finished run.

    Args:
        folder: Written by `handaug disentangle`.
        device: Where to compute.

    Raises:
        InputError: The folder is missing, damaged, or holds something else; the message names the file.
    """

    def build(config: DisentangleConfig, channels: int, size: tuple[int, int]) -> SelfDisentangler:
        model = SelfDisentangler(len(JOINTS), channels, config.width)
        return model.to(memory_format=torch.channels_last)

    parts = load_parts(folder, device, methods=METHODS, read_config=DisentangleConfig.from_json, build=build)
    return Disentangler(parts)

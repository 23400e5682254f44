"""A trained disentangler, ready to use: encode, mix, decode."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from handaug.data_specs.errors import InputError
from handaug.data_specs.joints import JOINTS
from handaug.models.checkpoint import WEIGHTS, load_model, load_weights
from handaug.models.disentangle.config import METHODS, DisentangleConfig
from handaug.models.disentangle.model import SelfDisentangler
from handaug.models.heatmaps import gaussian_fit

__all__ = ["KIND", "Disentangler", "load_disentangler", "sigma_px"]

KIND = "disentangler"
"""The `kind` in the config of its checkpoints."""


def sigma_px(config: DisentangleConfig, size: tuple[int, int]) -> float:
    """Sigma of the heatmaps in pixels of an image of `size` (H, W)."""
    return config.sigma * min(size) / 64.0


class Disentangler:
    """Pose and appearance codes of images, and images of codes. All methods run without gradients.

    Args:
        model: The networks, on their device.
        config: Of the run.
        size: Image height and width in pixels.
        channels: Image channels.
        info: What is known of the training: `data_checksum`, `train_rows`, `step`, `validation`.

    Example:
        model = load_disentangler(Path("handaug-work/disentangler"))
        minted = model.decode(model.encode_pose(x), model.encode_appearance(y))
    """

    def __init__(
        self,
        model: SelfDisentangler,
        config: DisentangleConfig,
        size: tuple[int, int],
        channels: int,
        info: dict[str, Any],
    ) -> None:
        self.model = model
        self.config = config
        self.size = size
        self.channels = channels
        self.info = info
        self.device = next(model.parameters()).device

    @property
    def method(self) -> str:
        """The method that trained it."""
        return self.config.method

    @torch.inference_mode()
    def encode_pose(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) float in [0, 1] -> pose codes (N, D, H/16, W/16)."""
        return self.model.pose_encoder(self.model.trunk(self._prepare(images)))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def encode_appearance(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) float in [0, 1] -> appearance codes (N, D, H/16, W/16)."""
        return self.model.appearance_encoder(self.model.trunk(self._prepare(images)))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def decode(self, pose: Tensor, appearance: Tensor) -> Tensor:
        """Codes of the same N -> images (N, C, H, W) float32 in [0, 1]."""
        images: Tensor = self.model.image_decoder(pose, appearance)
        return images.float()

    @torch.inference_mode()
    def pose_keypoints(self, pose: Tensor) -> Tensor:
        """Pose codes -> keypoints (N, 21, 2) in pixels, by the model's own pose decoder and a Gaussian fit."""
        return gaussian_fit(self.model.pose_decoder(pose), sigma_px(self.config, self.size))

    def _prepare(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != (self.channels, *self.size):
            wanted = (self.channels, *self.size)
            raise ValueError(f"images are {tuple(images.shape[1:])}, the model takes {wanted} (C, H, W)")
        return images.to(self.device).contiguous(memory_format=torch.channels_last)


def load_disentangler(folder: Path | str, device: str = "cpu") -> Disentangler:
    """Load a finished run.

    Args:
        folder: Written by `handaug disentangle`.
        device: Where to compute.

    Raises:
        InputError: The folder is missing, damaged, or holds something else; the message names the file.
    """
    folder = Path(folder)
    tensors, stored = load_model(folder, KIND)
    method = stored.get("config", {}).get("method")
    if method not in METHODS:
        raise InputError(f"{folder}: was trained by method {method!r}, this handaug knows {', '.join(METHODS)}")
    try:
        config = DisentangleConfig.from_json(stored["config"])
        size = (int(stored["size"][0]), int(stored["size"][1]))
        channels = int(stored["channels"])
        info = dict(stored["info"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{folder}/config.json: is damaged ({error}); train the disentangler again") from error
    model = SelfDisentangler(len(JOINTS), channels, config.width)
    load_weights(model, tensors, folder)
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise InputError(f"{folder / WEIGHTS}: holds weights that are not finite; train the disentangler again")
    model.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    return Disentangler(model, config, size, channels, info)

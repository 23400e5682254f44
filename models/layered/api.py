"""A trained layered disentangler, ready to use: encode, mix, decode."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from handaug.data_specs.errors import InputError
from handaug.models.checkpoint import WEIGHTS, load_model, load_weights
from handaug.models.heatmaps import soft_argmax
from handaug.models.layered.config import LayeredConfig
from handaug.models.layered.losses import STRIDE
from handaug.models.layered.networks import LayeredNet, Look

__all__ = ["KIND", "LayeredDisentangler", "load_layered"]

KIND = "disentangler"
"""The `kind` in the config of its checkpoints, the one of every method of `handaug disentangle`."""


class LayeredDisentangler:
    """Pose and appearance codes of images, and images of codes. All methods run without gradients.

    A pose code (N, 4 * K + 4, H/2, W/2) is the geometry features and the mask's logits, as blocks of 2x2 pixels. An
    appearance code (N, C * H * W + (K + 1) * C + style) is the plate, the light and the style, one after the other.

    Args:
        model: The networks, on their device.
        config: Of the run.
        size: Image height and width in pixels.
        channels: Image channels.
        info: What is known of the training: `data_checksum`, `train_rows`, `step`, `validation`.

    Example:
        model = load_layered(Path("handaug-work/disentangler"))
        minted = model.decode(model.encode_pose(x), model.encode_appearance(y))
    """

    def __init__(
        self, model: LayeredNet, config: LayeredConfig, size: tuple[int, int], channels: int, info: dict[str, Any]
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
        """Images (N, C, H, W) float in [0, 1] -> pose codes (N, 4 * K + 4, H/2, W/2)."""
        layers = self.model(self._prepare(images))
        return torch.cat([layers.geometry, torch.nn.functional.pixel_unshuffle(layers.mask, 2)], dim=1)

    @torch.inference_mode()
    def encode_appearance(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) float in [0, 1] -> appearance codes (N, D). The hand is where the model sees one."""
        prepared = self._prepare(images)
        layers = self.model(prepared)
        look = self.model.look(prepared, layers, layers.mask.sigmoid())
        return torch.cat([layers.plate.flatten(1), look.light.flatten(1), look.style], dim=1)

    @torch.inference_mode()
    def decode(self, pose: Tensor, appearance: Tensor) -> Tensor:
        """Codes of the same N -> images (N, C, H, W) float32 in [0, 1]."""
        pixels = self.channels * self.size[0] * self.size[1]
        light = (self.model.geometry_features + 1) * self.channels
        plate, flat, style = appearance.tensor_split([pixels, pixels + light], dim=1)
        look = Look(flat.reshape(len(flat), -1, self.channels), style)
        geometry, mask = pose[:, :-4], torch.nn.functional.pixel_shuffle(pose[:, -4:], 2)
        hand, _ = self.model.hand(geometry, look)
        drawn = self.model.compose(mask, hand, plate.reshape(-1, self.channels, *self.size))
        return drawn.clamp(0.0, 1.0)

    @torch.inference_mode()
    def pose_keypoints(self, pose: Tensor) -> Tensor:
        """Pose codes -> keypoints (N, 21, 2) in pixels, read from the geometry by one linear map and soft-argmax."""
        return soft_argmax(self.model.place_maps(pose[:, :-4]), STRIDE)

    def _prepare(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != (self.channels, *self.size):
            wanted = (self.channels, *self.size)
            raise ValueError(f"images are {tuple(images.shape[1:])}, the model takes {wanted} (C, H, W)")
        return images.to(self.device).contiguous(memory_format=torch.channels_last)


def load_layered(folder: Path | str, device: str = "cpu") -> LayeredDisentangler:
    """Load a finished run.

    Raises:
        InputError: The folder is missing, damaged, or holds something else; the message names the file.
    """
    folder = Path(folder)
    tensors, stored = load_model(folder, KIND)
    try:
        config = LayeredConfig.from_json(stored["config"])
        size = (int(stored["size"][0]), int(stored["size"][1]))
        channels, info = int(stored["channels"]), dict(stored["info"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{folder}/config.json: is damaged ({error}); train the disentangler again") from error
    model = LayeredNet(channels, config.width, config.geometry, config.style)
    load_weights(model, tensors, folder)
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise InputError(f"{folder / WEIGHTS}: holds weights that are not finite; train the disentangler again")
    model.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    return LayeredDisentangler(model, config, size, channels, info)

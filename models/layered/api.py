"""A trained layered disentangler, ready to use: encode, mix, decode."""

from pathlib import Path

import torch
from torch import Tensor

from handaug.models.heatmaps import soft_argmax
from handaug.models.layered.config import LayeredConfig
from handaug.models.layered.losses import STRIDE
from handaug.models.layered.networks import LayeredNet, Layers, Look
from handaug.models.trained import TrainedDisentangler, load_parts

__all__ = ["LayeredDisentangler", "load_layered"]


class LayeredDisentangler(TrainedDisentangler[LayeredNet, LayeredConfig]):
    """Pose and appearance codes of images, and images of codes. All methods run without gradients.

    A pose code (N, 4 * K + 4, H/2, W/2) is the geometry features and the mask's logits, as blocks of 2x2 pixels. An
    appearance code (N, C * H * W + (K + 1) * C + style) is the plate, the light and the style, one after the other.

    Example:
        model = load_layered(Path("handaug-work/disentangler"))
        minted = model.decode(model.encode_pose(x), model.encode_appearance(y))
    """

    @torch.inference_mode()
    def encode_pose(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) float in [0, 1] -> pose codes (N, 4 * K + 4, H/2, W/2)."""
        return self._pose_of(self.model(self._prepare(images)))

    @torch.inference_mode()
    def encode_appearance(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) float in [0, 1] -> appearance codes (N, D). The hand is where the model sees one."""
        prepared = self._prepare(images)
        return self._appearance_of(prepared, self.model(prepared))

    @torch.inference_mode()
    def encode_both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`encode_pose` and `encode_appearance` by one pass of the U-Net."""
        prepared = self._prepare(images)
        layers = self.model(prepared)
        return self._pose_of(layers), self._appearance_of(prepared, layers)

    def _pose_of(self, layers: Layers) -> Tensor:
        return torch.cat([layers.geometry, torch.nn.functional.pixel_unshuffle(layers.mask, 2)], dim=1)

    def _appearance_of(self, prepared: Tensor, layers: Layers) -> Tensor:
        look = self.model.look(prepared, layers, layers.mask.sigmoid())
        return torch.cat([layers.plate.flatten(1), look.light.flatten(1), look.style], dim=1)

    @torch.inference_mode()
    def decode(self, pose: Tensor, appearance: Tensor) -> Tensor:
        """Codes of the same N -> images (N, C, H, W) float32 in [0, 1]."""
        plate, look = self._unpack(appearance)
        geometry, mask = pose[:, :-4], torch.nn.functional.pixel_shuffle(pose[:, -4:], 2)
        hand, _ = self.model.hand(geometry, look)
        return self.model.compose(mask, hand, plate).clamp(0.0, 1.0)

    @torch.inference_mode()
    def decode_shared(self, pose: Tensor, which: Tensor, appearance: Tensor) -> Tensor:
        """`decode(pose[which], appearance)` but for rounding: what depends on the pose alone is computed once for each.

        Args:
            pose: (P, ...) codes.
            which: (N,) the pose of each image.
            appearance: (N, D) codes.
        """
        plate, look = self._unpack(appearance)
        mask = torch.nn.functional.pixel_shuffle(pose[:, -4:], 2)
        geometry = pose[:, :-4].contiguous(memory_format=torch.channels_last)
        hand = self.model.hand_shared(geometry, which, look)
        return self.model.compose(mask[which], hand, plate).clamp(0.0, 1.0)

    def _unpack(self, appearance: Tensor) -> tuple[Tensor, Look]:
        """Plates (N, C, H, W) and looks of appearance codes."""
        pixels = self.channels * self.size[0] * self.size[1]
        light = (self.model.geometry_features + 1) * self.channels
        plate, flat, style = appearance.tensor_split([pixels, pixels + light], dim=1)
        return plate.reshape(-1, self.channels, *self.size), Look(flat.reshape(len(flat), -1, self.channels), style)

    @torch.inference_mode()
    def pose_keypoints(self, pose: Tensor) -> Tensor:
        """Pose codes -> keypoints (N, 21, 2) in pixels, read from the geometry by one linear map and soft-argmax."""
        return soft_argmax(self.model.place_maps(pose[:, :-4]), STRIDE)

    def _prepare(self, images: Tensor) -> Tensor:
        return super()._prepare(images).contiguous(memory_format=torch.channels_last)


def load_layered(folder: Path | str, device: str = "cpu") -> LayeredDisentangler:
    """Load a finished run.

    Raises:
        InputError: The folder is missing, damaged, or holds something else; the message names the file.
    """

    def build(config: LayeredConfig, channels: int, size: tuple[int, int]) -> LayeredNet:
        model = LayeredNet(channels, config.width, config.geometry, config.style)
        return model.to(memory_format=torch.channels_last)

    parts = load_parts(folder, device, methods=["handaug"], read_config=LayeredConfig.from_json, build=build)
    return LayeredDisentangler(parts)

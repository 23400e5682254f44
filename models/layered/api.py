"""A trained layered disentangler, ready to use: encode, mix, decode."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from handaug.models.heatmaps import soft_argmax
from handaug.models.layered.config import LayeredConfig
from handaug.models.layered.losses import STRIDE
from handaug.models.layered.networks import LayeredNet, Layers, Look
from handaug.models.layered.plate import paint_out
from handaug.models.trained import TrainedDisentangler, load_parts

__all__ = ["LayeredDisentangler", "load_layered"]

_DETAIL = 0.7
"""How much of the details is added: on validation pairs of two sets of renders it costs 0.01 and 0.17 dB inside the
hand and takes 0.3 and 0.9 px off the label checker's error (1.0: 0.15 and 0.4 dB, 0.4 and 1.1 px)."""
_MOST_DETAIL = 1.5
"""Spreads: what is farther off is the background that shines in at the rim or between fingers, no detail of a hand."""
_LEAST_SPREAD = 0.02
_FAINT_MASK, _FAINT_LOGIT = 0.01, -7.0
"""A mask fainter than the first is put at the logit of the second: how surely no hand is somewhere tells of what is
there instead. A mix would show less than a hundredth of the hand layer."""
_LEAST_MASK = 0.1
"""Details where the mask is fainter are the background's and left out. Of those a mix would show less than a tenth,
0.001 dB on 394 validation mixes; at the hand's edges the mask is a half."""


class LayeredDisentangler(TrainedDisentangler[LayeredNet, LayeredConfig]):
    """Pose and appearance codes of images, and images of codes. All methods run without gradients.

    A pose code (N, 4 * K + 4 + 4 * C, H/2, W/2) is the geometry features, the mask's logits and the details, as blocks
    of 2x2 pixels. Where the mask is below 0.1 geometry and details are 0, below 0.01 logits are constant. An appearance
    code (N, C * H * W + (K + 1) * C + style) is the plate, the light and the style, one after the other.

    Two things keep a mix as sharp as its sources, where a network's own pictures are soft. The plate is the picture
    itself with the hand painted out (`plate`). The details are what the network does not redraw of the hand's own
    picture (edges, creases, noise) over the spread of what it draws; on another look they are added in proportion to
    that look's spread. Neither changes what is learned.

    Example:
        model = load_layered(Path("handaug-work/disentangler"))
        minted = model.decode(model.encode_pose(x), model.encode_appearance(y))
    """

    @torch.inference_mode()
    def encode_pose(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) float in [0, 1] -> pose codes (N, 4 * K + 4 + 4 * C, H/2, W/2)."""
        prepared, layers, mask, look = self._read(images)
        return self._pose(prepared, layers, mask, look)

    @torch.inference_mode()
    def encode_appearance(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) float in [0, 1] -> appearance codes (N, D). The hand is where the model sees one."""
        prepared, _, mask, look = self._read(images)
        return _appearance(prepared, mask, look)

    @torch.inference_mode()
    def encode_both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`encode_pose` and `encode_appearance` by one pass of the U-Net."""
        prepared, layers, mask, look = self._read(images)
        return self._pose(prepared, layers, mask, look), _appearance(prepared, mask, look)

    @torch.inference_mode()
    def decode(self, pose: Tensor, appearance: Tensor) -> Tensor:
        """Codes of the same N -> images (N, C, H, W) float32 in [0, 1]."""
        plate, look = self._unpack(appearance)
        geometry, mask, details = self._unpack_pose(pose)
        hand, _ = self.model.hand(geometry, look)
        return self._compose(mask, hand, details, plate)

    @torch.inference_mode()
    def decode_shared(self, pose: Tensor, which: Tensor, appearance: Tensor) -> Tensor:
        """`decode(pose[which], appearance)` but for rounding: what depends on the pose alone is computed once for each.

        Args:
            pose: (P, ...) codes.
            which: (N,) the pose of each image.
            appearance: (N, D) codes.
        """
        plate, look = self._unpack(appearance)
        geometry, mask, details = self._unpack_pose(pose)
        hand = self.model.hand_shared(geometry.contiguous(memory_format=torch.channels_last), which, look)
        return self._compose(mask[which], hand, details[which], plate)

    def _read(self, images: Tensor) -> tuple[Tensor, Layers, Tensor, Look]:
        """The images as the network takes them, and what it sees in them: layers, mask in [0, 1], look."""
        prepared = self._prepare(images)
        layers = self.model(prepared)
        mask = layers.mask.sigmoid()
        return prepared, layers, mask, self.model.look(prepared, layers, mask)

    def _pose(self, images: Tensor, layers: Layers, mask: Tensor, look: Look) -> Tensor:
        """Pose codes, with the details of the hand that the network does not redraw."""
        drawn, _ = self.model.hand(layers.geometry, look)
        details = ((images - drawn) / _spread(drawn, mask)).clamp(-_MOST_DETAIL, _MOST_DETAIL)
        details = details * (mask > _LEAST_MASK)
        logits = torch.where(mask < _FAINT_MASK, _FAINT_LOGIT, layers.mask)
        blocks = [functional.pixel_unshuffle(part, 2) for part in (logits, details)]
        return torch.cat([layers.geometry, *blocks], dim=1)

    def _compose(self, mask: Tensor, hand: Tensor, details: Tensor, plate: Tensor) -> Tensor:
        detailed = hand + _DETAIL * _spread(hand, mask.sigmoid()) * details
        return self.model.compose(mask, detailed, plate).clamp(0.0, 1.0)

    def _unpack_pose(self, pose: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Geometry (N, 4 * K, H/2, W/2), logits of the mask (N, 1, H, W) and details (N, C, H, W) of pose codes."""
        ends = 4 * self.model.geometry_features, 4 * self.model.geometry_features + 4
        geometry, mask, details = pose.tensor_split(ends, dim=1)
        return geometry, functional.pixel_shuffle(mask, 2), functional.pixel_shuffle(details, 2)

    def _unpack(self, appearance: Tensor) -> tuple[Tensor, Look]:
        """Plates (N, C, H, W) and looks of appearance codes."""
        pixels = self.channels * self.size[0] * self.size[1]
        light = (self.model.geometry_features + 1) * self.channels
        plate, flat, style = appearance.tensor_split([pixels, pixels + light], dim=1)
        return plate.reshape(-1, self.channels, *self.size), Look(flat.reshape(len(flat), -1, self.channels), style)

    @torch.inference_mode()
    def pose_keypoints(self, pose: Tensor) -> Tensor:
        """Pose codes -> keypoints (N, 21, 2) in pixels, read from the geometry by one linear map and soft-argmax."""
        return soft_argmax(self.model.place_maps(pose[:, : 4 * self.model.geometry_features]), STRIDE)

    def _prepare(self, images: Tensor) -> Tensor:
        return super()._prepare(images).contiguous(memory_format=torch.channels_last)


def _appearance(images: Tensor, mask: Tensor, look: Look) -> Tensor:
    """Appearance codes: plate, light, style."""
    return torch.cat([paint_out(images, mask).flatten(1), look.light.flatten(1), look.style], dim=1)


def _spread(hand: Tensor, mask: Tensor) -> Tensor:
    """(N, 1, 1, 1) standard deviation of hand layers within their masks (N, 1, H, W), of all channels together."""
    area = mask.sum((2, 3), keepdim=True).clamp_min(1.0)
    mean = (hand * mask).sum((2, 3), keepdim=True) / area
    variance = ((hand - mean).square() * mask).sum((2, 3), keepdim=True) / area
    return variance.mean(1, keepdim=True).sqrt().clamp_min(_LEAST_SPREAD)


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

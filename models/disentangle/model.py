"""The networks of self-disentanglement (Li et al. 2019, Fig. 3): E_p and E_I over a shared trunk, D_p, D_I."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from handaug.models.networks import EncoderBlock, ImageDecoder, PoseDecoder, Trunk, initialise

__all__ = ["SelfDisentangler", "frozen"]


def frozen(module: nn.Module) -> Callable[..., Any]:
    """A copy of `module` with fixed weights: gradients pass through it to its input and stop there.

    It shares memory with the module and follows its weights; nothing accumulates in their `.grad`.
    """
    weights = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return lambda *inputs: functional_call(module, weights, inputs)


class SelfDisentangler(nn.Module):
    """Pose code p, appearance code a, and the two decoders.

    Args:
        joints: Heatmaps.
        channels: Image channels, 1 or 3.
        width: Channels at full resolution.
    """

    def __init__(self, joints: int, channels: int, width: int) -> None:
        super().__init__()
        self.trunk = Trunk(channels, width)
        self.pose_encoder = EncoderBlock(4 * width, 8 * width)
        self.appearance_encoder = EncoderBlock(4 * width, 8 * width)
        self.pose_decoder = PoseDecoder(joints, width)
        self.image_decoder = ImageDecoder(channels, width)
        initialise(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) in [0, 1] -> pose and appearance codes, each (N, 8 * width, H/16, W/16), >= 0."""
        features = self.trunk(images)
        return self.pose_encoder(features), self.appearance_encoder(features)

"""SimpleBaseline (Xiao et al. 2018): a ResNet, three deconvolutions, one heatmap a joint.

The recipe behind mmpose's top-down ResNet baselines on RHD and FreiHAND: heatmaps at a quarter of the image's sides
(sigma 2 cells of 64), mean squared error over the labelled joints. Where it differs: below 128 px the max-pooling of
the stem is left out, so that a 64 px image has 4 x 4 features and 32 x 32 maps instead of 2 x 2 and 16 x 16, and maps
are read by a parabola through the logarithms around the highest cell, which is exact for a Gaussian, instead of a
quarter of a cell towards the higher neighbour.

Backbones are torchvision's, with random weights, or with ImageNet weights from a file that the user has (torchvision's
own `.pth` or its content as safetensors). Nothing is ever downloaded.
"""

import math
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from handaug.data_specs.errors import InputError
from handaug.data_specs.joints import JOINTS
from handaug.models.estimators.base import Estimator, labelled_joints, register_estimator
from handaug.models.heatmaps import render_heatmaps
from handaug.models.networks import check_size

__all__ = ["ResNet18Estimator", "ResNet50Estimator", "load_backbone"]

_SMALL_PX = 128
"""Images whose shorter side is below this skip the stem's max-pooling."""
_DECONVOLUTIONS = 3
_FLOOR, _LEAST_BEND = 1e-4, 1e-3
"""Lowest value whose logarithm is read, and the flattest parabola that has a top."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's RGB values, as torchvision's weights expect them."""


class _ResNetEstimator(Estimator):
    """Heatmaps from a ResNet.

    Args:
        size: Image height and width in pixels, multiples of 16 (of 32 from 128 px on).
        channels: Image channels; grey is given to the backbone three times, so that RGB weights fit.
        width: Channels of the deconvolutions.
        sigma: Of the heatmaps, pixels of a 64 pixel image.
    """

    def __init__(self, size: tuple[int, int], channels: int, *, width: int = 256, sigma: float = 2.0) -> None:
        super().__init__(size, channels, width=width, sigma=sigma)
        check_size(size, f"the {self.name} estimator")
        self.sigma_px = sigma * min(size) / 64.0
        # Seconds to import, and most estimators do without.
        from torchvision.models import resnet18, resnet50

        self.backbone = {"resnet18": resnet18, "resnet50": resnet50}[self.name](weights=None)
        features = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()
        self.backbone.avgpool = nn.Identity()
        small = min(size) < _SMALL_PX
        if small:
            self.backbone.maxpool = nn.Identity()
        elif any(side % 32 for side in size):
            raise InputError(f"--estimator {self.name}: takes sides that are multiples of 32 from {_SMALL_PX} px on")
        self.stride = (16 if small else 32) >> _DECONVOLUTIONS
        layers: list[nn.Module] = []
        for k in range(_DECONVOLUTIONS):
            layers.append(nn.ConvTranspose2d(features if k == 0 else width, width, 4, stride=2, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.deconvolutions = nn.Sequential(*layers)
        self.maps = nn.Conv2d(width, len(JOINTS), 1)
        for layer in self.deconvolutions.modules():
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=0.001 if width >= 256 else 0.02)
        nn.init.normal_(self.maps.weight, std=0.001)
        nn.init.zeros_(self.maps.bias)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images -> heatmaps (N, 21, H / s, W / s), s = `stride`."""
        net = self.backbone
        x = (images.expand(-1, 3, -1, -1) - self.mean) / self.std  # type: ignore[operator]
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        maps: Tensor = self.maps(self.deconvolutions(x))
        return maps

    def loss(
        self,
        output: Tensor,
        keypoints: Tensor,
        visibility: Tensor,
        weights: Tensor | None = None,
        keypoints_3d: Tensor | None = None,
    ) -> Tensor:
        """Squared error of the labelled joints' maps, over that of an empty map: 1 where nothing is known."""
        labelled = labelled_joints(keypoints, visibility, weights)
        target = render_heatmaps(keypoints, self.size, self.sigma_px, self.stride)
        squares = (output.float() - target).square().sum((-2, -1))
        empty = math.pi * (self.sigma_px / self.stride) ** 2  # integral of the squared Gaussian, in cells
        return (squares * labelled).sum() / (empty * labelled.sum().clamp_min(1.0))

    def keypoints(self, output: Tensor) -> Tensor:
        """Highest cell of each map, refined along each axis."""
        return _peaks(output, self.stride)


@register_estimator("resnet18")
class ResNet18Estimator(_ResNetEstimator):
    __doc__ = _ResNetEstimator.__doc__


@register_estimator("resnet50")
class ResNet50Estimator(_ResNetEstimator):
    __doc__ = _ResNetEstimator.__doc__


def _peaks(maps: Tensor, stride: int) -> Tensor:
    """Top of each map (N, J, rows, columns) in pixels, (N, J, 2).

    Along an axis the logarithm of a Gaussian is a parabola, whose top three values give. Only operations that ONNX
    has.
    """
    rows, columns = maps.shape[-2:]
    flat = maps.float().flatten(2)
    index = flat.argmax(-1, keepdim=True)
    places = []
    for cells, step, at in ((columns, 1, index % columns), (rows, columns, index // columns)):
        middle = at.clamp(1, cells - 2)  # at the frame the three cells next to it serve
        centre = index + (middle - at) * step
        low, top, high = (flat.gather(2, centre + k * step).clamp_min(_FLOOR).log() for k in (-1, 0, 1))
        bend = (low - 2 * top + high).clamp_max(-_LEAST_BEND)
        offset = (middle - at) + (low - high) / (2 * bend)
        places.append(((at + offset.clamp(-1.0, 1.0) + 0.5) * stride - 0.5).squeeze(-1))
    return torch.stack(places, dim=-1)


def load_backbone(estimator: Estimator, path: Path) -> None:
    """Put weights from a file into the ResNet of an estimator; those of the classifier are left out.

    Args:
        estimator: One with a torchvision ResNet as `backbone`.
        path: State dict, `.pth` (read with `weights_only`) or `.safetensors`.

    Raises:
        InputError: The estimator has no such backbone, or the file is missing, damaged, or of another network.
    """
    backbone = getattr(estimator, "backbone", None)
    if not isinstance(estimator, _ResNetEstimator) or not isinstance(backbone, nn.Module):
        raise InputError(f"--backbone {path}: --estimator {estimator.name} has no ResNet; take resnet18 or resnet50")
    try:
        if path.suffix == ".safetensors":
            found: dict[str, Tensor] = safetensors.torch.load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
        tensors = {name: tensor for name, tensor in found.items() if not name.startswith("fc.")}
    except FileNotFoundError as error:
        raise InputError(f"--backbone {path}: no such file; nothing is downloaded, so give weights you have") from error
    except Exception as error:  # torch raises whatever its zip reader or unpickler meets in a damaged file
        raise InputError(f"--backbone {path}: is no state dict of tensors; give torchvision's .pth") from error
    own = backbone.state_dict()
    wrong = sorted(k for k in own if k not in tensors or own[k].shape != tensors[k].shape)
    # Files older than batch counters (torch 0.4.1) lack them; they only matter without momentum.
    wrong = [name for name in wrong if not (name.endswith("num_batches_tracked") and name not in tensors)]
    if wrong or set(tensors) - set(own):
        first = (wrong or sorted(set(tensors) - set(own)))[0]
        raise InputError(f"--backbone {path}: holds another network ({first}); give weights of {estimator.name}")
    backbone.load_state_dict(tensors, strict=False)

"""Inception v3 as the Inception Score and FID were defined on it, and as torchvision has it, by their weights.

The network of the original scores (TensorFlow's of 2015-12-05, 1,008 classes) differs from torchvision's in three
places: average pooling inside blocks does not count the padding, and the last block pools its fourth branch by the
maximum. The names of all weights are torchvision's in both.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.inception import Inception3, InceptionA, InceptionC, InceptionE

__all__ = ["FID_CLASSES", "inception_of"]

FID_CLASSES = 1008
"""Classes of the network of the original scores."""


def inception_of(weights: dict[str, Tensor]) -> Inception3:
    """The network that a state dict belongs to, in evaluation mode.

    Raises:
        KeyError, RuntimeError: It belongs to another network.
    """
    classes = len(weights["fc.weight"])
    helped = any(name.startswith("AuxLogits.") for name in weights)
    network = Inception3(num_classes=classes, aux_logits=helped, transform_input=False, init_weights=False)
    if classes == FID_CLASSES:
        network.Mixed_5b = _A(192, pool_features=32)
        network.Mixed_5c = _A(256, pool_features=64)
        network.Mixed_5d = _A(288, pool_features=64)
        network.Mixed_6b = _C(768, channels_7x7=128)
        network.Mixed_6c = _C(768, channels_7x7=160)
        network.Mixed_6d = _C(768, channels_7x7=160)
        network.Mixed_6e = _C(768, channels_7x7=192)
        network.Mixed_7b = _E(1280)
        network.Mixed_7c = _LastE(2048)
    # Batch normalisation counts its batches; weights from TensorFlow have no such count.
    counts = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}
    missing, unexpected = network.load_state_dict(weights, strict=False)
    if set(missing) - counts or unexpected:
        raise KeyError(next(iter([*unexpected, *(set(missing) - counts)])))
    return network.eval()


def _average(features: Tensor) -> Tensor:
    return functional.avg_pool2d(features, kernel_size=3, stride=1, padding=1, count_include_pad=False)


class _A(InceptionA):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        wide = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), wide, self.branch_pool(_average(x))]


class _C(InceptionC):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return [self.branch1x1(x), once, twice, self.branch_pool(_average(x))]


class _E(InceptionE):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return [
            self.branch1x1(x),
            torch.cat([self.branch3x3_2a(once), self.branch3x3_2b(once)], 1),
            torch.cat([self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)], 1),
            self.branch_pool(self._pooled(x)),
        ]

    def _pooled(self, x: Tensor) -> Tensor:
        return _average(x)


class _LastE(_E):
    def _pooled(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(x, kernel_size=3, stride=1, padding=1)

"""Estimators of a user's own for the tests, good and bad; named as `outside_estimators:NAME`."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["good", "imports_nothing", "raises", "spatial"]


class Tiny(nn.Module):
    """One linear layer from the image to 42 numbers; no base class of ours."""

    def __init__(self, size: tuple[int, int], channels: int, out: int = 42) -> None:
        super().__init__()
        self.places = nn.Linear(size[0] * size[1] * channels, out)

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.places(images.flatten(1))
        return output

    def loss(self, output: Tensor, keypoints: Tensor, visibility: Tensor, weights: Tensor | None = None) -> Tensor:
        labelled = (visibility > 0).float() * (1.0 if weights is None else weights[:, None])
        wanted = torch.where(labelled[..., None] > 0, keypoints, torch.zeros_like(keypoints))
        errors = (self.keypoints(output) - wanted).abs().sum(-1)
        return (errors * labelled).sum() / labelled.sum().clamp_min(1.0)

    def keypoints(self, output: Tensor) -> Tensor:
        return output[:, :42].reshape(-1, 21, 2) * 10.0 + 16.0


class Spatial(Tiny):
    """The same with 3D."""

    dimensions = 3

    def __init__(self, size: tuple[int, int], channels: int) -> None:
        super().__init__(size, channels, out=42 + 63)

    def loss(  # type: ignore[override]
        self, output: Tensor, keypoints: Tensor, visibility: Tensor, weights: Tensor | None, keypoints_3d: Tensor
    ) -> Tensor:
        return (
            super().loss(output, keypoints, visibility, weights)
            + (self.keypoints_3d(output) - keypoints_3d).abs().nan_to_num().mean()
        )

    def keypoints_3d(self, output: Tensor) -> Tensor:
        places = output[:, 42:].reshape(-1, 21, 3)
        return places - places[:, :1]


class WrongShape(Tiny):
    def keypoints(self, output: Tensor) -> Tensor:
        return super().keypoints(output)[:, :20]

    def loss(self, output: Tensor, *labels: Any) -> Tensor:
        return output.mean()


class GivesNaN(Tiny):
    def keypoints(self, output: Tensor) -> Tensor:
        return super().keypoints(output) / 0.0 * 0.0


class LossOfMissing(Tiny):
    def loss(self, output: Tensor, keypoints: Tensor, visibility: Tensor, weights: Tensor | None = None) -> Tensor:
        return (self.keypoints(output) - keypoints).square().mean()


class GradientOfMissing(Tiny):
    """`where` keeps the loss finite, and NaN in what is behind it."""

    def loss(self, output: Tensor, keypoints: Tensor, visibility: Tensor, weights: Tensor | None = None) -> Tensor:
        square = (self.keypoints(output) - keypoints).square()
        return torch.where(visibility[..., None] > 0, square, 0.0).mean()


class Volumes(Tiny):
    """With a 3D convolution, whose weights have five axes."""

    def __init__(self, size: tuple[int, int], channels: int) -> None:
        super().__init__(size, channels)
        self.volume = nn.Conv3d(1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(self.volume(images[:, None])[:, 0])


class NoGradient(Tiny):
    def loss(self, output: Tensor, *labels: Any) -> Tensor:
        return output.detach().mean()


class VectorLoss(Tiny):
    def loss(self, output: Tensor, *labels: Any) -> Tensor:
        return output.mean(1)


class FailsForward(Tiny):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("first line\nsecond line")


class FailsInTraining(Tiny):
    def loss(self, output: Tensor, *labels: Any) -> Tensor:
        if self.training:
            raise RuntimeError("in training")
        return super().loss(output, *labels)


class NaNInTraining(Tiny):
    def loss(self, output: Tensor, *labels: Any) -> Tensor:
        return super().loss(output, *labels) * (float("nan") if self.training else 1.0)


class RightForTwo(Tiny):
    def keypoints(self, output: Tensor) -> Tensor:
        return super().keypoints(output)[:2]


class OwnSize(Tiny):
    @property
    def size(self) -> int:
        return 7


class LayerCalledName(Tiny):
    def __init__(self, size: tuple[int, int], channels: int) -> None:
        super().__init__(size, channels)
        self.name = nn.Identity()


class Normed(Tiny):
    """With running statistics."""

    def __init__(self, size: tuple[int, int], channels: int) -> None:
        super().__init__(size, channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(self.norm(images))


def exits(size: tuple[int, int], channels: int) -> nn.Module:
    """A factory that ends the program."""
    raise SystemExit(3)


class NaNInUse(Tiny):
    """Fine when it is tried, NaN once an image is all black."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) / images.amax((1, 2, 3))[:, None]


def good(size: tuple[int, int], channels: int) -> nn.Module:
    """A factory as the protocol wants it."""
    return Tiny(size, channels)


class Engine(nn.Module):
    """Something that answers, without a parameter and without a loss."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))

    def keypoints(self, output: Tensor) -> Tensor:
        return output[:, None, None].expand(-1, 21, 2) * 32.0


class FailsOnData(Engine):
    """Fine when it is tried on noise."""

    def forward(self, images: Tensor) -> Tensor:
        if (images == 0).any():
            raise ValueError("too dark")
        return super().forward(images)


def engine(size: tuple[int, int], channels: int) -> nn.Module:
    """One that cannot be trained."""
    return Engine()


def fails_on_data(size: tuple[int, int], channels: int) -> nn.Module:
    """One that raises in use."""
    return FailsOnData()


def spatial(size: tuple[int, int], channels: int) -> nn.Module:
    """A 3D one."""
    return Spatial(size, channels)


def raises(size: tuple[int, int], channels: int) -> nn.Module:
    """A factory that cannot."""
    raise KeyError("no licence")


def imports_nothing(size: tuple[int, int], channels: int) -> str:
    """No module at all."""
    return "a network"

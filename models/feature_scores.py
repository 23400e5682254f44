"""Inception Score and Frechet Inception Distance of minted images (Table 3 of Li et al. 2019), through torchmetrics.

Both scores mean what the feature network makes them mean. Two kinds can be given:

* the stock Inception v3, from a file of weights on disk: `pt_inception-2015-12-05-6726825d.pth` (the network of the
  original scores, ported by pytorch-fid and used by torch-fidelity; 1,008 classes), or torchvision's
  `inception_v3_google-0cc3c7bd.pth` (1,000 classes). Only the first gives figures that can stand beside a paper's.
* the folder of one of our own estimators. Its features are the deepest ones it has, averaged over the image, and its
  classes are 16 kinds of pose. Such figures compare runs with each other and **with nobody else's**.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.models.estimators import Estimator, load_estimator
from handaug.models.fid_inception import FID_CLASSES, inception_of
from handaug.models.fit import predict_keypoints

__all__ = ["FeatureNetwork", "InceptionNetwork", "OwnNetwork", "feature_scores", "load_feature_network"]

_BATCH = 50
_SIDE = 299
_POSE_CLASSES = 16
_SPLITS = 10
_MOST_ROWS = 2000


class FeatureNetwork(nn.Module):
    """Features and class logits of uint8 images (N, C, H, W), in evaluation mode."""

    num_features: int
    """Length of a feature vector."""
    note: str
    """What its figures can be compared with."""

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> features (N, num_features)."""
        raise NotImplementedError

    def logits(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> (N, classes)."""
        raise NotImplementedError


class InceptionNetwork(FeatureNetwork):
    """Inception v3 with given weights.

    Images are repeated to three channels, resized to 299x299 (bilinear, as pytorch-fid does) and scaled to -1..1.

    Args:
        weights: State dict of either stock network.

    Raises:
        KeyError, RuntimeError: It is that of another network.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        classes = len(weights["fc.weight"])
        self.stock = classes == FID_CLASSES
        self.inception = inception_of(weights)
        self.num_features = int(self.inception.fc.in_features)
        self.note = (
            "the stock Inception v3: comparable with published figures of as many images"
            if self.stock
            else "torchvision's Inception v3: not the network of the published scores"
        )
        self._pooled: list[Tensor] = []
        self.inception.avgpool.register_forward_hook(lambda module, inputs, output: self._pooled.append(output))

    def forward(self, images: Tensor) -> Tensor:
        return self._run(images)[0]

    def logits(self, images: Tensor) -> Tensor:
        features, logits = self._run(images)
        # The original score leaves the bias out.
        return features @ self.inception.fc.weight.T if self.stock else logits

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.float() / 255.0
        pixels = pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels
        pixels = functional.interpolate(pixels, (_SIDE, _SIDE), mode="bilinear", align_corners=False)
        logits = self.inception(pixels * 2.0 - 1.0)
        return self._pooled.pop().flatten(1), logits


class OwnNetwork(FeatureNetwork):
    """The features of an estimator, and 16 kinds of pose as classes.

    The kinds are clusters of the estimator's own answers on `rows`, so that no label is needed; a linear layer learns
    to tell them from the features.

    Args:
        estimator: In evaluation mode.
        rows: Images to cluster.
    """

    note = "features of our own estimator: comparable with no published figure"

    def __init__(self, estimator: Estimator, rows: HandDataset) -> None:
        super().__init__()
        self.estimator = estimator
        layers = [module for module in estimator.modules() if isinstance(module, nn.Conv2d)]
        most = max(layer.out_channels for layer in layers)
        self.num_features = most
        self._kept: list[Tensor] = []
        deepest = [layer for layer in layers if layer.out_channels == most][-1]
        deepest.register_forward_hook(lambda module, inputs, output: self._kept.append(output))
        index = np.linspace(0, len(rows) - 1, min(len(rows), _MOST_ROWS)).astype(np.int64)
        images = torch.from_numpy(rows.read("images", np.unique(index))).permute(0, 3, 1, 2)
        places = predict_keypoints(estimator, images).flatten(1).numpy().astype(np.float64)
        self._kept.clear()
        _, kind = kmeans2(places, min(_POSE_CLASSES, len(places)), minit="++", seed=0)
        self.head = _linear_head(
            torch.cat([self(block) for block in torch.split(images, _BATCH)]), torch.from_numpy(kind)
        )

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            self.estimator(images.float() / 255.0)
        return self._kept.pop().float().mean((2, 3))

    def logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self(images))
        return logits


def _linear_head(features: Tensor, kind: Tensor) -> nn.Sequential:
    """Logistic regression on standardised features, by L-BFGS with a small ridge."""
    mean, spread = features.mean(0), features.std(0).clamp_min(1e-6)
    standard = (features - mean) / spread
    layer = nn.Linear(features.shape[1], int(kind.max()) + 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=100)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = functional.cross_entropy(layer(standard), kind.long()) + 1e-3 * layer.weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return nn.Sequential(_Standardise(mean, spread), layer).requires_grad_(False)


class _Standardise(nn.Module):
    mean: Tensor
    spread: Tensor

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)

    def forward(self, features: Tensor) -> Tensor:
        standard: Tensor = (features - self.mean) / self.spread
        return standard


def load_feature_network(place: Path, rows: HandDataset, device: str = "cpu") -> FeatureNetwork:
    """Load what `--features` names.

    Args:
        place: A file of Inception weights (.pth, or .safetensors with the same names), or the folder of an estimator.
        rows: Real images; an estimator's classes are found among them.
        device: Where to compute.

    Raises:
        InputError: It is neither, or damaged; files are read without unpickling.
    """
    if place.is_dir():
        estimator, _ = load_estimator(place)
        if estimator.size != rows.size or estimator.channels != rows.channels:
            raise InputError(f"--features {place}: takes images of {estimator.size}, {rows.path} has {rows.size}")
        return OwnNetwork(estimator, rows).to(device).eval()
    try:
        stored: Any = (
            safetensors.torch.load_file(place)
            if place.suffix == ".safetensors"
            else torch.load(place, map_location="cpu", weights_only=True)
        )
        network = InceptionNetwork(dict(stored))
    except FileNotFoundError as error:
        raise InputError(
            f"--features {place}: no such file; give Inception weights (pt_inception-2015-12-05-6726825d.pth) or the "
            "folder of an estimator"
        ) from error
    except Exception as error:  # torch raises whatever its zip reader or unpickler meets in a damaged file
        raise InputError(
            f"--features {place}: holds no Inception v3 weights, or is damaged; download it again"
        ) from error
    return network.to(device).eval().requires_grad_(False)


def feature_scores(network: FeatureNetwork, real: NDArray[np.uint8], drawn: NDArray[np.uint8]) -> dict[str, float]:
    """Both scores.

    Args:
        network: See `load_feature_network`.
        real: (N, H, W, C) uint8.
        drawn: (M, H, W, C) uint8.

    Returns:
        inception_score and inception_score_std of `drawn`, over 10 parts in a fixed shuffled order (fewer where there
        are under 20 images); fid between the two sets, which is biased upwards where either is small.
    """
    device = next(iter(network.state_dict().values())).device
    distance = FrechetInceptionDistance(feature=network).to(device)
    parts = max(1, min(_SPLITS, len(drawn) // 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all logits; there are few
        score = InceptionScore(feature=_Logits(network), splits=parts).to(device)
    for block in _blocks(real, device):
        distance.update(block, real=True)
    for block in _blocks(drawn, device):
        distance.update(block, real=False)
        score.update(block)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean, spread = score.compute()
    return {
        "inception_score": float(mean),
        "inception_score_std": float(spread) if parts > 1 else 0.0,
        "fid": float(distance.compute()),
    }


class _Logits(nn.Module):
    def __init__(self, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.logits(images)


def _blocks(images: NDArray[np.uint8], device: torch.device) -> Iterator[Tensor]:
    for start in range(0, len(images), _BATCH):
        block = np.ascontiguousarray(images[start : start + _BATCH].transpose(0, 3, 1, 2))
        yield torch.from_numpy(block).to(device)

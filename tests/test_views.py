"""Several views of one image: against OpenCV's warp, and with an estimator whose answer is known in every view."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from torch import Tensor, nn
from toy import write_toy

from handaug.cli.evaluate import command as evaluate
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.models.estimators import build_estimator, save_estimator
from handaug.models.estimators.predict import predict
from handaug.models.estimators.views import view_transforms
from handaug.models.evaluate import evaluate_checkpoint
from handaug.models.warp import warp

HEIGHT, WIDTH = 64, 80


def blobs(places: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(N, H, W, 3): in each of two channels a blob about its place (N, 2, 2)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    away = (x - places[..., 0, None, None]) ** 2 + (y - places[..., 1, None, None]) ** 2
    images = np.zeros((len(places), HEIGHT, WIDTH, 3), np.uint8)
    images[..., :2] = np.moveaxis(np.round(255 * np.exp(-away / 18)), 1, -1).astype(np.uint8)
    return images


class Finder(nn.Module):
    """The first joint lies at the first blob, all others at the second; in 3D 10 cm from it, in its direction."""

    name, dimensions = "finder", 3

    def __init__(self, lies: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.lies, self.asked = lies, 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += 1
        mass = images[:, :2] / images[:, :2].sum((-2, -1), keepdim=True)
        x = (mass.sum(-2) * torch.arange(images.shape[-1])).sum(-1)
        y = (mass.sum(-1) * torch.arange(images.shape[-2])).sum(-1)
        found = torch.stack([x, y], -1)
        return found + 30 if self.asked <= self.lies else found

    def keypoints(self, output: Tensor) -> Tensor:
        return output[:, [0] + [1] * 20]

    def keypoints_3d(self, output: Tensor) -> Tensor:
        along = nn.functional.normalize(output[:, 1] - output[:, 0], dim=-1)
        other = torch.cat([0.1 * along, torch.full_like(along[:, :1], 0.02)], -1)
        return torch.stack([torch.zeros_like(other)] + [other] * 20, 1)


@pytest.fixture
def places() -> NDArray[np.float64]:
    """Of two blobs far enough inside (6, 2, 2) that no view cuts them off."""
    return np.random.default_rng(3).uniform([25, 22], [54, 41], (6, 2, 2))


def test_a_view_is_what_opencv_warps() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, HEIGHT, WIDTH, 3)).astype(np.uint8)
    images = np.stack([cv2.GaussianBlur(one, (0, 0), 2.0) for one in images])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    for transform in view_transforms(6, (HEIGHT, WIDTH)):
        seen = warp(pixels, torch.from_numpy(transform)[None]).permute(0, 2, 3, 1).numpy()
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = [
            cv2.warpAffine(one, transform, (WIDTH, HEIGHT), flags=flags, borderMode=cv2.BORDER_REPLICATE)
            for one in images
        ]
        # OpenCV rounds places to 1/32 px and values to whole numbers; half a pixel off is 20 times as far away.
        assert np.abs(seen - np.stack(warped)).mean() < 0.4


def test_views_begin_with_the_image_and_longer_lists_only_add() -> None:
    few, many = (view_transforms(number, (HEIGHT, WIDTH)) for number in (5, 40))
    np.testing.assert_array_equal(few, many[:5])
    np.testing.assert_array_equal(few[0], np.eye(2, 3))
    linear = many[1:, :, :2].astype(np.float64)
    zoom = np.sqrt(np.linalg.det(linear))
    turn = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert zoom.min() > 1 / 1.2 and zoom.max() < 1.2 and np.abs(turn).max() < 30
    assert zoom.std() > 0.08 and turn.std() > 10  # they do differ


@pytest.mark.parametrize("views", [1, 8])
def test_answers_are_brought_back_to_the_image(places: NDArray[np.float64], views: int) -> None:
    found = predict(Finder(), blobs(places), views)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.keypoints[:, :2], places, atol=0.05)
    along = places[:, 1] - places[:, 0]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    assert found.keypoints_3d is not None
    np.testing.assert_allclose(found.keypoints_3d[:, 4, :2], 0.1 * along, atol=1e-3)
    np.testing.assert_allclose(found.keypoints_3d[:, 4, 2], 0.02, atol=1e-6)


def test_a_minority_of_wrong_views_is_outvoted(places: NDArray[np.float64]) -> None:
    wrong = predict(Finder(lies=1), blobs(places), 1)  # type: ignore[arg-type]
    outvoted = predict(Finder(lies=1), blobs(places), 5)  # type: ignore[arg-type]
    assert np.abs(wrong.keypoints[:, 0] - places[:, 0]).min() > 25
    np.testing.assert_allclose(outvoted.keypoints[:, 0], places[:, 0], atol=0.1)


def test_evaluate_measures_the_median_of_views(tmp_path: Path) -> None:
    data = write_toy(tmp_path / "toy.h5", 20, size=32)
    torch.manual_seed(0)
    estimator = build_estimator("compact", size=(32, 32), channels=1, width=4)
    nn.init.normal_(estimator.maps.weight)  # type: ignore[union-attr, arg-type]
    save_estimator(tmp_path / "run", estimator, {})
    told = CliRunner().invoke(evaluate, [str(tmp_path / "run"), str(data), "--json", "--device", "cpu", "--views", "7"])
    assert told.exit_code == 0, told.output
    rows = HandDataset(data, split="test")
    found = predict(estimator, rows.read("images"), 7).keypoints
    errors = np.linalg.norm(found - rows.read("keypoints_2d"), axis=-1)
    assert json.loads(told.stdout)["epe_mean_px"] == pytest.approx(errors.mean(), rel=1e-5)
    assert json.loads(told.stdout)["epe_mean_px"] != pytest.approx(
        evaluate_checkpoint(tmp_path / "run", rows)["epe_mean_px"]
    )


def test_views_of_something_else_than_an_estimator_are_refused(tmp_path: Path) -> None:
    data = write_toy(tmp_path / "toy.h5", 20, size=32)
    with pytest.raises(InputError, match=r"--views 3: .*nothing is no pose estimator"):
        evaluate_checkpoint(tmp_path / "nothing", HandDataset(data), views=3)

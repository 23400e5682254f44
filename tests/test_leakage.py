"""Measures of disentanglement against models whose codes do, or do not, carry a factor by construction."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_layered import TINY as LAYERED
from torch import Tensor, nn
from toy import write_toy

from handaug.cli import disentangle as disentangle_command
from handaug.cli import evaluate as evaluate_command
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.models import leakage
from handaug.models.disentangle import DisentangleConfig, train_disentangler
from handaug.models.disentangle.validation import spread_poses
from handaug.models.estimators import build_estimator, save_estimator
from handaug.models.judge import measure_run, quick_judge
from handaug.models.layered.train import train_layered
from handaug.models.leakage import measure_disentanglement, summary
from handaug.models.perceptual import perceptual_distance
from handaug.models.probes import Target, angle_error_deg, features_of, fit_and_predict, point_error, r_squared


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy hands of both sides, each with a forearm from the wrist outwards."""
    path = write_toy(tmp_path_factory.mktemp("toy") / "toy.h5", 100, size=32, pool=60)
    with h5py.File(path, "r+") as file:
        pose, mask, wrist = file["pose_id"][:], file["mask"][:], file["keypoints_2d"][:, 0]
        y, x = np.mgrid[:32, :32]
        for i, one in enumerate(pose):
            angle = np.random.default_rng(one).uniform(0, 2 * np.pi)
            place = wrist[i] + 4 * np.array([np.cos(angle), np.sin(angle)])
            mask[i][(np.hypot(x - place[0], y - place[1]) < 3.0)] = 2
        file["mask"][:] = mask
        file["handedness"][:] = pose % 2
    return path


# --- probes ---


def rng_targets(count: int = 300) -> tuple[np.random.Generator, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return rng, rng.normal(size=(count, 3))


def probe(codes: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> float:
    """R2 on the last 100 rows of a probe that learned from the others."""
    target = Target(values[:-100], np.arange(len(values) - 100))
    found = fit_and_predict(codes[:-100], {"t": target}, codes[-100:])["t"]
    return r_squared(found, values[-100:], values[:-100].mean(0))


def test_a_probe_reads_what_a_linear_code_carries_and_nothing_from_noise() -> None:
    rng, values = rng_targets()
    mixing = rng.normal(size=(3, 40))
    assert probe(values @ mixing, values) > 0.999
    assert abs(probe(rng.normal(size=(300, 40)), values)) < 0.1
    half = np.concatenate([values[:, :1] @ mixing[:1], rng.normal(size=(300, 5)) * 0.01], 1)
    assert probe(half, values) == pytest.approx(1 / 3, abs=0.1)  # one of three independent columns


def test_a_probe_reads_a_code_that_is_not_linear() -> None:
    rng = np.random.default_rng(1)
    angle = rng.uniform(-3, 3, (500, 1))
    circle = np.concatenate([np.cos(angle), np.sin(angle)], 1)
    values = np.sign(circle[:, :1] * circle[:, 1:])  # the quadrant's parity has no linear part
    assert probe(circle, values) > 0.5


def test_relatives_do_not_flatter_a_probe() -> None:
    """Codes that name the row's group and nothing else: remembered in training, worthless for a new group."""
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(100), 4)
    names, values = rng.normal(size=(150, 30)), rng.normal(size=(150, 2))
    target = Target(values[group], group)
    found = fit_and_predict(names[group], {"t": target}, names[100:])["t"]
    assert r_squared(found, values[100:], values[:100].mean(0)) > -0.15  # tuned to be near the mean, not to remember


def test_scores_in_closed_form() -> None:
    assert point_error(np.array([[3.0, 4.0, 0.0, 0.0]]), np.zeros((1, 4))) == 2.5
    assert r_squared(np.ones((4, 1)), np.array([[0.0], [2.0], [0.0], [2.0]]), np.ones(1)) == 0.0
    turned = np.array([[0.0, 2.0], [-1.0, 0.0]])
    assert angle_error_deg(turned, np.array([[1.0, 0.0], [-1.0, -1e-9]])) == pytest.approx(45.0)


def test_features_average_maps_and_keep_inner_products() -> None:
    ramp = np.arange(16, dtype=np.float32).reshape(1, 1, 1, 16) * np.ones((1, 1, 16, 1), np.float32)
    pooled = features_of(ramp).reshape(8, 8)
    assert np.allclose(pooled[0], [0.5, 2.5, 4.5, 6.5, 8.5, 10.5, 12.5, 14.5])
    rng = np.random.default_rng(0)
    long = rng.normal(size=(20, 60000)).astype(np.float32)
    folded = features_of(long)
    assert folded.shape == (20, 16384)
    assert np.allclose(folded @ folded.T / 60000, long @ long.T / 60000, atol=0.06)


# --- measures, on models whose behaviour is known ---


class Exact:
    """Codes by construction: pose is the image itself, the appearance whatever the test says."""

    channels, size, device, method = 1, (32, 32), torch.device("cpu"), "exact"

    def __init__(self, shows: str) -> None:
        self.shows = shows
        self.info: dict[str, Any] = {}

    def encode_pose(self, images: Tensor) -> Tensor:
        return images

    def encode_appearance(self, images: Tensor) -> Tensor:
        return images

    def decode(self, pose: Tensor, appearance: Tensor) -> Tensor:
        return {"x": pose, "y": appearance, "darker": pose - 0.1}[self.shows]


def test_a_model_that_returns_x_or_y_is_told_apart(data: Path) -> None:
    torch.manual_seed(0)
    judge = build_estimator("compact", size=(32, 32), channels=1, width=8).eval()
    nn.init.normal_(judge.get_parameter("maps.weight"))  # it answers something of its own for every image
    known, asked = HandDataset(data, split="train"), HandDataset(data, split="val")
    x, y = (measure_disentanglement(Exact(shows), known, asked, judge) for shows in "xy")
    # Returning x leaves the judge where it was; returning y shows it the hand of y.
    assert x["swap_error_to_x_px"] == pytest.approx(x["judge_error_px"], rel=1e-4)
    assert y["swap_error_to_y_px"] == pytest.approx(y["judge_error_px"], rel=0.15)
    assert y["swap_error_to_x_px"] != pytest.approx(x["swap_error_to_x_px"], rel=1e-3)
    assert x["nearer_to_y_share"] + y["nearer_to_y_share"] == pytest.approx(1.0, abs=0.25)
    assert x["nearer_to_y_share"] == x["judge_nearer_to_y_share"] == y["judge_nearer_to_y_share"]
    # x against its own truth is the copy, and perfect as a reconstruction.
    assert x["pair_psnr_db"] == pytest.approx(x["copy_psnr_db"]) and x["pair_ssim"] == pytest.approx(x["copy_ssim"])
    # A decoder that ignores a code draws the same whichever picture it is of, and the other code for all it is worth.
    assert x["same_look_psnr_db"] == y["same_pose_psnr_db"] == pytest.approx(100.0)
    assert x["same_pose_psnr_db"] == pytest.approx(x["copy_psnr_db"]) and y["same_look_psnr_db"] < 30
    assert x["inside_l1"] == 0 and x["outside_psnr_db"] == pytest.approx(100.0)
    darker = measure_disentanglement(Exact("darker"), known, asked, None)
    assert darker["inside_l1"] == pytest.approx(0.1, abs=0.01) and "judge_error_px" not in darker
    assert darker["inside_psnr_db"] == pytest.approx(20.0, abs=0.5)


class Coded(Exact):
    """Codes that are the labels, or random numbers."""

    def __init__(self, data: Path, pose: str, appearance: str) -> None:
        super().__init__("x")
        rows = HandDataset(data)
        self.key = {image.tobytes(): i for i, image in enumerate(rows.read("images").transpose(0, 3, 1, 2))}
        rng = np.random.default_rng(0)
        angle = {one: np.random.default_rng(one).uniform(0, 2 * np.pi) for one in rows.read("pose_id").tolist()}
        arm = np.array([[np.cos(angle[one]), np.sin(angle[one])] for one in rows.read("pose_id").tolist()])
        side = rows.read("handedness")[:, None] * 1.0
        labels = np.concatenate([rows.read("keypoints_2d").reshape(len(rows), -1) / 10, 3 * side, 3 * arm], 1)
        images, mask = rows.read("images")[..., 0] / 255.0, rows.read("mask")
        looks = np.array(
            [
                [f(image[m == kind]) for kind in (0, 1) for f in (np.mean, np.std)]
                for image, m in zip(images, mask, strict=True)
            ]
        )
        noise, mixed = rng.normal(size=(len(rows), 20)), looks @ rng.normal(size=(4, 9))
        background = looks[:, :2] @ rng.normal(size=(2, 9))
        self.codes = {"label": labels, "noise": noise, "look": mixed, "background": background}
        self.pose, self.appearance = pose, appearance

    def _code(self, images: Tensor, name: str) -> Tensor:
        levels = (images * 255.0).round().to(torch.uint8).numpy()
        return torch.from_numpy(self.codes[name][[self.key[one.tobytes()] for one in levels]])

    def encode_pose(self, images: Tensor) -> Tensor:
        return self._code(images, self.pose)

    def encode_appearance(self, images: Tensor) -> Tensor:
        return self._code(images, self.appearance)

    def decode(self, pose: Tensor, appearance: Tensor) -> Tensor:
        return torch.zeros(len(pose), 1, 32, 32)


def test_codes_that_carry_a_factor_and_codes_that_do_not(data: Path) -> None:
    known, asked = HandDataset(data, split="train"), HandDataset(data, split="val")
    clean = measure_disentanglement(Coded(data, "label", "noise"), known, asked, None)
    leaky = measure_disentanglement(Coded(data, "noise", "label"), known, asked, None)
    for told, code in ((clean, "pose"), (leaky, "appearance")):
        other = {"pose": "appearance", "appearance": "pose"}[code]
        assert told[f"pose_from_{code}_px"] < 0.2 * told["pose_chance_px"]
        assert told[f"pose_from_{other}_px"] > 0.9 * told["pose_chance_px"]
        assert told[f"side_from_{code}"] == 1.0 and told[f"side_from_{other}"] < 0.8
        assert told[f"forearm_from_{code}_deg"] < 15 < 0.6 * told[f"forearm_from_{other}_deg"]
    for look in ("hand_look", "background_look"):
        assert clean[f"{look}_from_appearance_r2"] < 0.1  # noise says nothing of the look
    assert len(summary(clean)) == 7 and "chance" in summary(clean)[0]


def test_the_look_is_read_from_a_code_that_carries_it(data: Path) -> None:
    known, asked = HandDataset(data, split="train"), HandDataset(data, split="val")
    clean = measure_disentanglement(Coded(data, "noise", "look"), known, asked, None)
    leaky = measure_disentanglement(Coded(data, "look", "noise"), known, asked, None)
    for look in ("hand_look", "background_look"):
        assert clean[f"{look}_from_appearance_r2"] > 0.9 and clean[f"{look}_from_pose_r2"] < 0.1
        assert leaky[f"{look}_from_pose_r2"] > 0.9
        assert clean[f"{look}_from_label_r2"] < 0.3  # looks are drawn whatever the pose


def test_the_looks_of_hand_and_background_are_told_apart(data: Path) -> None:
    known, asked = HandDataset(data, split="train"), HandDataset(data, split="val")
    measured = measure_disentanglement(Coded(data, "background", "noise"), known, asked, None)
    assert measured["background_look_from_pose_r2"] > 0.9 and measured["hand_look_from_pose_r2"] < 0.3
    assert "on the hand" in summary(measured)[1] and "on the background" in summary(measured)[1]


@pytest.mark.parametrize(("per_pose", "most", "poses", "each"), [(8, 60, 30, 2), (2, 60, 30, 2), (8, 400, 50, 8)])
def test_rows_are_spread_over_the_poses(tmp_path: Path, per_pose: int, most: int, poses: int, each: int) -> None:
    data = HandDataset(write_toy(tmp_path / "toy.h5", 50, per_pose=per_pose, pool=30, size=16))
    rows = spread_poses(data, most)
    found, counts = np.unique(data.read("pose_id", rows), return_counts=True)
    assert len(found) == poses and (counts == each).all() and found[0] == 0 and found[-1] == 49
    assert (np.diff(rows) > 0).all()


def test_measured_rows_are_of_many_poses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a pose has many looks, the first rows are of few poses."""
    monkeypatch.setattr(leakage, "FIT_ROWS", 80)
    monkeypatch.setattr(leakage, "TEST_ROWS", 40)
    data = HandDataset(write_toy(tmp_path / "toy.h5", 40, per_pose=8, pool=30, size=32))
    model, shown = Exact("x"), list[Tensor]()

    def encode(images: Tensor) -> Tensor:
        shown.append(images)
        return images

    monkeypatch.setattr(model, "encode_appearance", encode)
    measure_disentanglement(model, data, data, None)
    images = torch.from_numpy(data.read("images")).permute(0, 3, 1, 2).float() / 255.0
    rows = [int((images == one).all((1, 2, 3)).nonzero()[0]) for block in shown for one in block]
    assert len(rows) == 80 + 40 and len(np.unique(data.read("pose_id", np.unique(rows)))) == 40


def test_perceptual_distance_is_zero_for_equals_and_grows() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3)).eval()
    images = torch.rand(3, 1, 16, 16)
    assert torch.equal(perceptual_distance(network, images, images), torch.zeros(3))
    near, far = (perceptual_distance(network, images, (1 - w) * images + w * images.flip(0)) for w in (0.1, 1.0))
    assert (near[[0, 2]] < far[[0, 2]]).all() and far.max() <= 4.0
    first = network[0](images)
    unit = [f / f.norm(dim=1, keepdim=True) for f in (first, network[0](images.flip(0)))]
    alone = perceptual_distance(nn.Sequential(network[0]), images, images.flip(0))
    torch.testing.assert_close(alone, ((unit[0] - unit[1]) ** 2).sum(1).mean((1, 2)))


# --- stored runs and commands ---


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = DisentangleConfig(steps=4, batch_size=8, width=4, discriminator_width=4, phases=((3, 1.0),))
    return train_disentangler(data, tmp_path_factory.mktemp("run") / "run", config)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    save_estimator(folder, build_estimator("compact", size=(32, 32), channels=1, width=8), {})
    return folder


def test_evaluate_measures_any_run_and_names_a_judge_that_does_not_fit(
    run: Path, data: Path, judge: Path, tmp_path: Path
) -> None:
    layered = train_layered(data, tmp_path / "layered", replace(LAYERED, steps=2, validate_every=2))
    for folder in (run, layered):
        arguments = [str(folder), str(data), "--split", "val", "--json", "--device", "cpu"]
        result = CliRunner().invoke(evaluate_command.command, [*arguments, "--judge", str(judge)])
        assert result.exit_code == 0, result.output
        measured = json.loads(result.stdout)["disentanglement"]
        assert {"swap_error_to_x_px", "pose_from_appearance_px", "forearm_from_pose_deg"} < set(measured)
        assert {"inside_l1", "pair_ssim", "pair_perceptual", "side_from_appearance"} < set(measured)
        assert all(np.isfinite(value) for value in measured.values())
    wrong = build_estimator("compact", size=(64, 64), channels=1, width=8)
    save_estimator(tmp_path / "judge", wrong, {})
    refused = CliRunner().invoke(evaluate_command.command, [*arguments, "--judge", str(tmp_path / "judge")])
    assert isinstance(refused.exception, InputError) and "takes 64x64 px" in str(refused.exception)


def test_training_ends_with_the_measures_and_keeps_them(data: Path, judge: Path, tmp_path: Path) -> None:
    (tmp_path / "checker").mkdir()
    (tmp_path / "checker" / "fold-0").symlink_to(judge)  # the workspace's label checker judges, where there is one
    arguments = [str(data), "--out", str(tmp_path / "run"), "--method", "self", "--width", "4", "--batch-size", "8"]
    arguments += ["--steps", "2", "--device", "cpu", "--workspace", str(tmp_path)]
    first = CliRunner().invoke(disentangle_command.command, arguments)
    assert first.exit_code == 0, first.output
    assert "pose read from the appearance code" in first.output and "true renders" in first.output
    stored = tmp_path / "run" / "disentanglement.json"
    before = stored.stat().st_mtime_ns
    again = CliRunner().invoke(disentangle_command.command, arguments)
    assert "pose read from the appearance code" in again.output and stored.stat().st_mtime_ns == before
    whole = stored.read_text()
    for damaged in (whole[:40], "5", '{"inside_l1": null, "inside_psnr_db": 1, "outside_l1": 1, "outside_psnr_db": 1}'):
        stored.write_text(damaged)
        mended = CliRunner().invoke(disentangle_command.command, arguments)
        assert mended.exit_code == 0 and mended.stdout == again.stdout and stored.read_text() == whole
    arguments[2] = str(tmp_path / "quiet")
    quiet = CliRunner().invoke(disentangle_command.command, [*arguments, "--no-measure"])
    assert quiet.exit_code == 0 and not (tmp_path / "quiet" / "disentanglement.json").exists()


def test_a_run_that_draws_nothing_has_no_measures(data: Path, tmp_path: Path) -> None:
    config = DisentangleConfig(steps=2, batch_size=8, width=4, discriminator_width=4, phases=((1, 1.0),))
    run = train_disentangler(data, tmp_path / "run", config)
    assert measure_run(run, HandDataset(data, split="val")) == {}


def test_the_judge_is_the_same_every_time(data: Path) -> None:
    few = HandDataset(data, rows=np.arange(6))
    one, two = (quick_judge(few).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)

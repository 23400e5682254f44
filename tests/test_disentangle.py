"""Self-disentanglement: the architecture, Eqs. 1 to 7 against a second implementation, and the training run."""

import copy
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from toy import write_toy

from handaug.cli import disentangle as disentangle_command
from handaug.cli import evaluate as evaluate_command
from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.progress import SILENT
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import MASK_OCCLUDER
from handaug.models import methods
from handaug.models.disentangle import METHODS, DisentangleConfig, default_config, load_disentangler, train_disentangler
from handaug.models.disentangle.losses import discriminator_loss, generator_terms, total_loss
from handaug.models.disentangle.model import SelfDisentangler
from handaug.models.disentangle.validation import find_triples, load_validation, mix_kinds, swap_partners
from handaug.models.heatmaps import heatmap_l1, render_heatmaps
from handaug.models.networks import Discriminator, ImageDecoder

TINY = DisentangleConfig(
    steps=9, batch_size=8, width=4, discriminator_width=4, validate_every=3, phases=((2, 1 / 3), (3, 1 / 3), (6, 1 / 3))
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.h5", 24, size=32)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_disentangler(data, tmp_path_factory.mktemp("run") / "run", TINY)


# --- architecture ---


def test_networks_follow_section_4_2() -> None:
    model = SelfDisentangler(21, 1, 8)
    pose, appearance = model(torch.rand(2, 1, 64, 64))
    assert pose.shape == appearance.shape == (2, 64, 4, 4)  # depth 4: 64 -> 4
    assert model.pose_decoder(pose).shape == (2, 21, 64, 64)
    assert model.image_decoder(pose, appearance).shape == (2, 1, 64, 64)

    def count(module: nn.Module, kind: type[nn.Module]) -> int:
        return sum(type(layer) is kind for layer in module.modules())

    encoder = nn.ModuleList([model.trunk, model.pose_encoder])
    assert (count(encoder, nn.Conv2d), count(encoder, nn.ReLU), count(encoder, nn.MaxPool2d)) == (8, 8, 4)
    assert count(model.trunk, nn.MaxPool2d) == 3  # shared up to the last down-sampling
    deconvolutions = [layer for layer in model.pose_decoder.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.kernel_size for layer in deconvolutions] == [(2, 2)] * 4
    assert not any(isinstance(layer, nn.ConvTranspose2d) for layer in model.image_decoder.modules())


def test_image_decoder_equals_nearest_upsampling_then_convolution() -> None:
    decoder = ImageDecoder(3, 4).double()
    pose, appearance = torch.rand(2, 2, 32, 2, 3, dtype=torch.float64)
    features = torch.cat([pose, appearance], 1)
    for layer in decoder.blocks:
        if isinstance(layer, nn.Conv2d):
            if type(layer) is not nn.Conv2d:
                features = functional.interpolate(features, scale_factor=2, mode="nearest")
            features = functional.conv2d(features, layer.weight, layer.bias, padding=1)
        else:
            features = features.relu()
    expected = decoder.pixels(features).sigmoid()
    assert torch.allclose(decoder(pose, appearance), expected, atol=1e-12)


# --- losses ---


def _setting() -> tuple[SelfDisentangler, Discriminator, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    model, judge = SelfDisentangler(21, 1, 4).double(), Discriminator(1, 4).double()
    images = torch.rand(2, 1, 32, 32, dtype=torch.float64)
    heatmaps = render_heatmaps(torch.rand(2, 21, 2) * 31, (32, 32), 2.0).double()
    return model, judge, images, heatmaps, torch.ones(2, 21)


def _copy(module: nn.Module) -> Any:
    return copy.deepcopy(module).requires_grad_(False)


def _reference(phase: int) -> tuple[dict[str, Tensor], SelfDisentangler]:
    """Eqs. 1 to 6 for one pair x, y written out one by one, frozen modules as real copies."""
    m, judge, images, maps, _ = _setting()
    i_x, i_y, p_map_x, p_map_y = images[:1], images[1:], maps[:1], maps[1:]

    def l1(a: Tensor, b: Tensor) -> Tensor:
        return (a.float() - b.float()).abs().mean()

    def heat(a: Tensor, b: Tensor) -> Tensor:
        return heatmap_l1(a, b, torch.ones(1, 21), 2.0)

    def code(a: Tensor, b: Tensor, both: tuple[Tensor, Tensor]) -> Tensor:
        return l1(a, b.detach()) / torch.cat(both).detach().float().abs().mean()

    def place(a: Tensor, b: Tensor) -> Tensor:
        return nn.functional.cross_entropy(10 * a.reshape(21, -1), (b / b.sum((-2, -1), keepdim=True)).reshape(21, -1))

    p_x, a_x = m(i_x)
    p_y, a_y = m(i_y)
    c_x, c_y = (p_x, p_y) if phase == 6 else (p_x.detach(), p_y.detach())
    r_x, r_y = m.image_decoder(c_x, a_x), m.image_decoder(c_y, a_y)
    terms = {
        "place": (place(m.pose_decoder(p_x), p_map_x) + place(m.pose_decoder(p_y), p_map_y)) / 2,
        "pose": (heat(m.pose_decoder(p_x), p_map_x) + heat(m.pose_decoder(p_y), p_map_y)) / 2,
        "image": (l1(r_x, i_x) + l1(r_y, i_y)) / 2 / 0.1,
        "gan": -(_copy(judge)(torch.cat([r_x, r_y])).sigmoid().log()).mean(),
    }
    cycle, dual_p, dual_a, cycle_p, cycle_place = [], [], [], [], []
    for own, other, p, a_other, i_own, i_other, maps_own in (
        ((c_x, a_x), (c_y, a_y), p_x, a_y, i_x, i_y, p_map_x),
        ((c_y, a_y), (c_x, a_x), p_y, a_x, i_y, i_x, p_map_y),
    ):
        mixed = m.image_decoder(own[0], other[1])
        detach = phase in (3, 4)
        features = (_copy(m.trunk) if detach else m.trunk)(mixed)
        p_hat = (_copy(m.pose_encoder) if detach else m.pose_encoder)(features)
        a_hat = m.appearance_encoder(features)
        d_i = _copy(m.image_decoder)
        cycle += [l1(d_i(p_hat, own[1]), i_own) / 0.1, l1(d_i(other[0], a_hat), i_other) / 0.1]
        dual_p.append(code(p_hat, p, (p_x, p_y)))
        dual_a.append(code(a_hat, a_other, (a_x, a_y)))
        mixed_maps = (_copy(m.pose_decoder) if detach else m.pose_decoder)(p_hat)
        cycle_p.append(heat(mixed_maps, maps_own))
        cycle_place.append(place(mixed_maps, maps_own))
    for name, parts in (
        ("cycle_image", cycle),
        ("dual_pose", dual_p),
        ("dual_appearance", dual_a),
        ("cycle_pose", cycle_p),
        ("cycle_place", cycle_place),
    ):
        terms[name] = torch.stack(parts).mean()
    return terms, m


@pytest.mark.parametrize("phase", [3, 5, 6])
def test_losses_and_gradients_agree_with_the_equations_written_out(phase: int) -> None:
    model, judge, images, maps, labelled = _setting()
    terms, _ = generator_terms(model, judge, images, maps, labelled, 2.0, phase)
    expected, twin = _reference(phase)
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-5), name
    config = DisentangleConfig(alpha_gan=0.5, alpha_dual_pose=0.7)
    torch.autograd.backward(total_loss(terms, config))
    torch.autograd.backward(total_loss(expected, config))
    for (name, own), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert own.grad is not None and other.grad is not None
        assert torch.allclose(own.grad, other.grad, rtol=1e-3, atol=1e-6 + 1e-4 * float(other.grad.abs().max())), name
    assert all(parameter.grad is None for parameter in judge.parameters())


ENCODERS = {"trunk", "pose_encoder", "appearance_encoder"}
ROUTES: list[tuple[int, str, set[str]]] = [
    (1, "place", {"trunk", "pose_encoder", "pose_decoder"}),
    (1, "pose", {"trunk", "pose_encoder", "pose_decoder"}),
    (3, "image", {"trunk", "appearance_encoder", "image_decoder"}),  # Pose Detach
    (3, "gan", {"trunk", "appearance_encoder", "image_decoder"}),
    (3, "cycle_image", {"trunk", "appearance_encoder", "image_decoder"}),
    (3, "dual_pose", {"trunk", "appearance_encoder", "image_decoder"}),  # targets are constants
    (3, "cycle_pose", {"trunk", "appearance_encoder", "image_decoder"}),  # Pose Estimator Detach
    (3, "cycle_place", {"trunk", "appearance_encoder", "image_decoder"}),
    (5, "image", {"trunk", "appearance_encoder", "image_decoder"}),
    (5, "cycle_pose", ENCODERS | {"image_decoder", "pose_decoder"}),
    (6, "image", ENCODERS | {"image_decoder"}),  # No Pose Detach
]


@pytest.mark.parametrize(("phase", "term", "learns"), ROUTES)
def test_which_parts_learn_from_which_term(phase: int, term: str, learns: set[str]) -> None:
    model, judge, images, maps, labelled = _setting()
    terms, _ = generator_terms(model, judge, images, maps, labelled, 2.0, phase)
    torch.autograd.backward(terms[term])
    touched = {name for name, part in model.named_children() if any(p.grad is not None for p in part.parameters())}
    assert touched == learns


def test_frozen_decoder_gets_gradient_from_step_b_alone() -> None:
    """The cycle's gradient on D_I is that of a real copy in (c): more than zero, less than if (c) were live."""
    gradients = []
    for phase in (3, 4):
        model, judge, images, maps, labelled = _setting()
        torch.autograd.backward(generator_terms(model, judge, images, maps, labelled, 2.0, phase)[0]["cycle_image"])
        grad = model.image_decoder.pixels.weight.grad
        assert grad is not None and grad.abs().sum() > 0
        gradients.append(grad)
    assert torch.equal(gradients[0], gradients[1])  # phase 4 trains as phase 3


def test_discriminator_loss_at_indifference_and_its_sign() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((1, 2, 3)) * 0

    real, fake = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4, requires_grad=True)
    assert discriminator_loss(Constant(), real, fake).item() == pytest.approx(2 * math.log(2))
    right = discriminator_loss(nn.Sequential(nn.Flatten(), _Scale(10.0)), real, fake)
    wrong = discriminator_loss(nn.Sequential(nn.Flatten(), _Scale(-10.0)), real, fake)
    assert right < 2 * math.log(2) < wrong  # minimised by telling them apart
    assert not right.requires_grad  # the generator learns nothing from it


class _Scale(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, images: Tensor) -> Tensor:
        return (images.mean(1) - 0.5) * self.by


# --- validation ---


def test_triples_are_true_renders_of_mixes() -> None:
    pose, appearance = np.array([0, 0, 1, 1, 2, 3]), np.array([7, 8, 8, 9, 9, 7])
    alike = np.array([0, 0, 0, 0, 1, 0])
    triples = find_triples(pose, appearance, alike)
    assert len(triples)
    for x, y, z in triples:
        assert pose[x] == pose[z] and appearance[y] == appearance[z] and alike[y] == alike[z]
        assert pose[y] != pose[z] and appearance[x] != appearance[z]
    # Row 3 is pose 1 in appearance 9, which only row 4 (unlike it) shares: no triple.
    assert set(triples[:, 2]) == {0, 1, 2}


def test_swaps_take_the_look_of_another_pose_that_may_be_mixed() -> None:
    side, mask = np.array([0, 0, 1, 1, 0, 0], np.uint8), np.zeros((6, 2, 2), np.uint8)
    mask[5, 0, 0] = MASK_OCCLUDER
    alike = mix_kinds(side, mask)
    # 0 and 1 show one pose, 2 and 3 are of the other side and one pose, 5 alone has an occluder.
    assert swap_partners(np.array([0, 0, 1, 1, 2, 3]), alike).tolist() == [4, 4, -1, -1, 0, -1]
    assert swap_partners(np.array([0, 0, 1, 1, 2, 3]), mix_kinds(side, None)).tolist() == [4, 4, -1, -1, 5, 0]


def test_grids_are_of_the_more_frequent_side(tmp_path: Path) -> None:
    path = write_toy(tmp_path / "toy.h5", 64, size=16)
    with h5py.File(path, "r+") as file:
        file["handedness"][:] = np.where(np.arange(128) < 40, 0, 1)
    data = load_validation(HandDataset(path))
    assert len(data.poses) == 8 and data.poses.min() >= 40 and data.appearances.min() >= 40


# --- the run ---


def test_a_run_leaves_weights_log_and_pictures(run: Path, data: Path) -> None:
    found = " ".join(sorted(p.name for p in run.iterdir()))
    assert found == "config.json grid.png grids log.jsonl model.safetensors run.json seen.safetensors"
    assert not run.with_name("run.partial").exists()
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["phase"]) for line in lines] == [(3, 2), (6, 3), (9, 6)]
    assert {"place", "pose", "image", "gan", "discriminator"} == set(lines[0]["train"])
    assert {"cycle_image", "cycle_pose", "dual_pose", "dual_appearance"} < set(lines[2]["train"])
    assert {"image_l1", "epe_px", "swap_epe_px", "pair_psnr_db", "copy_psnr_db"} == set(lines[2]["validation"])
    across = len(np.unique(_val(data, "pose_id")))
    assert Image.open(run / "grid.png").width == 2 * 32 * (1 + min(8, across)) + 4 * (2 + min(8, across))


def _val(data: Path, name: str) -> NDArray[Any]:
    with h5py.File(data) as file:
        return np.asarray(file[name][:][file["split"][:] == 1])


def test_a_loaded_disentangler_mixes(run: Path, data: Path) -> None:
    model = load_disentangler(run)
    images = torch.from_numpy(_val(data, "images")).permute(0, 3, 1, 2).float() / 255
    pose, appearance = model.encode_pose(images), model.encode_appearance(images)
    mixed = model.decode(pose, appearance.flip(0))
    assert mixed.shape == images.shape and mixed.dtype == torch.float32
    assert 0 <= mixed.min() and mixed.max() <= 1
    assert model.pose_keypoints(pose).shape == (len(images), 21, 2)
    assert (model.method, model.size, model.channels) == ("self", (32, 32), 1)
    assert model.info["train_rows"] == 34
    with pytest.raises(ValueError, match=r"the model takes \(1, 32, 32\)"):
        model.encode_pose(torch.rand(1, 3, 32, 32))


def test_same_command_does_nothing_another_is_refused_unless_overwritten(run: Path, data: Path) -> None:
    before = (run / "model.safetensors").stat().st_mtime_ns
    train_disentangler(data, run, TINY)
    assert (run / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="--overwrite"):
        train_disentangler(data, run, replace(TINY, seed=1))
    assert (run / "model.safetensors").stat().st_mtime_ns == before
    other = run.with_name("not-a-run")
    other.mkdir()
    (other / "diary.txt").write_text("dear diary")
    with pytest.raises(InputError, match="is not a run"):
        train_disentangler(data, other, TINY, overwrite=True)


KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_disentangle import TINY
from handaug.models.disentangle import train_disentangler

class Killer:
    def note(self, text): pass
    @contextmanager
    def task(self, label, total, unit):
        done = [0]
        def advance(n):
            done[0] += n
            if done[0] >= 5:
                os.kill(os.getpid(), signal.SIGKILL)
        yield advance

train_disentangler(Path(sys.argv[2]), Path(sys.argv[3]), TINY, progress=Killer())
"""


def test_after_kill_9_the_same_command_ends_with_the_same_weights(run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(data), str(out)]
    killed = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists() and (tmp_path / "run.partial" / "state.pt").exists()
    train_disentangler(data, out, TINY)
    whole, resumed = load_file(run / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (out / "log.jsonl").read_text() == (run / "log.jsonl").read_text()


def test_a_loss_that_explodes_names_step_and_term_and_keeps_the_last_good_state(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(WorkError, match=r"loss term \w+ is not finite at step [2-9]") as caught:
        train_disentangler(data, out, replace(TINY, learning_rate=1e30, validate_every=1))
    assert "--overwrite" in str(caught.value)
    assert not out.exists() and (tmp_path / "run.partial" / "state.pt").exists()


def test_rows_outside_split_0_do_not_train(data: Path, tmp_path: Path) -> None:
    """Without val rows the last weights are kept; noise in place of all test images leaves them as they are."""
    weights = []
    for name, change in (("a", _without_val), ("b", _noise_in_test)):
        path = tmp_path / f"{name}.h5"
        path.write_bytes(data.read_bytes())
        with h5py.File(path, "r+") as file:
            _without_val(file)
            change(file)
        notes = _Notes()
        config = replace(TINY, steps=2, phases=((3, 1.0),))
        out = train_disentangler(path, tmp_path / name, config, progress=notes)
        assert any("no val rows" in note for note in notes.texts)
        weights.append(load_file(out / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def _without_val(file: h5py.File) -> None:
    split = file["split"][:]
    split[split == 1] = 2
    file["split"][:] = split


def _noise_in_test(file: h5py.File) -> None:
    for row in np.flatnonzero(file["split"][:] == 2):
        file["images"][row] = np.random.default_rng(row).integers(0, 256, file["images"].shape[1:])


class _Notes:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    @contextmanager
    def task(self, label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        yield lambda n: None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "--method magic"),
        ({"batch_size": 7}, "--batch-size 7"),
        ({"steps": 0}, "--steps 0"),
        ({"phases": ((7, 1.0),)}, "--phase"),
        ({"phases": ((3, 0.5),)}, "--phase"),
        ({"precision": "8"}, "--precision 8"),
        ({"alpha_gan": float("nan")}, "alpha_gan"),
    ],
)
def test_bad_configs_name_their_flag(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DisentangleConfig(**options)


def test_config_survives_json_and_schedules_its_phases() -> None:
    config = replace(default_config(3200, (64, 64), "cpu"), steps=10, phases=((2, 0.3), (3, 0.4), (6, 0.3)))
    assert DisentangleConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert [config.phase_at(step) for step in range(10)] == [2, 2, 2, 3, 3, 3, 3, 6, 6, 6]


def test_command_trains_and_explains_bad_input(data: Path, tmp_path: Path) -> None:
    assert disentangle_command.METHODS.split("|") == list(methods.METHODS)
    assert set(METHODS) <= set(methods.METHODS)
    arguments = [str(data), "--out", str(tmp_path / "run"), "--width", "4", "--batch-size", "8", "--phase", "3:1"]
    foreign = CliRunner().invoke(disentangle_command.command, [*arguments, "--method", "handaug"])
    assert isinstance(foreign.exception, InputError) and "--phase: belongs to --method self" in str(foreign.exception)
    arguments += ["--method", "self"]
    result = CliRunner().invoke(disentangle_command.command, [*arguments, "--epochs", "0.5", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["steps"] == 2
    both = CliRunner().invoke(disentangle_command.command, [*arguments, "--epochs", "1", "--steps", "2"])
    assert isinstance(both.exception, InputError) and "--epochs and --steps" in str(both.exception)
    phase = CliRunner().invoke(disentangle_command.command, [str(data), "--method", "self", "--phase", "x"])
    assert isinstance(phase.exception, InputError) and "--phase x" in str(phase.exception)


def test_evaluate_measures_the_pose_branch_as_json(run: Path, data: Path, tmp_path: Path) -> None:
    arguments = [str(run), str(data), "--split", "val", "--json", "--device", "cpu"]
    result = CliRunner().invoke(evaluate_command.command, arguments)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    # The run stored what it measured of the same rows when it kept these weights.
    stored = json.loads((run / "config.json").read_text())["info"]["validation"]
    assert figures["epe_mean_px"] == pytest.approx(stored["epe_px"], rel=1e-4)
    other = write_toy(tmp_path / "rgb.h5", 8, size=32, channels=3)
    for bad, message in (
        ([str(run), str(other)], "rgb.h5: has 32x32 px with 3 channels"),
        ([str(tmp_path), str(data)], "config.json: no such file"),
        ([str(run), str(data), "--split", "some"], "--split some"),
    ):
        refused = CliRunner().invoke(evaluate_command.command, bad)
        assert isinstance(refused.exception, InputError) and message in str(refused.exception)


def test_data_that_cannot_be_trained_on_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        train_disentangler(tmp_path / "nothing.h5", tmp_path / "run", TINY)
    with pytest.raises(InputError, match="multiples of 16"):
        train_disentangler(write_toy(tmp_path / "odd.h5", 8, size=40), tmp_path / "run", TINY)
    with pytest.raises(InputError, match="0 train rows"):
        with h5py.File(path := tmp_path / "test-only.h5", "w") as file, h5py.File(data) as source:
            for name in source:
                source.copy(name, file)
            file.attrs.update(source.attrs)
            file["split"][:] = 2
        train_disentangler(path, tmp_path / "run", TINY)
    assert not (tmp_path / "run.partial").exists()


@pytest.mark.parametrize("method", ["self", "paired", "handaug"])
def test_data_without_a_label_are_refused_and_leave_no_trace(method: str, data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "plain.h5"
    copy.write_bytes(data.read_bytes())
    with h5py.File(copy, "r+") as file:
        file["visibility"][:] = 0
        file["keypoints_2d"][:] = np.nan
    with pytest.raises(InputError, match=r"plain\.h5: none of its train rows is labelled"):
        known = methods.METHODS[method]
        config = methods.resolve(known.default_config)(method, 8, (32, 32), "cpu")
        methods.resolve(known.train)(copy, tmp_path / "run", config, device="cpu", progress=SILENT)
    assert os.listdir(tmp_path) == ["plain.h5"]


def test_a_refused_run_claims_no_name(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "single.h5"
    copy.write_bytes(data.read_bytes())
    with h5py.File(copy, "r+") as file:
        file["pose_id"][:] = np.arange(len(file["pose_id"]))
    with pytest.raises(InputError, match="no two train rows share a pose_id"):
        train_disentangler(copy, tmp_path / "run", replace(TINY, method="paired", phases=((7, 1.0),)))
    assert os.listdir(tmp_path) == ["single.h5"]

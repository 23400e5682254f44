"""The dVAE: Eqs. 1 to 8 against torch.distributions, what learns in which step, the algorithms, the run."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rows import random_rows, write_rows
from safetensors.torch import load_file
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from toy import write_toy

from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.reader import HandDataset
from handaug.models.dvae.api import Dvae, load_dvae
from handaug.models.dvae.config import METHODS, DvaeConfig, default_dvae_config, stage_at
from handaug.models.dvae.data import Tags, TrainRows, move_images, place_pixels, read_poses, read_train_rows
from handaug.models.dvae.losses import gaussian_kl, gaussian_nll, pair_at, stage_terms, total_loss
from handaug.models.dvae.measure import collapsed, compare, measure, read_rows
from handaug.models.dvae.modalities import MODALITIES
from handaug.models.dvae.model import DVAE, Batch
from handaug.models.dvae.train import train_dvae
from handaug.models.hand_frame import hand_frame

SIZE = 32
CPU = torch.device("cpu")


def tiny(method: str, **changes: Any) -> DvaeConfig:
    """A configuration that trains in a second."""
    config = default_dvae_config(method, 34, (SIZE, SIZE), "cpu")
    if method == "dvae-pose":
        config = replace(config, factors=(("cpose", 6), ("viewpoint", 5)))
    elif method == "dvae":
        config = replace(config, factors=(("placed_pose", 6), ("content", 5)))
    elif method == "dvae-zu":
        config = replace(config, factors=(("placed_pose", 6),), z_u=5)
    return replace(config, **{"width": 2, "steps": 6, "batch_size": 6, "validate_every": 6, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.h5", 24, size=SIZE)


def setting(data: Path, config: DvaeConfig, stage: str) -> tuple[DVAE, Batch, Tensor]:
    """A model in the state of a stage, a batch of four rows, and latent noise."""
    torch.manual_seed(0)
    model = DVAE(config, 1, (SIZE, SIZE))
    rows = read_train_rows(HandDataset(data, split="train"), config)
    batch = rows.batch(stage, np.arange(4), np.random.default_rng(0), CPU)
    model.enter(stage)
    return model, batch, torch.randn(4, model.latent)


# likelihood and divergence


def test_kl_is_that_of_torch_distributions_in_each_dimension() -> None:
    torch.manual_seed(1)
    mean, log_variance = torch.randn(5, 7), torch.randn(5, 7)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0))
    assert torch.allclose(gaussian_kl(mean, log_variance), expected, atol=1e-6)
    assert gaussian_kl(torch.zeros(1), torch.zeros(1)).item() == 0.0


def log_density(mean: Tensor, at: Tensor) -> Tensor:
    density: Tensor = Normal(mean, 1.0).log_prob(at)  # type: ignore[no-untyped-call]
    return density


def test_nll_is_a_unit_gaussian_in_the_likelihoods_own_unit() -> None:
    predicted, target = torch.rand(3, 1, 2, 2) * 2 - 1, torch.rand(3, 1, 2, 2) * 2 - 1
    levels, found = (target + 1) * 127.5, (predicted + 1) * 127.5  # what 0..255 holds
    constant = 4 * 0.5 * np.log(2 * np.pi)
    expected = -log_density(found, levels).flatten(1).sum(1) - constant
    assert torch.allclose(gaussian_nll(predicted, target, MODALITIES["image"].unit), expected, rtol=1e-4)


# the equations, written out


def posterior(found: tuple[Tensor, Tensor]) -> Normal:
    return Normal(found[0], (0.5 * found[1]).exp())


def log_p(model: DVAE, name: str, z: Tensor, target: Tensor) -> Tensor:
    """log p of each row without the constant, from the decoder itself."""
    unit = MODALITIES[name].unit
    square: Tensor = ((model.decoders[name](z) - target) * unit).square()
    return -0.5 * square.flatten(1).sum(1)


FACTORS = {
    "dvae": (("placed_pose", 6), ("content", 5)),
    "dvae, four factors": (("cpose", 4), ("viewpoint", 3), ("placement", 2), ("content", 5)),
    "dvae-pose": (("cpose", 6), ("viewpoint", 5)),
}


@pytest.mark.parametrize("name", FACTORS)
def test_eq_2_for_any_number_of_factors(data: Path, name: str) -> None:
    config = tiny(name.partition(",")[0], factors=FACTORS[name], augment=False, beta=3.0, lambda_x=0.5, lambda_y=0.25)
    model, batch, noise = setting(data, config, "disentangle")
    parts, elbo, start = {}, torch.zeros(4), 0
    for factor, dims in config.factors:
        q = posterior(model.factor_encoders[factor](batch[factor]))
        parts[factor] = q.mean + q.stddev * noise[:, start : start + dims]
        start += dims
        elbo = elbo + 0.25 * log_p(model, factor, parts[factor], batch[factor])
        elbo = elbo - 3.0 * kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    elbo = elbo + 0.5 * log_p(model, config.x, torch.cat(list(parts.values()), 1), batch[config.x])
    loss = total_loss(stage_terms(model, "disentangle", batch, noise), config)
    assert loss.item() == pytest.approx(-elbo.mean().item(), rel=1e-4)


def test_eq_6_gives_the_pose_decoder_the_whole_z(data: Path) -> None:
    config = tiny("dvae-zu", beta=3.0)
    model, batch, noise = setting(data, config, "disentangle")
    pose = posterior(model.factor_encoders["placed_pose"](batch["placed_pose"]))
    u = posterior(model.factor_encoders["u"](batch["image"]))
    z = torch.cat([pose.mean + pose.stddev * noise[:, :6], u.mean + u.stddev * noise[:, 6:]], 1)
    elbo = log_p(model, "image", z, batch["image"]) + 0.01 * log_p(model, "placed_pose", z, batch["placed_pose"])
    elbo = elbo - 3.0 * sum(kl_divergence(q, Normal(0.0, 1.0)).sum(1) for q in (pose, u))
    loss = total_loss(stage_terms(model, "disentangle", batch, noise), config)
    assert loss.item() == pytest.approx(-elbo.mean().item(), rel=1e-4)


def test_the_noise_step_takes_z_u_of_another_image(data: Path) -> None:
    config = tiny("dvae-zu", beta=3.0)
    model, batch, noise = setting(data, config, "noise")
    pose = posterior(model.factor_encoders["placed_pose"](batch["placed_pose"]))
    u = posterior(model.factor_encoders["u"](batch["image"][[1, 2, 3, 0]]))
    z = torch.cat([pose.mean + pose.stddev * noise[:, :6], u.mean + u.stddev * noise[:, 6:]], 1)
    terms = stage_terms(model, "noise", batch, noise)
    assert list(terms) == ["noise/nll/placed_pose"]
    expected = -0.01 * log_p(model, "placed_pose", z, batch["placed_pose"]).mean()
    assert total_loss(terms, config).item() == pytest.approx(expected.item(), rel=1e-4)


def test_eqs_4_and_8_embed_both_modalities_into_one_z(data: Path) -> None:
    config = tiny("dvae-pose", beta=2.0, augment=False)
    model, batch, noise = setting(data, config, "embed")
    elbo = torch.zeros(4)
    for source in ("pose3d", "image"):
        inputs = (batch["image"], batch["side"]) if source == "image" else (batch["pose3d"],)
        q = posterior(model.embedders[source](*inputs))
        z = q.mean + q.stddev * noise
        elbo = elbo + log_p(model, "pose3d", z, batch["pose3d"]) - 2.0 * kl_divergence(q, Normal(0.0, 1.0)).sum(1)
        elbo = elbo + 0.01 * log_p(model, "cpose", z[:, :6], batch["cpose"])
        elbo = elbo + 0.01 * log_p(model, "viewpoint", z[:, 6:], batch["viewpoint"])
    loss = total_loss(stage_terms(model, "embed", batch, noise), config)
    assert loss.item() == pytest.approx(-elbo.mean().item(), rel=1e-4)


def test_eq_1_jointly_and_pair_by_pair(data: Path) -> None:
    config = tiny("cross-modal", embed=("image", "pose3d"), alternating=True, augment=False, latent=7, beta=0.5)
    model, batch, noise = setting(data, config, "embed")
    order = [("image", "image"), ("image", "pose3d"), ("pose3d", "image"), ("pose3d", "pose3d")]
    assert [pair_at(config, step) for step in range(5)] == [*order, order[0]]
    q = posterior(model.embedders["image"](batch["image"], batch["side"]))
    z = q.mean + q.stddev * noise
    kl = kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    image, pose = log_p(model, "image", z, batch["image"]), log_p(model, "pose3d", z, batch["pose3d"])
    joint = replace(config, embed=("image",), alternating=False)
    model.config = joint
    loss = total_loss(stage_terms(model, "embed", batch, noise), joint)
    assert loss.item() == pytest.approx((0.5 * kl - 1e-4 * image - pose).mean().item(), rel=1e-4)
    model.config = config
    pair = stage_terms(model, "embed", batch, noise, 1)
    assert set(pair) == {"image/nll/pose3d", "image/kl/z"}
    assert total_loss(pair, config).item() == pytest.approx((0.5 * kl - pose).mean().item(), rel=1e-4)


# who learns


ROUTES = [
    ("dvae", "disentangle", {"factor_encoders.placed_pose", "factor_encoders.content", "decoders"}),
    ("dvae", "embed", {"embedders"}),
    ("dvae-pose", "disentangle", {"factor_encoders.cpose", "factor_encoders.viewpoint", "decoders"}),
    ("dvae-pose", "embed", {"embedders"}),
    ("dvae-zu", "disentangle", {"factor_encoders.placed_pose", "factor_encoders.u", "decoders"}),
    ("dvae-zu", "noise", {"factor_encoders.placed_pose", "decoders.placed_pose"}),
    ("dvae-zu", "embed", {"embedders"}),
    ("cross-modal", "embed", {"embedders", "decoders"}),
]


@pytest.mark.parametrize(("method", "stage", "learns"), ROUTES)
def test_which_parts_learn_in_which_step(data: Path, method: str, stage: str, learns: set[str]) -> None:
    model, batch, noise = setting(data, tiny(method), stage)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.autograd.backward(total_loss(stage_terms(model, stage, batch, noise), model.config))

    def own(name: str) -> bool:
        return any(name.startswith(prefix) for prefix in learns)

    touched = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert touched and all(own(name) for name in touched)
    # Every encoder and decoder that should learn does: its first weight has a gradient.
    for name, weight in model.named_parameters():
        if own(name) and name.endswith("weight"):
            assert weight.grad is not None, name
    # What stands still keeps its batch statistics too.
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert all(own(name) for name in moved)


def test_a_factor_is_read_from_its_own_block_alone(data: Path) -> None:
    model, batch, noise = setting(data, tiny("dvae-pose"), "disentangle")
    torch.autograd.backward(stage_terms(model, "disentangle", batch, noise)["disentangle/nll/cpose"])
    assert all(p.grad is None or not p.grad.any() for p in model.factor_encoders["viewpoint"].parameters())
    model, batch, noise = setting(data, tiny("dvae-zu"), "disentangle")
    torch.autograd.backward(stage_terms(model, "disentangle", batch, noise)["disentangle/nll/placed_pose"])
    assert any(p.grad is not None and p.grad.any() for p in model.factor_encoders["u"].parameters())


def test_algorithm_1_then_2_in_order() -> None:
    one = tiny("dvae", steps=7, embed_share=3 / 7)
    assert [stage_at(one, 3, step) for step in range(7)] == [
        *(("disentangle", i) for i in range(4)),
        *(("embed", i) for i in range(3)),
    ]
    two = tiny("dvae-zu", steps=14, embed_share=1 / 7, noise_epochs=2)
    stages = [stage_at(two, 2, step) for step in range(14)]
    assert [stage for stage, _ in stages] == [*(["disentangle"] * 2 + ["noise"] * 4) * 2, "embed", "embed"]
    for name in ("disentangle", "noise", "embed"):  # every stage goes through its rows without a gap
        places = [place for stage, place in stages if stage == name]
        assert places == list(range(len(places)))
    short = tiny("dvae-zu", steps=6, embed_share=1 / 3)
    assert [stage for stage, _ in (stage_at(short, 100, step) for step in range(4))] == ["disentangle"] * 2 + [
        "noise"
    ] * 2
    assert stage_at(tiny("cross-modal"), 5, 3) == ("embed", 3)


# rows


def test_tags_show_another_pose_in_the_same_appearance() -> None:
    appearance, pose = np.array([7, 7, 7, 8, 8, 9]), np.array([1, 2, 1, 3, 3, 4])
    tags = Tags(appearance, pose)
    assert tags.exist.tolist() == [True, True, True, False, False, False]
    assert tags.of(0).tolist() == [1] and sorted(tags.of(1).tolist()) == [0, 2]
    assert tags.draw(np.array([0, 2]), np.random.default_rng(0)).tolist() == [1, 1]


def test_motions_move_labels_as_they_move_the_hand(data: Path) -> None:
    view = HandDataset(data, split="test")
    poses = read_poses(view, "wrist")
    count = len(poses)
    angle, mirrored = torch.linspace(-3, 3, count), torch.arange(count) % 2 == 0
    moved = poses.moved(angle, mirrored)
    points = view.read("keypoints_3d").astype(np.float64)
    turn = np.stack([[[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]] for a in angle.numpy()])
    sign = np.where(mirrored.numpy(), -1.0, 1.0)
    points[..., 0] *= sign[:, None]
    side = np.where(mirrored.numpy(), 1 - view.read("handedness"), view.read("handedness"))
    frame = hand_frame(points @ turn.transpose(0, 2, 1), side)
    whole = frame.viewpoint * np.where(side == 1, -1.0, 1.0)[:, None, None] ** np.array([0, 0, 1])
    for name, expected in (("pose3d", frame.pose3d), ("cpose", frame.cpose), ("viewpoint", whole)):
        assert np.allclose(moved.vector(name).numpy(), expected.reshape(count, -1), atol=1e-4), name
    assert np.array_equal(moved.side.numpy() > 0, side == 1)
    # The placement follows the picture: keypoints of the moved label are the moved keypoints.
    centre = (SIZE - 1) / 2
    before = place_pixels(poses.pose3d, poses.placement, (SIZE, SIZE)).double().numpy() - centre
    before[..., 0] *= sign[:, None]
    after = before @ turn[:, :2, :2].transpose(0, 2, 1) + centre
    assert np.allclose(place_pixels(moved.pose3d, moved.placement, (SIZE, SIZE)).numpy(), after, atol=1e-3)


def test_images_move_with_their_labels() -> None:
    """A drawn dot is found where the label goes, to a tenth of a pixel, on an image that is not square."""
    height, width = 40, 56
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.tensor([[20.0, 18.0], [30.0, 25.0], [33.0, 16.0], [24.0, 21.0]])
    dots = torch.exp(-((x - at[:, :1, None]) ** 2 + (y - at[:, 1:, None]) ** 2) / 8.0)[:, None]
    angle, mirrored = torch.tensor([0.0, 0.7, -2.0, 3.0]), torch.tensor([True, False, True, False])
    moved = move_images(dots, angle, mirrored)[:, 0]
    mass = moved.sum((1, 2))
    found = torch.stack([(moved * x).sum((1, 2)) / mass, (moved * y).sum((1, 2)) / mass], 1)
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    offset = (at - centre) * torch.stack([1 - 2 * mirrored.float(), torch.ones(4)], 1)
    c, s = angle.cos(), angle.sin()
    expected = torch.stack([c * offset[:, 0] - s * offset[:, 1], s * offset[:, 0] + c * offset[:, 1]], 1) + centre
    assert (found - expected).abs().max() < 0.1


def test_placement_puts_the_pose_where_the_keypoints_are(data: Path) -> None:
    view = HandDataset(data)
    poses = read_poses(view, "wrist")
    found = place_pixels(poses.pose3d, poses.placement, view.size).numpy()
    assert np.abs(found - view.read("keypoints_2d")).max() < 1e-3
    assert bool(poses.placed.all())


def test_placement_is_exact_for_a_camera_at_the_centre(tmp_path: Path) -> None:
    """Near hands of real depth, some with half of their 2D labels missing."""
    rows = random_rows(40, size=SIZE)
    rows["keypoints_2d"][::3, 10:] = np.nan
    rows["visibility"][::3, 10:] = 0
    poses = read_poses(HandDataset(write_rows(tmp_path / "rows.h5", rows)), "wrist")
    assert bool(poses.placed.all())
    found = place_pixels(poses.pose3d, poses.placement, (SIZE, SIZE)).numpy()
    error = np.abs(found - rows["keypoints_2d"])
    assert np.nanmax(error) < 2e-2
    depth = rows["keypoints_3d"][:, 0, 2]
    assert np.allclose(poses.placement[:, 3].numpy() * 0.1, poses.scale.numpy() / depth, rtol=1e-2)


def weak_rows(data: Path, supervision: str) -> TrainRows:
    config = tiny("dvae-pose", labelled=50.0, supervision=supervision, augment=False)
    return read_train_rows(HandDataset(data, split="train"), config)


def test_labelled_percentage_and_what_the_rest_gives(data: Path) -> None:
    pools = {name: weak_rows(data, name).pools for name in ("supervised", "semi", "weak")}
    count = len(HandDataset(data, split="train"))
    first = list(range(count // 2))
    assert pools["supervised"]["disentangle"].tolist() == pools["supervised"]["embed"].tolist() == first
    assert (len(pools["semi"]["disentangle"]), pools["semi"]["embed"].tolist()) == (count, first)
    assert (pools["weak"]["disentangle"].tolist(), len(pools["weak"]["embed"])) == (first, count)


@pytest.mark.parametrize(("name", "matters"), [("pose3d", False), ("cpose", False), ("viewpoint", True)])
def test_weak_rows_teach_by_their_viewpoint_alone(data: Path, name: str, matters: bool) -> None:
    rows = weak_rows(data, "weak")
    torch.manual_seed(0)
    model = DVAE(rows.config, 1, (SIZE, SIZE))
    model.enter("embed")
    last = np.array([0, 1, len(rows.images) - 2, len(rows.images) - 1])
    losses = []
    for change in (0.0, 1.0):
        batch = rows.batch("embed", last, np.random.default_rng(0), CPU)
        batch[name] = batch[name] + change * torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None]
        noise = torch.zeros(4, model.latent)
        losses.append(total_loss(stage_terms(model, "embed", batch, noise), rows.config).item())
    assert (losses[0] != losses[1]) == matters


def test_pose_triples_without_images_join_the_disentangling_step(data: Path, tmp_path: Path) -> None:
    other = write_toy(tmp_path / "other.h5", 10, size=16, seed=3)
    config = tiny("dvae-pose", augment=False)
    rows = read_train_rows(HandDataset(data, split="train"), config, HandDataset(other, split="train"))
    count, more = len(HandDataset(data, split="train")), len(HandDataset(other, split="train"))
    assert len(rows.pools["disentangle"]) == count + more and len(rows.pools["embed"]) == count
    batch = rows.batch("disentangle", np.array([count + more - 1]), np.random.default_rng(0), CPU)
    expected = read_poses(HandDataset(other, split="train"), "wrist")
    assert torch.equal(batch["cpose"][0], expected.cpose[-1]) and "image" not in batch


# the run


class Stops:
    """Stops a run as Ctrl-C does, after some steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    def note(self, text: str) -> None:
        pass

    @contextmanager
    def task(self, label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        done = [0]

        def advance(n: int) -> None:
            done[0] += n
            if done[0] >= self.after:
                raise KeyboardInterrupt

        yield advance


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {method: train_dvae(data, folder / method, resumable(method)) for method in METHODS}


def resumable(method: str) -> DvaeConfig:
    """Two validations, and so a state to go on from, where a test interrupts the run."""
    return tiny(method, validate_every=3 if method in RESUMED else 6)


RESUMED = ("dvae-zu", "dvae-pose")


def test_a_run_leaves_weights_log_and_kl_of_every_dimension(runs: dict[str, Path]) -> None:
    for method, run in runs.items():
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == ([3, 6] if method in RESUMED else [6]), method
        blocks = dict(tiny(method).blocks)
        for name, values in lines[-1]["kl_nats"].items():
            dims = sum(blocks.values()) if name.startswith("embed/") else blocks[name]
            assert len(values) == dims and all(np.isfinite(values)), (method, name)
        assert not (run / "state.pt").exists() and (run / "grid.png").exists()
        assert load_dvae(run).method == method


@pytest.mark.parametrize("method", RESUMED)
def test_an_interrupted_run_ends_with_the_weights_of_a_whole_one(
    runs: dict[str, Path], data: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_dvae(data, out, resumable(method), progress=Stops(5))
    assert not out.exists()
    train_dvae(data, out, resumable(method))
    whole, resumed = load_file(runs[method] / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (out / "log.jsonl").read_text() == (runs[method] / "log.jsonl").read_text()


def test_a_collapsed_factor_fails_the_run(data: Path, tmp_path: Path) -> None:
    config = tiny(
        "dvae-pose", embed=("pose3d",), beta=1e6, learning_rate=3e-4, steps=120, validate_every=120, augment=False
    )
    with pytest.raises(WorkError, match=r"has collapsed: each of its \d+ latent dimensions holds under 0.01 nats"):
        train_dvae(data, tmp_path / "run", config)
    assert (tmp_path / "run.partial" / "log.jsonl").exists() and not (tmp_path / "run").exists()
    assert collapsed({"a": [0.001, 0.02], "b": [0.001, 0.002]}) == ["b"]


def test_a_loss_that_explodes_names_step_and_term(data: Path, tmp_path: Path) -> None:
    config = tiny("dvae-pose", embed=("pose3d",), learning_rate=1e30, validate_every=1)
    with pytest.raises(WorkError, match=r"loss term \S+ is not finite at step [2-9]"):
        train_dvae(data, tmp_path / "run", config)
    assert (tmp_path / "run.partial" / "state.pt").exists()


def test_the_pose_space_learns(data: Path, tmp_path: Path) -> None:
    """Labels of unseen rows come back from z. The mean pose would be some 70 mm off, an untrained decoder 95."""
    config = tiny("dvae-pose", embed=("pose3d",), learning_rate=1e-3, steps=120, embed_share=0.0, validate_every=120)
    run = train_dvae(data, tmp_path / "run", replace(config, batch_size=32))
    assert load_dvae(run).info["validation"]["label_pose3d_epe_mean_mm"] < 45


# a trained model


def images_of(view: HandDataset) -> Tensor:
    return torch.from_numpy(view.read("images")).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("method", ["dvae", "dvae-zu"])
def test_a_synthesising_model_encodes_and_decodes(runs: dict[str, Path], data: Path, method: str) -> None:
    model, view = load_dvae(runs[method]), HandDataset(data, split="test")
    images = images_of(view)
    pose, appearance = model.encode_labels(read_poses(view, "wrist")), model.encode_appearance(images)
    assert pose.shape == model.encode_pose(images).shape == (len(images), 6) and appearance.shape == (len(images), 5)
    drawn = model.decode(pose, appearance.flip(0))
    assert drawn.shape == images.shape and 0 <= drawn.min() and drawn.max() <= 1
    assert torch.equal(model.decode(pose, appearance), model.decode(pose, appearance))
    assert model.pose_keypoints(pose).shape == (len(images), 21, 2)
    prior = model.prior_appearance(3, seed=1)
    assert prior.shape == (3, 5) and torch.equal(prior, model.prior_appearance(3, seed=1))
    assert not torch.equal(prior, model.prior_appearance(3, seed=2))
    with pytest.raises(ValueError, match=r"the model takes \(1, 32, 32\)"):
        model.encode_pose(torch.rand(1, 3, SIZE, SIZE))


def test_a_pose_model_estimates_and_says_what_it_cannot(runs: dict[str, Path], data: Path) -> None:
    model, rows = load_dvae(runs["dvae-pose"]), read_rows(HandDataset(data, split="test"), "wrist")
    found = model.estimate(rows.images.float() / 255.0, rows.poses.side)
    assert {name: tuple(v.shape[1:]) for name, v in found.items()} == {
        "pose3d": (63,),
        "cpose": (63,),
        "viewpoint": (9,),
    }
    with pytest.raises(InputError, match="decodes no images from pose and appearance"):
        model.encode_pose(rows.images.float() / 255.0)


def test_errors_are_millimetres_of_the_labels_own_scale(runs: dict[str, Path], data: Path) -> None:
    rows = read_rows(HandDataset(data, split="test"), "wrist")
    off = rows.poses.pose3d.view(-1, 21, 3) + torch.tensor([0.3, 0.0, -0.4])
    estimates = compare({"pose3d": off.flatten(1), "viewpoint": rows.poses.viewpoint}, rows)
    expected = 0.5 * rows.poses.scale.double().numpy() * 1000
    assert np.allclose(estimates.distances["pose3d"], np.broadcast_to(expected[:, None], (len(rows), 21)), rtol=1e-4)
    figures = estimates.figures()
    assert figures["pose3d_epe_mean_mm"] == pytest.approx(expected.mean(), rel=1e-4)
    assert figures["viewpoint_mean_deg"] == pytest.approx(0.0, abs=0.1)


def test_cpose_and_viewpoint_make_3dpose(data: Path) -> None:
    poses = read_poses(HandDataset(data, split="test"), "wrist")
    parts = {"cpose": poses.cpose, "viewpoint": 1.7 * poses.viewpoint}  # the nearest rotation undoes the factor
    assert torch.allclose(Dvae.pose3d(parts, poses.side), poses.pose3d, atol=1e-4)


def test_a_right_and_a_left_hand_of_one_viewpoint_differ_in_the_viewpoint_vector(data: Path) -> None:
    """3DPose = (R F) CPose without being told the side, which the networks of z are not."""
    poses = read_poses(HandDataset(data), "wrist")
    poses = poses.moved(torch.zeros(len(poses)), torch.arange(len(poses)) % 2 == 0)
    assert set(np.sign(poses.side.numpy())) == {-1.0, 1.0}
    made = poses.cpose.view(-1, 21, 3) @ poses.viewpoint.view(-1, 3, 3).mT
    assert torch.allclose(made.flatten(1), poses.pose3d, atol=1e-4)


def test_a_sample_of_rows_holds_pairs_of_many_poses(data: Path) -> None:
    """A dozen rows of a view: two of each pose that has as many, spread from its first poses to its last."""
    view = HandDataset(data, split="train")
    pose = view.read("pose_id")
    rows = read_rows(view, "wrist", 12)
    images = view.read("images").transpose(0, 3, 1, 2)
    at = np.array([np.flatnonzero(np.all(images == one.numpy(), axis=(1, 2, 3)))[0] for one in rows.images])
    found, counts = np.unique(pose[at], return_counts=True)
    there = np.array([(pose == one).sum() for one in found])
    assert len(found) == 6 and np.array_equal(counts, np.minimum(2, there)) and (counts == 2).any()
    assert found[0] == pose.min() and found[-1] == pose.max()


def test_true_images_score_as_copies_do(runs: dict[str, Path], data: Path) -> None:
    """`pair_psnr_db` and `copy_psnr_db` of a model that returns x unchanged are equal."""
    rows = read_rows(HandDataset(data, split="train"), "wrist", 20)
    model = load_dvae(runs["dvae-zu"])
    figures = measure(model, rows)
    assert len(rows.triples) and np.isfinite(figures["pair_psnr_db"])
    x, _, z = rows.triples.T
    inside = rows.hand[z] if rows.hand is not None else None
    assert inside is not None
    difference = (rows.images[x].double() - rows.images[z].double())[:, 0][inside] / 255.0
    assert figures["copy_psnr_db"] == pytest.approx(-10 * np.log10((difference**2).mean().item()), rel=1e-4)


# bad input


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("dvae", {"factors": (("nose", 3), ("content", 2))}, "nose is no modality"),
    ("dvae", {"factors": (("content", 3), ("placed_pose", 2))}, "content must be the last"),
    ("dvae", {"factors": (("placed_pose", 3),)}, "give two or more"),
    ("dvae-pose", {"factors": (("pose3d", 3), ("viewpoint", 2))}, "is x itself"),
    ("dvae-zu", {"z_u": 0}, "give two or more"),
    ("dvae", {"factors": (("cpose", 3), ("content", 2))}, "images need a pose"),
    ("dvae", {"z_u": 3}, "content must be the last factor, and stands in place of z_u"),
    ("dvae", {"beta": float("nan")}, "beta=nan"),
    ("dvae", {"supervision": "weak"}, "only --method dvae-pose"),
    ("dvae", {"augment": True}, "turned images have no true background"),
    ("dvae-pose", {"labelled": 0.0}, "labelled=0: is a percentage"),
    ("dvae-pose", {"supervision": "magic"}, "choose one of supervised, semi, weak"),
    ("dvae-pose", {"root": "elbow"}, "choose one of wrist, palm"),
    ("dvae-pose", {"alternating": True}, "belong to --method cross-modal"),
    ("cross-modal", {"factors": (("cpose", 3),)}, "one z without factors"),
]


@pytest.mark.parametrize(("method", "changes", "message"), BAD)
def test_bad_configs_say_what_is_wrong(method: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(default_dvae_config(method, 100, (64, 64), "cpu"), **changes)


@pytest.mark.parametrize("method", METHODS)
def test_configs_survive_json(method: str) -> None:
    config = default_dvae_config(method, 5000, (64, 64), "cuda")
    assert DvaeConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_the_papers_numbers_are_the_defaults() -> None:
    for method in METHODS:
        config = default_dvae_config(method, 40000, (64, 64), "cuda")
        assert (config.learning_rate, config.batch_size, config.width) == (1e-4, 32, 64)
        assert sum(dims for _, dims in config.blocks) == 64
        if method != "cross-modal":
            assert [dims for _, dims in config.blocks] == [32, 32]
            assert (config.lambda_x, config.lambda_y) == (1.0, 0.01)
            assert config.beta == (0.01 if method == "dvae-pose" else 100.0)


def _without(path: Path, target: Path, *fields: str) -> Path:
    import h5py

    target.write_bytes(path.read_bytes())
    with h5py.File(target, "r+") as file:
        for name in fields:
            del file[name]
    return target


def test_data_that_lacks_labels_or_tags_is_refused(data: Path, tmp_path: Path) -> None:
    flat = _without(data, tmp_path / "flat.h5", "keypoints_3d", "camera")
    with pytest.raises(InputError, match="has no keypoints_3d"):
        train_dvae(flat, tmp_path / "a", tiny("dvae-pose"))
    untagged = _without(data, tmp_path / "untagged.h5", "appearance_id")
    with pytest.raises(InputError, match="use --method dvae-zu"):
        train_dvae(untagged, tmp_path / "b", tiny("dvae"))
    assert not list(tmp_path.glob("*.partial"))


def test_damaged_and_foreign_checkpoints_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(runs["dvae-pose"], run)
    whole = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged or truncated"):
        load_dvae(run)
    (run / "model.safetensors").write_bytes(whole)
    stored = json.loads((run / "config.json").read_text())
    stored["config"]["factors"] = [["cpose", 7], ["viewpoint", 4]]
    (run / "config.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="does not fit its config"):
        load_dvae(run)
    stored["config"]["method"] = "magic"
    (run / "config.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="was trained by method 'magic'"):
        load_dvae(run)


def rows_match(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Codes are kept in half precision."""
    return bool(np.allclose(a, b, rtol=2e-3, atol=1e-3))


def test_remix_encodes_the_pose_of_a_dvae_from_the_label(runs: dict[str, Path], data: Path) -> None:
    from handaug.augment.codes import decode_images, encode_block, encode_poses
    from handaug.models.methods import load_run

    view, model = HandDataset(data, split="train"), load_run(runs["dvae"])
    assert isinstance(model, Dvae)
    pose = encode_poses(model, view, np.arange(4), "cpu").astype(np.float32)
    appearance = encode_block(model, view.read("images", slice(0, 4)), "appearance", "cpu")
    assert rows_match(pose, model.encode_labels(read_poses(view, "wrist", np.arange(4))).numpy())
    images = decode_images(model, pose, appearance, "cpu")
    assert images.shape == (4, SIZE, SIZE, 1) and images.dtype == np.uint8

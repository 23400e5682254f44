"""The dVAE's losses: Eqs. 1 to 8 against torch.distributions, what learns in which step, the algorithms."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_dvae import CPU, SIZE, tiny
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from handaug.data_specs.reader import HandDataset
from handaug.models.dvae.config import METHODS, DvaeConfig, stage_at
from handaug.models.dvae.data import read_train_rows
from handaug.models.dvae.losses import gaussian_kl, gaussian_nll, pair_at, stage_terms, total_loss
from handaug.models.dvae.modalities import MODALITIES
from handaug.models.dvae.model import DVAE, Batch


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


def test_a_viewpoint_a_tenth_off_costs_a_nat() -> None:
    """About an axis of its own; the squared distance of two rotations is 4 (1 - cos)."""
    angle = torch.tensor(0.1)
    turn = torch.eye(3)
    turn[:2, :2] = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    cost = gaussian_nll(turn.view(1, 9), torch.eye(3).view(1, 9), MODALITIES["viewpoint"].unit)
    assert cost.item() == pytest.approx(200 * (1 - np.cos(0.1)), rel=1e-4)
    assert cost.item() == pytest.approx(1.0, rel=1e-2)


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


def z_of_pose_and_image(
    model: DVAE, poses: Tensor, images: Tensor, noise: Tensor
) -> tuple[Tensor, tuple[Normal, Normal]]:
    """z = (z_pose, z_u) drawn with this noise, and the posteriors of both."""
    pose = posterior(model.factor_encoders["placed_pose"](poses))
    u = posterior(model.factor_encoders["u"](images))
    return torch.cat([pose.mean + pose.stddev * noise[:, :6], u.mean + u.stddev * noise[:, 6:]], 1), (pose, u)


def test_eq_6_gives_the_pose_decoder_the_whole_z(data: Path) -> None:
    config = tiny("dvae-zu", beta=3.0)
    model, batch, noise = setting(data, config, "disentangle")
    z, posteriors = z_of_pose_and_image(model, batch["placed_pose"], batch["image"], noise)
    elbo = log_p(model, "image", z, batch["image"]) + 0.01 * log_p(model, "placed_pose", z, batch["placed_pose"])
    elbo = elbo - 3.0 * sum(kl_divergence(q, Normal(0.0, 1.0)).sum(1) for q in posteriors)
    loss = total_loss(stage_terms(model, "disentangle", batch, noise), config)
    assert loss.item() == pytest.approx(-elbo.mean().item(), rel=1e-4)


def test_the_noise_step_takes_z_u_of_another_image(data: Path) -> None:
    config = tiny("dvae-zu", beta=3.0)
    model, batch, noise = setting(data, config, "noise")
    z, _ = z_of_pose_and_image(model, batch["placed_pose"], batch["image"][[1, 2, 3, 0]], noise)
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


def test_eq_8_of_rows_with_all_labels_a_weak_one_and_none(data: Path) -> None:
    """The second row knows its viewpoint alone, the third nothing: both pay for what they know, no other row's KL."""
    config = tiny("dvae-pose", beta=2.0, augment=False)
    model, batch, noise = setting(data, config, "embed")
    batch["weight/pose3d"] = batch["weight/cpose"] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    batch["weight/viewpoint"] = torch.tensor([1.0, 1.0, 0.0, 1.0])
    elbo = 0.0
    for source in ("pose3d", "image"):
        inputs = (batch["image"], batch["side"]) if source == "image" else (batch["pose3d"],)
        q = posterior(model.embedders[source](*inputs))
        z = q.mean + q.stddev * noise
        kl = kl_divergence(q, Normal(0.0, 1.0))
        weak = 0.01 * log_p(model, "viewpoint", z[:, 6:], batch["viewpoint"]) - 2.0 * kl[:, 6:].sum(1)
        rest = log_p(model, "pose3d", z, batch["pose3d"]) + 0.01 * log_p(model, "cpose", z[:, :6], batch["cpose"])
        full = weak + rest - 2.0 * kl[:, :6].sum(1)
        elbo += (full[0] + full[3] + (weak[1] if source == "image" else 0.0)).item() / 4
    loss = total_loss(stage_terms(model, "embed", batch, noise), config)
    assert loss.item() == pytest.approx(-elbo, rel=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_rows_with_all_labels_pay_the_whole_kl_to_the_bit(data: Path, method: str) -> None:
    model, batch, noise = setting(data, tiny(method), "embed")
    terms = stage_terms(model, "embed", batch, noise)
    for source in model.config.embed:
        assert torch.equal(terms[f"{source}/kl/z"], gaussian_kl(*model.embed(source, batch)).sum(1).mean())
    weights = {f"weight/{name}": torch.ones(4) for name, _ in model.config.targets}
    weighted = stage_terms(model, "embed", batch | weights, noise)
    assert all(torch.equal(weighted[name], term) for name, term in terms.items())


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

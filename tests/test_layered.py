"""handaug's own disentangler: walks, the fitted light, the losses, training, codes."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file
from toy import write_toy

from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.reader import HandDataset
from handaug.models.layered import LayeredConfig, LayeredDisentangler, load_layered, train_layered
from handaug.models.layered.losses import mix_terms, total_loss
from handaug.models.layered.networks import LayeredNet, Look, fit_light
from handaug.models.layered.pairs import WalkSampler
from handaug.models.layered.plate import paint_out
from handaug.models.methods import best_method, load_run

TINY = LayeredConfig(steps=8, batch_size=12, width=8, geometry=4, style=8, validate_every=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("data") / "toy.h5", poses=24, pool=6, size=32)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_layered(data, tmp_path_factory.mktemp("run") / "run", TINY)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 4)), min_size=1, max_size=40, unique=True),
    st.integers(0, 2**32 - 1),
    st.integers(4, 40),
)
def test_every_triple_of_a_batch_has_its_true_render(rows: list[tuple[int, int]], seed: int, count: int) -> None:
    pose, appearance = np.array(rows, np.int64).T
    sampler = WalkSampler(pose, appearance)
    expected = [any(p == q and a != b for q, b in rows) and any(p != q and a == b for q, b in rows) for p, a in rows]
    assert sampler.targets.tolist() == np.flatnonzero(expected).tolist()
    if not any(expected):
        return
    drawn, triples = sampler.batch(np.random.default_rng(seed), count)
    assert len(drawn) == count and len(triples)
    x, y, z = drawn[triples].T
    assert (pose[x] == pose[z]).all() and (appearance[x] != appearance[z]).all()
    assert (appearance[y] == appearance[z]).all() and (pose[y] != pose[z]).all()


def test_walks_reach_every_target_and_waste_few_rows() -> None:
    pose = np.repeat(np.arange(40), 2)
    appearance = np.stack([np.arange(40) % 10, (np.arange(40) + 3) % 10], 1).ravel()
    sampler = WalkSampler(pose, appearance)
    met, mixes = np.zeros(80, int), 0
    for seed in range(100):
        drawn, triples = sampler.batch(np.random.default_rng(seed), 32)
        np.add.at(met, drawn[triples[:, 2]], 1)
        mixes += len(triples)
    assert mixes == 100 * 28  # two walks of 16, of which the ends are no targets
    assert met.min() > 0.4 * met.mean()


def test_light_is_the_ridge_regression_and_finds_the_light_of_another_shape() -> None:
    rng = np.random.default_rng(0)
    features, light = rng.uniform(-1, 1, (2, 3, 16, 16)), rng.normal(size=(2, 4, 2))
    mask = (rng.random((2, 1, 16, 16)) < 0.5).astype(np.float64)
    basis = np.concatenate([np.ones((2, 1, 256)), features.reshape(2, 3, 256)], 1)
    images = np.einsum("nkc,nkp->ncp", light, basis).reshape(2, 2, 16, 16)
    noisy = images + rng.normal(size=images.shape)
    blocks = torch.nn.functional.pixel_unshuffle(torch.from_numpy(features), 2).float()
    for i in range(2):  # weighted ridge by an augmented least-squares problem, one hand at a time
        inside = mask[i].ravel() > 0
        design = np.concatenate([basis[i].T[inside], np.diag(np.sqrt(inside.sum() * np.array([1e-4, *[1e-2] * 3])))])
        target = np.concatenate([noisy[i].reshape(2, 256).T[inside], np.zeros((4, 2))])
        expected = np.linalg.lstsq(design, target, rcond=None)[0]
        found = fit_light(blocks, torch.from_numpy(noisy), torch.from_numpy(mask))[i].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)
    model = LayeredNet(channels=2, width=8, geometry=3, style=4)
    again = model.lit(blocks, fit_light(blocks, torch.from_numpy(images), torch.from_numpy(mask)))
    assert float((again - torch.from_numpy(images)).abs().mean()) < 0.03 * float(np.abs(images).mean())
    swapped = model.lit(blocks.flip(0), fit_light(blocks, torch.from_numpy(images), torch.from_numpy(mask)))
    true = np.einsum("nkc,nkp->ncp", light, basis[::-1]).reshape(2, 2, 16, 16)
    assert float((swapped - torch.from_numpy(true)).abs().mean()) < 0.03 * float(np.abs(true).mean())


def test_an_image_is_the_hand_over_the_plate() -> None:
    model = LayeredNet(channels=1, width=8, geometry=3, style=4)
    hand, plate = torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16)
    logits = torch.tensor([-50.0, 50.0]).view(2, 1, 1, 1).expand(2, 1, 16, 16)
    drawn = model.compose(logits, hand, plate)
    assert torch.equal(drawn[0], plate[0]) and torch.equal(drawn[1], hand[1])
    half = model.compose(torch.zeros(2, 1, 16, 16), hand, plate)
    torch.testing.assert_close(half, (hand + plate) / 2)


def _batch(count: int = 4) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, 32, 32, generator=generator)
    inside = (torch.rand(count, 1, 32, 32, generator=generator) < 0.4).float()
    keypoints = torch.rand(count, 21, 2, generator=generator) * 31
    return images, inside, keypoints, torch.ones(count, 21)


def test_terms_against_a_second_implementation() -> None:
    torch.manual_seed(0)
    model = LayeredNet(channels=1, width=8, geometry=3, style=4)
    torch.nn.init.normal_(model.residual.weight)
    images, inside, keypoints, labelled = _batch()
    triples = torch.tensor([[0, 2, 1], [3, 1, 2]])
    with torch.no_grad():
        terms = {k: float(v) for k, v in mix_terms(model, images, inside, keypoints, labelled, triples).items()}
        layers = model(images)
        look = model.look(images, layers, inside)
        sums: dict[str, list[float]] = {}
        for x, y, z in triples.tolist():
            mixed = Look(look.light[y : y + 1], look.style[y : y + 1])
            hand, lit = model.hand(layers.geometry[x : x + 1], mixed)
            alpha = 1 / (1 + np.exp(-layers.mask[x, 0].numpy()))
            image = alpha * hand[0, 0].numpy() + (1 - alpha) * layers.plate[y, 0].numpy()
            truth, mask = images[z, 0].numpy(), inside[z, 0].numpy()
            own = model.lit(
                layers.geometry[z : z + 1], fit_light(layers.geometry[z : z + 1], images[x : x + 1], inside[z : z + 1])
            )[0, 0].numpy()
            for name, value in (
                ("image", (np.abs(image - truth) * (1 + 2 * mask)).sum()),
                ("hand", (np.abs(hand[0, 0].numpy() - truth) * mask).sum()),
                ("light", (np.abs(lit[0, 0].numpy() - truth) * mask).sum()),
                ("plate", (np.abs(layers.plate[y, 0].numpy() - truth) * (1 - mask)).sum()),
                ("shade", (np.abs(own - images[x, 0].numpy()) * mask).sum()),
                ("inside", mask.sum()),
                ("outside", (1 - mask).sum()),
                ("same", float((layers.geometry[x] - layers.geometry[z]).abs().sum() / 3)),
            ):
                sums.setdefault(name, []).append(float(value))
    total = {name: sum(values) for name, values in sums.items()}
    assert terms["image"] == pytest.approx(10 * total["image"] / (2 * 32 * 32), rel=1e-4)
    for name in ("hand", "light", "shade"):
        assert terms[name] == pytest.approx(10 * total[name] / total["inside"], rel=1e-4)
    assert terms["same"] == pytest.approx(total["same"] / total["inside"], rel=1e-4)
    assert terms["plate"] == pytest.approx(10 * total["plate"] / total["outside"], rel=1e-4)
    logits = layers.mask.numpy().astype(np.float64)
    entropy = np.log1p(np.exp(-np.abs(logits))) + np.maximum(logits, 0) - logits * inside.numpy()
    assert terms["mask"] == pytest.approx(entropy.mean(), rel=1e-4)
    assert 0 < terms["place"] < 20
    config = replace(TINY, alpha_image=2.0, alpha_place=0.0)
    weighted = sum(getattr(config, f"alpha_{name}") * value for name, value in terms.items())
    assert float(total_loss({k: torch.tensor(v) for k, v in terms.items()}, config)) == pytest.approx(weighted)


def test_the_light_reaches_the_geometry_of_both_sources() -> None:
    torch.manual_seed(0)
    model = LayeredNet(channels=1, width=8, geometry=3, style=4)
    images, inside, keypoints, labelled = _batch()
    images.requires_grad_()
    terms = mix_terms(model, images, inside, keypoints, labelled, torch.tensor([[0, 2, 1]]))
    (slope,) = torch.autograd.grad(terms["light"], images)
    assert slope[0].abs().sum() > 0 and slope[2].abs().sum() > 0 and slope[3].abs().sum() == 0


def test_codes_are_what_the_minted_image_is_made_of(run: Path, data: Path) -> None:
    model = load_layered(run)
    images = torch.from_numpy(HandDataset(data).read("images", np.arange(6))).permute(0, 3, 1, 2).float() / 255
    pose, appearance = model.encode_pose(images), model.encode_appearance(images)
    assert pose.shape == (6, 4 * 4 + 4 + 4, 16, 16) and appearance.shape == (6, 32 * 32 + 5 + 8)
    drawn = model.decode(pose, appearance.roll(1, 0))
    assert drawn.shape == images.shape and float(drawn.min()) >= 0 and float(drawn.max()) <= 1
    # Where no hand is, a mix shows y's plate and nothing of x.
    empty = pose.clone()
    empty[:, 16:20] = -50.0
    plate = appearance[:, : 32 * 32].reshape(6, 1, 32, 32)
    torch.testing.assert_close(model.decode(empty, appearance), plate)
    assert model.pose_keypoints(pose).shape == (6, 21, 2)
    assert (model.method, model.size, model.channels) == ("handaug", (32, 32), 1)
    with pytest.raises(ValueError, match=r"the model takes \(1, 32, 32\)"):
        model.encode_pose(torch.rand(1, 3, 32, 32))
    assert isinstance(load_run(run), LayeredDisentangler) and best_method(HandDataset(data)) == "handaug"


def test_a_pose_code_says_nothing_off_the_hand(run: Path, data: Path) -> None:
    """Pixel for pixel: geometry and details 0, the mask's logits one number, whatever stands there."""
    model = load_layered(run)
    images = torch.from_numpy(HandDataset(data).read("images", np.arange(6))).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        torch.nn.init.normal_(model.model.mask.weight, std=1.0, generator=torch.Generator().manual_seed(0))
        mask = model.model(images).mask.sigmoid()  # of all strengths
    pose = model.encode_pose(images)
    geometry, logits, details = (
        torch.nn.functional.pixel_shuffle(part, 2) for part in pose.tensor_split([4 * 4, 4 * 4 + 4], dim=1)
    )
    off, far = mask < 0.1, mask < 0.01
    assert off.any() and far.any() and bool(geometry.abs().sum(1, keepdim=True)[~off].min() > 0)
    assert not (geometry * off).any() and not (details * off).any()
    assert (logits[far] == -7).all()
    torch.testing.assert_close(logits[~far].sigmoid(), mask[~far])


def test_a_mix_is_as_sharp_as_its_sources(run: Path, data: Path) -> None:
    """Of the own look, 70 % of what the network does not redraw of the hand comes back, up to 1.05 of the spread, and
    where no hand is or is near the picture itself stands."""
    model = load_layered(run)
    images = torch.from_numpy(HandDataset(data).read("images", np.arange(6))).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        layers = model.model(images)
        mask = layers.mask.sigmoid()
        hand, _ = model.model.hand(layers.geometry, model.model.look(images, layers, mask))
    pose, appearance = model.encode_both(images)
    plate = appearance[:, : 32 * 32].reshape(6, 1, 32, 32)
    near = torch.zeros_like(mask)
    for dy in range(-2, 3):  # the largest mask within two pixels
        for dx in range(-2, 3):
            moved = torch.zeros_like(mask)
            moved[..., max(0, dy) : 32 + min(0, dy), max(0, dx) : 32 + min(0, dx)] = mask[
                ..., max(0, -dy) : 32 + min(0, -dy), max(0, -dx) : 32 + min(0, -dx)
            ]
            near = torch.maximum(near, moved)
    torch.testing.assert_close(plate[near < 0.1], images[near < 0.1])
    for k, drawn in enumerate(model.decode(pose, appearance)):
        pixels, weight = hand[k].numpy().ravel(), mask[k].numpy().ravel()
        spread = max(0.02, float(np.sqrt(np.cov(pixels, aweights=weight, ddof=0)))) if weight.sum() > 1 else 0.02
        added = (0.7 * (images[k] - hand[k])).clamp(-1.05 * spread, 1.05 * spread)
        redrawn = hand[k] + torch.where(mask[k] > 0.1, added, 0.0)
        own = (mask[k] * redrawn + (1 - mask[k]) * plate[k]).clamp(0, 1)
        torch.testing.assert_close(drawn, own, atol=1e-5, rtol=0)


def test_details_are_those_of_the_hand_alone(run: Path, data: Path) -> None:
    model = load_layered(run)
    images = torch.from_numpy(HandDataset(data).read("images", np.arange(6))).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        model.model.mask.bias += torch.logit(torch.tensor(0.1)) - model.model(images).mask.median()
        hand = model.model(images).mask.sigmoid() > 0.1
    assert 0.3 < float(hand.float().mean()) < 0.7
    details = torch.nn.functional.pixel_shuffle(model.encode_pose(images)[:, 20:], 2)
    assert torch.count_nonzero(details[~hand]) == 0 and float((details[hand] != 0).float().mean()) > 0.99


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 48), (16, 64)])
def test_a_hand_is_painted_out(height: int, width: int) -> None:
    """A slope of brightness behind a hand comes back nearly; of the hand itself, however bright, nothing stays."""
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    slope = torch.from_numpy((0.2 + 0.3 * x + 0.3 * y).astype(np.float32)).expand(2, 1, -1, -1)
    mask = torch.zeros(2, 1, height, width)
    mask[..., height // 4 : 3 * height // 4, width // 3 : width // 2] = 1
    filled = [paint_out(torch.where(mask > 0, value, slope), mask) for value in (0.0, 1.0)]
    assert torch.equal(filled[0][..., : height // 4 - 2, :], slope[..., : height // 4 - 2, :])
    assert float((filled[0] - filled[1]).abs().max()) < 0.005
    assert float((filled[0] - slope).abs().max()) < 0.06
    everything = paint_out(slope, torch.ones_like(mask))
    torch.testing.assert_close(everything, slope.mean((2, 3), keepdim=True).expand_as(slope), atol=1e-3, rtol=0)


def test_it_learns_to_swap_appearances(tmp_path: Path) -> None:
    data = write_toy(tmp_path / "toy.h5", poses=60, pool=12, size=32)
    out = train_layered(data, tmp_path / "run", LayeredConfig(steps=150, batch_size=16, width=16, validate_every=150))
    measured = load_layered(out).info["validation"]
    # On poses and appearances it never saw; copying x scores `copy_psnr_db`.
    assert measured["pair_psnr_db"] > measured["copy_psnr_db"] + 2.0


KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_layered import TINY
from handaug.models.layered import train_layered

class Killer:
    def note(self, text): pass
    @contextmanager
    def task(self, label, total, unit):
        done = [0]
        def advance(n):
            done[0] += n
            if done[0] >= 6:
                os.kill(os.getpid(), signal.SIGKILL)
        yield advance

train_layered(Path(sys.argv[2]), Path(sys.argv[3]), TINY, progress=Killer())
"""


def test_after_kill_9_the_same_command_ends_with_the_same_weights(run: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(data), str(out)]
    killed = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists() and (tmp_path / "run.partial" / "state.pt").exists()
    train_layered(data, out, TINY)
    whole, resumed = load_file(run / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (out / "log.jsonl").read_text() == (run / "log.jsonl").read_text()
    assert not (out / "state.pt").exists()


def _without(source: Path, out: Path, field: str) -> Path:
    with h5py.File(source) as old, h5py.File(out, "w") as new:
        for name, value in old.attrs.items():
            new.attrs[name] = value
        for name in old:
            if name != field:
                old.copy(name, new)
    return out


@pytest.mark.parametrize("field", ["mask", "pose_id", "appearance_id"])
def test_data_without_what_it_learns_from_is_refused_by_name(data: Path, tmp_path: Path, field: str) -> None:
    lacking = _without(data, tmp_path / "lacking.h5", field)
    with pytest.raises(InputError, match=f"lacking.h5: has no {field}.*--method self"):
        train_layered(lacking, tmp_path / "run", TINY)
    assert best_method(HandDataset(lacking)) == "self"


def test_data_without_pairs_is_refused(data: Path, tmp_path: Path) -> None:
    lonely = _without(data, tmp_path / "lonely.h5", "nothing")
    with h5py.File(lonely, "r+") as file:
        ids: NDArray[np.int64] = np.arange(len(file["pose_id"]))
        file["pose_id"][:] = ids
    with pytest.raises(InputError, match=r"lonely.h5: no train row shares its pose.*--appearances 2"):
        train_layered(lonely, tmp_path / "run", TINY)


def test_poses_shown_in_one_appearance_alone_are_refused(tmp_path: Path) -> None:
    """However often: two pictures of each pose under one light are no pair."""
    lonely = write_toy(tmp_path / "shots.h5", poses=12, size=32)
    with h5py.File(lonely, "r+") as file:
        file["appearance_id"][:] = file["split"][:].astype(np.int64) * 100 + file["pose_id"][:] % 3
    with pytest.raises(InputError, match=r"shots.h5: no train row shares its pose.*--appearances 2"):
        train_layered(lonely, tmp_path / "run", TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"steps": 0}, "--steps 0"), ({"width": 12}, "--width 12"), ({"batch_size": 2}, "--batch-size 2"),
     ({"precision": "8"}, "--precision 8"), ({"alpha_same": -1.0}, "alpha_same")],
)  # fmt: skip
def test_impossible_configurations_name_the_option(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **change)  # type: ignore[arg-type]


def test_a_loss_that_explodes_names_step_and_term(data: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"loss term \w+ is not finite at step [2-9]"):
        train_layered(data, tmp_path / "run", replace(TINY, learning_rate=1e30))

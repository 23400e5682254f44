"""The autoencoder and the paired-data baseline, unlabelled rows, and runs that go on from shorter ones."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from toy import write_toy

from handaug.cli import disentangle as disentangle_command
from handaug.data_specs.errors import InputError
from handaug.models.disentangle import DisentangleConfig, default_config, load_disentangler, train_disentangler
from handaug.models.disentangle.losses import generator_terms, leak_loss, paired_terms, total_loss
from handaug.models.disentangle.model import SelfDisentangler
from handaug.models.disentangle.sampling import RowSampler
from handaug.models.heatmaps import render_heatmaps
from handaug.models.networks import ImageDecoder

TINY = DisentangleConfig(steps=4, batch_size=8, width=4, discriminator_width=4, validate_every=2, phases=((3, 1.0),))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.h5", 24, size=32)


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model.safetensors")


# --- which rows ---


def test_pairs_show_one_pose_in_different_rows() -> None:
    pose = np.array([5, 5, 7, 7, 7, 9, 11, 11])
    sampler = RowSampler(8, 0, pose, 4, seed=0)
    seen = set()
    for step in range(40):
        rows = sampler.rows_at(step, 7)
        assert rows.tolist() == sampler.rows_at(step, 7).tolist()
        first, second = rows[:2].numpy(), rows[2:].numpy()
        assert (pose[first] == pose[second]).all() and (first != second).all()
        seen |= set(rows.tolist())
    assert seen == {0, 1, 2, 3, 4, 6, 7}  # row 5 has no partner
    assert RowSampler(8, 0, None, 4, seed=0).pairs == []


def test_an_epoch_sees_every_row_once_and_unlabelled_rows_are_half_of_a_batch() -> None:
    plain = RowSampler(24, 0, None, 8, seed=3)
    assert sorted(torch.cat([plain.rows_at(step, 3) for step in range(3)]).tolist()) == list(range(24))
    more = RowSampler(24, 10, None, 8, seed=3)
    batches = [more.rows_at(step, 3) for step in range(6)]
    assert all((rows >= 24).sum() == 4 for rows in batches)
    labelled = [row for rows in batches for row in rows.tolist() if row < 24]
    assert sorted(labelled) == list(range(24))  # half batches: one pass takes twice the steps
    assert {row for step in range(20) for row in more.rows_at(step, 3).tolist() if row >= 24} == set(range(24, 34))
    kinds = {(bool(a >= 24), bool(b >= 24)) for rows in batches for a, b in zip(rows[:4], rows[4:], strict=True)}
    assert len(kinds) >= 3  # not only labelled with unlabelled
    assert (more.rows_at(1, 1) < 24).all() and len(RowSampler(24, 2, None, 8, seed=3).rows_at(0, 3)) == 8


# --- what is learned from them ---


def setting() -> tuple[SelfDisentangler, Tensor, Tensor]:
    torch.manual_seed(0)
    model = SelfDisentangler(21, 1, 4).double()
    images = torch.rand(4, 1, 32, 32, dtype=torch.float64)
    return model, images, render_heatmaps(torch.rand(4, 21, 2) * 31, (32, 32), 2.0).double()


def test_terms_of_unlabelled_rows_are_those_without_labels() -> None:
    """What the heatmaps of unlabelled rows hold changes nothing, and their images do."""
    model, images, maps = setting()
    labelled = torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None].expand(4, 21)
    terms, _ = generator_terms(model, None, images, maps, labelled, 2.0, 3)
    other = maps.clone()
    other[[1, 3]] = torch.rand(2, 21, 32, 32, dtype=torch.float64)
    again, _ = generator_terms(model, None, images, other, labelled, 2.0, 3)
    assert all(torch.equal(terms[name], again[name]) for name in terms)
    own, _ = generator_terms(model, None, images[[0, 2]], maps[[0, 2]], torch.ones(2, 21), 2.0, 1)
    assert terms["pose"].item() == pytest.approx(own["pose"].item(), rel=1e-5)  # Eq. 1 is that of the labelled rows
    moved = images.clone()
    moved[1] = 1 - moved[1]
    changed, _ = generator_terms(model, None, moved, maps, labelled, 2.0, 3)
    assert terms["pose"].item() == pytest.approx(changed["pose"].item(), rel=1e-6)
    for name in ("image", "cycle_image", "dual_appearance"):
        assert abs(changed[name] - terms[name]) > 1e-6, name


def test_paired_terms_against_a_second_implementation() -> None:
    model, images, maps = setting()
    leak = ImageDecoder(1, 4).double()
    terms, drawn, appearance = paired_terms(model, None, leak, images, maps, torch.ones(4, 21), 2.0)
    twin = [2, 3, 0, 1]
    p, a = model(images)
    zero = torch.zeros_like(a)
    expected = {
        "image": functional.l1_loss(model.image_decoder(p, a), images) / 0.1,
        "cross_image": functional.l1_loss(model.image_decoder(p[twin], a), images) / 0.1,
        "reversal": -functional.l1_loss(leak(zero, a), images[twin]) / 0.1,
        "dual_pose": functional.l1_loss(p, p[twin]) / p.abs().mean(),
    }
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-4), name
    torch.testing.assert_close(drawn, model.image_decoder(p, a))
    assert leak_loss(leak, appearance, images[twin]).item() == pytest.approx(-terms["reversal"].item(), rel=1e-5)


def test_who_learns_from_the_reversed_gradient() -> None:
    model, images, maps = setting()
    leak = ImageDecoder(1, 4).double()
    terms, _, appearance = paired_terms(model, None, leak, images, maps, torch.ones(4, 21), 2.0)
    torch.autograd.backward(terms["reversal"], retain_graph=True)
    assert all(p.grad is None for p in leak.parameters()) and model.appearance_encoder[0].weight.grad is not None
    assert all(p.grad is None for p in model.image_decoder.parameters())
    model.zero_grad()
    torch.autograd.backward(leak_loss(leak, appearance, images))
    assert leak.pixels.weight.grad is not None and model.appearance_encoder[0].weight.grad is None
    terms, _, _ = paired_terms(model, None, leak, images, maps, torch.ones(4, 21), 2.0)
    torch.autograd.backward(terms["cross_image"])
    assert model.pose_encoder[0].weight.grad is None  # Pose Detach, as in model 2
    assert "reversal" in terms and total_loss(terms, TINY).isfinite()


# --- runs ---


@pytest.mark.parametrize("method", ["autoencoder", "paired"])
def test_the_baselines_train_and_load(data: Path, tmp_path: Path, method: str) -> None:
    config = replace(default_config(34, (32, 32), "cpu", method), steps=4, batch_size=8, width=4, discriminator_width=4)
    run = train_disentangler(data, tmp_path / "run", config)
    model = load_disentangler(run)
    assert model.method == method and model.config.phases[-1][0] == {"autoencoder": 2, "paired": 7}[method]
    assert {"image_l1", "swap_epe_px", "pair_psnr_db"} < set(model.info["validation"])
    with pytest.raises(InputError, match=f"--phase: --method {method} takes 1, "):
        replace(config, phases=((3, 1.0),))


def test_the_paired_baseline_resumes_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    config = replace(TINY, method="paired", phases=((7, 1.0),))
    whole = train_disentangler(data, tmp_path / "whole", config)

    class Stop(Exception):
        pass

    from handaug.models.disentangle.train import _Job

    original = _Job.train_step

    def stopping(self: _Job, step: int) -> dict[str, float]:
        if step == 3:
            raise Stop
        return original(self, step)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(_Job, "train_step", stopping)
        train_disentangler(data, tmp_path / "cut", config)
    cut = train_disentangler(data, tmp_path / "cut", config)
    assert all(torch.equal(value, weights(cut)[name]) for name, value in weights(whole).items())


def test_going_on_from_a_shorter_run_equals_one_long_run(data: Path, tmp_path: Path) -> None:
    long = replace(TINY, steps=8, phases=((3, 0.5), (6, 0.5)), validate_every=4)
    first = train_disentangler(data, tmp_path / "first", replace(TINY, validate_every=4), keep_state=True)
    whole = train_disentangler(data, tmp_path / "whole", long)
    resumed = train_disentangler(data, tmp_path / "resumed", long, start=first)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    assert (resumed / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()
    assert (first / "state.pt").exists() and not (resumed / "state.pt").exists()
    for config, message in (
        (replace(long, seed=1), "is not the beginning"),
        (replace(long, phases=((2, 0.5), (6, 0.5))), "is not the beginning"),
        (replace(long, steps=2), "is not the beginning"),
    ):
        with pytest.raises(InputError, match=message):
            train_disentangler(data, tmp_path / "other", config, start=first)
    with pytest.raises(InputError, match="was not kept with its state"):
        train_disentangler(
            data, tmp_path / "other", replace(long, steps=16, phases=((3, 0.25), (6, 0.75))), start=whole
        )


def test_unlabelled_rows_change_the_run_and_their_labels_do_not(data: Path, tmp_path: Path) -> None:
    more = write_toy(tmp_path / "more.h5", 12, size=32, seed=9)
    blank = tmp_path / "blank.h5"
    blank.write_bytes(more.read_bytes())
    with h5py.File(blank, "r+") as file:
        for name in ("keypoints_2d", "keypoints_3d", "camera", "visibility", "handedness", "mask"):
            del file[name]
    config = replace(TINY, steps=2)
    runs = {
        name: weights(train_disentangler(data, tmp_path / name, config, unlabelled=path))
        for name, path in (("none", None), ("labelled", more), ("blank", blank))
    }
    assert all(torch.equal(runs["labelled"][name], runs["blank"][name]) for name in runs["blank"])
    assert any(not torch.equal(runs["none"][name], runs["blank"][name]) for name in runs["blank"])
    assert load_disentangler(tmp_path / "blank").info["unlabelled_rows"] == 16
    with pytest.raises(InputError, match="another configuration or other data"):
        train_disentangler(data, tmp_path / "none", config, unlabelled=blank)


def test_impossible_data_and_options_are_refused(data: Path, tmp_path: Path) -> None:
    other = write_toy(tmp_path / "rgb.h5", 8, size=32, channels=3)
    with pytest.raises(InputError, match=r"--unlabelled .*rgb.h5: has 32x32 px with 3 channels"):
        train_disentangler(data, tmp_path / "run", TINY, unlabelled=other)
    lonely = tmp_path / "lonely.h5"
    lonely.write_bytes(data.read_bytes())
    with h5py.File(lonely, "r+") as file:
        file["pose_id"][:] = np.arange(len(file["pose_id"]))
    with pytest.raises(InputError, match="lonely.h5: no two train rows share a pose_id"):
        train_disentangler(lonely, tmp_path / "run", replace(TINY, method="paired", phases=((7, 1.0),)))
    for method in ("paired", "handaug"):
        arguments = [str(data), "--out", str(tmp_path / "r"), "--method", method, "--unlabelled", str(data)]
        refused = CliRunner().invoke(disentangle_command.command, arguments)
        assert isinstance(refused.exception, InputError) and "--unlabelled: belongs" in str(refused.exception)
    assert not (tmp_path / "r").exists() and not (tmp_path / "run").exists()

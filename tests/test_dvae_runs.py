"""Runs of the dVAE: what they leave, how they stop and go on, and what a trained model encodes, draws and measures."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tiny_dvae import RESUMED, SIZE, resumable, tiny
from torch import Tensor

from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.reader import HandDataset
from handaug.models.dvae.api import Dvae, load_dvae
from handaug.models.dvae.data import place_pixels, read_poses
from handaug.models.dvae.measure import (
    Rows,
    collapsed,
    compare,
    evaluate_dvae,
    mean_pose,
    measure,
    read_rows,
    subset,
)
from handaug.models.dvae.train import train_dvae
from handaug.models.pose_codes import pose_codes

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


def test_a_run_leaves_weights_log_and_kl_of_every_dimension(dvae_runs: dict[str, Path]) -> None:
    for method, run in dvae_runs.items():
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
    dvae_runs: dict[str, Path], data: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_dvae(data, out, resumable(method), progress=Stops(5))
    assert not out.exists()
    train_dvae(data, out, resumable(method))
    whole, resumed = load_file(dvae_runs[method] / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (out / "log.jsonl").read_text() == (dvae_runs[method] / "log.jsonl").read_text()


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
def test_a_synthesising_model_encodes_and_decodes(dvae_runs: dict[str, Path], data: Path, method: str) -> None:
    model, view = load_dvae(dvae_runs[method]), HandDataset(data, split="test")
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


def test_a_pose_model_estimates_and_says_what_it_cannot(dvae_runs: dict[str, Path], data: Path) -> None:
    model, rows = load_dvae(dvae_runs["dvae-pose"]), read_rows(HandDataset(data, split="test"), "wrist")
    found = model.estimate(rows.images.float() / 255.0, rows.poses.side)
    assert {name: tuple(v.shape[1:]) for name, v in found.items()} == {
        "pose3d": (63,),
        "cpose": (63,),
        "viewpoint": (9,),
    }
    with pytest.raises(InputError, match="decodes no images from pose and appearance"):
        model.encode_pose(rows.images.float() / 255.0)


def test_errors_are_millimetres_of_the_labels_own_scale(data: Path) -> None:
    rows = read_rows(HandDataset(data, split="test"), "wrist")
    off = rows.poses.pose3d.view(-1, 21, 3) + torch.tensor([0.3, 0.0, -0.4])
    estimates = compare({"pose3d": off.flatten(1), "viewpoint": rows.poses.viewpoint}, rows)
    expected = 0.5 * rows.poses.scale.double().numpy() * 1000
    assert np.allclose(estimates.distances["pose3d"], np.broadcast_to(expected[:, None], (len(rows), 21)), rtol=1e-4)
    figures = estimates.figures()
    assert figures["pose3d_epe_mean_mm"] == pytest.approx(expected.mean(), rel=1e-4)
    assert figures["viewpoint_mean_deg"] == pytest.approx(0.0, abs=0.1)


def test_a_copy_of_x_scores_what_its_pixels_say(dvae_runs: dict[str, Path], data: Path) -> None:
    rows = read_rows(HandDataset(data, split="train"), "wrist", 20)
    model = load_dvae(dvae_runs["dvae-zu"])
    figures = measure(model, rows)
    assert len(rows.triples) and np.isfinite(figures["pair_psnr_db"])
    x, _, z = rows.triples.T
    inside = rows.hand[z] if rows.hand is not None else None
    assert inside is not None
    difference = (rows.images[x].double() - rows.images[z].double())[:, 0][inside] / 255.0
    assert figures["copy_psnr_db"] == pytest.approx(-10 * np.log10((difference**2).mean().item()), rel=1e-4)


def test_rows_without_a_place_are_not_drawn(dvae_runs: dict[str, Path], data: Path) -> None:
    model = load_dvae(dvae_runs["dvae"])
    rows = read_rows(HandDataset(data), "wrist")
    x = rows.triples[:, 0]
    gone = rows.poses.placed.clone()
    gone[torch.from_numpy(x[: len(x) // 2])] = False
    left = replace(rows, triples=rows.triples[gone.numpy()[x]])
    some = measure(model, replace(rows, poses=replace(rows.poses, placed=gone)))
    assert 0 < len(left.triples) < len(rows.triples)
    assert some["pair_psnr_db"] == measure(model, left)["pair_psnr_db"]


def error_mm(poses: Tensor, rows: Rows) -> float:
    """Mean distance of 3DPose (N, 63) from the labels over the joints that count, written out."""
    distance = (poses - rows.poses.pose3d).view(-1, 21, 3).norm(dim=-1) * rows.poses.scale[:, None] * 1000
    return float(distance[torch.from_numpy(rows.visibility >= 1)].mean())


@pytest.mark.parametrize("method", ["dvae", "dvae-zu"])
def test_a_synthesised_pose_is_drawn_in_the_look_of_the_tag(
    dvae_runs: dict[str, Path], data: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Never of the own image, whose z_u may carry the pose. Here images show the look's code, and poses are images."""
    model, rows = load_dvae(dvae_runs[method]), read_rows(HandDataset(data, split="train"), "wrist", 20)
    tagged = np.flatnonzero(rows.tags >= 0)
    assert len(tagged) and (rows.tags[tagged] != tagged).all()
    monkeypatch.setattr(model, "decode", lambda pose, look: look[:, :1, None, None].expand(-1, 1, SIZE, SIZE))
    monkeypatch.setattr(model, "estimate", lambda images, side: {"pose3d": images.flatten(1)[:, :63]})
    looks = [model.encode_appearance(rows.images[at].float() / 255.0)[:, :1] for at in (rows.tags[tagged], tagged)]
    tag, own = (error_mm(look.expand(-1, 63), subset(rows, tagged)) for look in looks)
    found = measure(model, rows)["synth_pose3d_epe_mean_mm"]
    assert found == pytest.approx(tag, rel=1e-5) and found != pytest.approx(own, rel=1e-5)


def test_pixels_of_estimates_are_read_from_the_whole_z(dvae_runs: dict[str, Path], data: Path) -> None:
    view = HandDataset(data, split="test")
    model, rows = load_dvae(dvae_runs["dvae-zu"]), read_rows(view, "wrist")
    z, _ = model.model.embed("image", {"image": rows.images.float() / 127.5 - 1.0})
    errors = []
    for code in (z, torch.cat([z[:, :6], torch.zeros_like(z[:, 6:])], 1)):
        placed = model.model.decode("placed_pose", code).detach()
        found = place_pixels(placed[:, :63], placed[:, 63:], view.size).numpy()
        errors.append(np.linalg.norm(found - rows.keypoints, axis=-1)[rows.visibility >= 1].mean())
    told = evaluate_dvae(dvae_runs["dvae-zu"], view)["epe_mean_px"]
    assert told == pytest.approx(errors[0], rel=1e-5) and told != pytest.approx(errors[1], rel=1e-5)


def test_always_answering_the_mean_of_known_labels(data: Path) -> None:
    known = read_poses(HandDataset(data, split="train"), "wrist")
    known = dataclasses.replace(known, known=torch.arange(len(known)) < 5)
    rows = read_rows(HandDataset(data, split="test"), "wrist")
    expected = error_mm(known.pose3d[:5].mean(0), rows)
    assert mean_pose(known, rows).figures()["pose3d_epe_mean_mm"] == pytest.approx(expected, rel=1e-5)


def rows_match(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Codes are kept in half precision."""
    return bool(np.allclose(a, b, rtol=2e-3, atol=1e-3))


def test_remix_encodes_the_pose_of_a_dvae_from_the_label(dvae_runs: dict[str, Path], data: Path) -> None:
    from decoding import decode_images

    from handaug.augment.codes import encode_block, encode_poses
    from handaug.models.methods import load_run

    view, model = HandDataset(data, split="train"), load_run(dvae_runs["dvae"])
    assert isinstance(model, Dvae)
    pose = encode_poses(model, view, np.arange(4), "cpu").astype(np.float32)
    appearance = encode_block(model, view.read("images", slice(0, 4)), "appearance", "cpu")
    assert rows_match(pose, model.encode_labels(read_poses(view, "wrist", np.arange(4))).numpy())
    images = decode_images(model, pose, appearance, "cpu")
    assert images.shape == (4, SIZE, SIZE, 1) and images.dtype == np.uint8


def test_a_row_with_incomplete_labels_is_encoded_from_its_image(
    dvae_runs: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    """Of labels that are not there every such row would get the same pose."""
    copy = tmp_path / "data.h5"
    copy.write_bytes(data.read_bytes())
    view = HandDataset(data, split="train")
    torn = view.rows[[1, 3]]
    with h5py.File(copy, "r+") as file:
        for row in torn:
            file["visibility"][row, 20] = 0
            file["keypoints_2d"][row, 20] = file["keypoints_3d"][row, 20] = np.nan
    view, index = HandDataset(copy, split="train"), np.arange(4)
    model = load_dvae(dvae_runs["dvae"])
    codes = pose_codes(model, view, index)
    pixels = torch.from_numpy(view.read("images", index)).permute(0, 3, 1, 2).float() / 255.0
    assert torch.allclose(codes[[0, 2]], model.encode_labels(read_poses(view, "wrist", index[[0, 2]])), atol=1e-5)
    assert torch.allclose(codes[[1, 3]], model.encode_pose(pixels[[1, 3]]), atol=1e-5)
    model.config = dataclasses.replace(model.config, embed_share=0.0)
    with pytest.raises(InputError, match=f"labels of row {torn[0]} are not complete"):
        pose_codes(model, view, index)


def test_damaged_and_foreign_checkpoints_are_refused(dvae_runs: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(dvae_runs["dvae-pose"], run)
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

"""What lends remix its appearances: unlabelled frames, blends of two, a prior; what a layered model shares."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from decoding import decode_images
from remix_home import remix_config, sources_of
from toy import write_toy

from handaug.augment.checker import Checkers
from handaug.augment.codes import ENCODE_ROWS, blend_appearances, encode_block, prior_block
from handaug.augment.remix import PRIOR, remix
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.verify import verify_dataset
from handaug.models.disentangle.api import load_disentangler
from handaug.models.dvae.api import Dvae
from handaug.models.dvae.config import default_dvae_config
from handaug.models.dvae.data import read_poses
from handaug.models.dvae.train import train_dvae
from handaug.models.layered import LayeredConfig, LayeredDisentangler
from handaug.models.layered.networks import LayeredNet
from handaug.models.methods import load_run
from handaug.models.trained import Parts

pytestmark = pytest.mark.usefixtures("no_picture")


def _unlabelled(path: Path, *, bare: bool, size: int = 32) -> Path:
    """Frames of nobody knows what: 20 toy images without labels; bare: without the fields that would hold them."""
    write_toy(path, 20, size=size, seed=7)
    with h5py.File(path, "r+") as file:
        file.attrs["kind"] = "imported"
        file["group"][:] += 1000
        for name in ("mask", "pose_id", "appearance_id", "keypoints_3d", "camera"):
            del file[name]
        if bare:
            for name in ("keypoints_2d", "visibility", "handedness"):
                del file[name]
        else:
            file["keypoints_2d"][:], file["visibility"][:] = np.nan, 0
    return path


@pytest.mark.parametrize("bare", [False, True])
def test_unlabelled_frames_lend_their_look_unmirrored(home: Path, tmp_path: Path, bare: bool) -> None:
    lender = _unlabelled(tmp_path / "frames.h5", bare=bare)
    remix(remix_config(home, n=120, appearances=lender), tmp_path / "minted.h5")
    data = HandDataset(tmp_path / "minted.h5")
    lent = HandDataset(lender, unlabelled=True, rows=data.read("provenance/appearance_source"))
    assert data.attrs["appearance_source_checksum"] == lent.checksum != data.attrs["pose_source_checksum"]
    assert set(lent.read("split")) == {0} and verify_dataset(data.path) == []
    assert set(data.read("handedness")) == {0, 1}, "frames of unknown side serve both"
    looks, frames = np.unique(data.read("appearance_id")), np.unique(lent.rows)
    assert len(looks) == len(frames) > 8, "each frame is an appearance"
    model, pose = load_disentangler(home / "disentangler"), sources_of(home, data)[0]
    drawn = decode_images(
        model,
        encode_block(model, pose.read("images"), "pose", "cpu"),
        encode_block(model, lent.read("images"), "appearance", "cpu"),
        "cpu",
    )
    assert np.abs(drawn.astype(int) - data.read("images")).max() <= 1, "as they are, for left and right hands alike"


def test_blends_name_both_sources_and_can_be_drawn_again(home: Path, tmp_path: Path) -> None:
    remix(remix_config(home, n=120, pairs="interpolate"), tmp_path / "minted.h5")
    data = HandDataset(tmp_path / "minted.h5")
    assert verify_dataset(data.path) == []
    pose = sources_of(home, data)[0]
    weight = data.read("provenance/appearance_weight")
    assert (weight >= 0.2).all() and (weight <= 0.8).all() and weight.std() > 0.1
    model = load_disentangler(home / "disentangler")
    codes, sides = [], pose.read("handedness")
    for name in ("appearance_source", "appearance_source_2"):
        lent = HandDataset(home / "toy.h5", rows=data.read(f"provenance/{name}"))
        assert (lent.read("split") == 0).all() and (lent.read("pose_id") != pose.read("pose_id")).all()
        checkers = Checkers.load(home / "checker")
        assert np.array_equal(checkers.folds_of(lent), checkers.folds_of(pose))
        images = np.where(
            (lent.read("handedness") != sides)[:, None, None, None],
            lent.read("images")[:, :, ::-1],
            lent.read("images"),
        )
        codes.append(encode_block(model, images, "appearance", "cpu"))
        codes[-1] = codes[-1].astype(np.float16).astype(np.float32)
    share = weight[:, None, None, None]
    drawn = decode_images(
        model, encode_block(model, pose.read("images"), "pose", "cpu"), share * codes[0] + (1 - share) * codes[1], "cpu"
    )
    assert np.abs(drawn.astype(int) - data.read("images")).max() <= 1
    assert (data.read("provenance/appearance_source") != data.read("provenance/appearance_source_2")).all()
    assert len(np.unique(data.read("appearance_id"))) == 120, "a blend is an appearance of its own"


def test_a_layered_blend_keeps_the_first_background_whole() -> None:
    config = LayeredConfig(width=8, geometry=2, style=4)
    model = LayeredDisentangler(Parts(LayeredNet(1, 8, 2, 4), config, (16, 16), 1, {}))
    first, second = np.random.default_rng(0).random((2, 3, 256 + 3 + 4)).astype(np.float32)
    weight = np.array([0.2, 0.5, 0.8], np.float32)
    mixed = blend_appearances(model, first, second, weight)
    assert np.array_equal(mixed[:, :256], first[:, :256])
    assert np.allclose(mixed[:, 256:], weight[:, None] * first[:, 256:] + (1 - weight[:, None]) * second[:, 256:])


def test_what_a_layered_pose_shares_changes_no_image() -> None:
    torch.manual_seed(0)
    net = LayeredNet(3, 8, 2, 4).eval()
    torch.nn.init.normal_(net.residual.weight, std=0.1)
    torch.nn.init.normal_(net.first.modulation.weight, std=0.1)
    model = LayeredDisentangler(Parts(net, LayeredConfig(width=8, geometry=2, style=4), (32, 32), 3, {}))
    pose, which = model.encode_pose(torch.rand(3, 3, 32, 32)), torch.tensor([2, 0, 1, 1, 2])
    appearance = model.encode_appearance(torch.rand(5, 3, 32, 32))
    plain = model.decode(pose[which], appearance)
    assert plain.std() > 0.05
    assert (model.decode_shared(pose, which, appearance) - plain).abs().max() < 1e-4


def test_the_prior_lends_many_looks_to_one_pose(home: Path, tmp_path: Path) -> None:
    config = replace(
        default_dvae_config("dvae", 56, (32, 32), "cpu"),
        factors=(("placed_pose", 6), ("content", 5)),
        width=2,
        steps=4,
        batch_size=6,
        validate_every=4,
    )
    run = train_dvae(home / "toy.h5", tmp_path / "dvae", config)
    request = remix_config(home, n=90, disentangler=run, appearances=PRIOR, max_label_error=1000.0)
    figures = remix(request, tmp_path / "minted.h5").figures
    data = HandDataset(tmp_path / "minted.h5")
    assert verify_dataset(data.path) == [] and list(figures["by_tone"]) == ["drawn from the prior"]
    assert data.attrs["appearance_source_checksum"] == PRIOR
    model, draws = load_run(run), data.read("provenance/appearance_source")
    assert isinstance(model, Dvae) and len(np.unique(data.read("appearance_id"))) == len(np.unique(draws)) > 40
    codes = prior_block(model, 0, ENCODE_ROWS, 0)
    first = np.flatnonzero(draws < ENCODE_ROWS)
    pose = HandDataset(home / "toy.h5", rows=data.read("provenance/pose_source"))
    labels = model.encode_labels(read_poses(pose, model.config.root, first)).numpy()
    drawn = decode_images(model, labels, codes[draws[first]], "cpu")
    assert len(first) and np.abs(drawn.astype(int) - data.read("images")[first]).max() <= 1
    with pytest.raises(InputError, match="no prior"):
        remix(remix_config(home, appearances=PRIOR), tmp_path / "other.h5")

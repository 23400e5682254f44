"""Remix on toy hands with small real networks: exact counts, provenance, quotas, processes, kill and resume, refusals.

Networks trained for seconds draw hardly a hand, so the checker of these tests is told to accept what it would see in an
empty image; that rule is tested by itself.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from toy import write_toy

import handaug.augment.remix as remix_module
import handaug.augment.remix_plan as plan_module
import handaug.augment.remix_report as report_module
from handaug.augment.checker import CheckerConfig, Checkers, row_errors, train_checkers
from handaug.augment.codes import ENCODE_ROWS, blend_appearances, decode_images, encode_block, prior_block
from handaug.augment.mint import Mint
from handaug.augment.pairing import Pairing, split_quota
from handaug.augment.rarity import appearance_rarity, pose_rarity, rarity
from handaug.augment.remix import PRIOR, RemixConfig, remix, remix_capacity
from handaug.augment.remix_plan import Cut, Tally, first_plans, refill_plans
from handaug.augment.remix_work import Job, Shard, adopt, encode_rows, forget, mint_shard
from handaug.augment.sources import SourceTable
from handaug.cli.remix import command as remix_command
from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.verify import verify_dataset
from handaug.models.disentangle.api import load_disentangler
from handaug.models.disentangle.config import DisentangleConfig
from handaug.models.disentangle.train import train_disentangler
from handaug.models.dvae.api import Dvae
from handaug.models.dvae.config import default_dvae_config
from handaug.models.dvae.data import read_poses
from handaug.models.dvae.train import train_dvae
from handaug.models.layered import LayeredConfig, LayeredDisentangler
from handaug.models.layered.networks import LayeredNet
from handaug.models.methods import load_run
from handaug.models.trained import Parts

N = 300


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace: 28 train poses in two appearances, every second one mirrored to a left hand; models trained for
    seconds.
    """
    folder = tmp_path_factory.mktemp("remix")
    data = write_toy(folder / "toy.h5", 40, size=32, pool=60)
    with h5py.File(data, "r+") as file:
        left = file["pose_id"][:] % 2 == 0
        file["handedness"][:] = np.where(left, 0, 1)
        file["images"][:] = np.where(left[:, None, None, None], file["images"][:][:, :, ::-1], file["images"][:])
        file["mask"][:] = np.where(left[:, None, None], file["mask"][:][:, :, ::-1], file["mask"][:])
        points, space = file["keypoints_2d"][:], file["keypoints_3d"][:]
        points[left, :, 0] = 31 - points[left, :, 0]
        space[left, :, 0] *= -1
        file["keypoints_2d"][:], file["keypoints_3d"][:] = points, space
    train_disentangler(data, folder / "disentangler", DisentangleConfig(steps=40, batch_size=8, width=4))
    train_checkers(data, folder / "checker", CheckerConfig(width=8, steps=60, batch_size=16), workers=1)
    stored = folder / "checker" / "config.json"
    stored.write_text(json.dumps({**json.loads(stored.read_text()), "empty_px": 0.0}))
    return folder


@pytest.fixture(autouse=True)
def _no_picture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than minting: only the module's own file gets its picture."""
    if "minted" not in request.fixturenames:
        monkeypatch.setattr(report_module._Picture, "save", lambda *args: None)


def _config(home: Path, **changed: Any) -> RemixConfig:
    settings: dict[str, Any] = dict(
        n=N, poses=home / "toy.h5", disentangler=home / "disentangler", checker=home / "checker", max_label_error=12.0
    )
    return RemixConfig(**{**settings, **changed})


@pytest.fixture(scope="module")
def minted(home: Path) -> HandDataset:
    remix(_config(home), home / "minted.h5")
    return HandDataset(home / "minted.h5")


def _pixels(images: NDArray[np.uint8]) -> torch.Tensor:
    """As the checker takes them."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _opened(config: RemixConfig, folder: Path, count: int) -> tuple[Mint, NDArray[np.int64], NDArray[np.int64]]:
    """A `Mint` with its codes, and one pair for each of the first pose rows."""
    mint = Mint(config, "cpu")
    mint.open_codes(folder)
    job = Job(config, "cpu", folder)
    adopt(job, mint)
    if mint.pose_codes is not None:
        mint.pose_codes.missing()  # makes the file
    for flag, file in mint.codes.items():
        for start in file.missing():
            encode_rows(job, flag, start)
    forget(job)
    pose = np.flatnonzero(mint.capacity > 0)[:count]
    mint.open_poses(pose)
    return mint, pose, np.concatenate([mint.pairing.candidates(int(i), 0, 1)[0] for i in pose])


def _sources(home: Path, minted: HandDataset) -> tuple[HandDataset, HandDataset]:
    """The rows of the toy file that gave pose and appearance of each minted row."""
    pose, appearance = (minted.read(f"provenance/{name}_source") for name in ("pose", "appearance"))
    return HandDataset(home / "toy.h5", rows=pose), HandDataset(home / "toy.h5", rows=appearance)


def test_exactly_n_valid_rows(minted: HandDataset) -> None:
    assert len(minted) == N and minted.kind == "minted"
    assert verify_dataset(minted.path) == []
    assert set(minted.read("split")) == {0}
    assert len(np.unique(minted.read("image_id"))) == N
    assert not minted.path.with_name("minted.h5.partial").exists()


def test_labels_are_those_of_the_pose_source_and_the_rest_of_the_appearance_source(
    home: Path, minted: HandDataset
) -> None:
    pose, appearance = _sources(home, minted)
    for name in ("keypoints_2d", "keypoints_3d", "visibility", "camera", "handedness", "mask", "group", "pose_id"):
        assert np.array_equal(minted.read(name), pose.read(name)), name
    assert np.array_equal(minted.read("appearance_id"), appearance.read("appearance_id"))
    assert set(pose.read("split")) == set(appearance.read("split")) == {0}
    assert not minted.has("depth") and not minted.has("occlusion")
    assert minted.attrs["pose_source_checksum"] == pose.checksum == minted.attrs["appearance_source_checksum"]


def test_a_row_can_be_drawn_again_from_its_sources(home: Path, minted: HandDataset) -> None:
    model = load_disentangler(home / "disentangler")
    pose, appearance = _sources(home, minted)
    mirrored = pose.read("handedness") != appearance.read("handedness")
    assert 0.2 < mirrored.mean() < 0.8, "both cases occur"
    lent = appearance.read("images")
    lent[mirrored] = lent[mirrored][:, :, ::-1]
    again = decode_images(
        model,
        encode_block(model, pose.read("images"), "pose", "cpu"),
        encode_block(model, lent, "appearance", "cpu"),
        "cpu",
    )
    # Convolutions of another batch size may round differently; a level of 256 is all that can change.
    assert np.abs(again.astype(int) - minted.read("images")).max() <= 1


def test_the_stored_error_is_that_of_an_estimator_which_saw_neither_source(home: Path, minted: HandDataset) -> None:
    checkers = Checkers.load(home / "checker")
    pose, appearance = _sources(home, minted)
    folds = checkers.folds_of(pose)
    assert np.array_equal(folds, checkers.folds_of(appearance)), "both sources lie in one fold"
    assert set(folds) == {0, 1}
    true, seen = minted.read("keypoints_2d"), minted.read("visibility")
    found = np.empty_like(true)
    for k in (0, 1):
        found[folds == k] = checkers.predict(k, _pixels(minted.read("images")[folds == k]))
    stored = minted.read("provenance/label_error_px")
    assert np.allclose(stored, row_errors(found, true, seen), atol=1e-3)
    assert np.allclose(
        minted.read("provenance/label_error_max_px"), np.linalg.norm(found - true, axis=-1).max(1), atol=1e-3
    )
    assert stored.max() <= 12.0


def test_minted_rows_are_new_combinations_without_repetition(home: Path, minted: HandDataset) -> None:
    pose, appearance = _sources(home, minted)
    pairs = np.stack([pose.rows, appearance.rows], 1)
    assert len(np.unique(pairs, axis=0)) == N
    whole = HandDataset(home / "toy.h5")
    rendered = set(zip(whole.read("pose_id").tolist(), whole.read("appearance_id").tolist(), strict=True))
    made = set(zip(minted.read("pose_id").tolist(), minted.read("appearance_id").tolist(), strict=True))
    assert not made & rendered
    assert (pose.read("pose_id") != appearance.read("pose_id")).all()


def test_estimates_nearer_to_the_other_pose_are_dropped(home: Path, tmp_path: Path) -> None:
    """An estimator that always finds y's hand rejects all; one that always finds x's keeps all, mirrored pairs too."""
    mint, pose, appearance = _opened(_config(home, max_label_error=1000.0), tmp_path, 40)
    of_x, of_y = mint.poses.keypoints_2d[pose], mint.appearances.keypoints_2d[appearance].copy()
    turned = mint.appearances.handedness[appearance] != mint.poses.handedness[pose]
    of_y[turned, :, 0] = 31 - of_y[turned, :, 0]
    number = mint.pairing.checker_of(pose, appearance)
    middle = np.full((len(pose), 21, 2), 15.5, np.float32)
    far = middle + 1e4
    mint.checkers.empty_px = 1.0
    for answer, empty, strays in (
        (of_y, far, True),
        (of_x, middle, False),
        (0.6 * of_x + 0.4 * of_y, far, False),
        (0.4 * of_x + 0.6 * of_y, far, True),
        (middle, middle, True),
    ):
        mint.checkers.predict = lambda k, images, answer=answer: answer[number == k]  # type: ignore[method-assign,misc]
        mint.checkers.of_empty_images = lambda k, images, empty=empty: empty[number == k]  # type: ignore[method-assign,misc]
        judged = mint.judge(pose, appearance)
        assert ((judged.nearer | judged.blind) == strays).all() and (judged.keep != strays).all()


def test_answers_for_empty_images_are_those_of_an_even_grey(home: Path) -> None:
    checkers = Checkers.load(home / "checker")
    grey = np.full((2, 32, 32, 1), 51, np.uint8)
    grey[1, :16] = 102  # mean 76.5, rounded to the level 80
    even = np.stack([np.full((32, 32, 1), level, np.uint8) for level in (48, 80)])
    assert np.allclose(checkers.of_empty_images(0, grey), checkers.predict(0, _pixels(even)), atol=1e-3)


def test_quota_keeps_poses_uniform_though_some_are_rejected_more(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what a third of the poses gives is refused; every pose row still ends with its share."""
    judge = Mint.judge

    def harsh(self: Any, pose: NDArray[Any], appearance: NDArray[Any]) -> Any:
        judged = judge(self, pose, appearance)
        judged.nearer[:] = judged.blind[:] = False
        judged.keep = (self.poses.pose_id[pose] % 3 != 0) | (appearance % 2 == 0)
        return judged

    monkeypatch.setattr(Mint, "judge", harsh)
    report = remix(_config(home, n=280), tmp_path / "minted.h5")
    counts = np.unique(HandDataset(tmp_path / "minted.h5").read("provenance/pose_source"), return_counts=True)[1]
    assert counts.min() == counts.max() == 5, "280 images of 56 pose rows"
    assert report.figures["kept"] == 280 and report.figures["tried"] > 330 and report.figures["shortfall"] == 0


def test_what_a_pose_cannot_fill_goes_to_others_and_is_reported(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Mint.judge

    def stubborn(self: Any, pose: NDArray[Any], appearance: NDArray[Any]) -> Any:
        judged = judge(self, pose, appearance)
        judged.nearer[:] = judged.blind[:] = False
        judged.keep = self.poses.pose_id[pose] != self.poses.pose_id[0]
        return judged

    monkeypatch.setattr(Mint, "judge", stubborn)
    report = remix(_config(home, n=280), tmp_path / "minted.h5")
    data = HandDataset(tmp_path / "minted.h5")
    assert len(data) == 280
    sources, counts = np.unique(data.read("provenance/pose_source"), return_counts=True)
    assert len(sources) == 54 and report.figures["shortfall"] == 10
    assert counts.min() == 5 and counts.max() <= 8


def test_too_few_kept_stops_early_and_says_so(home: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="passed the label check") as caught:
        remix(_config(home, n=500, max_label_error=0.05), tmp_path / "minted.h5")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "minted.h5").exists()


def test_without_the_check_everything_is_kept_and_the_file_says_so(home: Path, tmp_path: Path) -> None:
    report = remix(_config(home, n=60, max_label_error=0.05, check=False), tmp_path / "all.h5")
    assert report.figures["tried"] == report.figures["kept"] == 60 and "--no-check" in report.lines()[0]
    data = HandDataset(tmp_path / "all.h5")
    assert len(data) == 60 and not data.attrs["label_checked"]
    assert data.read("provenance/label_error_px").min() > 0.05


def test_report_counts_add_up(home: Path, minted: HandDataset) -> None:
    figures = json.loads((home / "minted.json").read_text())
    for title in ("by_pose", "by_side", "by_tone"):
        assert sum(row["kept"] for row in figures[title].values()) == N, title
        assert sum(row["tried"] for row in figures[title].values()) == figures["tried"], title
    assert figures["kept"] + sum(figures["rejected"].values()) == figures["tried"]
    assert figures["label_error_px"]["50"] == pytest.approx(float(np.median(minted.read("provenance/label_error_px"))))
    assert (home / "minted.png").stat().st_size > 20_000


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
    remix(_config(home, n=120, appearances=lender), tmp_path / "minted.h5")
    data = HandDataset(tmp_path / "minted.h5")
    lent = HandDataset(lender, unlabelled=True, rows=data.read("provenance/appearance_source"))
    assert data.attrs["appearance_source_checksum"] == lent.checksum != data.attrs["pose_source_checksum"]
    assert set(lent.read("split")) == {0} and verify_dataset(data.path) == []
    assert set(data.read("handedness")) == {0, 1}, "frames of unknown side serve both"
    looks, frames = np.unique(data.read("appearance_id")), np.unique(lent.rows)
    assert len(looks) == len(frames) > 8, "each frame is an appearance"
    model, pose = load_disentangler(home / "disentangler"), _sources(home, data)[0]
    drawn = decode_images(
        model,
        encode_block(model, pose.read("images"), "pose", "cpu"),
        encode_block(model, lent.read("images"), "appearance", "cpu"),
        "cpu",
    )
    assert np.abs(drawn.astype(int) - data.read("images")).max() <= 1, "as they are, for left and right hands alike"


def test_blends_name_both_sources_and_can_be_drawn_again(home: Path, tmp_path: Path) -> None:
    remix(_config(home, n=120, pairs="interpolate"), tmp_path / "minted.h5")
    data = HandDataset(tmp_path / "minted.h5")
    assert verify_dataset(data.path) == []
    pose = _sources(home, data)[0]
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
    request = _config(home, n=90, disentangler=run, appearances=PRIOR, max_label_error=1000.0)
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
        remix(_config(home, appearances=PRIOR), tmp_path / "other.h5")


def test_rare_rows_have_few_neighbours() -> None:
    rng = np.random.default_rng(0)
    crowd, alone = rng.normal(0, 0.01, (300, 3)), rng.normal(0, 1, (20, 3)) + 5
    found = rarity(np.concatenate([crowd, alone]), seed=0)
    assert found[300:].min() > 4 * np.median(found[:300])
    assert np.array_equal(found, rarity(np.concatenate([crowd, alone]), seed=0))
    assert np.array_equal(rarity(np.zeros((5, 2)), 0), np.ones(5)) and np.array_equal(rarity(np.zeros((1, 2)), 0), [1])


def test_coverage_asks_more_of_rare_poses_and_of_rare_appearances(home: Path, tmp_path: Path) -> None:
    remix(_config(home, n=N, pairs="coverage", max_label_error=1000.0), tmp_path / "minted.h5")
    data, mint = HandDataset(tmp_path / "minted.h5"), Mint(_config(home, pairs="coverage"), "cpu")
    assert len(data) == N and verify_dataset(data.path) == []
    wanted = remix_module._quota(mint)
    rare = pose_rarity(mint.pose_data, mint.poses, 0)
    assert wanted.sum() == N and np.abs(wanted - N * rare / rare.sum()).max() <= 1
    counts = {}
    for name, table, weight in (
        ("pose", mint.poses, pose_rarity(mint.pose_data, mint.poses, 0)),
        ("appearance", mint.appearances, appearance_rarity(mint.appearances, 0)),
    ):
        rows = np.searchsorted(table.rows, data.read(f"provenance/{name}_source"))
        counts[name] = np.corrcoef(weight, np.bincount(rows, minlength=len(table)))[0, 1]
    assert counts["pose"] > 0.3 and counts["appearance"] > 0, counts


def test_a_weighted_walk_is_as_complete_and_begins_with_the_heavy() -> None:
    table = _table(200, 3, (-1,))
    weights = np.where(np.arange(200) % 2, 0.25, 1.75)
    even, uneven = Pairing(table, table, 5), Pairing(table, table, 5, weights=weights)
    share = []
    for x in range(40):
        assert sorted(even.candidates(x, 0, 500)[0]) == sorted(uneven.candidates(x, 0, 500)[0])
        first, place = uneven.candidates(x, 0, 8)
        assert np.array_equal(
            np.concatenate([first, uneven.candidates(x, place, 8)[0]]), uneven.candidates(x, 0, 16)[0]
        )
        share.append((first % 2 == 0).mean())
    assert 0.8 < np.mean(share) < 0.95, "1.75 to 0.25 is 7 to 1"


_RUN = """
import sys
from pathlib import Path
import handaug.augment.remix_plan as plan
from handaug.augment.remix import RemixConfig, remix
if __name__ == "__main__":
    plan.SHARD_IMAGES = 64
    home, out = Path(sys.argv[1]), Path(sys.argv[2])
    config = RemixConfig(300, home / "toy.h5", home / "disentangler", home / "checker", max_label_error=12.0)
    try:
        remix(config, out, workers=int(sys.argv[3]))
    except KeyboardInterrupt:
        sys.exit(130)
"""


def _start(home: Path, out: Path, workers: int) -> "subprocess.Popen[bytes]":
    script = out.with_suffix(".py")
    script.write_text(_RUN)
    return subprocess.Popen(
        [sys.executable, str(script), str(home), str(out), str(workers)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def _children(pid: int) -> list[int]:
    return [int(p) for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()]


@pytest.mark.parametrize(("stop", "workers"), [(signal.SIGKILL, 2), (signal.SIGINT, 2)])
def test_stopped_and_the_same_command_give_the_same_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: signal.Signals, workers: int
) -> None:
    """Killed while two processes minted, gone on with in one; the file of one process that was not disturbed."""
    straight, killed = tmp_path / "straight.h5", tmp_path / "killed.h5"
    monkeypatch.setattr(plan_module, "SHARD_IMAGES", 64)
    remix(_config(home), straight, workers=1)
    process = _start(home, killed, workers)
    partial = tmp_path / "killed.h5.partial"
    deadline = time.monotonic() + 300
    while len(list(partial.glob("shard-*.h5"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    children = _children(process.pid)
    process.send_signal(stop)
    assert process.wait(60) == (-stop if stop == signal.SIGKILL else 130)
    while any(Path(f"/proc/{child}/stat").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.02)  # they end with their parent
    assert not killed.exists() and len(list(partial.glob("shard-*.h5"))) >= 2, "stopped in the middle"
    kept = {path: path.stat().st_mtime_ns for path in sorted(partial.glob("shard-*.h5"))[:2]}
    made: list[Path] = []

    def note(job: Job, shard: Shard) -> int:
        made.append(shard.path)
        return mint_shard(job, shard)

    monkeypatch.setattr(remix_module, "mint_shard", note)
    remix(_config(home), killed, workers=1)
    assert made and not set(made) & set(kept), "what was done is not done again"
    assert HandDataset(killed).checksum == HandDataset(straight).checksum
    assert (tmp_path / "killed.json").read_text() == (tmp_path / "straight.json").read_text()
    assert not partial.exists()


def test_a_dask_cluster_makes_the_same_file(home: Path, minted: HandDataset, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        remix(_config(home), tmp_path / "dask.h5", scheduler=cluster.scheduler_address)
    assert HandDataset(tmp_path / "dask.h5").checksum == minted.checksum


def test_finished_output_is_left_alone_and_another_config_refused(home: Path, minted: HandDataset) -> None:
    before = minted.path.stat().st_mtime_ns
    assert remix(_config(home), minted.path).figures["kept"] == N
    assert minted.path.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="--overwrite"):
        remix(_config(home, seed=1), minted.path)


def test_bad_input_is_refused_before_any_work(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in (0, -3):
        with pytest.raises(InputError, match="--n"):
            _config(home, n=n)
    for error in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="--max-label-error"):
            _config(home, max_label_error=error)
    out = tmp_path / "minted.h5"
    capacity = remix_capacity(_config(home))
    with pytest.raises(InputError, match="new combinations"):
        remix(_config(home, n=capacity + 1), out)
    with pytest.raises(InputError, match="no such file"):
        remix(_config(home, poses=tmp_path / "none.h5"), out)
    for size, channels in ((16, 1), (32, 3)):
        other = write_toy(tmp_path / f"other-{channels}.h5", 8, size=size, channels=channels)
        with pytest.raises(InputError, match=f"{size} x {size} px with {channels} channels"):
            remix(_config(home, appearances=other), out)
        with pytest.raises(InputError, match=f"{size} x {size} px with {channels} channels"):
            remix(_config(home, poses=other, appearances=other), out)
    with pytest.raises(InputError, match="kind|disentangler"):
        remix(_config(home, disentangler=home / "checker"), out)
    with pytest.raises(InputError):
        remix(_config(home, checker=home / "disentangler"), out)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="MB are free"):
        remix(_config(home), out)
    assert not list(tmp_path.glob("minted*"))


def test_no_pair_allowed_says_why(home: Path, tmp_path: Path) -> None:
    lender = write_toy(tmp_path / "held.h5", 12, size=32, seed=9)
    with h5py.File(lender, "r+") as file:
        file["mask"][:, :4] = 3
        for name in ("pose_id", "group", "appearance_id"):
            file[name][:] += 5000
    with pytest.raises(InputError, match="occluders"):
        remix(_config(home, appearances=lender), tmp_path / "minted.h5")
    assert not list(tmp_path.glob("minted*"))


def _command(*arguments: object) -> Result:
    return CliRunner().invoke(remix_command, [str(argument) for argument in arguments])


def test_the_command_refuses_before_it_trains(home: Path, tmp_path: Path) -> None:
    """No workspace holds a model here: whatever got past the checks would train one for minutes."""
    out, poses, room = tmp_path / "minted.h5", ("--poses", home / "toy.h5"), ("--workspace", tmp_path / "work")
    small = write_toy(tmp_path / "small.h5", 8, size=16)
    for arguments, named in (
        (("--n", 0), "--n 0"),
        (("--n", 10**9), "--n 1000000000"),
        (("--pairs", "all"), "--pairs all"),
        (("--workers", 2, "--scheduler", "tcp://localhost:1"), "--scheduler"),
        (("--appearances", tmp_path / "none.h5"), "none.h5"),
        (("--appearances", small), "small.h5"),
        (("--checkpoint", tmp_path / "none"), "none"),
        (("--checkpoint", home / "checker"), "disentangler"),
    ):
        result = _command(out, *poses, *room, *arguments)
        assert isinstance(result.exception, InputError) and named in str(result.exception), arguments
    result = _command(out, "--poses", small, *room, "--checkpoint", home / "disentangler")
    assert isinstance(result.exception, InputError) and "16 x 16" in str(result.exception)
    result = _command(tmp_path / "small.h5" / "minted.h5", *poses, *room)
    assert isinstance(result.exception, InputError) and "cannot be written" in str(result.exception)
    result = _command(
        out, *poses, *room, "--checkpoint", home / "disentangler", "--checker", home / "checker", "--n", 10**6
    )
    assert (
        isinstance(result.exception, InputError)
        and "combinations" in str(result.exception)
        or "pairs" in str(result.exception)
    )
    assert not list(tmp_path.glob("minted*")) and not list(tmp_path.glob("work/*"))


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(home: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the shard is too large for it."""
    out = tmp_path / "minted.h5"
    limited = (
        "import resource, runpy, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "from handaug.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = [str(out), "--n", str(N), "--poses", str(home / "toy.h5"), "--checkpoint", str(home / "disentangler")]
    arguments += ["--checker", str(home / "checker"), "--max-label-error", "12"]
    done = subprocess.run([sys.executable, "-c", limited, "remix", *arguments], capture_output=True, text=True)
    assert done.returncode == 1 and "free space" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not out.exists()
    assert remix(_config(home), out).figures["kept"] == N


def _table(count: int, seed: int, folds: tuple[int, ...]) -> SourceTable:
    rng = np.random.default_rng(seed)
    return SourceTable(
        rows=np.arange(count),
        fold=rng.choice(np.array(folds, np.int8), count),
        handedness=rng.integers(0, 2, count).astype(np.int8),
        occluded=rng.choice(np.array([0, 0, 1, -1], np.int8), count),
        labelled=np.ones(count, bool),
        pose_id=rng.integers(0, count // 2, count),
        appearance_id=rng.integers(0, count // 4, count),
        tone=rng.random(count).astype(np.float32),
        thumbnail=np.zeros((count, 64), np.uint8),
        keypoints_2d=np.zeros((count, 21, 2), np.float32),
        visibility=np.full((count, 21), 2, np.uint8),
    )


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("folds", [(0, 1), (-1, 0, 1), (-1,)])
def test_candidates_are_all_the_allowed_pairs_each_once(folds: tuple[int, ...], mirror: bool) -> None:
    """The walk against a second implementation: the rules, pair by pair."""
    table = _table(80, 3, folds)
    pairing = Pairing(table, table, seed=5, wanted=60 if mirror else 0)
    assert pairing.mirrors == mirror
    for x in range(80):
        allowed = set()
        for y in range(80):
            same_fold = table.fold[x] == table.fold[y] or -1 in (table.fold[x], table.fold[y])
            rendered = table.appearance_id[y] in table.appearance_id[table.pose_id == table.pose_id[x]]
            new = table.pose_id[x] != table.pose_id[y] and not rendered
            alike = table.occluded[y] in (-1, int(table.occluded[x] == 1))
            side = mirror or table.handedness[y] in (-1, table.handedness[x])
            if same_fold and new and alike and side:
                allowed.add(y)
        walked, place = [], 0
        while len(found := pairing.candidates(x, place, 7)[0]):
            place = pairing.candidates(x, place, 7)[1]
            walked += found.tolist()
        assert sorted(walked) == sorted(allowed)
        assert pairing.capacity(x) == len(allowed)
        for y in walked[:5]:
            k = int(pairing.checker_of(np.array([x]), np.array([y]))[0])
            assert {int(table.fold[x]), int(table.fold[y])} <= {k, -1}, "estimator k never saw fold k"


def test_quotas_and_refills_sum_to_n() -> None:
    quota = split_quota(1003, np.ones(100), seed=0)
    assert quota.sum() == 1003 and set(quota) == {10, 11}
    uneven = split_quota(1000, np.arange(1.0, 5.0), seed=0)
    assert uneven.tolist() == [100, 200, 300, 400]
    cut = Cut(images=200, poses=15)
    tally = Tally.empty(quota)
    plans = first_plans(tally, 0, cut)
    assert max(len(plan.poses) for plan in plans) == 15 and max(plan.need.sum() for plan in plans) <= 211
    assert sum(plan.need.sum() for plan in plans) == 1003
    assert sorted(np.concatenate([plan.poses for plan in plans])) == list(range(100))
    tally.kept[:] = quota
    tally.kept[:20] = 3
    tally.tried[:] = 40
    bins = np.arange(100) // 50
    capacity = np.full(100, 44)
    again = refill_plans(tally, capacity, bins, 1, cut)
    poses = np.concatenate([plan.poses for plan in again])
    need = np.concatenate([plan.need for plan in again])
    assert need.sum() == tally.missing and need.max() <= 4
    assert poses.min() >= 20, "who could not fill his quota gets no more while others have room"
    assert need[bins[poses] == 0].sum() == 30 * 4, "the same pose bin comes first, as far as it has room"

"""Remix on toy hands with small real networks: exact counts, provenance, pairing rules, quotas, kill and resume,
refusals.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from toy import write_toy

import handaug.augment.mint as mint_module
import handaug.augment.remix_plan as plan_module
from handaug.augment.checker import CheckerConfig, Checkers, row_errors, train_checkers
from handaug.augment.codes import decode_images, encode_block
from handaug.augment.pairing import Pairing, SourceTable, split_quota
from handaug.augment.remix import RemixConfig, remix, remix_capacity
from handaug.augment.remix_plan import Tally, first_plans, refill_plans
from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.progress import SILENT
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.verify import verify_dataset
from handaug.models.disentangle.api import load_disentangler
from handaug.models.disentangle.config import DisentangleConfig
from handaug.models.disentangle.train import train_disentangler

N = 300
_TRUE_EMPTY = Checkers.of_empty_images


@pytest.fixture(scope="module", autouse=True)
def _models_of_seconds_may_draw_no_hand() -> Iterator[None]:
    """Networks trained for seconds draw hardly a hand; the rule about empty images is tested by itself below."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Checkers, "of_empty_images", lambda self, k, images: np.full((len(images), 21, 2), 1e4, np.float32)
        )
        yield


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
    return folder


def _config(home: Path, **changed: Any) -> RemixConfig:
    settings: dict[str, Any] = dict(
        n=N, poses=home / "toy.h5", disentangler=home / "disentangler", checker=home / "checker", max_label_error=12.0
    )
    return RemixConfig(**{**settings, **changed})


@pytest.fixture(scope="module")
def minted(home: Path) -> HandDataset:
    remix(_config(home), home / "minted.h5")
    return HandDataset(home / "minted.h5")


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
        found[folds == k] = checkers.predict(k, minted.read("images")[folds == k])
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
    mint = mint_module.Mint(_config(home, max_label_error=1000.0), "cpu")
    mint.open_codes(tmp_path, SILENT)
    pose = np.arange(40)
    appearance = np.concatenate([mint.pairing.candidates(int(i), 0, 1)[0] for i in pose])
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
        assert (judged.strays == strays).all() and (judged.keep != strays).all()


def test_answers_for_empty_images_are_those_of_an_even_grey(home: Path) -> None:
    checkers = Checkers.load(home / "checker")
    grey = np.full((2, 32, 32, 1), 51, np.uint8)
    grey[1, :16] = 102  # mean 76.5, rounded to the level 80
    even = np.stack([np.full((32, 32, 1), level, np.uint8) for level in (48, 80)])
    assert np.allclose(_TRUE_EMPTY(checkers, 0, grey), checkers.predict(0, even), atol=1e-3)


def test_quota_keeps_poses_uniform_though_some_are_rejected_more(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what a third of the poses gives is refused; every pose row still ends with its share."""
    judge = mint_module.Mint.judge

    def harsh(self: Any, pose: NDArray[Any], appearance: NDArray[Any]) -> Any:
        judged = judge(self, pose, appearance)
        judged.strays[:] = False
        judged.keep = (self.poses.pose_id[pose] % 3 != 0) | (appearance % 2 == 0)
        return judged

    monkeypatch.setattr(mint_module.Mint, "judge", harsh)
    report = remix(_config(home, n=280), tmp_path / "minted.h5")
    counts = np.unique(HandDataset(tmp_path / "minted.h5").read("provenance/pose_source"), return_counts=True)[1]
    assert counts.min() == counts.max() == 5, "280 images of 56 pose rows"
    assert report.figures["kept"] == 280 and report.figures["tried"] > 330 and report.figures["shortfall"] == 0


def test_what_a_pose_cannot_fill_goes_to_others_and_is_reported(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = mint_module.Mint.judge

    def stubborn(self: Any, pose: NDArray[Any], appearance: NDArray[Any]) -> Any:
        judged = judge(self, pose, appearance)
        judged.strays[:] = False
        judged.keep = self.poses.pose_id[pose] != self.poses.pose_id[0]
        return judged

    monkeypatch.setattr(mint_module.Mint, "judge", stubborn)
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


def test_report_counts_add_up(home: Path, minted: HandDataset) -> None:
    figures = json.loads((home / "minted.json").read_text())
    for title in ("by_pose", "by_side", "by_tone"):
        assert sum(row["kept"] for row in figures[title].values()) == N, title
        assert sum(row["tried"] for row in figures[title].values()) == figures["tried"], title
    assert figures["kept"] + sum(figures["rejected"].values()) == figures["tried"]
    assert figures["label_error_px"]["50"] == pytest.approx(float(np.median(minted.read("provenance/label_error_px"))))
    assert (home / "minted.png").stat().st_size > 20_000


def test_foreign_appearances_are_lent_and_traced(home: Path, tmp_path: Path) -> None:
    lender = write_toy(tmp_path / "lender.h5", 20, size=32, seed=7)
    with h5py.File(lender, "r+") as file:  # images of nobody knows what: no labels
        file["keypoints_2d"][:], file["visibility"][:] = np.nan, 0
        file["pose_id"][:] += 1000
        file["group"][:] += 1000
    remix(_config(home, n=60, appearances=lender), tmp_path / "minted.h5")
    data = HandDataset(tmp_path / "minted.h5")
    assert (
        data.attrs["appearance_source_checksum"] == HandDataset(lender).checksum != data.attrs["pose_source_checksum"]
    )
    lent = HandDataset(lender, rows=data.read("provenance/appearance_source"))
    assert np.array_equal(data.read("appearance_id"), lent.read("appearance_id")) and set(lent.read("split")) == {0}
    assert verify_dataset(data.path) == []


_RUN = """
import sys, time
from pathlib import Path
import handaug.augment.remix_plan as plan
import numpy as np
from handaug.augment.checker import Checkers
plan.SHARD_IMAGES = 64
Checkers.of_empty_images = lambda self, k, images: np.full((len(images), 21, 2), 1e4, np.float32)
from handaug.augment.remix import RemixConfig, remix
home, out = Path(sys.argv[1]), Path(sys.argv[2])
remix(RemixConfig(300, home / "toy.h5", home / "disentangler", home / "checker", max_label_error=12.0), out)
"""


def _start(home: Path, out: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, str(home), str(out)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def test_kill_9_and_the_same_command_give_the_same_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, killed = tmp_path / "straight.h5", tmp_path / "killed.h5"
    monkeypatch.setattr(plan_module, "SHARD_IMAGES", 64)
    remix(_config(home), straight)
    process = _start(home, killed)
    partial = tmp_path / "killed.h5.partial"
    deadline = time.monotonic() + 200
    while len(list(partial.glob("shard-*.h5"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert not killed.exists() and len(list(partial.glob("shard-*.h5"))) >= 2, "killed in the middle"
    kept = {path: path.stat().st_mtime_ns for path in sorted(partial.glob("shard-*.h5"))[:2]}
    assert kept and _start(home, killed).wait(300) == 0
    assert HandDataset(killed).checksum == HandDataset(straight).checksum
    assert (tmp_path / "killed.json").read_text() == (tmp_path / "straight.json").read_text()
    assert not partial.exists()


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
    with pytest.raises(InputError, match="16 x 16 px"):
        remix(_config(home, appearances=write_toy(tmp_path / "small.h5", 8, size=16)), out)
    with pytest.raises(InputError, match="kind|disentangler"):
        remix(_config(home, disentangler=home / "checker"), out)
    with pytest.raises(InputError):
        remix(_config(home, checker=home / "disentangler"), out)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="GB"):
        remix(_config(home), out)
    assert not out.exists()


def _table(count: int, seed: int, folds: tuple[int, ...]) -> SourceTable:
    rng = np.random.default_rng(seed)
    return SourceTable(
        rows=np.arange(count),
        fold=rng.choice(np.array(folds, np.int8), count),
        handedness=rng.integers(0, 2, count).astype(np.uint8),
        occluded=rng.random(count) < 0.3,
        labelled=np.ones(count, bool),
        pose_id=rng.integers(0, count // 2, count),
        appearance_id=rng.integers(0, count // 4, count),
        tone=rng.random(count).astype(np.float32),
        keypoints_2d=np.zeros((count, 21, 2), np.float32),
        visibility=np.full((count, 21), 2, np.uint8),
    )


@pytest.mark.parametrize("folds", [(0, 1), (-1, 0, 1), (-1,)])
def test_candidates_are_all_the_allowed_pairs_each_once(folds: tuple[int, ...]) -> None:
    """The walk against a second implementation: the rules, pair by pair."""
    table = _table(80, 3, folds)
    pairing = Pairing(table, table, seed=5)
    for x in range(80):
        allowed = set()
        for y in range(80):
            same_fold = table.fold[x] == table.fold[y] or -1 in (table.fold[x], table.fold[y])
            rendered = table.appearance_id[y] in table.appearance_id[table.pose_id == table.pose_id[x]]
            new = table.pose_id[x] != table.pose_id[y] and not rendered
            if same_fold and new and table.occluded[x] == table.occluded[y]:
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
    quota = split_quota(1003, 100, seed=0)
    assert quota.sum() == 1003 and set(quota) == {10, 11}
    tally = Tally.empty(quota)
    plans = first_plans(tally, seed=0)
    assert sum(plan.need.sum() for plan in plans) == 1003
    assert sorted(np.concatenate([plan.poses for plan in plans])) == list(range(100))
    tally.kept[:] = quota
    tally.kept[:20] = 3
    tally.tried[:] = 40
    bins = np.arange(100) // 50
    capacity = np.full(100, 44)
    again = refill_plans(tally, capacity, bins, seed=1)
    poses = np.concatenate([plan.poses for plan in again])
    need = np.concatenate([plan.need for plan in again])
    assert need.sum() == tally.missing and need.max() <= 4
    assert poses.min() >= 20, "who could not fill his quota gets no more while others have room"
    assert need[bins[poses] == 0].sum() == 30 * 4, "the same pose bin comes first, as far as it has room"

"""What remix mints on toy hands: exact counts, provenance, the label check, quotas, the report.

The networks are those of remix_home.py, trained for seconds.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from decoding import decode_images
from numpy.typing import NDArray
from remix_home import N, remix_config, sources_of

from handaug.augment.checker import Checkers, row_errors
from handaug.augment.codes import encode_block
from handaug.augment.mint import Mint
from handaug.augment.remix import RemixConfig, remix
from handaug.augment.remix_work import Job, adopt, encode_rows, forget
from handaug.data_specs.errors import WorkError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import RELATIONS
from handaug.data_specs.verify import verify_dataset
from handaug.models.disentangle.api import load_disentangler
from handaug.models.seen import seen_attribute

pytestmark = pytest.mark.usefixtures("no_picture")


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


def test_exactly_n_valid_rows(minted: HandDataset) -> None:
    assert len(minted) == N and minted.kind == "minted"
    assert verify_dataset(minted.path) == []
    assert set(minted.read("split")) == {0}
    assert len(np.unique(minted.read("image_id"))) == N
    assert not minted.path.with_name("minted.h5.partial").exists()


def test_labels_are_those_of_the_pose_source_and_the_rest_of_the_appearance_source(
    home: Path, minted: HandDataset
) -> None:
    pose, appearance = sources_of(home, minted)
    for name in ("keypoints_2d", "keypoints_3d", "visibility", "camera", "handedness", "mask", "group", "pose_id"):
        assert np.array_equal(minted.read(name), pose.read(name)), name
    assert np.array_equal(minted.read("appearance_id"), appearance.read("appearance_id"))
    assert set(pose.read("split")) == set(appearance.read("split")) == {0}
    assert not minted.has("depth") and not minted.has("occlusion")
    assert minted.attrs["pose_source_checksum"] == pose.checksum == minted.attrs["appearance_source_checksum"]
    train = HandDataset(pose.path, split="train")
    for name in RELATIONS:
        assert np.array_equal(minted.attrs[seen_attribute(name)], np.unique(train.read(name)))


def test_a_row_can_be_drawn_again_from_its_sources(home: Path, minted: HandDataset) -> None:
    model = load_disentangler(home / "disentangler")
    pose, appearance = sources_of(home, minted)
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
    pose, appearance = sources_of(home, minted)
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
    pose, appearance = sources_of(home, minted)
    pairs = np.stack([pose.rows, appearance.rows], 1)
    assert len(np.unique(pairs, axis=0)) == N
    whole = HandDataset(home / "toy.h5")
    rendered = set(zip(whole.read("pose_id").tolist(), whole.read("appearance_id").tolist(), strict=True))
    made = set(zip(minted.read("pose_id").tolist(), minted.read("appearance_id").tolist(), strict=True))
    assert not made & rendered
    assert (pose.read("pose_id") != appearance.read("pose_id")).all()


def test_estimates_nearer_to_the_other_pose_are_dropped(home: Path, tmp_path: Path) -> None:
    """An estimator that always finds y's hand rejects all; one that always finds x's keeps all, mirrored pairs too."""
    mint, pose, appearance = _opened(remix_config(home, max_label_error=1000.0), tmp_path, 40)
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
    report = remix(remix_config(home, n=280), tmp_path / "minted.h5")
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
    report = remix(remix_config(home, n=280), tmp_path / "minted.h5")
    data = HandDataset(tmp_path / "minted.h5")
    assert len(data) == 280
    sources, counts = np.unique(data.read("provenance/pose_source"), return_counts=True)
    assert len(sources) == 54 and report.figures["shortfall"] == 10
    assert counts.min() == 5 and counts.max() <= 8


def test_too_few_kept_stops_early_and_says_so(home: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="passed the label check") as caught:
        remix(remix_config(home, n=500, max_label_error=0.05), tmp_path / "minted.h5")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "minted.h5").exists()


def test_without_the_check_everything_is_kept_and_the_file_says_so(home: Path, tmp_path: Path) -> None:
    report = remix(remix_config(home, n=60, max_label_error=0.05, check=False), tmp_path / "all.h5")
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

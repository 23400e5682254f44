"""The outside judge and the test on real hands: MediaPipe's conventions, normalised distances, intervals."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray
from rows import random_rows, write_rows

from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import LEFT, RIGHT, TRAIN


def _load(name: str) -> ModuleType:
    """A benchmark as a module."""
    place = Path(__file__).resolve().parent.parent / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


realism, real_errors = _load("realism"), _load("real_errors")
real_hands = _load("real_hands")


def _square_hands(count: int) -> NDArray[np.float64]:
    """(count, 21, 2): joints in a box of 100 x 40 px."""
    points = np.full((count, 21, 2), 50.0)
    points[:, 0], points[:, 1] = (10, 30), (110, 70)
    return points


def test_sides_are_named_as_in_a_mirror() -> None:
    # Seen on 583 photographs of one left hand: "Right" for all but three.
    assert realism.true_side("Right") == LEFT
    assert realism.true_side("Left") == RIGHT
    assert realism.true_side("") not in (LEFT, RIGHT)


def test_shares_of_the_image_become_pixels_about_centres() -> None:
    corners = np.array([[0.0, 0.0], [1.0, 1.0], [0.5 / 64, 0.5 / 32]])
    assert realism.pixels_of_shares(corners, 64, 32).tolist() == [[-0.5, -0.5], [63.5, 31.5], [0.0, 0.0]]


def test_offsets_are_measured_along_the_bones_towards_the_fingertips() -> None:
    """A hand drawn straight along y: places 3 px further up and 7 px aside are +3, whatever the picture's turn; bones
    that point at the camera say nothing."""
    true = np.zeros((2, 21, 2))
    for finger in range(5):
        for part in range(4):
            true[:, 1 + 4 * finger + part] = (10 * finger, 40 + 20 * part)
    true[:, 0] = (20, 0)  # below the middle finger
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    found = true + (7.0, 3.0)
    true[1], found[1] = true[1] @ turn.T, found[1] @ turn.T
    offsets = realism.offsets_along(found, true)
    straight = [joint for joint in range(21) if joint not in (1, 5, 13, 17)]  # the others' lines begin at the wrist
    np.testing.assert_allclose(offsets[:, straight], 3.0)
    true[0, 7] = true[0, 6] = true[0, 5]
    assert np.isnan(realism.offsets_along(found, true)[0, 6])


def test_distances_are_shares_of_the_longer_side_of_the_labelled_box() -> None:
    true = _square_hands(3)
    answers = true + (3.0, 4.0)  # 5 px of 100
    answers[2] = np.nan
    visibility = np.full((3, 21), 2)
    visibility[1, 5] = 0
    answers[1, 5] = 1e6  # far off, but without a label
    judged = realism.Judged.of(answers, ["Left", "Left", ""], true, visibility, np.array([RIGHT, LEFT, RIGHT]))
    assert judged.found.tolist() == [True, True, False]
    assert judged.side_right.tolist() == [True, False, False]
    np.testing.assert_allclose(judged.shares[0], 0.05)
    assert np.isnan(judged.shares[1, 5]) and np.isnan(judged.shares[2]).all()
    row = realism.figures(judged)
    assert (row["rows"], row["found"], row["side"], row["astray"]) == (3, pytest.approx(2 / 3), 0.5, 0.0)
    assert row["median"] == pytest.approx(0.05)


def test_a_group_counts_its_own_rows_and_may_have_none_found() -> None:
    true = _square_hands(2)
    answers = true + (30.0, 0.0)
    answers[1] = np.nan
    judged = realism.Judged.of(answers, ["Left", ""], true, np.full((2, 21), 2), np.array([RIGHT, RIGHT]))
    assert realism.figures(judged, np.array([True, False]))["astray"] == 1.0
    lost = realism.figures(judged, np.array([False, True]))
    assert lost["found"] == 0 and np.isnan(lost["median"]) and np.isnan(lost["side"])


def test_facing_of_hands_held_up() -> None:
    # A right hand held up, palm to the camera, shows its thumb side to the right of the picture (x to the right).
    palm = np.zeros((21, 3))
    palm[0], palm[5], palm[9], palm[17] = (0, 0.09, 0.5), (0.03, 0, 0.5), (0.01, -0.01, 0.5), (-0.03, 0, 0.5)
    back = palm * (-1, 1, 1)
    edge = palm.copy()
    edge[:, 2] = 0.5 + palm[:, 0]
    edge[:, 0] = 0
    towards = palm.copy()
    towards[:, 2], towards[:, 1] = 0.5 + palm[:, 1], 0
    hands = np.stack([palm, back, edge, towards, back, palm])
    sides = np.array([RIGHT, RIGHT, RIGHT, RIGHT, LEFT, LEFT])
    assert realism.facing(hands, sides) == ["palm", "back", "edge", "end-on", "palm", "back"]


def test_the_rest_of_the_frames_is_apart_from_the_first() -> None:
    parts = real_errors.frames(583, 292, 10)
    assert parts["first"].tolist() == list(range(292))
    assert parts["rest"].tolist() == list(range(302, 583))
    with pytest.raises(InputError, match="--first 292"):
        real_errors.frames(300, 292, 10)


def test_left_hands_are_mirrored_with_their_labels(tmp_path: Path) -> None:
    rows = random_rows(6, appearances=1, size=32)
    rows["keypoints_2d"] = np.random.default_rng(1).integers(2, 30, (6, 21, 2)).astype(np.float32)
    rows["images"][:] = 0
    for image, points in zip(rows["images"], rows["keypoints_2d"].astype(int), strict=True):
        image[points[:, 1], points[:, 0], 0] = 200
    for name in ("keypoints_3d", "camera"):
        del rows[name]
    data = HandDataset(write_rows(tmp_path / "rows.h5", rows))
    right = real_hands.RightHands([data])
    assert not right.both_hands and (right.handedness == RIGHT).all()
    index = np.array([5, 0, 3])
    for image, points in zip(right.images(index), right.keypoints_2d[index].astype(int), strict=True):
        assert (image[points[:, 1], points[:, 0], 0] == 200).all()
    straight = rows["handedness"][index] == RIGHT
    assert (right.keypoints_2d[index] == rows["keypoints_2d"][index]).all((1, 2)).tolist() == straight.tolist()


def test_the_interval_holds_the_median_and_widens_where_frames_go_together() -> None:
    rng = np.random.default_rng(3)
    alone = rng.exponential(size=(3, 240, 21))
    low, high = real_errors.median_interval(alone, replicates=200)
    assert low < np.log(2) < high
    together = np.repeat(rng.exponential(size=(3, 20, 21)), 12, axis=1)
    wide = real_errors.median_interval(together, replicates=200)
    assert wide[1] - wide[0] > 2 * (high - low)


def test_halving_every_error_is_a_reduction_of_50_with_no_doubt() -> None:
    errors = np.random.default_rng(4).exponential(size=(2, 60, 21))
    np.testing.assert_allclose(real_errors.reduction_interval(errors, errors / 2, replicates=50), 50.0)
    mean, low, high = real_errors.reduction_interval(errors, errors[::-1], replicates=200)
    assert mean == pytest.approx(0.0) and low < 0 < high


def test_arms_with_real_labels_see_no_row_that_measures_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renders = write_rows(tmp_path / "renders.h5", random_rows(40, appearances=2, size=32))
    rows = random_rows(60, appearances=1, size=32, seed=9)
    rows["split"][:] = TRAIN
    real = write_rows(tmp_path / "real.h5", rows)
    out = tmp_path / "out"
    given = f"{out} --real {real} --renders {renders} --first 30 --gap 5 --labels 10 --steps 5 --seeds 1 --workers 1"
    with pytest.raises(InputError, match="--labels: these arms are measured on the rest alone; add --open-rest"):
        _main(monkeypatch, given)
    for text in ("4", "31", "x"):
        with pytest.raises(InputError, match=f"--labels {text}: give numbers of rows from 5 to 30"):
            _main(monkeypatch, given.replace("--labels 10", f"--labels {text}"))
    _main(monkeypatch, f"{given} --open-rest")
    table = json.loads((out / "real_hands.json").read_text())
    assert set(table["arms"]["renders"]) == {"first", "rest", "own renders"}
    learned = {}
    for name in ("labels-10", "renders+labels-10"):
        assert set(table["arms"][name]) == {"rest", "own renders"} and table["arms"][name]["rest"]["rows"] == 25
        learned[name] = safetensors.numpy.load_file(out / "runs" / name / "seed-0" / "seen.safetensors")["pose_id"]
    # Every fifth of the ten chooses the checkpoint.
    assert set(learned["labels-10"]) == set(rows["pose_id"][[0, 3, 6, 10, 16, 19, 23, 26]])
    assert set(learned["labels-10"]) < set(learned["renders+labels-10"])


def _main(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["real_hands.py", *words.split(" ")])
    real_hands.main()

"""The outside judge and the test on real hands: MediaPipe's conventions, normalised distances, intervals.

And what scripts share: their command lines, and folders of runs that belong to one process, its data and options."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray
from rows import random_rows, write_rows
from toy import write_minted, write_toy

from handaug.cli.common import exit_code_of
from handaug.data_specs.errors import InputError
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import LEFT, RIGHT, TRAIN

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def _load(name: str) -> ModuleType:
    """A benchmark as a module."""
    place = BENCHMARKS / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


commands = _load("commands")  # the others import it
realism, real_errors = _load("realism"), _load("real_errors")
real_hands, mixing = _load("real_hands"), _load("mixing")
_load("headset")


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


@pytest.mark.filterwarnings("error")
def test_a_hand_found_where_none_is_labelled_is_counted_and_not_measured() -> None:
    true = _square_hands(2)
    true[1] = np.nan
    visibility = np.repeat([[2], [0]], 21, axis=1)
    judged = realism.Judged.of(_square_hands(2) + (3.0, 4.0), ["Left"] * 2, true, visibility, np.array([RIGHT, RIGHT]))
    assert judged.means == pytest.approx([0.05, 0.0]) and np.isnan(judged.offsets[1]).all()
    row = realism.figures(judged)
    assert (row["found"], row["astray"], row["median"]) == (1.0, 0.0, pytest.approx(0.05))
    assert np.isnan(realism.figures(judged, np.array([False, True]))["median"])


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
    for text, told in (
        ("4", "--labels: 4: give a whole number of at least 5"),
        ("x", "--labels: x: give a whole number"),
        ("10,31", "--labels 31: more than the 30 rows of --first; lower it"),
    ):
        with pytest.raises(InputError, match=told):
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
    # Other rows to learn from, or to measure on, are other runs.
    for changed in (given.replace("--first 30", "--first 31"), given.replace("--gap 5", "--gap 6")):
        with pytest.raises(InputError, match="out: holds runs of other data or options; choose another OUT"):
            _main(monkeypatch, f"{changed} --open-rest")


def _main(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["real_hands.py", *words.split(" ")])
    real_hands.main()


def test_without_real_labels_the_cut_of_the_real_rows_is_no_part_of_a_run() -> None:
    names = ("rows", "width", "steps", "batch_size", "lr", "checkpoints", "minted_fraction", "as_right", "precision")
    given = SimpleNamespace(**dict.fromkeys(names), estimator="compact", labels=[], first=30, gap=5)
    assert set(real_hands.settings(given, {})) == {*names, "estimator", "data"}


# --- what scripts share ---


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `real.h5`, and `large.h5` of other images."""
    folder = tmp_path_factory.mktemp("toy")
    write_toy(folder / "real.h5", 12, size=32)
    write_toy(folder / "large.h5", 12, size=48)
    return folder


REAL_HANDS = "OUT --real real.h5 --renders real.h5 --first 8 --gap 2"


@pytest.mark.parametrize(
    ("script", "words", "told"),
    [
        ("cross_domain", "OUT --seeds 0", "--seeds: 0"),
        ("cross_domain", "OUT --arms nope", "--arms nope"),
        ("cross_domain", "OUT --steps 2", "--steps 2"),
        ("disentangle_methods", "real.h5", "out"),
        ("disentangle_methods", "real.h5 OUT --methods self,foo", "--methods: foo: choose from self"),
        ("disentangle_methods", "real.h5 OUT --methods dvae-pose", "--methods: dvae-pose: choose from self"),
        ("disentangle_methods", "real.h5 OUT --seeds 0", "--seeds: 0"),
        ("disentangle_methods", "real.h5 OUT --checker OUT", "OUT"),
        ("disentangle_methods", "real.h5 real.h5", "real.h5: cannot be a folder"),
        ("dvae_pose", "labelled real.h5 OUT --seeds 0", "--seeds: 0"),
        ("dvae_pose", "labelled real.h5 OUT --percent 5 200", "--percent: 200"),
        ("dvae_pose", "protocol rhd OUT OUT --set steps=x", "--set steps=x"),
        ("dvae_pose", "protocol rhd OUT OUT --seeds 0", "--seeds: 0"),
        ("dvae_study", "joint real.h5 OUT --seeds 0", "--seeds: 0"),
        ("dvae_study", "weights real.h5 OUT --betas --latents", "--betas"),
        ("dvae_study", "", "{weights,joint}"),
        ("export_speed", "real.h5 --limit 0", "--limit: 0"),
        ("few_labels", "OUT --label-budgets 1", "--label-budgets 1"),
        ("hand_shapes", "--poses -1", "--poses: -1"),
        ("mixing", "real.h5 real.h5 OUT --fractions 0.5,x", "--fractions: x"),
        ("mixing", "real.h5 real.h5 OUT --fractions 0.5,0.01", "--fractions 0.01: is no row of --batch-size 16"),
        ("mixing", "real.h5 real.h5 OUT --weight-scales -3", "--weight-scales: -3"),
        ("mixing", "real.h5 real.h5 OUT --weight-scales inf", "--weight-scales: inf"),
        ("mixing", "real.h5 real.h5 OUT --seeds 0", "--seeds: 0"),
        ("mixing", "real.h5 real.h5 OUT --steps 4", "--steps: 4"),
        ("mixing", "real.h5 real.h5 OUT --lr nan", "--lr: nan"),
        ("mixing", "real.h5 real.h5 OUT", "real.h5: 4 training rows share their group with test rows"),
        ("mixing", "real.h5 large.h5 OUT", "large.h5: has 48 x 48 px"),
        ("real_hands", f"{REAL_HANDS} --seeds 0", "--seeds: 0"),
        ("real_hands", f"{REAL_HANDS} --steps 2", "--steps 2"),
        ("real_hands", f"{REAL_HANDS} --batch-size 0", "--batch-size: 0"),
        ("real_hands", f"{REAL_HANDS} --minted real.h5 --minted-fraction 0.03", "--minted-fraction 0.03: is no row"),
        ("real_hands", f"{REAL_HANDS} --rows 0", "--rows: 0"),
        ("real_hands", f"{REAL_HANDS} --gap -3", "--gap: -3"),
        ("real_hands", f"{REAL_HANDS} --estimator nope", "--estimator nope"),
        ("real_hands", "OUT --real real.h5 --estimator nope", "--estimator nope"),
        ("real_hands", "OUT --real real.h5 --first 8 --gap 2", "real.h5: has 32 x 32 px"),
        ("real_hands", f"{REAL_HANDS} --arm a=large.h5", "large.h5: has 48 x 48 px"),
        ("real_hands", f"{REAL_HANDS} --margin 9", "--margin 9"),
        ("realism", "OUT --rows -3", "--rows: -3"),
        ("remix_memory", "OUT 10 --workers 0", "--workers: 0"),
        ("remix_speed", "OUT 0", "n: 0"),
        ("render_quality", "--converged 0", "--converged: 0"),
        ("render_speed", "--pictures 3", "--pictures: 3"),
        ("table3", "sheet real.h5 OUT OUT OUT --trials 0", "--trials: 0"),
        ("table3", "sheet real.h5 OUT OUT OUT", "OUT/config.json: no such file"),
        ("table4", "real.h5 OUT --poses -1", "--poses: -1"),
        ("table4", "real.h5 OUT --epochs 0", "--epochs: 0"),
        ("table4", "real.h5 OUT --device gpu", "--device gpu"),
        ("train_speed", "real.h5 --threads 0", "--threads: 0"),
        ("train_speed", "real.h5 --device gpu", "--device gpu"),
        ("train_speed", "real.h5 --methods nope", "--methods: nope"),
        ("train_speed", "real.h5 --estimators nope", "--estimator nope"),
    ],
)
def test_a_wrong_command_line_ends_at_once_in_one_line(
    script: str,
    words: str,
    told: str,
    toy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(toy)
    main = _load(script).main
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words.split()])
    assert exit_code_of(main, debug=False) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    assert told in shown.err and "unexpected" not in shown.err
    assert not Path("OUT").exists() or not any(Path("OUT").iterdir())


def test_lists_are_read_in_order_and_each_value_once() -> None:
    assert commands.listed(commands.share)(" 0.5,0.25 ,.5,1") == [0.5, 0.25, 1.0]
    assert commands.listed(mixing.scale)("none,8,8.0") == [np.inf, 8.0]
    assert commands.listed(str, 0)("") == []


def test_a_folder_of_runs_belongs_to_its_settings(tmp_path: Path) -> None:
    commands.claim(tmp_path / "out", {"lr": 1, "data": ["a"]})
    commands.claim(tmp_path / "out", {"data": ["a"], "lr": 1})
    with pytest.raises(InputError, match="holds runs of other data or options; choose another OUT"):
        commands.claim(tmp_path / "out", {"lr": 2, "data": ["a"]})
    # Nobody knows what these were made from.
    (tmp_path / "old" / "5 steps" / "real" / "seed-0").mkdir(parents=True)
    with pytest.raises(InputError, match="old: holds runs of other data or options"):
        commands.claim(tmp_path / "old", {"lr": 1})


def test_a_folder_of_runs_belongs_to_one_process_until_it_ends(tmp_path: Path) -> None:
    code = "import pathlib, commands, sys; commands.claim(pathlib.Path(sys.argv[1]), {}); print(1, flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=BENCHMARKS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"1\n"
        with pytest.raises(InputError, match="another process is at work there; wait for it or choose another OUT"):
            commands.claim(tmp_path, {})
    finally:
        holder.kill()
        holder.communicate()
    commands.claim(tmp_path, {})


def test_mixing_takes_runs_of_the_same_data_and_options_alone(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def one_after_the_other(jobs: Sequence[Callable[[Progress], None]], **_: object) -> None:
        for job in jobs:
            job(SILENT)

    monkeypatch.setattr(mixing, "run_trainings", one_after_the_other)
    other = write_minted(tmp_path / "other.h5", toy / "real.h5")
    third = write_toy(tmp_path / "third.h5", 12, size=32, seed=1)
    error = {"provenance/label_error_px": np.zeros(len(HandDataset(other)), np.float32)}
    given = ["REAL", "MINTED", str(tmp_path / "out"), "--steps", "5", "--seeds", "1", "--device", "cpu"]

    def run(real: Path = toy / "real.h5", minted: Path = other, *more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["mixing.py", str(real), str(minted), *given[2:], *more])
        assert mixing.main() == 0
        return capsys.readouterr().out

    first = run(toy / "real.h5", other, "--fractions", "0.5", "--weight-scales", "none")
    assert first.count(" px ") == 2 and "minted 0.5, weight scale none" in first
    stored = tmp_path / "out" / "5 steps" / "real" / "seed-0" / "model.safetensors"
    trained = stored.stat().st_mtime_ns
    # Further combinations join the runs that are there.
    more = run(toy / "real.h5", other, "--fractions", "0.5,1", "--weight-scales", "none")
    assert more.count(" px ") == 3 and set(first.splitlines()) < set(more.splitlines())
    assert stored.stat().st_mtime_ns == trained
    for changed in (
        (toy / "real.h5", other, "--lr", "0.001"),
        (toy / "real.h5", other, "--batch-size", "8"),
        (third, write_minted(tmp_path / "of_third.h5", third)),
        (toy / "real.h5", write_minted(tmp_path / "otherwise.h5", toy / "real.h5", **error)),
    ):
        with pytest.raises(InputError, match="out: holds runs of other data or options; choose another OUT"):
            run(*changed)

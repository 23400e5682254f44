"""The gain experiment: the bootstrap against closed forms, equal orders in all arms, leaks, budgets, and a small real
run.
"""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray
from toy import toy_arrays, write_toy

from handaug.augment.batches import RowPool, training_batches
from handaug.augment.bootstrap import ErrorSums, relative_gain
from handaug.augment.budgets import owes_labels, parse_budgets, pose_order
from handaug.augment.checker import CheckerConfig, Checkers
from handaug.augment.gain import GainConfig, GainResult, measure_gain
from handaug.augment.gain_config import open_data
from handaug.augment.gain_runs import ARMS, Recipe, make_estimator, parse_further, train_run
from handaug.augment.leaks import check_leaks, unknown_training
from handaug.augment.transforms import TrainTransform
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.writer import DatasetWriter
from handaug.models.disentangle.config import DisentangleConfig
from handaug.models.estimators import build_estimator
from handaug.models.estimators.seen import write_seen


def _sums(errors: NDArray[Any], joints: int = 1) -> ErrorSums:
    """Each group one row with `joints` joints of the same error; errors (seeds, groups)."""
    return ErrorSums.of(np.repeat(errors[..., None], joints, axis=2), np.arange(errors.shape[1]))


def test_gain_of_a_constant_ratio_is_exact_with_an_empty_interval() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 9, (3, 40))
    gain = relative_gain(_sums(base), _sums(0.8 * base), replicates=500, seed=0)
    assert gain.mean == pytest.approx(20.0)
    assert gain.ci95 == pytest.approx((20.0, 20.0))
    assert relative_gain(_sums(base), _sums(base), replicates=500, seed=0).mean == pytest.approx(0.0)
    assert relative_gain(_sums(base), _sums(1.1 * base), replicates=500, seed=0).mean == pytest.approx(-10.0)


def test_interval_over_groups_has_the_width_of_the_normal_approximation() -> None:
    """One seed, baseline error 1 everywhere: the gain is 100 (1 - mean of the candidate), whose bootstrap error is
    known.
    """
    rng = np.random.default_rng(1)
    candidate = rng.normal(0.9, 0.2, (1, 400))
    gain = relative_gain(_sums(np.ones((1, 400))), _sums(candidate), replicates=8000, seed=0)
    expected = 1.96 * 100 * candidate.std() / np.sqrt(400)
    assert gain.mean == pytest.approx(100 * (1 - candidate.mean()))
    assert (gain.ci95[1] - gain.ci95[0]) / 2 == pytest.approx(expected, rel=0.05)


def test_interval_over_seeds_does_not_shrink_with_more_test_groups() -> None:
    """Seeds that differ by s: the half width is about 1.96 s / sqrt(seeds), however many groups are tested."""
    rng = np.random.default_rng(2)
    offsets = rng.normal(0, 0.1, (8, 1))
    widths = []
    for groups in (50, 2000):
        gain = relative_gain(
            _sums(np.ones((8, groups))), _sums(0.9 + offsets + np.zeros((8, groups))), replicates=8000, seed=0
        )
        widths.append((gain.ci95[1] - gain.ci95[0]) / 2)
    assert widths[0] == pytest.approx(widths[1], rel=0.05)
    assert widths[0] == pytest.approx(1.96 * 100 * offsets.std() / np.sqrt(8), rel=0.08)


def test_rows_of_a_group_count_as_one_draw() -> None:
    """Fifty copies of each row say nothing new: the interval stays as wide as with one row each."""
    rng = np.random.default_rng(3)
    candidate = rng.normal(0.9, 0.3, (1, 30))
    once = relative_gain(_sums(np.ones((1, 30))), _sums(candidate), replicates=4000, seed=0)
    groups = np.repeat(np.arange(30), 50)
    many = relative_gain(
        ErrorSums.of(np.ones((1, 1500, 1)), groups),
        ErrorSums.of(np.repeat(candidate, 50, axis=1)[..., None], groups),
        replicates=4000,
        seed=0,
    )
    assert many.ci95 == pytest.approx(once.ci95)


def test_error_sums_leave_unlabelled_joints_out() -> None:
    errors = np.array([[[1.0, np.nan], [3.0, 5.0]]])
    sums = ErrorSums.of(errors, np.array([7, 9]))
    assert sums.mean() == pytest.approx(3.0)
    assert sums.counts.tolist() == [1, 2]


def test_real_slots_are_the_same_in_every_arm(tmp_path: Path) -> None:
    real = RowPool([HandDataset(write_toy(tmp_path / "real.h5", 12, size=32), split="train")])
    minted = RowPool([HandDataset(write_toy(tmp_path / "other.h5", 12, size=32, seed=9))])
    plain = training_batches(real, batch_size=8, seed=4)
    mixed = training_batches(real, batch_size=8, seed=4, minted=minted, minted_fraction=0.25)
    for _ in range(6):  # more than two epochs
        (images, points), (images_m, points_m) = next(plain)[:2], next(mixed)[:2]
        assert torch.equal(images[2:], images_m[2:]) and torch.equal(points[2:], points_m[2:])
        assert not torch.equal(images[:2], images_m[:2])


def test_an_epoch_visits_every_row_once(tmp_path: Path) -> None:
    pool = RowPool([HandDataset(write_toy(tmp_path / "real.h5", 12, size=32), split="train")])
    batches = training_batches(pool, batch_size=4, seed=0, transform=None)
    seen = torch.cat([next(batches)[1][:, 0] for _ in range(len(pool) // 4)])
    want = torch.from_numpy(pool.keypoints_2d[:, 0])
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, want.tolist()))
    again = training_batches(pool, batch_size=4, seed=0, transform=TrainTransform("light"))
    third = training_batches(pool, batch_size=4, seed=0, transform=TrainTransform("light"))
    assert torch.equal(next(again)[0], next(third)[0])


def test_budgets_are_parsed_nested_and_refused(tmp_path: Path) -> None:
    assert parse_budgets("all, 500,100,100") == [100, 500, None]
    for bad in ("", "0", "1", "-5", "many", "1.5", "5²", "9" * 5000):
        with pytest.raises(InputError, match="--label-budgets"):
            parse_budgets(bad)
    real = HandDataset(write_toy(tmp_path / "real.h5", 20, size=32), split="train")
    rank, poses = pose_order(real, seed=0)
    assert poses == 14 and sorted(set(rank.tolist())) == list(range(14))
    ids = real.read("pose_id")
    assert all(len(set(rank[ids == pose])) == 1 for pose in ids), "a pose is in a budget with all its rows"


def _write_minted(path: Path, source: Path, **changed: Any) -> Path:
    """A minted file whose rows are copies of a toy file's train rows; fields in `changed` are replaced."""
    view = HandDataset(source, split="train")
    rows = {name: view.read(name) for name in view.available}
    rows |= {
        "provenance/pose_source": view.rows.copy(),
        "provenance/appearance_source": view.rows[::-1].copy(),
        "provenance/label_error_px": np.full(len(view), 0.5, np.float32),
        "provenance/label_error_max_px": np.full(len(view), 1.0, np.float32),
    }
    rows |= changed
    with DatasetWriter(
        path,
        kind="minted",
        config={},
        seed=0,
        size=view.size,
        channels=view.channels,
        fields=list(rows),
        attrs={"pose_source_checksum": view.checksum, "appearance_source_checksum": view.checksum},
    ) as writer:
        writer.append(rows)
    return path


@pytest.mark.parametrize("checked", [True, False])
def test_checked_and_unchecked_minted_rows_are_not_confused(tmp_path: Path, checked: bool) -> None:
    real = write_toy(tmp_path / "real.h5", 24, size=32)
    files = {True: _write_minted(tmp_path / "checked.h5", real), False: _write_minted(tmp_path / "all.h5", real)}
    for says, path in files.items():
        with h5py.File(path, "r+") as file:
            file.attrs["label_checked"] = says
    right = GainConfig(real, files[True], unchecked=files[False], arms="real+unchecked")
    open_data(right)
    wrong = replace(right, minted=files[False]) if checked else replace(right, unchecked=files[True])
    with pytest.raises(InputError, match="--minted .*all.h5" if checked else "--unchecked .*checked.h5"):
        open_data(wrong)


def test_leaks_are_refused(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "real.h5", 20, size=32)
    train, val, test = (HandDataset(source, split=name) for name in ("train", "val", "test"))
    clean = HandDataset(_write_minted(tmp_path / "clean.h5", source))
    check_leaks([train, clean], test, val)
    test_row = int(test.rows[0])
    leaks = {
        "group": {"group": np.full(len(train), int(test.read("group")[0]))},
        "pose_id": {"pose_id": np.full(len(train), int(val.read("pose_id")[0]))},
        "appearance_id": {"appearance_id": np.full(len(train), int(test.read("appearance_id")[0]))},
        "appearance_source": {"provenance/appearance_source": np.full(len(train), test_row)},
        "pose_source": {"provenance/pose_source": np.full(len(train), test_row)},
    }
    for name, changed in leaks.items():
        minted = HandDataset(_write_minted(tmp_path / f"{name}.h5", source, **changed))
        with pytest.raises(InputError, match=name):
            check_leaks([train, minted], test, val)
    with pytest.raises(InputError, match="share their group"):
        check_leaks([HandDataset(source)], test, val)
    other = HandDataset(write_toy(tmp_path / "other.h5", 20, size=32), split="test")
    with pytest.raises(InputError, match="group"):
        check_leaks([HandDataset(source, rows=np.arange(40))], other, val)


def test_models_trained_on_a_file_that_nobody_gave_are_named(tmp_path: Path) -> None:
    source = HandDataset(write_toy(tmp_path / "real.h5", 12, size=32))
    minted = HandDataset(_write_minted(tmp_path / "minted.h5", source.path))
    assert unknown_training(minted, [source]) == [], "a file without a record says nothing"
    minted.attrs |= {"disentangler_data_checksum": source.checksum, "checker_data_checksum": "another"}
    assert unknown_training(minted, [source]) == ["checker"]


def _config(folder: Path, **changed: Any) -> GainConfig:
    settings: dict[str, Any] = dict(
        real=folder / "real.h5",
        minted=folder / "minted.h5",
        seeds=2,
        steps=4,
        batch_size=4,
        checkpoints=2,
        replicates=200,
    )
    return GainConfig(**{**settings, **changed})


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GainResult]:
    folder = tmp_path_factory.mktemp("gain")
    write_toy(folder / "real.h5", 14, size=32)
    _write_minted(folder / "minted.h5", folder / "real.h5")
    return folder, measure_gain(_config(folder, real_is_rendered=True), folder / "pose", workers=1)


def test_gain_json_is_as_the_contract_says(experiment: tuple[Path, GainResult]) -> None:
    folder, result = experiment
    figures = json.loads((folder / "pose" / "gain.json").read_text())
    assert figures == json.loads(json.dumps(result.figures))
    assert list(figures["arms"]) == ["real", "real+albumentations", "real+minted", "real+minted+albumentations"]
    assert set(figures["gain"]) == {"metric", "mean", "ci95", "n_seeds"} and figures["gain"]["n_seeds"] == 2
    low, high = figures["gain"]["ci95"]
    assert low <= figures["gain"]["mean"] <= high
    base, candidate = (
        figures["arms"][arm]["epe_mean_px"] for arm in ("real+albumentations", "real+minted+albumentations")
    )
    assert figures["gain"]["mean"] == pytest.approx(100 * (1 - candidate / base), rel=1e-5)
    assert [point["poses"] for point in figures["curve"]] == [10]
    assert "plays real" in figures["first_line"]
    assert not (folder / "pose.partial").exists()


def test_seeds_start_from_the_same_weights_in_each_arm(experiment: tuple[Path, GainResult]) -> None:
    """After training arms differ; what they share is the seed: two arms of one seed, trained for zero steps, are
    equal.
    """
    weights = []
    for _ in ARMS:
        torch.manual_seed(5)
        weights.append(make_estimator(Recipe("unet"), (32, 32), 1).state_dict())
    assert all(torch.equal(weights[0][k], other[k]) for other in weights for k in other)
    folder, _ = experiment
    assert len(list((folder / "pose" / "runs" / "all").glob("*/seed-*/model.safetensors"))) == 8


def test_report_is_one_file_that_loads_nothing(experiment: tuple[Path, GainResult]) -> None:
    page = (experiment[0] / "pose" / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page) and "http" not in page
    assert page.index("plays real") < page.index("<h1>"), "what the data is comes first"
    assert page.count("data:image/png;base64,") >= 4
    for arm in ARMS:
        assert arm.name in page
    assert f"{experiment[1].figures['gain']['mean']:+.1f} %" in page


def test_a_finished_experiment_is_not_repeated_and_another_is_not_overwritten(
    experiment: tuple[Path, GainResult],
) -> None:
    folder, result = experiment
    before = (folder / "pose" / "report.html").stat().st_mtime_ns
    assert measure_gain(_config(folder, real_is_rendered=True), folder / "pose", workers=1).figures == json.loads(
        json.dumps(result.figures)
    )
    assert (folder / "pose" / "report.html").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="--overwrite"):
        measure_gain(_config(folder, steps=5), folder / "pose", workers=1)


def test_an_interrupted_experiment_goes_on_to_the_same_figures(
    experiment: tuple[Path, GainResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    import handaug.augment.gain as gain

    folder, result = experiment
    trained: list[tuple[str, int]] = []
    true_train = train_run

    def stop_at_the_fourth(path: Path, arm: Any, number: int, *args: Any, **kwargs: Any) -> None:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append((arm.name, number))
        true_train(path, arm, number, *args, **kwargs)

    monkeypatch.setattr(gain, "train_run", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        measure_gain(_config(folder, real_is_rendered=True), folder / "again", workers=1)
    monkeypatch.undo()
    assert (folder / "again.partial").is_dir() and not (folder / "again").exists()
    done = {path: path.stat().st_mtime_ns for path in (folder / "again.partial" / "runs").rglob("model.safetensors")}
    assert len(done) == 3
    again = measure_gain(_config(folder, real_is_rendered=True), folder / "again", workers=2)
    assert again.figures == result.figures
    for path, written in done.items():
        final = folder / "again" / path.relative_to(folder / "again.partial")
        assert final.stat().st_mtime_ns == written, "a run that ended is not run again"


@pytest.mark.parametrize(
    ("changed", "flag"),
    [
        ({"seeds": 0}, "--seeds"),
        ({"steps": 0}, "--steps"),
        ({"steps": 1}, "--steps"),
        ({"minted_fraction": 0.0}, "--minted-fraction"),
        ({"minted_fraction": 1.5}, "--minted-fraction"),
        ({"label_budgets": "x"}, "--label-budgets"),
        ({"weight_scale": 0.0}, "--weight-scale"),
        ({"lr": 0.0}, "--lr"),
        ({"arms": "real+nothing"}, "--arms"),
        ({"arms": "renders"}, "--renders"),
        ({"arms": "real+unchecked"}, "--unchecked"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, changed: dict[str, Any], flag: str) -> None:
    with pytest.raises(InputError, match=re.escape(flag)):
        _config(tmp_path, **changed)


def test_bad_data_and_estimators_are_refused(experiment: tuple[Path, GainResult], tmp_path: Path) -> None:
    folder, _ = experiment
    write_toy(tmp_path / "small.h5", 14, size=16)
    with pytest.raises(InputError, match="16 x 16"):
        measure_gain(_config(folder, test=tmp_path / "small.h5"), tmp_path / "pose", workers=1)
    with pytest.raises(InputError, match="no such file"):
        measure_gain(_config(folder, minted=tmp_path / "none.h5"), tmp_path / "pose", workers=1)
    with pytest.raises(InputError, match="--estimator"):
        measure_gain(_config(folder, estimator="nonsense"), tmp_path / "pose", workers=1)
    with pytest.raises(InputError, match="cannot be imported"):
        measure_gain(_config(folder, estimator="no.such:thing"), tmp_path / "pose", workers=1)
    with pytest.raises(InputError, match="loss"):
        measure_gain(_config(folder, estimator="torch.nn:Identity"), tmp_path / "pose", workers=1)
    with pytest.raises(InputError, match="--label-budgets 11"):
        measure_gain(_config(folder, label_budgets="11"), tmp_path / "pose", workers=1)
    with h5py.File(folder / "real.h5") as file:
        assert file.attrs["complete"], "sources stay untouched"


def test_a_small_budget_makes_everything_from_its_own_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Networks trained for seconds draw no hand; tests/test_remix.py tests the rule about empty images.
    far = np.float32(1e4)
    monkeypatch.setattr(Checkers, "of_empty_images", lambda self, k, images: np.full((len(images), 21, 2), far))
    source = write_toy(tmp_path / "real.h5", 20, size=32)
    _write_minted(tmp_path / "minted.h5", source)
    config = _config(
        tmp_path,
        label_budgets="6,all",
        seeds=1,
        steps=2,
        checker=CheckerConfig(steps=60, batch_size=8),
        disentangle=DisentangleConfig(steps=30, batch_size=8, width=4),
    )
    figures = measure_gain(config, tmp_path / "pose", workers=1).figures
    assert [point["poses"] for point in figures["curve"]] == [6, 14]
    place = tmp_path / "pose" / "budget-000006"
    subset, minted = HandDataset(place / "real.h5"), HandDataset(place / "minted.h5")
    assert len(np.unique(subset.read("pose_id"))) == 6 and set(subset.read("split")) == {0}
    assert set(minted.read("pose_id")) <= set(subset.read("pose_id"))
    assert set(minted.read("appearance_id")) <= set(subset.read("appearance_id"))
    for attribute in (
        "pose_source_checksum",
        "appearance_source_checksum",
        "disentangler_data_checksum",
        "checker_data_checksum",
    ):
        assert minted.attrs[attribute] == subset.checksum
    assert toy_arrays(20, size=32)["pose_id"].max() == 19


def test_minted_data_that_owe_no_label_serve_every_budget(tmp_path: Path) -> None:
    real = write_toy(tmp_path / "real.h5", 20, size=32)
    renders = HandDataset(write_toy(tmp_path / "renders.h5", 20, size=32, seed=9))
    path = _write_minted(tmp_path / "minted.h5", renders.path)
    sources = {"pose_source_checksum", "disentangler_data_checksum", "checker_data_checksum"}
    for owing in (*sources, None):
        minted = HandDataset(path)
        minted.attrs |= dict.fromkeys(sources - {owing}, renders.checksum)
        if owing:
            minted.attrs[owing] = HandDataset(real).checksum
        assert owes_labels(minted, HandDataset(real)) is bool(owing)
    assert owes_labels(HandDataset(path), HandDataset(real)), "does not say what its models were trained on"
    with h5py.File(path, "r+") as file:
        file.attrs.update(dict.fromkeys(sources, renders.checksum))
    figures = measure_gain(
        _config(tmp_path, label_budgets="6,all", seeds=1, steps=2), tmp_path / "pose", workers=1
    ).figures
    assert [point["minted_rows"] for point in figures["curve"]] == [len(HandDataset(path))] * 2
    assert [entry.name for entry in (tmp_path / "pose" / "budget-000006").iterdir()] == ["real.h5"]


def test_further_arms_are_named_with_or_without_albumentations() -> None:
    assert [arm.name for arm in parse_further("minted, real+renders,minted+albumentations")] == [
        "real+renders+albumentations",
        "minted+albumentations",
    ]
    assert parse_further("") == ()


def test_renders_and_minted_rows_together_are_set_against_renders_alone(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "real.h5", 20, size=32)
    _write_minted(tmp_path / "minted.h5", source)
    renders = write_toy(tmp_path / "renders.h5", 20, size=32, seed=9)
    config = _config(tmp_path, renders=renders, arms="real+renders,real+renders+minted", seeds=1, steps=2)
    data = open_data(config)
    both = next(arm for arm in config.all_arms if arm.extra == ("renders", "minted"))
    rows = data.pool(data.extra(both, data.minted), build_estimator("compact", size=(32, 32), channels=1))
    assert len(rows) == len(HandDataset(renders, split="train")) + len(data.minted)
    pairs = [
        (c["candidate"], c["baseline"]) for c in measure_gain(config, tmp_path / "o", workers=1).figures["comparisons"]
    ]
    assert ("real+renders+minted+albumentations", "real+renders+albumentations") in pairs
    assert len(pairs) == 5


def test_an_arm_without_real_rows_sees_none(tmp_path: Path) -> None:
    real = RowPool([HandDataset(write_toy(tmp_path / "real.h5", 12, size=32), split="train")])
    other = RowPool([HandDataset(write_toy(tmp_path / "other.h5", 12, size=32, seed=9))])
    points = next(training_batches(real, batch_size=8, seed=4, minted=other, minted_fraction=1.0))[1]
    known = {tuple(row) for row in other.keypoints_2d[:, 0].tolist()}
    assert all(tuple(row) in known for row in points[:, 0].tolist())


def test_weights_follow_the_label_error_and_stay_with_their_rows(tmp_path: Path) -> None:
    source = write_toy(tmp_path / "real.h5", 12, size=32)
    real = RowPool([HandDataset(source, split="train")])
    error = np.linspace(0, 8, len(real)).astype(np.float32)
    path = _write_minted(tmp_path / "minted.h5", source, **{"provenance/label_error_px": error})
    minted = RowPool([HandDataset(path)], weight_scale=2.0)
    assert minted.weights is not None and minted.weights[0] == 1.0
    assert np.interp(2.0, error, minted.weights) == pytest.approx(0.5, abs=0.02), "half at the scale"
    batches = training_batches(real, batch_size=6, seed=0, minted=minted, transform=TrainTransform("light"))
    for _ in range(4):
        images, _, _, weights = next(batches)  # type: ignore[misc]
        assert weights[3:].tolist() == [1.0] * 3 and (weights[:3] < 1.0).any() and len(images) == 6
    assert len(next(training_batches(real, batch_size=4, seed=0))) == 3, "nobody is told of weights that are not in use"


def test_turning_and_mirroring_a_picture_turns_and_mirrors_3d(tmp_path: Path) -> None:
    """A weak camera (depth the same for all joints): pixels relative to the wrist are metres times f / z, always."""
    pool = RowPool([HandDataset(write_toy(tmp_path / "real.h5", 12, size=32), split="train")], spatial=True)
    batch = next(training_batches(pool, batch_size=16, seed=0, transform=TrainTransform("standard", flips=True)))
    points, spatial = batch[1].numpy(), batch[4].numpy()  # type: ignore[misc]
    pixels, metres = points - points[:, :1], spatial[..., :2]
    scale = (pixels * metres).sum((1, 2)) / (metres**2).sum((1, 2))
    assert np.abs(pixels - scale[:, None, None] * metres).max() < 0.05
    assert np.ptp(scale) > 10, "the transform did scale"
    assert not spatial[:, 0].any()
    write_toy(tmp_path / "flat.h5", 4, size=32)
    with h5py.File(tmp_path / "flat.h5", "a") as file:
        del file["keypoints_3d"]
    with pytest.raises(InputError, match="has no keypoints_3d"):
        RowPool([HandDataset(tmp_path / "flat.h5")], spatial=True)


@pytest.fixture(scope="module")
def further(experiment: tuple[Path, GainResult]) -> tuple[Path, dict[str, Any]]:
    """Every further arm, a 3D estimator, weighted minted rows."""
    folder, _ = experiment
    write_toy(folder / "renders.h5", 14, size=32, seed=5)
    with h5py.File(folder / "renders.h5", "a") as file:  # other poses than those of the real file
        for name in ("group", "pose_id"):
            file[name][:] = file[name][:] + 1000
    _write_minted(folder / "unchecked.h5", folder / "real.h5")
    config = _config(
        folder,
        renders=folder / "renders.h5",
        unchecked=folder / "unchecked.h5",
        arms="real+renders,renders,minted,real+unchecked",
        estimator="compact-3d",
        width=4,
        seeds=1,
        weight_scale=1.0,
    )
    return folder, measure_gain(config, folder / "further", workers=1).figures


def test_further_arms_are_measured_in_2d_and_3d(further: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = further
    assert len(figures["arms"]) == 8 and len(figures["comparisons"]) == 8
    for arm in figures["arms"].values():
        assert arm["epe_mean_mm"] > 0 and arm["pa_mpjpe_mm"] > 0 and len(arm["per_joint_px"]) == 21
    for pair in figures["comparisons"]:
        errors = [figures["arms"][pair[role]]["epe_mean_px"] for role in ("baseline", "candidate")]
        assert pair["mean"] == pytest.approx(100 * (1 - errors[1] / errors[0]), rel=1e-5)
    page = (folder / "further" / "report.html").read_text()
    assert "Further comparisons" in page and "PA-MPJPE" in page and "real+unchecked+albumentations" in page
    run = folder / "further" / "runs" / "all" / "renders+albumentations" / "seed-0"
    seen = safetensors.numpy.load_file(run / "seen.safetensors")
    assert (seen["group"] >= 1000).all(), "an arm of renders alone has seen no real row"


def test_a_checkpoint_goes_on_unless_it_saw_the_test(further: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = further
    run = folder / "further" / "runs" / "all"
    config = _config(folder, estimator=str(run / "real" / "seed-0"), seeds=1, steps=2)
    result = measure_gain(config, tmp_path / "on", workers=1)
    assert "go on from the checkpoint seed-0." in result.figures["first_line"]
    other = HandDataset(folder / "renders.h5")
    with h5py.File(folder / "real.h5") as file:
        test = np.flatnonzero(file["split"][:] == 2)
    leak = tmp_path / "leak"
    shutil.copytree(run / "real" / "seed-0", leak)
    write_seen(leak, [HandDataset(folder / "real.h5", rows=test[:1]), other], None)
    with pytest.raises(InputError, match="share their group with .* test rows"):
        measure_gain(_config(folder, estimator=str(leak), seeds=1, steps=2), tmp_path / "refused", workers=1)
    (leak / "seen.safetensors").unlink()
    told = measure_gain(_config(folder, estimator=str(leak), seeds=1, steps=2), tmp_path / "unknown", workers=1)
    assert "keeps no record" in told.figures["first_line"]
    write_toy(tmp_path / "large.h5", 14, size=48)
    _write_minted(tmp_path / "large_minted.h5", tmp_path / "large.h5")
    wrong = _config(folder, real=tmp_path / "large.h5", minted=tmp_path / "large_minted.h5", estimator=str(leak))
    with pytest.raises(InputError, match="takes 32x32 px"):
        measure_gain(wrong, tmp_path / "wrong", workers=1)


def test_an_estimator_of_the_users_own_goes_all_the_way(experiment: tuple[Path, GainResult], tmp_path: Path) -> None:
    folder, _ = experiment
    for name in ("good", "spatial"):
        config = _config(folder, estimator=f"outside_estimators:{name}", seeds=1, steps=2, weight_scale=1.0)
        figures = measure_gain(config, tmp_path / name, workers=1).figures
        assert ("epe_mean_mm" in figures["arms"]["real"]) == (name == "spatial")

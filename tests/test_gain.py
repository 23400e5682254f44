"""The gain experiment: the bootstrap against closed forms, equal orders in all arms, leaks, budgets, and a small real
run.
"""

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from toy import toy_arrays, write_toy

from handaug.augment.batches import RowPool, training_batches
from handaug.augment.bootstrap import ErrorSums, relative_gain
from handaug.augment.budgets import parse_budgets, pose_order
from handaug.augment.checker import CheckerConfig, Checkers
from handaug.augment.gain import GainConfig, GainResult, measure_gain
from handaug.augment.gain_runs import ARMS, make_estimator, train_run
from handaug.augment.leaks import check_leaks
from handaug.augment.transforms import TrainTransform
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.writer import DatasetWriter
from handaug.models.disentangle.config import DisentangleConfig


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
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, want.tolist()))[: len(seen)] or len(pool) % 4 == 0
    again = training_batches(pool, batch_size=4, seed=0, transform=TrainTransform("light"))
    third = training_batches(pool, batch_size=4, seed=0, transform=TrainTransform("light"))
    assert torch.equal(next(again)[0], next(third)[0])


def test_budgets_are_parsed_nested_and_refused(tmp_path: Path) -> None:
    assert parse_budgets("all, 500,100,100") == [100, 500, None]
    for bad in ("", "0", "1", "-5", "many", "1.5"):
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
    return folder, measure_gain(_config(folder, real_is_rendered=True), folder / "pose")


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
        weights.append(make_estimator("unet", (32, 32), 1).state_dict())
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
    assert measure_gain(_config(folder, real_is_rendered=True), folder / "pose").figures == json.loads(
        json.dumps(result.figures)
    )
    assert (folder / "pose" / "report.html").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="--overwrite"):
        measure_gain(_config(folder, steps=5), folder / "pose")


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
        measure_gain(_config(folder, real_is_rendered=True), folder / "again")
    monkeypatch.undo()
    assert (folder / "again.partial").is_dir() and not (folder / "again").exists()
    done = {path: path.stat().st_mtime_ns for path in (folder / "again.partial" / "runs").rglob("model.safetensors")}
    assert len(done) == 3
    again = measure_gain(_config(folder, real_is_rendered=True), folder / "again")
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
    ],
)
def test_bad_options_are_refused(tmp_path: Path, changed: dict[str, Any], flag: str) -> None:
    with pytest.raises(InputError, match=re.escape(flag)):
        _config(tmp_path, **changed)


def test_bad_data_and_estimators_are_refused(experiment: tuple[Path, GainResult], tmp_path: Path) -> None:
    folder, _ = experiment
    write_toy(tmp_path / "small.h5", 14, size=16)
    with pytest.raises(InputError, match="16 x 16"):
        measure_gain(_config(folder, test=tmp_path / "small.h5"), tmp_path / "pose")
    with pytest.raises(InputError, match="no such file"):
        measure_gain(_config(folder, minted=tmp_path / "none.h5"), tmp_path / "pose")
    with pytest.raises(InputError, match="--estimator"):
        measure_gain(_config(folder, estimator="nonsense"), tmp_path / "pose")
    with pytest.raises(InputError, match="cannot be imported"):
        measure_gain(_config(folder, estimator="no.such:thing"), tmp_path / "pose")
    with pytest.raises(InputError, match="loss"):
        measure_gain(_config(folder, estimator="torch.nn:Identity"), tmp_path / "pose")
    with pytest.raises(InputError, match="--label-budgets 11"):
        measure_gain(_config(folder, label_budgets="11"), tmp_path / "pose")
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
    figures = measure_gain(config, tmp_path / "pose").figures
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

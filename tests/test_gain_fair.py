"""What a gain experiment holds equal, and what it refuses before it trains: arms, shares, budgets and labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from toy import write_minted, write_toy

from handaug.augment import budgets, gain, gain_runs
from handaug.augment.batches import RowPool
from handaug.augment.budgets import check_budgets, owes_labels, pose_order
from handaug.augment.gain import GainConfig, measure_gain
from handaug.augment.gain_runs import BASELINE, CANDIDATE
from handaug.augment.report import ReportData, _gain_curve
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.models.seen import write_seen


def _config(folder: Path, **changed: Any) -> GainConfig:
    settings: dict[str, Any] = dict(
        real=folder / "real.h5", minted=folder / "minted.h5", seeds=1, steps=(2,), batch_size=8, checkpoints=1
    )
    return GainConfig(**{**settings, "replicates": 200, **changed})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A real file of right hands, and rows minted from it."""
    write_minted(tmp_path / "minted.h5", write_toy(tmp_path / "real.h5", 20, size=32))
    return tmp_path


def _set(path: Path, **fields: Any) -> None:
    """Change values of a file."""
    with h5py.File(path, "r+") as file:
        for name, value in fields.items():
            file[name][:] = value


def _first_batches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What each arm trains on in its first step."""
    seen: dict[str, Any] = {}

    def spy(estimator: Any, batches: Callable[[int], Any], *, label: str, **_: Any) -> None:
        seen[label.removesuffix(", seed 0, 2 steps")] = next(iter(batches(0)))
        if len(seen) == 4:
            raise KeyboardInterrupt
        raise _NextError

    class _NextError(Exception):
        pass

    def train(*args: Any) -> None:
        try:
            gain_runs.train_run(*args)
        except _NextError:
            pass

    monkeypatch.setattr(gain_runs, "fit_estimator", spy)
    monkeypatch.setattr(gain, "train_run", train)
    with pytest.raises(KeyboardInterrupt):
        measure_gain(_config(folder), folder / "pose", workers=1)
    return seen


@pytest.mark.parametrize("real_hands", [1, 2])
def test_arms_mirror_the_same_real_rows(folder: Path, monkeypatch: pytest.MonkeyPatch, real_hands: int) -> None:
    """Whatever hands the minted rows show."""
    for name in ("real.h5", "minted.h5"):
        with h5py.File(folder / name, "r+") as file:
            both = np.arange(len(file["handedness"])) % 2
            file["handedness"][:] = both if (name == "real.h5") == (real_hands == 2) else 1
    seen = _first_batches(folder, monkeypatch)
    assert set(seen) == {"real", BASELINE, "real+minted", CANDIDATE}
    for one, other in ((BASELINE, CANDIDATE), ("real", "real+minted")):
        assert all(torch.equal(a[2:], b[2:]) for a, b in zip(seen[one], seen[other], strict=True))


def test_a_budget_above_the_data_is_refused_before_anything_is_trained(folder: Path) -> None:
    with pytest.raises(InputError, match="--label-budgets 15: .* has 14 train poses"):
        measure_gain(_config(folder, label_budgets="6,15"), folder / "pose", workers=1)
    assert not (folder / "pose.partial").exists(), "the corrected command meets no run of another configuration"


def test_minted_rows_without_3d_are_refused_before_anything_is_trained(folder: Path) -> None:
    with h5py.File(folder / "minted.h5", "r+") as file:
        del file["keypoints_3d"]
    with pytest.raises(InputError, match="minted.h5: has no keypoints_3d"):
        measure_gain(_config(folder, estimator="compact-3d", width=4), folder / "pose", workers=1)
    assert not (folder / "pose.partial").exists()


@pytest.mark.filterwarnings("error:Mean of empty slice")
def test_one_test_group_with_one_label_makes_a_whole_report(folder: Path) -> None:
    """One labelled joint has no box, rows without labels no error, and one group with one seed no spread."""
    with h5py.File(folder / "real.h5", "r+") as file:
        test = np.flatnonzero(file["split"][:] == 2)
        visibility = file["visibility"][:]
        visibility[test] = 0
        visibility[test[0], 5] = 2
        file["visibility"][:] = visibility
    config = _config(folder, estimator="compact-3d", width=4)
    figures = measure_gain(config, folder / "pose", workers=1).figures
    text = (folder / "pose" / "gain.json").read_text()
    assert "NaN" not in text and "epe_mean_px" in figures["arms"]["real"]
    assert not {"epe_mean_box", "epe_mean_mm"} & set(figures["arms"]["real"])
    assert "nan" not in (folder / "pose" / "report.html").read_text().split("<img")[0]
    for point in (figures["gain"], figures["gain_plain"]):
        assert point["ci95"] == pytest.approx([point["mean"]] * 2)
    curve = [{**figures["curve"][0], "gain": {**figures["gain"], "mean": 1.0, "ci95": [1.0 + 1e-12] * 2}}] * 2
    shown = ReportData({**figures, "curve": curve}, {}, {}, RowPool([HandDataset(config.real)]), config.minted)
    assert "img" in _gain_curve(shown), "a mean beside its interval, by rounding"


def test_labels_beyond_a_budget_come_in_by_no_side_door(folder: Path) -> None:
    """A cut of the source has another checksum; its poses tell."""
    real, minted = HandDataset(folder / "real.h5", split="train"), HandDataset(folder / "minted.h5")
    sources = ("pose_source_checksum", "disentangler_data_checksum", "checker_data_checksum")
    minted.attrs |= dict.fromkeys(sources, "of the file that this one was cut from")
    assert owes_labels(minted, real, None)
    check_budgets([6, 14, None], real, None, None, 0)
    rank, _ = pose_order(real, 0)
    inside, beyond = (HandDataset(real.path, rows=real.rows[which]) for which in (rank < 6, rank >= 6))
    check_budgets([6, 14, None], real, inside, None, 0)
    with pytest.raises(InputError, match="--label-budgets 6: .* beyond the budget"):
        check_budgets([6, 14, None], real, beyond, None, 0)
    write_seen(folder / "start", [beyond], None)
    with pytest.raises(InputError, match="start: was trained on rows .* train .beyond --label-budgets 6"):
        check_budgets([6], real, None, folder / "start", 0)
    check_budgets([14], real, beyond, folder / "start", 0)


def test_figures_and_report_are_those_of_the_budget_that_is_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "owes_labels", lambda minted, real, renders: False)
    shown: list[ReportData] = []
    monkeypatch.setattr(gain, "write_gain_report", lambda path, data: shown.append(data))
    figures = measure_gain(_config(folder, label_budgets="6"), folder / "pose", workers=1).figures
    budget = HandDataset(folder / "pose" / "budget-000006" / "real.h5")
    assert figures["data"]["train_rows"] == len(budget) < len(HandDataset(folder / "real.h5", split="train"))
    assert figures["data"]["train_poses"] == 6 and shown[0].minted == folder / "minted.h5"

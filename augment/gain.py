"""The gain experiment: does minted data make a pose estimator better, beyond what ordinary augmentation does?

Four arms, {real, real + minted} x {plain, albumentations}, differ in one thing each (`handaug.augment.gain_runs`);
the headline compares minted + albumentations with albumentations alone on test rows that nothing has seen, opened
once after all runs have ended. The interval comes from a bootstrap over seeds and test groups
(`handaug.augment.bootstrap`). At a label budget of B poses, disentangler, checker and minted data are made from these
B poses alone (`handaug.augment.budgets`).
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.augment.batches import RowPool, training_batches
from handaug.augment.bootstrap import ErrorSums, Gain, relative_gain
from handaug.augment.budgets import BudgetData, make_budget_data, parse_budgets
from handaug.augment.checker import CheckerConfig
from handaug.augment.gain_runs import ARMS, Arm, Training, make_estimator, predict_run, train_run, validation_of
from handaug.augment.leaks import check_fits, check_leaks
from handaug.augment.report import ReportData, write_gain_report
from handaug.augment.transforms import TrainTransform
from handaug.data_specs.errors import InputError
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.writer import replace_atomically
from handaug.models.disentangle.config import DisentangleConfig
from handaug.models.fit import fit_estimator
from handaug.models.metrics import KeypointMetrics, keypoint_distances
from handaug.models.run_folder import RunFolder

__all__ = ["METRIC", "GainConfig", "GainResult", "default_training", "measure_gain"]

METRIC = "reduction of the mean joint error (EPE in px, joints with visibility >= 1) against real+albumentations, %"
_TIMED_STEPS = 4
_PLAIN_METRIC = (
    "reduction of the mean joint error (EPE in px, joints with visibility >= 1) of real+minted against real, %"
)


def default_training(device: str, estimator: str) -> dict[str, Any]:
    """Width and steps of a bare command: what two cores do at 64 px in about twenty minutes for all runs, more on a
    GPU.

    A narrow U-Net that has seen its data twenty times is worth more in that time than a wide one that has seen it
    five times.
    """
    if device.startswith("cuda"):
        return {"steps": 4000, "width": None}
    return {"steps": 800, "width": 16 if estimator == "unet" else None}


@dataclass(frozen=True)
class GainConfig:
    """The experiment."""

    real: Path
    """Labelled data whose train split all arms share and whose val split chooses checkpoints (--real)."""
    minted: Path
    """Minted data (--minted)."""
    test: Path | None = None
    """Data whose test split measures (--test); that of `real` by default."""
    renders: Path | None = None
    """Rendered data whose train split joins the real rows in every arm (--renders)."""
    estimator: str = "unet"
    """Registry name or module:factory (--estimator)."""
    width: int | None = None
    """Channels of a registered estimator's first level; its own default if None."""
    seeds: int = 3
    """Seeds of each arm (--seeds)."""
    steps: int = 800
    """Optimiser steps of each run (--steps)."""
    batch_size: int = 64
    """Rows in a step."""
    lr: float = 2e-3
    """Learning rate, the same in every arm."""
    checkpoints: int = 5
    """Checkpoints of which each run keeps the best on validation."""
    minted_fraction: float = 0.5
    """Share of the batch that minted rows take (--minted-fraction)."""
    label_budgets: str = "all"
    """Comma-separated numbers of poses, or all (--label-budgets)."""
    seed: int = 0
    """Of everything (--seed)."""
    replicates: int = 4000
    """Bootstrap draws."""
    real_is_rendered: bool = False
    """No real labels were given: the renders play real, and the report says so."""
    demo: bool = False
    """A run too small to prove a gain; the report says so."""
    checker: CheckerConfig = field(default_factory=CheckerConfig)
    """Checkers of the smaller budgets."""
    disentangle: DisentangleConfig | None = None
    """Disentanglers of the smaller budgets; sized for device and data by default."""

    def __post_init__(self) -> None:
        for name, flag in (("seeds", "--seeds"), ("steps", "--steps"), ("batch_size", "--batch-size")):
            if getattr(self, name) < 1:
                raise InputError(f"{flag} {getattr(self, name)}: give a number of at least 1")
        if not 0 < self.minted_fraction <= 1:
            raise InputError(f"--minted-fraction {self.minted_fraction}: give a share above 0 and up to 1")
        if self.checkpoints > self.steps:
            raise InputError(f"--steps {self.steps}: train at least {self.checkpoints} steps, one for each checkpoint")
        parse_budgets(self.label_budgets)


@dataclass(frozen=True)
class GainResult:
    """What came of it."""

    folder: Path
    """Holds gain.json, report.html and the runs."""
    figures: dict[str, Any]
    """Content of gain.json."""

    def lines(self) -> list[str]:
        """Summary for a terminal."""
        gain = self.figures["gain"]
        low, high = gain["ci95"]
        out = [self.figures["first_line"]]
        out += [f"{name}: {arm['epe_mean_px']:.3f} px" for name, arm in self.figures["arms"].items()]
        out.append(
            f"gain {gain['mean']:+.1f} % (95 % interval {low:+.1f} to {high:+.1f}, {gain['n_seeds']} seeds): "
            f"{gain['metric']}"
        )
        out.append(f"{self.folder / 'gain.json'}, {self.folder / 'report.html'}")
        return out


@dataclass(frozen=True)
class _Opened:
    """The data, checked; images are read when they are needed."""

    real: HandDataset
    validation: HandDataset
    test: HandDataset
    minted: HandDataset
    renders: HandDataset | None


def _open(config: GainConfig) -> _Opened:
    test = config.test or config.real
    opened = _Opened(
        real=HandDataset(config.real, split="train"),
        validation=HandDataset(config.real, split="val"),
        test=HandDataset(test, split="test"),
        minted=HandDataset(config.minted),
        renders=HandDataset(config.renders, split="train") if config.renders else None,
    )
    for data, what, flag in (
        (opened.real, "train", "--real"),
        (opened.validation, "val", "--real"),
        (opened.test, "test", "--test"),
    ):
        if not len(data) or not (data.read("visibility") > 0).any():
            raise InputError(f"{data.path}: has no labelled rows in its {what} split; give {flag} data that has")
    if not len(opened.minted):
        raise InputError(f"{config.minted}: has no rows; mint some with 'handaug remix'")
    training = [opened.minted, *([opened.renders] if opened.renders else [])]
    for data in (opened.test, *training):
        check_fits(data, opened.real)
    check_leaks([opened.real, *training], opened.test, opened.validation)
    return opened


def _identity(config: GainConfig, data: _Opened) -> dict[str, Any]:
    """What makes the experiment what it is; paths are no part of it."""
    settings = asdict(config)
    for name in ("real", "minted", "test", "renders"):
        settings.pop(name)
    settings["disentangle"] = config.disentangle.to_json() if config.disentangle else None
    return {
        "command": "train-pose",
        **settings,
        "real_checksum": data.real.checksum,
        "minted_checksum": data.minted.checksum,
        "test_checksum": data.test.checksum,
        "renders_checksum": data.renders.checksum if data.renders else None,
    }


def measure_gain(
    config: GainConfig, out: Path, *, device: str = "cpu", progress: Progress = SILENT, overwrite: bool = False
) -> GainResult:
    """Run the experiment.

    Args:
        config: What is compared.
        out: Folder for gain.json, report.html and the runs; each run that ended is not run again after an interruption.
        device: Where to train.
        progress: Told of the runs.
        overwrite: Whether an experiment of another config may be replaced.

    Returns:
        The figures; those of the existing folder where it is complete.

    Raises:
        InputError: The data does not fit together, a training row is related to a test row, or an option is wrong.
    """
    data = _open(config)
    make_estimator(config.estimator, data.real.size, data.real.channels, config.width)
    budgets = parse_budgets(config.label_budgets)
    run = RunFolder.open(out, _identity(config, data), overwrite=overwrite)
    if run is None:
        progress.note(f"{out}: complete, nothing to do")
        return GainResult(out, json.loads((out / "gain.json").read_text()))
    with run:
        training = Training(
            config.estimator,
            config.steps,
            config.batch_size,
            config.lr,
            config.checkpoints,
            config.minted_fraction,
            config.width,
            device,
        )
        _expect(config, data, budgets, device, progress)
        made = [
            make_budget_data(
                budget,
                data.real,
                data.minted,
                run.folder,
                seed=config.seed,
                checker=config.checker,
                disentangle=config.disentangle,
                device=device,
                progress=progress,
            )
            for budget in budgets
        ]
        _train_all(config, training, made, data, run.folder, progress)
        figures, shown = _measure_all(config, made, data, run.folder, device, progress)
        _write_json(run.folder / "gain.json", figures)
        write_gain_report(run.folder / "report.html", shown)
        run.finish()
    return GainResult(out, figures)


def _expect(config: GainConfig, data: _Opened, budgets: Sequence[int | None], device: str, progress: Progress) -> None:
    """Say how long it will take, from a few steps that are timed and thrown away."""
    estimator = make_estimator(config.estimator, data.real.size, data.real.channels, config.width)
    flips = TrainTransform("standard", flips=True)
    batches = training_batches(RowPool([data.real]), batch_size=config.batch_size, seed=0, transform=flips)
    fit_estimator(estimator, batches, steps=1, checkpoints=1, validate=None, device=device)
    start = time.perf_counter()
    fit_estimator(estimator, batches, steps=_TIMED_STEPS, checkpoints=1, validate=None, device=device)
    each = (time.perf_counter() - start) / _TIMED_STEPS
    runs = len(budgets) * config.seeds * len(ARMS)
    more = ", and what it takes to mint for the smaller budgets" if len(budgets) > 1 else ""
    progress.note(
        f"train-pose: {runs} runs of {config.steps} steps on {device}, about "
        f"{1.1 * runs * config.steps * each / 60:.0f} min{more}"
    )


def _train_all(
    config: GainConfig, training: Training, made: Sequence[BudgetData], data: _Opened, folder: Path, progress: Progress
) -> None:
    validation = RowPool([data.validation])
    total = len(made) * config.seeds * len(ARMS)
    with progress.task("train-pose", total, "runs") as advance:
        for budget in made:
            real = RowPool([budget.real, *([data.renders] if data.renders else [])])
            minted = RowPool([budget.minted])
            for number in range(config.seeds):
                for arm in ARMS:
                    train_run(
                        _run_folder(folder, budget, arm, number),
                        arm,
                        number,
                        config.seed,
                        training,
                        real=real,
                        minted=minted,
                        validation=validation,
                        progress=progress,
                    )
                    advance(1)


def _run_folder(folder: Path, budget: BudgetData, arm: Arm, number: int) -> Path:
    return folder / "runs" / budget.name / arm.name / f"seed-{number}"


def _measure_all(
    config: GainConfig, made: Sequence[BudgetData], data: _Opened, folder: Path, device: str, progress: Progress
) -> tuple[dict[str, Any], ReportData]:
    """Open the test rows, once, for every stored run."""
    test = RowPool([data.test])
    groups = data.test.read("group")
    curve: list[dict[str, Any]] = []
    shown: tuple[dict[str, Any], dict[str, NDArray[np.float64]], dict[str, NDArray[np.float32]]] | None = None
    with progress.task("test", len(made) * len(ARMS) * config.seeds, "runs") as advance:
        for budget in made:
            predicted: dict[str, NDArray[np.float32]] = {}
            arms: dict[str, Any] = {}
            for arm in ARMS:
                folders = [_run_folder(folder, budget, arm, k) for k in range(config.seeds)]
                found = []
                for path in folders:
                    found.append(predict_run(path, test, device))
                    advance(1)
                predicted[arm.name] = np.stack(found)
                arms[arm.name] = _arm_figures(predicted[arm.name], test, [validation_of(path) for path in folders])
            errors = {
                name: np.stack([keypoint_distances(one, test.keypoints_2d, test.visibility) for one in points])
                for name, points in predicted.items()
            }
            sums = {name: ErrorSums.of(values, groups) for name, values in errors.items()}
            headline = relative_gain(
                sums["real+albumentations"],
                sums["real+minted+albumentations"],
                replicates=config.replicates,
                seed=config.seed,
            )
            plain = relative_gain(sums["real"], sums["real+minted"], replicates=config.replicates, seed=config.seed)
            point: dict[str, Any] = {
                "budget": budget.name,
                "poses": budget.poses,
                "minted_rows": len(budget.minted),
                "gain": _gain_json(headline, METRIC),
                "gain_plain": _gain_json(plain, _PLAIN_METRIC),
                "arms": arms,
            }
            curve.append(point)
            if shown is None or budget.poses >= shown[0]["poses"]:
                shown = (point, errors, predicted)
    assert shown is not None, "there is at least one budget"
    best, shown_errors, shown_predicted = shown
    figures = {
        "first_line": _first_line(config, data),
        "arms": best["arms"],
        "gain": best["gain"],
        "gain_plain": best["gain_plain"],
        "curve": [{**p, "arms": {name: arm["epe_mean_px"] for name, arm in p["arms"].items()}} for p in curve],
        "data": {
            "train_rows": len(data.real),
            "train_poses": best["poses"],
            "validation_rows": len(data.validation),
            "test_rows": len(data.test),
            "test_groups": len(np.unique(groups)),
            "minted_rows": best["minted_rows"],
        },
        "config": _identity(config, data),
    }
    return figures, ReportData(figures, shown_errors, shown_predicted, test, config.minted)


def _gain_json(gain: Gain, metric: str) -> dict[str, Any]:
    return {"metric": metric, "mean": gain.mean, "ci95": list(gain.ci95), "n_seeds": gain.n_seeds}


def _arm_figures(
    predicted: NDArray[np.float32], test: RowPool, validation: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """Every 2D figure of an arm: mean over its seeds, and each seed's."""
    per_seed = []
    for points in predicted:
        metrics = KeypointMetrics()
        metrics.update(points, test.keypoints_2d, test.visibility)
        per_seed.append(metrics.compute())
    mean = {name: float(np.mean([one[name] for one in per_seed])) for name in per_seed[0]}
    return {**mean, "n_seeds": len(per_seed), "per_seed": per_seed, "validation_px": [list(v) for v in validation]}


def _first_line(config: GainConfig, data: _Opened) -> str:
    """What the figures are about, before anybody reads a number."""
    line = (
        "No real labels were given: the train split of the renders plays real, and test rows are renders too."
        if config.real_is_rendered
        else f"Real data: {data.real.path.name}; test data: {data.test.path.name}."
    )
    if config.demo:
        line += " This is a demonstration: its size proves that the machinery works, not that there is a gain."
    return line


def _write_json(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    replace_atomically(temporary, path)

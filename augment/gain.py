"""The gain experiment: does minted data make a pose estimator better, beyond what ordinary augmentation does?

Four arms, {real, real + minted} x {plain, albumentations}, differ in one thing each (`handaug.augment.gain_runs`);
the headline compares minted + albumentations with albumentations alone on test rows that nothing has seen, opened
once after all runs have ended. Further arms are measured beside them on demand. The interval comes from a bootstrap
over seeds and test groups (`handaug.augment.bootstrap`). At a label budget of B poses, no other label of the real data
is behind the minted ones (`handaug.augment.budgets`).
"""

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from handaug.augment.batches import RowPool, TrainingBatches
from handaug.augment.budgets import BudgetData, check_budgets, make_budget_data, owes_labels, parse_budgets
from handaug.augment.gain_config import (
    GainConfig,
    GainData,
    check_start,
    default_training,
    identity,
    open_data,
)
from handaug.augment.gain_measure import METRIC, measure_runs, run_folder
from handaug.augment.gain_runs import Training, make_estimator, train_run
from handaug.augment.leaks import unknown_training
from handaug.augment.parallel import one_thread, run_trainings, side_by_side
from handaug.augment.prefetch import makers
from handaug.augment.report import name_seeds, write_gain_report
from handaug.augment.transforms import TrainTransform
from handaug.data_specs.errors import HandaugError, InputError
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.writer import write_atomically
from handaug.models.estimators import Estimator
from handaug.models.estimators.plugins import named_failures
from handaug.models.fit import fit_estimator
from handaug.models.run_folder import RunFolder

__all__ = ["METRIC", "GainConfig", "GainResult", "default_training", "measure_gain"]

_TIMED_STEPS = 4


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
        for name, arm in self.figures["arms"].items():
            length = f", best on validation with {arm['steps']:,} steps" if "by_steps" in self.figures else ""
            out.append(f"{name}: {arm['epe_mean_px']:.3f} px{length}")
        out.append(
            f"gain {gain['mean']:+.1f} % (95 % interval {low:+.1f} to {high:+.1f}, {name_seeds(gain['n_seeds'])}): "
            f"{gain['metric']}"
        )
        mse = self.figures["gain_mse"]
        out.append("by mean square error {:+.1f} % ({:+.1f} to {:+.1f})".format(mse["mean"], *mse["ci95"]))
        for point in self.figures.get("by_steps", []):
            low, high = point["gain"]["ci95"]
            out.append(
                f"with {point['steps']:,} steps in every arm {point['gain']['mean']:+.1f} % ({low:+.1f} to {high:+.1f})"
            )
        out.append(f"{self.folder / 'gain.json'}, {self.folder / 'report.html'}")
        return out


def measure_gain(
    config: GainConfig,
    out: Path,
    *,
    device: str = "cpu",
    progress: Progress = SILENT,
    overwrite: bool = False,
    workers: int | None = None,
) -> GainResult:
    """Run the experiment.

    Args:
        config: What is compared.
        out: Folder for gain.json, report.html and the runs; each run that ended is not run again after an interruption.
        device: Where to train.
        progress: Told of the runs.
        overwrite: Whether an experiment of another config may be replaced.
        workers: Processes on a CPU, one per core by default; it changes nothing of the result.

    Returns:
        The figures; those of the existing folder where it is complete.

    Raises:
        InputError: The data does not fit together, a training row is related to a test row, or an option is wrong.
    """
    data = open_data(config)
    estimator = make_estimator(config.recipe, data.real.size, data.real.channels)
    about_start = check_start(config, data)
    beside = data.extra({name for arm in config.all_arms for name in arm.extra}, data.minted)
    data.pool([data.real, *beside], estimator)  # labels that this estimator needs are missing, or all there
    budgets = parse_budgets(config.label_budgets)
    check_budgets(budgets, data.real, data.renders, config.recipe.start, config.seed)
    run = RunFolder.open(out, identity(config, data), overwrite=overwrite)
    if run is None:
        progress.note(f"{out}: complete, nothing to do")
        return GainResult(out, _read_figures(out / "gain.json"))
    with run:
        _expect(config, data, estimator, budgets, device, progress, workers)
        made = [_data_of(budget, config, data, run.folder, device, progress, workers) for budget in budgets]
        _train_all(config, estimator, made, data, run.folder, device, progress, workers)
        figures, shown = measure_runs(
            config,
            made,
            data,
            run.folder,
            first_line=_first_line(config, data) + about_start,
            device=device,
            progress=progress,
        )
        _write_json(run.folder / "gain.json", figures)
        write_gain_report(run.folder / "report.html", shown)
        run.finish()
    return GainResult(out, figures)


def _data_of(
    budget: int | None,
    config: GainConfig,
    data: GainData,
    folder: Path,
    device: str,
    progress: Progress,
    workers: int | None,
) -> BudgetData:
    """The data of one budget; what it fails of names the budget, since the others may do without it."""
    try:
        return make_budget_data(
            budget,
            data.real,
            data.minted,
            folder,
            renders=data.renders,
            seed=config.seed,
            checker=config.checker,
            disentangle=config.disentangle,
            device=device,
            progress=progress,
            workers=workers,
        )
    except HandaugError as error:
        raise type(error)(f"--label-budgets {budget}: {error}") from error


def _expect(
    config: GainConfig,
    data: GainData,
    estimator: Estimator,
    budgets: Sequence[int | None],
    device: str,
    progress: Progress,
    workers: int | None,
) -> None:
    """Say how long it will take, from a few steps that are timed and thrown away."""
    pool, flips = data.pool([data.real], estimator), TrainTransform("standard", flips=True)
    batches = TrainingBatches(pool, batch_size=config.batch_size, seed=0, transform=flips)
    fit = partial(fit_estimator, estimator, checkpoints=1, validate=None, device=device, precision=config.precision)
    beside = makers(device)
    with one_thread() if device == "cpu" else nullcontext(), named_failures(estimator):
        fit(batches, steps=1)
        start = time.perf_counter()
        made = [batches.of_step(step) for step in range(_TIMED_STEPS)]
        making = (time.perf_counter() - start) / _TIMED_STEPS
        start = time.perf_counter()
        fit(lambda _: made, steps=_TIMED_STEPS)
        learning = (time.perf_counter() - start) / _TIMED_STEPS
    each = max(learning, making / beside) if beside else learning + making
    arms = sum(len(config.arms_of("all" if budget is None else str(budget))) for budget in budgets)
    runs, steps = config.seeds * arms * len(config.steps), config.seeds * arms * sum(config.steps)
    lengths = " or ".join(f"{length:,}" for length in config.steps)
    mints = any(budget is not None for budget in budgets) and owes_labels(data.minted, data.real, data.renders)
    more = ", and what it takes to mint for the smaller budgets" if mints else ""
    progress.note(
        f"train-pose: {runs} runs of {lengths} steps on {device}, about "
        f"{1.1 * steps * each / side_by_side(runs, device, workers) / 60:.0f} min{more}"
    )


def _train_all(
    config: GainConfig,
    estimator: Estimator,
    made: Sequence[BudgetData],
    data: GainData,
    folder: Path,
    device: str,
    progress: Progress,
    workers: int | None,
) -> None:
    """Train every arm with every seed at every budget; `estimator` only tells which labels are read."""
    both_hands = RowPool([data.real]).both_hands
    training = {
        steps: Training(
            config.recipe,
            steps,
            config.batch_size,
            config.lr,
            config.checkpoints,
            config.minted_fraction,
            device,
            both_hands,
            config.precision,
        )
        for steps in config.steps
    }
    validation = RowPool([data.validation])
    trainings, total = [], 0
    for budget in made:
        real = data.pool([budget.real], estimator)
        arms = config.arms_of(budget.name)
        extras = {arm.extra: data.extra(arm.extra, budget.minted) for arm in arms}
        pools = {
            names: data.pool(rows, estimator, config.weight_scale) if rows else None for names, rows in extras.items()
        }
        for number, arm, steps in product(range(config.seeds), arms, config.steps):
            total += steps
            trainings.append(
                partial(
                    train_run,
                    run_folder(config, folder, budget, arm, steps, number),
                    arm,
                    number,
                    config.seed,
                    training[steps],
                    real,
                    pools[arm.extra],
                    validation,
                    [*([] if arm.alone else [budget.real]), *extras[arm.extra]],
                )
            )
    run_trainings(
        trainings,
        steps=total,
        label=f"{len(trainings)} runs",
        device=device,
        progress=progress,
        workers=workers,
    )


def _first_line(config: GainConfig, data: GainData) -> str:
    """What the figures are about, before anybody reads a number."""
    line = f"Real data: {data.real.path.name}; test data: {data.test.path.name}."
    if data.real.kind == "rendered":
        where = "test rows are renders too" if data.test.kind == "rendered" else f"tests are of {data.test.path.name}"
        line = f"No real labels were given: the train split of {data.real.path.name}, renders, plays real, and {where}."
    known = [data.real, data.test, *([data.renders] if data.renders else [])]
    unknown = unknown_training(data.minted, known)
    if unknown:
        line += (
            f" The {' and the '.join(unknown)} of {data.minted.path.name} learned from a file that is none of these: "
            "that they saw no test row has not been checked."
        )
    if config.demo:
        line += " This is a demonstration: its size proves that the machinery works, not that there is a gain."
    return line


def _read_figures(path: Path) -> dict[str, Any]:
    try:
        figures: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is missing or damaged; add --overwrite to run the experiment again") from error
    return figures


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())

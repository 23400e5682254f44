"""Opening the test rows, once, for every stored run of a gain experiment: figures of the arms, gains, the curve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.augment.batches import RowPool
from handaug.augment.bootstrap import ErrorSums, relative_gain
from handaug.augment.budgets import BudgetData
from handaug.augment.gain_config import GainConfig, GainData, identity
from handaug.augment.gain_runs import BASELINE, CANDIDATE, Arm, predict_run, validation_of
from handaug.augment.report import ReportData
from handaug.data_specs.progress import Progress
from handaug.data_specs.reader import HandDataset
from handaug.models.estimators.predict import Prediction
from handaug.models.metrics import (
    KeypointMetrics,
    KeypointMetrics3D,
    error_by_joint,
    error_by_visibility,
    keypoint_distances,
)

__all__ = ["METRIC", "best_length", "measure_runs", "run_folder"]

METRIC = "reduction of the mean joint error (EPE in px, joints with visibility >= 1) against real+albumentations, %"
_OF = "reduction of the mean joint error (EPE in px, joints with visibility >= 1) of {} against {}, %"
_SQUARE = "reduction of the mean square joint error (px^2, joints with visibility >= 1) against real+albumentations, %"


def run_folder(config: GainConfig, folder: Path, budget: BudgetData, arm: Arm, steps: int, number: int) -> Path:
    """Where the run of an arm with a seed is stored; of several lengths each has its folder."""
    length = (f"steps-{steps}",) if len(config.steps) > 1 else ()
    return folder.joinpath("runs", budget.name, arm.name, *length, f"seed-{number}")


def measure_runs(
    config: GainConfig,
    made: Sequence[BudgetData],
    data: GainData,
    folder: Path,
    *,
    first_line: str,
    device: str,
    progress: Progress,
) -> tuple[dict[str, Any], ReportData]:
    """Measure every stored run on the test rows.

    Args:
        config: The experiment.
        made: The data of each label budget.
        data: The data.
        folder: Holds the runs.
        first_line: What the figures are about.
        device: Where to compute.
        progress: Told of the runs.

    Returns:
        Content of gain.json, and what the report shows.
    """
    test = RowPool([data.test])
    groups = data.test.read("group")
    curve: list[dict[str, Any]] = []
    shown: _Shown | None = None
    total = config.seeds * len(config.steps) * sum(len(config.arms_of(budget.name)) for budget in made)
    with progress.task("test", total, "runs") as advance:

        def predict(path: Path) -> Prediction:
            found = predict_run(path, config.recipe, test, device)
            advance(1)
            return found

        for budget in made:
            predicted: dict[str, NDArray[np.float32]] = {}
            arms: dict[str, Any] = {}
            at_length: dict[int, dict[str, NDArray[np.float64]]] = {steps: {} for steps in config.steps}
            for arm in config.arms_of(budget.name):
                runs = {
                    steps: [run_folder(config, folder, budget, arm, steps, k) for k in range(config.seeds)]
                    for steps in config.steps
                }
                validation = {steps: [validation_of(path) for path in runs[steps]] for steps in config.steps}
                best = best_length(validation)
                for steps in config.steps:
                    found = [predict(path) for path in runs[steps]]
                    points = np.stack([one.keypoints for one in found])
                    at_length[steps][arm.name] = np.stack(
                        [keypoint_distances(one, test.keypoints_2d, test.visibility) for one in points]
                    )
                    if steps == best:
                        predicted[arm.name] = points
                        arms[arm.name] = {"steps": steps, **_arm_figures(found, test, data.test, validation[steps])}
            errors = {name: at_length[arm["steps"]][name] for name, arm in arms.items()}
            point = _point(config, budget, arms, errors, groups)
            if len(config.steps) > 1:
                point["steps"] = {name: arm["steps"] for name, arm in arms.items()}
                point["by_steps"] = [_equal_steps(config, steps, at_length[steps], groups) for steps in config.steps]
            curve.append(point)
            if shown is None or budget.poses >= shown.budget.poses:
                shown = _Shown(budget, point, errors, predicted)
    assert shown is not None, "there is at least one budget"
    largest = shown.point
    figures = {
        "first_line": first_line,
        "arms": largest["arms"],
        "gain": largest["gain"],
        "gain_plain": largest["gain_plain"],
        "gain_mse": largest["gain_mse"],
        "comparisons": largest["comparisons"],
        **({"by_steps": largest["by_steps"]} if "by_steps" in largest else {}),
        "curve": [{**p, "arms": {name: arm["epe_mean_px"] for name, arm in p["arms"].items()}} for p in curve],
        "data": {
            "train_rows": len(shown.budget.real),
            "train_poses": largest["poses"],
            "validation_rows": len(data.validation),
            "test_rows": len(data.test),
            "test_groups": len(np.unique(groups)),
            "minted_rows": largest["minted_rows"],
            **({"renders_rows": len(data.renders)} if data.renders else {}),
            **({"unchecked_rows": len(data.unchecked)} if data.unchecked else {}),
        },
        "config": identity(config, data),
    }
    return figures, ReportData(figures, shown.errors, shown.predicted, test, shown.budget.minted.path)


def best_length(validation: Mapping[int, Sequence[Sequence[float]]]) -> int:
    """The number of steps of the lowest validation error: of each seed its best checkpoint, in the mean over seeds.

    Args:
        validation: Of each length the validation errors (seeds, checkpoints); the shorter of two equal ones is taken.
    """
    return min(sorted(validation), key=lambda steps: float(np.mean([min(seed) for seed in validation[steps]])))


@dataclass(frozen=True)
class _Shown:
    """The largest budget, which the report shows."""

    budget: BudgetData
    point: dict[str, Any]
    errors: dict[str, NDArray[np.float64]]
    """Of each arm."""
    predicted: dict[str, NDArray[np.float32]]


_BEYOND_RENDERS = ("real+renders+minted+albumentations", "real+renders+albumentations")
"""What minted rows add where renders are used already."""


def _point(
    config: GainConfig,
    budget: BudgetData,
    arms: dict[str, Any],
    errors: dict[str, NDArray[np.float64]],
    groups: NDArray[np.int64],
) -> dict[str, Any]:
    """Everything about one budget; each arm with albumentations is also set against the baseline."""

    sums = {name: ErrorSums.of(values, groups) for name, values in errors.items()}
    squares = {name: ErrorSums.of(errors[name] ** 2, groups) for name in (BASELINE, CANDIDATE)}

    def gain(candidate: str, baseline: str, metric: str, of: dict[str, ErrorSums] = sums) -> dict[str, Any]:
        return _gain(config, of[candidate], of[baseline], metric)

    others = [name for name in arms if name.endswith("+albumentations") and name not in (BASELINE, CANDIDATE)]
    pairs = [*((name, BASELINE) for name in others), *((CANDIDATE, name) for name in others)]
    if set(_BEYOND_RENDERS) <= set(arms):
        pairs.append(_BEYOND_RENDERS)
    return {
        "budget": budget.name,
        "poses": budget.poses,
        "minted_rows": len(budget.minted),
        "gain": gain(CANDIDATE, BASELINE, METRIC),
        "gain_plain": gain("real+minted", "real", _OF.format("real+minted", "real")),
        "gain_mse": gain(CANDIDATE, BASELINE, _SQUARE, squares),
        "comparisons": [
            {"candidate": one, "baseline": other, **gain(one, other, _OF.format(one, other))} for one, other in pairs
        ],
        "arms": arms,
    }


def _equal_steps(
    config: GainConfig, steps: int, errors: dict[str, NDArray[np.float64]], groups: NDArray[np.int64]
) -> dict[str, Any]:
    """The headline's gain where all arms have been trained for the same number of steps."""
    baseline, candidate = (ErrorSums.of(errors[name], groups) for name in (BASELINE, CANDIDATE))
    return {
        "steps": steps,
        "gain": _gain(config, candidate, baseline, METRIC),
        "arms": {name: float(np.nanmean(values)) for name, values in errors.items()},
    }


def _gain(config: GainConfig, candidate: ErrorSums, baseline: ErrorSums, metric: str) -> dict[str, Any]:
    found = relative_gain(baseline, candidate, replicates=config.replicates, seed=config.seed)
    return {"metric": metric, "mean": found.mean, "ci95": list(found.ci95), "n_seeds": found.n_seeds}


def _arm_figures(
    found: Sequence[Prediction], test: RowPool, rows: HandDataset, validation: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """Every figure of an arm: mean over its seeds, and each seed's; errors by joint and visibility over all seeds."""
    per_seed, distances = [], []
    for one in found:
        flat = KeypointMetrics()
        flat.update(one.keypoints, test.keypoints_2d, test.visibility)
        figures = flat.compute()
        if one.keypoints_3d is not None and rows.has("keypoints_3d"):
            spatial = KeypointMetrics3D()
            spatial.update(one.keypoints_3d, rows.read("keypoints_3d"), test.visibility)
            figures |= spatial.compute()
        per_seed.append(figures)
        distances.append(flat.distances())
    # A figure that the test rows' labels do not give is NaN, which JSON does not know.
    per_seed = [{name: value for name, value in one.items() if np.isfinite(value)} for one in per_seed]
    mean = {name: float(np.mean([one[name] for one in per_seed])) for name in per_seed[0]}
    all_errors = np.concatenate(distances)
    return {
        **mean,
        "n_seeds": len(per_seed),
        "per_joint_px": error_by_joint(all_errors),
        "per_visibility_px": error_by_visibility(all_errors, np.tile(test.visibility, (len(found), 1))),
        "per_seed": per_seed,
        "validation_px": [list(v) for v in validation],
    }

"""The gain experiment: options, arms, budgets, and small real runs that are stopped, gone on with and reported."""

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
from toy import toy_arrays, write_minted, write_toy

from handaug.augment import gain_config
from handaug.augment.budgets import owes_labels, parse_budgets, pose_order
from handaug.augment.checker import CheckerConfig, Checkers
from handaug.augment.gain import GainConfig, GainResult, measure_gain
from handaug.augment.gain_config import open_data, parse_steps
from handaug.augment.gain_measure import best_length
from handaug.augment.gain_runs import ARMS, Recipe, make_estimator, parse_further, train_run
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.models.disentangle.config import DisentangleConfig
from handaug.models.estimators import build_estimator
from handaug.models.seen import write_seen


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


@pytest.mark.parametrize("checked", [True, False])
def test_checked_and_unchecked_minted_rows_are_not_confused(tmp_path: Path, checked: bool) -> None:
    real = write_toy(tmp_path / "real.h5", 24, size=32)
    files = {True: write_minted(tmp_path / "checked.h5", real), False: write_minted(tmp_path / "all.h5", real)}
    for says, path in files.items():
        with h5py.File(path, "r+") as file:
            file.attrs["label_checked"] = says
    right = GainConfig(real, files[True], unchecked=files[False], arms="real+unchecked")
    open_data(right)
    wrong = replace(right, minted=files[False]) if checked else replace(right, unchecked=files[True])
    with pytest.raises(InputError, match="--minted .*all.h5" if checked else "--unchecked .*checked.h5"):
        open_data(wrong)
    with h5py.File(files[checked], "r+") as file:
        file.attrs["seed"] = 99
    with pytest.raises(InputError, match=r"--unchecked .*all.h5: has another seed than .* in more than the check"):
        open_data(right)


def _config(folder: Path, **changed: Any) -> GainConfig:
    settings: dict[str, Any] = dict(
        real=folder / "real.h5",
        minted=folder / "minted.h5",
        seeds=2,
        steps=(4,),
        batch_size=4,
        checkpoints=2,
        replicates=200,
    )
    return GainConfig(**{**settings, **changed})


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GainResult]:
    folder = tmp_path_factory.mktemp("gain")
    write_toy(folder / "real.h5", 14, size=32)
    write_minted(folder / "minted.h5", folder / "real.h5")
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
    base, candidate = (
        figures["arms"][arm]["mse_mean_square_px2"] for arm in ("real+albumentations", "real+minted+albumentations")
    )
    assert figures["gain_mse"]["mean"] == pytest.approx(100 * (1 - candidate / base), rel=1e-5)
    assert [point["poses"] for point in figures["curve"]] == [10]
    assert "plays real" in figures["first_line"]
    assert not (folder / "pose.partial").exists()


def test_each_arm_counts_at_the_length_that_is_best_for_it_on_validation(
    experiment: tuple[Path, GainResult], tmp_path: Path
) -> None:
    """Every length is measured as the experiment of that length alone is."""
    folder, alone = experiment
    config = _config(folder, real_is_rendered=True, steps=(2, 4, 16))
    result = measure_gain(config, tmp_path / "pose", workers=1)
    figures = json.loads((tmp_path / "pose" / "gain.json").read_text())
    chosen, lines = set(), result.lines()
    for name, arm in figures["arms"].items():
        errors = {
            steps: np.mean(
                [
                    min(json.loads((run / "config.json").read_text())["info"]["validation_px"])
                    for run in sorted((tmp_path / "pose" / "runs" / "all" / name / f"steps-{steps}").glob("seed-*"))
                ]
            )
            for steps in config.steps
        }
        assert arm["steps"] == min(errors, key=lambda steps: float(errors[steps]))
        chosen.add(arm["steps"])
        assert any(line.startswith(f"{name}: ") and line.endswith(f"{arm['steps']} steps") for line in lines)
    assert chosen - {2}, "the experiment must choose among lengths"
    assert [point["steps"] for point in figures["by_steps"]] == figures["config"]["steps"] == [2, 4, 16]
    assert alone.figures["config"]["steps"] == 4, "as it was before there could be several"
    of_four = figures["by_steps"][1]
    assert of_four["gain"] == alone.figures["gain"]
    stood_alone = {name: arm["epe_mean_px"] for name, arm in alone.figures["arms"].items()}
    assert of_four["arms"] == pytest.approx(stood_alone, rel=1e-9)
    page = (tmp_path / "pose" / "report.html").read_text()
    assert "<h2>Lengths</h2>" in page and "<h2>Lengths</h2>" not in (folder / "pose" / "report.html").read_text()
    assert figures["curve"][0]["steps"] == {name: arm["steps"] for name, arm in figures["arms"].items()}


@pytest.mark.parametrize(("text", "steps"), [("4000,1000", (1000, 4000)), (" 7 ", (7,)), ("x", None), ("5,,6", None)])
def test_lengths_are_read_in_any_order(text: str, steps: tuple[int, ...] | None) -> None:
    if steps is None:
        with pytest.raises(InputError, match=f"--steps {text}: give a number, or several"):
            parse_steps(text)
    else:
        assert parse_steps(text) == steps


def test_the_best_length_is_by_the_mean_over_seeds_of_their_best_checkpoints() -> None:
    assert best_length({10: [[5.0, 4.0], [5.0, 6.0]], 20: [[9.0, 3.0], [9.0, 5.5]]}) == 20
    assert best_length({20: [[4.0], [4.0]], 10: [[3.0], [5.0]]}) == 10, "the shorter of two equal ones"


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
    assert '<meta name="viewport"' in page and page.count('auto"><table') == page.count("<table")
    for arm in ARMS:
        assert arm.name in page
    for name in ("gain", "gain_plain", "gain_mse"):
        assert f"{experiment[1].figures[name]['mean']:+.1f} %" in page


def test_a_finished_experiment_is_not_repeated_and_another_is_not_overwritten(
    experiment: tuple[Path, GainResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result = experiment
    before = (folder / "pose" / "report.html").stat().st_mtime_ns
    assert measure_gain(_config(folder, real_is_rendered=True), folder / "pose", workers=1).figures == json.loads(
        json.dumps(result.figures)
    )
    assert (folder / "pose" / "report.html").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="--overwrite"):
        measure_gain(_config(folder, steps=(5,)), folder / "pose", workers=1)
    assert [each["__class_fullname__"] for each in result.figures["config"]["albumentations"]][0] == "Affine"
    monkeypatch.setattr(gain_config, "named_transforms", lambda strength: [{"__class_fullname__": "Rain"}])
    with pytest.raises(InputError, match="--overwrite"):  # its arms would have learned from other transforms
        measure_gain(_config(folder, real_is_rendered=True), folder / "pose", workers=1)


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
        ({"steps": (0,)}, "--steps 0"),
        ({"steps": (1,)}, "--steps 1"),
        ({"steps": (8, 4)}, "--steps 8,4: give different numbers in rising order"),
        ({"steps": ()}, "--steps : give different"),
        ({"minted_fraction": 0.0}, "--minted-fraction"),
        ({"minted_fraction": 1.5}, "--minted-fraction"),
        ({"minted_fraction": 0.03, "batch_size": 16}, "--minted-fraction 0.03: is no row of --batch-size 16"),
        ({"minted_fraction": 0.97, "batch_size": 16}, "--minted-fraction 0.97: leaves no other row of --batch-size 16"),
        ({"batch_size": 1}, "--minted-fraction"),
        ({"label_budgets": "x"}, "--label-budgets"),
        *(({"weight_scale": scale}, f"--weight-scale {scale}") for scale in (0.0, -1.0, 1e-200, 1e200, np.inf)),
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
    write_minted(tmp_path / "minted.h5", source)
    config = _config(
        tmp_path,
        label_budgets="6,all",
        seeds=1,
        steps=(2,),
        checker=CheckerConfig(width=8, steps=60, batch_size=8),
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
    write_toy(tmp_path / "renders.h5", 20, size=32, seed=9)
    with h5py.File(tmp_path / "renders.h5", "r+") as file:  # other poses than those of the real file
        for name in ("group", "pose_id"):
            file[name][:] = file[name][:] + 1000
    renders = HandDataset(tmp_path / "renders.h5")
    path = write_minted(tmp_path / "minted.h5", renders.path)
    sources = {"pose_source_checksum", "disentangler_data_checksum", "checker_data_checksum"}
    for owing in (*sources, None):
        minted = HandDataset(path)
        minted.attrs |= dict.fromkeys(sources - {owing}, renders.checksum)
        if owing:
            minted.attrs[owing] = HandDataset(real).checksum
        assert owes_labels(minted, HandDataset(real), None) is bool(owing)
    minted.attrs["checker_data_checksum"] = "of another file"
    assert owes_labels(minted, HandDataset(real), renders), "it may be a copy of the real one"
    minted.attrs |= dict.fromkeys(sources, renders.checksum)
    minted.attrs["pose_source_checksum"] = "of more renders"
    assert not owes_labels(minted, HandDataset(real), renders) and owes_labels(minted, HandDataset(real), None)
    minted.attrs["appearance_source_checksum"] = HandDataset(real).checksum
    assert owes_labels(minted, HandDataset(real), renders), "mixes were compared with their lenders' labels"
    assert owes_labels(HandDataset(path), HandDataset(real), None), "does not say what its models were trained on"
    free = Path(shutil.copy(path, tmp_path / "free.h5"))
    with h5py.File(free, "r+") as file:
        file.attrs.update(dict.fromkeys(sources, renders.checksum))
    config = _config(tmp_path, minted=free, label_budgets="6,all", seeds=1, steps=(2,))
    figures = measure_gain(config, tmp_path / "pose", workers=1).figures
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
    write_minted(tmp_path / "minted.h5", source)
    renders = write_toy(tmp_path / "renders.h5", 20, size=32, seed=9)
    config = _config(tmp_path, renders=renders, arms="real+renders,real+renders+minted", seeds=1, steps=(2,))
    data = open_data(config)
    both = next(arm for arm in config.all_arms if arm.extra == ("renders", "minted"))
    rows = data.pool(data.extra(both.extra, data.minted), build_estimator("compact", size=(32, 32), channels=1))
    assert len(rows) == len(HandDataset(renders, split="train")) + len(data.minted)
    pairs = [
        (c["candidate"], c["baseline"]) for c in measure_gain(config, tmp_path / "o", workers=1).figures["comparisons"]
    ]
    assert ("real+renders+minted+albumentations", "real+renders+albumentations") in pairs
    assert len(pairs) == 5


@pytest.fixture(scope="module")
def further(experiment: tuple[Path, GainResult]) -> tuple[Path, dict[str, Any]]:
    """Every further arm, a 3D estimator, weighted minted rows."""
    folder, _ = experiment
    write_toy(folder / "renders.h5", 14, size=32, seed=5)
    with h5py.File(folder / "renders.h5", "a") as file:  # other poses than those of the real file
        for name in ("group", "pose_id"):
            file[name][:] = file[name][:] + 1000
    write_minted(folder / "unchecked.h5", folder / "real.h5")
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
    config = _config(folder, estimator=str(run / "real" / "seed-0"), seeds=1, steps=(2,))
    result = measure_gain(config, tmp_path / "on", workers=1)
    assert "go on from the checkpoint seed-0." in result.figures["first_line"]
    other = HandDataset(folder / "renders.h5")
    with h5py.File(folder / "real.h5") as file:
        test = np.flatnonzero(file["split"][:] == 2)
    leak = tmp_path / "leak"
    shutil.copytree(run / "real" / "seed-0", leak)
    write_seen(leak, [HandDataset(folder / "real.h5", rows=test[:1]), other], None)
    with pytest.raises(InputError, match="share their group or pose with .* test rows"):
        measure_gain(_config(folder, estimator=str(leak), seeds=1, steps=(2,)), tmp_path / "refused", workers=1)
    (leak / "seen.safetensors").unlink()
    told = measure_gain(_config(folder, estimator=str(leak), seeds=1, steps=(2,)), tmp_path / "unknown", workers=1)
    assert "keeps no record" in told.figures["first_line"]
    write_toy(tmp_path / "large.h5", 14, size=48)
    write_minted(tmp_path / "large_minted.h5", tmp_path / "large.h5")
    wrong = _config(folder, real=tmp_path / "large.h5", minted=tmp_path / "large_minted.h5", estimator=str(leak))
    with pytest.raises(InputError, match="takes 32x32 px"):
        measure_gain(wrong, tmp_path / "wrong", workers=1)


def test_an_estimator_of_the_users_own_goes_all_the_way(experiment: tuple[Path, GainResult], tmp_path: Path) -> None:
    folder, _ = experiment
    for name in ("good", "spatial"):
        config = _config(folder, estimator=f"outside_estimators:{name}", seeds=1, steps=(2,), weight_scale=1.0)
        figures = measure_gain(config, tmp_path / name, workers=1).figures
        assert ("epe_mean_mm" in figures["arms"]["real"]) == (name == "spatial")
    trained = tmp_path / "good" / "runs" / "all" / "real" / "seed-0"
    with pytest.raises(InputError, match="if you trust that code, give --trust outside_estimators:good"):
        measure_gain(_config(folder, estimator=str(trained)), tmp_path / "on", workers=1)
    config = _config(folder, estimator=str(trained), trust="outside_estimators:good", seeds=1, steps=(2,))
    assert "go on from" in measure_gain(config, tmp_path / "on", workers=1).figures["first_line"]
    with pytest.raises(InputError, match="--trust .*is no checkpoint"):
        _config(folder, trust="outside_estimators:good")

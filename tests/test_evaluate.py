"""`handaug evaluate` and `handaug export-onnx` on stored estimators, 2D and 3D, ours and the user's own."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from toy import write_toy

from handaug.cli.evaluate import command as evaluate
from handaug.cli.export_onnx import command as export
from handaug.cli.main import main
from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.joints import JOINTS
from handaug.data_specs.progress import SILENT
from handaug.data_specs.reader import HandDataset
from handaug.models import export_onnx as exporter
from handaug.models.estimators import build_estimator, estimator_names, load_estimator, save_estimator
from handaug.models.estimators.predict import predict
from handaug.models.evaluate import evaluate_checkpoint
from handaug.models.export_onnx import TOLERANCE, export_onnx
from handaug.models.seen import write_seen

OWN = "outside_estimators:good"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("data") / "toy.h5", 20, size=32)


def _store(folder: Path, name: str, size: int = 32, **settings: Any) -> Path:
    torch.manual_seed(0)
    save_estimator(folder, build_estimator(name, size=(size, size), channels=1, **settings), {})
    return folder


def test_figures_are_those_of_the_predictions_in_2d_and_3d(data: Path, tmp_path: Path) -> None:
    checkpoint = _store(tmp_path / "run", "compact-3d", width=4)
    rows = HandDataset(data, split="test")
    figures = evaluate_checkpoint(checkpoint, rows)
    found = predict(load_estimator(checkpoint)[0], rows.read("images"))
    errors = np.linalg.norm(found.keypoints - rows.read("keypoints_2d"), axis=-1)
    assert figures["rows"] == len(rows) == 6 and figures["joints"] == errors.size
    assert figures["epe_mean_px"] == pytest.approx(errors.mean(), rel=1e-5)
    assert list(figures["per_joint_px"]) == list(JOINTS)
    assert figures["per_visibility_px"] == {"visible": pytest.approx(errors.mean(), rel=1e-5)}
    true = rows.read("keypoints_3d")
    assert found.keypoints_3d is not None
    spatial = 1000 * np.linalg.norm((found.keypoints_3d - (true - true[:, :1]))[:, 1:], axis=-1)
    assert figures["epe_mean_mm"] == pytest.approx(spatial.mean(), rel=1e-4)
    assert list(figures["per_joint_mm"]) == list(JOINTS[1:])
    assert figures["pck"]["mm"]["thresholds"][-1] == 50 and figures["pck"]["px"]["thresholds"] == list(range(31))
    assert figures["pck"]["px"]["share"][10] == pytest.approx((errors <= 10).mean())
    flat = evaluate_checkpoint(_store(tmp_path / "flat", "compact", width=4), rows)
    assert "epe_mean_mm" not in flat and "mm" not in flat["pck"]


def test_command_prints_json_or_lines_and_asks_before_it_imports(data: Path, tmp_path: Path) -> None:
    own = str(_store(tmp_path / "own", OWN))
    told = CliRunner().invoke(evaluate, [own, str(data), "--json", "--device", "cpu", "--estimator", OWN])
    assert told.exit_code == 0, told.output
    figures = json.loads(told.stdout)
    assert figures["rows"] == 6 and figures["checkpoint"] == own
    lines = CliRunner().invoke(evaluate, [own, str(data), "--device", "cpu", "--estimator", OWN]).stdout
    assert f"{'epe_mean_px':32} {figures['epe_mean_px']:.6g}" in lines and "per_joint_px.index_tip" in lines
    refused = CliRunner().invoke(evaluate, [own, str(data), "--device", "cpu"])
    assert isinstance(refused.exception, InputError) and f"give --estimator {OWN}" in str(refused.exception)


def test_an_estimator_of_ones_own_is_measured_as_it_stands(data: Path) -> None:
    """Its factory loads whatever weights it has; one that draws them draws the same each time."""
    rows = HandDataset(data, split="test")
    torch.manual_seed(3)
    figures = evaluate_checkpoint(Path(OWN), rows)
    torch.manual_seed(0)
    found = predict(build_estimator(OWN, size=(32, 32), channels=1), rows.read("images"))
    errors = np.linalg.norm(found.keypoints - rows.read("keypoints_2d"), axis=-1)
    assert figures["epe_mean_px"] == pytest.approx(errors.mean(), rel=1e-5)
    assert "rows_related_to_training" not in figures
    for name, wrong in {
        "outside_estimators:raises": "outside_estimators:raises: the factory raised",
        "no_such_module:factory": "no_such_module:factory: cannot be imported",
        "outside_estimators:imports_nothing": "outside_estimators:imports_nothing: what the factory returns lacks",
        "a/folder:of-mine": "a/folder:of-mine/config.json: no such file",
        "outside_estimators:fails_on_data": "outside_estimators:fails_on_data: raised ValueError: too dark",
        "not-there": "not-there/config.json: no such file",
    }.items():
        refused = CliRunner().invoke(evaluate, [name, str(data), "--device", "cpu"])
        assert isinstance(refused.exception, InputError) and str(refused.exception).startswith(wrong), name
    assert evaluate_checkpoint(Path("outside_estimators:engine"), rows)["rows"] == 6  # nothing to train in it
    with pytest.raises(InputError, match=f"--estimator {OWN}: .*leave the option out"):
        evaluate_checkpoint(Path(OWN), rows, trust=OWN)


def test_a_judge_of_what_draws_nothing_is_refused(data: Path, tmp_path: Path) -> None:
    flat = _store(tmp_path / "flat", "compact", width=4)
    for checkpoint in (flat, Path(OWN)):
        with pytest.raises(InputError, match="--judge .*flat: .* draws no images"):
            evaluate_checkpoint(checkpoint, HandDataset(data, split="test"), judge=flat)


def test_nan_and_foreign_sizes_are_refused(data: Path, tmp_path: Path) -> None:
    rows = HandDataset(data, split="test")
    broken = _store(tmp_path / "broken", "compact", width=4)
    estimator, _ = load_estimator(broken)
    torch.nn.init.constant_(next(estimator.parameters()), float("nan"))
    save_estimator(broken, estimator, {})
    with pytest.raises(InputError, match="gives NaN or infinity for 6 of 6 images"):
        evaluate_checkpoint(broken, rows)
    with pytest.raises(InputError, match="takes 48x48 px"):
        evaluate_checkpoint(_store(tmp_path / "large", "compact", size=48, width=4), rows)


@pytest.mark.parametrize("name", [*(name for name in estimator_names() if name != "resnet50"), OWN])
def test_onnx_computes_what_pytorch_does(name: str, tmp_path: Path) -> None:
    """Independent of the exporter's own check: other images, another batch size, the file as a user opens it."""
    checkpoint = _store(tmp_path / "run", name, **({} if name == OWN else {"width": 4}))
    estimator, _ = load_estimator(checkpoint, trust=name)
    for parameter in estimator.parameters():  # away from the initial weights, so that maps have peaks
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for images in torch.rand(20, 8, 1, 32, 32, generator=torch.Generator().manual_seed(2)):
            estimator.train()(images)  # batch statistics of these weights, without which deep networks overflow
    save_estimator(checkpoint, estimator, {})
    done = export_onnx(checkpoint, tmp_path / "hand.onnx", trust=name)
    session = onnxruntime.InferenceSession(tmp_path / "hand.onnx", providers=["CPUExecutionProvider"])
    pictures = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 1)).astype(np.uint8)
    outputs = session.run(None, {"images": (pictures / 255).astype(np.float32).transpose(0, 3, 1, 2)})
    found = predict(estimator, pictures)
    assert tuple(one.name for one in session.get_outputs()) == done.outputs
    assert session.get_inputs()[0].shape[1:] == [1, 32, 32]
    if name == "heatmap":
        maps = estimator(torch.from_numpy(pictures / 255).float().permute(0, 3, 1, 2)).detach().numpy()
        assert done.outputs == ("heatmaps",) and np.abs(outputs[0] - maps).max() < TOLERANCE
        return
    assert np.abs(outputs[0] - found.keypoints).max() < TOLERANCE * 32
    if estimator.dimensions == 3:
        assert done.outputs == ("keypoints", "keypoints_3d") and found.keypoints_3d is not None
        assert np.abs(outputs[1] - found.keypoints_3d).max() < TOLERANCE
    known = {entry.key: entry.value for entry in onnx.load(tmp_path / "hand.onnx").metadata_props}
    assert json.loads(known["joints"]) == list(JOINTS) and known["estimator"] == name


def test_nothing_is_written_that_differs_or_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = _store(tmp_path / "run", "compact", width=4)
    out = tmp_path / "hand.onnx"
    monkeypatch.setattr(exporter, "TOLERANCE", -1.0)
    with pytest.raises(WorkError, match="differs from PyTorch"):
        export_onnx(checkpoint, out)
    monkeypatch.setattr(exporter, "TOLERANCE", TOLERANCE)
    monkeypatch.setattr(exporter, "_compare", lambda *_: float("nan"))
    with pytest.raises(WorkError, match="differs from PyTorch by nan"):
        export_onnx(checkpoint, out)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    out.write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        export_onnx(checkpoint, out)
    with pytest.raises(InputError, match="no such folder"):
        export_onnx(checkpoint, tmp_path / "none" / "hand.onnx")
    monkeypatch.undo()
    session: Any = SimpleNamespace(run=lambda _, feeds: [np.full((len(feeds["images"]), 2), np.nan)])
    graph: Any = lambda images: [torch.zeros(len(images), 2)]  # noqa: E731
    assert np.isnan(exporter._compare(graph, session, build_estimator("compact", size=(32, 32), channels=1)))
    told = CliRunner().invoke(export, [str(checkpoint), str(out), "--overwrite"])
    assert told.exit_code == 0 and "keypoints; onnxruntime and PyTorch differ by at most" in told.output
    assert onnx.load(out).graph.input[0].name == "images"


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_a_folder_is_refused_before_the_checkpoint_is_read(options: list[str], tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["export-onnx", str(tmp_path / "none"), str(tmp_path), *options])
    assert told.exit_code == 2 and f"{tmp_path}: is a folder; give the name of a file to write" in told.stderr


def test_a_workspace_with_a_checker_does_not_keep_estimators_from_being_measured(data: Path, tmp_path: Path) -> None:
    _store(tmp_path / "work" / "checker" / "fold-0", "compact", width=4)
    checkpoint = _store(tmp_path / "run", "compact", width=4)
    given = [str(checkpoint), str(data), "--json", "--workspace", str(tmp_path / "work"), "--device", "cpu"]
    done = CliRunner().invoke(evaluate, given, catch_exceptions=False)
    assert done.exit_code == 0 and json.loads(done.stdout)["epe_mean_px"] > 0


def test_rows_that_an_estimator_learned_from_are_counted_and_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = (HandDataset(data, split=name) for name in ("train", "test"))
    checkpoint = _store(tmp_path / "run", "compact", width=4)
    assert "rows_related_to_training" not in evaluate_checkpoint(checkpoint, train)
    write_seen(checkpoint, [train], None)
    heard: list[str] = []
    monkeypatch.setattr(type(SILENT), "note", lambda self, text: heard.append(text))
    assert evaluate_checkpoint(checkpoint, test)["rows_related_to_training"] == 0 and not heard
    assert evaluate_checkpoint(checkpoint, train)["rows_related_to_training"] == len(train)
    assert len(heard) == 1 and f"{len(train)} of {len(train)} rows share" in heard[0]

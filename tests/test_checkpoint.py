"""Checkpoints come back as written, and anything else is one line that names the file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from handaug.data_specs import writer
from handaug.data_specs.errors import InputError
from handaug.models.checkpoint import load_model, load_state, load_weights, save_model, save_state
from handaug.models.estimators import build_estimator, load_estimator, save_estimator
from handaug.models.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "run", {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}, {"kind": "thing", "x": 1})
    return tmp_path / "run"


def test_round_trip(folder: Path) -> None:
    tensors, config = load_model(folder, "thing")
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3))
    assert config["x"] == 1
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_truncated_weights_name_their_file(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="model.safetensors: is damaged"):
        load_model(folder, "thing")


def test_a_pickle_in_place_of_weights_is_not_loaded(folder: Path) -> None:
    torch.save({"a": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(InputError, match="model.safetensors: is damaged"):
        load_model(folder, "thing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("\udcff", "cannot be read as JSON"),
        ("[1]", "not a handaug checkpoint"),
        ('{"kind": "thing"}', "not a handaug checkpoint"),
        ('{"kind": "thing", "format": 99}', "newer handaug"),
        ('{"kind": "other", "format": 1}', "holds a other, not a thing"),
    ],
)
def test_bad_configs_are_explained(folder: Path, text: str, message: str) -> None:
    (folder / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder, "thing")
    assert "config.json" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_folder_file_for_folder_and_missing_weights(folder: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_model(folder / "nowhere", "thing")
    with pytest.raises(InputError, match="is not a folder"):
        load_model(folder / "config.json", "thing")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="model.safetensors: no such file"):
        load_model(folder, "thing")


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    tensors, _ = load_model(folder, "thing")
    with pytest.raises(InputError, match="does not fit"):
        load_weights(torch.nn.Linear(2, 3), tensors, folder)
    with pytest.raises(InputError, match="weight"):
        load_weights(torch.nn.Linear(2, 3, bias=False), {"weight": torch.ones(3, 3)}, folder)


def test_a_failing_write_leaves_the_old_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(temporary: Path, final: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "replace_atomically", full_disk)
    with pytest.raises(OSError, match="model.safetensors"):
        save_model(folder, {"a": torch.zeros(1)}, {"kind": "thing"})
    assert torch.equal(load_model(folder, "thing")[0]["b"], torch.ones(4))


def test_state_round_trip_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_state(path, {"step": 7, "model": {"w": torch.ones(2)}, "sums": {"pose": 0.5}})
    state = load_state(path)
    assert state is not None and state["step"] == 7 and torch.equal(state["model"]["w"], torch.ones(2))
    path.write_bytes(path.read_bytes()[:100])
    assert load_state(path) is None
    torch.save({"step": Path("x")}, path)  # needs unpickling of a foreign class
    assert load_state(path) is None
    torch.save([1, 2], path)
    assert load_state(path) is None
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="state.pt: cannot be read"):
        load_state(path)


def test_estimator_checkpoint_with_another_size_or_name(tmp_path: Path) -> None:
    save_estimator(tmp_path, build_estimator("unet", size=(32, 32), channels=1, width=4), {"arm": "real"})
    estimator, info = load_estimator(tmp_path)
    assert info == {"arm": "real"} and estimator.size == (32, 32)
    config = json.loads((tmp_path / "config.json").read_text())
    changes: list[tuple[dict[str, Any], str]] = [
        ({"channels": 3}, "does not fit"),
        ({"estimator": "resnet"}, "holds estimator 'resnet'"),
        ({"size": "big"}, "is damaged"),
        ({"size": [30, 30]}, "30x30"),
        ({"settings": {"depth": 9}}, "is damaged"),
    ]
    for change, message in changes:
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(InputError, match=message):
            load_estimator(tmp_path)


def test_a_run_needs_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="has no name of its own; give the name of what is to be made"):
        RunFolder.open(Path(), {"seed": 0}, overwrite=False)

"""What every method of `handaug disentangle` survives: damaged and foreign checkpoints, a loss that turns NaN."""

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from test_layered import TINY as LAYERED
from tiny_dvae import tiny
from torch import nn
from toy import write_toy

from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.progress import SILENT
from handaug.data_specs.reader import HandDataset
from handaug.models.checkpoint import load_state, save_state
from handaug.models.disentangle import DisentangleConfig
from handaug.models.evaluate import evaluate_checkpoint
from handaug.models.loop import run_training
from handaug.models.methods import METHODS, load_run, resolve

STEPS = 4
LI = {"self": 3, "autoencoder": 2, "paired": 7}
TERMS = {
    "self": "handaug.models.disentangle.train:generator_terms",
    "autoencoder": "handaug.models.disentangle.train:generator_terms",
    "paired": "handaug.models.disentangle.train:paired_terms",
    "handaug": "handaug.models.layered.train:mix_terms",
    **{name: "handaug.models.dvae.train:stage_terms" for name in ("dvae", "dvae-zu", "dvae-pose", "cross-modal")},
}
"""Where each method's loss terms come from."""


def config_of(method: str) -> Any:
    """A configuration that trains in a second and validates at its end alone."""
    if method in LI:
        small = DisentangleConfig(batch_size=8, width=4, discriminator_width=4, phases=((1, 0.5), (6, 0.5)))
        phases = ((LI[method], 1.0),)
        return replace(small, method=method, steps=STEPS, validate_every=STEPS, phases=phases)
    if method == "handaug":
        return replace(LAYERED, steps=STEPS, validate_every=STEPS)
    return tiny(method, steps=STEPS, validate_every=STEPS)


def train(method: str, data: Path, out: Path) -> Path:
    folder: Path = resolve(METHODS[method].train)(data, out, config_of(method))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.h5", 16, size=32)


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {method: train(method, data, folder / method) for method in METHODS}


def test_every_method_is_tested() -> None:
    assert set(TERMS) == set(METHODS)


@pytest.mark.parametrize(("method", "damaged"), [*((name, False) for name in METHODS), ("self", True)])
def test_a_loss_that_turns_nan_stops_at_once_and_loses_nothing(
    runs: dict[str, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, damaged: bool
) -> None:
    module, _, name = TERMS[method].partition(":")
    original, calls = resolve(TERMS[method]), []

    def poisoned(*args: Any, **options: Any) -> Any:
        calls.append(1)
        found = original(*args, **options)
        terms = found[0] if isinstance(found, tuple) else found
        if len(calls) == 3:
            last = list(terms)[-1]
            terms[last] = terms[last] * float("nan")
            poisoned.term = last  # type: ignore[attr-defined]
        return found

    def interrupted(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    if damaged:  # which must not pass for a good one
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(f"{module}.{name}", interrupted)
            train(method, data, out)
        (tmp_path / "run.partial" / "state.pt").write_bytes(b"cut short")
    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.{name}", poisoned)
        with pytest.raises(WorkError) as caught:
            train(method, data, out)
    message = str(caught.value)
    assert f"the loss term {poisoned.term} is not finite at step 3" in message  # type: ignore[attr-defined]
    assert "--overwrite" in message and "\n" not in message and not out.exists()
    kept = load_state(tmp_path / "run.partial" / "state.pt")
    assert kept is not None and kept["step"] == 2
    assert all(torch.isfinite(value).all() for value in kept["model"].values())
    # The same command goes on from there, and ends where an undisturbed run ends.
    train(method, data, out)
    whole, resumed = (load_file(folder / "model.safetensors") for folder in (runs[method], out))
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_a_state_that_cannot_be_read_is_passed_over_and_a_foreign_one_is_named(
    runs: dict[str, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, partial = tmp_path / "run", tmp_path / "run.partial"
    with monkeypatch.context() as patch:
        patch.setattr("handaug.models.loop._log", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train("self", data, out)
    state, log = partial / "state.pt", partial / "log.jsonl"
    save_state(state, {"step": 2})
    with pytest.raises(InputError, match="state.pt: is no state of this run; remove it"):
        train("self", data, out)
    state.write_bytes(b"cut short")
    log.write_text('{"step": 1, "tr')
    train("self", data, out)
    whole, afresh = (load_file(folder / "model.safetensors") for folder in (runs["self"], out))
    assert all(torch.equal(value, afresh[key]) for key, value in whole.items())


@pytest.mark.parametrize("method", list(METHODS))
def test_damaged_and_foreign_checkpoints_are_named(runs: dict[str, Path], tmp_path: Path, method: str) -> None:
    assert load_run(runs[method]).method == method
    broken = tmp_path / "run"

    def damaged(change: Any) -> str:
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(runs[method], broken, copy_function=os.link)  # some weigh 50 MB
        change(broken)
        with pytest.raises(InputError) as caught:
            load_run(broken)
        assert str(broken) in str(caught.value) and "\n" not in str(caught.value)
        return str(caught.value)

    def rewrite(path: Path, content: bytes) -> None:
        path.unlink()  # the link, not what it shares with the run
        path.write_bytes(content)

    def cut(folder: Path) -> None:
        weights = folder / "model.safetensors"
        rewrite(weights, weights.read_bytes()[:-100])

    def poison(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        first = next(name for name, value in weights.items() if value.is_floating_point())
        rewrite(folder / "model.safetensors", save({**weights, first: weights[first] * float("nan")}))

    def edited(**changes: Any) -> Any:
        def edit(folder: Path) -> None:
            stored = json.loads((folder / "config.json").read_text())
            for key, value in changes.items():
                (stored["config"] if key in stored["config"] else stored)[key] = value
            rewrite(folder / "config.json", json.dumps(stored).encode())

        return edit

    assert "damaged or truncated" in damaged(cut)
    assert "not finite" in damaged(poison)
    assert "cannot be read as JSON" in damaged(lambda folder: rewrite(folder / "config.json", b'{"kind": '))
    assert "no such file" in damaged(lambda folder: (folder / "model.safetensors").unlink())
    if method != "dvae-pose":  # which decodes no images, and always encodes them with the side as one more channel
        assert "does not fit its config" in damaged(edited(channels=3))
    assert "is damaged" in damaged(edited(size="large"))
    assert "holds a estimator, not a disentangler" in damaged(edited(kind="estimator"))
    other = "handaug" if method != "handaug" else "self"
    assert "damaged" in damaged(edited(method=other))  # another method's configuration
    assert "method 'magic'" in damaged(edited(method="magic"))


@pytest.mark.parametrize("method", list(METHODS))
def test_data_of_another_size_or_channels_is_refused(runs: dict[str, Path], tmp_path: Path, method: str) -> None:
    for name, options, message in (
        ("large", {"size": 48}, "has 48x48 px with 1 channels"),
        ("rgb", {"size": 32, "channels": 3}, "has 32x32 px with 3 channels"),
    ):
        rows = HandDataset(write_toy(tmp_path / f"{name}.h5", 8, **options))
        with pytest.raises(InputError) as caught:
            evaluate_checkpoint(runs[method], rows)
        assert f"{name}.h5: {message}" in str(caught.value) and "32x32" in str(caught.value)


class Diverging:
    """Its weights are lost in the update of step 3, after the loss of that step was looked at."""

    def __init__(self) -> None:
        self.network = nn.Linear(1, 1)

    def parts(self) -> dict[str, Any]:
        return {"network": self.network}

    def train_step(self, step: int) -> dict[str, float]:
        with torch.no_grad():
            self.network.weight.fill_(math.nan if step == 2 else step)
        return {"loss": 1.0}

    def validate(self, step: int) -> tuple[dict[str, Any], str]:
        assert torch.isfinite(self.network.weight).all()
        return {}, ""


@pytest.mark.parametrize("every", [1, 3])
def test_weights_that_are_not_finite_are_not_stored(every: int, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="weights are not finite after step 3"):
        run_training(Diverging(), tmp_path, steps=3, validate_every=every, label="x", progress=SILENT)
    kept = load_state(tmp_path / "state.pt") if every == 1 else {"step": 2}
    assert kept is not None and kept["step"] == 2 and (tmp_path / "state.pt").exists() == (every == 1)

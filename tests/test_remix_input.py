"""What remix refuses, before any work."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
from click.testing import CliRunner, Result
from remix_home import remix_config
from safetensors.torch import load_file, save_file
from toy import write_toy

import handaug.augment.remix as remix_module
from handaug.augment.checker import Checkers
from handaug.augment.remix import find_finished, remix, remix_capacity
from handaug.augment.remix_report import read_report
from handaug.cli.remix import command as remix_command
from handaug.cli.remix import train_what_is_missing
from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.progress import SILENT
from handaug.models.run_folder import RunFolder


def test_bad_input_is_refused_before_any_work(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in (0, -3):
        with pytest.raises(InputError, match="--n"):
            remix_config(home, n=n)
    for error in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="--max-label-error"):
            remix_config(home, max_label_error=error)
    out = tmp_path / "minted.h5"
    capacity = remix_capacity(remix_config(home))
    with pytest.raises(InputError, match="new combinations"):
        remix(remix_config(home, n=capacity + 1), out)
    with pytest.raises(InputError, match="no such file"):
        remix(remix_config(home, poses=tmp_path / "none.h5"), out)
    for size, channels in ((16, 1), (32, 3)):
        other = write_toy(tmp_path / f"other-{channels}.h5", 8, size=size, channels=channels)
        with pytest.raises(InputError, match=f"{size} x {size} px with {channels} channels"):
            remix(remix_config(home, appearances=other), out)
        with pytest.raises(InputError, match=f"{size} x {size} px with {channels} channels"):
            remix(remix_config(home, poses=other, appearances=other), out)
    with pytest.raises(InputError, match="kind|disentangler"):
        remix(remix_config(home, disentangler=home / "checker"), out)
    with pytest.raises(InputError):
        remix(remix_config(home, checker=home / "disentangler"), out)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="MB are free"):
        remix(remix_config(home), out)
    assert not list(tmp_path.glob("minted*"))


def test_no_pair_allowed_says_why(home: Path, tmp_path: Path) -> None:
    lender = write_toy(tmp_path / "held.h5", 12, size=32, seed=9)
    with h5py.File(lender, "r+") as file:
        file["mask"][:, :4] = 3
        for name in ("pose_id", "group", "appearance_id"):
            file[name][:] += 5000
    with pytest.raises(InputError, match="occluders"):
        remix(remix_config(home, appearances=lender), tmp_path / "minted.h5")
    assert not list(tmp_path.glob("minted*"))


def _cut_short(run: Path, copy: Path) -> Path:
    """A copy of a run whose weights are cut off."""
    shutil.copytree(run, copy)
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    return copy


def _command(*arguments: object) -> Result:
    return CliRunner().invoke(remix_command, [str(argument) for argument in arguments])


def test_the_command_refuses_before_it_trains(home: Path, tmp_path: Path) -> None:
    """No workspace holds a model here: whatever got past the checks would train one for minutes."""
    out, poses, room = tmp_path / "minted.h5", ("--poses", home / "toy.h5"), ("--workspace", tmp_path / "work")
    small = write_toy(tmp_path / "small.h5", 8, size=16)
    for arguments, named in (
        (("--n", 0), "--n 0"),
        (("--n", 10**9), "--n 1000000000"),
        (("--pairs", "all"), "--pairs all"),
        (("--workers", 2, "--scheduler", "tcp://localhost:1"), "--scheduler"),
        (("--appearances", tmp_path / "none.h5"), "none.h5"),
        (("--appearances", small), "small.h5"),
        (("--checkpoint", tmp_path / "none"), "none"),
        (("--checkpoint", home / "checker"), "disentangler"),
        (("--appearances", "prior"), "prior"),
        (("--appearances", "prior", "--checkpoint", home / "disentangler"), "has no prior"),
        (("--checkpoint", _cut_short(home / "disentangler", tmp_path / "cut")), "cut/model.safetensors: is damaged"),
        (("--max-label-error", "inf"), "--max-label-error inf"),
    ):
        result = _command(out, *poses, *room, *arguments)
        assert isinstance(result.exception, InputError) and named in str(result.exception), arguments
    shutil.copytree(home / "disentangler", tmp_path / "there" / "disentangler")
    (tmp_path / "there" / "renders.h5").symlink_to(home / "toy.h5")
    for poses_too, named in (("--poses", small), "small.h5"), ((*poses, "--appearances", "prior"), "has no prior"):
        # A workspace whose own files do not fit.
        result = _command(out, *poses_too, "--workspace", tmp_path / "there")
        assert isinstance(result.exception, InputError) and named in str(result.exception), poses_too
    assert not (tmp_path / "there" / "checker").exists()
    result = _command(out, "--poses", small, *room, "--checkpoint", home / "disentangler")
    assert isinstance(result.exception, InputError) and "16 x 16" in str(result.exception)
    result = _command(tmp_path / "small.h5" / "minted.h5", *poses, *room)
    assert isinstance(result.exception, InputError) and "cannot be written" in str(result.exception)
    result = _command(
        out, *poses, *room, "--checkpoint", home / "disentangler", "--checker", home / "checker", "--n", 10**6
    )
    assert isinstance(result.exception, InputError)
    assert "combinations" in str(result.exception) or "pairs" in str(result.exception)
    assert not list(tmp_path.glob("minted*")) and not list(tmp_path.glob("work/*"))


@pytest.mark.parametrize(
    "change",
    [
        {"threshold_px": None},
        {"threshold_px": "x"},
        {"threshold_px": float("nan")},
        {"held_out_percentiles_px": None},
        {"data_checksum": None},
        {"size": [32]},
    ],
)
def test_a_damaged_checker_is_named(home: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    copy = tmp_path / "checker"
    shutil.copytree(home / "checker", copy)
    config = {**json.loads((copy / "config.json").read_text()), **change}
    kept = {name: value for name, value in config.items() if value is not None}
    (copy / "config.json").write_text(json.dumps(kept))
    with pytest.raises(InputError, match="checker.*is damaged"):
        Checkers.load(copy)


def test_a_checker_with_too_few_rows_is_named(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "checker"
    shutil.copytree(home / "checker", copy)
    tensors = load_file(copy / "model.safetensors")
    save_file({**tensors, "fold": tensors["fold"][:3].clone()}, copy / "model.safetensors")
    with pytest.raises(InputError, match="model.safetensors: is damaged"):
        Checkers.load(copy)


def test_few_that_pass_stop_a_small_job_too(home: Path, tmp_path: Path) -> None:
    """Below 512 tries nothing is judged on the way."""
    with pytest.raises(WorkError, match="passed the"):
        remix(remix_config(home, n=4, max_label_error=2.5), tmp_path / "minted.h5")
    assert not (tmp_path / "minted.h5").exists()


def test_room_for_draws_from_the_prior_is_looked_at_first(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remix_module, "Mint", None)  # would make tables of 10^9 draws
    with pytest.raises(InputError, match="MB are free"):
        remix(remix_config(home, n=10**9, appearances="prior"), tmp_path / "minted.h5")


def test_what_remix_reads_or_what_is_not_its_own_is_not_replaced(home: Path, tmp_path: Path) -> None:
    lends = shutil.copy(home / "toy.h5", tmp_path / "lends.h5")
    before = Path(lends).read_bytes()
    for out, config in (
        (home / "toy.h5", remix_config(home)),
        (Path(lends), remix_config(home, appearances=Path(lends))),
    ):
        with pytest.raises(InputError, match=f"{out.name}: is what the images would be minted from"):
            remix(config, out, overwrite=True)
    assert Path(lends).read_bytes() == before
    side = tmp_path / "hands.json"
    side.write_text('{"images": [], "annotations": []}')
    with pytest.raises(InputError, match="hands.json: is in the way of the figures"):
        remix(remix_config(home), tmp_path / "hands.h5")
    shutil.copy(home / "toy.h5", tmp_path / "hands.h5")
    assert read_report(tmp_path / "hands.h5").figures == {}, "annotations are no figures"
    assert side.read_text().startswith('{"images"')


def test_a_finished_file_needs_no_models(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "minted.h5"
    remix(remix_config(home, n=20), out, workers=1)
    gone = {"disentangler": tmp_path / "gone", "checker": tmp_path / "gone"}
    assert find_finished(remix_config(home, n=20, **gone), out)
    assert not find_finished(remix_config(home, n=20, **gone), tmp_path / "none.h5")
    for changed in ({"n": 21}, {"seed": 1}, {"pairs": "coverage"}, {"check": False, "max_label_error": None}):
        with pytest.raises(InputError, match="another configuration; add --overwrite"):
            find_finished(remix_config(home, **{"n": 20, **gone, **changed}), out)


def test_overwrite_clears_an_unfinished_training_of_other_settings(home: Path, tmp_path: Path) -> None:
    """Killed in the training that remix began, then another seed."""
    from handaug.augment.checker import CheckerConfig, train_checkers

    unfinished = tmp_path / "checker.partial"
    run = RunFolder.open(tmp_path / "checker", {"another": "configuration"}, overwrite=False)
    assert run is not None
    with run:
        pass
    assert unfinished.exists()
    settings = CheckerConfig(width=8, steps=2, batch_size=16)
    with pytest.raises(InputError, match="add --overwrite"):
        train_checkers(home / "toy.h5", tmp_path / "checker", settings, workers=1)
    seen: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        for place, name in (("handaug.models.methods", "train_method"), ("handaug.augment.checker", "train_checkers")):
            patch.setattr(f"{place}.{name}", lambda *a, _name=name, **given: seen.update({_name: given["overwrite"]}))
        models = (tmp_path / "no-disentangler", tmp_path / "no-checker")
        train_what_is_missing(home / "toy.h5", *models, seed=0, device="cpu", progress=SILENT, overwrite=True)
    assert seen == {"train_method": True, "train_checkers": True}

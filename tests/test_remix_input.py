"""What remix refuses, before any work."""

import shutil
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner, Result
from remix_home import remix_config
from toy import write_toy

from handaug.augment.remix import remix, remix_capacity
from handaug.cli.remix import command as remix_command
from handaug.data_specs.errors import InputError


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
    ):
        result = _command(out, *poses, *room, *arguments)
        assert isinstance(result.exception, InputError) and named in str(result.exception), arguments
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

"""The protocols of Yang & Yao on RHD and STB as one command each: which rows, which setting, what is told."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from import_commands import run
from layouts import threed
from tiny_dvae import SIZE

from handaug.cli.common import exit_code_of
from handaug.data_specs.errors import InputError
from handaug.data_specs.importers.job import import_dataset
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.reader import HandDataset
from handaug.models.dvae.config import DvaeConfig

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "dvae_pose.py"
WRITERS: dict[str, Callable[[Path], Any]] = {"rhd": threed.write_rhd, "stb": threed.write_stb}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command, as a function that returns its exit code; `replaced` are functions that it calls."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    main = runpy.run_path(str(SCRIPT))["main"]

    def call(*words: object, **replaced: Any) -> int:
        for name, value in replaced.items():
            monkeypatch.setitem(main.__globals__, name, value)
        monkeypatch.setattr(sys, "argv", [SCRIPT.name, *map(str, words)])
        return exit_code_of(main, debug=False)

    return call


@pytest.mark.parametrize(
    ("name", "root", "rows", "words"),
    [
        # Three frames with two hands, five of which can be seen; two sequences of two frames in three views.
        ("rhd", "palm", (2, 1), "--split official --hands prominent"),
        ("stb", "wrist", (2, 2), "--split official --views BB_left --wrist palm"),
    ],
)
def test_a_protocol_takes_its_rows_and_tells_its_setting(
    name: str,
    root: str,
    rows: tuple[int, int],
    words: str,
    script: Callable[..., int],
    dvae_runs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained: list[tuple[str, DvaeConfig]] = []

    def imported(*given: object) -> None:
        assert run(*map(str, given[1:])).exit_code == 0

    def train(data: Path, out: Path, config: DvaeConfig, **_: object) -> Path:
        trained.append((out.name, config))
        return dvae_runs[config.method]

    WRITERS[name](tmp_path / name)
    length = ("--size", SIZE, "--channels", "mono", "--steps", 7, "--seeds", 2, "--set", "beta=0.5", "--device", "cpu")
    call = ("protocol", name, tmp_path / name, tmp_path / "out", *length)
    assert script(*call, handaug=imported, train_dvae=train) == 0
    data = tmp_path / "out" / f"{name}.h5"
    assert tuple(len(HandDataset(data, split=part)) for part in ("train", "test")) == rows
    assert [place for place, _ in trained] == [f"{m}-seed{k}" for m in ("dvae-pose", "cross-modal") for k in (0, 1)]
    assert {(config.root, config.steps, config.beta) for _, config in trained} == {(root, 7, 0.5)}
    assert [config.seed for _, config in trained] == [0, 1, 0, 1]
    shown = capsys.readouterr().out
    assert f"| dVAE (ours) | {words} | {rows[0]} | {rows[1]} | 2 | 7 | 128 | 64 | 0.5 |" in shown
    assert f"| cross-modal VAE (ours) | {words} | {rows[0]} | {rows[1]} | 2 | 7 | 32 | 64 | 0.5 |" in shown
    assert "Yang & Yao (as printed)" in shown and "% (95 % interval" in shown and "2 seeds)" in shown
    assert (tmp_path / "out" / "protocol.md").read_text() in shown
    found = json.loads((tmp_path / "out" / "protocol.json").read_text())
    assert [len(found[method]) for method in ("dvae-pose", "cross-modal")] == [2, 2] and found["gain"]["n_seeds"] == 2
    assert all((tmp_path / "out" / f"{file}.png").is_file() for file in ("fig7", "fig8-dVAE", "fig8-cross-modal"))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("rhd", {"hands": "prominent"}, "--hands prominent"),
        ("stb", {"views": "BB_left", "wrist": "palm"}, "--views BB_left --wrist palm"),
    ],
)
def test_a_file_serves_where_it_has_the_rows(
    name: str,
    options: dict[str, Any],
    words: str,
    script: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def train(*_: object, **__: object) -> None:
        raise InputError("training begins")

    WRITERS[name](tmp_path / "s")
    for out, chosen in (("other", {}), ("right", options)):
        import_dataset(name, tmp_path / "s", tmp_path / f"{out}.h5", ImportOptions(size=SIZE, **chosen))
    told = []
    for out in ("other", "right"):
        call = ("protocol", name, tmp_path / f"{out}.h5", tmp_path / "out", "--device", "cpu")
        assert script(*call, handaug=pytest.fail, train_dvae=train) == 2
        told.append(capsys.readouterr().err)
    assert "other.h5: is not of this protocol; import it with" in told[0] and words in told[0]
    assert told[0].count("\n") == 1 and told[1] == "Error: training begins\n"

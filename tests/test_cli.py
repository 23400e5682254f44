"""The program as a user meets it: help, exit codes, one-line errors, progress, inspect, verify, doctor."""

import errno
import io
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import cv2
import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from rows import random_rows, write_rows

from handaug.cli import doctor
from handaug.cli.common import Terminated, Workspace, exit_code_of, pick_device
from handaug.cli.libraries import apt_line, missing_libraries
from handaug.cli.main import COMMANDS, main
from handaug.cli.progress import Meter, RichProgress, duration
from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.summary import spread_rows

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(sys.executable).with_name("handaug")


def handaug(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_refused(result: Result, *words: str, code: int = 2) -> None:
    """One line on stderr with these words, nothing on stdout, and the exit code."""
    lines = result.stderr.splitlines()
    assert result.exit_code == code and len(lines) == 1 and not result.stdout, result.output
    assert lines[0].startswith("Error: ") and all(word in lines[0] for word in words), lines[0]


@pytest.fixture(scope="module")
def renders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "renders.h5", random_rows(20, size=16))


# help


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=lambda a: "-".join(a) or "handaug")
def test_help_answers_and_loads_nothing_that_takes_time(arguments: list[str]) -> None:
    """Within 0.3 s, which `benchmarks/help_speed.py` measures: numpy alone takes half of that."""
    code = (
        "import sys\nbefore = set(sys.modules)\nfrom handaug.cli.main import main\n"
        f"try: main({[*arguments, '--help']!r})\nfinally: print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ") and not done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {name.partition(".")[0] for name in loaded} <= {"handaug", "click", *sys.stdlib_module_names}
    if not arguments:  # the list of commands imports none of them
        assert {name for name in loaded if name.startswith("handaug.cli.")} == {
            f"handaug.cli.{name}" for name in ("main", "common", "progress")
        }


def test_the_program_is_installed_under_its_name() -> None:
    done = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: handaug") and not done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained_with_its_default(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None and command.help
    names = {option for parameter in command.params for option in parameter.opts}
    assert {"--workspace", "--debug"} <= names
    context = click.Context(command, info_name=name, parent=click.Context(main, **main.context_settings))
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"
            record = parameter.get_help_record(context)
            assert record is not None
            if not parameter.is_flag and parameter.to_info_dict()["default"] is not None:
                assert "default: " in record[1], f"{name} {parameter.opts[0]} does not show its default"


@pytest.mark.parametrize("page", ["cli.md", "format.md"])
def test_written_pages_are_what_the_code_says(page: str) -> None:
    pages = runpy.run_path(str(ROOT / "tools" / "write_docs.py"))["PAGES"]
    assert (ROOT / "docs" / page).read_text() == pages[page](), "run make docs"


def test_bare_program_shows_its_help_and_version() -> None:
    assert handaug().stdout == handaug("-h").stdout
    assert re.fullmatch(r"handaug \d+\.\d+\.\d+\n", handaug("--version").stdout)


# errors and exit codes


def test_usage_errors_are_one_line() -> None:
    assert_refused(handaug("rendr"), "rendr", "Did you mean 'render'")
    assert_refused(handaug("--nothing"), "--nothing")
    assert_refused(handaug("inspect", "--count", "0"), "--count", "inspect --help")
    assert_refused(handaug("inspect", "--count", "many"), "--count", "many")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("--size 7: choose 16 or more"), 2, "--size 7"),
        (WorkError("too few kept\nlower N"), 1, "too few kept lower N"),
        (OSError(errno.ENOSPC, "No space left on device", "out.h5"), 1, "out.h5: the disk is full"),
        (OSError("Can't write data (error message = 'No space left on device')"), 1, "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/a.h5"), 2, "/root/a.h5"),
        (OSError(errno.EROFS, "Read-only file system", "/ro/a.h5"), 2, "/ro/a.h5: Read-only"),
        (OSError(errno.EFBIG, "File too large", "out.h5"), 1, "out.h5: the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "out.h5"), 1, "out.h5: the disk is full"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "aaa"), 2, "aaa: File name too long; give a shorter name"),
        (FileExistsError(errno.EEXIST, "File exists", "a"), 2, "a: File exists; remove it or choose another name"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), 2, "a: No such file or directory; give"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "a"), 2, "a: Too many levels of symbolic links; "),
        (FileNotFoundError("no name"), 1, "no name (unexpected; --debug"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), 2, "a/b"),
        (MemoryError(), 1, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), 1, "out of memory; lower"),
        (RuntimeError("odd"), 1, "RuntimeError: odd (unexpected; --debug"),
        (ModuleNotFoundError("No module named 'bpy'", name="bpy"), 2, "bpy is not installed; run `make setup`"),
        (ImportError("libSM.so.6: cannot open shared object file: No such file"), 2, "libSM.so.6"),
        (ValueError("odd"), 1, "ValueError: odd (unexpected; --debug"),
        (KeyboardInterrupt(), 130, "the same command goes on"),
        (Terminated(), 143, "the same command goes on"),
        (click.BadParameter("not good", param_hint="--x"), 2, "--x"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
@pytest.mark.parametrize("debug", [False, True])
def test_what_stops_a_command_becomes_one_line_and_an_exit_code(
    error: BaseException, code: int, words: str, debug: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert exit_code_of(work, debug) == code
    out, err = capsys.readouterr()
    assert not out and words in err.splitlines()[-1]
    assert ("Traceback" in err) is debug and (debug or len(err.splitlines()) == 1)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_stop_a_real_process_cleanly(signum: signal.Signals, code: int, tmp_path: Path) -> None:
    program = (
        "import click, sys, time\nfrom handaug.cli.main import main\n"
        "@main.command()\ndef slow():\n"
        "    try:\n        print('started', flush=True); time.sleep(60)\n"
        "    finally: print('cleaned', flush=True)\n"
        "main.resolve_command = lambda ctx, args: (args[0], slow, args[1:])\n"
        "main(['slow'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "started\n"
        process.send_signal(signum)
        out, err = process.communicate(timeout=20)
    assert process.returncode == code and out == "cleaned\n"
    assert err.strip() == "Stopped; the same command goes on from here."


def test_workspace_comes_from_option_environment_or_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(handaug("verify"), "handaug-work/renders.h5")
    monkeypatch.setenv("HANDAUG_WORKSPACE", "elsewhere")
    assert_refused(handaug("verify"), "elsewhere/renders.h5")
    assert_refused(handaug("verify", "--workspace", "here"), "here/renders.h5")
    assert Workspace(Path("w")).minted == Path("w/minted.h5") and Workspace(Path("w")).pose == Path("w/pose")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:99", "cuda:" + "9" * 5000, ""])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="--device"):
        pick_device(name)


def test_devices_that_are_there() -> None:
    import torch

    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


# progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_meter_leaves_resumed_units_out_of_the_rate() -> None:
    clock = Clock()
    meter = Meter(1000, "images", clock)
    meter.add(600)  # found done
    for _ in range(20):
        clock.now += 1
        meter.add(5)
    assert meter.rate() == pytest.approx(5.0)
    assert meter.text() == "700/1,000 images, 5.0 images/s, ETA 1:00"


def test_meter_follows_the_last_minute() -> None:
    clock = Clock()
    meter = Meter(10_000, "steps", clock)
    for step in range(200):
        clock.now += 1
        meter.add(50 if step < 100 else 2)
    assert meter.rate() == pytest.approx(2.0)


def test_meter_without_news_knows_no_rate() -> None:
    meter = Meter(3, "images", Clock())
    assert meter.rate() is None and meter.text() == "0/3 images, ETA ?"
    assert duration(59.6) == "1:00" and duration(7322) == "2:02:02"


def test_plain_progress_writes_few_lines() -> None:
    stream = io.StringIO()
    progress = RichProgress(stream)
    with progress.task("render", 500, "images") as advance:
        for _ in range(500):
            advance(1)
        progress.note("half way")
        with progress.task("inner", 1, "shards") as inner:
            inner(1)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "half way" and len(lines) == 2
    assert lines[1].startswith("render: 500/500 images")


def test_bars_show_count_rate_and_are_left_when_done() -> None:
    stream = io.StringIO()
    progress = RichProgress(stream, plain=False)
    with progress.task("outer [x]", 2, "epochs") as advance:
        with progress.task("inner", 10, "steps") as steps:
            steps(10)
        advance(2)
    with progress.task("next", 1, "files") as advance:
        advance(1)
    text = stream.getvalue()
    assert "outer [x]" in text and "2/2 epochs" in text and "1/1 files" in text


# inspect, verify


def test_inspect_counts_what_is_there(renders: Path, tmp_path: Path) -> None:
    result = handaug("inspect", renders, "--json", "--out", tmp_path / "sheet.png", "--count", "8")
    assert result.exit_code == 0 and not result.stderr, result.output
    summary = json.loads(result.stdout)
    rows = random_rows(20, size=16)
    box = rows["keypoints_2d"].max(1) - rows["keypoints_2d"].min(1)
    expected: dict[str, Any] = {
        "rows": 40,
        "width": 16,
        "channels": 1,
        "poses": 20,
        "appearances": 7,
        "hands": {"left": 20, "right": 20},
        "splits": {
            "train": {"rows": 32, "groups": 16},
            "val": {"rows": 4, "groups": 2},
            "test": {"rows": 4, "groups": 2},
        },
        "sheet": str(tmp_path / "sheet.png"),
    }
    assert {name: summary[name] for name in expected} == expected
    assert summary["visibility"]["visible"] == pytest.approx((rows["visibility"] == 2).mean())
    assert summary["hand_size_px"] == pytest.approx(np.median(box.max(1)), rel=1e-5)
    assert summary["image_mean"] == pytest.approx(rows["images"].mean())
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None
    # four poses, two images each in one row of eight; the first image stands enlarged in the corner, as stored
    assert sheet.shape == (2 * 196 + 4, 8 * 196 + 4, 3)
    assert np.array_equal(sheet[4:196:12, 4:196:12, 0], rows["images"][0, :, :, 0])
    assert np.array_equal(sheet[4:196:12, 200:392:12, 0], rows["images"][1, :, :, 0])


def test_what_a_strangers_file_says_is_one_harmless_line(renders: Path, tmp_path: Path) -> None:
    path = tmp_path / "strange.h5"
    shutil.copy(renders, path)
    with h5py.File(path, "r+") as file:
        file.attrs["config"] = json.dumps({"poses": [1, "; rm x"], "tones": "x\n\x1b[31m", "seed": {"a": 1}})
        file.attrs["handaug_version"] = "\x1b[31m1\n"
    result = handaug("inspect", path)
    assert result.exit_code == 0 and all(line.isprintable() for line in result.stdout.split("\n"))
    line = next(line for line in result.stdout.splitlines() if line.startswith("command"))
    assert shlex.split(line.replace("\\n", "\n"))[1:6] == ["handaug", "render", "OUT", "--poses", "[1, '; rm x']"]


def test_inspect_prints_a_table_and_puts_the_sheet_beside_the_data(renders: Path) -> None:
    result = handaug("inspect", "--workspace", renders.parent)
    assert result.exit_code == 0 and renders.with_suffix(".png").exists()
    assert "40" in result.stdout and "checksum" in result.stdout and str(renders.with_suffix(".png")) in result.stdout


def test_spread_rows_reach_both_ends() -> None:
    assert spread_rows(100, 3).tolist() == [0, 49, 99]
    assert spread_rows(2, 8).tolist() == [0, 1]


@pytest.mark.parametrize("command", ["inspect", "walk", "transfer", "retrieve"])
def test_pictures_never_replace_data(command: str, renders: Path, tmp_path: Path) -> None:
    """And nothing is loaded before: there is no run in this workspace."""
    named_so = tmp_path / "data.png"
    named_so.write_bytes(renders.read_bytes())
    (tmp_path / "link.png").symlink_to(named_so)
    (tmp_path / "folder.png").mkdir()
    for data, out in (
        (renders, renders),
        (renders, tmp_path / "x.h5"),
        (renders, tmp_path / "folder.png"),
        (named_so, named_so),
        (named_so, tmp_path / "link.png"),
    ):
        before = data.read_bytes()
        assert_refused(handaug(command, data, "--out", out, "--workspace", tmp_path), f"--out {out}", ".png")
        assert data.read_bytes() == before


def test_pictures_never_replace_a_second_dataset(renders: Path, tmp_path: Path) -> None:
    for name in ("other.png", "other.stats.png"):
        other = tmp_path / name
        other.write_bytes(renders.read_bytes())
        refused = handaug("inspect", renders, other, "--stats", "--out", tmp_path / "other.png")
        assert_refused(refused, f"--out {other}", "name another file")
        assert other.read_bytes() == renders.read_bytes()
        other.unlink()
    gallery = tmp_path / "gallery.png"
    gallery.write_bytes(renders.read_bytes())
    assert_refused(handaug("retrieve", renders, "--gallery", gallery, "--out", gallery), f"--out {gallery}")


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("walk", "--steps", "1"),
        ("walk", "--steps", "100000000"),
        ("walk", "--pose-rows", f"0,{1 << 63}"),
        ("transfer", "--pose-rows", "9" * 23),
        ("retrieve", "--query-rows", "9" * 23),
    ],
)
def test_numbers_beyond_reason_are_refused_before_a_model_is_loaded(
    command: str, option: str, value: str, renders: Path, tmp_path: Path
) -> None:
    arguments = (renders, "--workspace", tmp_path, "--split", "train", option, value)
    assert_refused(handaug(command, *arguments), f"{option} {value}")


def test_odd_places_of_outputs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renders: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (".", "", "a" * 300, "x.png"):
        assert_refused(handaug("render", name))
        assert_refused(handaug("remix", name, "--poses", renders, "--n", "1"))
    assert_refused(handaug("export", "coco", renders, "."), "has no name of its own")
    for command in ("inspect", "verify"):
        assert_refused(handaug(command, "a" * 300), "File name too long")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_wrong_files_are_refused(command: str, tmp_path: Path) -> None:
    foreign, text, folder = tmp_path / "foreign.h5", tmp_path / "text.h5", tmp_path / "folder"
    with h5py.File(foreign, "w") as file:
        file["x"] = np.zeros(3)
    text.write_text("no data")
    folder.mkdir()
    for path in (foreign, text, folder, tmp_path / "nothing.h5"):
        assert_refused(handaug(command, path), str(path))
        assert_refused(handaug(command, path, "--json"), str(path))


def test_verify_tells_sound_from_damaged(renders: Path, tmp_path: Path) -> None:
    assert handaug("verify", renders).exit_code == 0
    assert json.loads(handaug("verify", renders, "--json").stdout) == {"path": str(renders), "ok": True, "problems": []}
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(renders.read_bytes())
    with h5py.File(damaged, "r+") as file:
        file["keypoints_3d"][3] += 0.01
    result = handaug("verify", damaged)
    assert result.exit_code == 1 and len(result.stdout.splitlines()) >= 2 and "project" in result.stdout
    report = json.loads(handaug("verify", damaged, "--json").stdout)
    assert not report["ok"] and len(report["problems"]) == len(result.stdout.splitlines())


# doctor


def test_doctor_finds_this_machine_ready(tmp_path: Path) -> None:
    result = handaug("doctor", "--json", "--workspace", tmp_path / "not" / "yet")
    report = json.loads(result.stdout)
    checks = {check["name"]: check for check in report["checks"]}
    assert report["ok"] is (result.exit_code == 0)
    assert checks["torch"]["ok"] and checks["workspace"]["ok"] and not (tmp_path / "not").exists()
    assert checks["numpy"]["found"] == np.__version__
    assert all(check["ok"] or check["remedy"] or not check["needed"] for check in report["checks"])


def test_doctor_says_what_to_do_without_blender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "bpy_library", lambda: None)
    monkeypatch.setattr(doctor, "_torch", lambda: iter(()))  # seconds of imports that another test waits for
    result = handaug("doctor")
    assert result.exit_code == 1
    assert re.search(r"^MISSING +blender +bpy is not installed -> .*make setup", result.stdout, re.MULTILINE)


def test_missing_libraries_are_named_with_their_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ldd = tmp_path / "ldd"
    lines = ["libSM.so.6 => not found", "libc.so.6 => /lib/libc.so.6 (0x1)", "libX11.so.6 => not found"]
    ldd.write_text("#!/bin/sh\n" + "".join(f"echo '\t{line}'\n" for line in lines))
    ldd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    missing = missing_libraries(Path("any.so"))
    assert missing == ["libSM.so.6", "libX11.so.6"]
    assert apt_line(missing).endswith("libsm6 libx11-6")

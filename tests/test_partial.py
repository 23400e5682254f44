"""Partial outputs: resumed, locked, left alone where they are of others, refused under odd names."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from rows import random_rows, write_rows

from handaug.cli.main import main
from handaug.data_specs.errors import InputError
from handaug.data_specs.partial import PartialOutput, claim_output
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.space import require_space
from handaug.data_specs.verify import verify_dataset
from handaug.models.run_folder import RunFolder


def _partial(out: Path, config: dict[str, Any], overwrite: bool = False) -> PartialOutput:
    work = PartialOutput.open(out, config, overwrite=overwrite)
    assert work is not None
    return work


def test_partial_output_resumes(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.h5"
    work = _partial(out, {"n": 3})
    with pytest.raises(InputError, match="another process"):
        PartialOutput.open(out, {"n": 3}, overwrite=False)
    for i in (0, 2):
        write_rows(work.shard(i), random_rows(2, seed=i))
    work._release()  # what the kernel does when the process dies
    with pytest.raises(InputError, match="another configuration"):
        PartialOutput.open(out, {"n": 4}, overwrite=False)
    work = _partial(out, {"n": 3})
    work.shard(2).write_bytes(work.shard(2).read_bytes()[:-500])
    assert [work.is_done(i) for i in range(3)] == [True, False, False] and not work.shard(2).exists()
    for i in (1, 2):
        write_rows(work.shard(i), random_rows(2, seed=i))
    work.assemble(3, seed=5)
    assert [p.name for p in out.parent.iterdir()] == ["out.h5"] and verify_dataset(out) == []
    assert np.array_equal(HandDataset(out).read("images")[4:8], random_rows(2, seed=1)["images"])
    assert PartialOutput.open(out, {"n": 3}, overwrite=False) is None
    with pytest.raises(InputError, match="--overwrite"):
        PartialOutput.open(out, {"n": 4}, overwrite=False)
    before = out.read_bytes()
    work = _partial(out, {"n": 4}, overwrite=True)
    assert out.read_bytes() == before, "the old file stands until the new one is complete"
    work.remove()


def test_leftovers_of_others_stay(tmp_path: Path) -> None:
    """A complete output's own leftover goes; that of another configuration, or one in use, does not."""
    out = tmp_path / "out.h5"
    work = _partial(out, {"n": 1})
    write_rows(work.shard(0), random_rows(2))
    work.assemble(1, seed=0)
    other = _partial(out, {"n": 2}, overwrite=True)
    write_rows(other.shard(0), random_rows(2))
    other.close()
    assert PartialOutput.open(out, {"n": 1}, overwrite=False) is None and other.shard(0).exists()
    again = _partial(out, {"n": 1}, overwrite=True)
    assert not other.shard(0).exists()
    write_rows(again.shard(0), random_rows(2))
    assert PartialOutput.open(out, {"n": 1}, overwrite=False) is None and again.shard(0).exists(), "it is in use"
    again.close()
    assert PartialOutput.open(out, {"n": 1}, overwrite=False) is None and not again.folder.exists()


def test_a_flipped_byte_in_a_shard_is_noticed(tmp_path: Path) -> None:
    work = _partial(tmp_path / "out.h5", {})
    write_rows(work.shard(0), random_rows(2))
    with h5py.File(work.shard(0), "r+") as file:
        file["images"][1, 3, 3] ^= 1
    assert not work.is_done(0)
    work.remove()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (".", "is a folder"),
        ("", "is a folder"),
        ("/", "is a folder"),
        ("a" * 300 + ".h5", "give it a shorter name"),
        ("a" * 250 + ".h5", "give it a shorter name"),
        ("dangling.h5", "is a link to nothing"),
        ("x.png", "name the dataset .h5"),
        ("x.JSON", "name the dataset .h5"),
        ("x.html", "name the dataset .h5"),
    ],
)
def test_odd_names_of_outputs_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dangling.h5").symlink_to("nowhere.h5")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=words):
            PartialOutput.open(Path(name), {}, overwrite=overwrite)
    with pytest.raises(InputError, match=words):
        claim_output(Path(name))
    assert [path.name for path in tmp_path.iterdir()] == ["dangling.h5"]


def test_only_what_a_killed_writer_left_gives_way_to_the_work(tmp_path: Path) -> None:
    out = tmp_path / "truncated or damaged" / "a.h5"  # what a message says of a file must not be read in its name
    left = out.with_name("a.h5.partial")
    out.parent.mkdir()
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["x"] = [1]
    for content in (b"mine", (tmp_path / "mine.h5").read_bytes()):
        left.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.h5\.partial: is in the way"):
            PartialOutput.open(out, {}, overwrite=True)
        assert left.read_bytes() == content
    whole = write_rows(tmp_path / "whole.h5", random_rows(2)).read_bytes()
    for content in (whole, whole[: len(whole) // 2], whole[:48]):
        left.write_bytes(content)
        _partial(out, {}).remove()
        assert not left.exists()


def test_shards_of_which_nobody_knows_whose_they_are_are_not_taken(tmp_path: Path) -> None:
    """What a kill while a work folder was removed may leave."""
    out = tmp_path / "a.h5"
    work = _partial(out, {"margin": 0.25})
    write_rows(work.shard(3), random_rows(2))
    work.close()
    (work.folder / "config.json").unlink()
    again = _partial(out, {"margin": 1.0})
    assert not again.is_done(3)
    again.remove()


def test_a_work_folder_says_whose_it_is_until_it_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = _partial(tmp_path / "a.h5", {"n": 1})
    for i in range(3):
        write_rows(work.shard(i), random_rows(2))
    unlink, gone = Path.unlink, []

    def watched(path: Path, missing_ok: bool = False) -> None:
        assert (work.folder / "config.json").exists()
        gone.append(path.name)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    work.remove()
    assert len(gone) == 3 and not work.folder.exists()


def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    diary = tmp_path / "a.h5.partial" / "diary.txt"
    diary.parent.mkdir()
    diary.write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"a\.h5\.partial: is in the way"):
            PartialOutput.open(tmp_path / "a.h5", {}, overwrite=overwrite)
    with pytest.raises(InputError, match=r"a\.partial: holds other files"):
        diary.parent.rename(tmp_path / "a.partial")
        RunFolder.open(tmp_path / "a", {}, overwrite=True)
    assert (tmp_path / "a.partial" / "diary.txt").read_text() == "precious"


def test_a_pipe_is_no_output(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="is a device or pipe"):
            PartialOutput.open(tmp_path / "pipe", {}, overwrite=overwrite)


def test_a_file_that_is_no_dataset_is_never_replaced(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = [1]
    (tmp_path / "thesis.txt").write_text("precious")
    (tmp_path / "empty.h5").touch()
    for out in list(tmp_path.iterdir()):
        content = out.read_bytes()
        for overwrite in (False, True):
            with pytest.raises(InputError, match=f"{out.name}: is no dataset of handaug; choose another output"):
                PartialOutput.open(out, {}, overwrite=overwrite)
        assert out.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("kept", [48, 0.5])
def test_a_damaged_dataset_is_replaced_where_asked(kept: float, tmp_path: Path) -> None:
    out = write_rows(tmp_path / "a.h5", random_rows(2))
    content = out.read_bytes()
    out.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(InputError, match=r"a\.h5: exists with another configuration; add --overwrite"):
        PartialOutput.open(out, {}, overwrite=False)
    work = _partial(out, {}, overwrite=True)
    write_rows(work.shard(0), random_rows(2))
    work.assemble(1, seed=0)
    assert verify_dataset(out) == []


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A dataset that another program has open for writing."""
    path = write_rows(tmp_path / "held.h5", random_rows(2))
    program = "import sys, time, h5py; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        yield path
        process.kill()


def test_a_file_that_another_program_writes_is_not_called_damaged(held: Path) -> None:
    words = "held.h5: is open for writing in another program, or its disk has no file locks; close it, or set HDF5_USE"
    for command in ("verify", "inspect"):
        told = CliRunner().invoke(main, [command, str(held)])
        assert told.exit_code == 2 and words in told.stderr and not told.stdout
    for overwrite in (False, True):
        with pytest.raises(InputError, match=words):
            PartialOutput.open(held, {}, overwrite=overwrite)
    held.rename(held.with_name("a.h5.partial"))
    with pytest.raises(InputError, match=r"a\.h5\.partial: is open for writing"):
        PartialOutput.open(held.with_name("a.h5"), {}, overwrite=True)
    assert [path.name for path in held.parent.iterdir()] == ["a.h5.partial"]


def test_kill_in_the_middle_then_the_same_command(tmp_path: Path) -> None:
    """kill -9 while shards are being written; the next run keeps the finished ones and ends with the same content."""
    code = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from rows import random_rows, write_rows
from handaug.data_specs.partial import PartialOutput
work = PartialOutput.open(Path(sys.argv[1]), {"n": 1}, overwrite=False)
made = 0
for i in range(6):
    if not work.is_done(i):
        write_rows(work.shard(i), random_rows(3, seed=i)); made += 1
        print("made", i, flush=True)
        time.sleep(float(sys.argv[3]))
work.assemble(6, seed=0)
print("total", made)
"""

    def command(out: Path, pause: float) -> list[str]:
        return [sys.executable, "-c", code, str(out), str(Path(__file__).parent), str(pause)]

    killed = tmp_path / "killed.h5"
    process = subprocess.Popen(command(killed, 30), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("made 0")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not killed.exists()
    resumed = subprocess.run(command(killed, 0), capture_output=True, text=True, check=True, timeout=120)
    assert "total 5" in resumed.stdout
    whole = tmp_path / "whole.h5"
    subprocess.run(command(whole, 0), capture_output=True, check=True, timeout=120)
    assert HandDataset(killed).checksum == HandDataset(whole).checksum


def test_what_the_work_folder_holds_is_no_missing_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, need = tmp_path / "out.h5", 2 * 100 * (64 * 48 * 3.2 + 1400) + 5000  # 100 rows of 64 x 48 px, RGB

    def check(free: float) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
        require_space(out, 100, (64, 48), 3, "--n 100", more=5000)

    check(need)
    with pytest.raises(InputError, match="--n 100: needs about 2 MB in .*, 2 MB are free; lower it"):
        check(need - 1)
    work = _partial(out, {})
    work.shard(0).write_bytes(bytes(1_000_000))
    held = sum(path.stat().st_size for path in work.folder.iterdir())
    check(need - held)
    with pytest.raises(InputError, match="--n 100"):
        check(need - held - 1)
    work.remove()

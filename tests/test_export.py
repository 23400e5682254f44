"""`handaug export` as a job: resume, refusals, memory, and the command itself."""

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from export_data import every_field, write_all

from handaug.cli.main import main
from handaug.data_specs.errors import InputError
from handaug.data_specs.exporters import ExportConfig, export_dataset, exporter_names, get_exporter, job
from handaug.data_specs.exporters import folder as export_folder
from handaug.data_specs.exporters.base import register_exporter
from handaug.data_specs.writer import remove_path

FORMATS = exporter_names()


def handaug(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_refused(result: Result, *words: str, code: int = 2) -> None:
    line = result.stderr.splitlines()[-1]
    assert result.exit_code == code and not result.stdout and "Traceback" not in result.stderr, result.output
    assert line.startswith("Error: ") and all(word in line for word in words), line


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("data") / "data.h5", every_field(24))


# the job


@pytest.mark.parametrize("format", FORMATS)
def test_an_interrupted_export_goes_on_and_ends_the_same(
    format: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ExportConfig(format, shard_rows=3 if format == "webdataset" else None)
    export_dataset(data, tmp_path / "whole", config)
    monkeypatch.setattr(job, "BLOCK_ROWS", 3)
    monkeypatch.setattr(job, "BATCH_BYTES", 4000)
    exporter = get_exporter(format)
    convert, calls, stop_at = exporter.convert, [], [0]

    def stopping(self: Any, split: str, place: int, rows: Any) -> Any:
        calls.append(rows[0]["row"])
        if len(calls) == stop_at[0]:
            raise KeyboardInterrupt
        return convert(self, split, place, rows)

    monkeypatch.setattr(exporter, "convert", stopping)
    out = tmp_path / "out"
    for stop_at[0] in (5, 12):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            export_dataset(data, out, config)
        assert not out.exists() and (tmp_path / "out.partial").is_dir()
    stop_at[0] = -1
    calls.clear()
    counts = export_dataset(data, out, config)
    assert counts is not None and len(calls) < counts.rows - 6, "finished blocks were written again"
    assert tree(out) == tree(tmp_path / "whole") and not (tmp_path / "out.partial").exists()
    calls.clear()
    assert export_dataset(data, out, config) is None and not calls
    assert sorted(os.listdir(tmp_path)) == ["out", "whole"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_kill_while_the_blocks_are_removed_costs_no_label(
    format: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ExportConfig(format, shard_rows=3 if format == "webdataset" else None)
    export_dataset(data, tmp_path / "whole", config)
    monkeypatch.setattr(job, "BLOCK_ROWS", 3)
    stopped: list[Path] = []
    remove = remove_path

    def half(path: Path) -> None:
        if path.name == "parts.done" and path.exists() and not stopped:
            stopped.append(path)
            for one in sorted(path.rglob("*"))[::2]:
                remove(one)
            raise KeyboardInterrupt
        remove(path)

    monkeypatch.setattr(export_folder, "remove_path", half)
    with pytest.raises(KeyboardInterrupt):
        export_dataset(data, tmp_path / "out", config)
    export_dataset(data, tmp_path / "out", config)
    assert stopped and tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["out", "whole"]


def test_split_and_limit_choose_rows(data: Path, tmp_path: Path) -> None:
    truth = every_field(24)["split"]
    for split, limit, wanted in (
        ("val", None, np.flatnonzero(truth == 1)),
        ("train", 3, np.flatnonzero(truth == 0)[:3]),
        ("all", 5, np.arange(5)),
        ("all", 10**9, np.arange(24)),
    ):
        out = tmp_path / f"{split}-{limit}"
        counts = export_dataset(data, out, ExportConfig("png", split=split, limit=limit))
        assert counts is not None and counts.rows == counts.images == len(wanted)
        rows = {int(path.stem): path.parts[-3] for path in out.rglob("*.json") if path.parent.name == "labels"}
        assert sorted(rows) == wanted.tolist()
        assert all(("train", "val", "test")[truth[row]] == name for row, name in rows.items())


@pytest.mark.parametrize("format", ["coco", "yolo-pose"])
def test_a_limit_cuts_no_image_in_two(format: str, data: Path, tmp_path: Path) -> None:
    for limit, hands in ((4, 4), (5, 4), (6, 6), (7, 6), (8, 8)):  # rows 4 and 5 are one image, 6 and 7 another
        counts = export_dataset(data, tmp_path / str(limit), ExportConfig(format, limit=limit))
        assert counts is not None and counts.rows == hands and counts.left_out == 0
    apart = every_field(24)
    apart["image_id"][:] = np.arange(24) % 12
    for name in ("images", "camera", "split", "group"):
        apart[name][12:] = apart[name][:12]
    source = write_all(tmp_path / "apart.h5", apart)
    counts = export_dataset(source, tmp_path / "apart", ExportConfig(format, limit=7))
    assert counts is not None and (counts.images, counts.rows) == (3, 6)
    assert_refused(
        handaug("export", format, source, tmp_path / "one", "--limit", "1"), "--limit 1: the 2 hands", "give 2 or more"
    )
    assert not (tmp_path / "one").exists() and not (tmp_path / "one.partial").exists()


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "BLOCK_ROWS", 64)
    monkeypatch.setattr(job, "BATCH_BYTES", 1 << 16)
    plan, peaks = job._plan, []

    def planned(*arguments: Any) -> Any:
        """A few numbers for each row are held all the time; what counts is what comes on top while writing."""
        blocks = plan(*arguments)
        tracemalloc.reset_peak()
        return blocks

    monkeypatch.setattr(job, "_plan", planned)
    for count in (100, 600):
        rows = {name: np.resize(v, (count, *v.shape[1:])) for name, v in every_field(30, channels=1).items()}
        rows["image_id"] = np.arange(count)
        rows["split"][:] = 0
        source = write_all(tmp_path / f"{count}.h5", rows)
        del rows
        tracemalloc.start()
        export_dataset(source, tmp_path / str(count), ExportConfig("coco"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 150_000, peaks  # the labels of a row alone are 2 kB of text


def test_names_are_registered_once_and_told_in_the_help() -> None:
    assert FORMATS == ("coco", "freihand", "png", "webdataset", "yolo-pose")
    with pytest.raises(ValueError, match="coco"):
        register_exporter("coco")(get_exporter("png"))
    help_text = handaug("export", "--help").stdout
    listed = [
        line.split()[0]
        for line in help_text.split("FORMAT:\n")[1].split("\n\n")[0].splitlines()
        if line.startswith("    ")
    ]
    assert tuple(listed) == FORMATS


# the command


def test_the_command_exports_beside_the_data_and_does_nothing_twice(data: Path, tmp_path: Path) -> None:
    (tmp_path / "renders.h5").write_bytes(data.read_bytes())
    done = handaug("export", "coco", "--workspace", tmp_path)
    assert done.exit_code == 0 and "23 images and 24 hands" in done.stderr and not done.stdout
    before = tree(tmp_path / "renders-coco")
    assert json.loads(before["handaug.json"])["counts"] == {"images": 23, "rows": 24, "left_out": 0}
    again = handaug("export", "coco", "--workspace", tmp_path)
    assert again.exit_code == 0 and "nothing to do" in again.stderr and tree(tmp_path / "renders-coco") == before
    other = handaug("export", "freihand", data, tmp_path / "f")
    assert "1 that freihand cannot hold were left out" in other.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--limit", "0"], ["--limit 0"]),
        (["--limit", "-3"], ["--limit -3"]),
        (["--quality", "0"], ["--quality 0"]),
        (["--quality", "101"], ["--quality 101"]),
        (["--split", "training"], ["--split training", "train"]),
        (["--shard-rows", "5"], ["--shard-rows 5", "coco has no shards"]),
    ],
)
def test_wrong_options_are_refused(options: list[str], words: list[str], data: Path, tmp_path: Path) -> None:
    assert_refused(handaug("export", "coco", data, tmp_path / "out", *options), *words)
    assert not os.listdir(tmp_path)


def test_what_a_format_cannot_do_is_refused(data: Path, tmp_path: Path) -> None:
    assert_refused(handaug("export", "cocoa", data, tmp_path / "out"), "FORMAT cocoa", "coco, freihand")
    assert_refused(handaug("export", "png", data, tmp_path / "out", "--quality", "9"), "png is always without loss")
    assert_refused(handaug("export", "webdataset", data, tmp_path / "out", "--shard-rows", "0"), "--shard-rows 0")
    flat = {name: v for name, v in every_field(4).items() if name not in ("keypoints_3d", "camera")}
    source = write_all(tmp_path / "flat.h5", flat)
    assert_refused(handaug("export", "freihand", source, tmp_path / "out"), "flat.h5", "keypoints_3d, camera", "coco")
    holes = every_field(2)
    holes["keypoints_3d"][:, 0] = holes["keypoints_2d"][:, 0] = np.nan
    holes["visibility"][:, 0] = 0
    source = write_all(tmp_path / "holes.h5", holes)
    assert_refused(handaug("export", "freihand", source, tmp_path / "out"), "holes.h5", "no row")
    assert_refused(handaug("export", "coco", source, tmp_path / "out", "--split", "test"), "holes.h5", "split test")
    assert sorted(os.listdir(tmp_path)) == ["flat.h5", "holes.h5"]


def test_yolo_without_a_label_is_refused_and_names_no_split_that_is_not_there(tmp_path: Path) -> None:
    rows = {name: values for name, values in every_field(24).items() if name != "mask"}
    rows["visibility"][rows["split"] == 1] = 0
    counts = export_dataset(write_all(tmp_path / "some.h5", rows), tmp_path / "out", ExportConfig("yolo-pose"))
    assert counts is not None and counts.left_out == (rows["split"] == 1).sum()
    named = [line for line in (tmp_path / "out" / "data.yaml").read_text().splitlines() if ": images/" in line]
    assert named == ["train: images/train", "test: images/test"]
    rows["visibility"][:] = 0
    source = write_all(tmp_path / "none.h5", rows)
    refused = handaug("export", "yolo-pose", source, tmp_path / "ex")
    assert_refused(refused, "none.h5: no row has a label, which yolo-pose needs; choose another format")
    rows["visibility"][4] = 2  # a hand of a picture whose other hand has none
    source = write_all(tmp_path / "half.h5", rows)
    refused = handaug("export", "yolo-pose", source, tmp_path / "ex")
    assert_refused(refused, "half.h5: every picture has a hand without a label")
    assert sorted(os.listdir(tmp_path)) == ["half.h5", "none.h5", "out", "some.h5"]


def test_wrong_data_are_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert_refused(handaug("export", "coco", tmp_path / "none.h5", out), "none.h5: no such file")
    assert_refused(handaug("export", "coco", tmp_path, out), "is a folder")
    (tmp_path / "text.h5").write_text("no HDF5")
    assert_refused(handaug("export", "coco", tmp_path / "text.h5", out), "text.h5: is not an HDF5 file")
    (tmp_path / "cut.h5").write_bytes(data.read_bytes()[:-5000])
    assert_refused(handaug("export", "coco", tmp_path / "cut.h5", out), "cut.h5: is truncated or damaged")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["images"] = np.zeros(3)
    assert_refused(handaug("export", "coco", tmp_path / "foreign.h5", out), "foreign.h5", "not a handaug dataset")
    with h5py.File(write_all(tmp_path / "bad.h5", every_field(4)), "r") as file:
        chunk = file["mask"].id.get_chunk_info(2)
    with open(tmp_path / "bad.h5", "rb+") as handle:
        handle.seek(chunk.byte_offset)
        handle.write(b"\xff" * chunk.size)
    assert_refused(handaug("export", "coco", tmp_path / "bad.h5", out), "bad.h5: mask is damaged", "handaug verify")
    assert not out.exists() and not (tmp_path / "out.partial").exists()


def test_outputs_that_are_something_else_are_left_alone(data: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "mine.jpg").write_bytes(b"1")
    for extra in ([], ["--overwrite"]):
        assert_refused(handaug("export", "coco", data, foreign, *extra), "photos", "no export of handaug")
        assert_refused(handaug("export", "coco", data, foreign / "mine.jpg", *extra), "mine.jpg", "is a file")
        assert_refused(handaug("export", "coco", data, foreign / "mine.jpg" / "x", *extra), "cannot be written")
    assert tree(tmp_path) == {"photos/mine.jpg": b"1"}


def test_another_export_is_replaced_only_where_asked(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder may be filled
    assert handaug("export", "coco", data, out, "--limit", "3").exit_code == 0
    before = tree(out)
    assert_refused(handaug("export", "coco", data, out), "out: holds another export", "--overwrite")
    assert_refused(handaug("export", "png", data, out), "--overwrite")
    assert tree(out) == before
    (out / "inside.h5").write_bytes(data.read_bytes())
    assert_refused(handaug("export", "png", out / "inside.h5", out, "--overwrite"), "holds the dataset inside.h5")
    assert handaug("export", "png", data, out, "--overwrite").exit_code == 0
    assert (
        not (out / "annotations").exists() and (out / "train" / "images").is_dir() and os.listdir(tmp_path) == ["out"]
    )


def test_a_link_to_a_folder_stays_a_link(data: Path, tmp_path: Path) -> None:
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    for extra in ([], ["--limit", "3", "--overwrite"]):
        assert handaug("export", "coco", data, tmp_path / "link", *extra).exit_code == 0
        assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "real" / "handaug.json").exists()
    assert os.listdir(tmp_path / "disk") == ["real"] and sorted(os.listdir(tmp_path)) == ["disk", "link"]
    (tmp_path / "dangling").symlink_to("nowhere")
    assert_refused(handaug("export", "coco", data, tmp_path / "dangling"), "dangling: is a link to nothing")


def test_unfinished_work_of_another_export_is_not_mixed_in(data: Path, tmp_path: Path) -> None:
    partial = tmp_path / "out.partial"
    (partial / "parts").mkdir(parents=True)
    (partial / "handaug.json").write_text('{"identity": {"export": "another"}}')
    (partial / "old.png").write_bytes(b"1")
    assert_refused(handaug("export", "coco", data, tmp_path / "out"), "out.partial", "--overwrite")
    assert handaug("export", "coco", data, tmp_path / "out", "--overwrite").exit_code == 0
    assert not list((tmp_path / "out").rglob("old.png")) and os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_a_folder_of_the_user_in_place_of_the_work_is_left_alone(
    options: list[str], data: Path, tmp_path: Path
) -> None:
    partial = tmp_path / "ex.partial"
    partial.mkdir()
    for name, text in (("thesis.txt", "precious"), ("handaug.json", "[]")):
        (partial / name).write_text(text)
        refused = handaug("export", "png", data, tmp_path / "ex", "--limit", "3", *options)
        assert_refused(refused, "ex.partial: holds other files, where the unfinished work would be; move it")
        assert tree(tmp_path) == {f"ex.partial/{name}": text.encode()}
        (partial / name).unlink()
    (partial / "lock").touch()  # what a kill right at the start leaves
    (partial / "handaug.json.tmp").write_text("{")
    assert handaug("export", "png", data, tmp_path / "ex", *options).exit_code == 0
    assert os.listdir(tmp_path) == ["ex"] and not (tmp_path / "ex" / "handaug.json.tmp").exists()


def test_a_kill_while_the_work_of_another_export_is_removed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_dataset(data, tmp_path / "whole", ExportConfig("coco"))
    monkeypatch.setattr(job, "BLOCK_ROWS", 3)

    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(get_exporter("coco"), "finish", stop)
        export_dataset(data, tmp_path / "out", ExportConfig("coco"))
    removed: list[Path] = []

    def first_alone(path: Path) -> None:
        if path.exists():
            if removed:
                raise KeyboardInterrupt
            removed.append(path)
        remove_path(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(export_folder, "remove_path", first_alone)
        export_dataset(data, tmp_path / "out", ExportConfig("png"), overwrite=True)
    assert_refused(handaug("export", "png", data, tmp_path / "out"), "unfinished work of another export")
    assert handaug("export", "coco", data, tmp_path / "out").exit_code == 0
    assert removed and tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.fixture
def busy(tmp_path: Path, data: Path) -> Iterator[Path]:
    """An output that another process is writing."""
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom handaug.data_specs.exporters import ExportConfig, coco, job\n"
        "def wait(*args):\n    print('at work', flush=True)\n    time.sleep(60)\n"
        "coco.CocoExporter.convert = wait\n"
        "job.export_dataset(Path(sys.argv[1]), Path(sys.argv[2]), ExportConfig('coco'))"
    )
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", program, data, out], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "at work\n"
        yield out
        process.kill()


def test_two_processes_do_not_write_one_output_and_a_killed_one_is_no_obstacle(busy: Path, data: Path) -> None:
    assert_refused(handaug("export", "coco", data, busy), "another process is writing it")
    assert not busy.exists()


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(data: Path, tmp_path: Path) -> None:
    """A file-size limit in a child process stands for the full disk: the same failing write, without root."""
    program = (
        "import resource, sys\nfrom handaug.cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\nmain(sys.argv[1:])"
    )
    out = tmp_path / "out"
    command = ["export", "webdataset", str(data), str(out)]
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"Error: {out}: the disk is full; free some space, then the same command goes on from here"
    )
    assert not out.exists() and handaug(*command).exit_code == 0 and len(list(out.glob("*.tar"))) == 3


def test_library_users_get_errors_they_can_act_on(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--limit 0"):
        export_dataset(data, tmp_path / "out", ExportConfig("coco", limit=0))

"""Writer, reader, merge, verification: round trips, and everything that can be wrong with a file."""

import errno
import multiprocessing
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows import random_rows, write_rows

from handaug.data_specs.draw import contact_sheet, draw_skeleton, save_png
from handaug.data_specs.errors import HandaugError, InputError, WorkError
from handaug.data_specs.merge import merge_datasets
from handaug.data_specs.partial import PartialOutput
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import FIELDS, LABEL_CHUNK_ROWS
from handaug.data_specs.summary import summarise
from handaug.data_specs.verify import verify_dataset
from handaug.data_specs.writer import DatasetWriter


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(poses=st.integers(1, 9), channels=st.sampled_from([1, 3]), seed=st.integers(0, 99), cut=st.integers(0, 18))
def test_what_is_written_is_read(tmp_path: Path, poses: int, channels: int, seed: int, cut: int) -> None:
    rows = random_rows(poses, channels=channels, seed=seed)
    path = tmp_path / f"{poses}-{channels}-{seed}-{cut}.h5"
    fields = [name for name in rows if not FIELDS[name].required]
    with DatasetWriter(
        path, kind="rendered", config={"b": 1, "a": [2]}, seed=seed, size=16, channels=channels, fields=fields
    ) as w:
        w.append({name: block[:cut] for name, block in rows.items()})
        w.append({name: block[cut:] for name, block in rows.items()})
    dataset = HandDataset(path)
    assert len(dataset) == 2 * poses and dataset.config == {"a": [2], "b": 1} and dataset.seed == seed
    assert dataset.size == (16, 16) and dataset.channels == channels and dataset.kind == "rendered"
    for name, block in rows.items():
        assert np.array_equal(dataset.read(name), block) and dataset.read(name).dtype == block.dtype
        assert np.array_equal(dataset[poses][name], block[poses])
    order = np.random.default_rng(seed).permutation(2 * poses)
    assert np.array_equal(dataset.read("images", order), rows["images"][order])
    assert verify_dataset(path) == []


def test_layout_opens_with_plain_h5py(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.h5", random_rows(3))
    with h5py.File(path) as file:
        assert file["images"].chunks == (1, 16, 16, 1) and file["images"].compression is None
        assert file["mask"].chunks == (1, 16, 16) and file["mask"].compression == "gzip"
        assert file["keypoints_2d"].chunks == (LABEL_CHUNK_ROWS, 21, 2)
        assert file.attrs["complete"] and file.attrs["schema"] == 1 and len(file.attrs["joints"]) == 21
        # what was reserved against a full disk is given back, whatever HDF5 keeps for itself
        stored = sum(file[name].id.get_storage_size() for name in file)
    assert path.stat().st_size < stored + 50_000
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_views(tmp_path: Path) -> None:
    rows = random_rows(20)
    path = write_rows(tmp_path / "a.h5", rows)
    for split, number in (("train", 0), ("val", 1), ("test", 2)):
        assert HandDataset(path, split=split).rows.tolist() == np.flatnonzero(rows["split"] == number).tolist()
    view = HandDataset(path, rows=[7, 3, 3, 39], fields=["images", "split"])
    assert np.array_equal(view.read("pose_id"), rows["pose_id"][[7, 3, 3, 39]])
    assert set(view[0]) == {"images", "split"}
    batches = list(view.iter_batches(3))
    assert [len(b["images"]) for b in batches] == [3, 1]
    assert np.array_equal(batches[1]["images"][0], rows["images"][39])
    with pytest.raises(IndexError):
        HandDataset(path, rows=[40])
    with pytest.raises(InputError, match="depth"):
        HandDataset(path, fields=["depth"])
    with pytest.raises(InputError, match="depth"):
        view.read("depth")


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_loader_workers_open_the_file_themselves(tmp_path: Path, start: str) -> None:
    rows = random_rows(20)
    dataset = HandDataset(write_rows(tmp_path / "a.h5", rows), fields=["images", "keypoints_2d"])
    dataset.read("images", slice(0, 1))  # an open handle in the parent must not reach the workers
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        dataset,  # type: ignore[arg-type]  # a plain map-style class, which is all that torch asks for
        batch_size=8,
        num_workers=2,
        multiprocessing_context=multiprocessing.get_context(start),
    )
    images = torch.cat([batch["images"] for batch in loader]).numpy()
    assert np.array_equal(images, rows["images"])
    assert np.array_equal(pickle.loads(pickle.dumps(dataset)).read("images"), rows["images"])


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.h5", random_rows(2))
    before = path.read_bytes()
    with pytest.raises(RuntimeError), _writer(path) as writer:
        writer.append(random_rows(5))
        raise RuntimeError
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def _writer(path: Path) -> DatasetWriter:
    fields = ["keypoints_3d", "camera", "mask", "pose_id", "appearance_id", "image_id"]
    return DatasetWriter(path, kind="rendered", config={}, seed=0, size=16, channels=1, fields=fields)


def test_the_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    rows = random_rows(2)
    wrong: list[dict[str, Any]] = [
        {**rows, "images": rows["images"].astype(np.float32)},
        {**rows, "images": rows["images"][:, :8]},
        {**rows, "split": rows["split"][:-1]},
        {name: block for name, block in rows.items() if name != "split"},
        {**rows, "depth": np.zeros((4, 16, 16), np.float16)},
    ]
    for bad in wrong:
        with pytest.raises(ValueError), _writer(tmp_path / "a.h5") as writer:
            writer.append(bad)
    assert not list(tmp_path.iterdir())


def test_merge_equals_one_file(tmp_path: Path) -> None:
    rows = random_rows(10, seed=3)
    whole = write_rows(tmp_path / "whole.h5", rows, config={"x": 1})
    parts = [
        write_rows(tmp_path / f"{i}.h5", {n: b[5 * i : 5 * i + 5] for n, b in rows.items()}, config={"part": i})
        for i in range(4)
    ]
    merged = merge_datasets(parts, tmp_path / "merged.h5", config={"x": 1}, seed=0)
    assert HandDataset(merged).checksum == HandDataset(whole).checksum and verify_dataset(merged) == []
    other = write_rows(tmp_path / "other.h5", random_rows(2, size=32))
    with pytest.raises(InputError, match=r"other\.h5"):
        merge_datasets([whole, other], tmp_path / "merged2.h5", config={}, seed=0)
    assert not (tmp_path / "merged2.h5").exists() and not list(tmp_path.glob("*.partial"))


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file" / "out.h5", Path("/proc/out.h5"), tmp_path):
        with pytest.raises(InputError, match="cannot be written|is a folder"):
            PartialOutput.open(out, {}, overwrite=False)
    with pytest.raises(InputError, match="cannot be written"):
        _writer(Path("/proc/a.h5"))
    with pytest.raises(InputError, match="cannot be written"):
        save_png(Path("/proc/a.png"), np.zeros((4, 4, 3), np.uint8))


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    """A file-size limit in a child process stands for the full disk: the same failing write, without root."""
    path = write_rows(tmp_path / "a.h5", random_rows(2))
    before = path.read_bytes()
    code = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from rows import random_rows, write_rows
from handaug.data_specs.errors import WorkError
rows = random_rows(400, size=64)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    write_rows(Path(sys.argv[1]), rows)
except WorkError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(Path(__file__).parent)], capture_output=True, text=True, timeout=120
    )
    assert "writing failed (the disk is full)" in done.stdout and done.stdout.count("\n") == 1, (
        done.stdout + done.stderr
    )
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def _damage(path: Path, how: str) -> None:
    if how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not HDF5")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "foreign":
        with h5py.File(path, "w") as file:
            file["x"] = [1]
    else:
        with h5py.File(path, "r+") as file:
            _damage_content(file, how)


def _damage_content(file: h5py.File, how: str) -> None:
    match how:
        case "newer":
            file.attrs["schema"] = 2
        case "unfinished":
            file.attrs["complete"] = False
        case "joints order":
            file.attrs["joints"] = list(file.attrs["joints"])[::-1]
        case "no visibility":
            del file["visibility"]
        case "wrong dtype":
            del file["handedness"]
            file["handedness"] = np.zeros(8, np.float32)
        case "rows differ":
            file["split"].resize(3, axis=0)
        case "nan":
            file["keypoints_2d"][2, 5] = np.nan
        case "no pixels":
            for name in ("images", "mask"):
                stored = file[name][:, :0, :0]
                del file[name]
                file[name] = stored
        case "link":
            del file["split"]
            file["split"] = h5py.ExternalLink("gone.h5", "/split")
        case _ if how.startswith("group "):
            del file[how[6:]]
            file.create_group(how[6:])
        case _ if how.startswith("no "):
            del file.attrs[how[3:]]
        case _:
            file.attrs[how] = DAMAGED_ATTRIBUTES[how]


DAMAGED_ATTRIBUTES: dict[str, Any] = {
    "schema": "one",
    "complete": [True, False],
    "joints": 5,
    "kind": np.bytes_(b"\xff\xfe"),
    "config": "{not json",
    "seed": "x",
    "checksum": 5,
}


WRONG_HEADER = ["newer", "unfinished", "joints order", "no visibility", "wrong dtype", "rows differ"]


DAMAGED_HEADER = [
    *DAMAGED_ATTRIBUTES,
    *(f"no {name}" for name in ("kind", "config", "seed", "checksum")),
    *(f"group {name}" for name in ("images", "keypoints_2d", "mask", "split")),
    "link",
    "no pixels",
]


HEADER_DAMAGE = [*WRONG_HEADER, *DAMAGED_HEADER]


@pytest.mark.parametrize("how", ["empty", "text", "truncated", "foreign", *HEADER_DAMAGE, "nan"])
def test_bad_files_are_refused_in_one_line(tmp_path: Path, how: str) -> None:
    path = write_rows(tmp_path / "a.h5", random_rows(4))
    _damage(path, how)
    with pytest.raises(InputError) as caught:
        HandDataset(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and ";" in str(caught.value)


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("schema", float("nan"), "its schema is"),
        ("schema", 0, "its schema is"),
        ("kind", "weird", "its kind 'weird' is none of rendered, minted, imported"),
        ("config", "[1, 2]", "its config is no JSON object"),
        ("config", "[" * 100_000, "its config is no JSON"),
    ],
)
def test_attributes_say_what_they_are(tmp_path: Path, attribute: str, value: Any, words: str) -> None:
    path = write_rows(tmp_path / "a.h5", random_rows(1))
    with h5py.File(path, "r+") as file:
        if attribute == "config" and len(value) > 1000:
            file.attrs.create(attribute, value, dtype=h5py.string_dtype())
        else:
            file.attrs[attribute] = value
    with pytest.raises(InputError, match=words):
        HandDataset(path)


def test_flipped_bytes_never_end_in_an_error_of_h5py(tmp_path: Path) -> None:
    """Anywhere in the file: a file is read, reported or refused in one line."""
    path = write_rows(tmp_path / "a.h5", random_rows(3))
    sound = path.read_bytes()
    refused = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        damaged = np.frombuffer(sound, np.uint8).copy()
        ends = np.r_[0 : min(20_000, len(sound)), max(0, len(sound) - 20_000) : len(sound)]
        damaged[rng.choice(ends, 60)] = rng.integers(0, 256, 60, dtype=np.uint8)
        path.write_bytes(damaged.tobytes())
        for use in (lambda: HandDataset(path).read("images"), lambda: verify_dataset(path)):
            try:
                use()
            except InputError as error:
                refused += 1
                assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 10


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.h5", random_rows(4))
    with h5py.File(path, "r+") as file:
        file["mask"].id.write_direct_chunk((3, 0, 0), b"no gzip")
    with pytest.raises(InputError, match="mask is damaged"):
        HandDataset(path).read("mask")
    with pytest.raises(InputError, match="is damaged"):
        HandDataset(path)[3]
    assert any("cannot be read" in problem for problem in verify_dataset(path))


@pytest.mark.parametrize("field", ["keypoints_2d", "camera"])
def test_absurd_labels_are_reported_without_a_warning(tmp_path: Path, field: str) -> None:
    path = write_rows(tmp_path / "a.h5", random_rows(4))
    with h5py.File(path, "r+") as file:
        file[field][:] = 1e30 if field == "keypoints_2d" else 3e38
    with warnings.catch_warnings(action="error"):
        assert verify_dataset(path)


def test_pipes_loops_and_long_names_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    for name, words in (
        ("pipe.h5", "no regular file"),
        ("loop.h5", "cannot be read"),
        ("a" * 300, "File name too long"),
        ("pipe.h5/a.h5", "no such file"),
    ):
        for use in (HandDataset, verify_dataset):
            with pytest.raises(InputError, match=words):
                use(tmp_path / name)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "none.h5", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            HandDataset(path)
        with pytest.raises(InputError, match=str(path)):
            verify_dataset(path)


def test_zero_rows(tmp_path: Path) -> None:
    empty = {name: block[:0] for name, block in random_rows(1).items()}
    for rows in (empty, None):
        path = tmp_path / f"{rows is None}.h5"
        with _writer(path) as writer:
            if rows is not None:
                writer.append(rows)
        assert len(HandDataset(path)) == 0 and HandDataset(path).read("images").shape == (0, 16, 16, 1)
        assert verify_dataset(path) == []


def test_a_name_says_nothing_of_damage_and_a_newer_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "truncated.h5").write_text("no HDF5")
    for name in ("truncated.h5", "truncated-nothing.h5"):
        with pytest.raises(InputError, match=name):
            verify_dataset(tmp_path / name)
    newer = write_rows(tmp_path / "newer.h5", random_rows(2))
    with h5py.File(newer, "r+") as file:
        file.attrs["schema"] = np.int64(2)
    with pytest.raises(InputError, match="install a newer handaug"):
        verify_dataset(newer)


def test_pixel_statistics_by_hand_in_little_memory(tmp_path: Path) -> None:
    rows = random_rows(30, channels=3)
    view = HandDataset(write_rows(tmp_path / "a.h5", rows), rows=range(3, 57))
    found = summarise(view)
    pixels = rows["images"][3:57].astype(np.float64)
    assert found["image_mean"] == pytest.approx(pixels.mean(), rel=1e-12)
    assert found["image_std"] == pytest.approx(pixels.std(), rel=1e-9)


@pytest.mark.parametrize("how", ["truncated", *sorted(set(HEADER_DAMAGE) - {"newer"})])  # no damage: see above
def test_verify_reports_damage(tmp_path: Path, how: str) -> None:
    path = write_rows(tmp_path / "a.h5", random_rows(4))
    _damage(path, how)
    assert len(verify_dataset(path)) == 1


def test_verify_finds_what_is_wrong_inside(tmp_path: Path) -> None:
    rows = random_rows(10)
    changes = {
        "project": {**rows, "keypoints_3d": rows["keypoints_3d"] * np.array([1, -1, 1], np.float32)},
        "more than one split": {**rows, "split": np.arange(20, dtype=np.uint8) % 3},
        "handedness has values": {**rows, "handedness": rows["handedness"] + np.uint8(5)},
        "mask differs within a pose": {
            **rows,
            "mask": rows["mask"] ^ (np.arange(20) == 7).astype(np.uint8)[:, None, None],
        },
        "camera differs within a pose": {
            **rows,
            "camera": rows["camera"] + np.float32(1e-4) * (np.arange(20) == 7)[:, None, None].astype(np.float32),
        },
        "outside the image": {**rows, "keypoints_2d": rows["keypoints_2d"] + np.float32(9)},
    }
    for expected, bad in changes.items():
        problems = verify_dataset(write_rows(tmp_path / "a.h5", bad))
        assert any(expected in problem for problem in problems), (expected, problems)
    path = write_rows(tmp_path / "a.h5", rows)
    with h5py.File(path, "r+") as file:
        file["images"][3, 2, 2] ^= 255
    assert verify_dataset(path) == [f"{path}: the content does not fit its checksum"]
    with h5py.File(path, "r+") as file:
        file["images"][3, 2, 2] ^= 255
    assert verify_dataset(path) == []


def test_the_checksum_ignores_storage(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.h5", random_rows(4))
    copy = tmp_path / "copy.h5"
    with h5py.File(path) as source, h5py.File(copy, "w") as target:
        for name, value in source.attrs.items():
            target.attrs[name] = value
        for name in source:
            target.create_dataset(name, data=source[name][:], compression="lzf", shuffle=True, chunks=True)
    assert verify_dataset(copy) == []


def test_drawn_joints_sit_on_their_pixels(tmp_path: Path) -> None:
    image = np.zeros((32, 32, 1), np.uint8)
    keypoints = np.random.default_rng(0).uniform(4, 27, (21, 2))
    for joint in (0, 8, 20):
        only = np.zeros(21, int)
        only[joint] = 2
        picture = draw_skeleton(image, keypoints, only, scale=6).sum(-1).astype(float)
        y, x = (np.indices(picture.shape) * picture).sum((1, 2)) / picture.sum()
        assert np.abs((np.array([x, y]) + 0.5) / 6 - 0.5 - keypoints[joint]).max() < 0.05
    assert draw_skeleton(image, keypoints, np.zeros(21, int)).max() == 0
    assert draw_skeleton(image, np.full((21, 2), np.nan)).max() == 0
    sheet = contact_sheet(np.repeat(image[None], 5, 0), np.repeat(keypoints[None], 5, 0), columns=3, scale=2)
    assert save_png(tmp_path / "a.png", sheet).stat().st_size > 100


def test_a_full_disk_at_a_picture_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_png(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    before = (tmp_path / "a.png").read_bytes()

    def full(path: Path, data: bytes) -> int:
        with open(path, "wb") as handle:
            handle.write(data[:5])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WorkError, match="a.png: writing failed .the disk is full.; free space"):
        save_png(tmp_path / "a.png", np.ones((8, 8, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_errors_carry_their_exit_codes() -> None:
    assert (HandaugError.exit_code, InputError.exit_code, WorkError.exit_code) == (1, 2, 1)

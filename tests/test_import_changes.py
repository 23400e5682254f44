"""Changed labels are noticed, by content or by the state of their files, and wherever the source lies."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
from import_commands import edit, refused, run
from layouts import flat, threed
from layouts.umetrack import write_umetrack

from handaug.data_specs.errors import InputError
from handaug.data_specs.importers import job
from handaug.data_specs.importers.changes import files_digest
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.registry import FORMATS, open_source
from handaug.data_specs.reader import HandDataset

LABELS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "rhd": (threed.write_rhd, ("training/anno_training.pickle", "evaluation/anno_evaluation.pickle")),
    "stb": (threed.write_stb, ("labels/*_BB.mat", "labels/*_SK.mat")),
    "freihand": (threed.write_freihand, ("training_xyz.json", "evaluation_K.json")),
    "interhand": (threed.write_interhand, ("annotations/*/*_data.json", "annotations/*/*_camera.json")),
    "ho3d": (threed.write_ho3d, ("train/*/meta/*.pkl",)),
    "dexycb": (threed.write_dexycb, ("*/*/*/labels_*.npz", "*/*/meta.yml", "calibration/intrinsics/*.yml")),
    "coco-wholebody": (flat.write_wholebody, ("annotations/*_train_*.json", "annotations/*_val_*.json")),
    "onehand10k": (flat.write_onehand10k, ("Train/label_joint.txt", "Test/label_joint.txt")),
    "panoptic": (flat.write_panoptic, ("hand_labels/*/*.json", "hand143_panopticdb/*.json")),
    "coco": (flat.write_coco, ("annotations.json",)),
    "umetrack": (write_umetrack, ("*/*/*/*/*.json",)),
}


def change(path: Path) -> None:
    """Another content that can be read all the same."""
    data = bytearray(path.read_bytes())
    if path.suffix == ".mat":
        data[len(data) // 2] ^= 1  # inside a number
    else:
        data += b"\n"
    path.write_bytes(data)


def state(name: str, source: Path) -> tuple[str, str]:
    opened = open_source(name, source, ImportOptions())[1]
    return opened.labels, files_digest(opened, range(len(opened)))


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "frames"])
def test_changed_labels_of_every_format_are_noticed(name: str, tmp_path: Path) -> None:
    write, patterns = LABELS[name]
    write(tmp_path / "s")
    before = state(name, tmp_path / "s")
    shutil.copytree(tmp_path / "s", tmp_path / "elsewhere" / "s")
    assert any(before) and state(name, tmp_path / "elsewhere" / "s") == before
    for pattern in patterns:
        before = state(name, tmp_path / "s")
        for file in list((tmp_path / "s").glob(pattern)):
            change(file)
        assert state(name, tmp_path / "s") != before, pattern


def take_the_last_label_back(content: Any) -> None:
    for item in content["annotations"]:
        if "keypoints_3d" in item:
            item["keypoints"][62] = 0


def test_corrected_labels_are_another_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "SHARD_UNITS", 2)
    flat.write_coco(tmp_path / "s")
    assert run("coco", tmp_path / "s", tmp_path / "o.h5").exit_code == 0
    hidden = tmp_path / "s" / "images" / "00003.png"
    hidden.rename(tmp_path / "aside.png")
    refused(run("coco", tmp_path / "s", tmp_path / "begun.h5"), "00003.png: is missing")
    (tmp_path / "aside.png").rename(hidden)
    shutil.move(tmp_path / "s", tmp_path / "elsewhere" / "s")
    moved = tmp_path / "elsewhere" / "s"
    assert "complete, nothing to do" in run("coco", moved, tmp_path / "o.h5").stderr
    edit(moved / "annotations.json", take_the_last_label_back)
    refused(run("coco", moved, tmp_path / "o.h5"), "exists with another configuration; add --overwrite")
    refused(run("coco", moved, tmp_path / "begun.h5"), "unfinished work of another configuration; add --overwrite")
    assert HandDataset(tmp_path / "o.h5").read("visibility")[:, 20].all()
    assert run("coco", moved, tmp_path / "o.h5", "--overwrite").exit_code == 0
    assert not HandDataset(tmp_path / "o.h5").read("visibility")[:, 20].any()


def test_label_file_of_a_frame_that_was_replaced_lets_the_import_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "SHARD_UNITS", 1)
    threed.write_ho3d(tmp_path / "s")
    listed = (tmp_path / "s" / "train.txt").read_text().split()
    metas = [tmp_path / "s" / "train" / name.replace("/", "/meta/") for name in listed]
    first, last = (path.with_name(path.name + ".pkl") for path in (metas[0], metas[-1]))
    sound = last.read_bytes()
    last.write_bytes(sound[:-40])
    options = ImportOptions()
    with pytest.raises(InputError, match="is not a sound pickle"):
        job.import_dataset("ho3d", tmp_path / "s", tmp_path / "o.h5", options)
    last.write_bytes(sound)
    change(first)
    made: list[int] = []
    original = job._Job._unit

    def watched(self: Any, index: int) -> Any:
        made.append(index)
        return original(self, index)

    monkeypatch.setattr(job._Job, "_unit", watched)
    job.import_dataset("ho3d", tmp_path / "s", tmp_path / "o.h5", options)
    assert {0, len(metas) - 1} <= set(made) and len(made) == len(set(made))
    assert set(range(1, len(metas) - 1)).isdisjoint(made)
    change(first)
    with pytest.raises(InputError, match="exists with another configuration"):
        job.import_dataset("ho3d", tmp_path / "s", tmp_path / "o.h5", options)


def test_a_file_of_an_older_handaug_has_every_view(tmp_path: Path) -> None:
    threed.write_stb(tmp_path / "s")
    assert run("stb", tmp_path / "s", tmp_path / "o.h5").exit_code == 0
    with h5py.File(tmp_path / "o.h5", "a") as file:
        config = json.loads(file.attrs["config"])
        assert config.pop("views") == "all"
        file.attrs["config"] = json.dumps(config)
    assert "complete, nothing to do" in run("stb", tmp_path / "s", tmp_path / "o.h5").stderr
    refused(run("stb", tmp_path / "s", tmp_path / "o.h5", "--views", "BB_left"), "exists with another configuration")

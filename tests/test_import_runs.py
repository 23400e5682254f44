"""Interrupted imports go on; options do as they say; joints are found by their usual names."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_commands import edit, no_image, refused, run
from layouts import flat, threed
from layouts.hands import save

from handaug.data_specs.errors import InputError
from handaug.data_specs.importers import job
from handaug.data_specs.importers.joint_names import map_names
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.joints import JOINTS
from handaug.data_specs.reader import HandDataset

# going on


def test_interrupted_import_goes_on_and_makes_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "s"
    flat.write_coco(source, images=10)
    monkeypatch.setattr(job, "SHARD_UNITS", 3)
    options = ImportOptions(size=32)
    job.import_dataset("coco", source, tmp_path / "whole.h5", options)
    hidden = source / "images" / "00007.png"
    hidden.rename(tmp_path / "aside.png")
    with pytest.raises(InputError, match="00007.png: is missing"):
        job.import_dataset("coco", source, tmp_path / "again.h5", options)
    work = tmp_path / "again.h5.partial"
    assert sorted(path.name for path in work.glob("shard-*.h5")) == ["shard-000000.h5", "shard-000001.h5"]
    with pytest.raises(InputError, match="unfinished work of another configuration"):
        job.import_dataset("coco", source, tmp_path / "again.h5", ImportOptions(size=48))
    (tmp_path / "aside.png").rename(hidden)
    read: list[int] = []
    original = job._Job._unit

    def watched(self: Any, index: int) -> Any:
        read.append(index)
        return original(self, index)

    monkeypatch.setattr(job._Job, "_unit", watched)
    job.import_dataset("coco", source, tmp_path / "again.h5", options)
    assert sorted(read) == [6, 7, 8, 9]
    assert HandDataset(tmp_path / "again.h5").checksum == HandDataset(tmp_path / "whole.h5").checksum
    assert not work.exists()
    done = run("coco", source, tmp_path / "again.h5", "--size", "32")
    assert done.exit_code == 0 and "complete, nothing to do" in done.stderr
    refused(run("coco", source, tmp_path / "again.h5", "--size", "64"), "exists with another configuration")


def test_skipping_does_not_change_what_is_there(coco: Path, tmp_path: Path) -> None:
    assert (
        run("coco", coco, tmp_path / "a.h5").exit_code
        == run("coco", coco, tmp_path / "b.h5", "--skip-missing").exit_code
    )
    assert HandDataset(tmp_path / "a.h5").checksum == HandDataset(tmp_path / "b.h5").checksum


def test_nothing_left_is_an_error(coco: Path, tmp_path: Path) -> None:
    for image in (coco / "images").iterdir():
        no_image(image)
    refused(run("coco", coco, tmp_path / "o.h5", "--skip-missing"), "no hand came through (6 left out")
    refused(run("coco", coco, tmp_path / "o.h5", "--split", "official", "--hands", "left"), "no image that can be read")
    assert not list(tmp_path.glob("o.h5*"))


# options


def test_limit_takes_the_first_hands(coco: Path, tmp_path: Path) -> None:
    for path, options in ((tmp_path / "all.h5", {}), (tmp_path / "some.h5", {"limit": 3})):
        job.import_dataset("coco", coco, path, ImportOptions(**options))  # type: ignore[arg-type]
    everything, some = HandDataset(tmp_path / "all.h5"), HandDataset(tmp_path / "some.h5")
    assert len(some) == 3
    np.testing.assert_array_equal(some.read("images"), everything.read("images")[:3])


def test_new_split_keeps_groups_whole_and_runs_along_the_source(tmp_path: Path) -> None:
    flat.write_coco(tmp_path / "s", images=10)

    def group(content: Any) -> None:
        for image in content["images"]:
            image["sequence"] = image["id"] // 2

    edit(tmp_path / "s" / "annotations.json", group)
    job.import_dataset("coco", tmp_path / "s", tmp_path / "o.h5", ImportOptions(split="3:1:1"))
    data = HandDataset(tmp_path / "o.h5")
    assert data.read("split").tolist() == [0] * 12 + [1] * 4 + [2] * 4
    assert len(set(data.read("group"))) == 5
    job.import_dataset("coco", tmp_path / "s", tmp_path / "v.h5", ImportOptions(val=0.2))
    assert HandDataset(tmp_path / "v.h5").read("split").tolist() == [0] * 16 + [1] * 4


def test_shares_that_no_group_fits_are_told(coco: Path, tmp_path: Path) -> None:
    edit(coco / "annotations.json", lambda c: [image.update(sequence="one") for image in c["images"]] and None)
    shares = run("coco", coco, tmp_path / "s.h5", "--split", "8:1:1").stderr
    assert "--split 8:1:1: nothing for val and test: groups stay whole, and there is 1 group to split" in shares
    assert "no val part, which train-pose needs\n" in shares and "--val 0.1" not in shares
    edit(coco / "annotations.json", lambda c: c["images"][0].update(sequence="two"))
    moved = run("coco", coco, tmp_path / "v.h5", "--val", "0.1").stderr
    assert "--val 0.1: nothing for val: groups stay whole, and there are 2 groups to split" in moved
    assert "takes it from the train part" not in moved
    assert "nothing for" not in run("coco", coco, tmp_path / "f.h5", "--split", "1:0:1").stderr


def test_whole_images_of_unlike_size_are_named(coco: Path, tmp_path: Path) -> None:
    save(coco / "images" / "00002.png", np.zeros((100, 120, 3), np.uint8))
    edit(
        coco / "annotations.json",
        lambda c: c["images"][2].update(width=120, height=100, K=[[9, 0, 9], [0, 9, 9], [0, 0, 1]]),
    )
    edit(coco / "annotations.json", lambda c: [a.pop("keypoints_3d", 0) for a in c["annotations"]] and None)
    edit(coco / "annotations.json", lambda c: c["annotations"][4].update(keypoints=[50.0, 50.0, 2.0] * 21))
    line = refused(run("coco", coco, tmp_path / "o.h5", "--crop", "none"), "annotation 4", "use --crop square")
    assert "120 x 100 px, others as 400 x 320" in line
    assert run("coco", coco, tmp_path / "o.h5").exit_code == 0


def test_output_is_checked_before_labels_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(run("rhd", tmp_path, tmp_path / "file" / "o.h5"), "cannot be written", "choose another output")
    (tmp_path / "o.png").touch()
    refused(run("rhd", tmp_path, tmp_path / "o.png"), "o.png", "name the dataset .h5")


def test_no_folder_is_made_for_a_format_or_source_that_is_not_there(tmp_path: Path) -> None:
    refused(run("nosuch/deep/er", tmp_path, "--workspace", tmp_path / "work"), "nosuch/deep/er: is no format")
    refused(run("rhd", tmp_path / "nowhere", tmp_path / "q/w/e/o.h5"), "nowhere: no such folder")
    assert not list(tmp_path.iterdir())


def test_ids_follow_the_labels_and_not_the_place(coco: Path, tmp_path: Path) -> None:
    shutil.copytree(coco, tmp_path / "moved")
    flat.write_coco(tmp_path / "other", images=2)
    files = {name: tmp_path / f"{name}.h5" for name in ("coco", "moved", "other")}
    for name, file in files.items():
        job.import_dataset("coco", tmp_path / name, file, ImportOptions())
    data = {name: HandDataset(file) for name, file in files.items()}
    for field in ("pose_id", "image_id", "group"):
        np.testing.assert_array_equal(data["coco"].read(field), data["moved"].read(field))
        assert not set(data["coco"].read(field)) & set(data["other"].read(field))


def test_poses_and_unknown_sides_of_a_json(coco: Path, tmp_path: Path) -> None:
    def change(content: Any) -> None:
        for item in content["annotations"]:
            item["pose_id"] = item["id"] % 2
            item.pop("handedness", None)

    edit(coco / "annotations.json", change)
    done = run("coco", coco, tmp_path / "o.h5")
    assert "do not say which hand it is" in done.stderr and "6 hands of unknown side stored as right" in done.stderr
    data = HandDataset(tmp_path / "o.h5")
    assert set(data.read("handedness")) == {1}
    assert (data.read("pose_id")[::2] == data.read("pose_id")[0]).all() and len(set(data.read("pose_id"))) == 2
    left_out = "no hand came through (6 hands of unknown side left out by --hands)"
    refused(run("coco", coco, tmp_path / "r.h5", "--hands", "right"), left_out)


def test_official_parts_alone(tmp_path: Path) -> None:
    truths = threed.write_rhd(tmp_path / "s")
    for name, code in (("train", 0), ("test", 2)):
        job.import_dataset("rhd", tmp_path / "s", tmp_path / f"{name}.h5", ImportOptions(split=name))
        data = HandDataset(tmp_path / f"{name}.h5")
        assert len(data) == sum(truth.split == code for truth in truths) and set(data.read("split")) == {code}
    refused(run("rhd", tmp_path / "s", tmp_path / "v.h5", "--split", "val"), "has nothing for --split val")
    flat.write_coco(tmp_path / "c")
    job.import_dataset("coco", tmp_path / "c", tmp_path / "t.h5", ImportOptions(split="test"))
    assert set(HandDataset(tmp_path / "t.h5").read("split")) == {2}


def test_parts_that_file_names_tell_are_never_taken_for_another(coco: Path, tmp_path: Path) -> None:
    content = json.loads((coco / "annotations.json").read_text())
    (coco / "annotations.json").unlink()
    (coco / "annotations").mkdir()
    for part, images in (("train", (0, 1)), ("val", (2,))):
        labels = [item for item in content["annotations"] if item["image_id"] in images]
        (coco / "annotations" / f"{part}.json").write_text(json.dumps({**content, "annotations": labels}))
    for part, code, rows in (("train", 0, 4), ("val", 1, 2)):
        job.import_dataset("coco", coco, tmp_path / f"{part}.h5", ImportOptions(split=part))
        assert HandDataset(tmp_path / f"{part}.h5").read("split").tolist() == [code] * rows
    refused(run("coco", coco, tmp_path / "t.h5", "--split", "test"), "has nothing for --split test")


def test_coco_keypoints_in_any_order_and_words(tmp_path: Path) -> None:
    order = np.random.default_rng(4).permutation(21)
    words = {"little": "pinky_finger", "index": "forefinger", "middle": "middle_finger", "ring": "ring_finger"}
    mmpose = [
        "wrist",
        *(f"{words.get(f, f)}{k}" for f in ("thumb", "index", "middle", "ring", "little") for k in range(1, 5)),
    ]
    flat.write_coco(tmp_path / "plain", images=1)
    flat.write_coco(tmp_path / "mixed", images=1, order=order, names=tuple(mmpose))
    for name in ("plain", "mixed"):
        job.import_dataset("coco", tmp_path / name, tmp_path / f"{name}.h5", ImportOptions())
    plain, mixed = HandDataset(tmp_path / "plain.h5"), HandDataset(tmp_path / "mixed.h5")
    for field in ("keypoints_2d", "keypoints_3d", "visibility", "images"):
        np.testing.assert_array_equal(plain.read(field), mixed.read(field))


MEDIAPIPE = [
    "WRIST", "THUMB_CMC", "THUMB_MCP", "THUMB_IP", "THUMB_TIP",
    *(f"{finger}_{part}" for finger in ("INDEX_FINGER", "MIDDLE_FINGER", "RING_FINGER", "PINKY")
      for part in ("MCP", "PIP", "DIP", "TIP")),
]  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [
        list(JOINTS),
        MEDIAPIPE,
        [
            name.replace("cmc", "mcp").replace("thumb_ip", "thumb_dip") if k == 1 else name
            for k, name in enumerate(JOINTS)
        ],
        ["right " + name.replace("_", " ") for name in JOINTS],
    ],
)
def test_usual_names(names: list[str]) -> None:
    if names.count("thumb_mcp") == 2:
        names = ["wrist", "thumb_mcp", "thumb_pip", "thumb_dip", "thumb_tip", *names[5:]]
    assert map_names(names).tolist() == list(range(21))
    assert map_names(names[::-1]).tolist() == list(range(20, -1, -1))

"""Bad sources: one clear line and exit code 2, or a counted skip."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from import_commands import edit, no_image, refused, run, with_exif_turn
from layouts import flat, threed
from layouts.hands import save
from layouts.umetrack import write_umetrack

from handaug.data_specs.errors import InputError
from handaug.data_specs.importers.files import inside, json_items, json_members, photo
from handaug.data_specs.importers.registry import FORMATS
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.verify import verify_dataset

# where the source lies


@pytest.mark.parametrize("name", FORMATS)
def test_wrong_folder_says_what_was_looked_for_and_found(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "holiday").mkdir(parents=True)
    (source / "data.zip").touch()
    refused(run(name, source, tmp_path / "o.h5"), "looked for", "holiday/", "data.zip", "unpack data.zip first")
    (source / "data.zip").unlink()
    (source / "holiday").rmdir()
    refused(run(name, source, tmp_path / "o.h5"), "found nothing", "give the folder that holds it")
    refused(run(name, tmp_path / "nowhere", tmp_path / "o.h5"), "nowhere: no such folder")
    assert list(tmp_path.iterdir()) == [source]


def test_archive_and_file_in_place_of_a_folder(coco: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "set"), "zip", coco))
    refused(run("freihand", archive, tmp_path / "o.h5"), "set.zip: is an archive; unpack it")
    refused(run("rhd", coco / "annotations.json", tmp_path / "o.h5"), "annotations.json: is a file; give the folder")
    refused(run("freihan", coco, tmp_path / "o.h5"), "freihan: is no format", "did you mean freihand?")


@pytest.mark.parametrize(
    "option",
    [
        ("--split", "best"), ("--split", "8:1"), ("--split", "0:0:0"), ("--split", "-1:1:1"), ("--split", "s1"),
        ("--val", "1"), ("--val", "nan"), ("--crop", "round"), ("--margin", "-0.1"), ("--size", "7"),
        ("--channels", "cmyk"), ("--hands", "none"), ("--limit", "0"), ("--wrist", "palm"),
        ("--hands", "prominent"), ("--views", "BB_left"), ("--views", "left"),
    ],
)  # fmt: skip
def test_bad_options_are_named(option: tuple[str, str], coco: Path, tmp_path: Path) -> None:
    refused(run("coco", coco, tmp_path / "o.h5", *option), f"{option[0]} {option[1]}".replace(" nan", " nan"))


# files and labels


def test_climbing_paths_are_refused_even_where_skipping_is_on(coco: Path, tmp_path: Path) -> None:
    for name in ("../secret.png", "/etc/passwd", "a/../../b.png", "..\\b.png", "c:/b.png"):
        content = json.loads((coco / "annotations.json").read_text())
        content["images"][1]["file_name"] = name
        (coco / "annotations.json").write_text(json.dumps(content))
        refused(run("coco", coco, tmp_path / "o.h5", "--skip-missing"), "leads out of the dataset's folder", "repair")


@given(st.text(max_size=12))
def test_no_name_leads_out(name: str) -> None:
    root = Path("/data/set")
    try:
        found = inside(root, name, "labels.json")
    except InputError:
        return
    assert root in (found.resolve(), *found.resolve().parents)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def other_size(path: Path) -> None:
    save(path, np.zeros((100, 100, 3), np.uint8))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, ("00001", "is missing", "--skip-missing")),
        (cut_off, ("00001", "is cut off after")),
        (no_image, ("00001", "is no image that can be read")),
        (other_size, ("00001", "is 100 x 100 px, its labels are for 400 x 320")),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_bad_images_are_named_or_counted(
    damage: Callable[[Path], None], words: tuple[str, ...], suffix: str, tmp_path: Path
) -> None:
    flat.write_coco(tmp_path / "s", images=3, suffix=suffix)
    damage(tmp_path / "s" / "images" / f"00001{suffix}")
    refused(run("coco", tmp_path / "s", tmp_path / "o.h5"), *words)
    assert not (tmp_path / "o.h5").exists() and not (tmp_path / "o.h5.partial").exists()
    done = run("coco", tmp_path / "s", tmp_path / "o.h5", "--skip-missing")
    assert done.exit_code == 0 and "left out:" in done.stderr and "00001" in done.stderr
    assert "--val 0.1 takes it from the train part" in done.stderr
    data = HandDataset(tmp_path / "o.h5")
    assert len(data) == 4 and sum(json.loads(data.attrs["left_out"]).values()) == 2
    assert verify_dataset(tmp_path / "o.h5") == []


def test_exif_turns_are_followed_where_the_labels_follow_them(tmp_path: Path) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20, :20] = 255
    path = tmp_path / "a.jpg"
    path.write_bytes(with_exif_turn(cv2.imencode(".jpg", image)[1].tobytes(), 6))
    np.testing.assert_array_equal(photo(path)() > 127, image > 127)
    np.testing.assert_array_equal(photo(path, (60, 40))() > 127, image > 127)
    np.testing.assert_array_equal(photo(path, (40, 60))() > 127, np.rot90(image, -1) > 127)


@pytest.mark.parametrize(("orientation", "quarters"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_frames_are_turned_as_viewers_show_them(orientation: int, quarters: int, tmp_path: Path) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:16, :32] = 255
    (tmp_path / "rec").mkdir()
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    (tmp_path / "rec" / "phone.jpg").write_bytes(with_exif_turn(jpeg, orientation))
    assert run("frames", tmp_path / "rec", tmp_path / "o.h5", "--crop", "none", "--channels", "rgb").exit_code == 0
    images = HandDataset(tmp_path / "o.h5").read("images")
    np.testing.assert_array_equal(images[0] > 127, np.rot90(picture, quarters) > 127)


COCO_FAULTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no images": (lambda c: {"annotations": [], "categories": c["categories"]}, "has no 'images' (found annotations"),
    "no keypoints": (lambda c: c["annotations"][1].pop("keypoints") and None, "annotation 1: has no 'keypoints'"),
    "no width": (lambda c: c["images"][0].pop("width") and None, "has no 'width'"),
    "counts": (lambda c: c["annotations"][1].update(keypoints=[1.0] * 60), "has 60 values in keypoints"),
    "text": (lambda c: c["annotations"][1].update(keypoints="many"), "keypoints should be n numbers"),
    "image id twice": (lambda c: c["images"][1].update(id=0), "image id 0 occurs twice"),
    "annotation id twice": (lambda c: c["annotations"][1].update(id=0), "annotation id 0 occurs twice"),
    "no such image": (lambda c: c["annotations"][1].update(image_id=77), "annotation 1 is for image 77, which is"),
    "names": (lambda c: c["categories"][1]["keypoints"].__setitem__(3, "elbow"), "no keypoint is named thumb_ip"),
    "unnamed": (lambda c: c["categories"][1].pop("keypoints") and None, "name the 21 keypoints in categories"),
    "name twice": (lambda c: c["categories"][1]["keypoints"].__setitem__(3, "thumb_2"), "both name the thumb_mcp"),
    "split": (lambda c: c["images"][0].update(split="dev"), "has split 'dev'; it must be one of train, val, test"),
    "K": (lambda c: c["images"][0].update(K=[1, 2]), "K should be 3 x 3 numbers"),
    "list": (lambda c: [1, 2], "is not sound JSON"),
    "image id list": (lambda c: c["images"][0].update(id=[1]), "has id [1]; it must be a number or a text"),
    "category id": (lambda c: c["annotations"][1].update(category_id=[1]), "has category_id [1]; it must be"),
    "image id object": (lambda c: c["annotations"][1].update(image_id={}), "has image_id {}; it must be"),
    "annotation id": (lambda c: c["annotations"][1].update(id=None), "has id None; it must be"),
    "id of a category": (lambda c: c["categories"][1].update(id=[1]), "has id [1]; it must be"),
    "split list": (lambda c: c["images"][0].update(split=[]), "has split []; it must be one of train, val, test"),
    "width": (lambda c: c["images"][0].update(width=float("inf")), "has no whole width and height"),
    "file name": (lambda c: c["images"][0].update(file_name="."), "names a file '.'; repair the labels"),
    "long name": (lambda c: c["images"][0].update(file_name="a" * 300), "names a file 'aaa"),
    "surrogate": (lambda c: c["images"][0].update(file_name="\ud800"), "names a file '\\ud800'"),
    "keypoints number": (lambda c: c["categories"][1].update(keypoints=5), "name the 21 keypoints in categories"),
    "keypoints null": (lambda c: c["categories"][1].update(keypoints=None), "name the 21 keypoints in categories"),
    "huge number": (lambda c: c["annotations"][1].update(keypoints=[10**400] * 63), "keypoints should be n numbers"),
}  # fmt: skip


@pytest.mark.parametrize("fault", COCO_FAULTS)
def test_faulty_coco_labels_are_explained(fault: str, coco: Path, tmp_path: Path) -> None:
    change, words = COCO_FAULTS[fault]
    edit(coco / "annotations.json", change)
    refused(run("coco", coco, tmp_path / "o.h5"), "annotations.json", words)


OTHER_FAULTS: dict[str, tuple[str, Callable[[Path], Any], str, Callable[[Any], Any], str]] = {
    "width": ("coco-wholebody", flat.write_wholebody, "coco_wholebody_train_v1.0.json",
              lambda c: c["images"][0].update(width=None), "image 7: has no whole width and height"),
    "id": ("coco-wholebody", flat.write_wholebody, "coco_wholebody_val_v1.0.json",
           lambda c: c["images"][0].update(id=[1]), "has id [1]; it must be a number or a text"),
    "image id": ("coco-wholebody", flat.write_wholebody, "coco_wholebody_val_v1.0.json",
                 lambda c: c["annotations"][0].update(image_id={}), "has image_id {}; it must be"),
    "width in words": ("interhand", threed.write_interhand, "InterHand2.6M_train_data.json",
                       lambda c: c["images"][0].update(width="wide"), "has no whole width and height"),
    "id of interhand": ("interhand", threed.write_interhand, "InterHand2.6M_train_data.json",
                        lambda c: c["images"][0].update(id=[1]), "has id [1]; it must be"),
    "cameras": ("umetrack", write_umetrack, "recording_01.json",
                lambda c: c.update(cameras=None), "cameras should be a list; it is None"),
    "angles": ("umetrack", write_umetrack, "recording_01.json",
               lambda c: c.update(joint_angles=None), "joint_angles should be a list; it is None"),
    "size of a view": ("umetrack", write_umetrack, "recording_01.json",
                       lambda c: c["cameras"][0].update(ImageSizeX=float("nan")), "has no whole ImageSizeX"),
}  # fmt: skip


@pytest.mark.parametrize("fault", OTHER_FAULTS)
def test_faulty_labels_of_other_formats_are_explained(fault: str, tmp_path: Path) -> None:
    name, write, file, change, words = OTHER_FAULTS[fault]
    write(tmp_path / "s")
    edit(next((tmp_path / "s").rglob(file)), change)
    refused(run(name, tmp_path / "s", tmp_path / "o.h5"), file, words)


@pytest.mark.parametrize("key", ["keypoints", "keypoints_3d"])
def test_nan_labels_are_named_or_counted(key: str, coco: Path, tmp_path: Path) -> None:
    def spoil(content: Any) -> None:
        place = content["annotations"][3][key]
        place[5 if key == "keypoints_3d" else 9] = [float("nan")] * 3 if key == "keypoints_3d" else float("nan")

    edit(coco / "annotations.json", spoil)
    refused(run("coco", coco, tmp_path / "o.h5"), "annotation 3", "labels are not finite")
    assert run("coco", coco, tmp_path / "o.h5", "--skip-missing").exit_code == 0
    assert len(HandDataset(tmp_path / "o.h5")) == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p * 1000, "31", ), (lambda p: p * 100, "centimetres"), (lambda p: p * (1, -1, -1), "OpenGL"),
        (lambda p: p * (-1, 1, 1), "x negated"), (lambda p: p[::-1], "joint order"),
    ],
)  # fmt: skip
def test_wrong_units_axes_and_order_say_what_they_look_like(
    change: Callable[[Any], Any], words: str, coco: Path, tmp_path: Path
) -> None:
    def spoil(content: Any) -> None:
        for item in content["annotations"]:
            if "keypoints_3d" in item:
                item["keypoints_3d"] = change(np.array(item["keypoints_3d"])).tolist()

    edit(coco / "annotations.json", spoil)
    line = refused(run("coco", coco, tmp_path / "o.h5"), "get the labels of the release")
    assert words in line or "millimetres" in line, line


def test_single_label_that_contradicts_itself(coco: Path, tmp_path: Path) -> None:
    def spoil(content: Any) -> None:
        content["annotations"][2]["keypoints"] = [
            v + 90 * (k % 3 == 0) for k, v in enumerate(content["annotations"][2]["keypoints"])
        ]

    edit(coco / "annotations.json", spoil)
    refused(run("coco", coco, tmp_path / "o.h5"), "annotation 2", "project 90 px beside its 2D labels")


def test_freihand_counts_and_sizes_must_fit(tmp_path: Path) -> None:
    threed.write_freihand(tmp_path / "s")
    edit(tmp_path / "s" / "training_K.json", lambda c: c[:-1])
    refused(
        run("freihand", tmp_path / "s", tmp_path / "o.h5"), "training_K.json: has 2 entries, training_xyz.json has 3"
    )
    (tmp_path / "s" / "training_K.json").write_text("[[[1, 0, 0], [0")
    refused(run("freihand", tmp_path / "s", tmp_path / "o.h5"), "training_K.json: is not sound JSON near")
    edit(tmp_path / "s" / "evaluation_K.json", lambda c: [[1, 2, 3]] * 2)
    (tmp_path / "s" / "training_xyz.json").unlink()
    refused(run("freihand", tmp_path / "s", tmp_path / "o.h5"), "evaluation_K.json[0]", "should be 3 x 3 numbers")


def test_freihand_labels_in_millimetres_are_noticed(tmp_path: Path) -> None:
    threed.write_freihand(tmp_path / "s")
    for part in ("training", "evaluation"):
        edit(tmp_path / "s" / f"{part}_xyz.json", lambda c: (np.array(c) * 1000).tolist())
    refused(run("freihand", tmp_path / "s", tmp_path / "o.h5"), "they look like millimetres")


def test_intrinsics_of_another_image_are_noticed(tmp_path: Path) -> None:
    threed.write_freihand(tmp_path / "s")
    for part in ("training", "evaluation"):
        edit(tmp_path / "s" / f"{part}_K.json", lambda c: (np.array(c) + [[0, 0, 900], [0, 0, 0], [0, 0, 0]]).tolist())
    refused(run("freihand", tmp_path / "s", tmp_path / "o.h5"), "most 3D labels project outside the image")


def test_interhand_translation_in_place_of_position_is_noticed(tmp_path: Path) -> None:
    threed.write_interhand(tmp_path / "s")
    for file in (tmp_path / "s").rglob("*_camera.json"):

        def spoil(content: Any) -> None:
            for of in content.values():
                turn, place = np.array(of["camrot"]["400002"]), np.array(of["campos"]["400002"])
                of["campos"]["400002"] = (-turn @ place).tolist()

        edit(file, spoil)
    refused(run("interhand", tmp_path / "s", tmp_path / "o.h5"), "3D labels")


class Witness:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch /tmp/handaug-was-run",)


@pytest.mark.parametrize("name", ["rhd", "ho3d"])
def test_pickles_that_run_code_are_refused_even_where_skipping_is_on(name: str, tmp_path: Path) -> None:
    source = tmp_path / "s"
    (threed.write_rhd if name == "rhd" else threed.write_ho3d)(source)
    for file in [*source.rglob("*.pickle"), *source.rglob("*.pkl")]:
        file.write_bytes(pickle.dumps({0: Witness(), "handJoints3D": Witness()}, 2))
    refused(run(name, source, tmp_path / "o.h5", "--skip-missing"), "system, which is not allowed")
    assert not Path("/tmp/handaug-was-run").exists()


def test_damaged_label_files_of_single_frames(tmp_path: Path) -> None:
    threed.write_ho3d(tmp_path / "h")
    cut_off(tmp_path / "h/train/ABF11/meta/0000.pkl")
    refused(run("ho3d", tmp_path / "h", tmp_path / "h.h5"), "ABF11/meta/0000.pkl: is not a sound pickle")
    assert run("ho3d", tmp_path / "h", tmp_path / "h.h5", "--skip-missing").exit_code == 0
    assert len(HandDataset(tmp_path / "h.h5")) == 2
    threed.write_dexycb(tmp_path / "d")
    label = next((tmp_path / "d").rglob("labels_000000.npz"))
    cut_off(label)
    refused(run("dexycb", tmp_path / "d", tmp_path / "d.h5"), "labels_000000.npz: is no sound npz")
    np.savez(label, joint_3d=np.array([{}], object), joint_2d=np.zeros((1, 21, 2)), seg=np.zeros((480, 640), np.uint8))
    refused(run("dexycb", tmp_path / "d", tmp_path / "d.h5"), "labels_000000.npz: is no sound npz of plain arrays")
    threed.write_stb(tmp_path / "t")
    (tmp_path / "t/labels/B1Counting_BB.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b"\0" * 200)
    refused(run("stb", tmp_path / "t", tmp_path / "t.h5"), "B1Counting_BB.mat: is no sound MATLAB file")
    flat.write_onehand10k(tmp_path / "o")
    (tmp_path / "o/Train/label_joint.txt").write_text("a.jpg,400,320,1,1,2,3\n")
    refused(run("onehand10k", tmp_path / "o", tmp_path / "o.h5"), "label_joint.txt:1: should be name, width, height")


# big JSON files in small pieces


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=VALUES, items=st.lists(VALUES), chunk=st.integers(1, 40), indent=st.sampled_from([None, 1]))
def test_json_in_pieces_is_json(
    tmp_path_factory: pytest.TempPathFactory, before: Any, items: list[Any], chunk: int, indent: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "pieces.json"
    path.write_text(json.dumps({"before": before, "items": items, "after": 1}, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("handaug.data_specs.importers.files._CHUNK", chunk)
        assert list(json_items(path, "items")) == items
        assert dict(json_members(path)) == {"before": before, "items": items, "after": 1}
        path.write_text(json.dumps(items, indent=indent))
        assert list(json_items(path)) == items
        path.write_text(json.dumps({"items": items})[:-2])
        with pytest.raises(InputError, match="not sound JSON"):
            list(json_items(path, "items"))

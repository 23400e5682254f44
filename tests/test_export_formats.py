"""Each exporter's files, read by other programs or by rules written out here."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_data import HEIGHT, WIDTH, every_field, write_all
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rows import Rows

from handaug.data_specs.exporters import ExportConfig, export_dataset
from handaug.data_specs.exporters.base import json_numbers
from handaug.data_specs.exporters.boxes import hand_box, run_lengths
from handaug.data_specs.flip import flip_rows
from handaug.data_specs.joints import JOINTS
from handaug.data_specs.schema import FIELDS

SPLITS = ("train", "val", "test")
TRUTH = every_field()
Export = Callable[..., Path]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Export the rows (all of `TRUTH` by default) and return the folder."""

    def run(format: str, rows: Rows = TRUTH, **options: Any) -> Path:
        folder = tmp_path_factory.mktemp(format)
        export_dataset(write_all(folder / "data.h5", rows), folder / "out", ExportConfig(format, **options))
        return folder / "out"

    return run


def pixels(path: Path | io.BytesIO) -> NDArray[Any]:
    """Pillow's reading of a picture: another decoder than the writer's."""
    with Image.open(path) as image:
        return np.asarray(image)


def labelled(values: NDArray[Any], row: int) -> NDArray[Any]:
    """`values` with zeros where nothing is labelled, as COCO has it."""
    return np.where((TRUTH["visibility"][row] > 0)[:, None], values, 0)


def rows_of(split: str) -> list[int]:
    return [row for row, value in enumerate(TRUTH["split"]) if value == SPLITS.index(split)]


# COCO


@pytest.mark.parametrize("split", SPLITS)
def test_coco_loads_in_pycocotools_with_the_same_hands(export: Export, split: str) -> None:
    out = export("coco")
    coco = COCO(out / "annotations" / f"{split}.json")
    (category,) = coco.loadCats(coco.getCatIds())
    assert category["name"] == "hand" and tuple(category["keypoints"]) == JOINTS
    for a, b in category["skeleton"]:
        assert JOINTS[a - 1] == "wrist" or JOINTS[a - 1].split("_")[0] == JOINTS[b - 1].split("_")[0]
    found = {annotation["id"] - 1: annotation for annotation in coco.loadAnns(coco.getAnnIds())}
    assert sorted(found) == rows_of(split) and min(coco.getAnnIds()) > 0
    for row, annotation in found.items():
        (image,) = coco.loadImgs(annotation["image_id"])
        assert np.array_equal(pixels(out / "images" / split / image["file_name"]), TRUTH["images"][row])
        assert (image["width"], image["height"]) == (WIDTH, HEIGHT)
        points = np.array(annotation["keypoints"], np.float32).reshape(21, 3)
        assert np.array_equal(points[:, :2], labelled(TRUTH["keypoints_2d"][row], row))
        assert np.array_equal(points[:, 2], TRUTH["visibility"][row])
        assert annotation["num_keypoints"] == (TRUTH["visibility"][row] > 0).sum()
        assert annotation["hand_type"] == ("left", "right")[TRUTH["handedness"][row]]
        assert np.array_equal(coco.annToMask(annotation), TRUTH["mask"][row] == 1)
        for holder, key, name in ((annotation, "keypoints_3d", "keypoints_3d"), (image, "K", "camera")):
            assert np.array_equal(np.array(holder[key], np.float32), TRUTH[name][row], equal_nan=True)
        for name in ("pose_id", "appearance_id"):
            assert annotation[name] == TRUTH[name][row]
        assert image["group"] == TRUTH["group"][row] and image["split"] == split


def test_coco_ground_truth_scores_one_against_itself(export: Export) -> None:
    coco = COCO(export("coco") / "annotations" / "train.json")
    found = [{**annotation, "score": 1.0} for annotation in coco.loadAnns(coco.getAnnIds())]
    evaluation = COCOeval(coco, coco.loadRes(found), "keypoints")
    evaluation.params.kpt_oks_sigmas = np.full(21, 0.05)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]  # COCO's ranges begin at 32 x 32 px
    evaluation.evaluate()
    evaluation.accumulate()
    assert (evaluation.eval["precision"] == 1).all()


def test_two_hands_of_one_picture_are_one_image_and_two_crops_are_two(export: Export) -> None:
    coco = COCO(export("coco") / "annotations" / "train.json")
    assert {a["id"] - 1: a["image_id"] for a in coco.dataset["annotations"] if 4 <= a["id"] - 1 <= 7} == {
        4: 4,
        5: 4,
        6: 6,
        7: 7,
    }
    assert len(coco.imgs) == len(rows_of("train")) - 1


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7)))
def test_run_lengths_are_what_pycocotools_decodes(mask: NDArray[np.bool_]) -> None:
    lengths = {"counts": run_lengths(mask), "size": list(mask.shape)}
    assert np.array_equal(coco_mask.decode(coco_mask.frPyObjects(lengths, *mask.shape)), mask)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
@example(641)  # a single joint and no pixel
def test_box_holds_joints_and_pixels_and_stays_in_the_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hand = rng.uniform(size=(HEIGHT, WIDTH)) < 0.01
    xy = rng.uniform((-0.5, -0.5), (WIDTH - 0.5, HEIGHT - 0.5), (21, 2)).astype(np.float32)
    seen = (rng.uniform(size=21) < 0.2).astype(np.uint8)
    box = hand_box({"keypoints_2d": xy, "visibility": seen, "mask": hand.astype(np.uint8)}, HEIGHT, WIDTH)
    if not hand.any() and not seen.any():
        assert box is None
        return
    assert box is not None
    x, y, width, height = box
    assert 0 <= x < x + width <= WIDTH and 0 <= y < y + height <= HEIGHT
    rows, columns = np.nonzero(hand)
    centres = np.concatenate([np.stack([columns, rows], -1) + 0.5, xy[seen > 0] + 0.5])
    assert (centres >= [x - 1e-4, y - 1e-4]).all() and (centres <= [x + width + 1e-4, y + height + 1e-4]).all()


def test_box_of_known_joints() -> None:
    xy = np.full((21, 2), np.nan, np.float32)
    xy[:2] = [[4, 5], [14, 9]]
    seen = (np.arange(21) < 2).astype(np.uint8)
    # half a pixel from the centre of a pixel to its corner, then a twentieth of the longer side on each side
    assert hand_box({"keypoints_2d": xy, "visibility": seen}, HEIGHT, WIDTH) == pytest.approx((4, 5, 11, 5))


# YOLO


def yolo_lines(out: Path, split: str) -> dict[int, NDArray[np.float64]]:
    """{first row of the image: (hands, 5 + 63)}."""
    return {int(path.stem): np.loadtxt(path, ndmin=2) for path in (out / "labels" / split).glob("*.txt")}


@pytest.mark.parametrize("split", SPLITS)
def test_yolo_labels_are_shares_of_the_image(export: Export, split: str) -> None:
    out = export("yolo-pose")
    lines = yolo_lines(out, split)
    images = {int(path.stem): path for path in (out / "images" / split).glob("*.png")}
    assert lines.keys() == images.keys()
    # hands of one picture are neighbouring rows here
    hands = [(first, first + k, line) for first, many in lines.items() for k, line in enumerate(many)]
    assert sorted(row for _, row, _ in hands) == rows_of(split)
    for first, row, line in hands:
        assert line[0] == 0 and (line[1:] >= 0).all() and line[1:5].max() <= 1 and len(line) == 68
        assert np.array_equal(pixels(images[first]), TRUTH["images"][row])
        points = line[5:].reshape(21, 3)
        wanted = (TRUTH["keypoints_2d"][row].astype(float) + 0.5) / [WIDTH, HEIGHT]
        assert np.allclose(points[:, :2], labelled(wanted, row), rtol=0, atol=1e-8)
        assert np.array_equal(points[:, 2], TRUTH["visibility"][row])
        box = np.array([line[1] - line[3] / 2, line[2] - line[4] / 2, line[1] + line[3] / 2, line[2] + line[4] / 2])
        marked = points[points[:, 2] > 0, :2]
        assert (marked >= box[:2] - 1e-7).all() and (marked <= box[2:] + 1e-7).all()


def test_yolo_yaml_permutes_no_joint(export: Export) -> None:
    text = (export("yolo-pose") / "data.yaml").read_text()
    values = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line and not line.startswith("#"))
    assert json.loads(values["flip_idx"]) == list(range(21)) and json.loads(values["kpt_shape"]) == [21, 3]
    assert [values[split] for split in SPLITS] == [f"images/{split}" for split in SPLITS]
    assert values["  0"] == f"[{', '.join(JOINTS)}]" and "path:" not in text


def test_a_flip_as_ultralytics_does_it_is_the_export_of_the_mirrored_rows(export: Export) -> None:
    plain, mirrored = (yolo_lines(export("yolo-pose", rows), "train") for rows in (TRUTH, flip_rows(TRUTH, WIDTH)))
    for row, line in plain.items():
        flipped = line.copy()
        flipped[:, 1] = 1 - line[:, 1]
        shown = line[:, 7::3] > 0
        flipped[:, 5::3] = np.where(shown, 1 - line[:, 5::3], 0)
        assert np.allclose(mirrored[row], flipped, rtol=0, atol=1e-6)


def test_a_picture_with_an_unlabelled_hand_teaches_nothing(export: Export, tmp_path: Path) -> None:
    rows = {name: values.copy() for name, values in TRUTH.items() if name != "mask"}
    rows["visibility"][[0, 5]] = 0
    assert {0, 4} & set(yolo_lines(export("yolo-pose", rows), "train")) == set()
    coco = COCO(export("coco", rows) / "annotations" / "train.json")
    assert {1, 6} & set(coco.anns) == set() and {0, 4} <= set(coco.imgs)
    counts = export_dataset(write_all(tmp_path / "d.h5", rows), tmp_path / "o", ExportConfig("yolo-pose"))
    assert counts is not None and (counts.images, counts.rows, counts.left_out) == (9, 9, 3)


# FreiHAND


@pytest.mark.parametrize(("split", "folder"), [("train", "training"), ("val", "validation"), ("test", "evaluation")])
@pytest.mark.parametrize("channels", [1, 3])
def test_freihand_layout(export: Export, split: str, folder: str, channels: int) -> None:
    truth = {**TRUTH, "images": TRUTH["images"][..., :channels]}
    out = export("freihand", truth)
    lists = {name: json.loads((out / f"{folder}_{name}.json").read_text()) for name in ("K", "xyz", "scale", "rows")}
    rows = [row for row in rows_of(split) if row != 1]  # row 1 lacks a joint
    assert [entry["row"] for entry in lists["rows"]] == rows
    names = [f"{number:08d}.jpg" for number in range(len(rows))]
    assert all(sorted(p.name for p in (out / folder / kind).iterdir()) == names for kind in ("rgb", "mask"))
    for number, row in enumerate(rows):
        left = truth["handedness"][row] == 0
        assert lists["rows"][number]["mirrored"] is bool(left)
        K, xyz = np.array(lists["K"][number]), np.array(lists["xyz"][number])
        assert K.shape == (3, 3) and xyz.shape == (21, 3)
        uv = (K @ xyz.T).T
        uv = uv[:, :2] / uv[:, 2:]
        wanted = truth["keypoints_2d"][row].astype(float)
        if row == 2:
            wanted[4], uv[4] = 0, 0  # moved by hand, see export_data
        if left:
            wanted[:, 0] = (WIDTH - 1) - wanted[:, 0] if row != 2 else np.where(wanted[:, 0], 23 - wanted[:, 0], 0)
        assert np.allclose(uv, wanted, atol=1e-4)
        assert lists["scale"][number] == pytest.approx(np.linalg.norm(xyz[10] - xyz[9]), rel=1e-6)
        image = pixels(out / folder / "rgb" / names[number])
        source = np.repeat(truth["images"][row], 3 // channels, -1)
        assert np.array_equal(image, source[:, ::-1] if left else source)
        mask = truth["mask"][row] == 1
        assert np.array_equal(
            pixels(out / folder / "mask" / names[number])[..., 0] == 255, mask[:, ::-1] if left else mask
        )


# every field


def read_row(values: dict[str, Any], files: dict[str, Any]) -> Rows:
    """One row put together again by the rules of the docs."""
    row = {}
    for name, field in FIELDS.items():
        if name == "images":
            row[name] = pixels(files["png"]).reshape(HEIGHT, WIDTH, -1)
        elif field.pixels:
            row[name] = pixels(files[f"{name}.png"]) if f"{name}.png" in files else np.load(files[f"{name}.npy"])
        else:
            value = np.array(values[name], np.float64 if field.dtype == "float32" else None)
            row[name] = value.astype(field.dtype)
    return row


def assert_is_row(row: Rows, number: int) -> None:
    for name, values in TRUTH.items():
        assert row[name].dtype == values.dtype and row[name].tobytes() == np.ascontiguousarray(values[number]).tobytes()


def test_png_and_json_hold_every_field_bit_for_bit(export: Export) -> None:
    out = export("png")
    seen = []
    for split in SPLITS:
        for path in (out / split / "labels").iterdir():
            values = json.loads(path.read_text())
            files = {"png": out / split / "images" / f"{path.stem}.png"}
            for name in FIELDS:
                for suffix in ("png", "npy"):
                    files[f"{name}.{suffix}"] = out / split / name / f"{path.stem}.{suffix}"
            assert_is_row(read_row(values, {k: p for k, p in files.items() if p.exists()}), values["row"])
            seen.append((values["row"], split))
    assert sorted(seen) == [(row, SPLITS[split]) for row, split in enumerate(TRUTH["split"])]


def read_shard(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    """Samples by webdataset's rule: files in sequence that share the name up to the first dot."""
    samples: list[tuple[str, dict[str, bytes]]] = []
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            handle = tar.extractfile(member)
            assert handle is not None and member.isreg() and not member.mtime
            if not samples or samples[-1][0] != key:
                samples.append((key, {}))
            assert extension not in samples[-1][1]
            samples[-1][1][extension] = handle.read()
    return samples


def test_shards_hold_every_field_bit_for_bit(export: Export) -> None:
    out = export("webdataset", shard_rows=2)
    shards = json.loads((out / "handaug.json").read_text())["shards"]
    for split in SPLITS:
        found = []
        paths = sorted(out.glob(f"{split}-*.tar"))
        for path in paths:
            samples = read_shard(path)
            assert 1 <= len(samples) <= 2
            for key, files in samples:
                values = json.loads(files["json"])
                assert int(key) == values["row"]
                assert_is_row(read_row(values, {name: io.BytesIO(data) for name, data in files.items()}), values["row"])
                found.append(values["row"])
        assert found == rows_of(split)
        assert [path.name for path in paths] == [f"{split}-{n:06d}.tar" for n in range(-(-len(found) // 2))]
        assert shards[split] == f"{split}-{{000000..{len(paths) - 1:06d}}}.tar"
    assert len({key for path in out.glob("*.tar") for key, _ in read_shard(path)}) == len(TRUTH["split"])


# encodings


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)))
def test_json_gives_every_float32_back(values: NDArray[np.float32]) -> None:
    wanted = np.where(np.isfinite(values), values, np.float32(np.nan))
    read = np.array(json.loads(json_numbers(values)), np.float64).reshape(values.shape).astype(np.float32)
    assert np.array_equal(read, wanted, equal_nan=True)


@pytest.mark.parametrize("format", ["coco", "yolo-pose", "webdataset", "freihand"])
def test_jpeg_where_asked_for(export: Export, format: str) -> None:
    grey = {**TRUTH, "images": np.full((12, HEIGHT, WIDTH, 1), 130, np.uint8)}
    out = export(format, grey, quality=90)
    if format == "webdataset":
        pictures = [data["jpg"] for path in out.glob("*.tar") for _, data in read_shard(path)]
    else:
        pictures = [path.read_bytes() for path in out.rglob("*.jpg") if path.parent.name != "mask"]
    assert len(pictures) == {"freihand": 11, "coco": 11, "yolo-pose": 10}.get(format, 12)
    for data in pictures:
        assert data[:2] == b"\xff\xd8"
        assert np.abs(pixels(io.BytesIO(data)).astype(int) - 130).max() <= 2

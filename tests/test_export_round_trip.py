"""What handaug exports it imports again: the same hands, sides, points, cameras and pixels."""

from pathlib import Path

import numpy as np
import pytest
from mano_files import JOINTS, TIPS
from rows import Rows, write_rows
from scipy.spatial.transform import Rotation

from handaug.data_specs.exporters import ExportConfig, export_dataset
from handaug.data_specs.flip import flip_rows
from handaug.data_specs.importers.job import import_dataset
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import LEFT
from handaug.data_specs.verify import verify_dataset

SIZE = 224  # FreiHAND's


def hands(count: int = 10) -> Rows:
    """Hands of both sides before a camera, some joints hidden, one outside the image, in colour."""
    rng = np.random.default_rng(0)
    flat = np.insert(JOINTS[[0, 13, 14, 15, 1, 2, 3, 4, 5, 6, 10, 11, 12, 7, 8, 9]], [4, 7, 10, 13, 16], TIPS, 0)
    right = np.arange(count) % 2 == 1
    points = np.stack([Rotation.random(random_state=rng).apply(flat - flat[9]) for _ in range(count)])
    # the frame of `JOINTS` is right-handed as the camera's is, so turning keeps a right hand a right hand
    points = np.where(right[:, None, None], points, points * [-1, 1, 1]) + [0, 0, 0.5]
    points += rng.uniform(-0.02, 0.02, (count, 1, 3))
    points[0, 20] += [0.2, 0, 0]
    points = points.astype(np.float32)
    camera = np.tile(np.array([[300, 0, 110], [0, 310, 113], [0, 0, 1]], np.float32), (count, 1, 1))
    camera[:, 0, 2] += np.arange(count) / 8
    rays = points.astype(float) @ camera.astype(float).transpose(0, 2, 1)
    uv = (rays[..., :2] / rays[..., 2:]).astype(np.float32)
    inside = ((uv >= -0.5) & (uv < SIZE - 0.5)).all(-1)
    numbers = np.arange(count, dtype=np.int64)
    return {
        "images": rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8),
        "keypoints_2d": uv,
        "keypoints_3d": points,
        "visibility": np.where(inside, rng.integers(1, 3, inside.shape), 0).astype(np.uint8),
        "camera": camera,
        "handedness": right.astype(np.uint8),
        "mask": rng.integers(0, 3, (count, SIZE, SIZE), np.uint8),
        "split": np.array([0, 0, 1, 2, 0, 0, 0, 2, 1, 0], np.uint8)[numbers % 10],
        "group": numbers,
        "pose_id": numbers,
        "appearance_id": numbers,
        "image_id": numbers,
    }


TRUTH = hands()


def there_and_back(format: str, folder: Path, split: str = "official") -> HandDataset:
    export_dataset(write_rows(folder / "there.h5", TRUTH), folder / format, ExportConfig(format))
    options = ImportOptions(crop="none", channels="rgb", split=split)
    import_dataset(format, folder / format, folder / "back.h5", options)
    assert verify_dataset(folder / "back.h5") == []
    return HandDataset(folder / "back.h5")


def originals(back: HandDataset, truth: Rows) -> list[int]:
    """Which row each imported row was, told by its pixels."""
    known = {image.tobytes(): row for row, image in enumerate(truth["images"])}
    return [known[image.tobytes()] for image in back.read("images")]


def test_coco_comes_back_as_it_went(tmp_path: Path) -> None:
    back = there_and_back("coco", tmp_path)
    rows = originals(back, TRUTH)
    assert sorted(rows) == list(range(len(TRUTH["split"])))
    for name in ("visibility", "handedness", "split", "camera"):
        assert np.array_equal(back.read(name), TRUTH[name][rows]), name
    labelled = TRUTH["visibility"][rows] > 0
    for name in ("keypoints_2d", "keypoints_3d"):
        assert np.array_equal(back.read(name)[labelled], TRUTH[name][rows][labelled]), name
    assert len(np.unique(back.read("group"))) == len(np.unique(TRUTH["group"]))


@pytest.mark.parametrize("split", ["official", "train"])
def test_freihand_comes_back_with_left_hands_mirrored(split: str, tmp_path: Path) -> None:
    right_hands = flip_rows(TRUTH, SIZE, TRUTH["handedness"] == LEFT)
    back = there_and_back("freihand", tmp_path, split)
    rows = originals(back, right_hands)
    # FreiHAND has no val part
    wanted = TRUTH["split"] == 0 if split == "train" else TRUTH["split"] != 1
    assert sorted(rows) == np.flatnonzero(wanted).tolist()
    for name in ("handedness", "split"):
        assert np.array_equal(back.read(name), right_hands[name][rows]), name
    assert np.array_equal(back.read("camera"), right_hands["camera"][rows])
    labelled = back.read("visibility") > 0
    assert np.array_equal(labelled, TRUTH["visibility"][rows] > 0)
    assert np.array_equal(back.read("keypoints_3d")[labelled], right_hands["keypoints_3d"][rows][labelled])
    assert np.abs(back.read("keypoints_2d") - right_hands["keypoints_2d"][rows])[labelled].max() < 1e-4
    if split == "train":
        assert np.array_equal(back.read("mask"), (right_hands["mask"][rows] == 1).astype(np.uint8))

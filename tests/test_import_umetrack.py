"""UmeTrack: fisheye cameras, kinematics, and the pinhole view that is stored."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from layouts.umetrack import CAMERA, fisheye, hand_model, posed, rest_left_hand, write_umetrack
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from handaug.data_specs.errors import InputError
from handaug.data_specs.importers.job import import_dataset
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.umetrack_model import Fisheye, read_fisheye, read_hand_model
from handaug.data_specs.joints import PARENTS
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.verify import verify_dataset


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    root = tmp_path_factory.mktemp("umetrack")
    return root, write_umetrack(root)


def test_camera_against_plain_numbers_and_opencv() -> None:
    points = np.random.default_rng(0).normal(0, 1, (200, 3)) + (0, 0, 1)
    points[:, 2] = abs(points[:, 2])
    found = read_fisheye(CAMERA, "here").project(points)
    np.testing.assert_allclose(found, [fisheye(CAMERA, point) for point in points], atol=1e-9)
    # without its last terms it is OpenCV's fisheye
    simple = {**CAMERA, "k5": 0, "k6": 0, "p1": 0, "p2": 0}
    matrix = np.array([[275.0, 0, 317], [0, 276, 241], [0, 0, 1]])
    k = np.array([CAMERA[f"k{n}"] for n in range(1, 5)], float)
    theirs = cv2.fisheye.projectPoints(points[:, None], np.zeros(3), np.zeros(3), matrix, k)[0][:, 0]
    np.testing.assert_allclose(read_fisheye(simple, "here").project(points), theirs, atol=1e-6)


def test_camera_does_not_see_behind_itself() -> None:
    lens = read_fisheye(CAMERA, "here")
    assert np.isnan(lens.project(np.array([[0.01, 0, -1.0], [0, -0.3, -1]]))).all()
    assert np.allclose(lens.project(np.array([0, 0, 1.0])), (317, 241))


@pytest.mark.parametrize("side", [0, 1])
def test_kinematics_against_turning_point_by_point(side: int) -> None:
    rng = np.random.default_rng(side)
    model = hand_model(side)
    wrist = np.eye(4)
    wrist[:3, :3], wrist[:3, 3] = Rotation.random(random_state=1).as_matrix(), (10, -20, 300)
    angles = rng.uniform(-0.5, 0.9, 22)
    found = read_hand_model(model, Path("a.json")).joints(angles, wrist, side)
    np.testing.assert_allclose(found, posed(model, angles, wrist, side), atol=1e-9)
    # bones keep their lengths, the thumb's cmc included: it is on the chain from wrist to tip
    bones = np.linalg.norm(np.diff(found[1:5], axis=0), axis=1)
    np.testing.assert_allclose(bones, np.linalg.norm(np.diff(rest_left_hand()[1:5], axis=0), axis=1))
    assert PARENTS[2] == 1


def test_recording(recording: tuple[Path, list[Any]], tmp_path: Path) -> None:
    source, truths = recording
    import_dataset("umetrack", source, tmp_path / "out.h5", ImportOptions(size=192))
    assert verify_dataset(tmp_path / "out.h5") == []
    data = HandDataset(tmp_path / "out.h5")
    assert len(data) == len(truths) == 10  # 3 frames, 2 views that see, 2 hands; one hand lost in one frame
    assert data.read("handedness").tolist() == [truth.side for truth in truths]
    assert set(data.read("split")) == {0} and len(set(data.read("group"))) == 1
    assert len(set(data.read("image_id"))) == 6
    total = 0
    for row, truth in enumerate(truths):
        points = data.read("keypoints_3d")[row].astype(float)
        # the stored camera is the source's, turned: distances to its centre and between joints stay
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), np.linalg.norm(truth.points, axis=1), atol=1e-6)
        turn = np.linalg.lstsq(truth.points, points, rcond=None)[0]
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-4)
        assert np.linalg.det(turn) > 0
        np.testing.assert_allclose(truth.points @ turn, points, atol=1e-6)
        assert (data.read("visibility")[row] == 2).all()
        alone = check_dots(data.read("images")[row, ..., 0], data.read("keypoints_2d")[row])
        assert alone >= 2
        total += alone
    assert total > 40


def check_dots(image: NDArray[np.uint8], keypoints: NDArray[np.float32]) -> int:
    """Every white dot that stands alone has its middle at its keypoint; returns their number."""
    alone = 0
    for k, (x, y) in enumerate(keypoints):
        others = np.delete(keypoints, k, 0)
        if np.abs(others - (x, y)).max(-1).min() < 16:
            continue
        left, top = round(float(x)) - 7, round(float(y)) - 7
        patch = image[top : top + 15, left : left + 15].astype(float)
        patch[patch < 100] = 0
        rows, columns = np.indices(patch.shape)
        middle = ((columns * patch).sum() / patch.sum() + left, (rows * patch).sum() / patch.sum() + top)
        assert np.hypot(middle[0] - x, middle[1] - y) < 0.5, (k, middle, (x, y))  # the video blurs a little
        alone += 1
    return alone


def test_whole_fisheye_images_are_refused(recording: tuple[Path, list[Any]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--crop none: a fisheye image"):
        import_dataset("umetrack", recording[0], tmp_path / "out.h5", ImportOptions(crop="none"))


def test_video_that_ends_early_or_is_missing(tmp_path: Path) -> None:
    truths = write_umetrack(tmp_path)
    file = next(tmp_path.rglob("*.json"))
    labels = json.loads(file.read_text())
    longer = {
        key: labels[key] + labels[key][-1:] for key in labels if key.endswith(("s", "angles")) and key != "cameras"
    }
    longer.pop("camera_angles")
    file.write_text(json.dumps({**labels, **longer}))
    with pytest.raises(InputError, match=r"recording_01\.mp4: ends after 3 frames, its labels are for 4"):
        import_dataset("umetrack", tmp_path, tmp_path / "out.h5", ImportOptions())
    import_dataset("umetrack", tmp_path, tmp_path / "out.h5", ImportOptions(skip_missing=True))
    assert len(HandDataset(tmp_path / "out.h5")) == len(truths)
    file.with_suffix(".mp4").unlink()
    with pytest.raises(InputError, match=r"recording_01\.mp4: is missing"):
        import_dataset("umetrack", tmp_path, tmp_path / "other.h5", ImportOptions())
    labels.pop("hand_model")
    file.write_text(json.dumps(labels))
    with pytest.raises(InputError, match="has no 'hand_model'"):
        import_dataset("umetrack", tmp_path, tmp_path / "other.h5", ImportOptions())


def test_model_with_other_numbers_is_refused() -> None:
    model = hand_model()
    model["landmark_rest_bone_indices"][3] = [99, 1, 1]
    with pytest.raises(InputError, match="names a frame beyond 16"):
        read_hand_model(model, Path("a.json"))
    with pytest.raises(InputError, match="'Pinhole', this reads FishEye62"):
        read_fisheye({**CAMERA, "DistortionModel": "Pinhole"}, "camera 2")
    assert isinstance(read_fisheye(CAMERA, "here"), Fisheye)

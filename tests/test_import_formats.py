"""Every format from its exact layout: labels against the known hands, pixels against the labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from import_commands import refused, run
from layouts import flat, threed
from layouts.hands import LEFT, RIGHT, Truth, joints_seen, save, uncovered
from numpy.typing import NDArray

from handaug.data_specs.importers.job import import_dataset
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.registry import FORMATS
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.verify import verify_dataset

WRITERS: dict[str, Callable[[Path], list[Truth]]] = {
    "rhd": threed.write_rhd,
    "stb": threed.write_stb,
    "freihand": threed.write_freihand,
    "interhand": threed.write_interhand,
    "ho3d": threed.write_ho3d,
    "dexycb": threed.write_dexycb,
    "coco-wholebody": flat.write_wholebody,
    "onehand10k": flat.write_onehand10k,
    "panoptic": flat.write_panoptic,
    "coco": flat.write_coco,
}
SIDE_UNKNOWN = ("onehand10k",)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[Truth]]]:
    out = {}
    for name, write in WRITERS.items():
        root = tmp_path_factory.mktemp(name)
        out[name] = root, write(root)
    return out


def imported(name: str, source: Path, out: Path, **options: Any) -> HandDataset:
    import_dataset(name, source, out, ImportOptions(**options))
    assert verify_dataset(out) == []
    return HandDataset(out)


def same_partition(ids: NDArray[Any], names: list[str]) -> bool:
    """Whether two rows share an id exactly where they share a name."""
    return bool(((ids[:, None] == ids[None]) == np.array([[a == b for b in names] for a in names])).all())


def test_every_format_has_a_fixture() -> None:
    assert set(WRITERS) | {"umetrack", "frames"} == set(FORMATS)


def test_frames_of_any_spelling_are_taken_and_others_counted(tmp_path: Path) -> None:
    for name in ("1.Jpg", "2.BMP", "3.tiff", "4.WebP"):
        picture = cv2.imencode(f".{name.split('.')[1].lower()}", np.zeros((40, 60, 3), np.uint8))[1]
        (tmp_path / "rec").mkdir(exist_ok=True)
        (tmp_path / "rec" / name).write_bytes(picture.tobytes())
    for name in ("5.HEIC", "6.heic", "7.mp4", "notes.txt"):
        (tmp_path / "rec" / name).touch()
    done = run("frames", tmp_path / "rec", tmp_path / "o.h5")
    assert len(HandDataset(tmp_path / "o.h5")) == 4
    assert "3 files passed over (.heic, .mp4); make them JPEG or PNG" in done.stderr


def test_frames_are_taken_whole_or_from_their_middle_and_nothing_is_labelled(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = {name: rng.integers(0, 256, (40, 60, 3), np.uint8) for name in ("b/2.png", "a/1.PNG", "b/10.png")}
    for name, pixels in pictures.items():
        save(tmp_path / "rec" / name, pixels)
    (tmp_path / "rec" / "notes.txt").write_text("not a picture")
    whole = imported("frames", tmp_path / "rec", tmp_path / "whole.h5", crop="none", channels="rgb")
    stored = [pictures[name] for name in sorted(pictures)]
    np.testing.assert_array_equal(whole.read("images")[..., ::-1], np.array(stored))
    assert not whole.read("visibility").any() and np.isnan(whole.read("keypoints_2d")).all()
    assert not whole.read("split").any()
    assert same_partition(whole.read("group"), ["a", "b", "b"])
    middle = imported("frames", tmp_path / "rec", tmp_path / "middle.h5", size=40, channels="rgb")
    np.testing.assert_array_equal(middle.read("images"), whole.read("images")[:, :, 10:50])


@pytest.mark.parametrize("name", WRITERS)
def test_labels_and_pixels_of_whole_images(
    name: str, sources: dict[str, tuple[Path, list[Truth]]], tmp_path: Path
) -> None:
    source, truths = sources[name]
    data = imported(name, source, tmp_path / "out.h5", crop="none", channels="rgb")
    assert len(data) == len(truths)
    keypoints, visibility = data.read("keypoints_2d"), data.read("visibility")
    images, split, hands = data.read("images"), data.read("split"), data.read("handedness")
    seen = 0
    for row, truth in enumerate(truths):
        np.testing.assert_array_equal(visibility[row], truth.visibility, err_msg=f"row {row}")
        known = truth.visibility > 0
        np.testing.assert_allclose(keypoints[row][known], truth.pixels[known], atol=2e-3)
        assert np.isnan(keypoints[row][~known]).all()
        assert (split[row], hands[row]) == (truth.split, truth.side)
        clear = np.flatnonzero(known & uncovered(truth.pixels))
        joints, sides = joints_seen(images[row], keypoints[row], clear)
        # the other hand's dots may lie on top; never may a dot say another joint of this hand
        mine = (joints >= 0) & (sides == truth.side)
        np.testing.assert_array_equal(joints[mine], clear[mine])
        assert mine.sum() >= 0.7 * len(clear)
        seen += int(mine.sum())
        if truth.points is not None:
            stored = data.read("keypoints_3d")[row]
            np.testing.assert_allclose(stored[known], truth.points[known], atol=2e-6)
            assert np.isnan(stored[~known]).all()
            assert truth.camera is not None
            np.testing.assert_allclose(data.read("camera")[row], truth.camera, rtol=1e-6)
    assert seen > 10 * len(truths)
    assert same_partition(data.read("image_id"), [truth.image for truth in truths])
    assert same_partition(data.read("pose_id"), [truth.pose or f"row {k}" for k, truth in enumerate(truths)])
    assert same_partition(data.read("group"), [f"{truth.split} {truth.group}" for truth in truths])
    assert data.has("keypoints_3d") == data.has("camera") == (truths[0].points is not None)


@pytest.mark.parametrize("name", WRITERS)
def test_square_crops_hold_the_hand(name: str, sources: dict[str, tuple[Path, list[Truth]]], tmp_path: Path) -> None:
    source, truths = sources[name]
    data = imported(name, source, tmp_path / "out.h5", size=160, channels="rgb", margin=0.2)
    assert data.size == (160, 160) and len(data) == len(truths)
    for row, truth in enumerate(truths):
        known = truth.visibility > 0
        xy = data.read("keypoints_2d")[row][known]
        box = np.ptp(xy, axis=0).max()
        assert 160 / 1.4 - 6 < box < 160 / 1.4 + 1  # rounding to whole source pixels takes a little
        assert (np.abs((xy.min(0) + xy.max(0)) / 2 - 79.5) < 4).all()
        if truth.points is not None:
            np.testing.assert_allclose(data.read("keypoints_3d")[row][known], truth.points[known], atol=2e-6)


def test_importing_again_gives_the_same_ids_at_any_size(
    sources: dict[str, tuple[Path, list[Truth]]], tmp_path: Path
) -> None:
    source, _ = sources["freihand"]
    small = imported("freihand", source, tmp_path / "small.h5", size=32)
    large = imported("freihand", source, tmp_path / "large.h5", size=96, channels="rgb")
    for field in ("pose_id", "image_id", "group", "split"):
        np.testing.assert_array_equal(small.read(field), large.read(field))
    other = imported("stb", sources["stb"][0], tmp_path / "other.h5")
    assert not set(small.read("pose_id")) & set(other.read("pose_id"))


# the known traps, one by one


def test_rhd_masks_tell_the_hands_apart(sources: dict[str, tuple[Path, list[Truth]]], tmp_path: Path) -> None:
    source, truths = sources["rhd"]
    data = imported("rhd", source, tmp_path / "out.h5", crop="none")
    for row, truth in enumerate(truths):
        mask = data.read("mask")[row]
        x, y = np.round(truth.pixels[9]).astype(int)
        assert (mask[y, x], mask[0, 0], mask[300, 5]) == (1, 0, 2)
        assert (mask == 4).sum() > 300


def points_of(truths: list[Truth]) -> NDArray[np.float64]:
    """Known joints in metres, (N, 21, 3)."""
    return np.stack([truth.points for truth in truths if truth.points is not None])


def rhd_mask(left: int, right: int) -> NDArray[np.uint8]:
    """A person with so many pixels of either hand, of its first and its last class in turn."""
    mask = np.ones((320, 320), np.uint8)
    mask[100, :left], mask[200, :right] = np.resize((2, 17), left), np.resize((18, 33), right)
    return mask


def test_rhd_prominent_hand_is_the_one_with_more_pixels_in_the_mask(tmp_path: Path) -> None:
    truths = threed.write_rhd(tmp_path, hide=False)
    pixels = {"training/mask/00000": (30, 29), "training/mask/00001": (10, 11), "evaluation/mask/00000": (5, 5)}
    for name, counts in pixels.items():
        save(tmp_path / f"{name}.png", rhd_mask(*counts))
    data = imported("rhd", tmp_path, tmp_path / "o.h5", hands="prominent", crop="none")
    assert data.config["hands"] == "prominent" and data.read("split").tolist() == [0, 0, 2]
    assert data.read("handedness").tolist() == [LEFT, RIGHT, RIGHT]  # the right one of equals, as in the paper's reader
    points = points_of([truths[k] for k in (0, 3, 5)])  # of three pairs
    np.testing.assert_allclose(data.read("keypoints_3d"), points, atol=2e-6)
    assert [(mask == 1).sum() for mask in data.read("mask")] == [30, 11, 5]
    assert len(imported("rhd", tmp_path, tmp_path / "both.h5")) == 6


def test_rhd_prominent_hand_needs_its_mask_but_no_visible_joint(tmp_path: Path) -> None:
    threed.write_rhd(tmp_path)
    save(tmp_path / "training/mask/00001.png", rhd_mask(2, 1))  # no joint of its left hand is visible
    data = imported("rhd", tmp_path, tmp_path / "o.h5", hands="prominent", split="train")
    assert data.read("handedness")[1] == LEFT and data.read("visibility")[1].tolist() == [1] * 21
    (tmp_path / "training/mask/00000.png").unlink()
    refused(run("rhd", tmp_path, tmp_path / "p.h5", "--hands", "prominent"), "mask/00000.png")
    done = run("rhd", tmp_path, tmp_path / "p.h5", "--hands", "prominent", "--skip-missing")
    assert done.exit_code == 0 and len(HandDataset(tmp_path / "p.h5")) == 2


def test_rhd_wrong_order_of_joints_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threed, "tip_to_palm", lambda values, wrist_first: values)
    threed.write_rhd(tmp_path)
    with pytest.raises(Exception, match="joints run from tip to palm"):
        imported("rhd", tmp_path, tmp_path / "out.h5")


def test_stb_wrist_as_asked(sources: dict[str, tuple[Path, list[Truth]]], tmp_path: Path) -> None:
    source, truths = sources["stb"]
    palm = imported("stb", source, tmp_path / "palm.h5", wrist="palm", limit=1)
    truth = truths[0].points
    assert truth is not None
    middle = (truth[0] + truth[13]) / 2  # where the fixture puts the palm
    np.testing.assert_allclose(palm.read("keypoints_3d")[0, 0], middle, atol=1e-6)
    dropped = imported("stb", source, tmp_path / "drop.h5", wrist="drop", limit=1)
    assert dropped.read("visibility")[0, 0] == 0 and np.isnan(dropped.read("keypoints_3d")[0, 0]).all()
    np.testing.assert_allclose(dropped.read("keypoints_3d")[0, 1:], truth[1:], atol=1e-6)


@pytest.mark.parametrize(
    ("views", "taken"),
    [
        ("all", ["BB_left", "BB_right", "SK_color"]),
        ("BB", ["BB_left", "BB_right"]),
        ("BB_left", ["BB_left"]),
        ("BB_right", ["BB_right"]),
        ("SK_color", ["SK_color"]),
    ],
)
def test_stb_views_as_asked(
    views: str, taken: list[str], sources: dict[str, tuple[Path, list[Truth]]], tmp_path: Path
) -> None:
    source, truths = sources["stb"]
    data = imported("stb", source, tmp_path / "o.h5", views=views)
    wanted = [truth for truth in truths if any(view in truth.image for view in taken)]
    assert data.config["views"] == views and len(data) == 4 * len(taken)  # two sequences of two frames
    assert data.read("split").tolist() == [truth.split for truth in wanted]
    np.testing.assert_allclose(data.read("keypoints_3d"), points_of(wanted), atol=2e-6)


def test_stb_labels_of_other_cameras_are_not_asked_for(tmp_path: Path) -> None:
    threed.write_stb(tmp_path)
    for file in (tmp_path / "labels").glob("*_SK.mat"):
        file.unlink()
    assert run("stb", tmp_path, tmp_path / "o.h5", "--views", "BB_left").exit_code == 0
    refused(run("stb", tmp_path, tmp_path / "p.h5", "--views", "SK_color"), "looked for", "_SK.mat")


def test_freihand_versions_are_one_pose_and_masks_come_with_training(
    sources: dict[str, tuple[Path, list[Truth]]], tmp_path: Path
) -> None:
    source, truths = sources["freihand"]
    data = imported("freihand", source, tmp_path / "out.h5", split="train", crop="none")
    assert set(data.read("split")) == {0} and len(data) == 12
    first = data.read("pose_id") == data.read("pose_id")[0]
    assert first.sum() == 4
    assert len({image.tobytes() for image in data.read("images")[first]}) == 4
    mask = data.read("mask")[0]
    x, y = np.round(truths[0].pixels[9]).astype(int)
    assert mask[y, x] == 1 and 600 < mask.sum() < 800  # a disc of radius 15
    assert not imported("freihand", source, tmp_path / "both.h5").has("mask")


def test_ho3d_version_2_has_png_images(tmp_path: Path) -> None:
    truths = threed.write_ho3d(tmp_path / "HO3D_v2", version=2)
    data = imported("ho3d", tmp_path, tmp_path / "out.h5", crop="none")  # the parent will do
    assert truths[0].points is not None
    np.testing.assert_allclose(data.read("keypoints_3d")[0], truths[0].points, atol=1e-6)
    assert (data.read("keypoints_3d")[..., 2] > 0).all()


def test_ho3d_that_was_converted_to_opencv_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handaug.data_specs.importers.ho3d._OPENCV_FROM_OPENGL", np.ones(3))
    threed.write_ho3d(tmp_path)
    with pytest.raises(Exception, match="behind the camera: they fit with y and z negated .*OpenGL"):
        imported("ho3d", tmp_path, tmp_path / "out.h5")


def test_dexycb_setups(sources: dict[str, tuple[Path, list[Truth]]], tmp_path: Path) -> None:
    source, truths = sources["dexycb"]
    parts = {}
    for setup in ("s0", "s1", "s2", "s3", "official"):
        data = imported("dexycb", source, tmp_path / f"{setup}.h5", split=setup, crop="none")
        parts[setup] = data.read("split").tolist()
    subjects = [1] * 4 + [8] * 4
    assert parts["s0"] == parts["official"] == [truth.split for truth in truths]
    assert parts["s1"] == [0 if subject == 1 else 2 for subject in subjects]
    assert parts["s2"] == [0, 2] * 4
    assert parts["s3"] == [0] * 8
    mask = data.read("mask")[0]
    assert (mask[210, 320], mask[250, 320], mask[0, 0]) == (1, 3, 0)


def test_wholebody_counts_small_weights_as_seen(sources: dict[str, tuple[Path, list[Truth]]], tmp_path: Path) -> None:
    data = imported("coco-wholebody", sources["coco-wholebody"][0], tmp_path / "out.h5")
    assert data.read("visibility")[:, 3].tolist() == [2] * 4
    assert data.read("visibility")[:, 4].tolist() == [0] * 4
    assert set(data.read("split")) == {0, 1}


def test_sides(sources: dict[str, tuple[Path, list[Truth]]], tmp_path: Path) -> None:
    source, truths = sources["interhand"]
    for word, side in (("left", LEFT), ("right", RIGHT)):
        data = imported("interhand", source, tmp_path / f"{word}.h5", hands=word)
        assert len(data) == sum(truth.side == side for truth in truths) and set(data.read("handedness")) == {side}

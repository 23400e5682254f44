"""`handaug inspect --stats`: closed forms, the renderer's own factors, memory, wrong input."""

import json
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import random_rows, write_rows

from handaug.cli.main import main
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.stats import Histogram, bends, collect_stats, overlap, viewpoints


def handaug(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def flat_hand() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """A right hand in the plane z = 0 before the camera, fingers up (-y), thumb to the camera's right (+x)."""
    joints = np.zeros((21, 3))
    for finger, x in enumerate((0.04, 0.02, 0.0, -0.02, -0.04)):
        for k in range(4):
            joints[1 + 4 * finger + k] = [x, -0.08 - 0.03 * k, 0]
    return joints


def test_bends_are_the_angles_a_chain_was_folded_by() -> None:
    joints = flat_hand()
    joints[[5, 9, 13, 17], 0] = 0  # knuckles above the wrist: the first bones run straight on
    angles = np.radians([20.0, 50.0, 30.0])
    for finger in range(1, 5):
        direction, at = 0.0, joints[1 + 4 * finger]
        for k in range(3):
            direction += angles[k]
            at = at + 0.03 * np.array([0, -np.cos(direction), np.sin(direction)])
            joints[2 + 4 * finger + k] = at
    np.testing.assert_allclose(bends(joints[None])[0, 3:], np.tile([20, 50, 30], 4), atol=1e-9)
    joints[8] = np.nan
    found = bends(joints[None])[0]
    assert np.isnan(found[5]) and np.isfinite(np.delete(found, 5)).all()


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (np.eye(3), (0.0, 0.0)),
        (np.diag([-1.0, 1, -1]), (180.0, 0.0)),  # the back of the hand
        (np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]), (90.0, 0.0)),  # from the thumb's side
    ],
)
def test_viewpoints_are_where_the_camera_stands(turn: np.ndarray, expected: tuple[float, float]) -> None:  # type: ignore[type-arg]
    """The palm of this right hand looks at the camera; its mirror image is a left hand seen likewise."""
    seen = flat_hand() @ turn.T
    seen = seen - 0.5 * (seen[0] + seen[9]) + [0, 0, 0.6]
    right, left = viewpoints(np.stack([seen, seen * [-1, 1, 1]]), np.array([1, 0]))
    assert abs(right[0]) == pytest.approx(abs(expected[0]), abs=1e-6) and right[1] == pytest.approx(
        expected[1], abs=1e-6
    )
    np.testing.assert_allclose(np.abs(left), np.abs(right), atol=1e-6)
    if expected[0] == 90:
        assert right[0] == pytest.approx(90) and left[0] == pytest.approx(90)


@pytest.mark.skipif(find_spec("anny") is None, reason="the hand model needs anny")
def test_viewpoints_agree_with_what_the_renderer_drew() -> None:
    """From 21 joints, against the camera's place in the model's frame: the palms' planes differ by some degrees."""
    from handaug.render.config import RenderConfig
    from handaug.render.hand import HandModel
    from handaug.render.posing import POSE_FACTORS, sample_hand

    model, config = HandModel.load(), RenderConfig(seed=4)
    rows = [sample_hand(config, model, pose).labels for pose in range(24)]
    found = viewpoints(np.stack([r["keypoints_3d"] for r in rows]), np.array([int(r["handedness"]) for r in rows]))
    column = [POSE_FACTORS.index(name) for name in ("azimuth", "elevation")]
    drawn = np.stack([r["pose_factors"][column] for r in rows])

    def direction(degrees: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        a, e = np.radians(degrees.T)
        return np.stack([np.cos(e) * np.sin(a), np.sin(e), np.cos(e) * np.cos(a)], -1)

    apart = np.degrees(np.arccos(np.clip((direction(found) * direction(drawn)).sum(1), -1, 1)))
    assert apart.max() < 30 and np.median(apart) < 15


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-3, 13), min_size=1, max_size=200), st.sampled_from([0.05, 0.5, 0.95]))
def test_histograms_know_their_quantiles(values: list[float], q: float) -> None:
    histogram = Histogram("x", ["x"], np.linspace(0, 10, 101), np.zeros((1, 100)))
    histogram.add(np.array(values))
    assert histogram.counts.sum() == len(values)  # beyond the ends: in the end cells
    clipped = np.clip(values, 0, 10)
    low, high = np.quantile(clipped, q, method="lower"), np.quantile(clipped, q, method="higher")
    assert low - 0.11 <= histogram.quantile(q)[0] <= high + 0.11
    assert overlap(histogram, histogram) == pytest.approx(1)


def test_overlap_of_shifted_uniforms() -> None:
    one, two = (Histogram("x", ["x"], np.linspace(0, 10, 11), np.zeros((1, 10))) for _ in range(2))
    one.add(np.arange(0, 5) + 0.5)
    two.add(np.arange(2, 7) + 0.5)
    assert overlap(one, two) == pytest.approx(0.6)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("stats")
    rendered = write_rows(folder / "renders.h5", random_rows(30, size=16))
    rows = random_rows(20, size=24, channels=3, seed=5)
    for name in ("keypoints_3d", "camera", "mask", "pose_id", "appearance_id"):
        del rows[name]  # as an import of 2D labels
    rows["keypoints_2d"][3] = np.nan
    rows["visibility"][3] = 0
    return rendered, write_rows(folder / "imported.h5", rows, kind="imported")


def test_stats_are_drawn_and_given_as_json(pair: tuple[Path, Path]) -> None:
    done = handaug("inspect", pair[0], "--stats", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    data = HandDataset(pair[0])
    hidden = (data.read("visibility") == 1).mean(0)
    assert found["stats"]["visibility"]["wrist"]["hidden"] == pytest.approx(hidden[0], abs=1e-4)
    grey = data.read("images").astype(float).mean((1, 2, 3))
    assert found["stats"]["picture"]["p50"] == pytest.approx(np.median(grey), abs=3)
    size = data.read("keypoints_2d")
    fill = (size.max(1) - size.min(1)).max(1) / 16
    assert found["stats"]["fill"]["p50"] == pytest.approx(np.median(np.minimum(fill, 1.2)), abs=0.04)
    assert found["plot"] == str(pair[0].with_suffix(".stats.png"))
    picture = cv2.imread(found["plot"])
    assert picture is not None and picture.shape[1] > 1000
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_two_files_are_compared_by_what_both_have(pair: tuple[Path, Path]) -> None:
    done = handaug("inspect", pair[1], pair[0], "--stats", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert "bends" not in found["stats"] and "bends" in found["other"]["stats"]
    assert set(found["other"]["overlap"]) >= {"visibility", "fill", "picture", "turn"}
    assert all(0 <= share <= 1 for share in found["other"]["overlap"].values())
    same = json.loads(handaug("inspect", pair[0], pair[0], "--stats", "--json").stdout)
    assert all(share == pytest.approx(1, abs=1e-4) for share in same["other"]["overlap"].values())


def test_wrong_input_is_one_line(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no dataset")
    for arguments, word in (
        ((pair[0], pair[1]), "--stats"),
        ((pair[0], tmp_path / "absent.h5", "--stats"), "absent.h5"),
        ((pair[0], tmp_path / "text.h5", "--stats"), "text.h5"),
    ):
        done = handaug("inspect", *arguments)
        assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1 and word in done.stderr, done.output


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = []
    for poses in (4_000, 16_000):
        rows = random_rows(poses, appearances=1, size=4)
        path = write_rows(tmp_path / f"{poses}.h5", rows)
        del rows
        data = HandDataset(path)
        tracemalloc.start()
        collect_stats(data)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 2e6 and peaks[1] < 60e6

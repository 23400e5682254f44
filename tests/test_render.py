"""The render job against Blender's own pixels, against itself under other circumstances, and against wrong input.

Sizes are small: what is tested (geometry, order, resume) does not depend on them.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_scenes import FULL
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt
from truths import blenders_truth

from handaug.data_specs.camera import project
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import FIELDS
from handaug.data_specs.verify import verify_dataset
from handaug.render.config import RenderConfig
from handaug.render.hand import HandModel
from handaug.render.job import render_dataset
from handaug.render.labels import rasterise
from handaug.render.mesh import mirror_quads
from handaug.render.posing import sample_hand

if importlib.util.find_spec("bpy") is None:  # not importorskip: it would load Blender into the test process
    pytest.skip("needs the extra `render`", allow_module_level=True)

Arrays = dict[str, NDArray[Any]]
CONFIG = RenderConfig(poses=40, size=32, channels="rgb", quality="draft", depth=True, seed=3)
PATIENCE = 300
"""Seconds after which something hangs, on the busiest machine; no test measures how long it takes."""
OPTIONS = "--poses 40 --size 32 --channels rgb --quality draft --depth --seed 3".split()


def handaug(*arguments: str | Path) -> "subprocess.Popen[str]":
    code = "from handaug.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read(path: Path) -> Arrays:
    data = HandDataset(path)
    return {name: data.read(name) for name in FIELDS if data.has(name)}


def assert_same(a: Arrays, b: Arrays) -> None:
    """Labels bit for bit; pixels too: Cycles on one thread and OIDN on one core repeat themselves exactly."""
    assert a.keys() == b.keys()
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name], err_msg=name)


# -- Blender's own pixels


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    return blenders_truth("blender_truth.py", tmp_path_factory.mktemp("truth"))


def test_glowing_balls_at_the_joints_are_where_the_keypoints_say(truth: Arrays) -> None:
    """Both sides, two of the four cameras with their principal point off the middle."""
    y, x = np.mgrid[: truth["balls"].shape[2], : truth["balls"].shape[3]]
    for balls, joints, camera in zip(truth["balls"], truth["joints"], truth["cameras"], strict=True):
        tested = 0
        for ball, expected in zip(balls, project(camera, joints), strict=True):
            if (expected < 3).any() or (expected > x.max() - 3).any():
                continue  # cut by the border
            centre = np.array([(ball * x).sum(), (ball * y).sum()]) / ball.sum()
            assert np.abs(centre - expected).max() < 0.25
            tested += 1
        assert tested >= 15


def test_mask_and_depth_agree_with_blenders(truth: Arrays) -> None:
    model = HandModel.load()
    case = 0
    for hands in ("left", "right"):
        for pose in (0, 1):
            scene = sample_hand(RenderConfig(poses=8, size=64, hands=hands, seed=7), model, pose).scene
            quads = mirror_quads(model.quads) if hands == "left" else model.quads
            ours = rasterise(scene.vertices, quads, truth["cameras"][case], 64, 64)
            theirs = truth["index"][case] > 0
            # Rays through pixel centres on both sides: only a ray that grazes the silhouette may differ.
            assert ((ours.face >= 0) != theirs).sum() <= 3
            both = (ours.face >= 0) & theirs
            assert both.sum() > 300
            off = np.abs(ours.depth - truth["depth"][case])[both]
            assert np.median(off) < 5e-5 and (off > 1e-3).mean() < 0.01
            case += 1


def test_coats_end_where_their_values_cross_zero_and_take_turns(truth: Arrays) -> None:
    """One face, so that no border can follow the mesh's: right of the middle red, then green and red by turns."""
    x = (np.arange(64) - 31.5) / 3200
    for picture, width in zip(truth["coats"], truth["coat_widths"], strict=True):
        red = picture[..., 0] > picture[..., 1]
        from_border = np.abs(x - width * np.round(x / width))
        clear = from_border > 0.0004  # where one colour becomes the other
        assert clear.sum() > 45
        assert (red == (np.floor(x / width) % 2 == 0))[:, clear].all()


def test_a_scene_with_things_repeats_to_the_last_bit(truth: Arrays) -> None:
    """Without `never_bake` a quarter of the renders differ in their last bits: twelve are alike in 3 % of runs."""
    assert truth["repeats"][0].max() > 0
    np.testing.assert_array_equal(truth["repeats"], np.broadcast_to(truth["repeats"][0], truth["repeats"].shape))


def test_a_window_holds_all_there_is_and_the_same_values(truth: Arrays) -> None:
    assert (truth["whole"][..., 3].max((1, 2)) == 1).all()
    np.testing.assert_array_equal(truth["windowed"], truth["whole"])


def test_denoising_here_is_what_cycles_does(truth: Arrays) -> None:
    noise = np.abs(truth["noisy"] - truth["denoised"])[..., :3]
    assert noise.max() > 0.01
    np.testing.assert_allclose(truth["denoised_here"], truth["denoised"][..., :3], atol=1e-5)


@pytest.mark.parametrize("side", ["palms", "backs"])
def test_layouts_ages_and_tendons_show(truth: Arrays, side: str) -> None:
    """One hand, one light: whatever is worn is a picture of its own, and none is another hand."""
    pictures = truth[side][..., :3]
    seen = truth[side][0, ..., 3] > 0.9
    assert (truth[side][..., 3] == truth[side][0, ..., 3]).all()
    level = pictures[0][seen].mean()
    for k, one in enumerate(pictures):
        for other in pictures[:k]:
            apart = np.abs(one - other)[seen].mean() / level
            assert 0.001 < apart < 0.2  # it would be 0


def test_bent_joints_change_the_skin_over_them_and_no_other(truth: Arrays) -> None:
    straight, bent = truth["taut"][..., :3]
    seen = truth["taut"][0, ..., 3] > 0.9
    change = np.abs(straight - bent).max(-1) * seen
    assert (change[seen] > 0.02 * straight[seen].mean()).mean() > 0.03
    touched = truth["taut_at"][(np.abs(np.diff(truth["taut_left"], axis=0))[0] > 0.02).any(-1)]
    rows, columns = np.nonzero(change > 0.3 * change.max())
    away = np.linalg.norm(np.stack([columns, rows], -1)[:, None] - touched, axis=-1).min(1)
    assert away.max() < 2


def test_labels_of_full_pictures_agree_with_blenders(truth: Arrays) -> None:
    """Two hands, sleeves, gloves, jewellery, things held and in front: who is seen where, by Blender's object index."""
    model = HandModel.load()
    hands = [sample_hand(config, model, pose) for config in FULL for pose in range(2)]
    values: set[int] = set()
    for hand, index, depth in zip(hands, truth["full_index"], truth["full_depth"], strict=True):
        mask = hand.labels["mask"].astype(int)
        # Index 1 is the hand, 2 and more are the things in their order, 100 the second hand.
        meant = np.zeros_like(mask)
        meant[index == 100] = 4
        meant[index == 1] = 1  # or forearm
        for number, thing in enumerate(hand.scene.things):
            meant[index == 2 + number] = np.max(thing.mask)
        arm = np.where(mask == 2, 1, mask)
        same = np.where(meant == 2, 1, meant) == arm
        assert (~same).sum() <= 0.01 * (mask > 0).sum()  # rays that graze a rim
        values |= set(np.unique(mask).tolist())
        both = same & (mask > 0)
        assert np.median(np.abs(hand.labels["depth"] - depth)[both] / depth[both]) < 1e-3  # float16
    assert values == {0, 1, 2, 3, 4}


def test_the_panorama_behind_is_the_one_that_lights(truth: Arrays) -> None:
    """Our look-up and Blender's world agree on which way is up, and on how bright it is."""
    for seen, ours in zip(truth["panorama"], truth["looked_up"], strict=True):
        assert np.corrcoef(np.log(seen.ravel() + 0.01), np.log(ours.ravel() + 0.01))[0, 1] > 0.9
        assert seen.mean() == pytest.approx(ours.mean(), rel=0.05)


def test_a_lamp_has_the_power_the_exposure_reckons_with(truth: Arrays) -> None:
    np.testing.assert_allclose(truth["card"], truth["card_expected"], rtol=0.02)


# -- the job


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_dataset(CONFIG, tmp_path_factory.mktemp("two") / "renders.h5", workers=2)


@pytest.fixture(scope="module")
def arrays(rendered: Path) -> Arrays:
    return read(rendered)


def test_the_file_verifies_and_leaves_nothing_else(rendered: Path) -> None:
    assert verify_dataset(rendered) == []
    assert sorted(p.name for p in rendered.parent.iterdir()) == ["renders.h5", "renders.png"]


def test_pairs_share_labels_bit_for_bit_and_differ_in_their_images(arrays: Arrays) -> None:
    for name in ("keypoints_2d", "keypoints_3d", "visibility", "camera", "mask", "depth", "handedness", "pose_id"):
        np.testing.assert_array_equal(arrays[name][0::2], arrays[name][1::2], err_msg=name)
    difference = np.abs(arrays["images"][0::2].astype(int) - arrays["images"][1::2])
    assert (difference.mean((1, 2, 3)) > 5).all()


def test_ids_are_what_the_contract_says(arrays: Arrays) -> None:
    assert len(np.unique(arrays["pose_id"])) == CONFIG.poses
    assert len(np.unique(arrays["image_id"])) == CONFIG.rows
    for ids in ("group", "appearance_id"):
        sides = [set(arrays[ids][arrays["split"] == split]) for split in (0, 1, 2)]
        assert all(sides) and not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    _, worn = np.unique(arrays["appearance_id"], return_counts=True)
    assert worn.min() >= 2
    assert 0.25 < arrays["handedness"].mean() < 0.75


def test_visible_keypoints_lie_on_the_mask(arrays: Arrays) -> None:
    far = []
    for mask, keypoints, visibility in zip(arrays["mask"], arrays["keypoints_2d"], arrays["visibility"], strict=True):
        distance = distance_transform_edt(mask == 0)
        at = np.clip(np.round(keypoints[visibility == 2]).astype(int), 0, CONFIG.size - 1)
        far += list(distance[at[:, 1], at[:, 0]])
    assert len(far) > 500
    assert (np.array(far) <= 1.5).mean() >= 0.99


def test_depth_is_there_where_the_mask_is_and_joints_lie_behind_it(arrays: Arrays) -> None:
    depth = arrays["depth"].astype(float)
    np.testing.assert_array_equal(depth > 0, arrays["mask"] > 0)
    nearest = np.where(depth > 0, depth, np.inf).min((1, 2))
    assert (arrays["keypoints_3d"][..., 2].max(1) > nearest).all()


def test_images_are_exposed(arrays: Arrays) -> None:
    hands = [image[mask > 0] for image, mask in zip(arrays["images"], arrays["mask"], strict=True)]
    median = np.array([np.median(hand) for hand in hands])
    assert (median > 25).all() and (median < 245).all()
    assert np.mean([(hand > 252).all(-1).mean() for hand in hands]) < 0.03


def test_doing_it_again_does_nothing(rendered: Path) -> None:
    before = rendered.stat().st_mtime_ns
    assert render_dataset(CONFIG, rendered) == rendered
    assert rendered.stat().st_mtime_ns == before


def test_another_config_needs_overwrite(rendered: Path) -> None:
    with pytest.raises(InputError, match="--overwrite"):
        render_dataset(RenderConfig(poses=8), rendered)


def _workers_of(parent: int) -> list[int]:
    """Living children of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def _assert_gone(workers: list[int]) -> None:
    """In the end, that is: a worker that has just been started finds out first that its input has ended."""
    assert workers
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def _wait_for(shard: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE
    while not shard.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_killed_runs_go_on_to_the_same_file(arrays: Arrays, tmp_path: Path) -> None:
    """A worker is killed, then the whole run; the third run, with one worker, makes the file of two workers."""
    out = tmp_path / "renders.h5"
    partial = tmp_path / "renders.h5.partial"

    first = handaug("render", out, *OPTIONS, "--workers", "1")
    _wait_for(partial / "shard-000000.h5", first)
    os.kill(_workers_of(first.pid)[0], signal.SIGKILL)
    message = first.communicate(timeout=PATIENCE)[1].splitlines()[-1]
    assert first.returncode == 1
    assert "worker died (SIGKILL)" in message and "same command" in message

    second = handaug("render", out, *OPTIONS, "--workers", "1")
    _wait_for(partial / "shard-000001.h5", second)
    workers = _workers_of(second.pid)
    second.kill()
    second.communicate(timeout=PATIENCE)
    _assert_gone(workers)
    assert not out.exists()
    kept = (partial / "shard-000000.h5").stat().st_mtime_ns

    third = handaug("render", out, *OPTIONS, "--workers", "1")
    _wait_for(partial / "shard-000002.h5", third)
    assert (partial / "shard-000000.h5").stat().st_mtime_ns == kept
    third.communicate(timeout=PATIENCE)
    assert third.returncode == 0
    assert_same(arrays, read(out))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["renders.h5", "renders.png"]


def test_ctrl_c_stops_cleanly(tmp_path: Path) -> None:
    process = handaug("render", tmp_path / "renders.h5", *OPTIONS, "--workers", "1")
    _wait_for(tmp_path / "renders.h5.partial" / "worker-0.log", process)
    workers = _workers_of(process.pid)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 130 and "Traceback" not in errors
    _assert_gone(workers)


def test_a_dask_cluster_makes_the_same_file(arrays: Arrays, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        out = render_dataset(CONFIG, tmp_path / "renders.h5", scheduler=cluster.scheduler_address)
    assert_same(arrays, read(out))


def test_backgrounds_stand_behind_the_hand(tmp_path: Path) -> None:
    folder = tmp_path / "walls"
    folder.mkdir()
    Image.fromarray(np.full((50, 70, 3), (40, 200, 60), np.uint8)).save(folder / "green.png")
    config = RenderConfig(poses=8, size=32, channels="rgb", quality="draft", backgrounds=str(folder))
    found = read(render_dataset(config, tmp_path / "green.h5", workers=1))
    assert verify_dataset(tmp_path / "green.h5") == []
    for image, mask in zip(found["images"], found["mask"], strict=True):
        wall = image[distance_transform_edt(mask == 0) > 3].mean(0)
        assert wall[1] > 1.5 * wall[0] and wall[1] > 1.5 * wall[2]


def test_a_surface_changes_pictures_and_no_label(tmp_path: Path) -> None:
    config = RenderConfig(poses=8, size=32, quality="draft", depth=True, parts=True, appearances=4, direct=True)
    bare = read(render_dataset(config, tmp_path / "bare.h5", workers=1))
    lain = replace(config, surfaces="plain=1,wood=1,cloth=1,tiles=1,stone=1", direct=False)
    assert not lain.relit
    found = read(render_dataset(lain, tmp_path / "lain.h5", workers=1))
    assert verify_dataset(tmp_path / "lain.h5") == []
    for name in bare.keys() - {"images", "pose_factors"}:
        np.testing.assert_array_equal(bare[name], found[name], err_msg=name)
    behind = (bare["mask"] == 0)[..., None]
    assert (bare["images"] != found["images"])[behind].mean() > 0.5
    # Light is metered as if nothing were there: on the hand it stays much the same.
    inside = np.stack([distance_transform_edt(mask > 0) > 2 for mask in bare["mask"]])[..., None]
    ratio = found["images"][inside].mean() / bare["images"][inside].mean()
    assert 0.9 < ratio < 1.25


def test_pairs_of_two_dressed_hands_share_everything_but_their_looks(tmp_path: Path) -> None:
    config = RenderConfig(
        poses=8,
        size=32,
        quality="draft",
        hands="two",
        occluders=True,
        occluder_kinds="held=1,front=1",
        clothing="both",
        jewellery="both",
    )
    out = render_dataset(config, tmp_path / "two.h5", workers=1)
    assert verify_dataset(out) == []
    found = read(out)
    assert len(found["images"]) == config.rows == 32 and len(np.unique(found["image_id"])) == config.images == 16
    for name in (
        "keypoints_2d",
        "keypoints_3d",
        "visibility",
        "occlusion",
        "camera",
        "mask",
        "pose_id",
        "pose_factors",
    ):
        pairs = found[name].reshape(16, 2, *found[name].shape[1:])  # the looks of one hand of one pose
        np.testing.assert_array_equal(pairs[:, 0], pairs[:, 1], err_msg=name)
    for image in np.unique(found["image_id"]):
        first, second = np.flatnonzero(found["image_id"] == image)
        np.testing.assert_array_equal(found["images"][first], found["images"][second])
        assert found["handedness"][first] != found["handedness"][second]
        for name in ("appearance_id", "split", "group"):
            assert found[name][first] == found[name][second]
    assert set(np.unique(found["mask"])) == {0, 1, 2, 3, 4} and 3 in found["occlusion"]


# -- wrong input


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--poses", "0"), "--poses"),
        (("--size", "7"), "--size"),
        (("--appearances", "400"), "--appearance-pool"),
        (("--channels", "grey"), "--channels"),
        (("--workers", "2", "--scheduler", "tcp://localhost:1"), "--scheduler"),
        (("--scheduler", "tcp://localhost:1"), "--scheduler"),
        (("--hdris", "/nowhere"), "--hdris"),
    ],
)
def test_wrong_options_are_one_line_and_exit_2(arguments: tuple[str, ...], named: str, tmp_path: Path) -> None:
    process = handaug("render", tmp_path / "out.h5", *arguments)
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 2
    assert len(errors.splitlines()) == 1 and named in errors
    assert not list(tmp_path.iterdir())


def test_without_blender_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "bpy", None)
    with pytest.raises(InputError, match=r'pip install "handaug\[render\]"'):
        render_dataset(RenderConfig(poses=8), tmp_path / "out.h5")


def test_a_broken_panorama_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "skies"
    folder.mkdir()
    (folder / "sky.exr").write_bytes(b"not an image")
    config = RenderConfig(poses=8, size=32, quality="draft", hdris=str(folder))
    with pytest.raises(InputError, match=r"--hdris .*sky\.exr"):
        render_dataset(config, tmp_path / "out.h5", workers=1)

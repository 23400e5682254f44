"""`handaug render` with wrong and unlucky input, through the program: one line, the right exit code, the rest safe."""

import importlib.util
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.partial import PartialOutput
from handaug.render import job
from handaug.render.backdrop import check_pictures, load_background
from handaug.render.config import RenderConfig
from handaug.render.job import _recorded, render_dataset
from handaug.render.pool import SceneLostError, _rebuild

if importlib.util.find_spec("bpy") is None or importlib.util.find_spec("anny") is None:
    pytest.skip("needs the extra `render`", allow_module_level=True)

SMALL = ("--size", "16", "--quality", "draft", "--appearances", "1", "--workers", "1")


def handaug(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    code = "from handaug.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=200,
    )


def refused(done: "subprocess.CompletedProcess[str]", code: int, *words: str) -> None:
    """The last line of stderr is the only one that tells of an error, and names these."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert done.returncode == code and len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    assert all(word in lines[0] for word in words), lines[0]


def noise(size: tuple[int, int] = (60, 80)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8))


def huge_png(path: Path, side: int = 30_000) -> Path:
    """A valid picture of 900 million pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("option", ["--backgrounds", "--hdris"])
@pytest.mark.parametrize("content", ["nothing", "text", "text with a picture's name"])
def test_folders_without_pictures(option: str, content: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    if content == "text":
        (folder / "notes.txt").write_text("no pictures")
    elif content != "nothing":
        (folder / ("a.png" if option == "--backgrounds" else "a.exr")).write_text("no picture")
    done = handaug("render", tmp_path / "out.h5", "--poses", "3", *SMALL, option, folder)
    refused(done, 2, option, "pictures")
    assert [p.name for p in tmp_path.iterdir()] == ["pictures"]


def test_a_truncated_and_a_huge_picture_are_named_before_anything_is_rendered(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise().save(folder / "fine.png")
    noise((300, 400)).save(folder / "short.jpg")
    (folder / "short.jpg").write_bytes((folder / "short.jpg").read_bytes()[:9000])
    refused(
        handaug("render", tmp_path / "out.h5", "--poses", "3", *SMALL, "--backgrounds", folder),
        2, "--backgrounds", "short.jpg",
    )  # fmt: skip
    (folder / "short.jpg").unlink()
    huge_png(folder / "vast.png")
    with pytest.raises(InputError, match=r"--backgrounds .*vast\.png.*smaller"):
        check_pictures(None, str(folder))
    (folder / "empty.png").touch()
    with pytest.raises(InputError, match=r"empty\.png"):
        check_pictures(None, str(folder))
    assert [p.name for p in tmp_path.iterdir()] == ["pictures"]


def shipped_panorama() -> Path:
    found = importlib.util.find_spec("bpy")
    assert found is not None and found.origin is not None
    return next(Path(found.origin).parent.rglob("studiolights/world/studio.exr"))


@pytest.mark.parametrize("kept", [300, 0.5, 0.95])
@pytest.mark.parametrize("suffix", [".exr", ".hdr"])
def test_a_panorama_that_is_cut_short_is_named_before_anything_is_rendered(
    suffix: str, kept: float, tmp_path: Path
) -> None:
    whole, folder = shipped_panorama(), tmp_path / "panoramas"
    folder.mkdir()
    first, second = folder / f"a{suffix}", folder / f"b{suffix}"
    if suffix == ".exr":
        first.write_bytes(whole.read_bytes())
    else:
        cv2.imwrite(str(first), np.random.default_rng(0).uniform(0, 4, (64, 128, 3)).astype(np.float32))
    (folder / f"folder{suffix}").mkdir()
    check_pictures(str(folder), None)
    content = first.read_bytes()
    second.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(InputError, match=rf"--hdris .*b\{suffix}: not a readable panorama"):
        check_pictures(str(folder), None)


def one_panorama(folder: Path, pixels: float | NDArray[np.float32], suffix: str = ".exr") -> Path:
    """A folder's only one, of this value or of these pixels."""
    folder.mkdir()
    cv2.imwrite(str(folder / f"a{suffix}"), np.broadcast_to(pixels, (16, 32, 3)).astype(np.float32))
    return folder


@pytest.mark.parametrize(
    ("suffix", "value", "words"),
    [
        (".exr", np.nan, "without a finite pixel"),
        (".exr", np.inf, "without a finite pixel"),
        (".exr", -1.0, "gives no light"),
        (".exr", 0.0, "gives no light"),
        (".hdr", 0.0, "gives no light"),
    ],
)
def test_a_panorama_that_lights_nothing_is_named(suffix: str, value: float, words: str, tmp_path: Path) -> None:
    folder = one_panorama(tmp_path / "panoramas", value, suffix)
    with pytest.raises(InputError, match=rf"--hdris .*a\{suffix}: a panorama .*{words}.*, remove or replace it"):
        check_pictures(str(folder), None)


LOAD = """
import sys
from pathlib import Path
import numpy as np
from handaug.render.backdrop import check_pictures
from handaug.render.blender.panoramas import _load
for folder in sys.argv[1:]:
    check_pictures(folder, None)
    coarse, fine = _load(Path(folder) / "a.exr")
    np.savez(Path(folder) / "loaded.npz", coarse=coarse, fine=fine)
"""


EVICT = """
import sys
from types import SimpleNamespace
from handaug.render.blender import panoramas
panoramas._KEPT, panoramas._KEPT_FILES = 1, 2
found = panoramas.Panoramas(sys.argv[1])
seen = []
for number in (0, 1, 2, 0, 2, 1):
    look = SimpleNamespace(surrounding=None, environment=number, number=number, rig=-1)
    loaded = found.of(look)
    seen.append((number, float(loaded.coarse.mean()), float(found.behind(number).mean()), loaded.image.pixels[0]))
    assert len(found._read) <= 2 and len(found._fine) == 1
for number, *means in seen:
    assert all(abs(mean - (1 + number)) < 1e-3 for mean in means), seen
"""


def test_panoramas_that_were_let_go_come_back_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "some" / f"{number}.exr"), np.full((16, 32, 3), 1 + number, np.float32))
    subprocess.run([sys.executable, "-P", "-c", EVICT, tmp_path / "some"], check=True, timeout=200)


def test_pixels_that_are_no_numbers_are_black(tmp_path: Path) -> None:
    """A panorama with some of them is taken, and gives the light of its other pixels.

    In a process of its own, as users start it: this one's environment lets OpenCV read OpenEXR files.
    """
    light = np.random.default_rng(0).uniform(0.1, 2, (16, 32, 3)).astype(np.float32)
    light[3:9, 5:20] = 0
    dark = one_panorama(tmp_path / "dark", light)
    light[3:9, 5:20] = np.nan
    broken = one_panorama(tmp_path / "broken", light)
    plain = {name: value for name, value in os.environ.items() if name != "OPENCV_IO_ENABLE_OPENEXR"}
    subprocess.run([sys.executable, "-P", "-c", LOAD, dark, broken], check=True, timeout=200, env=plain)
    expected, got = (np.load(folder / "loaded.npz") for folder in (dark, broken))
    for name in ("coarse", "fine"):
        assert expected[name].mean() > 0.5
        np.testing.assert_array_equal(got[name], expected[name])


@pytest.mark.parametrize("suffix", [".exr", ".hdr"])
def test_a_huge_panorama_is_named_by_its_header(suffix: str, tmp_path: Path) -> None:
    """2^29 pixels, which OpenCV would decode if they were there."""
    folder = one_panorama(tmp_path / "panoramas", 1.0, suffix)
    small = {".exr": struct.pack("<4i", 0, 0, 31, 15), ".hdr": b"-Y 16 +X 32\n"}[suffix]
    huge = {".exr": struct.pack("<4i", 0, 0, 32767, 16383), ".hdr": b"-Y 16384 +X 32768\n"}[suffix]
    file = folder / f"a{suffix}"
    content = file.read_bytes()
    assert small in content
    check_pictures(str(folder), None)
    file.write_bytes(content.replace(small, huge))
    with pytest.raises(InputError, match=rf"--hdris .*a\{suffix}: has too many pixels to decode, make it smaller"):
        check_pictures(str(folder), None)


def test_what_is_transparent_shows_white_paper(tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 4), np.uint8)
    picture[:, 4:, 3] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    got = load_background(tmp_path / "a.png")
    assert (got[:, :4] == 1).all() and (got[:, 4:] == 0).all()


@pytest.mark.parametrize("mode", ["CMYK", "L", "LA", "P", "RGBA", "1", "I;16", "I", "F"])
def test_pictures_of_every_mode_show_the_same(mode: str, tmp_path: Path) -> None:
    """Grey 0.5 as stored is 0.214 in linear light, however it is stored."""
    grey = {"I;16": 128 * 257, "I": 128 * 257, "F": 128 / 255}
    if mode in grey:
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(np.full((20, 30), grey[mode], kind))
    elif mode == "1":
        image = Image.fromarray(np.full((20, 30), 255, np.uint8)).convert("1")
    else:
        image = Image.fromarray(np.full((20, 30, 3), 128, np.uint8))
        image = image.quantize() if mode == "P" else image.convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.tiff")
    image.save(path)
    got = load_background(path)
    assert got.shape == (20, 30, 3)
    np.testing.assert_allclose(got, 1.0 if mode == "1" else 0.2158605, atol=0.004)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--camera", "uniform=0"), ("--camera", "all weights are zero")),
        (("--pose-kinds", "fist=-1"), ("--pose-kinds", "-1")),
        (("--clothing", "hat"), ("--clothing", "hat", "glove")),
        (("--jewellery", "ring=much"), ("--jewellery", "much")),
        (("--occluder-kinds", "held=nan"), ("--occluder-kinds", "nan")),
        (("--environments", "photo,photo"), ("--environments", "twice")),
        (("--ages", "baby"), ("--ages", "baby", "child, adult, old")),
        (("--tones", "light=0"), ("--tones", "all weights are zero")),
        (("--camera", "uniform=1e308,egocentric=1e308"), ("--camera", "too large to add up")),
        (("--occluder-kinds", "front"), ("--occluder-kinds front", "add --occluders")),
        (("--hands", "two", "--occluders", "--occluder-kinds", "hand"), ("--occluder-kinds hand", "--hands two")),
        (("--hdris", "/", "--environments", "room"), ("--hdris /", "--environments room")),
        (("--hands", "three"), ("--hands", "two")),
        (("--poses", "-3"), ("--poses",)),
        (("--size", "99999"), ("--size", "1024")),
        (("--seed", "-1"), ("--seed",)),
    ],
)
def test_impossible_distributions(arguments: tuple[str, ...], words: tuple[str, ...], tmp_path: Path) -> None:
    refused(handaug("render", tmp_path / "out.h5", *arguments), 2, *words)
    assert not list(tmp_path.iterdir())


def test_a_camera_that_never_shows_the_hand_is_named() -> None:
    from dataclasses import replace

    from handaug.render.hand import HandModel
    from handaug.render.pose_prior import HandPose
    from handaug.render.viewpoint import CAMERAS, place_hand

    model = HandModel.load()
    posed = model.pose(model.mean_shape, HandPose.from_degrees())
    never = replace(CAMERAS["uniform"], arm=(0.99999, 1.0))
    with pytest.raises(WorkError, match="--camera") as refusal:
        place_hand(np.random.default_rng(0), posed, 32, never)
    assert "\n" not in str(refusal.value)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(handaug("render", tmp_path / "file" / "out.h5", "--poses", "3", *SMALL), 2, "file")
    refused(handaug("render", "/proc/nowhere/out.h5", "--poses", "3", *SMALL), 2, "/proc/nowhere")


CRASH = """
import os, signal
from handaug.render.viewpoint import SceneError
import handaug.render.posing as posing
draw = posing.sample_hand
def sample_hand(config, model, pose):
    if pose == 20:
        {}
    return draw(config, model, pose)
posing.sample_hand = sample_hand
"""


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", ("SIGSEGV", "poses 16 to 31", "run the same command again")),
        ("raise SceneError('no view; choose another --seed')", ("poses 16 to 31: no view; choose another --seed",)),
    ],
)
def test_a_scene_that_kills_its_worker_or_cannot_be_drawn_leaves_the_rest(
    tmp_path: Path, what: str, told: tuple[str, ...]
) -> None:
    """Every shard but the one with that scene is made."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(CRASH.format(what))
    out = tmp_path / "out.h5"
    done = handaug("render", out, "--poses", "33", *SMALL, PYTHONPATH=str(tmp_path / "broken"))
    refused(done, 1, *told)
    kept = sorted(p.name for p in (tmp_path / "out.h5.partial").glob("shard-*.h5"))
    assert kept == ["shard-000000.h5", "shard-000002.h5"] and not out.exists()


def test_a_cluster_makes_the_rest_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(CRASH.format("raise SceneError('no view at all')"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    config = RenderConfig(poses=33, appearances=2, size=16, quality="draft")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        with pytest.raises(SceneLostError, match="poses 16 to 31: no view at all; finished shards are kept"):
            render_dataset(config, tmp_path / "out.h5", scheduler=cluster.scheduler_address)
    kept = sorted(p.name for p in (tmp_path / "out.h5.partial").glob("shard-*.h5"))
    assert kept == ["shard-000000.h5", "shard-000002.h5"]


def test_a_scene_that_cannot_be_drawn_is_told_from_a_machine_that_cannot() -> None:
    lost = _rebuild("ValueError", "no such thing", "poses 16 to 31")
    assert isinstance(lost, SceneLostError) and "poses 16 to 31" in str(lost) and "no such thing" in str(lost)
    for kind, expected in (("InputError", InputError), ("WorkError", WorkError), ("ImportError", InputError)):
        error = _rebuild(kind, "text", "poses 0 to 15")
        assert isinstance(error, expected) and not isinstance(error, SceneLostError)


def test_what_an_older_handaug_began_is_not_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    work = PartialOutput.open(out, {**_recorded(RenderConfig(poses=3)), "scene_version": 1}, overwrite=False)
    assert work is not None
    work.close()
    with pytest.raises(InputError, match="holds unfinished work of another configuration; add --overwrite"):
        render_dataset(RenderConfig(poses=3), out)


def test_what_was_begun_before_an_option_came_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here() -> None:
        raise WorkError("goes on")

    monkeypatch.setattr(job, "_check_blender", here)
    config, out = RenderConfig(poses=3), tmp_path / "out.h5"
    before = {name: value for name, value in _recorded(config).items() if name not in job._YOUNGER}
    work = PartialOutput.open(out, before, overwrite=False)
    assert work is not None and len(before) + 4 == len(_recorded(config))
    work.close()
    with pytest.raises(WorkError, match="goes on"):
        render_dataset(config, out)
    with pytest.raises(InputError, match="of another configuration"):
        render_dataset(RenderConfig(poses=3, lamps="none"), out)


def test_the_way_to_the_pictures_is_no_part_of_what_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for option, name in (("backgrounds", "a.png"), ("hdris", "a.exr"), ("mano_dir", "MANO_RIGHT.pkl")):
        (tmp_path / option).mkdir()
        (tmp_path / option / name).write_bytes(b"pixels")
    monkeypatch.chdir(tmp_path)
    near = RenderConfig(poses=3, backgrounds="backgrounds", hdris="hdris", hand_model="mano", mano_dir="mano_dir")
    far = replace(
        near, backgrounds=str(tmp_path / "backgrounds"), hdris=f"{tmp_path}/hdris/", mano_dir=str(tmp_path / "mano_dir")
    )
    recorded = _recorded(near)
    assert _recorded(far) == recorded != _recorded(replace(near, hdris=None))
    (tmp_path / "backgrounds" / "a.png").write_bytes(b"more pixels")
    assert _recorded(near) != recorded


def test_more_than_the_disk_holds_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--poses 1000000000000: needs about .* MB are free; lower it"):
        render_dataset(RenderConfig(poses=10**12), tmp_path / "out.h5")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out.h5").write_bytes(b"old")
    with pytest.raises(InputError, match="MB are free"):
        render_dataset(RenderConfig(poses=10**12), tmp_path / "out.h5", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    command = ("render", out, "--poses", "3", *SMALL)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)); "
    limited += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from handaug.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", limited, *map(str, command)], capture_output=True, text=True, timeout=200
    )
    refused(done, 1, "free space")
    assert not out.exists()


def test_a_seed_that_no_file_can_hold(tmp_path: Path) -> None:
    refused(
        handaug("render", tmp_path / "out.h5", "--seed", str(1 << 63)), 2, "--seed 9223372036854775808", "below 2**63"
    )

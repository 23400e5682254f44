"""Speed of the renderer, beside a plain loop, BlenderProc and the limit of the path tracer.

    python benchmarks/render_speed.py [--parts sizes relit loop limit blenderproc workers memory] [--blenderproc PYTHON]

Hands as the camera preset close-up frames them (hand box 60 to 90 % of the picture); panorama, lamps, skin and pose
vary from picture to picture. Each part is a process of its own, pinned to one core; "core ms" is its processor time for
each picture, which other programs on the machine disturb less than images/s, its inverse. Start-up and a first picture
are left out.

* sizes: pictures of `handaug render` from pose to bytes, each traced by itself.
* relit: the same with K appearances of a pose in E rigs, against `--direct`.
* loop: the same scenes by a plain loop over bpy: Blender's own importance map, denoiser as it comes, PNG files.
* limit: one large picture of the same scene, samples and denoiser, traced as a whole, by the pixel (also where the hand
  is alone); against what a picture needs at 64 px, when each is of a pose of its own, and when a pose has two, as
  `handaug render` draws them.
* blenderproc: `benchmarks/blenderproc_loop.py` under the interpreter given, which has bpy 4.2 and BlenderProc 2.8.
* workers: a whole run with one and with two workers, and how long a worker takes to its first picture.
* memory: resident memory of a process over 5,000 pictures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from commands import Parser, at_least, last_line, positive

from handaug.cli.common import run_script
from handaug.data_specs.errors import WorkError
from handaug.render.config import QUALITIES, RenderConfig
from handaug.render.window import Window
from handaug.render.worker import claim_core

SIZES = (64, 128, 256)


def config(**changes: Any) -> RenderConfig:
    return RenderConfig(**{"poses": 4000, "camera": "close-up", **changes})


def per_picture(work: Callable[[int], int], units: int) -> dict[str, float]:
    """Core and wall milliseconds of a picture; unit 0 warms up."""
    work(0)
    core, wall = time.process_time(), time.perf_counter()
    pictures = sum(work(unit) for unit in range(1, units + 1))
    return {
        "core_ms": 1e3 * (time.process_time() - core) / pictures,
        "wall_ms": 1e3 * (time.perf_counter() - wall) / pictures,
    }


def rendered(poses: int, **changes: Any) -> dict[str, float]:
    """From pose to bytes."""
    from handaug.render.shard import ShardRenderer

    chosen = config(**changes)
    renderer = ShardRenderer(chosen)
    for pose in range(poses + 1):  # what is kept for all poses that share an appearance is not counted
        for number in chosen.wardrobe.worn_by(pose):
            renderer._look(number)
    return per_picture(lambda pose: len(renderer.rows(pose)["images"]), poses)


def _scenes(renderer: Any, count: int) -> list[tuple[Any, list[Any]]]:
    """Poses, and the looks of each."""
    from handaug.render.posing import sample_hand

    chosen = renderer.config
    return [
        (
            sample_hand(chosen, renderer._model, pose).scene,
            [renderer._look(number) for number in chosen.wardrobe.worn_by(pose)],
        )
        for pose in range(count + 1)
    ]


def traced(count: int, size: int, quality: str, looks: int) -> dict[str, float]:
    """Blender's share of a picture, where each pose has so many."""
    from handaug.render.shard import ShardRenderer

    renderer = ShardRenderer(config(size=size, appearances=looks, quality=quality))
    scenes = _scenes(renderer, count)

    def draw(k: int) -> int:
        scene, worn = scenes[k]
        for look in worn:
            renderer._session.render(scene, look.appearance, look.light, samples=QUALITIES[quality], seed=k)
        return len(worn)

    return per_picture(draw, count)


def limit(count: int, size: int, quality: str, large: int, windowed: bool) -> dict[str, float]:
    """A large picture, by as many pixels as a small one has; traced as a whole, or only where the hand is."""
    from handaug.render.shard import ShardRenderer

    renderer = ShardRenderer(config(size=size, appearances=1, quality=quality))
    scale = large / size
    grow = np.array([[scale, 1, scale], [1, scale, scale], [1, 1, 1]], np.float32)
    scenes = [
        (replace(scene, size=large, intrinsics=scene.intrinsics * grow), look)
        for scene, (look,) in _scenes(renderer, count)
    ]

    session = renderer._session

    def draw(k: int) -> int:
        scene, look = scenes[k]
        session._place(scene)
        if not windowed:
            session._window = Window.whole(large)
        session.render(scene, look.appearance, look.light, samples=QUALITIES[quality], seed=k)
        return 1

    return {name: value / scale**2 for name, value in per_picture(draw, count).items()}


def loop(count: int, size: int, quality: str) -> dict[str, float]:
    """What a competent user writes first: set the scene, render to a file, go on."""
    import bpy  # noqa: TID251

    from handaug.render.shard import ShardRenderer

    renderer = ShardRenderer(config(size=size, appearances=1, quality=quality))
    session, scenes = renderer._session, _scenes(renderer, count)
    scene = session.scene
    scene.world.cycles.sampling_method = "AUTOMATIC"
    scene.render.use_persistent_data = scene.render.use_border = False
    bpy.context.view_layer.cycles.denoising_store_passes = False
    scene.cycles.use_denoising, scene.cycles.samples = True, QUALITIES[quality]
    scene.render.image_settings.file_format = "PNG"
    with tempfile.TemporaryDirectory() as folder:

        def draw(k: int) -> int:
            hand, (look,) = scenes[k]
            session._place(hand)
            session._light(look.appearance, look.light, hand.centre)
            session._skin.wear(look.appearance.skin.at_age(hand.age))
            scene.render.filepath = f"{folder}/{k}.png"
            bpy.ops.render.render(write_still=True)
            return 1

        return per_picture(draw, count)


def memory(pictures: int) -> dict[str, Any]:
    """Resident megabytes after each fifth of the pictures; small ones, so that it ends."""
    from handaug.render.shard import ShardRenderer

    chosen = config(size=16, appearances=8, quality="draft", environments="photo=2,room=1,sky=1")
    renderer = ShardRenderer(chosen)
    found = []
    poses = pictures // 8
    for pose in range(poses):
        renderer.rows(pose)
        if (pose + 1) % (poses // 5) == 0:
            with open("/proc/self/statm") as file:
                found.append(round(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20))
    return {"pictures": pictures, "mb": found}


def workers(count: int, poses: int) -> dict[str, float]:
    """A whole run, start-up and assembly included."""
    from handaug.render.job import render_dataset

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        render_dataset(config(poses=poses), Path(folder) / "renders.h5", workers=count)
        return {"seconds": time.perf_counter() - began}


def start_up() -> dict[str, float]:
    """From starting a worker to the file with its first picture."""
    from handaug.render.pool import WorkerProcess

    chosen = config(poses=1, appearances=1, size=16, quality="draft")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        worker = WorkerProcess(chosen)
        worker.start((0, Path(folder) / "shard.h5"))
        worker.finish()
        seconds = time.perf_counter() - began
        worker.end()
    return {"seconds": seconds}


def blenderproc_scenes(out: str, count: int, size: int) -> dict[str, Any]:
    """The scenes of `loop` for another Blender: vertices, cameras, lamps."""
    from handaug.render.shard import ShardRenderer

    renderer = ShardRenderer(config(size=size, appearances=1))
    scenes = _scenes(renderer, count)
    np.savez(
        out,
        quads=renderer._model.quads,
        vertices=[scene.vertices for scene, _ in scenes],
        intrinsics=[scene.intrinsics for scene, _ in scenes],
        panoramas=[str(path) for path in renderer._session._panoramas.files],
        samples=QUALITIES["standard"],
        size=size,
    )
    return {}


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    f.__name__: f for f in (rendered, traced, limit, loop, memory, workers, start_up, blenderproc_scenes)
}


def measure(part: str, **values: Any) -> dict[str, Any]:
    """One part in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", part, json.dumps(values)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    if done.returncode:
        return {}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measured(part: str, **values: Any) -> dict[str, Any]:
    """The same, where nothing is to be said without it."""
    found = measure(part, **values)
    if not found:
        raise WorkError(f"the part {part} failed; `handaug doctor` says whether Blender runs here")
    return found


def line(name: str, found: dict[str, Any]) -> None:
    if not found:
        print(f"{name:44} failed", flush=True)
        return
    print(
        f"{name:44} {found['core_ms']:8.1f} core ms  {1e3 / found['core_ms']:7.1f} images/s and core"
        f"  (wall {found['wall_ms']:.0f} ms)",
        flush=True,
    )


def report_relit(poses: int) -> None:
    for size in (64, 128):
        for k in (8, 32):
            count = max(2, (16 if size == 64 else 4) * poses // (2 * k))
            relit = measure("rendered", poses=count, size=size, appearances=k)
            direct = measure("rendered", poses=count, size=size, appearances=k, direct=True)
            rigs = config(appearances=k).rigs
            line(f"{size} px, {k} appearances in {rigs} rigs, relit", relit)
            line(f"{size} px, {k} appearances in {rigs} rigs, direct", direct)
            if relit and direct:
                print(f"{'':44} {direct['core_ms'] / relit['core_ms']:8.2f} times", flush=True)


def report_limit(count: int) -> None:
    large, part = (
        measure("limit", count=count, size=64, quality="standard", large=512, windowed=k) for k in (False, True)
    )
    line("4,096 of the pixels of a 512 px picture", large)
    line("the same, traced where the hand is", part)
    for looks, name in ((1, "one of a pose"), (2, "two of a pose")):
        ours = measure("traced", count=count, size=64, quality="standard", looks=looks)
        line(f"64 px standard, trace alone, {name}", ours)
        if ours and large:
            print(f"{'':44} {100 * large['core_ms'] / ours['core_ms']:.0f} % of the limit", flush=True)


def report_blenderproc(python: str | None, count: int) -> None:
    if python is None:
        print("blenderproc: skipped, --blenderproc PYTHON names no interpreter with bpy 4.2 and BlenderProc 2.8")
        return
    script = Path(__file__).with_name("blenderproc_loop.py")
    with tempfile.TemporaryDirectory() as folder:
        scenes = f"{folder}/scenes.npz"
        measure("blenderproc_scenes", out=scenes, count=count, size=64)
        done = subprocess.run([python, str(script), scenes], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"blenderproc: skipped, it does not run: {last_line(done.stderr)}")
        return
    line("64 px standard, BlenderProc 2.8", dict(json.loads(done.stdout.splitlines()[-1])))


def main() -> int:
    parser = Parser(description=__doc__)
    every = ("sizes", "relit", "loop", "limit", "blenderproc", "workers", "memory")
    parser.add_argument("--parts", nargs="+", choices=every, default=every)
    parser.add_argument("--poses", type=positive, default=24, help="measured at 64 px; fewer at larger sizes")
    parser.add_argument("--pictures", type=at_least(40), default=5000, help="of the part memory")
    parser.add_argument("--blenderproc", metavar="PYTHON", help="interpreter of its environment")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        part, values = arguments.one
        if part not in ("workers", "start_up"):
            claim_core()
        print("\n" + json.dumps(PARTS[part](**json.loads(values))))
        return 0
    poses = arguments.poses
    if "sizes" in arguments.parts:
        for size in SIZES:
            for quality in QUALITIES:
                count = max(3, poses * 64 // size // (3 if quality == "high" else 1))
                line(f"{size} px {quality}", measure("rendered", poses=count, size=size, quality=quality))
    if "relit" in arguments.parts:
        report_relit(poses)
    if "loop" in arguments.parts:
        count = max(4, poses // 4)
        line("64 px standard, plain loop over bpy", measure("loop", count=count, size=64, quality="standard"))
        ours = measure("traced", count=count, size=64, quality="standard", looks=1)
        line("64 px standard, trace alone, the same", ours)
    if "limit" in arguments.parts:
        report_limit(max(3, poses // 3))
    if "blenderproc" in arguments.parts:
        report_blenderproc(arguments.blenderproc, max(4, poses // 2))
    if "workers" in arguments.parts:
        print("worker's start to its first picture: {seconds:.1f} s".format(**measured("start_up")), flush=True)
        one, two = (measured("workers", count=count, poses=20 * poses)["seconds"] for count in (1, 2))
        print(f"{20 * poses} poses: one worker {one:.1f} s, two {two:.1f} s, {one / two:.2f} times", flush=True)
    if "memory" in arguments.parts:
        print(
            "{pictures} pictures, resident MB after each fifth: {mb}".format(
                **measured("memory", pictures=arguments.pictures)
            )
        )
    return 0


if __name__ == "__main__":
    run_script(main)

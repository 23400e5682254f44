"""Error of the quality presets, traced directly and relit, against converged renderings of the very same scenes.

    python benchmarks/render_quality.py [--poses 6] [--size 64] [--converged 512] [--seed 0]

Appearances are those of `handaug render --appearances 8`: two rigs for each pose, four looks at each. Compared are the
pictures a sensor would get, hand over backdrop, exposed, as sRGB; PSNR over the pixels that the hand touches. The same
skin as was traced, in other light, is told apart from the looks' own skins. Core time is that of one process pinned to
one core, without the pose. The last lines give the mean distance between the pictures of one pose, grey levels of 255:
relit, traced directly, and with nothing shared between appearances.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from commands import Parser, at_least, last_line, positive
from numpy.typing import NDArray

from handaug.cli.common import run_script
from handaug.data_specs.errors import WorkError
from handaug.render.appearance import sample_appearance
from handaug.render.config import QUALITIES, TRACES, RenderConfig
from handaug.render.posing import sample_hand
from handaug.render.relighting import relight
from handaug.render.sensor import srgb_encode
from handaug.render.worker import claim_core

Floats = NDArray[np.float64]
_LOOKS = 2
"""Of each rig that are compared with a converged picture."""


def picture(drawn: NDArray[np.float32], look: Any) -> Floats:
    """sRGB 0..1, with no sensor."""
    hand = drawn[..., :3] * np.array(look.light.balance) * look.light.exposure
    return srgb_encode(np.clip(hand + (1 - np.clip(drawn[..., 3:], 0, 1)) * look.behind, 0, 1))


def in_traced_skin(look: Any, rig: Any) -> Any:
    return look._replace(appearance=replace(look.appearance, skin=rig.skin))


def config_of(arguments: argparse.Namespace, way: str) -> RenderConfig:
    """What is rendered in one way; refuses what cannot be."""
    return RenderConfig(
        poses=400, appearances=8, size=arguments.size, channels="rgb", seed=arguments.seed, direct=way == "direct"
    )


def draw(way: str, arguments: argparse.Namespace) -> dict[str, list[Any]]:
    """Pictures and core milliseconds of one way, in this process."""
    from handaug.render.shard import ShardRenderer

    config = config_of(arguments, way)
    renderer = ShardRenderer(config)
    session = renderer._session
    found: dict[str, list[Any]] = {}

    def note(name: str, value: Any) -> None:
        found.setdefault(name, []).append(value)

    for pose in range(arguments.poses + 1):  # the first one warms up
        scene = sample_hand(config, renderer._model, pose).scene
        worn = [renderer._look(number) for number in config.wardrobe.worn_by(pose)]
        rigs = [worn[:4], worn[4:]]
        drawn_with = [renderer._rig(looks[0].appearance.rig) for looks in rigs]
        chosen = [
            [*looks[:_LOOKS], *(in_traced_skin(look, rig) for look in looks[:_LOOKS])]
            for looks, (rig, _) in zip(rigs, drawn_with, strict=True)
        ]
        if way == "relit":
            for quality, samples in TRACES.items():
                began = time.process_time()
                traced = session.trace(scene, [(*rig, pose) for rig in drawn_with], samples=samples)
                note(f"{quality} ms", 1e3 * (time.process_time() - began) / len(rigs))
                for one, looks, own in zip(traced, chosen, rigs, strict=True):
                    for look in looks:
                        note(quality, picture(relight(one, look.appearance), look))
                    began = time.process_time()
                    relight(one, own[0].appearance)
                    note(f"{quality} look ms", 1e3 * (time.process_time() - began))
                    for look in own if quality == "standard" else ():
                        note("apart", picture(relight(one, look.appearance), look))
        for looks, own in zip(chosen, rigs, strict=True) if way == "direct" else ():
            for look in looks if pose else looks[:1]:
                for quality, spent in QUALITIES.items():
                    began = time.process_time()
                    drawn = session.render(scene, look.appearance, look.light, samples=spent, seed=pose)
                    note(f"{quality} ms", 1e3 * (time.process_time() - began))
                    note(quality, picture(drawn, look))
                drawn = session.shoot(arguments.converged if pose else 1, 7)["Combined"]
                note("converged", picture(drawn, look))
                note("alpha", drawn[..., 3])
            for look in own if pose else ():
                drawn = session.render(scene, look.appearance, look.light, samples=QUALITIES["standard"], seed=pose)
                note("apart", picture(drawn, look))
                note("free", own_light(renderer, scene, look, pose))
        if pose == 0:
            found.clear()
    return found


def own_light(renderer: Any, scene: Any, look: Any, pose: int) -> Floats:
    """An appearance that shares nothing."""
    from handaug.render.backdrop import backdrop
    from handaug.render.lighting import measure

    session, number = renderer._session, look.appearance.number
    free = sample_appearance(renderer.config.seed, number, environments=session.environments)
    light = measure(free, session.lighting(free), 3)
    behind = backdrop(free, light, session.surrounding(free), None, renderer.config.size)
    drawn = session.render(scene, free, light, samples=QUALITIES["standard"], seed=pose)
    return picture(drawn, look._replace(light=light, behind=behind))


def distance(pictures: NDArray[Any]) -> float:
    """Mean absolute difference of two pictures of one pose."""
    poses = pictures.reshape(-1, 8, *pictures.shape[1:])
    pairs = list(combinations(range(8), 2))
    return 255 * float(np.mean([np.abs(p[a] - p[b]).mean() for p in poses for a, b in pairs]))


def report(direct: Any, relit: Any) -> None:
    truth, touched = direct["converged"], direct["alpha"] > 0
    own = np.arange(len(truth)) % (2 * _LOOKS) < _LOOKS
    for way, found, samples in (("direct", direct, QUALITIES), ("relit", relit, TRACES)):
        for quality, spent in samples.items():
            wrong = [np.mean((a - b)[t] ** 2) for a, b, t in zip(found[quality], truth, touched, strict=True)]
            decibel = -10 * np.log10(wrong)
            cost = f"{np.median(found[quality + ' ms']):.0f} ms an image"
            if way == "relit":
                each = np.median(found[quality + " look ms"])
                cost = f"{np.median(found[quality + ' ms']):.0f} ms a rig + {each:.1f} ms an image"
            print(
                f"{way:7}{quality:9} samples {spent!s:8} PSNR median {np.median(decibel[own]):.1f} "
                f"(10 % {np.percentile(decibel[own], 10):.1f}, mean {decibel[own].mean():.1f}) "
                f"traced skin {np.median(decibel[~own]):.1f} dB, {cost}"
            )
    for name, pictures in (("relit", relit["apart"]), ("direct", direct["apart"]), ("nothing shared", direct["free"])):
        print(f"mean distance between appearances, {name}: {distance(pictures):.1f}")


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--poses", type=positive, default=6)
    parser.add_argument("--size", type=positive, default=64)
    parser.add_argument("--converged", type=positive, default=512, help="samples per pixel of the reference")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--way", choices=("direct", "relit"), help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        claim_core()
        found = draw(arguments.way, arguments)
        np.savez(arguments.out, **{name: np.array(values) for name, values in found.items()})
        return 0
    config_of(arguments, "relit")
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for way in ("direct", "relit"):
            out = Path(folder) / f"{way}.npz"
            passed = [*sys.argv[1:], "--way", way, "--out", str(out)]
            done = subprocess.run(
                [sys.executable, __file__, *passed], check=False, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE,
            )  # fmt: skip
            if done.returncode:
                raise WorkError(f"drawing {way} failed: {last_line(done.stderr)}")
            with np.load(out) as arrays:
                parts.append(dict(arrays))
    report(*parts)
    return 0


if __name__ == "__main__":
    run_script(main)

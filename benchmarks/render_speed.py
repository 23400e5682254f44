"""Speed of `handaug render` and memory of its parent process, at two numbers of poses.

    python benchmarks/render_speed.py [--poses 64 256] [--size 64] [--quality standard] [--workers 2]

Each run is a process of its own. "core ms" is the processor time of all workers per image, start-up subtracted by
comparing the two runs: it does not depend on what else the machine is doing, while images/s does.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from handaug.render.config import RenderConfig
from handaug.render.job import render_dataset


def measure(values: dict[str, Any], workers: int) -> dict[str, float]:
    """Render once, in this process."""
    config = RenderConfig.from_mapping(values)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        render_dataset(config, Path(folder) / "renders.h5", workers=workers)
        wall = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"images": config.rows, "wall_s": wall, "core_s": used.ru_utime + used.ru_stime, "parent_mb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--poses", type=int, nargs=2, default=(64, 256))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--channels", default="mono")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(json.loads(arguments.one), arguments.workers)))
        return
    runs = []
    for poses in arguments.poses:
        values = {"poses": poses, **{k: getattr(arguments, k) for k in ("size", "quality", "channels")}}
        command = [sys.executable, __file__, "--workers", str(arguments.workers), "--one", json.dumps(values)]
        runs.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        print("{images} images: {wall_s:.1f} s, parent's peak {parent_mb:.0f} MB".format(**runs[-1]))
    few, many = runs
    extra = many["images"] - few["images"]
    print(f"rate without start-up: {extra / (many['wall_s'] - few['wall_s']):.1f} images/s")
    print(f"core ms per image: {1000 * (many['core_s'] - few['core_s']) / extra:.0f}")


if __name__ == "__main__":
    main()

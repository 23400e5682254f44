"""Throughput and peak memory of an import beside plain decoding of the same files, in one run.

    python benchmarks/import_speed.py 2000 8000

For each N it makes a folder in FreiHAND's layout (JPEGs of 224 x 224 px), in DexYCB's size (COCO, JPEGs of 640 x 480
px) and in RHD's (COCO, PNGs of 320 x 320 px), of noise and smooth light, so that they decode as photographs do. Every
file is decoded with OpenCV in one thread and in as many as the import uses, then imported. Decoding is the limit
where the last ratio is near 1; memory is flat where the peak, in a process of its own for each N, does not follow N.
"""

import functools
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from commands import Parser, positive, run_again
from numpy.typing import NDArray

from handaug.cli.common import run_script
from handaug.data_specs.importers.job import import_dataset
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.joints import JOINTS

__all__ = ["main"]

_HAND_M = np.array(
    [(0, 0)]
    + [(x * (1 + 0.2 * k), -0.03 - 0.02 * k) for x in (-0.03,) for k in range(4)]
    + [(x, -0.08 - step) for x in (-0.02, 0, 0.02, 0.04) for step in (0, 0.035, 0.06, 0.08)]
)
_DIFFERENT = 64
"""Pictures that are made; files repeat them."""


def _pictures(width: int, height: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    out = []
    for _ in range(_DIFFERENT):
        light = cv2.resize(
            rng.uniform(0, 255, (6, 6, 3)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
        out.append(np.clip(light + rng.normal(0, 6, light.shape), 0, 255).astype(np.uint8))
    return out


def _write_freihand(root: Path, n: int) -> list[Path]:
    """Evaluation images of FreiHAND's layout."""
    folder = root / "evaluation" / "rgb"
    folder.mkdir(parents=True)
    coded = [
        cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes() for picture in _pictures(224, 224)
    ]
    files = [folder / f"{k:08d}.jpg" for k in range(n)]
    for k, file in enumerate(files):
        file.write_bytes(coded[k % _DIFFERENT])
    hand = np.insert(_HAND_M, 2, 0.7, 1) + (0, 0.05, 0)
    (root / "evaluation_xyz.json").write_text(json.dumps([hand.tolist()] * n))
    (root / "evaluation_K.json").write_text(json.dumps([[[480, 0, 112], [0, 480, 112], [0, 0, 1]]] * n))
    return files


def _write_coco(root: Path, n: int, suffix: str, width: int, height: int) -> list[Path]:
    """Images with a COCO JSON."""
    (root / "images").mkdir(parents=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if suffix == ".jpg" else []
    coded = [cv2.imencode(suffix, picture, options)[1].tobytes() for picture in _pictures(width, height)]
    files = [root / "images" / f"{k:08d}{suffix}" for k in range(n)]
    for k, file in enumerate(files):
        file.write_bytes(coded[k % _DIFFERENT])
    keypoints = np.insert(_HAND_M * 1200 + (160, 200), 2, 2, 1).reshape(-1).tolist()
    content = {
        "images": [{"id": k, "file_name": file.name, "width": width, "height": height} for k, file in enumerate(files)],
        "annotations": [{"id": k, "image_id": k, "category_id": 1, "keypoints": keypoints} for k in range(n)],
        "categories": [{"id": 1, "name": "right hand", "keypoints": JOINTS}],
    }
    (root / "hands.json").write_text(json.dumps(content))
    return files


_LAYOUTS: dict[str, tuple[str, Callable[[Path, int], list[Path]]]] = {
    "jpg-224x224": ("freihand", _write_freihand),
    "jpg-640x480": ("coco", functools.partial(_write_coco, suffix=".jpg", width=640, height=480)),
    "png-320x320": ("coco", functools.partial(_write_coco, suffix=".png", width=320, height=320)),
}
"""Name of a row -> format and writer."""


def _decode(file: Path) -> int:
    image = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    return int(image.shape[0])


def _seconds(work: Callable[[], Iterable[int] | Path]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _measure(name: str, n: int) -> None:
    """One layout at one N, in this process."""
    threads = min(4, os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "out.h5"
        form, write = _LAYOUTS[name]
        files = write(source, n)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        one = _seconds(lambda: [_decode(file) for file in files])
        with ThreadPoolExecutor(threads) as pool:
            several = _seconds(lambda: list(pool.map(_decode, files)))
        cpu = time.process_time()
        taken = _seconds(lambda: import_dataset(form, source, out, ImportOptions(size=128, channels="rgb")))
        cpu = time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name} n {n:>7,}  decode {n / one:7.0f}/s in 1 thread, {n / several:7.0f}/s in {threads}  "
        f"import {n / taken:7.0f}/s ({cpu / n * 1e3:.2f} ms of CPU each)  import/decode time {taken / one:.2f} (1), "
        f"{taken / several:.2f} ({threads})  peak {peak:.0f} MiB (before {before:.0f})",
        flush=True,
    )


def main() -> int:
    """Each layout at each N of the command line, in a fresh process."""
    parser = Parser(description=__doc__)
    parser.add_argument("n", type=positive, nargs="+")
    parser.add_argument("--layout", choices=tuple(_LAYOUTS), help="measure this one, here")
    given = parser.parse_args()
    for n in given.n:
        if given.layout:
            _measure(given.layout, n)
            continue
        for name in _LAYOUTS:
            run_again(__file__, n, "--layout", name)
    return 0


if __name__ == "__main__":
    run_script(main)

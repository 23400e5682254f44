"""Speed of `handaug export` in every format beside plain PNG encoding, and its memory at two numbers of rows.

    python benchmarks/export_speed.py renders.h5 [--limit 2000] [--repeat 4 40]

The plain pass reads the images in blocks, encodes them one after the other with OpenCV and writes the files: what no
exporter of PNG can beat on one core. "core" is the time on the processor, steady on a busy machine. For the memory,
the first rows of the file are repeated into two longer ones; each export runs in a process of its own, so that its peak
(ru_maxrss) is its own.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from commands import Parser, positive

from handaug.cli.common import run_script
from handaug.data_specs.errors import InputError
from handaug.data_specs.exporters import ExportConfig, export_dataset, exporter_names
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import FIELDS
from handaug.data_specs.writer import DatasetWriter

__all__ = ["main"]

_MEASURED = """
import json, resource, sys, time
from pathlib import Path
from handaug.data_specs.exporters import ExportConfig, export_dataset
data, out, name = sys.argv[1:4]
start, core = time.perf_counter(), time.process_time()
export_dataset(Path(data), Path(out), ExportConfig(name))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([time.perf_counter() - start, time.process_time() - core, peak]))
"""


def repeated(source: HandDataset, rows: int, times: int, path: Path) -> Path:
    """The first `rows` rows of a file, `times` times; the copies are pictures of their own."""
    names = [name for name in source.available if not FIELDS[name].required]
    with DatasetWriter(
        path, kind=source.kind, config={}, seed=0, size=source.size, channels=source.channels, fields=names
    ) as writer:
        for copy in range(times):
            block = {name: source.read(name, np.arange(rows)) for name in source.available}
            if "image_id" in block:
                block["image_id"] = np.arange(rows) + copy * rows
            writer.append(block)
    return path


def plain(source: HandDataset, rows: int, folder: Path) -> float:
    """Core seconds to read, encode and write the images alone."""
    folder.mkdir()
    start = time.process_time()
    for first in range(0, rows, 256):
        for number, image in enumerate(source.read("images", np.arange(first, min(first + 256, rows))), first):
            data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1]
            (folder / f"{number:09d}.png").write_bytes(data.tobytes())
    return time.process_time() - start


def main() -> int:
    """Measure and print."""
    parser = Parser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=positive, default=2000)
    parser.add_argument("--repeat", type=positive, nargs=2, default=(4, 40))
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    cv2.imencode(".png", np.zeros((8, 8), np.uint8))
    source = HandDataset(arguments.data)
    rows = min(arguments.limit, len(source))
    if not rows:
        raise InputError(f"{arguments.data}: has no rows; give data")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = plain(source, rows, folder / "plain")
        print(f"{rows} images of {source.size[1]} x {source.size[0]} x {source.channels}")
        print(f"{'plain PNG':<12} {rows / base:8.0f} images/s core")
        for format in exporter_names():
            export_dataset(
                arguments.data, folder / f"{format}-first", ExportConfig(format, limit=10)
            )  # imports, caches
            start, core = time.perf_counter(), time.process_time()
            export_dataset(arguments.data, folder / format, ExportConfig(format, limit=rows))
            wall, core = time.perf_counter() - start, time.process_time() - core
            print(f"{format:<12} {rows / core:8.0f} images/s core {rows / wall:8.0f} images/s wall", flush=True)
        few = min(250, rows)
        for times in arguments.repeat:
            data = repeated(source, few, times, folder / f"{times}.h5")
            command = [sys.executable, "-c", _MEASURED, str(data), str(folder / f"out{times}"), "coco"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            wall, core, peak = json.loads(done.stdout)
            print(
                f"coco, {few * times:>7,} rows: {few * times / core:8.0f} images/s core, peak {peak:.0f} MiB",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    run_script(main)

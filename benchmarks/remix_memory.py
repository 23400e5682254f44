"""Peak memory of a remix at two values of N: it must not grow with N.

    python benchmarks/remix_memory.py WORKSPACE 2000 20000

WORKSPACE holds renders.h5, disentangler/ and checker/ (a bare `handaug remix` makes the last two). Each N runs in a
process of its own, so that its peak (ru_maxrss) is its own; the minted files are removed again.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["main"]


def _mint(workspace: Path, n: int) -> None:
    """Mint and print N, seconds and the peak resident set in MiB."""
    from handaug.augment.remix import RemixConfig, remix

    config = RemixConfig(n, workspace / "renders.h5", workspace / "disentangler", workspace / "checker")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=workspace) as folder:
        remix(config, Path(folder) / "minted.h5")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"n {n:>9,}  {time.perf_counter() - start:8.1f} s  peak {peak:7.0f} MiB", flush=True)


def main() -> None:
    """Run each N of the command line in a fresh process."""
    workspace, numbers = Path(sys.argv[1]), [int(text) for text in sys.argv[2:]]
    if len(numbers) == 1:
        _mint(workspace, numbers[0])
        return
    for n in numbers:
        subprocess.run([sys.executable, __file__, str(workspace), str(n)], check=True)


if __name__ == "__main__":
    main()

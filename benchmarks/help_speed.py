"""How long each command's --help takes, beside Python that starts, and Python that imports numpy: the limit is 0.3 s.

    python benchmarks/help_speed.py [--repeats 5]

Wall time, the least of some runs, on a machine that does nothing else.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from commands import Parser, positive

from handaug.cli.common import run_script
from handaug.cli.main import COMMANDS

__all__ = ["main"]

_LIMIT = 0.3


def _least(command: Sequence[str | Path], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--repeats", type=positive, default=5)
    repeats = parser.parse_args().repeats
    program = Path(sys.executable).with_name("handaug")
    baseline = _least([sys.executable, "-c", "pass"], repeats)
    numpy = _least([sys.executable, "-c", "import numpy"], repeats)
    print(f"python {baseline:.3f} s, with numpy {numpy:.3f} s")
    slow = []
    for name in ("", *COMMANDS):
        taken = _least([program, *name.split(), "--help"], repeats)
        print(f"handaug {name:12s} {taken:.3f} s, {taken / baseline:.1f} times python")
        slow += [name or "handaug"] * (taken > _LIMIT)
    print(f"over {_LIMIT} s: {', '.join(slow) or 'none'}")
    return 0


if __name__ == "__main__":
    run_script(main)

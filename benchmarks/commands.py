"""Runs commands of handaug for the benchmarks, and shows each, so that a reader can type it."""

import shlex
import subprocess
import sys
from pathlib import Path

__all__ = ["handaug"]


def handaug(*words: object) -> None:
    """Run a command of handaug; its failure is ours."""
    command = [str(word) for word in words]
    print("+ handaug", shlex.join(command), flush=True)
    done = subprocess.run([Path(sys.executable).parent / "handaug", *command], check=False)
    if done.returncode:
        sys.exit(done.returncode)

"""What scripts share: commands of handaug, run and shown, so that a reader can type them; numbers on command lines."""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

__all__ = ["handaug", "positive"]


def handaug(*words: object) -> None:
    """Run a command of handaug; its failure is ours."""
    command = [str(word) for word in words]
    print("+ handaug", shlex.join(command), flush=True)
    done = subprocess.run([Path(sys.executable).parent / "handaug", *command], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number of at least 1")
    return int(text)

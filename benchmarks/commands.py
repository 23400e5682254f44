"""What scripts share: command lines, commands of handaug run and shown, so that a reader can type them, and folders."""

import argparse
import fcntl
import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.writer import write_atomically

__all__ = [
    "Parser",
    "as_number",
    "at_least",
    "check_labelled",
    "claim",
    "handaug",
    "last_line",
    "listed",
    "make_folder",
    "one_of",
    "positive",
    "rate",
    "run_again",
    "share",
]

T = TypeVar("T")

_LOCKS: dict[Path, int] = {}
"""Folders that this process has claimed, and the open files whose locks end with it."""


class Parser(argparse.ArgumentParser):
    """A command line; what is wrong with it is told in one line, as by the commands of handaug."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **settings})

    def error(self, message: str) -> NoReturn:
        """Raise what `run_script` turns into that line."""
        raise InputError(f"{message.removeprefix('argument ')} (see `{self.prog} --help`)")


def last_line(stderr: str) -> str:
    """What a program said last before it failed."""
    return (stderr.splitlines() or ["no message"])[-1]


def at_least(least: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers from `least` (0 or more) on."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: give a whole number of at least {least}")
        return int(text)

    return read


positive = at_least(1)
"""A type for argparse: whole numbers from 1 on."""


def share(text: str) -> float:
    """A type for argparse: a number above 0 and up to 1."""
    value = as_number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: give a share above 0 and up to 1")
    return value


def rate(text: str) -> float:
    """A type for argparse: a learning rate."""
    value = as_number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a learning rate between 0 and 1")
    return value


def as_number(text: str) -> float:
    """A number, NaN where the text is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def one_of(names: Collection[str]) -> Callable[[str], str]:
    """A type for argparse: one of some names."""

    def read(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text}: choose from {', '.join(names)}")
        return text

    return read


def listed(kind: Callable[[str], T], least: int = 1) -> Callable[[str], list[T]]:
    """A type for argparse: values of another type, `least` or more, separated by commas, each once."""

    def read(text: str) -> list[T]:
        words = [word.strip() for word in text.split(",") if word.strip()]
        if len(words) < least:
            raise argparse.ArgumentTypeError(f"is empty; give {least} or more, separated by commas")
        return list(dict.fromkeys(kind(word) for word in words))

    return read


def handaug(*words: object) -> None:
    """Run a command of handaug; its failure is ours."""
    command = [str(word) for word in words]
    print("+ handaug", shlex.join(command), flush=True)
    done = subprocess.run([Path(sys.executable).parent / "handaug", *command], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def run_again(script: str, *words: object) -> None:
    """Run a script in a fresh process; its failure, of which it tells itself, is ours."""
    done = subprocess.run([sys.executable, script, *(str(word) for word in words)], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def make_folder(out: Path) -> None:
    """Make OUT, or see that it can be written.

    Raises:
        InputError: It cannot.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be a folder ({error.strerror}); choose another OUT") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise InputError(f"{out}: cannot be written; choose another OUT")


def check_labelled(views: Sequence[HandDataset], part: str) -> None:
    """Refuse data in which nothing is labelled.

    Args:
        views: Some has to have a label.
        part: What they are of their files, such as "train split".

    Raises:
        InputError: Names the first file.
    """
    if not any((rows.read("visibility") > 0).any() for rows in views):
        raise InputError(f"{views[0].path}: has no labelled rows in its {part}; give data that has")


def claim(out: Path, settings: Mapping[str, Any]) -> None:
    """Take a folder of runs, OUT/*/*/seed-N: for this process alone until it ends, and for one set of data and options.

    Args:
        out: Made if missing.
        settings: JSON-able. Noted in OUT; where equal ones were noted before, the runs that are there serve.

    Raises:
        InputError: Another process is at work there, or the runs are of other settings or of unknown ones.
    """
    make_folder(out)
    _lock(out)
    content, place = (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode(), out / "config.json"
    same = place.read_bytes() == content if place.exists() else not any(out.glob("*/*/seed-*"))
    if not same:
        raise InputError(f"{out}: holds runs of other data or options; choose another OUT")
    if not place.exists():
        write_atomically(place, content)


def _lock(out: Path) -> None:
    """One process at a time: the lock dies with its process, so a kill leaves none behind."""
    if out.resolve() in _LOCKS:
        return
    place = os.open(out / "lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(place)
        raise InputError(f"{out}: another process is at work there; wait for it or choose another OUT") from error
    _LOCKS[out.resolve()] = place

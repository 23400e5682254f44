"""What every command shares: the workspace, common options, and errors turned into exit codes.

A command lives in `cli/NAME.py` as `command` and reads

    @click.command()
    @click.argument("out", required=False, type=OUT_FILE)
    @workspace_option
    @seed_option
    @debug_option
    def command(out: Path | None, workspace: Workspace, seed: int) -> None: ...

It imports click and plain dataclasses only; numpy, h5py, torch and rich are imported inside the callback, so that
`--help` answers at once. A callback returns None, or the exit code.
"""

import errno
import json
import os
import re
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from handaug.cli.progress import RichProgress
from handaug.data_specs.errors import HandaugError, InputError, is_full

__all__ = [
    "DATA_FILE",
    "FOLDER",
    "OUT_FILE",
    "RichProgress",
    "Terminated",
    "Workspace",
    "check_picture",
    "check_seed",
    "debug_option",
    "device_option",
    "echo_table",
    "exit_code_of",
    "json_option",
    "overwrite_option",
    "pick_device",
    "run_script",
    "seed_option",
    "sigterm_raises",
    "workers_option",
    "workspace_judge",
    "workspace_option",
]

F = TypeVar("F", bound=Callable[..., Any])

DATA_FILE = click.Path(path_type=Path)
"""An input file; the reader says what is wrong with it, in its own words."""

OUT_FILE = click.Path(path_type=Path)
"""An output file."""

FOLDER = click.Path(path_type=Path)
"""A folder, to read or to write."""


@dataclass(frozen=True)
class Workspace:
    """The folder through which bare commands chain."""

    root: Path
    """The folder itself; commands make it when they write."""

    @property
    def renders(self) -> Path:
        """Rendered dataset."""
        return self.root / "renders.h5"

    @property
    def minted(self) -> Path:
        """Minted dataset."""
        return self.root / "minted.h5"

    @property
    def disentangler(self) -> Path:
        """Folder of the disentanglement run."""
        return self.root / "disentangler"

    @property
    def checker(self) -> Path:
        """Folder of the label checkers."""
        return self.root / "checker"

    @property
    def pose(self) -> Path:
        """Folder of the gain experiment."""
        return self.root / "pose"


def workspace_option(function: F) -> F:
    """Add `--workspace`, passed as `workspace: Workspace`."""
    return click.option(
        "--workspace",
        metavar="DIR",
        type=FOLDER,
        envvar="HANDAUG_WORKSPACE",
        default=Path("handaug-work"),
        show_default="./handaug-work",
        show_envvar=True,
        callback=lambda ctx, param, value: Workspace(value),
        help="Folder where bare commands find and leave their files.",
    )(function)


def seed_option(function: F) -> F:
    """Add `--seed`, passed as `seed: int` from 0 to what a file's attribute holds."""
    return click.option(
        "--seed",
        metavar="N",
        type=click.IntRange(min=0),
        default=0,
        callback=lambda ctx, param, value: check_seed(value),
        help="Seed of every random draw; the same seed and options give the same result.",
    )(function)


def check_seed(value: int) -> int:
    """A seed as it is.

    Raises:
        InputError: It is more than a file's attribute holds.
    """
    if value >= 1 << 63:
        raise InputError(f"--seed {value}: give a number below 2**63, which a file can hold")
    return value


def workspace_judge(workspace: Workspace, size: tuple[int, int], channels: int) -> Path | None:
    """The workspace's label checker as an independent estimator, if there is one for such images."""
    folder = workspace.checker / "fold-0"
    try:
        config = json.loads((folder / "config.json").read_text())
        fits = list(config["size"]) == list(size) and config["channels"] == channels
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if fits else None


def overwrite_option(function: F) -> F:
    """Add `--overwrite`, passed as `overwrite: bool`."""
    return click.option(
        "--overwrite",
        is_flag=True,
        help="Make the output anew, also in place of one of another configuration.",
    )(function)


def workers_option(function: F) -> F:
    """Add `--workers`, passed as `workers: int | None`; None leaves the choice to the job."""
    return click.option(
        "--workers",
        metavar="N",
        type=click.IntRange(min=1),
        default=None,
        show_default="one per core, as far as memory allows",
        help="Worker processes; their number changes no result.",
    )(function)


def device_option(function: F) -> F:
    """Add `--device`, passed as `device: str`; give it to `pick_device` inside the callback."""
    return click.option(
        "--device",
        metavar="auto|cpu|cuda[:N]",
        default="auto",
        help="Where to compute; auto takes a GPU if there is one.",
    )(function)


def json_option(function: F) -> F:
    """Add `--json`, passed as `as_json: bool`."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Print one JSON object on stdout and nothing else there.",
    )(function)


def debug_option(function: F) -> F:
    """Add `--debug`; `exit_code_of` reads it, the callback does not get it."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        help="Show the traceback of an error.",
    )(function)


def echo_table(lines: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns; on a terminal long values are folded under their column.

    Control characters, which a terminal obeys and a stranger's file may hold, are written as escapes.
    """
    rows = [(name, "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)) for name, value in lines]
    indent = max(len(name) for name, _ in rows) + 2
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for name, value in rows:
        parts = textwrap.wrap(value, max(20, width - indent)) if width else [value]
        for i, part in enumerate(parts):
            click.echo(f"{'' if i else name:<{indent}}{part}")


def check_picture(out: Path, *inputs: Path) -> None:
    """Check the place of a picture before any work starts.

    Args:
        out: Where it goes.
        inputs: Files that it must not replace.

    Raises:
        InputError: It is a folder, an input, or does not end in .png.
    """
    taken = out.is_dir() or os.path.realpath(out) in map(os.path.realpath, inputs)
    if taken or out.suffix.lower() != ".png":
        raise InputError(f"--out {out}: the result is a picture; name another file, ending in .png")


def pick_device(name: str) -> str:
    """Resolve `--device`.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        A device name that torch can use here.

    Raises:
        InputError: `name` is no such device, or this machine does not have it.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,9})?", name):
        raise InputError(f"--device {name}: choose auto, cpu, cuda or cuda:N.")
    if name == "cpu":
        return name
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if found else "cpu"
    if int(name.partition(":")[2] or 0) >= found:
        raise InputError(f"--device {name}: torch sees {found} CUDA devices here; use --device cpu.")
    return name


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; a KeyboardInterrupt, so that whatever stops cleanly for Ctrl-C stops cleanly for it too."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Turn the first SIGTERM into `Terminated` in this process; a second one kills. Must run in the main thread."""
    owner = os.getpid()

    def stop(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker that inherited this handler has nothing to tell the user
            os._exit(128 + signum)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def exit_code_of(work: Callable[[], int], debug: bool) -> int:
    """Run `work`; print one line on stderr for whatever stops it.

    Args:
        work: The command; returns its exit code.
        debug: Also print the traceback.

    Returns:
        0 done; 1 the work failed; 2 arguments, input or place of output are wrong; 130 Ctrl-C; 143 SIGTERM.
    """
    try:
        return work()
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if debug:
            traceback.print_exc()
        line, code = _explain(error)
        print(" ".join(line.split()), file=sys.stderr, flush=True)
        return code


def run_script(main: Callable[[], int]) -> NoReturn:
    """Run a script of `benchmarks/` as commands are run; `--debug` anywhere on its command line shows the traceback."""
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    sys.exit(exit_code_of(main, debug))


def _explain(error: BaseException) -> tuple[str, int]:
    """The line for the user and the exit code."""
    cause = error.__cause__ if isinstance(error, click.Abort) and error.__cause__ is not None else error
    if isinstance(cause, KeyboardInterrupt | click.Abort):
        code = 143 if isinstance(cause, Terminated) else 130
        return "Stopped; the same command goes on from here.", code
    if isinstance(error, HandaugError):
        return f"Error: {error}", error.exit_code
    if isinstance(error, click.UsageError):
        where = f" (see `{error.ctx.command_path} --help`)" if error.ctx is not None else ""
        return f"Error: {error.format_message()}{where}", 2
    if isinstance(error, click.ClickException):
        return f"Error: {error.format_message()}", error.exit_code
    if isinstance(error, ImportError):
        return _explain_import(error)
    if isinstance(error, OSError):
        return _explain_os(error)
    if _is_out_of_memory(error):
        return "Error: out of memory; lower --batch-size or --workers and run the same command again.", 1
    return _unexpected(error)


def _is_out_of_memory(error: BaseException) -> bool:
    """Python's, torch's on a GPU, or torch's on a CPU, which is known by its text alone."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _explain_os(error: OSError) -> tuple[str, int]:
    name = f"{error.filename}: " if error.filename else ""
    if is_full(error):
        return f"Error: {name}the disk is full; free some space, then the same command goes on from here.", 1
    if isinstance(error, PermissionError | NotADirectoryError | IsADirectoryError) or error.errno == errno.EROFS:
        return f"Error: {name}{error.strerror or error}; choose a place that can be read and written.", 2
    remedy = {
        errno.ENAMETOOLONG: "give a shorter name",
        errno.EEXIST: "remove it or choose another name",
        errno.ENOENT: "give the path of something that is there",
        errno.ELOOP: "give a path whose links lead somewhere",
    }.get(error.errno or 0)
    if name and remedy:
        return f"Error: {name}{error.strerror}; {remedy}.", 2
    return _unexpected(error)


def _explain_import(error: ImportError) -> tuple[str, int]:
    library = re.search(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object file", str(error))
    if library:
        return f"Error: the system library {library[1]} is missing; `handaug doctor` names the package to install.", 2
    package = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package and package != "handaug":
        return f"Error: the Python package {package} is not installed; run `make setup`, then `handaug doctor`.", 2
    return _unexpected(error)


def _unexpected(error: BaseException) -> tuple[str, int]:
    return f"Error: {type(error).__name__}: {error} (unexpected; --debug shows where)", 1

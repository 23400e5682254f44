"""Make `.venv` with everything in it, with nothing but Python, its venv module and a way to a package index.

Run by `make setup`. uv does the installing because it takes seconds where pip takes minutes; it is told what pip's
configuration says about indexes, and where it fails all the same, pip itself goes on.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
CONSTRAINTS = ROOT / "constraints.txt"
STAMP = VENV / ".installed"

LIBRARY_CHECK = """
from handaug.cli.libraries import apt_line, bpy_library, missing_libraries
library = bpy_library()
missing = missing_libraries(library) if library else []
print(apt_line(missing) if missing else "")
"""


def stop(line: str) -> None:
    sys.exit(f"setup: {line}")


def say(line: str) -> None:
    print(f"setup: {line}", flush=True)


def check_python() -> None:
    version = sys.version_info[:2]
    if not (3, 11) <= version < (3, 14):
        stop(f"Python 3.11 is wanted, this is {version[0]}.{version[1]}; install it; make setup PYTHON=python3.11")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        package = f"python{version[0]}.{version[1]}-venv"
        stop(f"Python's venv is missing; as root: apt-get update && apt-get install -y {package}")


def make_venv() -> None:
    works = PYTHON.exists() and subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode == 0
    if not works:
        say(f"making .venv with Python {sys.version.split()[0]}")
        if subprocess.run([sys.executable, "-m", "venv", "--clear", VENV]).returncode:
            stop(f"{VENV} could not be made; see above.")


def run_pip(*arguments: str) -> bool:
    command: list[str | Path] = [PYTHON, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    command += ["-c", CONSTRAINTS, *arguments]
    # The isolated build of handaug itself gets tested versions too.
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PIP_CONSTRAINT": str(CONSTRAINTS)}).returncode == 0


def pip_settings() -> dict[str, str]:
    """What pip.conf and PIP_* variables say, by option name; the environment wins, as in pip."""
    listing = subprocess.run([PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    pairs = [line.partition("=") for line in listing.splitlines() if "=" in line]
    pairs.sort(key=lambda pair: pair[0].startswith(":env:"))
    return {key.rpartition(".")[2]: str(ast.literal_eval(value)) for key, _, value in pairs}


def uv_environment(settings: dict[str, str]) -> dict[str, str]:
    """uv's variables for pip's settings; those that are set already stay."""
    links = [
        link for link in settings.get("find-links", "").split() if "://" in link or Path(link).expanduser().exists()
    ]
    translated = {
        "UV_DEFAULT_INDEX": settings.get("index-url", ""),
        "UV_INDEX": settings.get("extra-index-url", ""),
        "UV_FIND_LINKS": ",".join(links),
        "UV_NO_INDEX": "true" if settings.get("no-index", "").lower() in ("1", "true", "yes", "on") else "",
        "UV_INSECURE_HOST": settings.get("trusted-host", ""),
        "UV_HTTP_TIMEOUT": settings.get("default-timeout", settings.get("timeout", "")),
        "SSL_CERT_FILE": settings.get("cert", ""),
        "HTTPS_PROXY": settings.get("proxy", ""),
        # pip looks at every index for the version asked for; uv by itself would stop at the first that has the name.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    return {**{name: value for name, value in translated.items() if value}, **os.environ}


def install(extras: str) -> None:
    say("installing uv, then everything else (about 3 GB; a minute on a quick line)")
    target = f".[{extras}]"
    # Compiled as pip would: where Python may not write (PYTHONDONTWRITEBYTECODE) each start compiled torch anew.
    uv: list[str | Path] = [PYTHON, "-m", "uv", "pip", "install", "--python", PYTHON, "--compile-bytecode"]
    uv += ["-c", CONSTRAINTS, "-b", CONSTRAINTS, "-e", target]
    if run_pip("uv") and subprocess.run(uv, cwd=ROOT, env=uv_environment(pip_settings())).returncode == 0:
        return
    say("uv did not manage (see above); trying pip, which takes longer")
    if not run_pip("-e", target):
        stop("the packages could not be installed; check the way to your package index, then run make setup again.")


def check_libraries() -> None:
    def line() -> str:
        return subprocess.run([PYTHON, "-c", LIBRARY_CHECK], capture_output=True, text=True, check=True).stdout.strip()

    command = line()
    if command and os.geteuid() == 0 and Path("/etc/debian_version").exists():
        say(f"installing the system libraries that Blender links: {command}")
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["sh", "-c", command.replace("apt-get", "apt-get -qq")], env=quiet, stdout=subprocess.DEVNULL)
        command = line()
    if command:
        stop(f"Blender needs system libraries; as root: {command}  -- then run make setup again.")


def main() -> None:
    started_at = time.monotonic()
    check_python()
    make_venv()
    has_bpy = subprocess.run([PYTHON, "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 11))"]).returncode == 0
    if not has_bpy:
        say("Blender's package exists for Python 3.11 only: installing without `render`; all else works.")
    install("render,cluster,onnx,dev" if has_bpy else "cluster,onnx,dev")
    check_libraries()
    STAMP.touch()
    say(f"done in {time.monotonic() - started_at:.0f} s; .venv/bin/handaug is the program.")


if __name__ == "__main__":
    main()

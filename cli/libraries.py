"""The system libraries that Blender's package links, and how to get those that are missing.

Only the standard library: `make setup` asks before anything else is known to work.
"""

import importlib.util
import shutil
import subprocess
from pathlib import Path

__all__ = ["DEBIAN_PACKAGES", "apt_line", "bpy_library", "missing_libraries"]

DEBIAN_PACKAGES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libICE.so.6": "libice6",
    "libSM.so.6": "libsm6",
    "libX11.so.6": "libx11-6",
    "libXext.so.6": "libxext6",
    "libXfixes.so.3": "libxfixes3",
    "libXi.so.6": "libxi6",
    "libXrender.so.1": "libxrender1",
    "libXxf86vm.so.1": "libxxf86vm1",
    "libgomp.so.1": "libgomp1",
    "libstdc++.so.6": "libstdc++6",
    "libuuid.so.1": "libuuid1",
    "libxcb.so.1": "libxcb1",
    "libxkbcommon.so.0": "libxkbcommon0",
}
"""Shared library -> Debian package that has it."""


def bpy_library() -> Path | None:
    """The shared object behind `import bpy`, found without importing it; None where bpy is not installed."""
    spec = importlib.util.find_spec("bpy")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("__init__*.so"), None)


def missing_libraries(shared_object: Path) -> list[str]:
    """Names of the libraries that `shared_object` needs and the loader does not find, e.g. `libGL.so.1`.

    Empty where there is no `ldd` to ask (not Linux).
    """
    if shutil.which("ldd") is None:
        return []
    listing = subprocess.run(["ldd", str(shared_object)], capture_output=True, text=True, check=False).stdout
    return sorted({line.split()[0] for line in listing.splitlines() if line.rstrip().endswith("=> not found")})


def apt_line(libraries: list[str]) -> str:
    """The one line that installs `libraries` on Debian and Ubuntu."""
    packages = sorted(DEBIAN_PACKAGES.get(name, name) for name in libraries)
    return f"apt-get update && apt-get install -y --no-install-recommends {' '.join(packages)}"

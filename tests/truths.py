"""What a script that asks Blender itself stores, read for the tests: bpy stays out of their process."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["blenders_truth"]


def blenders_truth(script: str, folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays that tests/SCRIPT stores."""
    out = folder / "truth.npz"
    path = Path(__file__).with_name(script)
    subprocess.run([sys.executable, "-W", "ignore", path, out], check=True, stderr=subprocess.DEVNULL)
    with np.load(out) as arrays:
        return dict(arrays)

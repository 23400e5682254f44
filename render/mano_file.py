"""The files of MANO: pickles of the Python 2 era in, plain arrays out, without chumpy and without running anything.

The layout is as smplx and manopth read it: numbers stand as NumPy arrays, as `chumpy.ch.Ch` (a value), as
`chumpy.reordering.Select` (some elements of another) or as a `scipy.sparse` matrix. What was read once lies as npz in
the cache, under the checksum of the pickle.
"""

import hashlib
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from handaug.data_specs.errors import InputError
from handaug.data_specs.safe_pickle import Inert, load_pickle
from handaug.render.anny_extract import Arrays, cache_folder

__all__ = ["FILES", "MANO_PARENTS", "load_mano"]

FILES = {"right": "MANO_RIGHT.pkl", "left": "MANO_LEFT.pkl"}
MANO_PARENTS = (0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
"""Of joints 1 to 15: index, middle, little, ring, thumb."""

_CLASSES = ("chumpy.*", "scipy.sparse.*")
_VERSION = 1
_SHAPES: dict[str, tuple[int, ...]] = {
    "v_template": (778, 3),
    "shapedirs": (778, 3, 10),
    "posedirs": (778, 3, 135),
    "J_regressor": (16, 778),
    "weights": (778, 16),
    "f": (1538, 3),
    "kintree_table": (2, 16),
}


def load_mano(folder: Path, side: str) -> Arrays:
    """The arrays of one MANO file, from the cache or from the pickle itself.

    Args:
        folder: Holds MANO_RIGHT.pkl, MANO_LEFT.pkl.
        side: "right" or "left"; the left one needs both files, for its sign is told by comparison.

    Returns:
        `v_template` (778, 3), `shapedirs` (778, 3, 10), `posedirs` (778, 3, 135), `J_regressor` (16, 778), `weights`
        (778, 16), float64, metres; `f` (1538, 3) and `kintree_table` (2, 16), int64. Sign mended.

    Raises:
        InputError: A file is missing, asks for a class that is not allowed, or is no MANO.
    """
    arrays = _cached(folder, side)
    if side == "left":
        right = _cached(folder, "right")
        if np.abs(arrays["shapedirs"][:, 0] - right["shapedirs"][:, 0]).sum() < 1:
            arrays["shapedirs"][:, 0] *= -1
    return arrays


def _cached(folder: Path, side: str) -> Arrays:
    """One file as it is, from the cache of its content or from the pickle."""
    path = folder / FILES[side]
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(
            f"--mano-dir {folder}: {FILES[side]} cannot be read ({error.strerror}); get MANO v1.2 from its authors and "
            f"name the folder with {' and '.join(FILES.values())}"
        ) from error
    stored = cache_folder() / f"mano-{side}-{digest}-v{_VERSION}.npz"
    try:
        with np.load(stored, allow_pickle=False) as found:
            return {name: found[name] for name in _SHAPES}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        pass  # absent, or damaged by a crash of the machine: read the pickle afresh
    arrays = _checked(path, load_pickle(path, allowed=_CLASSES))
    _store(stored, arrays)
    return arrays


def _store(path: Path, arrays: Arrays) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npz")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}): set XDG_CACHE_HOME to a writable folder") from error


def _checked(path: Path, content: object) -> Arrays:
    """The arrays of a pickle's content, of the right shapes and in plain types."""
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no dict, so it is no MANO; give the file as its authors distribute it")
    arrays: Arrays = {}
    for name, shape in _SHAPES.items():
        whole = name in ("f", "kintree_table")
        try:
            value = np.asarray(_value(content[name]))
            if whole:  # the root's parent is the largest unsigned number
                value = np.where(value >= 1 << 31, -1, value.astype(np.int64))
            arrays[name] = value.astype(np.int64 if whole else np.float64)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{path}: {name} cannot be read ({error!r}); give the file of MANO's authors") from error
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            raise InputError(
                f"{path}: {name} is {arrays[name].shape}, MANO's is {shape} and finite; give the hand-only model"
            )
    sound = (
        arrays["kintree_table"][0, 1:].tolist() == list(MANO_PARENTS)
        and 0 <= arrays["f"].min()
        and arrays["f"].max() < len(arrays["v_template"])
        and np.allclose(arrays["weights"].sum(1), 1, atol=1e-3)
    )
    if not sound:
        raise InputError(f"{path}: its joints, faces or weights are not those of MANO; give the file of its authors")
    return arrays


def _value(node: object) -> Any:
    """What a chumpy object or a sparse matrix stands for."""
    if not isinstance(node, Inert):
        return node
    if node.class_name.startswith("scipy."):
        return node.toarray()
    state = node.state if isinstance(node.state, dict) else {}
    if "x" in state:  # chumpy.ch.Ch: a value
        return _value(state["x"])
    if {"a", "idxs", "preferred_shape"} <= state.keys():  # chumpy.reordering.Select: some elements of another
        picked = np.asarray(_value(state["a"])).ravel()[np.asarray(state["idxs"])]
        return picked.reshape(tuple(int(side) for side in state["preferred_shape"]))
    raise ValueError(f"{node.class_name} is neither a value nor a selection")

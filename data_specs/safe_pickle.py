"""Pickles of strangers: numbers, text, containers and NumPy arrays, and no code of theirs.

RHD, HO-3D and MANO ship pickles of the Python 2 era. A pickle is a program; here it may call only what stands in this
module, and none of it reaches NumPy with a dtype or shape that was not checked first: `dtype.__setstate__` believes its
flags, so a forged object dtype would turn bytes into pointers. Every other class is refused by name, unless the caller
names it in `allowed`: then it loads as an `Inert` box that keeps the class's name and state.
"""

import math
import pickle
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError

__all__ = ["Inert", "RefusedPickleError", "load_pickle"]


class RefusedPickleError(InputError):
    """A pickle asked for code. Other faults are damage; this one is never passed over."""


class Inert:
    """An object of an allowed class, never of the class itself: what the pickle says of it, and no behaviour."""

    class_name: str = ""
    """Dotted name of the class in the pickle."""

    state: object
    """What the pickle would have given to `__setstate__`, mostly a dict; {} where it gave nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> "Inert":
        """Take and forget any constructor arguments."""
        new = object.__new__(cls)
        object.__setattr__(new, "state", {})
        return new

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state

    def toarray(self) -> NDArray[Any]:
        """The dense (rows, columns) array of a `scipy.sparse` CSC matrix.

        Raises:
            ValueError: The state is not that of a CSC matrix.
        """
        state = self.state if isinstance(self.state, dict) else {}
        try:
            shape = state["_shape"] if "_shape" in state else state["shape"]
            rows, columns = (int(side) for side in shape)
            data, indices, indptr = (np.asarray(state[key]) for key in ("data", "indices", "indptr"))
            if not 0 < rows * columns <= 1 << 28:
                raise ValueError(f"{rows} x {columns} elements")
            dense = np.zeros((rows, columns), data.dtype)
            np.add.at(dense, (indices, np.repeat(np.arange(columns), np.diff(indptr))), data)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"{self.class_name} does not hold a CSC matrix ({error})") from error
        return dense


def load_pickle(path: Path | str, allowed: Collection[str] = ()) -> object:
    """Load a pickle without running anything in it.

    Args:
        path: The file; Python 2 text is read as latin-1.
        allowed: Dotted names of further classes, or `package.*` for all of a package; their objects load as `Inert`.

    Returns:
        What the pickle holds: None, bool, int, float, complex, str, bytes, tuple, list, dict, set, `numpy.ndarray`,
        NumPy scalars and dtypes, and `Inert`.

    Raises:
        RefusedPickleError: It names a class that is not allowed.
        InputError: The file cannot be read, is no pickle, or is damaged.

    Example:
        >>> load_pickle("MANO_RIGHT.pkl", allowed=("chumpy.*", "scipy.sparse.*"))  # doctest: +SKIP
    """
    path = Path(path)
    try:
        with open(path, "rb") as handle:
            return _plain(_Unpickler(handle, allowed).load(), {})
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file that can") from error
    except _Refused as error:
        line = f"{path}: asks for {error}, which is not allowed; get the file from its source"
        raise RefusedPickleError(line) from error
    except RecursionError as error:
        raise InputError(f"{path}: is nested too deeply for a data file; get the file from its source") from error
    except Exception as error:  # a damaged or hostile pickle fails in any way: its opcodes call Python's own types
        reason = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: is not a sound pickle ({reason}); download it again") from error


class _Refused(Exception):
    """A name that the pickle asked for and does not get."""


class _Call:
    """A function that a pickle may call and cannot change (BUILD on a plain function would set its attributes)."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        return self._function(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a function cannot be given a state")


class _Name:
    """A class that a pickle may mention as an argument, and cannot call."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a class cannot be given a state")


class _Dtype:
    """What a pickle says of a dtype: of numbers, of text, or of objects, which are unpickled under the same rules."""

    __slots__ = ("_order", "_text")

    def __init__(self, text: object, align: object = False, copy: object = True) -> None:
        if not isinstance(text, str) or not re.fullmatch(r"[biufcSU]\d{1,9}|O8?", text):
            raise pickle.UnpicklingError(f"an array of dtype {str(text)[:40]!r}")
        self._text, self._order = text.removesuffix("8") if text[0] == "O" else text, "="

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 4 else None
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):  # type: ignore[index]
            raise pickle.UnpicklingError("a dtype that is no plain number or text")
        self._order = order

    def resolve(self) -> np.dtype[Any]:
        """The dtype itself, made by NumPy from its name alone."""
        return np.dtype(self._text).newbyteorder(self._order)  # type: ignore[arg-type]


class _Array(np.ndarray[Any, Any]):
    """An array that checks its state before NumPy sees it."""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Dtype):
            raise pickle.UnpicklingError("an array with a state of another kind")
        _, shape, dtype, fortran, raw = state
        real = dtype.resolve()
        count = _count(shape)
        if real.kind == "O":
            sound = isinstance(raw, list) and len(raw) == count
        else:
            raw = raw.encode("latin1") if isinstance(raw, str) else raw
            sound = isinstance(raw, bytes) and len(raw) == count * real.itemsize
        if not sound:
            raise pickle.UnpicklingError("an array whose data do not fill its shape")
        super().__setstate__((1, shape, real, bool(fortran), raw))


def _count(shape: object) -> int:
    """Elements of a shape that a pickle gave."""
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise pickle.UnpicklingError("an array of impossible shape")
    return math.prod(shape)


def _reconstruct(kind: object, shape: object, dtype: object) -> _Array:
    """NumPy's first step for every array: an empty one, whose state follows."""
    if not isinstance(kind, _Name) or kind.name != "ndarray":
        raise pickle.UnpicklingError("an array of a class of its own")
    return np.empty(0, np.uint8).view(_Array)


def _filled(dtype: object, raw: object, shape: tuple[int, ...], order: object = "C") -> NDArray[Any]:
    raw = raw.encode("latin1") if isinstance(raw, str) else bytes(raw) if isinstance(raw, bytearray) else raw
    if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes) or dtype.resolve().kind == "O":
        raise pickle.UnpicklingError("an array that is not made of plain numbers")
    real = dtype.resolve()
    if len(raw) != _count(shape) * real.itemsize or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array whose data do not fill its shape")
    return np.frombuffer(raw, real).reshape(shape, order=order).copy(order="K")


def _scalar(dtype: object, raw: object = b"") -> object:
    return _filled(dtype, raw, ())[()]


def _frombuffer(raw: object, dtype: object, shape: object, order: object, axis_order: object = None) -> object:
    """Protocol 5's way to an array."""
    if not isinstance(shape, tuple) or axis_order is not None:
        raise pickle.UnpicklingError("an array of impossible shape")
    return _filled(dtype, raw, shape, order)


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Python 3 writes bytes into protocol 2 as latin-1 text."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("text of another encoding")
    return text.encode("latin1")


def _object(kind: object, base: object, state: object = None) -> Inert:
    """Protocols 0 and 1's way to a plain object."""
    if not isinstance(kind, type) or not issubclass(kind, Inert):
        raise pickle.UnpicklingError("an object of a built-in class")
    return kind()


_KNOWN: dict[str, object] = {
    "numpy.ndarray": _Name("ndarray"),
    "numpy.dtype": _Call(_Dtype),
    "copy_reg._reconstructor": _Call(_object),
    "copyreg._reconstructor": _Call(_object),
    "_codecs.encode": _Call(_encode),
}
for _builtins in ("__builtin__", "builtins"):
    _KNOWN[f"{_builtins}.set"] = _Call(set)
    _KNOWN[f"{_builtins}.object"] = _Name("object")
    _KNOWN[f"{_builtins}.bytes"] = _Call(lambda: b"")  # protocols 0 to 2 have no other way to write an empty one
    _KNOWN[f"{_builtins}.complex"] = _Call(complex)
for _core in ("numpy.core", "numpy._core"):
    _KNOWN[f"{_core}.multiarray._reconstruct"] = _Call(_reconstruct)
    _KNOWN[f"{_core}.multiarray.scalar"] = _Call(_scalar)
    _KNOWN[f"{_core}.numeric._frombuffer"] = _Call(_frombuffer)


class _Unpickler(pickle.Unpickler):
    """Knows the names of `_KNOWN` and of the caller; imports nothing."""

    def __init__(self, handle: Any, allowed: Collection[str]) -> None:
        super().__init__(handle, encoding="latin1", fix_imports=False)
        self._allowed = frozenset(allowed)
        self._inert: dict[str, type[Inert]] = {}

    def find_class(self, module: str, name: str) -> object:
        """Everything a pickle refers to passes here."""
        full = f"{module}.{name}"
        if full in _KNOWN:
            return _KNOWN[full]
        parts = module.split(".")
        packages = {".".join(parts[: n + 1]) + ".*" for n in range(len(parts))}
        if full in self._allowed or packages & self._allowed:
            # one class for each load, so that no pickle can leave anything on a class that others see
            return self._inert.setdefault(full, type(name, (Inert,), {"class_name": full}))
        raise _Refused(full)

    def persistent_load(self, pid: object) -> object:
        """References to objects outside the file."""
        raise _Refused("an object outside the file")


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """Put NumPy's own arrays in the place of ours, in every container; `seen` closes circles."""
    if isinstance(value, _Array):
        array = seen.get(id(value))
        if array is None:
            array = seen[id(value)] = value.view(np.ndarray)
            if array.dtype.hasobject:
                for index in np.ndindex(array.shape):
                    array[index] = _plain(array[index], seen)
        return array
    if isinstance(value, _Dtype):
        return value.resolve()
    if isinstance(value, tuple):
        return tuple(_plain(part, seen) for part in value)
    if isinstance(value, list | dict | Inert):
        if id(value) in seen:
            return value
        seen[id(value)] = value
        if isinstance(value, list):
            value[:] = [_plain(part, seen) for part in value]
        elif isinstance(value, dict):
            for key in value:
                value[key] = _plain(value[key], seen)
        else:
            value.state = _plain(value.state, seen)
    elif isinstance(value, _Call | _Name) or isinstance(value, type):
        raise pickle.UnpicklingError("a class in the place of data")
    return value

"""Reading a dataset: a map-style class for torch's DataLoader, and an iterator.

The file is opened lazily and once in each process, so a dataset can be pickled, forked or sent to DataLoader workers.
"""

import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import DamagedFileError, InputError, NewerFileError
from handaug.data_specs.joints import JOINTS
from handaug.data_specs.schema import FIELDS, KINDS, NOT_LABELLED, SCHEMA_VERSION, SPLITS

__all__ = [
    "H5PY_ERRORS",
    "HandDataset",
    "LockedFileError",
    "check_header",
    "damage_named",
    "has_signature",
    "open_file",
]

H5PY_ERRORS = (OSError, KeyError, ValueError, RuntimeError, TypeError, OverflowError)
"""What h5py raises where the bytes of an open file are damaged; which of them depends on the spot."""


class LockedFileError(InputError):
    """An input file is sound as far as is known, but another program has it open for writing."""


def open_file(path: Path | str) -> h5py.File:
    """Open a dataset file for reading.

    Raises:
        InputError: Missing, a folder, a pipe or device, unreadable, not HDF5, truncated, or open for writing elsewhere.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{path}: no such file; give the path of a dataset, or make one with 'handaug render'"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a dataset") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder; give the path of an HDF5 dataset")
    if not stat.S_ISREG(mode):  # reading a pipe would wait for ever
        raise InputError(f"{path}: is no regular file; give the path of an HDF5 dataset")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if not os.access(path, os.R_OK):
            raise InputError(f"{path}: cannot be read; check its permissions") from error
        if "unable to lock file" in str(error):
            raise LockedFileError(
                f"{path}: is open for writing in another program, or its disk has no file locks; close it, or set "
                "HDF5_USE_FILE_LOCKING=FALSE"
            ) from error
        if h5py.is_hdf5(path) or has_signature(path):
            raise DamagedFileError(f"{path}: is truncated or damaged; make it again or give another file") from error
        raise InputError(f"{path}: is not an HDF5 file; make it again or give another file") from error


def has_signature(path: Path) -> bool:
    """Whether a file begins as HDF5 does."""
    with open(path, "rb") as handle:
        return handle.read(8) == b"\x89HDF\r\n\x1a\n"


_LABELS = ("keypoints_2d", "visibility", "handedness")


def check_header(file: h5py.File, path: Path | str, *, unlabelled: bool = False) -> None:
    """Check that a file is a finished dataset of our schema: attributes, fields, dtypes and shapes.

    Args:
        file: The open file.
        path: Its name in messages.
        unlabelled: Whether the fields that label a hand may be absent.

    Raises:
        InputError: The first thing that is wrong, with a remedy.
    """
    with damage_named(path):
        _check_attributes(file, path)
        _check_fields(file, path, unlabelled)


@contextmanager
def damage_named(path: Path | str) -> Iterator[None]:
    """Turn what h5py raises over damaged bytes into one line that names the file."""
    try:
        yield
    except H5PY_ERRORS as error:
        raise _damaged(path, str(error.args[0] if error.args else error)) from error


def _damaged(path: Path | str, what: str) -> InputError:
    return InputError(f"{path}: is damaged ({' '.join(what.split())}); make it again")


def _check_attributes(file: h5py.File, path: Path | str) -> None:
    version = file.attrs.get("schema")
    if version is None:
        raise InputError(f"{path}: is HDF5 but not a handaug dataset (no 'schema' attribute); convert it first")
    if not isinstance(version, np.integer) or version < 1:
        raise _damaged(path, f"its schema is {version!r}")
    if version > SCHEMA_VERSION:
        raise NewerFileError(
            f"{path}: has schema {version}, this handaug reads {SCHEMA_VERSION}; install a newer handaug"
        )
    complete = file.attrs.get("complete", np.False_)
    if not isinstance(complete, np.bool_ | np.integer):
        raise _damaged(path, f"its mark of completeness is {complete!r}")
    if not complete:
        raise InputError(f"{path}: was never finished; run the command that writes it again")
    if np.asarray(file.attrs.get("joints", ())).ravel().tolist() != list(JOINTS):
        raise InputError(f"{path}: its joints differ from the 21 of the schema; convert it first")
    kinds: dict[str, type] = {"kind": str, "config": str, "seed": np.integer, "checksum": str}
    for name, kind in kinds.items():
        if not isinstance(file.attrs.get(name), kind):
            raise _damaged(path, f"its {name} is {file.attrs[name]!r}" if name in file.attrs else f"it has no {name}")
    if file.attrs["kind"] not in KINDS:
        raise InputError(f"{path}: its kind {file.attrs['kind']!r} is none of {', '.join(KINDS)}; convert it first")
    try:
        config = json.loads(file.attrs["config"])
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its config is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise _damaged(path, "its config is no JSON object")


def _check_fields(file: h5py.File, path: Path | str, unlabelled: bool) -> None:
    present = [name for name in FIELDS if name in file]
    missing = [name for name, field in FIELDS.items() if field.required and name not in present]
    missing = [name for name in missing if not (unlabelled and name in _LABELS)]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; make it again or convert it")
    for name in present:
        if not isinstance(file[name], h5py.Dataset):
            raise _damaged(path, f"{name} is no array")
    if file["images"].ndim != 4 or file["images"].shape[3] not in (1, 3):
        raise InputError(f"{path}: images must be (N, H, W, 1 or 3), found {file['images'].shape}; convert it first")
    rows, height, width, channels = file["images"].shape
    if not (height and width):
        raise _damaged(path, f"its images are {width} x {height} px")
    sizes: dict[int | str, int] = {"H": height, "W": width, "C": channels}
    for name in present:
        field, dataset = FIELDS[name], file[name]
        expected = (rows, *(sizes.get(d, d) for d in field.shape))
        fits = dataset.ndim == len(expected) and all(
            e in ("*", d) for e, d in zip(expected, dataset.shape, strict=True)
        )
        if dataset.dtype != np.dtype(field.dtype) or not fits:
            found = f"{dataset.dtype} {dataset.shape}"
            raise InputError(f"{path}: {name} is {found}, must be {field.dtype} {expected}; convert it first")


class HandDataset:
    """Rows of one dataset file.

    Args:
        path: An HDF5 file of schema 1.
        split: "train", "val" or "test"; all rows by default.
        rows: Row numbers in the file, in the order wanted; combined with `split` it must lie inside that split.
        fields: Fields that an item holds; all by default.
        unlabelled: Whether a file without keypoints_2d, visibility and handedness will do.

    Raises:
        InputError: The file is missing, foreign, damaged, unfinished, of a newer schema, or a labelled keypoint is not
            finite.

    Example:
        loader = torch.utils.data.DataLoader(HandDataset("renders.h5", split="train"), batch_size=64, num_workers=4)
    """

    def __init__(
        self,
        path: Path | str,
        *,
        split: str | None = None,
        rows: NDArray[np.integer[Any]] | Sequence[int] | None = None,
        fields: Sequence[str] | None = None,
        unlabelled: bool = False,
    ) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._pid = -1
        with open_file(self.path) as file, damage_named(self.path):
            check_header(file, self.path, unlabelled=unlabelled)
            _check_labels(file, self.path)
            self.attrs: dict[str, Any] = {
                name: value.item() if isinstance(value, np.generic) else value for name, value in file.attrs.items()
            }
            available = tuple(name for name in FIELDS if name in file)
            total, height, width, self.channels = file["images"].shape
            splits = file["split"][:]
        self.size: tuple[int, int] = (height, width)
        unknown = set(fields or ()) - set(available)
        if unknown:
            raise InputError(f"{self.path}: has no {', '.join(sorted(unknown))}; it has {', '.join(available)}")
        self.available = available
        self.fields = tuple(fields) if fields is not None else available
        self.rows: NDArray[np.int64] = np.arange(total) if rows is None else np.asarray(rows, np.int64)
        if self.rows.size and not (0 <= self.rows.min() and self.rows.max() < total):
            raise IndexError(f"{self.path}: row numbers must lie in 0..{total - 1}")
        if split is not None:
            self.rows = self.rows[splits[self.rows] == SPLITS[split]]

    @property
    def kind(self) -> str:
        """ "rendered", "minted" or "imported"."""
        return str(self.attrs["kind"])

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that reproduces the file."""
        config: dict[str, Any] = json.loads(self.attrs["config"])
        return config

    @property
    def seed(self) -> int:
        """The seed that reproduces the file."""
        return int(self.attrs["seed"])

    @property
    def checksum(self) -> str:
        """The stored content checksum; `handaug verify` compares it with the content."""
        return str(self.attrs["checksum"])

    def has(self, field: str) -> bool:
        """Whether the file holds a field."""
        return field in self.available

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]:
        """One row as {field: array}, scalars as arrays of no dimension."""
        row = int(self.rows[index])
        file = self._open()
        with damage_named(self.path):
            return {name: np.asarray(file[name][row]) for name in self.fields}

    def read(self, field: str, index: NDArray[np.integer[Any]] | slice | None = None) -> NDArray[Any]:
        """One field of many rows.

        Args:
            field: Name of the field.
            index: Positions in this view, not row numbers of the file; all by default.

        Returns:
            (rows, *row shape), in the order asked for.
        """
        rows = self.rows if index is None else self.rows[index]
        if field not in self.available:
            raise InputError(f"{self.path}: has no {field}; it has {', '.join(self.available)}")
        file = self._open()
        try:
            dataset = file[field]
            if not rows.size:
                return np.empty((0, *dataset.shape[1:]), dataset.dtype)
            return _read_rows(dataset, rows)
        except H5PY_ERRORS as error:
            raise InputError(f"{self.path}: {field} is damaged; run 'handaug verify {self.path}'") from error

    def iter_batches(self, size: int, fields: Sequence[str] | None = None) -> Iterator[dict[str, NDArray[Any]]]:
        """Blocks of up to `size` rows, in order, as {field: array}."""
        names = tuple(fields) if fields is not None else self.fields
        for start in range(0, len(self), size):
            block = slice(start, start + size)
            yield {name: self.read(name, block) for name in names}

    def _open(self) -> h5py.File:
        if self._file is None or self._pid != os.getpid():
            self._file, self._pid = open_file(self.path), os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_pid": -1}


def _read_rows(dataset: h5py.Dataset, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Rows in any order: one slice where they lie densely, else one by one (h5py's own fancy indexing is slower)."""
    first, last = int(rows.min()), int(rows.max())
    if last - first + 1 <= 2 * len(rows):
        block: NDArray[Any] = dataset[first : last + 1]
        return block if len(block) == len(rows) and (np.diff(rows) == 1).all() else block[rows - first]
    out = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    for k, row in enumerate(rows):
        out[k] = dataset[int(row)]
    return out


def _check_labels(file: h5py.File, path: Path) -> None:
    """A joint that counts as labelled must have finite coordinates."""
    if "visibility" not in file:
        return
    names = [name for name in ("keypoints_2d", "keypoints_3d") if name in file]
    block = 65536
    for start in range(0, file["visibility"].shape[0], block):
        labelled = file["visibility"][start : start + block] != NOT_LABELLED
        for name in names:
            bad = (labelled & ~np.isfinite(file[name][start : start + block]).all(-1)).any(-1)
            if bad.any():
                row = start + int(bad.argmax())
                raise InputError(
                    f"{path}: {name} of row {row} is not finite though labelled; set its visibility to 0 or repair it"
                )

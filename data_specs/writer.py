"""Writing a dataset: append in bounded memory, finish by an atomic rename."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from handaug import __version__
from handaug.data_specs.checksum import content_checksum
from handaug.data_specs.errors import InputError, WorkError, is_full
from handaug.data_specs.joints import JOINTS
from handaug.data_specs.schema import FIELDS, KINDS, LABEL_CHUNK_ROWS, SCHEMA_VERSION

__all__ = [
    "DatasetWriter",
    "config_json",
    "create_field",
    "partial_path",
    "release_space",
    "replace_atomically",
    "write_atomically",
    "reserve_space",
    "write_attributes",
]


_MARGIN_BYTES = 1 << 20
"""HDF5's own bookkeeping, and label chunks that are allocated whole."""


def config_json(config: Mapping[str, Any]) -> str:
    """The one text form of a config: sorted keys, so that equal configs are equal strings."""
    return json.dumps(dict(config), sort_keys=True)


def partial_path(path: Path) -> Path:
    """Where work in progress on `path` lies.

    Raises:
        InputError: `path` is `.` or `/`.
    """
    if not path.name:
        raise InputError(f"{path}: has no name of its own; give the name of what is to be made")
    return path.with_name(path.name + ".partial")


def replace_atomically(temporary: Path, final: Path) -> None:
    """Flush `temporary` to the disk and give it its final name in one step."""
    with open(temporary, "rb") as handle:
        os.fsync(handle.fileno())
    os.replace(temporary, final)


def remove_path(path: Path) -> None:
    """Remove a file, a link or a whole folder; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all.

    Raises:
        OSError: With the name of the file; what stood there before is as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content)
        replace_atomically(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def reserve_space(path: Path, size: int) -> None:
    """Make the file at least `size` bytes long, so that a full disk shows here and not inside the HDF5 library.

    HDF5 cannot recover from a write that fails: it keeps the data cached, fails again while closing, and crashes at
    exit. HDF5 does not notice what is added here; `release_space` cuts it off again.

    Raises:
        WorkError: The disk is full, or a quota or limit is reached.
    """
    with open(path, "rb+") as handle:
        if os.fstat(handle.fileno()).st_size >= size:
            return
        try:
            os.posix_fallocate(handle.fileno(), 0, size)
        except OSError as error:
            raise WorkError(f"{path}: writing failed ({_reason(error)}); free space and run again") from error


def release_space(path: Path) -> None:
    """Cut a closed file to the length that HDF5 itself states (superblock version 2 or 3, "End of File Address")."""
    with open(path, "rb+") as handle:
        superblock = handle.read(36)
        if superblock[8] not in (2, 3) or superblock[9] != 8:
            raise ValueError(f"{path}: not an HDF5 file that this writer made")
        handle.truncate(int.from_bytes(superblock[28:36], "little"))


def create_field(file: h5py.File, path: str, rows: int, row_shape: tuple[int, ...]) -> h5py.Dataset:
    """Create one field of the schema with its dtype, chunks and filter, growable along the rows."""
    field = FIELDS[path]
    return file.create_dataset(
        path,
        shape=(rows, *row_shape),
        maxshape=(None, *row_shape),
        dtype=field.dtype,
        chunks=(1 if field.pixels else LABEL_CHUNK_ROWS, *row_shape),
        compression="gzip" if field.gzip else None,
        compression_opts=1 if field.gzip else None,
    )


def write_attributes(
    file: h5py.File, *, kind: str, config: Mapping[str, Any], seed: int, attrs: Mapping[str, Any]
) -> None:
    """Write the root attributes that every file has; `complete` starts as False."""
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not one of {KINDS}")
    file.attrs["schema"] = SCHEMA_VERSION
    file.attrs["kind"] = kind
    file.attrs["joints"] = list(JOINTS)
    file.attrs["config"] = config_json(config)
    file.attrs["handaug_version"] = __version__
    file.attrs["seed"] = seed
    file.attrs["complete"] = False
    for key, value in attrs.items():
        file.attrs[key] = value


class DatasetWriter:
    """Writes one dataset file, row blocks in, a complete file out.

    Rows go to `PATH.partial`; leaving the `with` block cleanly writes the checksum, marks the file complete and renames
    it. An exception inside the block removes the partial file and leaves whatever stood under the final name alone.

    Args:
        path: The final file.
        kind: "rendered", "minted" or "imported".
        config: JSON-able mapping that reproduces the file.
        seed: The seed.
        size: Image height and width in pixels, or one number for both.
        channels: 1 or 3.
        fields: Optional fields to write besides the required ones.
        attrs: Further root attributes.

    Raises:
        InputError: The place cannot be written.
        ValueError: A row block does not fit the schema (a defect of the caller).
        WorkError: The disk is full.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        kind: str,
        config: Mapping[str, Any],
        seed: int,
        size: int | tuple[int, int],
        channels: int,
        fields: Iterable[str] = (),
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.rows = 0
        height, width = (size, size) if isinstance(size, int) else size
        self._sizes: dict[int | str, int] = {"H": height, "W": width, "C": channels}
        wanted = set(fields) | {name for name, field in FIELDS.items() if field.required}
        unknown = wanted - set(FIELDS)
        if unknown:
            raise ValueError(f"unknown fields {sorted(unknown)}")
        self._fields = [name for name in FIELDS if name in wanted]
        self._temporary = partial_path(self.path)
        try:
            self._file = h5py.File(self._temporary, "w", libver=("v110", "v110"))
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({_reason(error)}); choose another output") from error
        write_attributes(self._file, kind=kind, config=config, seed=seed, attrs=attrs or {})

    def append(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Append a block of rows.

        Args:
            rows: Each field's block, first axis the rows; exactly the fields of this writer.
        """
        if set(rows) != set(self._fields):
            raise ValueError(f"fields {sorted(set(rows) ^ set(self._fields))} are missing or unexpected")
        count = len(rows[self._fields[0]])
        for name in self._fields:
            self._check(name, rows[name], count)
        block_bytes = sum(rows[name].nbytes for name in self._fields)
        reserve_space(self._temporary, self._file.id.get_filesize() + block_bytes + _MARGIN_BYTES)
        try:
            for name in self._fields:
                block = rows[name]
                if name not in self._file:
                    create_field(self._file, name, 0, block.shape[1:])
                dataset = self._file[name]
                dataset.resize(self.rows + count, axis=0)
                dataset[self.rows :] = block
        except OSError as error:
            raise WorkError(f"{self.path}: writing failed ({_reason(error)}); free space and run again") from error
        self.rows += count

    def set_attributes(self, attrs: Mapping[str, Any]) -> None:
        """Add root attributes that are known only once the rows are."""
        for key, value in attrs.items():
            self._file.attrs[key] = value

    def _check(self, name: str, block: NDArray[Any], count: int) -> None:
        field = FIELDS[name]
        expected = tuple(self._sizes.get(d, d) for d in field.shape)
        fits = len(block.shape[1:]) == len(expected) and all(
            e == "*" or e == b for e, b in zip(expected, block.shape[1:], strict=True)
        )
        if block.dtype != np.dtype(field.dtype) or not fits or len(block) != count:
            found, wanted = f"{block.dtype} {block.shape}", f"{field.dtype} {(count, *expected)}"
            raise ValueError(f"{name}: {found} does not fit {wanted}")

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._discard()
            return
        try:
            self._create_empty_fields()
            self._file.attrs["checksum"] = content_checksum(self._file)
            self._file.attrs["complete"] = True
            self._file.close()
            release_space(self._temporary)
            replace_atomically(self._temporary, self.path)
        except OSError as failure:
            self._discard()
            raise WorkError(f"{self.path}: writing failed ({_reason(failure)}); free space and run again") from failure

    def _create_empty_fields(self) -> None:
        """A dataset of zero rows still has all its fields."""
        for name in self._fields:
            if name not in self._file:
                shape = tuple(self._sizes.get(d, 0 if d == "*" else d) for d in FIELDS[name].shape)
                create_field(self._file, name, 0, tuple(int(s) for s in shape))

    def _discard(self) -> None:
        try:
            self._file.close()
        except (OSError, RuntimeError):
            pass  # a full disk also fails the flush inside close; the file goes away next
        self._temporary.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    return "the disk is full" if is_full(error) else error.strerror or str(error).split("\n")[0]

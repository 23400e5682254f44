"""Resumable outputs: shards in `OUT.partial/`, then one file under the final name.

A job writes shard i whenever it likes, in any process; a shard that is there and verifies is never made again. So a
kill at any moment costs at most the shards in flight, and the same command goes on.
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from handaug.data_specs.checksum import content_checksum
from handaug.data_specs.errors import HandaugError, InputError
from handaug.data_specs.merge import merge_datasets
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import H5PY_ERRORS, LockedFileError, check_header, has_signature, open_file
from handaug.data_specs.writer import config_json, partial_path, remove_path, write_atomically

__all__ = ["PartialOutput", "check_name", "claim_output", "claim_place", "remove_leftover"]

_CONFIG, _LOCK = "config.json", "lock"

_SIDE_FILES = (".png", ".json", ".html")
"""What stands beside a dataset, under its name: contact sheet, figures, report."""


def claim_output(out: Path) -> None:
    """Check that a dataset can be written to `out` before any work starts.

    Raises:
        InputError: The parent is missing and cannot be made, is not a folder, or is read-only; `out` is a folder, a
            device, a link to nothing, a file that is no dataset or in use, too long a name, or that of a file beside
            the dataset; or a file or folder of someone else stands where the unfinished work would.
    """
    check_name(out)
    claim_place(out)
    unfinished = partial_path(out)
    if unfinished.exists() and not (_is_work(unfinished) if unfinished.is_dir() else _is_ours(unfinished)):
        raise InputError(f"{unfinished}: is in the way of the unfinished work; move it or choose another output")


def claim_place(out: Path) -> None:
    """Make the folder of a file of any kind, and check that it can be written there before any work starts.

    Raises:
        InputError: It cannot.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        probe = out.with_name(f".{out.name}.{os.getpid()}.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _cannot_write(out, error) from error


def check_name(out: Path) -> None:
    """Check what `claim_output` checks of `out` alone; writes nothing, so that a read-only place will do.

    Raises:
        InputError: As there.
    """
    try:
        if out.is_dir():
            raise InputError(f"{out}: is a folder; give the name of a file to write")
        if out.suffix.lower() in _SIDE_FILES:
            raise InputError(f"{out}: {out.suffix} files stand beside a dataset; name the dataset .h5")
        if os.path.lexists(out) and not out.exists():
            raise InputError(f"{out}: is a link to nothing; remove it or choose another output")
        if out.exists() and not out.is_file():
            raise InputError(f"{out}: is a device or pipe; give the name of a file to write")
        if out.exists() and not _is_ours(out):
            raise InputError(f"{out}: is no dataset of handaug; choose another output")
    except OSError as error:
        raise _cannot_write(out, error) from error


def _cannot_write(out: Path, error: OSError) -> InputError:
    remedy = "give it a shorter name" if error.errno == errno.ENAMETOOLONG else "choose another output"
    return InputError(f"{out}: cannot be written ({error.strerror}); {remedy}")


def _is_work(folder: Path) -> bool:
    """Whether a folder may be the work folder of an output: it has its config, or nothing but a lock and shards."""
    names = {path.name for path in folder.iterdir()}
    return _CONFIG in names or all(name == _LOCK or name.startswith((_CONFIG, "shard-")) for name in names)


def _is_ours(path: Path) -> bool:
    """Whether a file is a dataset, or may be what a kill or damage left of one: HDF5 that cannot be opened.

    Raises:
        LockedFileError: Another program writes it.
    """
    if not path.is_file() or not has_signature(path):
        return False
    try:
        with open_file(path) as file:
            return "schema" in file.attrs
    except LockedFileError:
        raise
    except (InputError, *H5PY_ERRORS):
        return True


class PartialOutput:
    """The work folder of one output file. Get one from `open`."""

    def __init__(self, out: Path, config: Mapping[str, Any]) -> None:
        self.out = out
        self.config = dict(config)
        self.folder = partial_path(out)
        self._lock: int | None = None

    @classmethod
    def open(
        cls,
        out: Path,
        config: Mapping[str, Any],
        *,
        overwrite: bool,
        by_shard: Sequence[str] = (),
        absent: Mapping[str, Any] = MappingProxyType({}),
    ) -> "PartialOutput | None":
        """Start, resume or skip the work on an output.

        Args:
            out: The final file.
            config: JSON-able mapping; equal config means the same file.
            overwrite: Whether an output or leftover work of another config may be replaced. What stands under the final
                name stays until the new file is complete.
            by_shard: Keys of the config in which leftover work may differ: the caller sees to each shard.
            absent: What keys stand for that are not in a config, as an older handaug wrote it.

        Returns:
            None where `out` is complete with this config and is not to be made again.

        Raises:
            InputError: `out` cannot be written, holds something else, or another process is at work on it.
        """
        check_name(out)
        work = cls(out, config)
        key = config_json({name: value for name, value in config.items() if name not in by_shard})
        if out.is_file() and not overwrite:
            if _completed(_config_of(out), absent) != config_json(config):
                raise InputError(f"{out}: exists with another configuration; add --overwrite or choose another output")
            remove_leftover(work.folder / _CONFIG, key)
            return None
        claim_output(out)
        work._acquire()
        stored = work.folder / _CONFIG
        if stored.exists() and _completed(stored.read_text(), absent) != key:
            if not overwrite:
                work._release()
                raise InputError(
                    f"{work.folder}: holds unfinished work of another configuration; add --overwrite, or run the "
                    "command that began it"
                )
            work.remove()
            work._acquire()
        if not stored.exists():
            _clear(work.folder, keep=(_LOCK,))  # whose shards these are is not known
        write_atomically(stored, key.encode())
        return work

    def shard(self, index: int) -> Path:
        """The file of shard `index`; write it with `DatasetWriter`, which renames it when it is complete."""
        return self.folder / f"shard-{index:06d}.h5"

    def is_done(self, index: int) -> bool:
        """Whether shard `index` is there, complete, and its content fits its checksum. A damaged one is removed."""
        path = self.shard(index)
        if not path.exists():
            return False
        try:
            with open_file(path) as file:
                check_header(file, path)
                if file.attrs["checksum"] == content_checksum(file):
                    return True
        except (HandaugError, OSError):
            pass
        path.unlink()
        return False

    def assemble(
        self, shards: int, *, seed: int, attrs: Mapping[str, Any] | None = None, progress: Progress = SILENT
    ) -> Path:
        """Merge shards 0 .. shards - 1 into the final file and remove the work folder."""
        whole = self.folder / "whole.h5"
        paths = [self.shard(i) for i in range(shards)]
        merge_datasets(paths, whole, config=self.config, seed=seed, attrs=attrs, progress=progress)
        os.replace(whole, self.out)
        self.remove()
        return self.out

    def close(self) -> None:
        """Let another run go on with it; what is done stays."""
        self._release()

    def remove(self) -> None:
        """Remove the work folder."""
        _remove_work(self.folder)
        self._release()

    def _acquire(self) -> None:
        """One process at a time: the lock dies with its process, so a kill leaves none behind."""
        if self.folder.exists() and not self.folder.is_dir():
            self.folder.unlink()  # a killed single-file writer leaves a file of this name
        self.folder.mkdir(exist_ok=True)
        self._lock = os.open(self.folder / _LOCK, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._release()
            raise InputError(f"{self.out}: another process is writing it; wait for it or change the output") from error

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _clear(folder: Path, keep: Collection[str]) -> None:
    for path in folder.iterdir():
        if path.name not in keep:
            remove_path(path)


def _remove_work(folder: Path, key: str = _CONFIG) -> None:
    """Remove a work folder, what says whose it is last: a kill in between must not leave shards to another config."""
    if folder.is_dir():
        _clear(folder, keep=(_LOCK, key))
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftover(stored: Path, key: str) -> None:
    """Remove the work folder that a kill between rename and clean-up leaves behind a complete output: not that of
    another configuration, nor one at which a process is at work. In a read-only place nothing is done.

    Args:
        stored: File in the work folder that holds its key.
        key: That of the complete output.
    """
    try:
        if stored.read_text() != key:
            return
        lock = os.open(stored.parent / _LOCK, os.O_CREAT | os.O_RDWR)
    except (OSError, ValueError):
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_work(stored.parent, stored.name)
    except OSError:
        pass
    finally:
        os.close(lock)


def _completed(text: str, absent: Mapping[str, Any]) -> str:
    """A config's text with the keys that it lacks; what is no config stays as it is."""
    try:
        return config_json({**absent, **json.loads(text)}) if absent else text
    except (TypeError, ValueError):
        return text


def _config_of(path: Path) -> str:
    """The config text of a complete dataset; anything else reads as no config at all, but for one in use."""
    try:
        with open_file(path) as file:
            check_header(file, path)
            return config_json(json.loads(file.attrs["config"]))
    except LockedFileError:
        raise
    except (HandaugError, OSError, ValueError):
        return ""

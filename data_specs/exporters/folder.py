"""The work folder of an export: `OUT.partial/`, block by block, then one rename to OUT."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from handaug.data_specs.errors import InputError
from handaug.data_specs.exporters.base import Part
from handaug.data_specs.writer import config_json, partial_path, remove_path

__all__ = ["DESCRIPTION", "PartialFolder"]

DESCRIPTION = "handaug.json"
"""The file in every export that says what it is; a folder without one is never replaced."""

_PARTS, _DONE = "parts", "parts.done"
_LOCK, _NEW = "lock", f"{DESCRIPTION}.tmp"


class PartialFolder:
    """One export on its way. Get one from `open`."""

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.out = out
        self.identity = dict(identity)
        self.folder = partial_path(out)
        self._lock = -1

    @classmethod
    def open(cls, out: Path, identity: Mapping[str, Any], *, source: Path, overwrite: bool) -> "PartialFolder | None":
        """Start, resume or skip an export.

        Args:
            out: The final folder.
            identity: JSON-able mapping; equal identity means the same export.
            source: The dataset, which must not lie in a folder that goes away.
            overwrite: Whether another export, finished or not, may be replaced.

        Returns:
            None where `out` is this export already, and complete.

        Raises:
            InputError: `out` cannot be written, it or the work folder holds something else, or another process is at
                work on it.
        """
        if out.is_symlink():
            if not out.exists():
                raise InputError(f"{out}: is a link to nothing; remove it or choose another output")
            out = out.resolve()  # its folder is made again where it lies, and the link stays
        work = cls(out, identity)
        if out.exists() and not _is_empty_folder(out):
            work._check_old(source, overwrite)
            if not overwrite:
                remove_path(work._replaced)
                return None
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            work.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror}); choose another output") from error
        work._check_folder()
        work._acquire()
        try:
            work._claim(overwrite)
        except BaseException:
            work.release()
            raise
        return work

    def is_done(self, index: int) -> bool:
        """Whether block `index` is complete."""
        return self._part(index).is_dir()

    @contextmanager
    def block(self, index: int) -> Iterator[Path]:
        """A folder for the text of block `index`, which counts as done when the `with` block ends well."""
        temporary = self._part(index).with_suffix(".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, self._part(index))

    def part(self, index: int) -> Part:
        """What block `index` left."""
        return Part(self._part(index))

    def finish(self, description: Mapping[str, Any]) -> None:
        """Describe the export, drop what served the work, and give the folder its final name."""
        self._describe(description)
        self._drop_parts()
        (self.folder / _LOCK).unlink()
        if self.out.exists():
            # There is no way to exchange two folders at once; a kill in between leaves complete work behind, and the
            # same command goes on from there.
            remove_path(self._replaced)
            os.rename(self.out, self._replaced)
        os.rename(self.folder, self.out)
        remove_path(self._replaced)

    def remove(self) -> None:
        """Drop the work."""
        self._clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def release(self) -> None:
        """Let other processes, or a later call, go on with the work."""
        os.close(self._lock)

    @property
    def _replaced(self) -> Path:
        return self.out.with_name(f".{self.out.name}.replaced")

    def _part(self, index: int) -> Path:
        return self.folder / _PARTS / f"{index:06d}"

    def _clear(self) -> None:
        """Remove all but what says whose work it is, so that after a kill in between the folder is still ours."""
        self._drop_parts()
        for path in self.folder.iterdir():
            if path.name not in (_LOCK, DESCRIPTION):
                remove_path(path)

    def _drop_parts(self) -> None:
        """In one step: blocks of which a kill left half would count as done."""
        remove_path(self.folder / _DONE)
        if (self.folder / _PARTS).exists():
            os.replace(self.folder / _PARTS, self.folder / _DONE)
        remove_path(self.folder / _DONE)

    def _check_old(self, source: Path, overwrite: bool) -> None:
        """What stands under the final name is this export, or may be replaced."""
        if not self.out.is_dir():
            raise InputError(f"{self.out}: is a file; give the name of a folder to make")
        old = _identity_of(self.out / DESCRIPTION)
        if not old:
            raise InputError(f"{self.out}: is not empty and no export of handaug; choose a folder that does not exist")
        if old != config_json(self.identity) and not overwrite:
            raise InputError(f"{self.out}: holds another export; add --overwrite or choose another output")
        if source.resolve().is_relative_to(self.out.resolve()):
            raise InputError(f"{self.out}: holds the dataset {source.name} itself; choose another output")

    def _check_folder(self) -> None:
        """What stands where the work would be is ours: it says so, or a kill came before it could."""
        others = [path for path in self.folder.iterdir() if path.name not in (_LOCK, _NEW)]
        if others and not _identity_of(self.folder / DESCRIPTION):
            raise InputError(f"{self.folder}: holds other files, where the unfinished work would be; move it")

    def _claim(self, overwrite: bool) -> None:
        """Say whose work it is; what another export left goes first, where it may."""
        if _identity_of(self.folder / DESCRIPTION) not in ("", config_json(self.identity)):
            if not overwrite:
                raise InputError(
                    f"{self.folder}: holds unfinished work of another export; add --overwrite, or remove the folder"
                )
            self._clear()
        remove_path(self.folder / _DONE)
        self._describe({})

    def _describe(self, more: Mapping[str, Any]) -> None:
        text = json.dumps({"identity": self.identity, **more}, indent=1)
        temporary = self.folder / _NEW
        with open(temporary, "w", encoding="utf-8") as handle:
            handle.write(text + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, self.folder / DESCRIPTION)

    def _acquire(self) -> None:
        """One process at a time: the lock dies with its process."""
        self._lock = os.open(self.folder / _LOCK, os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            raise InputError(f"{self.out}: another process is writing it; wait for it or change the output") from error


def _identity_of(path: Path) -> str:
    """The identity text of a description; anything else reads as none."""
    try:
        return config_json(json.loads(path.read_text(encoding="utf-8"))["identity"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())

"""Output folders of training runs: resumable under `OUT.partial/`, whole under the final name.

The same rules as for dataset files: complete with the same key, nothing is done; unfinished with the same key, it
goes on; anything else is an error unless `overwrite`. What stands under the final name stays until the new run is
complete.
"""

import fcntl
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from handaug.data_specs.errors import InputError
from handaug.data_specs.partial import remove_leftover
from handaug.data_specs.writer import config_json, partial_path, remove_path, write_atomically

__all__ = ["RunFolder"]

_KEY = "run.json"


class RunFolder:
    """The work folder of one run, locked against a second process. Get one from `open`, use it as a context manager."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = partial_path(out)
        self._lock: int | None = None

    @classmethod
    def open(cls, out: Path, key: Mapping[str, Any], *, overwrite: bool) -> "RunFolder | None":
        """Start, resume or skip a run.

        Args:
            out: The final folder.
            key: JSON-able; equal keys mean the same run (config, checksum of the data).
            overwrite: Whether a run with another key may be replaced.

        Returns:
            None where `out` is complete with this key and is not to be made again.

        Raises:
            InputError: `out` cannot be written, holds something else, or another process is at work on it.
        """
        if out.exists() and not out.is_dir():
            raise InputError(f"{out}: is a file; give the name of a folder with --out")
        stored = out / _KEY
        if out.is_dir() and any(out.iterdir()):
            if not stored.is_file():
                raise InputError(f"{out}: holds other files and is not a run; choose another folder with --out")
            if not overwrite:
                if stored.read_text() != config_json(key):
                    raise InputError(
                        f"{out}: was made with another configuration or other data; add --overwrite or choose "
                        "another folder with --out"
                    )
                remove_leftover(partial_path(out) / _KEY, config_json(key))
                return None
        run = cls(out)
        run._acquire()
        try:
            run._claim(config_json(key), overwrite)
        except BaseException:
            run._release()
            raise
        return run

    def finish(self) -> Path:
        """Give the folder its final name, replacing an older run in one step as far as the file system allows."""
        old = self.out.with_name(f".{self.out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        (self.folder / "lock").unlink()
        if self.out.exists():
            os.replace(self.out, old)
        os.replace(self.folder, self.out)
        shutil.rmtree(old, ignore_errors=True)
        return self.out

    def _claim(self, key: str, overwrite: bool) -> None:
        stored = self.folder / _KEY
        others = [path for path in self.folder.iterdir() if path.name != "lock" and not path.name.startswith(_KEY)]
        if others and not stored.exists():
            raise InputError(f"{self.folder}: holds other files, where the unfinished run would be; move it")
        same = stored.exists() and stored.read_text() == key
        if stored.exists() and not same and not overwrite:
            raise InputError(
                f"{self.folder}: holds an unfinished run of another configuration or other data; add --overwrite, "
                "or run the command that began it"
            )
        if not same:
            # What says whose run it is goes last, when the new key takes its place.
            for path in others:
                remove_path(path)
        write_atomically(stored, key.encode())

    def _acquire(self) -> None:
        """One process at a time: the lock dies with its process, so a kill leaves none behind."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR)
        except OSError as error:
            raise InputError(f"{self.out}: cannot be written ({error.strerror}); choose another --out") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._release()
            raise InputError(f"{self.out}: another process is writing it; wait for it or change --out") from error

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        refused = kind is not None and issubclass(kind, InputError)
        if refused and {path.name for path in self.folder.iterdir()} <= {"lock", _KEY}:
            shutil.rmtree(self.folder)  # nothing to resume: leave no trace, and no claim on the name
        self._release()

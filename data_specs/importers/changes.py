"""Whether a source still says what it said: for a dataset file's config, wherever the source lies.

Label files that are read whole when a source is opened are told by their content. Those that come by the frame may be
hundreds of thousands, and are told by name, size and time of change.
"""

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

from handaug.data_specs.importers.records import Source

__all__ = ["content_digest", "files_digest", "listing_digest"]


def content_digest(files: Iterable[Path]) -> str:
    """What files say, wherever they lie."""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()[:16]


def listing_digest(source: Source) -> str:
    """The names of a source's units."""
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(source.unit(index).name.encode(errors="replace") + b"\n")
    return digest.hexdigest()[:16]


def files_digest(source: Source, units: range) -> str:
    """The state of the units' own label files; empty where they have none."""
    state = functools.lru_cache(maxsize=64)(_state)  # neighbours share a camera's file, a sequence's file
    digest = hashlib.sha256()
    some = False
    for index in units:
        for file in source.unit(index).files:
            digest.update(state(file).encode(errors="replace") + b"\n")
            some = True
    return digest.hexdigest()[:16] if some else ""


def _state(file: Path) -> str:
    try:
        found = file.stat()
    except OSError:
        return file.name  # said when its turn comes
    return f"{file.name} {found.st_size} {found.st_mtime_ns}"

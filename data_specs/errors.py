"""Errors the user can act on.

    HandaugError            exit code 1
    ├── InputError          exit code 2: an argument or input file is wrong, or the output cannot be written
    └── WorkError           exit code 1: the work itself failed (damage found, disk full, a worker died)

Each message is one line that names the file or option and says what to do. The CLI alone turns them into exit codes.
"""

import errno

__all__ = ["DamagedFileError", "HandaugError", "InputError", "NewerFileError", "WorkError", "is_full"]


class HandaugError(Exception):
    """Base of all errors with a message meant for the user."""

    exit_code = 1


class InputError(HandaugError):
    """An argument, an input file or the place of the output is wrong."""

    exit_code = 2


class DamagedFileError(InputError):
    """An input file is cut off or damaged."""


class NewerFileError(InputError):
    """An input file was written by a newer handaug."""


class WorkError(HandaugError):
    """The arguments were right, the work failed."""


def is_full(error: OSError) -> bool:
    """Whether a disk is full, or a quota or a limit on files is reached; h5py tells of it in its text alone."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left" in str(error)

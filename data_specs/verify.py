"""Checking a dataset's integrity: schema, ranges, projection, pairs, splits, checksum."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.camera import inside_image, project
from handaug.data_specs.checksum import content_checksum
from handaug.data_specs.errors import DamagedFileError, InputError, NewerFileError
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import H5PY_ERRORS, check_header, damage_named, open_file
from handaug.data_specs.schema import FIELDS, NOT_LABELLED

__all__ = ["PROJECTION_TOLERANCE_PX", "verify_dataset"]

PROJECTION_TOLERANCE_PX = 0.01
"""float32 points and intrinsics of a 1024 px image project to within 1e-3 px; a wrong axis or unit misses by pixels."""

_BLOCK = 4096
_SHARED_BY_A_POSE = ("keypoints_2d", "keypoints_3d", "camera", "handedness", "split", "group", "mask")


def verify_dataset(path: Path | str, progress: Progress = SILENT) -> list[str]:
    """Check everything that a file claims about itself.

    Args:
        path: A dataset file.
        progress: Told of the rows read for the checksum, which takes longest.

    Returns:
        One line for each problem; empty when the file is sound.

    Raises:
        InputError: The file is missing, unreadable, of a newer handaug, or no handaug dataset at all.
    """
    try:
        file = open_file(path)
    except DamagedFileError as error:
        return [str(error)]
    with file:
        try:
            with damage_named(path):
                foreign = "schema" not in file.attrs
            if not foreign:
                check_header(file, path)
        except NewerFileError:
            raise
        except InputError as error:
            return [str(error)]
        if foreign:
            raise InputError(f"{path}: is HDF5 but not a handaug dataset (no 'schema' attribute); convert it first")
        return [f"{path}: {problem}" for problem in _problems(file, progress)]


def _problems(file: h5py.File, progress: Progress) -> Iterator[str]:
    try:
        with progress.task("verify", file["images"].shape[0], "rows") as advance:
            fits = file.attrs.get("checksum") == content_checksum(file, advance)
        if not fits:
            yield "the content does not fit its checksum"
        for check in _CHECKS:
            yield from check(file)
    except H5PY_ERRORS as error:
        yield f"content cannot be read ({' '.join(str(error).split())})"


def _ranges(file: h5py.File) -> Iterator[str]:
    for name, field in FIELDS.items():
        if field.values is None or name not in file:
            continue
        low, high = field.values
        for start in range(0, file[name].shape[0], _BLOCK):
            block = file[name][start : start + _BLOCK]
            if block.size and (block.min() < low or block.max() > high):
                yield f"{name} has values outside {low}..{high}"
                break


def _labels(file: h5py.File) -> Iterator[str]:
    """Finite labels, visible joints on the image, and the projection of the 3D keypoints."""
    height, width = file["images"].shape[1:3]
    first: dict[str, tuple[int, int]] = {}

    def count(problem: str, bad: NDArray[np.bool_], start: int) -> None:
        if bad.any():
            rows, row = first.get(problem, (0, start + int(bad.argmax())))
            first[problem] = (rows + int(bad.sum()), row)

    for start in range(0, file["visibility"].shape[0], _BLOCK):
        block = slice(start, start + _BLOCK)
        labelled = file["visibility"][block] != NOT_LABELLED
        xy = file["keypoints_2d"][block]
        finite = np.isfinite(xy).all(-1)
        count("keypoints_2d is not finite though labelled", (labelled & ~finite).any(-1), start)
        outside = labelled & finite & ~inside_image(xy, width, height)
        count("a joint outside the image counts as labelled", outside.any(-1), start)
        if "keypoints_3d" in file and "camera" in file:
            projected = project(file["camera"][block], file["keypoints_3d"][block])
            with np.errstate(invalid="ignore", over="ignore"):
                miss = np.linalg.norm(projected - xy, axis=-1)
            bad = labelled & finite & ~(miss <= PROJECTION_TOLERANCE_PX)
            count(f"keypoints_3d do not project onto keypoints_2d to {PROJECTION_TOLERANCE_PX} px", bad.any(-1), start)
    for problem, (rows, row) in first.items():
        yield f"{problem} ({rows} rows, the first is {row})"


def _groups(file: h5py.File) -> Iterator[str]:
    pairs = np.unique(np.stack([file["group"][:], file["split"][:].astype(np.int64)], 1), axis=0)
    groups, counts = np.unique(pairs[:, 0], return_counts=True)
    if (counts > 1).any():
        yield f"{int((counts > 1).sum())} groups lie in more than one split (the first is {groups[counts > 1][0]})"


def _pairs(file: h5py.File) -> Iterator[str]:
    """Rows of one pose_id of a rendered file share labels, camera and mask bit for bit."""
    if "pose_id" not in file or file.attrs["kind"] != "rendered":
        return
    pose_ids = file["pose_id"][:]
    _, first, inverse = np.unique(pose_ids, return_index=True, return_inverse=True)
    partner = first[inverse.reshape(-1)]
    others = np.flatnonzero(partner != np.arange(len(pose_ids)))
    for name in _SHARED_BY_A_POSE:
        if name not in file:
            continue
        # labels are small enough to hold whole; pixels are compared a pair at a time
        values = file[name] if FIELDS[name].pixels else file[name][:]
        differing = sum(values[row].tobytes() != values[partner[row]].tobytes() for row in others)
        if differing:
            yield f"{name} differs within a pose ({differing} rows)"


_CHECKS: tuple[Callable[[Any], Iterator[str]], ...] = (_ranges, _labels, _groups, _pairs)

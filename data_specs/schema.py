"""The HDF5 schema, version 1, as data.

One file is one dataset, a row is one hand. Pixel fields are chunked one row each, labels by about 1,024 rows. Files
open with plain h5py: the only filter in use is gzip, on the fields that shrink (mask, depth).
"""

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "FIELDS",
    "HIDDEN",
    "KINDS",
    "LABEL_CHUNK_ROWS",
    "LEFT",
    "MASK_BACKGROUND",
    "MASK_FOREARM",
    "MASK_HAND",
    "MASK_OCCLUDER",
    "MASK_OTHER_HAND",
    "NOT_LABELLED",
    "NOT_OCCLUDED",
    "OCCLUDED_BY_OBJECT",
    "OCCLUDED_BY_OTHER_HAND",
    "OCCLUDED_BY_SELF",
    "RELATIONS",
    "RIGHT",
    "SCHEMA_VERSION",
    "SPLITS",
    "TEST",
    "TRAIN",
    "VAL",
    "VISIBLE",
    "Field",
]

SCHEMA_VERSION = 1
LABEL_CHUNK_ROWS = 1024
KINDS = ("rendered", "minted", "imported")

LEFT, RIGHT = 0, 1
NOT_LABELLED, HIDDEN, VISIBLE = 0, 1, 2
TRAIN, VAL, TEST = 0, 1, 2
SPLITS: dict[str, int] = {"train": TRAIN, "val": VAL, "test": TEST}
RELATIONS = ("group", "pose_id")
"""Fields that related rows share: such rows are never in two splits."""
MASK_BACKGROUND, MASK_HAND, MASK_FOREARM, MASK_OCCLUDER, MASK_OTHER_HAND = 0, 1, 2, 3, 4
NOT_OCCLUDED, OCCLUDED_BY_SELF, OCCLUDED_BY_OBJECT, OCCLUDED_BY_OTHER_HAND = 0, 1, 2, 3

Dimension = int | Literal["H", "W", "C", "*"]


@dataclass(frozen=True)
class Field:
    """One HDF5 dataset of the schema."""

    dtype: str
    """NumPy dtype name, exactly as stored."""
    shape: tuple[Dimension, ...]
    """Shape of one row; "H", "W", "C" stand for the image size and channels, "*" for any length."""
    meaning: str
    """One line with units."""
    required: bool = False
    """Whether every file has it."""
    values: tuple[int, int] | None = None
    """Smallest and largest value that may occur."""
    pixels: bool = False
    """Pixel fields are chunked one row each, the others by `LABEL_CHUNK_ROWS`."""
    gzip: bool = False
    """Whether the field shrinks enough for gzip to pay."""


FIELDS: dict[str, Field] = {
    "images": Field("uint8", ("H", "W", "C"), "grey (C = 1) or RGB (C = 3), sRGB-encoded", True, pixels=True),
    "keypoints_2d": Field("float32", (21, 2), "x, y in pixels, centre of the top-left pixel is (0, 0)", True),
    "keypoints_3d": Field("float32", (21, 3), "metres, camera frame, x right, y down, z forward"),
    "visibility": Field("uint8", (21,), "0 outside or not labelled, 1 hidden, 2 visible", True, (0, 2)),
    "camera": Field("float32", (3, 3), "pinhole intrinsics K in pixels"),
    "handedness": Field("uint8", (), "0 left, 1 right", True, (0, 1)),
    "mask": Field(
        "uint8", ("H", "W"), "0 background, 1 hand, 2 forearm, 3 occluder, 4 other hand", False, (0, 4), True, True
    ),
    "split": Field("uint8", (), "0 train, 1 val, 2 test", True, (0, 2)),
    "group": Field("int64", (), "rows of one group are never in two splits", True),
    "pose_id": Field("int64", (), "rows that share it show the same hand, pose, camera and occluders"),
    "appearance_id": Field("int64", (), "rows that share it share lighting, skin and background"),
    "image_id": Field("int64", (), "two hands labelled in one frame share it"),
    "depth": Field("float16", ("H", "W"), "metres along z, 0 where nothing", pixels=True, gzip=True),
    "occlusion": Field("uint8", (21,), "0 none, 1 self, 2 object, 3 other hand", values=(0, 3)),
    "part": Field("uint8", ("H", "W"), "hand segment seen by the pixel, 0 background", pixels=True, gzip=True),
    "normals": Field("float16", ("H", "W", 3), "unit surface normal, camera frame", pixels=True, gzip=True),
    "uv": Field("float16", ("H", "W", 2), "texture coordinates", pixels=True, gzip=True),
    "shape": Field("float32", ("*",), "shape parameters of the hand model, named likewise by a root attribute"),
    "pose": Field("float32", ("*",), "pose parameters of the hand model, radians, named likewise"),
    "pose_factors": Field(
        "float32", ("*",), "what the pose was drawn as; the root attribute of this name names the entries"
    ),
    "appearance_factors": Field("float32", ("*",), "what the appearance was drawn as; named likewise"),
    "provenance/pose_source": Field("int64", (), "row of the file that gave pose and label"),
    "provenance/appearance_source": Field("int64", (), "row of the file that gave the appearance"),
    "provenance/appearance_source_2": Field("int64", (), "row that a blended appearance was blended with"),
    "provenance/appearance_weight": Field(
        "float32", (), "weight of appearance_source in a blend, appearance_source_2 has the rest", values=(0, 1)
    ),
    "provenance/pose_picture": Field("int64", (), "hash of the pixels of the picture that gave pose and label"),
    "provenance/appearance_picture": Field("int64", (), "hash of the pixels of the picture that gave the appearance"),
    "provenance/appearance_picture_2": Field("int64", (), "the same of appearance_source_2"),
    "provenance/label_error_px": Field("float32", (), "mean distance of the checker's keypoints to the label, pixels"),
    "provenance/label_error_max_px": Field("float32", (), "largest such distance over the joints, pixels"),
}
"""Every field that a file may hold, by path, in file order."""

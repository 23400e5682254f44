"""What an exporter is, and the registry of all of them.

An exporter turns one image with the hands in it into files and lines of text; `job` does everything else: order,
blocks, resume, progress, the final rename. So `convert` is a function of the rows alone, and any block can be written
again at any time.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import SPLITS

__all__ = [
    "Converted",
    "ExportConfig",
    "Exporter",
    "Part",
    "Row",
    "encode_image",
    "exporter_names",
    "get_exporter",
    "join_parts",
    "json_numbers",
    "register_exporter",
]

Row = dict[str, NDArray[Any]]
"""One row: {field: array of the row's shape}, and under `row` its number in the file."""


@dataclass(frozen=True)
class ExportConfig:
    """What to export, and how."""

    format: str
    """Name of the exporter."""
    split: str = "all"
    """all, train, val or test."""
    limit: int | None = None
    """At most so many rows, the first of the file; all by default. Formats that write an image with all of its hands
    take whole images."""
    quality: int | None = None
    """Quality of JPEG images, 1 to 100; PNG, which loses nothing, by default."""
    shard_rows: int | None = None
    """Rows of one tar file (webdataset only)."""

    def __post_init__(self) -> None:
        exporter = get_exporter(self.format)
        if self.split not in ("all", *SPLITS):
            raise InputError(f"--split {self.split}: choose all, {', '.join(SPLITS)}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit {self.limit}: give 1 or more, or leave it out to export every row")
        if self.quality is not None:
            if not 1 <= self.quality <= 100:
                raise InputError(f"--quality {self.quality}: give 1 to 100, or leave it out for PNG without loss")
            if not exporter.may_be_jpeg:
                raise InputError(f"--quality {self.quality}: {self.format} is always without loss; leave it out")
        if self.shard_rows is not None:
            if self.shard_rows < 1:
                raise InputError(f"--shard-rows {self.shard_rows}: give 1 or more")
            if exporter.shard_rows is None:
                raise InputError(f"--shard-rows {self.shard_rows}: {self.format} has no shards; leave it out")


@dataclass
class Converted:
    """What one image becomes."""

    files: list[tuple[str, bytes]] = field(default_factory=list)
    """(name relative to the output, content)."""
    lines: list[tuple[str, str]] = field(default_factory=list)
    """(stream, text): pieces of the files that `finish` writes."""
    images: int = 1
    """How many image files these are."""
    left_out: int = 0
    """Rows that the format cannot hold."""


@dataclass(frozen=True)
class Part:
    """What a finished block left for `finish`."""

    folder: Path
    """Holds one file for each stream, one piece of text a line."""


class Exporter(ABC):
    """One format.

    Args:
        dataset: All rows of the file.
        config: The options.

    Raises:
        InputError: The file lacks what the format needs.
    """

    name: ClassVar[str]
    """The name users give; set by `register_exporter`."""
    by_frame: ClassVar[bool] = False
    """Whether all hands of one image go into `convert` together; `--limit` then cuts no image in two."""
    needs: ClassVar[str] = "its values"
    """What every row that `select` takes has, for messages."""
    may_be_jpeg: ClassVar[bool] = True
    """Whether `--quality` is understood."""
    shard_rows: ClassVar[int | None] = None
    """Rows of one tar file, for formats that have such."""

    def __init__(self, dataset: HandDataset, config: ExportConfig) -> None:
        self.dataset = dataset
        self.config = config
        self.height, self.width = dataset.size

    @property
    @abstractmethod
    def fields(self) -> tuple[str, ...]:
        """Fields of the file that `convert` reads."""

    def select(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of these rows the format can hold; all by default. Rows are numbered after this."""
        return rows

    @abstractmethod
    def convert(self, split: str, place: int, rows: Sequence[Row]) -> Converted:
        """Turn one image into files and text.

        Args:
            split: Name of the split.
            place: Position of the first of `rows` in the split's order.
            rows: One row, or all rows of one `image_id` where `by_frame` is set.
        """

    @abstractmethod
    def finish(self, folder: Path, parts: dict[str, list[Part]]) -> dict[str, Any]:
        """Write what needs all blocks.

        Args:
            folder: The output so far.
            parts: The parts of each split that has rows, in order.

        Returns:
            What `handaug.json` shall say besides.
        """

    def image_suffix(self) -> str:
        """`.png` or `.jpg`."""
        return ".png" if self.config.quality is None else ".jpg"

    def encode(self, image: NDArray[np.uint8]) -> bytes:
        """An image of the file, encoded as the user asked."""
        return encode_image(image, self.config.quality)


_REGISTRY: dict[str, type[Exporter]] = {}


def register_exporter(name: str) -> Callable[[type[Exporter]], type[Exporter]]:
    """Class decorator that makes an exporter known by `name`.

    Raises:
        ValueError: The name is taken.
    """

    def register(cls: type[Exporter]) -> type[Exporter]:
        if name in _REGISTRY:
            raise ValueError(f"an exporter named {name!r} is registered already")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return register


def exporter_names() -> tuple[str, ...]:
    """Names of all registered exporters, sorted."""
    return tuple(sorted(_REGISTRY))


def get_exporter(name: str) -> type[Exporter]:
    """The exporter of a name.

    Raises:
        InputError: There is none.
    """
    if name not in _REGISTRY:
        raise InputError(f"FORMAT {name}: choose one of {', '.join(exporter_names())}")
    return _REGISTRY[name]


def encode_image(image: NDArray[np.uint8], quality: int | None = None) -> bytes:
    """Encode (H, W) or (H, W, 1 or 3) RGB as PNG, or as JPEG of a quality from 1 to 100."""
    import cv2

    pixels = np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image)
    options = [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, data = cv2.imencode(".png" if quality is None else ".jpg", pixels, options)
    if not done:
        raise ValueError(f"an image of shape {image.shape} cannot be encoded")
    return data.tobytes()


def json_numbers(values: NDArray[Any]) -> str:
    """JSON text of an array: nine digits, which give every float32 back exactly; null for what is not finite.

    >>> json_numbers(np.array([[0.1, np.nan]], np.float32))
    '[[0.100000001,null]]'
    """
    if values.dtype.kind != "f":
        return json.dumps(values.tolist(), separators=(",", ":"))
    numbers = values.reshape(-1).tolist()
    if np.isfinite(values).all():
        return _nested("%.9g", values.shape) % tuple(numbers)
    return _nested("%s", values.shape) % tuple("%.9g" % n if math.isfinite(n) else "null" for n in numbers)


@cache
def _nested(place: str, shape: tuple[int, ...]) -> str:
    """A pattern of nested JSON lists with a place for each number."""
    for side in reversed(shape):
        place = f"[{','.join([place] * side)}]"
    return place


def join_parts(path: Path, parts: Iterable[Part], stream: str, *, head: str = "[", tail: str = "]\n") -> None:
    """Append `head`, the stream's lines of all parts separated by commas, and `tail` to a file, a part at a time."""
    with open(path, "a", encoding="utf-8") as out:
        out.write(head)
        first = True
        for part in parts:
            source = part.folder / stream
            if not source.exists():
                continue
            with open(source, encoding="utf-8") as lines:
                for line in lines:
                    out.write("\n" if first else ",\n")
                    out.write(line.rstrip("\n"))
                    first = False
        out.write("\n" + tail)

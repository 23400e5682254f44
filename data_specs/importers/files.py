"""Strangers' folders: finding the layout, reading labels and images, saying in one line what is wrong with them."""

import functools
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.data_specs.importers.records import DamagedError, MissingError, Pixels

__all__ = [
    "entry",
    "find_root",
    "identity",
    "image_size",
    "inside",
    "json_items",
    "json_members",
    "listed",
    "numbers",
    "photo",
    "plane",
    "read_bytes",
    "read_json",
    "upright_photo",
]

_CHUNK = 1 << 20
_NAME_BYTES = 255
_AFTER_A_NUMBER = tuple(",]} \t\r\n")


def find_root(source: Path, title: str, needs: Sequence[str], inner: Sequence[str] = ()) -> Path:
    """The folder in which a dataset lies.

    Args:
        source: What the user gave; it exists.
        title: Name of the dataset, for messages.
        needs: Patterns of which at least one must be there, relative to the dataset's own folder.
        inner: Usual names of the dataset's own folder, in case the user gave its parent.

    Raises:
        InputError: An archive, a file, or a folder without any of `needs`.
    """
    if not source.is_dir():
        if zipfile.is_zipfile(source) or source.suffix in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xz"):
            raise InputError(f"{source}: is an archive; unpack it and give the folder it makes")
        raise InputError(f"{source}: is a file; give the folder in which {title} lies")
    for root in (source, *(source / name for name in inner)):
        if any(next(root.glob(pattern), None) is not None for pattern in needs):
            return root
    found = sorted(path.name + "/" * path.is_dir() for path in source.iterdir())
    there = ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "") if found else "nothing"
    archives = [name for name in found if name.endswith((".zip", ".tar", ".tar.gz", ".tgz", ".7z"))]
    remedy = f"unpack {archives[0]} first" if archives else "give the folder that holds it"
    raise InputError(f"{source}: holds no {title}: looked for {' or '.join(needs)}, found {there}; {remedy}")


def inside(root: Path, name: object, where: Path | str) -> Path:
    """A file that labels name, which must lie below `root`.

    Raises:
        InputError: The name is absolute, climbs out of the folder, or is no name.
    """
    text = name if isinstance(name, str) else ""
    pure = PurePosixPath(text.replace("\\", "/"))
    if not pure.parts or not all(map(_is_storable, pure.parts)):
        raise InputError(f"{where}: names a file {str(name)[:60]!r}; repair the labels")
    if pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0]:
        raise InputError(f"{where}: the file name {text[:60]!r} leads out of the dataset's folder; repair the labels")
    return root / pure


def _is_storable(name: str) -> bool:
    """Whether a file can have this name."""
    try:
        return len(os.fsencode(name)) <= _NAME_BYTES and "\0" not in name
    except UnicodeEncodeError:
        return False


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        MissingError: It is not there or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise MissingError(f"{path}: {why}; complete the download, or add --skip-missing") from error


def read_json(path: Path) -> Any:
    """A whole JSON file.

    Raises:
        DamagedError: It is no JSON.
    """
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: is not sound JSON ({error}); download it again") from error


def entry(mapping: Any, key: str, where: Path | str) -> Any:
    """One value of a JSON object.

    Raises:
        DamagedError: It is not an object, or lacks the key.
    """
    if not isinstance(mapping, Mapping) or key not in mapping:
        found = ", ".join(map(str, list(mapping)[:8])) if isinstance(mapping, Mapping) else type(mapping).__name__
        raise DamagedError(f"{where}: has no '{key}' (found {found or 'nothing'}); it is not the file it should be")
    return mapping[key]


def identity(mapping: Any, key: str, where: Path | str) -> int | float | str:
    """What names an item or refers to one.

    Raises:
        InputError: It is no number or text.
    """
    value = entry(mapping, key, where)
    if not isinstance(value, int | float | str):
        raise InputError(f"{where}: has {key} {str(value)[:60]}; it must be a number or a text, repair the labels")
    return value


def listed(mapping: Any, key: str, where: Path | str) -> list[Any]:
    """An array of a JSON object.

    Raises:
        DamagedError: It is something else.
    """
    value = entry(mapping, key, where)
    if not isinstance(value, list):
        raise DamagedError(f"{where}: {key} should be a list; it is {str(value)[:60]}, download it again")
    return value


def image_size(mapping: Any, where: Path | str, keys: tuple[str, str] = ("width", "height")) -> tuple[int, int]:
    """Width and height of an image.

    Raises:
        DamagedError: They are no whole numbers.
    """
    width, height = (entry(mapping, key, where) for key in keys)
    try:
        return int(width), int(height)
    except (TypeError, ValueError, OverflowError):
        raise DamagedError(f"{where}: has no whole {keys[0]} and {keys[1]}; repair the labels") from None


def numbers(value: Any, shape: tuple[int, ...], where: Path | str, what: str) -> NDArray[np.float64]:
    """An array of a fixed shape out of a label file; -1 in `shape` fits any length. NaN and infinity pass.

    Raises:
        DamagedError: It holds something else.
    """
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = None
    if (
        array is None
        or array.ndim != len(shape)
        or any(s not in (-1, a) for s, a in zip(shape, array.shape, strict=True))
    ):
        wanted = " x ".join("n" if side < 0 else str(side) for side in shape)
        raise DamagedError(f"{where}: {what} should be {wanted} numbers; download it again")
    return array


def json_items(path: Path, key: str | None = None) -> Iterator[Any]:
    """The items of one array in a JSON file, one at a time, so that a file of gigabytes takes no more memory than one.

    Args:
        path: The file: an object that holds the array under `key`, or the array itself where `key` is None.
        key: Name of the array.

    Raises:
        DamagedError: No JSON, or without that array.
    """
    stream = _Stream(path)
    if key is not None:
        stream.skip_to(key)
    yield from stream.array()


def json_members(path: Path) -> Iterator[tuple[str, Any]]:
    """The members of the object that a JSON file is, one at a time.

    Raises:
        DamagedError: No JSON object.
    """
    yield from _Stream(path).members()


class _Stream:
    """A JSON file read through a window: values are parsed whole, the file is not."""

    def __init__(self, path: Path) -> None:
        try:
            self._handle = open(path, encoding="utf-8-sig")
        except OSError as error:
            raise MissingError(f"{path}: is missing ({error.strerror}); complete the download") from error
        self._path = path
        self._text = ""
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode

    def array(self) -> Iterator[Any]:
        """Items of the array that starts here."""
        if self._next("[") and self._peek() == "]":
            self._next("]")
            return
        while True:
            yield self._value()
            if self._next(",]") == "]":
                return

    def members(self) -> Iterator[tuple[str, Any]]:
        """Members of the object that starts here."""
        for key in self._keys():
            yield key, self._value()

    def skip_to(self, key: str) -> None:
        """Go to the value of `key` in the object that starts here."""
        seen = []
        for name in self._keys():
            if name == key:
                return
            seen.append(name)
            if self._peek() == "[":
                for _ in self.array():
                    pass
            else:
                self._value()
        raise DamagedError(
            f"{self._path}: has no '{key}' (found {', '.join(seen) or 'nothing'}); is it the right file?"
        )

    def _keys(self) -> Iterator[str]:
        """Keys of the object that starts here; whoever takes one reads its value before taking the next."""
        if self._next("{") and self._peek() == "}":
            self._next("}")
            return
        while True:
            key = self._value()
            self._next(":")
            yield str(key)
            if self._next(",}") == "}":
                return

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if isinstance(error, RecursionError) or not self._more():
                    raise self._damaged() from error
                continue
            # a number may go on beyond the window; everything else ends with a sign of its own
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and self._text[end : end + 1] not in _AFTER_A_NUMBER and self._more():
                continue
            self._at = end
            return value

    def _peek(self) -> str:
        """The next sign that is not white space; stays before it."""
        while True:
            rest = self._text[self._at : self._at + 64].lstrip()
            if rest:
                self._at = self._text.index(rest[0], self._at)
                return rest[0]
            if self._at < len(self._text):
                self._at = min(self._at + 64, len(self._text))
            elif not self._more():
                raise self._damaged()

    def _next(self, allowed: str) -> str:
        """Step over the next sign."""
        sign = self._peek()
        if sign not in allowed:
            raise self._damaged()
        self._at += 1
        return sign

    def _more(self) -> bool:
        """Widen the window; it at least doubles, so that a value is parsed again only a few times."""
        try:
            chunk = self._handle.read(max(_CHUNK, len(self._text) - self._at))
        except UnicodeDecodeError as error:
            raise self._damaged() from error
        self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)

    def _damaged(self) -> DamagedError:
        near = " ".join(self._text[self._at : self._at + 30].split())
        return DamagedError(f"{self._path}: is not sound JSON near {near!r}; download it again")


def photo(path: Path, size: tuple[int, int] | None = None) -> Pixels:
    """An image file as `Hand.image` wants it, its pixels as stored; opened when it is called.

    Args:
        path: A JPEG, PNG or whatever OpenCV reads.
        size: Width and height that the labels state; a picture whose EXIF turn makes it fit is turned.
    """
    return functools.partial(_load_photo, path, size)


def upright_photo(path: Path) -> Pixels:
    """An image file without labels, turned as its EXIF asks and viewers show it; opened when it is called."""
    return functools.partial(_load_upright, path)


def plane(path: Path) -> Pixels:
    """An image file whose values are classes, (H, W) as stored; opened when it is called."""
    return functools.partial(_load_plane, path)


def _load_plane(path: Path) -> NDArray[np.uint8]:
    import cv2

    image = _read_image(path, cv2.IMREAD_UNCHANGED)[1]
    if image.dtype != np.uint8:
        raise DamagedError(f"{path}: has {image.dtype} values, classes are 8-bit; download it again")
    return image if image.ndim == 2 else np.ascontiguousarray(image[..., 0])


def _read_image(path: Path, flags: int) -> tuple[bytes, NDArray[np.uint8]]:
    data = read_bytes(path)
    if _is_cut_off(data):
        raise DamagedError(f"{path}: is cut off after {len(data):,} bytes; download it again, or add --skip-missing")
    image = _decode(data, flags)
    if image is None:
        raise DamagedError(f"{path}: is no image that can be read; download it again, or add --skip-missing")
    return data, image


def _load_photo(path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    import cv2

    data, image = _read_image(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if size is not None and (image.shape[1], image.shape[0]) != size:
        turned = _decode(data, cv2.IMREAD_COLOR)
        if turned is None or (turned.shape[1], turned.shape[0]) != size:
            raise DamagedError(
                f"{path}: is {image.shape[1]} x {image.shape[0]} px, its labels are for {size[0]} x {size[1]}; "
                "get images and labels of the same release"
            )
        image = turned
    return image


def _load_upright(path: Path) -> NDArray[np.uint8]:
    import cv2

    return _read_image(path, cv2.IMREAD_COLOR)[1]


def _decode(data: bytes, flags: int) -> NDArray[np.uint8] | None:
    import cv2

    try:
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    return None if image is None else np.asarray(image)


def _is_cut_off(data: bytes) -> bool:
    """Whether the end of a JPEG or PNG is missing: OpenCV returns such images with their lower part grey."""
    if data[:2] == b"\xff\xd8":
        # neither marker can occur inside the coded picture, and thumbnails come before it
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    return data[:4] == b"\x89PNG" and data.rfind(b"IEND", -4096) < 0

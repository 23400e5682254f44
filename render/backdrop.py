"""What stands behind the hand: a part of the panorama or a user's image, fixed in the camera's frame."""

import math
import os
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter

from handaug.data_specs.errors import InputError
from handaug.render.environment import Surrounding, block_means
from handaug.render.lighting import Light, rotation_matrix
from handaug.render.scene import Appearance

__all__ = ["IMAGE_SUFFIXES", "PANORAMA_SUFFIXES", "backdrop", "check_pictures", "image_files", "load_background"]

Floats = NDArray[np.float32]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_BRIGHTEST_LAMP, _BRIGHTEST = 8.0, 1.5
"""A lamp out of focus spreads its light; after that, more than white would make the hand's smooth outline jagged."""
PANORAMA_SUFFIXES = (".exr", ".hdr")
_MOST_PIXELS = 1 << 28
"""Of a panorama: Blender takes 16 bytes a pixel, and it is copied there. OpenCV itself decodes four times as many."""
_BRIGHTEST_PIXEL, _DARKEST = 6e4, 1e-6
"""What an infinite pixel counts as (`blender/panoramas.py`), and the mean that `lighting.measure` still brings up."""


def image_files(folder: Path, flag: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a folder with one of these suffixes, by name.

    Raises:
        InputError: It has none; the message names `flag`.
    """
    found = []
    if folder.is_dir():
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and p.is_file())
    if not found:
        raise InputError(f"{flag} {folder}: no {', '.join(suffixes)} file there, name a folder that has some")
    return found


def load_background(path: Path, *, longest: int = 1024) -> Floats:
    """(H, W, 3) linear, from an image file of any mode, at most `longest` pixels wide and high.

    Raises:
        InputError: It is no image, cut short, or so large that decoding it would fill the memory.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # half of what is refused
            with Image.open(path) as file:
                file.draft("RGB", (longest, longest))  # a large JPEG is decoded small: ten times faster
                image = _on_white(_eight_bits(ImageOps.exif_transpose(file)))
                image.thumbnail((longest, longest), Image.Resampling.BOX)
                stored = np.asarray(image, np.float32) / 255
    except Image.DecompressionBombError as error:
        raise InputError(f"--backgrounds {path}: has too many pixels to decode, make it smaller") from error
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise InputError(f"--backgrounds {path}: not a readable image, remove or replace it") from error
    linear = np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear, np.float32)


def _on_white(image: Image.Image) -> Image.Image:
    """What a picture shows on white paper, where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greys of 16 bits or of floating point, which Pillow would cut off at 255 and not scale."""
    if image.mode == "F":
        return Image.fromarray(np.clip(np.nan_to_num(np.asarray(image)) * 255, 0, 255).astype(np.uint8))
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) // 257).astype(np.uint8))
    return image


def check_pictures(hdris: str | None, backgrounds: str | None) -> None:
    """Look at each of the user's pictures once, before any work is done that a bad one would stop.

    Raises:
        InputError: Names the first that cannot be used.
    """
    for path in image_files(Path(hdris), "--hdris", PANORAMA_SUFFIXES) if hdris else []:
        _check_panorama(path)
    for path in image_files(Path(backgrounds), "--backgrounds", IMAGE_SUFFIXES) if backgrounds else []:
        load_background(path, longest=64)


def _check_panorama(path: Path) -> None:
    """Decode it whole, with OpenCV: Blender is in other processes.

    Single pixels that are no number are let through, since they become black there.
    """
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")
    import cv2

    loud = cv2.setLogLevel(0)
    try:
        if _promised_pixels(path) > _MOST_PIXELS:
            raise InputError(f"--hdris {path}: has too many pixels to decode, make it smaller")
        pixels = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    except (OSError, cv2.error):  # OpenCV decodes no header that lies
        pixels = None
    finally:
        cv2.setLogLevel(loud)
    if pixels is None:
        raise InputError(f"--hdris {path}: not a readable panorama, remove or replace it")
    if not np.isfinite(pixels).any():
        raise InputError(f"--hdris {path}: a panorama without a finite pixel, remove or replace it")
    np.nan_to_num(pixels, copy=False, posinf=_BRIGHTEST_PIXEL, neginf=0)
    if pixels.mean(dtype=np.float64) <= _DARKEST:
        raise InputError(f"--hdris {path}: a panorama that gives no light (black or negative), remove or replace it")


def _promised_pixels(path: Path) -> int:
    """How many pixels an OpenEXR's data window or a Radiance file's resolution holds; 0 where neither is found."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if window := re.search(rb"dataWindow\0box2i\0\x10\0\0\0(.{16})", head, re.DOTALL):
        left, top, right, bottom = struct.unpack("<4i", window[1])
        return int((right - left + 1) * (bottom - top + 1))
    sides = re.search(rb"\n[-+][XY] +(\d{1,9}) +[-+][XY] +(\d{1,9})\n", head)
    return int(sides[1]) * int(sides[2]) if sides else 0


def backdrop(appearance: Appearance, light: Light, around: Surrounding, image: Floats | None, size: int) -> Floats:
    """The picture behind the hand.

    It is the same for each pose that wears the appearance: a part of the panorama is drawn with a field of view of
    the appearance's own and not with the pose's intrinsics.

    Args:
        appearance: Whose backdrop.
        light: Its measured light.
        around: What surrounds the hand.
        image: (h, w, 3) linear; the user's background, None for the surrounding.
        size: Side of the result in pixels.

    Returns:
        (size, size, 3) linear, exposed: 1 is full scale.
    """
    back = appearance.backdrop
    picture = _window(appearance, light, around, size) if image is None else _crop(image, back.crop, size)
    picture = np.minimum(picture * back.gain, _BRIGHTEST_LAMP)
    if back.blur > 0:
        picture = gaussian_filter(picture, (back.blur * size, back.blur * size, 0), mode="nearest")
    return np.asarray(np.minimum(picture, _BRIGHTEST), np.float32)


def _window(appearance: Appearance, light: Light, around: Surrounding, size: int) -> NDArray[np.float64]:
    fine = 2 * size  # 2 x 2 samples per pixel against sparkle
    half = math.tan(appearance.backdrop.field_of_view / 2)
    x = ((np.arange(fine) + 0.5) / fine * 2 - 1) * half
    rays = np.stack(
        [np.broadcast_to(x, (fine, fine)), np.broadcast_to(x[:, None], (fine, fine)), np.ones((fine, fine))], -1
    )
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    seen = block_means(around.radiance(rays @ rotation_matrix(appearance.rotation).T), 2)
    return np.asarray(seen * light.environment_strength * light.exposure * np.array(light.balance))


def _crop(image: Floats, crop: tuple[float, float, float], size: int) -> NDArray[np.float64]:
    height, width = image.shape[:2]
    side = max(1.0, crop[2] * min(height, width))
    left, top = crop[0] * (width - side), crop[1] * (height - side)
    bands = [
        np.asarray(
            Image.fromarray(image[..., c]).resize(
                (size, size), Image.Resampling.BOX, (left, top, left + side, top + side)
            ),
            np.float64,
        )
        for c in range(3)
    ]
    return np.stack(bands, -1)

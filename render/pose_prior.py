"""How hands move: 24 joint angles, their anatomical limits, and a prior over poses.

Angles are radians in the order of `ANGLES`. Zero is the clinical neutral position: fingers straight, in line with the
third metacarpal, wrist straight; the thumb's three base angles count from its resting position, in the middle of its range.

* `*_flexion`: positive bends towards the palm (thumb: across the palm), negative is hyperextension.
* `*_abduction` of a finger: positive tilts towards the thumb's side, for every finger (ulnar deviation is negative).
* `thumb_cmc_abduction`: positive moves the thumb out of the palm's plane (palmar abduction).
* `thumb_cmc_rotation`: positive turns the thumb's pad to face the fingers (pronation, opposition).
* `wrist_deviation`: positive bends the hand to the thumb's side (radial deviation).
* `palm_cup`: flexion of the fifth metacarpal; the fourth follows with half of it.

Limits: ranges of active motion of the American Academy of Orthopaedic Surgeons (Joint Motion, 1965; also in Norkin and
White, Measurement of Joint Motion): wrist 80 flexion, 70 extension, 20 radial, 30 ulnar; finger MCP 90 flexion, 45
extension; PIP 100; DIP 90; thumb MCP 50, IP 80. Thumb base: 53 flexion-extension, 42 abduction-adduction, 17 rotation in
all (Cooney et al., J. Bone Joint Surg. 63-A, 1981). DIP follows PIP at about two thirds (Rijpkema and Girard, SIGGRAPH
1991). Where skin by linear blending would be crushed, our limits are tighter than these.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError

__all__ = ["ANGLES", "LIMITS", "HandPose", "sample_pose"]

_FINGERS = ("index", "middle", "ring", "little")
_FINGER_PARTS = ("mcp_flexion", "mcp_abduction", "pip_flexion", "dip_flexion")

# Degrees. Abduction: room on both sides of where the finger rests (index and little spread outwards).
_DEGREES: dict[str, tuple[float, float]] = {
    "wrist_flexion": (-60, 70),
    "wrist_deviation": (-28, 18),
    "palm_cup": (0, 18),
    "thumb_cmc_flexion": (-26, 27),
    "thumb_cmc_abduction": (-22, 20),
    "thumb_cmc_rotation": (-5, 22),
    "thumb_mcp_flexion": (-5, 50),
    "thumb_ip_flexion": (-12, 75),
    **{
        f"{finger}_{part}": limits
        for finger, abduction in zip(_FINGERS, ((-8, 22), (-14, 10), (-22, 4), (-38, 0)), strict=True)
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
            >>> float(HandPose.from_degrees(index_pip_flexion=90)["index_pip_flexion"].round(3))
            1.571
        """
        unknown = set(degrees) - set(ANGLES)
        if unknown:
            raise InputError(f"unknown angle {sorted(unknown)[0]}; known: {', '.join(ANGLES)}")
        return cls(np.radians([degrees.get(name, 0.0) for name in ANGLES]))

    def __getitem__(self, name: str) -> np.float64:
        return self.angles[_INDEX[name]]

    def rotations(self, rest: NDArray[np.floating[Any]]) -> dict[str, NDArray[np.float64]]:
        """Rotation of each moving bone against the model's rest pose, in the bone's own axes.

        A bone's y axis points along it, x is its flexion axis, z points to the palm (thumb: to the fingers); the wrist's
        x points to the back of the hand and z to the thumb.

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
            @ _turn("y", a["thumb_cmc_rotation"]),
            "finger1-2": _turn("x", a["thumb_mcp_flexion"]),
            "finger1-3": _turn("x", a["thumb_ip_flexion"]),
        }
        for number, finger in enumerate(_FINGERS, start=2):
            # The abduction axis stays with the palm, the flexion axis moves with the finger.
            out[f"finger{number}-1"] = _turn("z", -a[f"{finger}_mcp_abduction"]) @ _turn("x", a[f"{finger}_mcp_flexion"])
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


def sample_pose(rng: np.random.Generator) -> HandPose:
    """Draw one pose within `LIMITS`."""
    u = rng.uniform(size=len(ANGLES))
    return HandPose(LIMITS[:, 0] + u * (LIMITS[:, 1] - LIMITS[:, 0]))

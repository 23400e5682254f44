"""What a scene is, as plain frozen data: no Blender here.

**The camera's frame** (OpenCV): x right, y down, z forward, metres, camera at the origin. Lamps and panorama are
fixed in this frame.

**Lengths of the lighting are in units of the hand's distance.** Hands stand at various distances; lamps fixed in
metres would light near hands many times stronger, or stand inside them. Scaled about the camera's origin by the
distance of the hand, a lamp keeps its direction on screen and its light on the hand: the look of an appearance does
not depend on the pose that wears it.

**Light is in units of irradiance on the hand.** A share of 1 is an irradiance of pi on a surface that faces the lamp
(a white surface then has radiance 1). For the panorama it is the mean over all directions. The exposure is metered
from the sum (`handaug.render.lighting`).

Colours are linear, Rec. 709 primaries.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.render.environment import Room, Sky
from handaug.render.pose_prior import HandPose

__all__ = [
    "SKIN_LAYOUTS",
    "Appearance",
    "Backdrop",
    "Coat",
    "HandScene",
    "Lamp",
    "OtherHand",
    "Sensor",
    "Skin",
    "Thing",
]

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Lamp:
    """A rectangular area lamp that looks at the hand; the camera does not see it."""

    direction: Vector
    """Unit vector from the hand to the lamp, camera's frame."""
    distance: float
    """From the hand, in units of the hand's distance."""
    side: float
    """Root of its area, same unit."""
    aspect: float
    """Width over height: 1 a square, else an upright or a broad window."""
    share: float
    """Irradiance on a surface that faces it, over pi."""
    color: Vector
    """Mean 1."""


SKIN_LAYOUTS = 4
"""Palms and backs of hands whose lines and veins run differently."""


@dataclass(frozen=True)
class Skin:
    """The material of hand and forearm."""

    color: Vector
    """Diffuse albedo of the back of the hand and the forearm."""
    palm: Vector
    """Albedo of palm and finger pads, which have little melanin."""
    nail: Vector
    """Albedo of the nails: the nail bed shows through."""
    tone: float
    """0 the lightest, 1 the darkest of the ramp the colour was made from."""
    blood: float
    """Volume fraction of blood in the dermis."""
    blotch: float
    """Relative strength of the low-frequency redness."""
    roughness: float
    specular: float
    """Blender's specular level; 0.5 is an index of refraction of 1.5, skin has about 0.4."""
    bump: float
    """Height of creases and pores, metres."""
    subsurface: float
    """Mean free path of red light, metres."""
    crease: float
    """Strength of the lines of palm and knuckles, 1 usual."""
    vein: float
    """Strength of the veins on the back of the hand, 0 none."""
    tendon: float
    """Strength of the tendons there, 0 none."""
    wet: float
    """Weight of a film of water or sweat."""
    offset: Vector
    """Where in the noise the blotches are read."""
    layout: int
    """Which of `SKIN_LAYOUTS` courses its lines and veins take."""

    def at_age(self, age: float) -> "Skin":
        """The skin of somebody of this age (`HandScene.age`): veins and tendons stand out on old hands, children's are
        smooth. How much was chosen by eye."""
        old, young = float(np.clip(3 * age - 2, 0, 1)), float(np.clip(2 - 3 * age, 0, 1))
        return replace(
            self,
            crease=self.crease * (1 + 0.2 * old - 0.5 * young),
            vein=float(np.clip(self.vein + 0.3 * old - 0.6 * young, 0, 1)),
            tendon=self.tendon * (1 + 0.4 * old - 0.7 * young),
            bump=self.bump * (1 + 0.5 * old - 0.3 * young),
        )

    @property
    def paints(self) -> NDArray[np.float64]:
        """(4, 3) albedo where the skin is pale, where it is red, on the palm, on the nails: what the material mixes."""
        color, k = np.array(self.color), self.blotch
        pale = color * (1 + k * np.array([0.15, 0.35, 0.35]))
        red = color * (1 - k * np.array([0.15, 0.45, 0.40]))
        return np.array([pale, red, self.palm, self.nail])


@dataclass(frozen=True)
class Backdrop:
    """What the camera sees behind the hand: a picture fixed in the frame, the same for each pose that wears it."""

    image: int
    """Number of the user's background image, -1: the panorama itself."""
    field_of_view: float
    """Horizontal angle of the part of the panorama, radians."""
    crop: Vector
    """Part of a background image: centre u, centre v, side, each within 0..1 of what fits."""
    blur: float
    """Standard deviation of the defocus, as a fraction of the image side."""
    gain: float
    """Factor on its brightness."""


@dataclass(frozen=True)
class Sensor:
    """The camera's chip and its settings."""

    exposure_value: float
    """Offset from the metered exposure in stops."""
    white_balance: float
    """0 leaves the colour of the light, 1 removes it."""
    mono_weights: Vector
    """Sensitivity of a mono chip to red, green and blue; sums to 1."""
    gamma: float
    """A mono image is light to the power 1 / gamma."""
    blur: float
    """Standard deviation of the lens's blur in pixels of a 64 px image (a larger image is blurred in proportion)."""
    vignetting: float
    """Loss of light in the corners, 0..1."""
    shot_noise: float
    """Variance of the noise per unit of light."""
    read_noise: float
    """Standard deviation of the noise in the dark, of full scale."""
    motion: tuple[float, float] = (0.0, 0.0)
    """Way of the hand in the picture while the shutter is open, x and y as fractions of the image side; labels are
    those of its middle."""
    defocus: float = 0.0
    """Radius of the disc that a point of the hand is spread to, as a fraction of the image side."""
    contrast: float = 1.0
    """Slope of the tone curve at middle grey."""
    temperature: float = 0.0
    """Cast of a wrong white balance: blue to red by a factor e^t about green (RGB alone)."""
    jpeg: int = 0
    """Quality of JPEG compression, 0 none."""


@dataclass(frozen=True)
class Appearance:
    """Everything about an image that is not hand, pose or camera position."""

    number: int
    """Number in the pool."""
    identity: int
    """63-bit `appearance_id`."""
    environment: int
    """Number of the panorama, -1 where it is made by formula."""
    surrounding: Room | Sky | None
    """What stands in its place then."""
    rotation: tuple[float, float, float, float]
    """Quaternion (w, x, y, z) that turns a direction of the camera's frame into the panorama's (z up)."""
    environment_share: float
    """Mean over all directions of the panorama's radiance."""
    lamps: tuple[Lamp, ...]
    """One or two."""
    skin: Skin
    backdrop: Backdrop
    sensor: Sensor
    rig: int = -1
    """Number of the rig (`appearance.sample_rig`) that it shares with others, -1 none."""


@dataclass(frozen=True, eq=False)
class Coat:
    """A second colour on a part of a mesh whose border does not follow the faces."""

    colour: NDArray[np.float64]
    """(3,) albedo."""
    within: NDArray[np.float64]
    """(V,) metres from a border: above zero within, below without, linear between vertices."""
    width: float = 1.0
    """Metres between borders, where the two colours take turns: stripes."""


@dataclass(frozen=True, eq=False)
class Thing:
    """A mesh beside the hand's: an object, a sleeve, a watch, a ring. It belongs to the pose."""

    vertices: NDArray[np.float32]
    """(V, 3) metres."""
    quads: NDArray[np.int32]
    """(F, 4) vertex numbers, counter-clockwise seen from outside."""
    paint: NDArray[np.float32]
    """(F, 3) albedo of faces, or (F, 4, 3) of their corners, between which it runs on."""
    roughness: float
    metallic: float
    part: int | NDArray[np.uint8]
    """What a ray that ends here has met: a position in `hand.SEGMENTS`, `labels.PROP` or `labels.OTHER_HAND`; one for
    all faces, or (F,)."""
    mask: int | NDArray[np.uint8]
    """Value in the mask; one for all faces, or (F,)."""
    coat: Coat | None = None

    def moved(self, turn: NDArray[np.floating[Any]], origin: NDArray[np.floating[Any]]) -> "Thing":
        """After x -> turn @ x + origin; where that mirrors, the faces are wound the other way round."""
        quads, paint = self.quads, self.paint
        if np.linalg.det(turn) < 0:
            quads = np.ascontiguousarray(quads[:, [0, 3, 2, 1]])
            paint = paint if paint.ndim == 2 else paint[:, [0, 3, 2, 1]]
        vertices = (self.vertices.astype(np.float64) @ np.asarray(turn, np.float64).T + origin).astype(np.float32)
        return replace(self, vertices=vertices, quads=quads, paint=paint)


@dataclass(frozen=True, eq=False)
class HandScene:
    """A posed hand before a camera."""

    vertices: NDArray[np.float32]
    """(V, 3) metres, camera's frame."""
    intrinsics: NDArray[np.float32]
    """(3, 3) K in pixels, square pixels, no skew."""
    size: int
    """Side of the image in pixels."""
    left: bool
    """Whether the vertices are a mirrored right hand, so that the faces run the other way."""
    pose: HandPose
    """Its joint angles: skin over bent joints is taut."""
    centre: tuple[float, float, float]
    """Middle of the hand, or of both: lamps look at it, and its z is the unit of their distances."""
    things: tuple[Thing, ...] = ()
    """What else is there, in the camera's frame."""
    other: "OtherHand | None" = None
    """The other hand, where both are in the frame."""
    surface: Thing | None = None
    """What it lies on or hovers over, behind all else; no label knows of it."""
    age: float = 2 / 3
    """1/3 a child, 2/3 a young adult, 1 old: the older, the plainer lines, veins and tendons are."""

    @property
    def solid(self) -> NDArray[np.float64]:
        """(P, 3) vertices of everything but the surface."""
        other = () if self.other is None else (self.other.vertices,)
        return np.asarray(np.concatenate([self.vertices, *(t.vertices for t in self.things), *other]), np.float64)


@dataclass(frozen=True, eq=False)
class OtherHand:
    """A second hand of the same person: the same shape and skin. What it wears is among the scene's things."""

    vertices: NDArray[np.float32]
    """(V, 3) metres, camera's frame."""
    left: bool
    """As `HandScene.left`."""
    pose: HandPose
    """As `HandScene.pose`."""

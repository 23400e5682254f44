"""Samplers of appearances: panorama, lamps, skin, backdrop and sensor, each from its own random numbers.

Appearance a is drawn from (seed, a) alone. Choices, with their reasons:

- *Panorama*: the horizon stays roughly level as on a worn or held camera (pitch 35, roll 20 degrees standard
  deviation), any azimuth.
- *Lamps*: one or two, mostly in front of the hand so that most of what is seen is lit, with one in five a rim light
  from behind; small lamps throw hard shadows, large ones none. The panorama keeps between 15 and 100 % of the light.
- *Skin*: melanin from the lightest to very dark skin, uniform in the logarithm of reflectance so that no tone is rare,
  or in other shares (`handaug.render.shares`); blood and its oxygen vary independently of it
  (`handaug.render.skin_model`). Gloss, relief and the reach of light inside are at the dull, fine and short end:
  `benchmarks/realism.py` takes waxy and lizard-like hands for no hands.
- *Sensor*: the exposure is metered from the appearance and then missed by up to a stop, never fitted to an image.
  `clean` leaves out what a chip and a lens add; `rough` adds motion and defocus blur, contrast, casts, JPEG.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from handaug.render.environment import make_surrounding
from handaug.render.scene import SKIN_LAYOUTS, Appearance, Backdrop, Lamp, Sensor, Skin, Vector
from handaug.render.seeds import Factor, Kind, generator, identity
from handaug.render.shares import TONES
from handaug.render.skin_model import LUMINANCE, TYPICAL_BLOOD, melanin_of_tone, skin_reflectance

__all__ = ["LAMPS", "sample_appearance", "sample_rig"]

LAMPS = ("none", "one", "two")
"""How many lamps may shine."""
_HAND_BLOOD, _USUAL_BLOOD = 3.2, 1.5
"""Hands hold more blood than skin that is measured by instruments that touch it: from a distance a* of CIELAB is 15 to
25 (five clusters of 120 faces, Proposed shade guide for human facial skin, IADR 2009), 18 in photographs of a palm, and
a detector trained on photographs misses paler hands (docs/rendering.md). Here a* is 12 to 18 on the back, the darker
the less, and 20 on the palm. The second: with how much a hand is as light as its tone says."""
_TRACED_TONE = 0.4
"""Between light and dark: in proportion, no skin is far from the one that is traced."""
_RELIEF = ("roughness", "specular", "bump", "subsurface", "crease", "vein", "tendon", "wet", "offset", "layout")
"""What a skin is beside its colours."""
_WARM, _COOL = np.array([1.5, 0.95, 0.55]), np.array([0.85, 0.98, 1.17])


def sample_appearance(
    seed: int,
    number: int,
    *,
    environments: int,
    backgrounds: int = 0,
    library: str = "",
    surroundings: Mapping[str, float] = MappingProxyType({"photo": 1.0}),
    sensor: str = "standard",
    tones: Mapping[str, float] = TONES.default,
    lamps: Mapping[str, float] = MappingProxyType({}),
    exposures: tuple[float, float] | None = None,
    rig: int = -1,
) -> Appearance:
    """Appearance `number` of a seed.

    Args:
        seed: Seed of the dataset.
        number: Number in the pool, 0 or more.
        environments: How many panoramas there are.
        backgrounds: How many background images the user gave; 0: the panorama stands behind the hand.
        library: Which panoramas and backgrounds the numbers point to; part of the identity alone.
        surroundings: Weights of `environment.ENVIRONMENTS`.
        sensor: `standard`, `clean` or `rough`.
        tones: Shares of `shares.TONES`.
        lamps: Weights of `LAMPS`; empty: one or two.
        exposures: Limits within which the exposure misses, in doublings of the light; None: of the sensor alone.
        rig: Number of the rig whose panorama, places of lamps and relief of the skin it shares; -1: all its own.
    """

    def rng(factor: Factor) -> np.random.Generator:
        return generator(seed, Kind.APPEARANCE, number, factor)

    around = rng(Factor.ENVIRONMENT)
    environment = int(around.integers(environments))
    rotation = _rotation(around)
    share = float(around.uniform(0.15, 1.0))
    making = rng(Factor.SURROUNDING)
    kind = str(making.choice(list(surroundings), p=list(surroundings.values())))
    chip = _sensor(rng(Factor.CAMERA))
    if sensor != "standard":
        chip = _clean(chip) if sensor == "clean" else _roughen(chip, rng(Factor.ROUGHNESS))
    if exposures is not None:
        chip = replace(chip, exposure_value=float(rng(Factor.EXPOSURE).uniform(*exposures)))
    count = _count(rng(Factor.LAMP_COUNT), lamps) if lamps else None
    shining = rng(Factor.LAMPS)
    if count is not None:
        shining.integers(1, 3)  # what would be the count: so that lamps are those of before where it is the same
    shared = (*(() if rig < 0 else ("rig", rig)), *TONES.asked(tones), *sorted(lamps.items()), *(exposures or ()))
    drawn = Appearance(
        number=number,
        identity=identity("appearance", seed, number, library, sorted(surroundings.items()), sensor, *shared),
        environment=environment if kind == "photo" else -1,
        surrounding=None if kind == "photo" else make_surrounding(making, kind),
        rotation=rotation,
        environment_share=share,
        lamps=_lamps(shining, 1.15 - share, count),
        skin=_skin(rng(Factor.SKIN), rng(Factor.SKIN_DETAIL), tones=tones),
        backdrop=_backdrop(rng(Factor.BACKDROP), backgrounds),
        sensor=chip,
    )
    if rig < 0:
        return drawn
    return _share(drawn, sample_rig(seed, rig, environments, surroundings), rng(Factor.LAMPS), count)


def _count(rng: np.random.Generator, weights: Mapping[str, float]) -> int:
    """How many lamps shine."""
    return LAMPS.index(str(rng.choice(list(weights), p=list(weights.values()))))


def sample_rig(seed: int, number: int, environments: int, surroundings: Mapping[str, float]) -> Appearance:
    """What appearances of one rig share, as it is traced: a panorama of mean radiance 1, two white lamps of share 1, a
    skin of middle tone. Arguments as in `sample_appearance`.
    """

    def rng(factor: Factor) -> np.random.Generator:
        return generator(seed, Kind.RIG, number, factor)

    around, making = rng(Factor.ENVIRONMENT), rng(Factor.SURROUNDING)
    environment, rotation = int(around.integers(environments)), _rotation(around)
    kind = str(making.choice(list(surroundings), p=list(surroundings.values())))
    return Appearance(
        number=-1,
        identity=0,
        environment=environment if kind == "photo" else -1,
        surrounding=None if kind == "photo" else make_surrounding(making, kind),
        rotation=rotation,
        environment_share=1.0,
        lamps=tuple(replace(x, share=1.0, color=(1.0, 1.0, 1.0)) for x in _lamps(rng(Factor.LAMPS), 1.0, count=2)),
        skin=_skin(rng(Factor.SKIN), rng(Factor.SKIN_DETAIL), tone=_TRACED_TONE),
        backdrop=_backdrop(rng(Factor.BACKDROP), 0),
        sensor=_clean(_sensor(rng(Factor.CAMERA))),
        rig=number,
    )


def _share(drawn: Appearance, rig: Appearance, rng: np.random.Generator, count: int | None) -> Appearance:
    """The appearance in the light of a rig and with its skin's relief: strengths and colours stay its own.

    Of the rig's two lamps `count` shine; None: one in two of five appearances, else both.
    """
    shares = rng.dirichlet((1.0, 1.0)) * (1.15 - drawn.environment_share) * rng.uniform(0.7, 1.6)
    alone = rng.uniform() < 0.4
    dark = int(rng.integers(2)) if alone else 0  # lamps are drawn alike, so either may be the one
    if count is None:
        count = 1 if alone else 2
    shares[[dark, 1 - dark][: 2 - count]] = 0.0
    warmth = rng.uniform(size=(2, 1))
    colors = (1 - warmth) * _COOL + warmth * _WARM
    return replace(
        drawn,
        environment=rig.environment,
        surrounding=rig.surrounding,
        rotation=rig.rotation,
        lamps=tuple(
            replace(lamp, share=float(share), color=_vector(color / color.mean()))
            for lamp, share, color in zip(rig.lamps, shares, colors, strict=True)
        ),
        skin=replace(drawn.skin, **{name: getattr(rig.skin, name) for name in _RELIEF}),
        rig=rig.rig,
    )


def _vector(values: NDArray[np.float64]) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])


def _quaternion(axis: int, angle: float) -> NDArray[np.float64]:
    q = np.zeros(4)
    q[0], q[1 + axis] = math.cos(angle / 2), math.sin(angle / 2)
    return q


def _times(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hamilton product; (w, x, y, z)."""
    w = a[0] * b[0] - a[1:] @ b[1:]
    return np.concatenate([[w], a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])])


def _rotation(rng: np.random.Generator) -> tuple[float, float, float, float]:
    azimuth, pitch, roll = rng.uniform(0, 2 * math.pi), rng.normal(0, math.radians(35)), rng.normal(0, math.radians(20))
    level = _quaternion(0, -math.pi / 2)  # camera z (forward) -> panorama y, camera y (down) -> panorama -z
    turn = _times(_quaternion(2, azimuth), _times(_quaternion(0, pitch), _times(level, _quaternion(2, roll))))
    return float(turn[0]), float(turn[1]), float(turn[2]), float(turn[3])


def _lamps(rng: np.random.Generator, total: float, count: int | None = None) -> tuple[Lamp, ...]:
    n = int(rng.integers(1, 3)) if count is None else count
    if not n:
        return ()
    weights = rng.dirichlet(np.full(n, 2.0)) * total * rng.uniform(0.7, 1.6)
    lamps = []
    for weight in weights:
        direction = rng.normal(size=3)
        behind = rng.uniform() < 0.2
        direction[2] = abs(direction[2]) if behind else -abs(direction[2]) - 0.3
        direction /= np.linalg.norm(direction)
        warmth = rng.uniform()
        color = (1 - warmth) * _COOL + warmth * _WARM
        lamps.append(
            Lamp(
                direction=_vector(direction),
                distance=float(rng.uniform(1.2, 2.5)),
                side=float(np.exp(rng.uniform(np.log(0.08), np.log(1.0)))),
                aspect=1.0,
                share=float(weight),
                color=_vector(color / color.mean()),
            )
        )
    # Large lamps are windows: upright or broad.
    aspects = np.exp(rng.uniform(-0.9, 0.9, len(lamps)))
    return tuple(
        replace(lamp, aspect=float(aspect) if lamp.side > 0.3 else 1.0)
        for lamp, aspect in zip(lamps, aspects, strict=True)
    )


def _skin(
    rng: np.random.Generator,
    detail: np.random.Generator,
    tone: float | None = None,
    tones: Mapping[str, float] = TONES.default,
) -> Skin:
    drawn = float(rng.uniform())
    tone = TONES.moved(drawn, tones) if tone is None else tone
    redness, yellowness = rng.normal(0, 1, 2)
    melanin = melanin_of_tone(tone)
    blood = _HAND_BLOOD * TYPICAL_BLOOD * float(np.exp(np.clip(0.25 * redness, -0.5, 0.5)))
    oxygen = float(np.clip(0.78 + 0.1 * yellowness, 0.5, 0.98))
    lightness = np.exp(rng.normal(0, 0.05))
    color = _albedo(melanin, blood, oxygen) * lightness
    # Palms have little melanin but thicker, redder skin; the bed that shows through the nail has more of its finger's.
    palm = _albedo(melanin * (0.55 - 0.42 * tone), 1.2 * blood, oxygen) * lightness
    nail = 0.2 * palm + 0.8 * _albedo(melanin_of_tone(0.04 + 0.68 * tone), 1.2 * blood, oxygen)
    return Skin(
        color=_vector(np.clip(color, 0.015, 0.85)),
        palm=_vector(np.clip(palm, 0.015, 0.85)),
        nail=_vector(np.clip(nail, 0.015, 0.85)),
        tone=tone,
        blood=blood,
        blotch=float(rng.uniform(0.1, 0.45)),
        roughness=float(rng.uniform(0.48, 0.72)),
        specular=float(rng.uniform(0.2, 0.45)),
        bump=float(rng.uniform(0.0001, 0.0003)),
        subsurface=float(rng.uniform(0.0007, 0.0018)) * (1 - 0.4 * tone),
        crease=float(detail.uniform(0.3, 1.0)),
        vein=float(np.clip(detail.normal(0.2, 0.35), 0, 1)),
        wet=float(detail.uniform(0.1, 0.45)) if detail.uniform() < 0.08 else 0.0,
        offset=_vector(rng.uniform(-10, 10, 3)),
        layout=int(detail.integers(SKIN_LAYOUTS)),
        tendon=float(detail.uniform(0.2, 1.0)),
    )


def _albedo(melanin: float, blood: float, oxygen: float) -> NDArray[np.float64]:
    """Of skin with this blood, as light as with usual blood: the tone alone says how light a hand is."""
    full, usual = (
        skin_reflectance(melanin, blood, oxygen),
        skin_reflectance(melanin, _USUAL_BLOOD * TYPICAL_BLOOD, oxygen),
    )
    return np.asarray(full * (usual @ LUMINANCE) / (full @ LUMINANCE))


def _backdrop(rng: np.random.Generator, backgrounds: int) -> Backdrop:
    image = int(rng.integers(backgrounds)) if backgrounds else -1
    return Backdrop(
        image=image,
        field_of_view=math.radians(rng.uniform(35, 85)),
        crop=(float(rng.uniform()), float(rng.uniform()), float(rng.uniform(0.4, 1.0))),
        blur=float(rng.uniform(0, 1) ** 2 * 0.03),
        gain=float(np.exp(rng.uniform(np.log(0.35), np.log(1.3)))),
    )


def _sensor(rng: np.random.Generator) -> Sensor:
    return Sensor(
        exposure_value=float(np.clip(rng.normal(0, 0.4), -1, 1)),
        white_balance=float(rng.uniform(0.7, 1.0)),
        mono_weights=_vector(rng.dirichlet((8, 8, 4))),
        gamma=float(rng.uniform(1.8, 2.4)),
        blur=float(rng.uniform(0.0, 0.6)),
        vignetting=float(rng.uniform(0, 0.35)),
        shot_noise=float(np.exp(rng.uniform(np.log(1e-5), np.log(4e-4)))),
        read_noise=float(np.exp(rng.uniform(np.log(0.0005), np.log(0.0025)))),
    )


def _clean(chip: Sensor) -> Sensor:
    return replace(
        chip, exposure_value=0.0, white_balance=1.0, blur=0.0, vignetting=0.0, shot_noise=0.0, read_noise=0.0
    )


def _roughen(chip: Sensor, rng: np.random.Generator) -> Sensor:
    """A cheap camera in a hurry: each flaw in a share of the appearances."""
    turn, way = rng.uniform(0, 2 * math.pi), rng.uniform(0.01, 0.06)
    shaken, unsharp, noisy, packed = rng.uniform(size=4) < (0.35, 0.25, 0.4, 0.6)
    return replace(
        chip,
        exposure_value=float(np.clip(chip.exposure_value * 1.6, -1.6, 1.6)),
        white_balance=float(rng.uniform(0.2, 1.0)),
        shot_noise=chip.shot_noise * (float(rng.uniform(2, 10)) if noisy else 1.0),
        read_noise=chip.read_noise * (float(rng.uniform(2, 6)) if noisy else 1.0),
        motion=(way * math.cos(turn), way * math.sin(turn)) if shaken else (0.0, 0.0),
        defocus=float(rng.uniform(0.004, 0.018)) if unsharp else 0.0,
        contrast=float(rng.uniform(0.8, 1.35)),
        temperature=float(rng.normal(0, 0.1)),
        jpeg=int(rng.integers(25, 92)) if packed else 0,
    )

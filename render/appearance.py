"""Samplers of appearances: panorama, lamps, skin, backdrop and sensor, each from its own random numbers.

Appearance a is drawn from (seed, a) alone. Choices, with their reasons:

- *Panorama*: the horizon stays roughly level as on a worn or held camera (pitch 35, roll 20 degrees standard
  deviation), any azimuth.
- *Lamps*: one or two, mostly in front of the hand so that most of what is seen is lit, with one in five a rim light
  from behind; small lamps throw hard shadows, large ones none. The panorama keeps between 15 and 100 % of the light.
- *Skin*: a ramp from the lightest to very dark skin, linear in the logarithm of reflectance as absorption by melanin
  is, uniform along the ramp so that no tone is rare; redness and yellowness vary about it.
- *Sensor*: the exposure is metered from the appearance and then missed by up to a stop, never fitted to an image.
"""

import math

import numpy as np
from numpy.typing import NDArray

from handaug.render.scene import Appearance, Backdrop, Lamp, Sensor, Skin, Vector
from handaug.render.seeds import Factor, Kind, generator, identity

__all__ = ["DARK_SKIN", "LIGHT_SKIN", "sample_appearance", "skin_color"]

LIGHT_SKIN = (0.80, 0.52, 0.41)
DARK_SKIN = (0.075, 0.037, 0.025)
_WARM, _COOL = np.array([1.5, 0.95, 0.55]), np.array([0.85, 0.98, 1.17])


def sample_appearance(
    seed: int, number: int, *, environments: int, backgrounds: int = 0, library: str = ""
) -> Appearance:
    """Appearance `number` of a seed.

    Args:
        seed: Seed of the dataset.
        number: Number in the pool, 0 or more.
        environments: How many panoramas there are.
        backgrounds: How many background images the user gave; 0: the panorama stands behind the hand.
        library: Which panoramas and backgrounds the numbers point to; part of the identity alone.
    """

    def rng(factor: Factor) -> np.random.Generator:
        return generator(seed, Kind.APPEARANCE, number, factor)

    around = rng(Factor.ENVIRONMENT)
    environment = int(around.integers(environments))
    rotation = _rotation(around)
    share = float(around.uniform(0.15, 1.0))
    return Appearance(
        number=number,
        identity=identity("appearance", seed, number, library),
        environment=environment,
        rotation=rotation,
        environment_share=share,
        lamps=_lamps(rng(Factor.LAMPS), 1.15 - share),
        skin=_skin(rng(Factor.SKIN)),
        backdrop=_backdrop(rng(Factor.BACKDROP), backgrounds),
        sensor=_sensor(rng(Factor.CAMERA)),
    )


def skin_color(tone: float) -> NDArray[np.float64]:
    """Albedo (3,) on the ramp: 0 the lightest, 1 the darkest."""
    return np.exp((1 - tone) * np.log(LIGHT_SKIN) + tone * np.log(DARK_SKIN))


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


def _lamps(rng: np.random.Generator, total: float) -> tuple[Lamp, ...]:
    n = int(rng.integers(1, 3))
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
                share=float(weight),
                color=_vector(color / color.mean()),
            )
        )
    return tuple(lamps)


def _skin(rng: np.random.Generator) -> Skin:
    tone = float(rng.uniform())
    redness, yellowness = rng.normal(0, 0.06, 2)
    hue = np.exp([redness, 0.0, -yellowness]) * np.exp(rng.normal(0, 0.05))
    color = skin_color(tone) * hue
    palm = skin_color(0.1 + 0.45 * tone) * hue * np.array([1.03, 0.92, 0.90])
    nail = 0.5 * palm + 0.5 * skin_color(0.15) * np.array([0.95, 0.9, 0.95])
    return Skin(
        color=_vector(np.clip(color, 0.015, 0.85)),
        palm=_vector(np.clip(palm, 0.015, 0.85)),
        nail=_vector(np.clip(nail, 0.015, 0.85)),
        tone=tone,
        blotch=float(rng.uniform(0.1, 0.45)),
        roughness=float(rng.uniform(0.35, 0.62)),
        specular=float(rng.uniform(0.25, 0.55)),
        bump=float(rng.uniform(0.0002, 0.0007)),
        subsurface=float(rng.uniform(0.002, 0.0045)) * (1 - 0.6 * tone),
        offset=_vector(rng.uniform(-10, 10, 3)),
    )


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
        white_balance=float(rng.uniform(0.5, 1.0)),
        mono_weights=_vector(rng.dirichlet((8, 8, 4))),
        gamma=float(rng.uniform(1.8, 2.4)),
        blur=float(rng.uniform(0.0, 0.6)),
        vignetting=float(rng.uniform(0, 0.35)),
        shot_noise=float(np.exp(rng.uniform(np.log(1e-5), np.log(4e-4)))),
        read_noise=float(np.exp(rng.uniform(np.log(0.0005), np.log(0.0025)))),
    )

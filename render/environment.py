"""Surroundings made by formula: rooms with windows and furniture, and skies over a horizon. No Blender.

A surrounding is a function of direction: it lights the hand as a panorama does, and stands behind it out of focus. All
that it is made of is drawn from one generator, so that an appearance has the same room wherever it is rendered.
Directions are the panorama's (z up, metres for positions), radiance in units in which a white wall is about 1.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ENVIRONMENTS",
    "Noise",
    "Panorama",
    "Room",
    "Sky",
    "Surrounding",
    "block_means",
    "directions",
    "look_up",
    "make_surrounding",
    "muted",
]

ENVIRONMENTS = ("photo", "room", "sky")
"""What may surround a hand: a panorama from a file, or one made here."""

Floats = NDArray[np.float64]


def directions(height: int, width: int) -> NDArray[np.float64]:
    """(H, W, 3) unit directions of a panorama's pixel centres, first row up.

    As Blender maps them: z is up, the middle of the picture looks at +x, its left half at +y: u = 1/2 - atan2(y, x) /
    (2 pi).
    """
    azimuth = (0.5 - (np.arange(width) + 0.5) / width) * 2 * np.pi
    height_angle = (0.5 - (np.arange(height) + 0.5) / height) * np.pi
    c = np.cos(height_angle)[:, None]
    z = np.broadcast_to(np.sin(height_angle)[:, None], (height, width))
    return np.stack([c * np.cos(azimuth), c * np.sin(azimuth), z], -1)


def block_means(picture: NDArray[Any], k: int) -> NDArray[Any]:
    """(H / k, W / k, C) means over blocks of k x k pixels; many times faster than numpy's mean over two axes."""
    return np.asarray(sum(picture[y::k, x::k] for y in range(k) for x in range(k)) / k**2, picture.dtype)


def look_up(panorama: NDArray[np.float32], d: NDArray[np.float64]) -> NDArray[np.float64]:
    """Radiance (..., 3) of a panorama (H, W, 3), first row up, in the directions (..., 3); bilinear."""
    height, width = panorama.shape[:2]
    u = (0.5 - np.arctan2(d[..., 1], d[..., 0]) / (2 * np.pi)) * width - 0.5
    v = np.clip((0.5 - np.arcsin(np.clip(d[..., 2], -1, 1)) / np.pi) * height - 0.5, 0, height - 1)
    u0, v0 = np.floor(u).astype(int), np.floor(v).astype(int)
    a, b = (u - u0)[..., None], (v - v0)[..., None]
    u1, v1 = (u0 + 1) % width, np.minimum(v0 + 1, height - 1)
    u0 = u0 % width
    top = panorama[v0, u0] * (1 - a) + panorama[v0, u1] * a
    bottom = panorama[v1, u0] * (1 - a) + panorama[v1, u1] * a
    return np.asarray(top * (1 - b) + bottom * b, np.float64)


class Surrounding(Protocol):
    """What light comes from where."""

    def radiance(self, d: Floats) -> Floats:
        """(..., 3) radiance from the unit directions (..., 3)."""
        ...


@dataclass(frozen=True, eq=False)
class Panorama:
    """A picture of all directions."""

    pixels: NDArray[np.float32]
    """(H, W, 3) linear, first row up."""

    def radiance(self, d: Floats) -> Floats:
        """Bilinear."""
        return look_up(self.pixels, d)


def make_surrounding(rng: np.random.Generator, kind: str) -> "Room | Sky":
    """Draw a `room` or a `sky`."""
    return Room(rng) if kind == "room" else Sky(rng)


class Noise:
    """Smooth noise of three octaves: sums of cosines in random directions, about -1..1.

    In single precision: cosines of doubles took a third of the time in which a look of a room or a sky is made.
    """

    def __init__(self, rng: np.random.Generator, scale: float) -> None:
        octave = np.repeat([1.0, 2.1, 4.3], 5)
        self._waves = (rng.normal(size=(15, 3)) * (octave * 2 * np.pi / scale)[:, None]).astype(np.float32)
        self._phase = rng.uniform(0, 2 * np.pi, 15).astype(np.float32)
        self._weight = (1 / octave / np.sqrt(5)).astype(np.float32)

    def __call__(self, points: Floats) -> Floats:
        return np.asarray(np.cos(points.astype(np.float32) @ self._waves.T + self._phase) @ self._weight, np.float64)


def muted(rng: np.random.Generator, low: float, high: float, saturation: float) -> Floats:
    """A colour of walls and furniture."""
    hue = rng.uniform()
    wheel = np.clip(np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    amount = rng.uniform(0, saturation)
    return np.asarray(np.exp(rng.uniform(np.log(low), np.log(high))) * (1 - amount * (1 - wheel)))


@dataclass(frozen=True, eq=False)
class _Panel:
    """A rectangle on a wall: window, picture or door."""

    wall: int
    low: Floats
    high: Floats
    colour: Floats
    light: float
    bars: int


class Room:
    """A box with a person in it: four walls, windows, a lamp, pictures, furniture."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.half = np.array([*rng.uniform(1.6, 4.0, 2), rng.uniform(1.2, 1.6)])
        self.eye = np.array([*(rng.uniform(-0.6, 0.6, 2) * self.half[:2]), rng.uniform(-0.4, 0.4)])
        wall = muted(rng, 0.25, 0.75, 0.25)
        self.colours = np.array([wall] * 4 + [muted(rng, 0.08, 0.4, 0.5), np.full(3, rng.uniform(0.6, 0.85))])
        if rng.uniform() < 0.4:
            self.colours[int(rng.integers(4))] = muted(rng, 0.1, 0.5, 0.6)
        night = rng.uniform() < 0.25
        self.panels = self._hang(rng, night)
        self.lamp = np.array([*(rng.uniform(-0.5, 0.5, 2) * self.half[:2]), rng.uniform(0.1, 0.35)])
        self.lamp_light = float(rng.uniform(8, 25)) if night or rng.uniform() < 0.4 else 0.0
        self.lamp_colour = np.array([1.15, 1.0, 0.8]) if rng.uniform() < 0.6 else np.array([0.97, 1.0, 1.04])
        boxes = int(rng.integers(3, 9))
        size = rng.uniform([0.15, 0.15, 0.2], [0.7, 0.7, 1.0], (boxes, 3))
        side = rng.integers(4, size=boxes)
        spot = rng.uniform(-0.9, 0.9, (boxes, 3)) * self.half
        for k in range(boxes):  # furniture stands along the walls
            spot[k, side[k] // 2] = (1 if side[k] % 2 else -1) * (self.half[side[k] // 2] - size[k, side[k] // 2])
        spot[:, 2] = size[:, 2] - self.half[2]
        self.low, self.high = spot - size, spot + size
        self.furniture = np.array([muted(rng, 0.04, 0.6, 0.7) for _ in range(boxes)])
        self.ambient = float(rng.uniform(0.25, 0.6))
        self.planks = float(rng.uniform(0.08, 0.6))
        self._noise = Noise(rng, float(rng.uniform(0.4, 2.0)))
        self._grain = Noise(rng, 0.12)

    def _hang(self, rng: np.random.Generator, night: bool) -> list[_Panel]:
        found = []
        for wall in range(4):
            kind = rng.choice(["window", "pictures", "door", "none"], p=(0.38, 0.3, 0.12, 0.2))
            across = self.half[1 - wall // 2]
            middle = rng.uniform(-0.5, 0.5) * across
            if kind == "window":
                wide, tall = rng.uniform(0.3, 0.75) * across, rng.uniform(0.4, 0.8)
                light = rng.uniform(0.02, 0.06) if night else rng.uniform(5, 22)
                sky = np.array([0.85, 0.97, 1.15]) ** rng.uniform(0, 2)
                low, high = np.array([middle - wide, 0.15 - tall]), np.array([middle + wide, 0.15 + tall])
                found.append(_Panel(wall, low, high, sky, light, int(rng.integers(1, 4))))
            elif kind == "door":
                low, high = np.array([middle - 0.45, -self.half[2]]), np.array([middle + 0.45, 0.75])
                found.append(_Panel(wall, low, high, muted(rng, 0.1, 0.6, 0.4), 0.0, 0))
            elif kind == "pictures":
                for _ in range(int(rng.integers(1, 5))):
                    at, size = rng.uniform([-0.85 * across, -0.3], [0.85 * across, 0.7]), rng.uniform(0.1, 0.4, 2)
                    found.append(_Panel(wall, at - size, at + size, muted(rng, 0.03, 0.7, 0.9), 0.0, 0))
        return found

    def radiance(self, d: Floats) -> Floats:
        """Colour of the first surface, under soft light from windows and lamp."""
        shape, d = d.shape, d.reshape(-1, 3)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1 / np.where(np.abs(d) < 1e-9, 1e-9, d)
        reach = (np.sign(d) * self.half - self.eye) * inverse
        axis = reach.argmin(1)
        far = reach[np.arange(len(d)), axis]
        wall = 2 * axis + (d[np.arange(len(d)), axis] > 0)
        points = self.eye + far[:, None] * d
        colour = self.colours[wall] * (1 + 0.05 * self._noise(points))[:, None]
        glow = np.zeros((len(d), 3))
        floor = wall == 4
        plank = np.floor(points[floor, 0] / self.planks)
        colour[floor] *= (0.9 + 0.2 * np.modf(np.abs(np.sin(plank * 12.99) * 437.6))[0])[:, None]
        self._draw_panels(points, wall, colour, glow)
        roof = (wall == 5) & (np.hypot(points[:, 0] - self.lamp[0], points[:, 1] - self.lamp[1]) < self.lamp[2])
        glow[roof] = self.lamp_light * self.lamp_colour
        edge = (self.half - np.abs(points)) + 10 * (np.arange(3) == axis[:, None])
        shade = 1 - 0.35 * np.exp(-edge.min(1) / 0.25)
        shade = shade * self._draw_furniture(d, inverse, far, points, colour, glow)
        light = self._light(points) * shade[:, None]
        return np.asarray((colour * light + glow).reshape(shape))

    def _draw_panels(self, points: Floats, wall: NDArray[np.intp], colour: Floats, glow: Floats) -> None:
        for panel in self.panels:
            mine = np.flatnonzero(wall == panel.wall)
            flat = points[mine][:, [1 - panel.wall // 2, 2]]
            share = (flat - panel.low) / (panel.high - panel.low)
            inside = ((share > 0) & (share < 1)).all(1)
            margin = 0.03 / (panel.high - panel.low)
            frame = inside & ((share < margin) | (share > 1 - margin)).any(1)
            if panel.bars:
                cell = np.modf(share * [panel.bars, 2])[0]
                frame |= inside & ((cell < 0.04) | (cell > 0.96)).any(1)
            seen = mine[inside & ~frame]
            if panel.light:
                haze = 0.35 + 0.65 * np.clip(share[inside & ~frame][:, 1:] * 1.6, 0, 1)
                glow[seen], colour[seen] = panel.light * haze * panel.colour, 0.0
            else:
                colour[seen] = panel.colour * (0.7 + 0.5 * self._noise(4 * points[seen]))[:, None].clip(0.3)
            colour[mine[frame]] = 0.6 if panel.bars else 0.5 * panel.colour

    def _draw_furniture(
        self, d: Floats, inverse: Floats, far: Floats, points: Floats, colour: Floats, glow: Floats
    ) -> Floats:
        """Boxes before the walls, in place; returns the shade of their sides."""
        shade = np.ones(len(d))
        for low, high, paint in zip(self.low, self.high, self.furniture, strict=True):
            one, two = (low - self.eye) * inverse, (high - self.eye) * inverse
            near = np.minimum(one, two)
            enter, leave = near.max(1), np.maximum(one, two).min(1)
            hit = np.flatnonzero((enter > 0.05) & (enter < leave) & (enter < far))
            far[hit] = enter[hit]
            points[hit] = self.eye + enter[hit, None] * d[hit]
            colour[hit] = paint * (1 + 0.12 * self._grain(points[hit]))[:, None]
            glow[hit] = 0
            shade[hit] = np.array([0.75, 0.9, 1.15])[near[hit].argmax(1)]
        return shade

    def _light(self, points: Floats) -> Floats:
        light = np.full((len(points), 3), self.ambient)
        for panel in self.panels:
            if panel.light > 1:
                at = np.zeros(3)
                at[panel.wall // 2] = self.half[panel.wall // 2] * (1 if panel.wall % 2 else -1)
                at[[1 - panel.wall // 2, 2]] = 0.5 * (panel.low + panel.high)
                area = float(np.prod(panel.high - panel.low))
                light += panel.colour * (0.1 * panel.light * area / (0.6 + ((points - at) ** 2).sum(1)))[:, None]
        if self.lamp_light:
            at = np.array([self.lamp[0], self.lamp[1], self.half[2]])
            strength = 0.25 * self.lamp_light * self.lamp[2] ** 2 * np.pi
            light += self.lamp_colour * (strength / (0.5 + ((points - at) ** 2).sum(1)))[:, None]
        return light


class Sky:
    """A sky with sun and clouds over a skyline of trees, hills or buildings, and a ground."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.overcast = float(rng.uniform() ** 0.7)
        height, turn = rng.uniform(np.radians(4), np.radians(75)), rng.uniform(0, 2 * np.pi)
        self.sun = np.array([np.cos(height) * np.cos(turn), np.cos(height) * np.sin(turn), np.sin(height)])
        low = np.exp(-height / 0.3)  # a low sun is red, and so is the haze about it
        self.sun_colour = np.array([1.0, 0.93 - 0.35 * low, 0.82 - 0.6 * low])
        self.sun_light = float(rng.uniform(40, 160)) * (1 - self.overcast) ** 1.5
        grey = np.array([0.8, 0.85, 0.9])
        self.zenith = (1 - self.overcast) * np.array([0.16, 0.36, 0.85]) + self.overcast * grey
        self.horizon = (1 - self.overcast) * (np.array([0.75, 0.85, 1.0]) * (1 - low) + self.sun_colour * low)
        self.horizon = self.horizon + self.overcast * 0.9 * grey
        self.cover = float(rng.uniform(-0.6, 0.9))
        green = np.array([0.07, 0.12, 0.03])
        ground = [green, np.array([0.2, 0.17, 0.13]), np.full(3, 0.16), np.array([0.35, 0.3, 0.2])]
        self.ground = ground[int(rng.integers(4))] * rng.uniform(0.6, 1.5)
        self.built = bool(rng.uniform() < 0.45)
        self.edge = muted(rng, 0.08, 0.5, 0.3) if self.built else green * rng.uniform(0.4, 1.2)
        count = 60
        self.steps = rng.uniform(0.02, 0.45 if self.built else 0.12, count) ** (1.5 if self.built else 1.0)
        self.paint = np.clip(self.edge * np.exp(rng.normal(0, 0.35, (count, 1))), 0.01, 0.9)
        self._clouds, self._rough, self._leaves = Noise(rng, 1.2), Noise(rng, 1.5), Noise(rng, 0.05)

    def radiance(self, d: Floats) -> Floats:
        """Sky above the skyline, ground below the horizon."""
        shape, d = d.shape, d.reshape(-1, 3)
        up = np.clip(d[:, 2], 0, 1)[:, None]
        sky = self.horizon + (self.zenith - self.horizon) * np.sqrt(up)
        toward = np.clip(d @ self.sun, -1, 1)[:, None]
        sky = sky + (1 - self.overcast) * self.sun_colour * (
            0.5 * np.clip(toward, 0, 1) ** 8 + 2 * toward.clip(0) ** 90
        )
        flat = np.concatenate([d[:, :2] / (up + 0.15), np.zeros_like(up)], 1)
        cloud = np.clip(self._clouds(0.4 * flat) + self.cover, 0, 1)[:, None] * (1 - 0.3 * self.overcast)
        sky = sky * (1 - 0.8 * cloud) + cloud * 0.95 * (0.75 + 0.35 * self.sun_colour)
        sky = sky + self.sun_light * self.sun_colour * np.clip((toward - np.cos(0.035)) / 3e-4, 0, 1)
        lit = 0.5 + 0.5 * self.sun[2] * (1 - self.overcast)
        place = np.arctan2(d[:, 1], d[:, 0]) / (2 * np.pi) * len(self.steps)
        step = np.floor(place).astype(int) % len(self.steps)
        if self.built:
            top = self.steps[step]
        else:  # hills and tree tops
            rest, after = place - np.floor(place), (step + 1) % len(self.steps)
            blend = rest * rest * (3 - 2 * rest)
            top = (1 - blend) * self.steps[step] + blend * self.steps[after] + 0.012 * self._leaves(d)
        edge = self.paint[step] * lit * (1 + 0.25 * self._leaves(d) * (not self.built))[:, None]
        if self.built:  # rows of windows
            pane = (np.modf(np.abs(place) * 6)[0] > 0.55) & (np.modf(np.abs(d[:, 2]) * 40)[0] > 0.5)
            edge = np.where(pane[:, None], 0.35 * edge + 0.12 * self.horizon, edge)
        where = np.concatenate([d[:, :2] / np.maximum(-d[:, 2:], 0.02), np.zeros_like(up)], 1)
        soil = self.ground * (1 + 0.3 * self._rough(0.8 * where) + 0.15 * self._leaves(0.03 * where))[:, None]
        soil = np.clip(soil, 0.01, 1) * (0.35 + 0.9 * lit)
        haze = np.exp(-np.abs(d[:, 2:]) / 0.03) * 0.4
        soil = soil * (1 - haze) + haze * 0.5 * self.horizon
        out: Any = np.where((d[:, 2] > top)[:, None], sky, np.where((d[:, 2] > 0)[:, None], edge, soil))
        return np.asarray(out.reshape(shape))

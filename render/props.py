"""Objects that people hold or that come between hand and camera: closed quad meshes with an exact distance, no Blender.

Two families make all of them: a profile turned about an axis (bottle, can, cup, ball, pen, rod) and a box with rounded
edges (box, phone, book, card). An object's own frame: metres, centred, its long axis along y; a phone's screen and a
book's cover look along +z. Sizes are those of everyday things.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PROPS", "Prop", "ball", "make_prop", "rounded_box", "turned"]

Floats = NDArray[np.float64]

_AROUND = 28
_RIM = 0.0012  # metres: radius of edges that look sharp
_POLE = 5e-5  # metres: the hole that is left where a turned profile meets its axis


@dataclass(frozen=True, eq=False)
class Prop:
    """One object: mesh, paint and the distance to its surface."""

    kind: str
    vertices: Floats
    """(V, 3) metres."""
    quads: NDArray[np.int32]
    """(F, 4) vertex numbers, counter-clockwise seen from outside."""
    paint: NDArray[np.float32]
    """(F, 3) albedo of each face, linear Rec. 709."""
    roughness: float
    metallic: float
    outline: Floats
    """Turned: (K, 2) radius and height of the profile. Box: (1, 4) half extents x, y, z and the radius of its edges."""
    rotation: Floats
    """(3, 3) and `origin` (3,): a point p of the object's own frame stands at rotation @ p + origin."""
    origin: Floats

    def moved(self, rotation: Floats, translation: Floats) -> "Prop":
        """The object after x -> rotation @ x + translation."""
        return replace(
            self,
            vertices=self.vertices @ rotation.T + translation,
            rotation=rotation @ self.rotation,
            origin=rotation @ self.origin + translation,
        )

    def distance(self, points: NDArray[np.floating[Any]]) -> Floats:
        """(P,) metres from (P, 3) points to the surface, negative inside; a cup counts as full."""
        own = (np.asarray(points, np.float64) - self.origin) @ self.rotation
        if self.outline.shape[1] == 4:
            half, edge = self.outline[0, :3] - self.outline[0, 3], self.outline[0, 3]
            q = np.abs(own) - half
            return np.asarray(np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0) - edge)
        flat = np.stack([np.hypot(own[:, 0], own[:, 2]), own[:, 1]], 1)
        start, along = self.outline[:-1], np.diff(self.outline, axis=0)
        t = np.einsum("pki,ki->pk", flat[:, None] - start, along) / np.maximum((along**2).sum(1), 1e-18)
        nearest = start + np.clip(t, 0, 1)[..., None] * along
        away = np.linalg.norm(flat[:, None] - nearest, axis=2).min(1)
        low, high = self.outline[:, 1].min(), self.outline[:, 1].max()
        inside = (flat[:, 1] > low) & (flat[:, 1] < high)
        inside &= flat[:, 0] < np.interp(flat[:, 1], *_radius_by_height(self.outline))
        return np.where(inside, -away, away)


def _radius_by_height(outline: Floats) -> tuple[Floats, Floats]:
    """The outer radius as a function of height; the outline runs from bottom to top (its inside, if any, is left
    out by whoever made it)."""
    return np.maximum.accumulate(outline[:, 1]), outline[:, 0]


def turned(profile: list[tuple[float, float]], solid: int | None = None) -> tuple[Floats, NDArray[np.int32], Floats]:
    """Turn a profile about y.

    Args:
        profile: (radius, height) from the bottom's middle to the top's middle (a cup goes on down its inside).
        solid: How many points of it are the outside; None: all.

    Returns:
        (V, 3) vertices; (F, 4) quads; (K, 2) the outside with its rims.
    """
    line = _with_rims(np.array(profile, np.float64))
    vertices, quads = _turn(line)
    if solid is not None:
        top = np.array(profile[:solid], np.float64)
        line = _with_rims(np.concatenate([top, [[0.0, top[-1, 1]]]]))
    return vertices, quads, line


def _with_rims(line: Floats) -> Floats:
    """Replace each inner corner by two near points: a narrow bevel that keeps flat sides flat under smooth shading."""
    out = [line[0]]
    for before, corner, after in zip(line[:-2], line[1:-1], line[2:], strict=True):
        for end in (before, after):
            way = end - corner
            length = max(float(np.linalg.norm(way)), 1e-9)
            step = min(_RIM, 0.2 * length)
            # outer support loop first where we come from, last where we go to
            points = [corner + way / length * step * s for s in (2.2, 1.0)]
            out += points if end is before else points[::-1]
    return np.array([*out, line[-1]])


def rounded_box(half: tuple[float, float, float], edge: float) -> tuple[Floats, NDArray[np.int32], Floats]:
    """A box with edges of radius `edge`: (V, 3) vertices, (F, 4) quads, (1, 4) outline.

    Args:
        half: Half extents along x, y, z, metres.
        edge: Radius, less than each half extent.
    """
    extents = np.array(half, np.float64)
    inner = extents - edge
    vertices, quads, offset = [], [], 0
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for sign in (-1.0, 1.0):
            # Angles of the quarter round, then flat: dense where it is round.
            lines = []
            for other in (u, v):
                bend = edge * np.tan(np.linspace(0, np.pi / 4, 4))
                out = inner[other] + bend
                lines.append(np.concatenate([-out[::-1], np.linspace(-inner[other], inner[other], 4)[1:-1], out]))
            grid = np.zeros((len(lines[0]), len(lines[1]), 3))
            grid[..., u], grid[..., v], grid[..., axis] = lines[0][:, None], lines[1], sign * extents[axis]
            core = np.clip(grid, -inner, inner)
            core[..., axis] = sign * inner[axis]
            away = grid - core
            grid = core + edge * away / np.linalg.norm(away, axis=-1, keepdims=True)
            number = np.arange(grid[..., 0].size).reshape(grid.shape[:2]) + offset
            faces = np.stack([number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]], -1).reshape(-1, 4)
            quads.append(faces if sign > 0 else faces[:, [0, 3, 2, 1]])
            vertices.append(grid.reshape(-1, 3))
            offset += grid[..., 0].size
    welded, where = np.unique(np.round(np.concatenate(vertices), 7), axis=0, return_inverse=True)
    faces = where.reshape(-1)[np.concatenate(quads)]
    return welded, faces.astype(np.int32), np.array([[*half, edge]])


def ball(radius: float) -> tuple[Floats, NDArray[np.int32], Floats]:
    """A ball as a turned half circle."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 17)
    line = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    vertices, quads = _turn(line)
    return vertices, quads, line


def _turn(line: Floats) -> tuple[Floats, NDArray[np.int32]]:
    turn = np.arange(_AROUND) * 2 * np.pi / _AROUND
    radius = np.maximum(line[:, 0], _POLE)
    ring = np.stack([np.sin(turn), np.zeros(_AROUND), np.cos(turn)], 1)
    vertices = (radius[:, None, None] * ring + line[:, None, 1:] * [0.0, 1.0, 0.0]).reshape(-1, 3)
    row = np.arange(_AROUND)
    first = np.stack([row, np.roll(row, -1), np.roll(row, -1) + _AROUND, row + _AROUND], 1)
    quads = (first + _AROUND * np.arange(len(line) - 1)[:, None, None]).reshape(-1, 4)
    return vertices, quads.astype(np.int32)


# -- things -----------------------------------------------------------------------------------------------------------

_Mesh = tuple[Floats, NDArray[np.int32], Floats]


def _can(rng: np.random.Generator) -> _Mesh:
    r, h = rng.uniform(0.024, 0.036), rng.uniform(0.1, 0.16)
    return turned([(0, -h / 2), (0.85 * r, -h / 2), (r, 0.07 * h - h / 2), (r, h / 2), (0, h / 2)])


def _bottle(rng: np.random.Generator) -> _Mesh:
    r, h = rng.uniform(0.026, 0.036), rng.uniform(0.18, 0.24)
    neck = rng.uniform(0.012, 0.015)
    low, top = -0.4 * h, 0.6 * h  # held below its middle
    return turned(
        [
            (0, low),
            (r, low),
            (r, low + 0.6 * h),
            (0.8 * r, low + 0.7 * h),
            (neck, top - 0.12 * h),
            (neck, top),
            (0, top),
        ]
    )


def _cup(rng: np.random.Generator) -> _Mesh:
    r, h, wall = rng.uniform(0.032, 0.042), rng.uniform(0.08, 0.12), 0.003
    foot = r * rng.uniform(0.7, 1.0)
    low, top = -h / 2, h / 2
    outside = [(0.0, low), (foot, low), (r, top), (r - wall, top)]
    return turned([*outside, (foot - wall, low + 0.006), (0.0, low + 0.006)], solid=3)


def _rod(rng: np.random.Generator) -> _Mesh:
    r, h = rng.uniform(0.008, 0.018), rng.uniform(0.14, 0.32)
    return turned([(0, -h / 2), (r, -h / 2), (r * rng.uniform(0.8, 1.1), h / 2), (0, h / 2)])


def _pen(rng: np.random.Generator) -> _Mesh:
    r, h = rng.uniform(0.0035, 0.006), rng.uniform(0.13, 0.16)
    return turned([(0, -h / 2), (0.3 * r, -h / 2), (r, -h / 2 + 0.02), (r, h / 2), (0, h / 2)])


def _ball(rng: np.random.Generator) -> _Mesh:
    return ball(float(rng.uniform(0.02, 0.036)))


def _box(rng: np.random.Generator) -> _Mesh:
    x, y, z = rng.uniform(0.014, 0.03), rng.uniform(0.03, 0.08), rng.uniform(0.014, 0.028)
    return rounded_box((float(x), float(y), float(z)), float(rng.uniform(0.001, 0.004)))


def _phone(rng: np.random.Generator) -> _Mesh:
    x, z = rng.uniform(0.033, 0.038), rng.uniform(0.0036, 0.005)
    return rounded_box((float(x), float(x * rng.uniform(1.95, 2.15)), float(z)), float(z * 0.8))


def _book(rng: np.random.Generator) -> _Mesh:
    x = rng.uniform(0.05, 0.08)
    return rounded_box((float(x), float(x * 1.45), float(rng.uniform(0.004, 0.014))), 0.001)


def _card(rng: np.random.Generator) -> _Mesh:
    return rounded_box((0.027, 0.043, 0.0009), 0.0008)


PROPS: dict[str, Callable[[np.random.Generator], _Mesh]] = {
    "can": _can,
    "bottle": _bottle,
    "cup": _cup,
    "rod": _rod,
    "pen": _pen,
    "ball": _ball,
    "box": _box,
    "phone": _phone,
    "book": _book,
    "card": _card,
}
"""Kinds of objects; the order is part of the file format: only add."""


def make_prop(rng: np.random.Generator, kind: str) -> Prop:
    """Draw an object of a kind, painted, in its own frame."""
    vertices, quads, outline = PROPS[kind](rng)
    paint, roughness, metallic = _paint(rng, kind, vertices, quads)
    return Prop(kind, vertices, quads, paint.astype(np.float32), roughness, metallic, outline, np.eye(3), np.zeros(3))


def _paint(
    rng: np.random.Generator, kind: str, vertices: Floats, quads: NDArray[np.int32]
) -> tuple[Floats, float, float]:
    """Albedo of the faces, roughness and metalness: one colour, or a band, a screen, a cover in another."""
    metallic = 1.0 if kind in ("can", "bottle", "rod", "pen") and rng.uniform() < 0.25 else 0.0
    colour, second = _colour(rng), _colour(rng)
    if metallic:
        colour = rng.uniform(0.5, 0.85) * np.array([1.0, *rng.uniform(0.88, 1.0, 2)])
    roughness = float(rng.uniform(0.3, 0.5) if metallic else rng.uniform(0.2, 0.75))
    paint = np.tile(colour, (len(quads), 1))
    centre = vertices[quads].mean(1)
    height = centre[:, 1] / max(float(np.abs(vertices[:, 1]).max()), 1e-6)
    if kind == "phone":
        front = centre[:, 2] > 0.8 * centre[:, 2].max()
        edge = np.abs(centre[:, 0]) > 0.92 * np.abs(vertices[:, 0]).max()
        paint[front & ~edge] = rng.uniform(0.01, 0.04) if rng.uniform() < 0.6 else rng.uniform(0.2, 0.8, 3)
        roughness = float(rng.uniform(0.08, 0.25))
    elif kind in ("can", "bottle", "cup", "pen", "rod", "box", "book", "ball") and rng.uniform() < 0.6:
        low = rng.uniform(-0.9, 0.3)
        paint[(height > low) & (height < low + rng.uniform(0.2, 1.0))] = second
    if kind == "book":
        spine = np.abs(centre[:, 2]) < 0.6 * np.abs(centre[:, 2]).max()
        paint[spine & (centre[:, 0] > -0.9 * np.abs(vertices[:, 0]).max())] = 0.75  # the pages
    return np.clip(paint, 0.01, 0.9), roughness, metallic


def _colour(rng: np.random.Generator) -> Floats:
    """White, grey and black as often as colours; colours of paint and plastic."""
    if rng.uniform() < 0.45:
        return np.full(3, float(rng.choice([0.02, 0.05, 0.15, 0.4, 0.7, 0.8])) * rng.uniform(0.8, 1.1))
    hue, saturation, value = rng.uniform(), rng.uniform(0.3, 0.95), np.exp(rng.uniform(np.log(0.06), np.log(0.7)))
    wheel = np.clip(np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return np.asarray(value * (1 - saturation * (1 - wheel)))

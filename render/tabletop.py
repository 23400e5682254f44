"""A surface behind the hand: a table, a wall, a cloth, on which the hand lies or over which it hovers. No Blender.

It catches the hand's shadow and throws its light back, which a picture behind the hand cannot do. It lies wholly behind
everything that is labelled, as the camera sees it, so no label knows of it: to the mask it is background.

Of a few planes that face the camera the one is taken to which the hand comes nearest as a whole. Frame: the camera's.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.schema import MASK_BACKGROUND
from handaug.render.environment import Noise, muted
from handaug.render.labels import PROP
from handaug.render.scene import Thing

__all__ = ["SURFACES", "lay_behind"]

SURFACES = ("none", "plain", "wood", "cloth", "tiles", "stone")
"""Kinds; the order is part of the random numbers: only add."""

Floats = NDArray[np.float64]
Pattern = Callable[[Floats], Floats]

_PLANES = 16  # that are tried
_LEAST_FACING = 0.25  # cosine between normal and line of sight
_TOUCHING = 0.7  # share of hands that lie on it
_GAP, _FARTHEST = 0.0005, 0.08  # metres: of a hand that lies on it, of one that hovers
_CELLS, _FINEST = 84, 0.003  # along each side; metres, near the hand
_WITHIN = 3  # places along each side of a cell whose colours are averaged, or fine patterns would break up


def lay_behind(rng: np.random.Generator, kind: str, hand: Floats, solid: Floats) -> Thing:
    """Lay a surface behind the hand.

    Args:
        rng: Draws plane, size and paint.
        kind: One of `SURFACES`, not `none`.
        hand: (J, 3) joints, metres: what comes near the surface.
        solid: (P, 3) metres: everything that must stay before it.

    Returns:
        A sheet of quads that face the camera, of background in the mask.
    """
    centre = hand.mean(0)
    normal = _choose_plane(rng, hand, solid)
    gap = _GAP if rng.uniform() < _TOUCHING else float(rng.uniform(_GAP, _FARTHEST))
    level = float((solid @ normal).min()) - gap
    turn = rng.uniform(0, 2 * np.pi)
    along = np.cross(normal, [np.cos(turn), np.sin(turn), 0.3])
    along /= np.linalg.norm(along)
    axes = np.stack([along, np.cross(normal, along)])
    foot = centre + (level - centre @ normal) * normal
    half = rng.uniform(0.15, 0.6, 2)
    shift = rng.uniform(-0.6, 0.6, 2) * (half - 0.1)  # the hand is over it, seldom in its middle
    lines = [_spread(-half[k] + shift[k], half[k] + shift[k]) for k in range(2)]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), -1)
    # Of the corners, between which colours run on: one colour a cell shows as a mosaic.
    paint = _PATTERNS[kind](rng)(_within(*map(_about, lines))).reshape((_CELLS + 1) ** 2, _WITHIN**2, 3).mean(1)
    row = np.arange(_CELLS)[:, None] * (_CELLS + 1) + np.arange(_CELLS)
    first = row.reshape(-1, 1)
    # u to the right and v away from the viewer of a sheet that faces him: counter-clockwise is +u first.
    quads = first + np.array([0, _CELLS + 1, _CELLS + 2, 1])
    vertices = foot + grid.reshape(-1, 2) @ axes
    return Thing(
        vertices.astype(np.float32),
        quads.astype(np.int32),
        np.clip(paint, 0.005, 0.9).astype(np.float32)[quads],
        float(rng.uniform(0.25, 0.95)),
        0.0,
        PROP,
        MASK_BACKGROUND,
    )


def _choose_plane(rng: np.random.Generator, hand: Floats, solid: Floats) -> Floats:
    """Unit normal, towards the camera, of the plane behind `solid` that `hand` is nearest to on the whole."""
    sight = -hand.mean(0) / np.linalg.norm(hand.mean(0))
    tried = sight + 1.2 * rng.normal(size=(_PLANES, 3))
    tried /= np.linalg.norm(tried, axis=1, keepdims=True)
    facing = tried @ sight
    # What looks away is turned up to the least angle that is allowed.
    side = tried - facing[:, None] * sight
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
    facing = np.maximum(facing, _LEAST_FACING)
    tried = facing[:, None] * sight + np.sqrt(1 - facing**2)[:, None] * side
    above = (hand @ tried.T).mean(0) - (solid @ tried.T).min(0)
    return np.asarray(tried[above.argmin()])


def _spread(low: float, high: float) -> Floats:
    """Lines of a grid from low to high, close together near 0, where the hand is."""
    bend = 0.02
    ends = np.arcsinh(np.array([low, high]) / bend)
    steps = np.sinh(np.linspace(ends[0], ends[1], _CELLS + 1)) * bend
    even = np.linspace(low, high, _CELLS + 1)
    share = float(np.clip(_FINEST / max(np.diff(steps).min(), 1e-9), 0, 1))
    return np.asarray((1 - share) * steps + share * even)


def _about(line: Floats) -> Floats:
    """Borders halfway between the places of a line, and its ends: of the stretches that colour its places."""
    return np.concatenate([line[:1], (line[1:] + line[:-1]) / 2, line[-1:]])


def _within(rows: Floats, columns: Floats) -> Floats:
    """(cells * _WITHIN^2, 2) places spread evenly over each cell, cell after cell."""
    share = (np.arange(_WITHIN) + 0.5) / _WITHIN
    u, v = (line[:-1, None] + np.diff(line)[:, None] * share for line in (rows, columns))
    shape = (len(rows) - 1, len(columns) - 1, _WITHIN, _WITHIN)
    at = [np.broadcast_to(u[:, None, :, None], shape), np.broadcast_to(v[None, :, None, :], shape)]
    return np.asarray(np.stack(at, -1).reshape(-1, 2), np.float64)


def _plain(rng: np.random.Generator) -> Pattern:
    colour, noise, much = muted(rng, 0.04, 0.8, 0.5), _flat_noise(rng, 0.05), float(rng.uniform(0, 0.15))
    return lambda at: np.asarray(colour * (1 + much * noise(at))[:, None])


def _wood(rng: np.random.Generator) -> Pattern:
    colour = np.array([0.42, 0.25, 0.12]) * np.exp(rng.normal(0, 0.35)) * rng.uniform(0.9, 1.1, 3)
    noise, width, plank = _flat_noise(rng, 0.08), float(rng.uniform(0.006, 0.02)), float(rng.uniform(0.06, 0.2))

    def paint(at: Floats) -> Floats:
        rings = np.sin(2 * np.pi * (at[:, 1] / width + 1.2 * noise(at * [0.25, 2.0])))
        board = np.floor(at[:, 1] / plank)
        tone = 1 + 0.18 * rings + 0.25 * (np.modf(np.abs(np.sin(board * 12.99) * 437.6))[0] - 0.5)
        return np.asarray(colour * tone[:, None])

    return paint


def _cloth(rng: np.random.Generator) -> Pattern:
    first, second = muted(rng, 0.03, 0.7, 0.9), muted(rng, 0.03, 0.7, 0.9)
    width, check, noise = float(rng.uniform(0.01, 0.06)), bool(rng.uniform() < 0.5), _flat_noise(rng, 0.03)

    def paint(at: Floats) -> Floats:
        share = (np.floor(at / width) % 2)[:, : 2 if check else 1].mean(1)
        return np.asarray(((1 - share)[:, None] * first + share[:, None] * second) * (1 + 0.08 * noise(at))[:, None])

    return paint


def _tiles(rng: np.random.Generator) -> Pattern:
    tile, joint = muted(rng, 0.1, 0.8, 0.4), np.full(3, rng.uniform(0.05, 0.6))
    width, seam = float(rng.uniform(0.05, 0.2)), float(rng.uniform(0.004, 0.008))

    def paint(at: Floats) -> Floats:
        cell = np.floor(at / width)
        near = (np.abs(at - width * np.round(at / width)) < seam / 2).any(1)
        tone = 0.9 + 0.2 * np.modf(np.abs(np.sin(cell @ [12.99, 78.23]) * 437.6))[0]
        return np.asarray(np.where(near[:, None], joint, tile * tone[:, None]))

    return paint


def _stone(rng: np.random.Generator) -> Pattern:
    colour, vein = muted(rng, 0.08, 0.7, 0.2), muted(rng, 0.05, 0.8, 0.3)
    coarse, fine = _flat_noise(rng, 0.12), _flat_noise(rng, 0.012)

    def paint(at: Floats) -> Floats:
        line = np.exp(-((coarse(at) / 0.08) ** 2))[:, None]
        tone = (1 + 0.2 * fine(at))[:, None]
        return np.asarray((colour * (1 - 0.6 * line) + vein * 0.6 * line) * tone, np.float64)

    return paint


_PATTERNS: dict[str, Callable[[np.random.Generator], Pattern]] = {
    "plain": _plain,
    "wood": _wood,
    "cloth": _cloth,
    "tiles": _tiles,
    "stone": _stone,
}


def _flat_noise(rng: np.random.Generator, scale: float) -> Callable[[Floats], Floats]:
    noise = Noise(rng, scale)
    return lambda at: noise(np.concatenate([at, np.zeros((len(at), 1))], 1))

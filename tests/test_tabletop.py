"""Surfaces behind the hand: where they lie, by closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handaug.data_specs.schema import MASK_BACKGROUND
from handaug.render.tabletop import SURFACES, lay_behind


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(SURFACES[1:]))
def test_everything_stands_between_surface_and_camera(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    away = rng.uniform([-0.2, -0.2, 0.3], [0.2, 0.2, 1.5])
    hand = away + 0.05 * rng.normal(size=(21, 3))
    solid = np.concatenate([hand, away + 0.06 * rng.normal(size=(500, 3))])
    sheet = lay_behind(rng, kind, hand, solid)
    corner = sheet.vertices.astype(np.float64)[sheet.quads]
    normals = np.cross(corner[:, 2] - corner[:, 0], corner[:, 3] - corner[:, 1])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normal = normals.mean(0)
    assert normals @ normal == pytest.approx(1, abs=1e-3), "flat, every face wound alike"
    level = float((corner @ normal).mean())
    assert np.abs(corner @ normal - level).max() < 1e-5
    heights = solid @ normal - level
    assert 0.0004 < heights.min() < 0.081
    assert -level > 0, "the camera stands before it and sees its front"
    sight = -hand.mean(0) / np.linalg.norm(hand.mean(0))
    assert normal @ sight > 0.24
    assert sheet.mask == MASK_BACKGROUND
    assert sheet.paint.min() > 0 and sheet.paint.max() < 1 and sheet.paint.shape == (len(sheet.quads), 4, 3)
    corners = np.full((len(sheet.vertices), 3), np.nan)
    corners[sheet.quads] = sheet.paint
    np.testing.assert_array_equal(corners[sheet.quads], sheet.paint, "faces that share a corner agree in its colour")
    foot = hand.mean(0) - (hand.mean(0) @ normal - level) * normal
    assert np.linalg.norm(sheet.vertices - foot, axis=1).min() < 0.02, "it reaches below the hand"


def test_a_flat_hand_gets_a_surface_along_it() -> None:
    """Of many planes the one is taken that the hand is nearest to: for a disc that faces the camera, nearly its own."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 400)
    disc = np.stack([0.08 * np.cos(angle), 0.08 * np.sin(angle), np.full(400, 0.5)], 1)
    tilts = []
    for seed in range(40):
        sheet = lay_behind(np.random.default_rng(seed), "plain", disc, disc)
        a, b, c = sheet.vertices[sheet.quads[0, [0, 1, 3]]].astype(np.float64)
        normal = np.cross(b - a, c - a)
        tilts.append(np.degrees(np.arccos(abs(normal[2]) / np.linalg.norm(normal))))
    assert np.median(tilts) < 25, "a single normal drawn at random lies at 57 degrees"


def test_each_kind_is_a_function_of_its_generator() -> None:
    hand = np.array([0, 0, 0.5]) + 0.05 * np.random.default_rng(1).normal(size=(21, 3))
    paints = []
    for kind in SURFACES[1:]:
        one, same = (lay_behind(np.random.default_rng(5), kind, hand, hand) for _ in range(2))
        np.testing.assert_array_equal(one.paint, same.paint)
        np.testing.assert_array_equal(one.vertices, same.vertices)
        paints.append(one.paint.tobytes())
    assert len(set(paints)) == len(SURFACES) - 1

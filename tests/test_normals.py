"""The datasets `normals` and `uv` against rays of a second implementation, and normals against slopes of `depth`."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rays import pixel_rays, scene_triangles, see

if find_spec("anny") is None:
    pytest.skip("the hand model needs anny", allow_module_level=True)

from handaug.render.config import RenderConfig
from handaug.render.hand import HandModel
from handaug.render.posing import LabelledHand, sample_hand

SIZE = 64
CASES: dict[str, dict[str, Any]] = {
    "right": {"hands": "right"},
    "left": {"hands": "left"},
    "dressed": {
        "hands": "left",
        "clothing": "sleeve",
        "jewellery": "both",
        "occluders": True,
        "occluder_kinds": "held",
    },
    "two": {"hands": "two"},
}
FIRST, SECOND = np.array([0, 1, 2]), np.array([0, 2, 3])  # corners of a quad's triangles

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def model() -> HandModel:
    return HandModel.load()


def draw(model: HandModel, case: str) -> list[LabelledHand]:
    config = RenderConfig(size=SIZE, seed=5, depth=True, normals=True, uv=True, **CASES[case])
    return [sample_hand(config, model, pose) for pose in range(2)]


def vertex_normal(vertices: Floats, quads: NDArray[np.int32], number: int) -> Floats:
    """One vertex's: of the faces about it, each by its angle there."""
    total = np.zeros(3)
    for face, corner in np.argwhere(quads == number):
        here, following, opposite, before = (vertices[quads[face, (corner + k) % 4]] for k in range(4))
        one, two = following - here, before - here
        flat = np.cross(opposite - here, before - following)
        total += np.arccos(one @ two / np.linalg.norm(one) / np.linalg.norm(two)) * flat / np.linalg.norm(flat)
    return np.asarray(total / np.linalg.norm(total))


@pytest.mark.parametrize("case", CASES)
def test_normals_and_uv_against_brute_force_rays(model: HandModel, case: str) -> None:
    """On the skin the corners' values, by the weights of the point that is hit; elsewhere the way that the triangle
    faces, and no texture. The corners of a left hand are a right one's in a mirror, which turns normals inside out."""
    rng, count = np.random.default_rng(3), len(model.quads)
    skin, cloth = 0, []
    for hand in draw(model, case):
        scene, labels = hand.scene, hand.labels
        triangles, _, _ = scene_triangles(model, scene)
        at = [np.argwhere(labels["mask"] == value) for value in np.unique(labels["mask"]) if value]
        rows, columns = np.concatenate([some[rng.integers(0, len(some), 25)] for some in at]).T
        rays = pixel_rays(labels["camera"], SIZE)[rows, columns]
        distance, hit = see(rays, triangles)
        normals, uv = (labels[name][rows, columns].astype(float) for name in ("normals", "uv"))
        vertices = scene.vertices.astype(float)
        for k in np.flatnonzero(hit >= 0):  # a ray that grazes a rim may miss
            a, b, c = triangles[hit[k]]
            if hit[k] >= 2 * count:
                flat = np.cross(b - a, c - a)
                cloth.append(float(normals[k] @ flat / np.linalg.norm(flat) * -np.sign(flat @ rays[k])))
                assert not uv[k].any()
                continue
            quad, corners = hit[k] % count, FIRST if hit[k] < count else SECOND
            weights = np.linalg.solve(np.stack([a, b, c], 1), distance[k] * rays[k])
            smooth = weights @ [vertex_normal(vertices, model.quads, i) for i in model.quads[quad, corners]]
            smooth *= (-1 if scene.left else 1) / np.linalg.norm(smooth)
            np.testing.assert_allclose(normals[k], smooth, atol=2e-3)
            np.testing.assert_allclose(uv[k], weights @ model.face_uv[quad, corners], atol=3e-4)
            skin += 1
        nothing = labels["depth"] == 0
        assert nothing.any() and not labels["normals"][nothing].any() and not labels["uv"][nothing].any()
    assert skin >= 20 and (len(cloth) >= 10) == (case in ("dressed", "two"))
    assert not cloth or (np.median(cloth) > 0.97 and np.mean(np.array(cloth) > 0.7) > 0.9)


@pytest.mark.parametrize("case", CASES)
def test_normals_against_slopes_of_depth(model: HandModel, case: str) -> None:
    """No mesh: the points that neighbouring pixels see, two of them to the sides and two above and below."""
    for hand in draw(model, case):
        depth = hand.labels["depth"].astype(float)
        points = pixel_rays(hand.labels["camera"], SIZE) * depth[..., None]
        across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        slope = np.cross(down, across)  # x right, y down, z away: out of the surface is towards the camera
        slope /= np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-12)
        normals = hand.labels["normals"].astype(float)[1:-1, 1:-1]
        seen = (depth[1:-1, 1:-1] > 0) & (np.abs(across[..., 2]) < 0.006) & (np.abs(down[..., 2]) < 0.006)
        assert seen.sum() > 150
        np.testing.assert_allclose(np.linalg.norm(normals[seen], axis=1), 1, atol=2e-3)
        assert np.median((slope * normals)[seen].sum(1)) > 0.97
        for axis in range(3):
            assert np.corrcoef(slope[seen][:, axis], normals[seen][:, axis])[0, 1] > 0.8

"""Labels by rays: closed forms, Moeller-Trumbore as second implementation, the contract's visibility rule."""

import time
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from handaug.data_specs.camera import centred_intrinsics, project
from handaug.data_specs.schema import HIDDEN, NOT_LABELLED, VISIBLE
from handaug.render.labels import first_hits, rasterise, sight, triangles_of


def _sphere(n: int, centre: tuple[float, float, float], radius: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """A cube of n x n quads a side, blown up to a sphere."""
    u = np.tan(np.linspace(-1, 1, n + 1) * np.pi / 4)
    a, b = np.meshgrid(u, u, indexing="ij")
    one = np.ones_like(a)
    sides = [(a, b, one), (b, a, -one), (one, a, b), (-one, b, a), (b, one, a), (a, -one, b)]
    points = np.concatenate([np.stack(side, -1).reshape(-1, 3) for side in sides])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    cell = np.array(
        [
            [i * (n + 1) + j, (i + 1) * (n + 1) + j, (i + 1) * (n + 1) + j + 1, i * (n + 1) + j + 1]
            for i in range(n)
            for j in range(n)
        ]
    )
    quads = np.concatenate([cell + k * (n + 1) ** 2 for k in range(6)])
    return points * radius + centre, quads


def _pixel_rays(camera: NDArray[Any], height: int, width: int) -> NDArray[np.float64]:
    """(H, W, 3) directions with z = 1 through pixel centres."""
    v, u = np.mgrid[:height, :width]
    return np.asarray(np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(camera.astype(np.float64)).T)


def _moeller_trumbore(
    origin: NDArray[Any], rays: NDArray[Any], vertices: NDArray[Any], quads: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Nearest t > 0 and quad of each ray (Moeller and Trumbore 1997), one ray at a time."""
    a, b, c = (vertices.astype(np.float64)[triangles_of(quads)[:, k]] for k in range(3))
    e1, e2 = b - a, c - a
    distance, face = np.full(len(rays), np.inf), np.full(len(rays), -1, np.intp)
    for i, ray in enumerate(rays):
        p = np.cross(ray, e2)
        det = (e1 * p).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            s = origin - a
            u = (s * p).sum(1) / det
            q = np.cross(s, e1)
            v = (q @ ray) / det
            t = (e2 * q).sum(1) / det
        t[~((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 1e-9))] = np.inf
        distance[i], face[i] = t.min(), (t.argmin() // 2 if np.isfinite(t.min()) else -1)
    return distance, face


@pytest.mark.parametrize("size", [(48, 64), (96, 96)])
def test_sphere_mask_and_depth_closed_form(size: tuple[int, int]) -> None:
    """Off-centre sphere: a pixel sees it when its ray passes nearer than the radius; depth from the quadratic."""
    height, width = size
    camera = centred_intrinsics(80.0, width, height)
    centre, radius = np.array([0.03, -0.02, 0.5]), 0.12
    vertices, quads = _sphere(64, tuple(centre), radius)
    raster = rasterise(vertices, quads, camera, height, width)
    d = _pixel_rays(camera, height, width)
    dd, dc = (d * d).sum(-1), d @ centre
    under = dc**2 - dd * (centre @ centre - radius**2)
    hit = under > 0
    exact = np.where(hit, (dc - np.sqrt(np.maximum(under, 0))) / dd, 0)
    clear = np.abs(np.sqrt(np.maximum(centre @ centre - dc**2 / dd, 0)) - radius) > 2e-4  # off the polygonal rim
    assert clear.mean() > 0.99 and hit.mean() > 0.05
    assert np.array_equal((raster.face >= 0)[clear], hit[clear])
    assert np.array_equal(raster.depth > 0, raster.face >= 0)
    inner = hit & (under > 0.1 * under.max())
    assert np.abs(raster.depth - exact)[inner].max() < 1e-4
    labels = raster.labels(np.full(len(quads), 7), 3)
    assert labels.dtype == np.uint8 and set(np.unique(labels)) == {3, 7}


def test_nearest_surface_wins_and_shared_edges_leave_no_holes() -> None:
    """A tilted quad grid fills the image; a small square before it covers exactly its pixel centres."""
    n = 9
    x, y = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n))
    vertices = np.stack([x, y, 1.0 + 0.2 * x], -1).reshape(-1, 3)
    first = np.array([i * n + j for i in range(n - 1) for j in range(n - 1)])
    quads = np.stack([first, first + 1, first + n + 1, first + n], 1)
    square = np.array([[-0.1, -0.1, 0.5], [0.1, -0.1, 0.5], [0.1, 0.1, 0.5], [-0.1, 0.1, 0.5]])
    vertices, quads = np.concatenate([vertices, square]), np.concatenate([quads, [[81, 82, 83, 84]]])
    camera = centred_intrinsics(40.0, 33, 33)  # the square spans pixels 8 .. 24, its border on pixel centres
    raster = rasterise(vertices, quads, camera, 33, 33)
    assert (raster.face >= 0).all()
    front = raster.face == 64
    assert front[9:24, 9:24].all() and not front[:8].any() and not front[25:].any()
    assert np.allclose(raster.depth[front], 0.5)
    rays = _pixel_rays(camera, 33, 33)
    plane = 1 / (1 - 0.2 * rays[..., 0])
    assert np.allclose(raster.depth[~front], plane[~front], atol=1e-6)


def test_what_lies_behind_the_camera_is_not_seen() -> None:
    vertices, quads = _sphere(8, (0, 0, -0.5), 0.1)
    camera = centred_intrinsics(40.0, 16, 16)
    assert not (rasterise(vertices, quads, camera, 16, 16).face >= 0).any()
    face, distance = first_hits(np.array([[0, 0, 1.0]]), vertices, quads)
    assert face[0] == -1 and np.isinf(distance[0])


def _wall(z: float, half: float) -> NDArray[np.float64]:
    return np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])


def test_visibility_rule() -> None:
    """Own segment first: visible, however far in front; another first: hidden; edge of the image: [-0.5, W - 0.5)."""
    camera = centred_intrinsics(64.0, 64, 64)
    vertices = np.concatenate([_wall(0.5, 0.05), _wall(1.0, 0.6)])
    quads, segment = np.arange(8).reshape(2, 4), np.array([3, 5])

    def see(point: list[float], allowed: tuple[int, ...]) -> int:
        return int(sight(np.array([point]), vertices, quads, segment, [allowed], camera, 64, 64)[0][0])

    assert see([0, 0, 0.9], (3,)) == VISIBLE
    assert see([0, 0, 0.9], (5,)) == HIDDEN
    assert see([0, 0, 0.9], (5, 3)) == VISIBLE
    assert see([0.3, 0, 0.9], (5,)) == VISIBLE
    assert see([0, 0, 0.3], (5,)) == HIDDEN  # in front of both, but the first surface is another part's
    for pixel, expected in ((-0.5, VISIBLE), (-0.51, NOT_LABELLED), (63.49, VISIBLE), (63.5, NOT_LABELLED)):
        assert see([(pixel - 31.5) / 64, 0, 1.0], (5,)) == expected
    assert see([0, 0, -1.0], (5,)) == NOT_LABELLED


@pytest.mark.skipif(find_spec("anny") is None, reason="the hand model needs anny")
class TestHand:
    """The real hand (needs the hand model)."""

    @staticmethod
    def _views(n: int) -> Any:
        from handaug.render.clear_pose import sample_clear_pose
        from handaug.render.hand import HandModel
        from handaug.render.viewpoint import place_hand, to_camera

        model = HandModel.load()
        rng = np.random.default_rng(7)
        for _ in range(n):
            posed = model.pose(model.sample_shape(rng), sample_clear_pose(rng, model, model.mean_shape).pose)
            rotation, translation, camera = place_hand(rng, posed, 64)
            yield (
                model,
                to_camera(posed.vertices, rotation, translation),
                to_camera(posed.joints, rotation, translation),
                camera,
            )

    def test_depth_and_faces_against_moeller_trumbore(self) -> None:
        """150 pixels of 4 views: the same quad and depth; rays that graze a rim within rounding may differ."""
        rng = np.random.default_rng(8)
        total = different = 0
        for model, vertices, _, camera in self._views(4):
            raster = rasterise(vertices, model.quads, camera, 64, 64)
            v, u = rng.integers(0, 64, (2, 60))
            on = np.argwhere(raster.face >= 0)
            v[:40], u[:40] = on[rng.integers(0, len(on), 40)].T
            rays = _pixel_rays(camera, 64, 64)[v, u]
            depth, face = _moeller_trumbore(np.zeros(3), rays, vertices, model.quads)
            same = raster.face[v, u] == face
            total, different = total + len(same), different + int((~same).sum())
            hit = same & (face >= 0)
            assert hit.sum() >= 35
            assert np.abs(raster.depth[v, u] - depth)[hit].max() < 1e-6
        assert different <= 1 and total == 240

    def test_first_hits_and_visibility_against_moeller_trumbore(self) -> None:
        from handaug.render.hand import JOINT_SEGMENTS

        seen: list[NDArray[np.uint8]] = []
        for model, vertices, joints, camera in self._views(6):
            face, distance = first_hits(joints, vertices, model.quads)
            expected, expected_face = _moeller_trumbore(np.zeros(3), joints.astype(np.float64), vertices, model.quads)
            assert np.array_equal(face, expected_face) and np.allclose(distance, expected)
            assert (distance < 1).mean() > 0.95  # joints are inside the skin
            got = sight(joints, vertices, model.quads, model.face_segment, JOINT_SEGMENTS, camera, 64, 64)[0]
            own = [model.face_segment[f] in allowed for f, allowed in zip(expected_face, JOINT_SEGMENTS, strict=True)]
            assert np.array_equal(got, np.where(own, VISIBLE, HIDDEN))
            seen.append(got)
        share = (np.array(seen) == VISIBLE).mean()
        assert 0.5 < share < 0.95

    def test_speed(self) -> None:
        """Hand, mask and visibility of a 64 px image: generous bounds, for a loaded machine."""
        from handaug.render.hand import JOINT_SEGMENTS

        model, vertices, joints, camera = next(iter(self._views(1)))
        best = np.inf
        for _ in range(5):
            start = time.perf_counter()
            rasterise(vertices, model.quads, camera, 64, 64)
            sight(joints, vertices, model.quads, model.face_segment, JOINT_SEGMENTS, camera, 64, 64)
            best = min(best, time.perf_counter() - start)
        assert best < 0.1

    def test_projected_joints_fall_on_the_hand(self) -> None:
        """Every joint's pixel is covered by some part of the hand (joints are inside it)."""
        covered = []
        for model, vertices, joints, camera in self._views(6):
            raster = rasterise(vertices, model.quads, camera, 64, 64)
            u, v = np.rint(project(camera, joints)).astype(int).T
            covered.append(raster.face[v, u] >= 0)
        assert np.mean(covered) > 0.95

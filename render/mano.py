"""MANO as the hand model, for those who hold its licence: MANO_RIGHT.pkl or MANO_LEFT.pkl in, a `HandModel` out.

Romero, Tzionas and Black, "Embodied Hands" (SIGGRAPH Asia 2017). `mano_file` reads the pickles.

What handaug adds or decides, since the file does not say:

* **Forearm**: MANO ends at the wrist. The opening is continued by a plain forearm of ours, 4.2 palm lengths long, and
  closed at its end; it is labelled forearm. MANO's own vertices stay what they are.
* **Tips**: the vertices 744, 320, 443, 555, 672 of FreiHAND. smplx takes 554 and 671, manopth 745, 317, 444, 556, 673:
  a few millimetres off, so do not mix them.
* **Left hands** are mirror images of right ones, as everywhere in handaug; MANO_LEFT.pkl serves where all hands are
  left. Its shapedirs have the wrong sign along x (smplx issue 48), which is mended where it is found.
* **Angles**: the 24 of `pose_prior`, on axes built from the template's joints: y along each bone, fingers bend towards
  the palm, the thumb towards (-1, 1, 1) in thumb side, along, palm. Zero flexion is where the template has none; the
  thumb's base rests where anny's does. MANO has no bones in the palm, so `palm_cup` does nothing.
* **Texture coordinates** are a plain projection: palm left, back right. MANO's own are not in its file.

A shape vector holds MANO's 10 betas.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.render.anny_extract import Arrays
from handaug.render.config import RenderConfig
from handaug.render.hand import HandModel, RestHand
from handaug.render.mano_file import MANO_PARENTS, load_mano

__all__ = ["MANO_TIPS", "ManoModel", "hand_model_of"]

Floats = NDArray[np.float64]

MANO_TIPS = (744, 320, 443, 555, 672)
"""FreiHAND's fingertip vertices, thumb to little finger."""

_BONES = tuple(f"finger{finger}-{part}" for finger in (2, 3, 5, 4, 1) for part in (1, 2, 3))
"""MANO's joints 1 to 15 under the names of our bones."""

_THUMB_REST = np.array([[-0.155, 0.589, -0.793], [-0.726, 0.476, 0.496], [0.670, 0.652, 0.354]])
"""Axes of the resting thumb's first bone as columns, in thumb side, along, palm: those of anny."""
_RINGS = ((0.1, 1.0), (0.35, 1.03), (1.0, 1.15), (1.8, 1.3), (2.6, 1.35), (3.4, 1.35), (4.2, 1.35))
"""The forearm's rings: distance from the wrist in palm lengths, and size against the opening."""
_ELBOW = 2.6


class ManoModel(HandModel):
    """Poses MANO hands by the same angles as anny's. Use `ManoModel.from_folder(folder)`.

    Args:
        arrays: What `load_mano` gives.
        side: Which hand they are; a left one is mirrored, so that it poses like a right one.
        levels: Catmull-Clark subdivisions on top of MANO's surface; 0 keeps it exactly.
    """

    shape_names = tuple(f"beta_{number}" for number in range(10))
    _tip_depth = 0.0

    def __init__(self, arrays: Arrays, side: str = "right", levels: int = 0) -> None:
        mano = _mirrored(arrays) if side == "left" else arrays
        self._posedirs = mano["posedirs"]
        super().__init__(_as_arm(mano), levels)
        self._mano_bones = np.array([self._names[name] for name in _BONES])
        self._mano_parents = np.array([self._mano_bones[p - 1] if p else self._wrist for p in MANO_PARENTS])

    @staticmethod
    def from_folder(folder: Path, side: str = "right") -> "ManoModel":
        """The model of a folder with MANO's files, the same object for the same folder."""
        return _load(Path(folder), side)

    @property
    def mean_shape(self) -> Floats:
        """All betas zero."""
        return np.zeros(self.n_shape)

    def sample_shape(self, rng: np.random.Generator) -> Floats:
        """Betas are in standard deviations of MANO's own subjects: normal, within 2."""
        return np.clip(rng.normal(size=self.n_shape), -2, 2)

    def _coefficient_map(self) -> Callable[[Floats], Floats]:
        return lambda betas: betas

    def _broaden(self, shape: Floats, vertices: Floats, heads: Floats, rotations: Floats) -> tuple[Floats, Floats]:
        return vertices, heads  # MANO's betas know broad hands

    def _knuckle_map(self) -> Callable[[Floats, Floats], Floats]:
        return lambda skin, joints: skin  # MANO's poses know knuckles

    def _choose_tips(self) -> list[NDArray[np.intp]]:
        return [np.array([tip]) for tip in MANO_TIPS]

    def _cage_quads(self) -> tuple[Any, NDArray[Any], NDArray[Any]]:
        return _split_triangles(self._a["triangles"], len(self._a["vertices"]), self._a["triangle_uv"])

    def _joints(self, rest: RestHand, rotation: Floats, translation: Floats) -> Floats:
        """As of any hand, but a tip is the skin's own vertex, wherever the pose moves it."""
        joints = super()._joints(rest, rotation, translation)
        joints[4::4] = self._skin_rows(rest, rotation, translation, np.array(MANO_TIPS))
        return joints

    def _skin(self, rest: RestHand, rotation: Floats, translation: Floats) -> Floats:
        return self._skin_rows(rest, rotation, translation, np.arange(len(rest.vertices)))

    def _skin_rows(self, rest: RestHand, rotation: Floats, translation: Floats, rows: NDArray[np.intp]) -> Floats:
        """Linear blend skinning of some vertices with the pose's correction (Embodied Hands, Eq. 2 to 4)."""
        local = rotation[self._mano_parents].transpose(0, 2, 1) @ rotation[self._mano_bones]
        vertices = rest.vertices[rows]
        moved = rows < len(self._posedirs)
        vertices[moved] += self._posedirs[rows[moved]] @ (local - np.eye(3)).reshape(-1)
        weights = self._a["weights"][rows]
        blend = (weights @ rotation.reshape(-1, 9)).reshape(-1, 3, 3)
        return np.asarray(np.einsum("vij,vj->vi", blend, vertices) + weights @ translation)


def hand_model_of(config: RenderConfig) -> HandModel:
    """The hand model that a config asks for.

    Raises:
        InputError: anny is not installed, or MANO's files are missing, damaged or something else.
    """
    if config.mano_dir is None:
        return HandModel.load()
    return ManoModel.from_folder(Path(config.mano_dir), "left" if config.hands == "left" else "right")


@cache
def _load(folder: Path, side: str) -> ManoModel:
    return ManoModel(load_mano(folder, side), side)


def _mirrored(mano: Arrays) -> Arrays:
    """x -> -x: a left hand as a right one. A rotation R becomes F R F, so its entries with one x change sign."""
    flip = np.array([-1.0, 1, 1])
    out = dict(mano)
    out["v_template"] = mano["v_template"] * flip
    out["shapedirs"] = mano["shapedirs"] * flip[:, None]
    out["posedirs"] = mano["posedirs"] * flip[:, None] * np.tile(np.outer(flip, flip).reshape(-1), 15)
    out["f"] = mano["f"][:, ::-1]
    return out


def _as_arm(mano: Arrays) -> Arrays:
    """What `HandModel` needs: MANO's vertices first, then those of the forearm."""
    template, regressor = mano["v_template"], mano["J_regressor"]
    shapes = mano["shapedirs"].transpose(2, 0, 1)
    joints = np.asarray(regressor @ template, np.float64)
    to_hand = _hand_frame(joints)
    palm_length = float(np.linalg.norm(joints[4] - joints[0]))
    loop = _opening(mano["f"])
    away = _away(template[loop], to_hand[1]) * palm_length
    arm, triangles = _forearm(template[loop], away), _closed(mano["f"], loop, len(template))
    arm_shapes = np.stack([_forearm(shape[loop], np.zeros(3)) for shape in shapes])
    vertices = np.concatenate([template, arm])
    orientations, reference = _axes(joints, template[list(MANO_TIPS)], to_hand, away)
    elbow = joints[0] + _ELBOW * away
    n_bones = 4 + len(_BONES)
    weights = np.zeros((len(vertices), n_bones))
    weights[: len(template), 3:] = mano["weights"]
    weights[len(template) :, 1] = 1
    weights[len(template) : len(template) + len(loop), [1, 3]] = 0.5  # the first ring lies where the wrist bends
    regressed = np.concatenate([regressor[[0, 0, 0, 0]], regressor[1:]])
    heads = np.concatenate([[elbow, (elbow + joints[0]) / 2], joints[[0, 0]], joints[1:]])
    return {
        "vertices": vertices,
        "vertex_shapes": np.concatenate([shapes, arm_shapes], 1),
        "heads": heads,
        "head_shapes": np.einsum("bv,kvc->kbc", regressed, shapes),
        "orientations": orientations,
        "orientation_shapes": np.zeros((len(shapes), n_bones, 3, 3)),
        "reference": reference,
        "weights": weights,
        "parents": np.array([-1, 0, 1, 2, *(3 + parent if parent else 2 for parent in MANO_PARENTS)]),
        "bones": np.array(["lowerarm01", "lowerarm02", "wrist", "metacarpal1", *_BONES]),
        "triangles": triangles,
        "triangle_uv": _projected_uv(vertices @ to_hand.T, triangles),
    }


def _hand_frame(joints: Floats) -> Floats:
    """Rows thumb side, along the hand, out of the palm, for the joints of a right hand at rest."""
    along = joints[4] - joints[0]
    along /= np.linalg.norm(along)
    thumb = _across(joints[1] - joints[7], along)
    return np.stack([thumb, along, np.cross(thumb, along)])


def _across(direction: Floats, along: Floats) -> Floats:
    """The unit vector nearest to `direction` at right angles to the unit vector `along`."""
    rest = direction - (direction @ along) * along
    return np.asarray(rest / np.linalg.norm(rest))


def _axes(joints: Floats, tips: Floats, to_hand: Floats, away: Floats) -> tuple[Floats, Floats]:
    """(B, 3, 3) axes of the bones in the template, and in the zero pose, where the thumb hangs as anny's does."""
    thumb, along, palm = to_hand
    axes = [_bone_axes(-away, thumb)] * 2 + [_bone_axes(along, thumb)] * 2
    for k, name in enumerate(_BONES, start=1):
        end = joints[k + 1] if k % 3 else tips[int(name[6]) - 1]
        inner = np.array([-1.0, 1, 1]) @ to_hand if name.startswith("finger1") else palm
        axes.append(_bone_axes(end - joints[k], inner))
    rest = np.stack(axes)
    zero = rest.copy()
    first = 4 + _BONES.index("finger1-1")
    u, _, vt = np.linalg.svd(_THUMB_REST)
    turn = to_hand.T @ u @ vt @ rest[first].T
    zero[first : first + 3] = turn @ rest[first : first + 3]
    return rest, zero


def _bone_axes(along: Floats, inner: Floats) -> Floats:
    """Columns x, y, z: y along the bone, z as near as can be to `inner`."""
    y = along / np.linalg.norm(along)
    z = _across(inner, y)
    return np.stack([np.cross(y, z), y, z], 1)


def _opening(faces: NDArray[np.intp]) -> NDArray[np.intp]:
    """The vertices round the wrist's opening, walked against the direction of the faces there."""
    sides = {(int(a), int(b)) for face in faces for a, b in zip(face, np.roll(face, -1), strict=True)}
    after = {b: a for a, b in sides if (b, a) not in sides}
    loop = [min(after)] if after else []
    while loop and after.get(loop[-1]) not in (None, loop[0]) and len(loop) <= len(after):
        loop.append(after[loop[-1]])
    if not loop or len(loop) != len(after):
        raise InputError("--mano-dir: the mesh has not exactly one opening, at the wrist; give MANO's hand-only model")
    return np.array(loop)


def _away(loop: Floats, along: Floats) -> Floats:
    """Unit normal of the opening's plane that points away from the hand."""
    normal = np.linalg.svd(loop - loop.mean(0))[2][2]
    return np.asarray(-normal * np.sign(normal @ along))


def _forearm(loop: Floats, away: Floats) -> Floats:
    """The rings and the middle of the cap; linear in the opening's vertices, so that it follows every shape."""
    centre = loop.mean(0)
    rings = [centre + size * (loop - centre) + distance * away for distance, size in _RINGS]
    return np.concatenate([*rings, [centre + _RINGS[-1][0] * away]])


def _closed(faces: NDArray[np.intp], loop: NDArray[np.intp], first: int) -> NDArray[np.intp]:
    """All triangles: MANO's, between the forearm's rings, and of the cap."""
    k = len(loop)
    rings = [loop, *(first + k * ring + np.arange(k) for ring in range(len(_RINGS)))]
    out = [faces]
    for near, far in zip(rings[:-1], rings[1:], strict=True):
        after, far_after = np.roll(near, -1), np.roll(far, -1)
        out += [np.stack([near, after, far_after], 1), np.stack([near, far_after, far], 1)]
    out.append(np.stack([rings[-1], np.roll(rings[-1], -1), np.full(k, first + k * len(_RINGS))], 1))
    return np.concatenate(out)


def _projected_uv(points: Floats, triangles: NDArray[np.intp]) -> Floats:
    """(T, 3, 2): seen from the palm in the left half, from the back in the right."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    uv = ((points[:, :2] - low) / (high - low))[triangles] * [0.5, 1]
    a, b, c = points[triangles].transpose(1, 0, 2)
    uv[np.cross(b - a, c - a)[:, 2] < 0, :, 0] += 0.5
    return np.asarray(uv)


def _split_triangles(
    triangles: NDArray[np.intp], n_vertices: int, face_uv: Floats
) -> tuple[Any, NDArray[np.intp], Floats]:
    """Cut each triangle into three quads without moving the surface: the matrix, the quads, their texture coordinates.

    New vertices are the middles of edges and of faces, after the old ones.
    """
    sides = np.stack([triangles, np.roll(triangles, -1, 1)], -1).reshape(-1, 2)
    edges, edge_of = np.unique(np.sort(sides, 1), axis=0, return_inverse=True)
    n, e, t = n_vertices, len(edges), len(triangles)
    row = np.concatenate([np.arange(n), n + np.repeat(np.arange(e), 2), n + e + np.repeat(np.arange(t), 3)])
    column = np.concatenate([np.arange(n), edges.ravel(), triangles.ravel()])
    share = np.concatenate([np.ones(n), np.full(2 * e, 1 / 2), np.full(3 * t, 1 / 3)])
    matrix = sp.coo_matrix((share, (row, column)), (n + e + t, n)).tocsr()
    edge = n + edge_of.reshape(t, 3)
    centre = np.repeat(n + e + np.arange(t)[:, None], 3, 1)
    quads = np.stack([triangles, edge, centre, np.roll(edge, 1, 1)], -1).reshape(-1, 4)
    middle = (face_uv + np.roll(face_uv, -1, 1)) / 2
    whole = np.repeat(face_uv.mean(1, keepdims=True), 3, 1)
    uv = np.stack([face_uv, middle, whole, np.roll(middle, 1, 1)], 2).reshape(-1, 4, 2)
    return matrix, quads, uv

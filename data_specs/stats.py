"""How a dataset is distributed: poses, viewpoints, shapes, visibility, brightness, and what was drawn.

Every figure is a histogram with fixed cells, filled block by block, so that memory does not grow with the rows. What a
file does not hold is left out. Bends, viewpoints and lengths are taken from the 21 joints and not from parameters of a
hand model, so that files of any source compare.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.data_specs.joints import FINGERS, JOINTS
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import LEFT, NOT_LABELLED
from handaug.data_specs.summary import spread_rows

__all__ = ["CAUSES", "Histogram", "bends", "collect_stats", "overlap", "viewpoints"]

Floats = NDArray[np.float64]

CAUSES = ("not hidden", "by itself", "by an object", "by the other hand")
"""Values of the field `occlusion`."""

_BLOCK = 4096
_BLOCK_PIXELS = 1 << 21
_IMAGES = 2000
_BENT = [(0 if k == 0 else chain[k - 1], chain[k], chain[k + 1]) for chain in FINGERS.values() for k in (0, 1, 2)]
_BENT_NAMES = [JOINTS[middle] for _, middle, _ in _BENT]
_MIDDLE = (0, 9, 10, 11, 12)
_INDEX, _MIDDLE_MCP, _LITTLE = 5, 9, 17
_DRAWN = ("shape", "pose_factors", "appearance_factors")
"""Fields of what was drawn; root attributes of these names tell what their entries are."""
_NUMBERS = ("age", "draws", "tone", "exposure_value")
"""What is shown of a rendered file's shapes and factors beside the kinds."""
_CAMERA_AT = 0.05  # metres: joints nearer to the origin than this are relative to the hand itself


@dataclass(eq=False)
class Histogram:
    """Counts of one or several quantities over the same cells."""

    panel: str
    """What is shown, with its unit."""
    names: list[str]
    """Of the quantities."""
    edges: Floats | None
    """(B + 1,) borders of the cells; None for categories."""
    counts: Floats
    """(quantities, B)."""
    categories: list[str] | None = None
    """(B,) what each cell is, where they are not numbers."""

    def add(self, values: NDArray[Any], which: int = 0) -> None:
        """Count values; those beyond the last cells count to them."""
        flat = np.asarray(values, np.float64).ravel()
        flat = flat[np.isfinite(flat)]
        if self.edges is None:
            cells = flat.astype(np.int64)
            cells = cells[(cells >= 0) & (cells < self.counts.shape[1])]
        else:
            cells = np.clip(np.searchsorted(self.edges, flat, "right") - 1, 0, self.counts.shape[1] - 1)
        self.counts[which] += np.bincount(cells, minlength=self.counts.shape[1])

    def share(self) -> Floats:
        """(quantities, B) shares that sum to 1, 0 where nothing was counted."""
        return np.asarray(self.counts / np.maximum(self.counts.sum(1, keepdims=True), 1))

    def quantile(self, q: float) -> Floats:
        """(quantities,) by linear interpolation within a cell; NaN where nothing was counted."""
        assert self.edges is not None
        out = []
        for row in self.counts:
            reached = np.concatenate([[0.0], np.cumsum(row)])
            out.append(float(np.interp(q * reached[-1], reached, self.edges)) if reached[-1] else float("nan"))
        return np.array(out)

    def summary(self) -> dict[str, Any]:
        """JSON-ready: shares of categories, or the 5th, 50th and 95th percentile of each quantity."""
        if self.edges is None:
            assert self.categories is not None
            shares = self.share()
            if len(self.names) == 1:
                return {name: round(float(x), 4) for name, x in zip(self.categories, shares[0], strict=True)}
            return {
                name: {c: round(float(x), 4) for c, x in zip(self.categories, row, strict=True)}
                for name, row in zip(self.names, shares, strict=True)
            }
        found = np.stack([self.quantile(q) for q in (0.05, 0.5, 0.95)], 1)
        parts = [{k: _json(x) for k, x in zip(("p5", "p50", "p95"), row, strict=True)} for row in found]
        return parts[0] if len(self.names) == 1 else dict(zip(self.names, parts, strict=True))


def _json(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def overlap(a: Histogram, b: Histogram) -> float:
    """Share of probability that two files have in common, the mean over the quantities: 1 alike, 0 apart."""
    return float(np.minimum(a.share(), b.share()).sum(1).mean())


def bends(joints: NDArray[np.floating[Any]]) -> Floats:
    """(N, 15) degrees between neighbouring bones of (N, 21, 3) joints: thumb to little finger, palm to tip, 0 straight.

    A joint of zero length or a NaN gives NaN.
    """
    points = np.asarray(joints, np.float64)
    before, at, after = (points[:, list(column)] for column in zip(*_BENT, strict=True))
    one, two = at - before, after - at
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (one * two).sum(-1) / (np.linalg.norm(one, axis=-1) * np.linalg.norm(two, axis=-1))
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def viewpoints(joints: NDArray[np.floating[Any]], handedness: NDArray[np.integer[Any]]) -> Floats:
    """(N, 2) degrees: azimuth and elevation of the camera about the hand, as of a right hand.

    The palm is the plane of wrist, index MCP and little MCP. (0, 0) looks at the palm, azimuth +-180 at the back, +90
    from the thumb's side; elevation 90 looks at the fingertips. Joints relative to the hand itself are taken as seen
    from far away.

    Args:
        joints: (N, 21, 3) metres, camera frame.
        handedness: (N,) 0 left, 1 right.
    """
    points = np.asarray(joints, np.float64)
    wrist, index, middle, little = (points[:, k] for k in (0, _INDEX, _MIDDLE_MCP, _LITTLE))
    along = _unit(middle - wrist)
    across = index - little
    across = _unit(across - (across * along).sum(-1, keepdims=True) * along)
    out = np.cross(across, along) * np.where(np.asarray(handedness) == LEFT, -1.0, 1.0)[:, None]
    centre = 0.5 * (wrist + middle)
    far = np.linalg.norm(centre, axis=-1, keepdims=True) < _CAMERA_AT
    eye = np.where(far, [0.0, 0.0, -1.0], -_unit(centre))
    x, y, z = ((eye * axis).sum(-1) for axis in (across, along, out))
    return np.stack([np.degrees(np.arctan2(x, z)), np.degrees(np.arcsin(np.clip(y, -1, 1)))], -1)


def _unit(vectors: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def collect_stats(dataset: HandDataset) -> dict[str, Histogram]:
    """Histograms of a dataset, by short name, in the order in which they are drawn.

    Raises:
        InputError: The view is empty, or a field cannot be read.
    """
    if not len(dataset):
        raise InputError(f"{dataset.path}: has no rows; make it again or give another file")
    found = _empty(dataset)
    fields = [f for f in ("keypoints_2d", "keypoints_3d", "visibility", "handedness", "occlusion") if dataset.has(f)]
    fields += [f for f in (*_DRAWN, "provenance/label_error_px") if dataset.has(f)]
    for rows in dataset.iter_batches(_BLOCK, fields):
        _add_labels(found, rows, dataset)
    block = max(1, min(64, _BLOCK_PIXELS // (dataset.size[0] * dataset.size[1] * dataset.channels)))
    for start in range(0, len(picked := spread_rows(len(dataset), _IMAGES)), block):
        _add_images(found, dataset, picked[start : start + block])
    return {name: histogram for name, histogram in found.items() if histogram.counts.any()}


def _grid(panel: str, low: float, high: float, cells: int, names: list[str] | None = None) -> Histogram:
    names = names or [panel]
    return Histogram(panel, names, np.linspace(low, high, cells + 1), np.zeros((len(names), cells)))


def _kinds(panel: str, categories: list[str], names: list[str] | None = None) -> Histogram:
    names = names or [panel]
    return Histogram(panel, names, None, np.zeros((len(names), len(categories))), categories)


def _empty(dataset: HandDataset) -> dict[str, Histogram]:
    found = {
        "bends": _grid("bend of the joints, degrees", 0, 150, 75, _BENT_NAMES),
        "viewpoint": _kinds("viewpoint", [f"{a},{e}" for e in range(12) for a in range(24)]),
        "turn": _grid("wrist to middle finger in the picture, degrees from up", -180, 180, 36),
        "hand_length": _grid("length of the hand (wrist to tip), mm", 80, 280, 50),
        "breadth": _grid("breadth (knuckles of index to little) / length", 0.15, 0.55, 40),
        "fill": _grid("longer side of the joints' box / picture", 0, 1.2, 48),
        "place": _kinds("where the joints are", [f"{x},{y}" for y in range(24) for x in range(24)]),
        "visibility": _kinds("visibility", ["not labelled", "hidden", "visible"], list(JOINTS)),
        "occlusion": _kinds("hidden joints", list(CAUSES)),
        "brightness": _grid("grey level of the hand (at its joints)", 0, 255, 51),
        "picture": _grid("mean grey level of the picture", 0, 255, 51),
        "contrast": _grid("standard deviation of the picture's grey levels", 0, 128, 64),
        "age": _grid("age: 1/3 child, 2/3 young adult, 1 old", 0, 1, 50),
        "draws": _kinds("poses drawn for a hand, 12 at most", [str(n) for n in range(1, 13)]),
        "tone": _grid("skin tone, 0 lightest, 1 darkest", 0, 1, 20),
        "exposure_value": _grid("exposure missed by, stops", -3.0, 3.0, 60),
        "label_error": _grid("label error of minted rows, px", 0, 20, 40),
    }
    choices: dict[str, list[str]] = json.loads(str(dataset.attrs.get("choices", "{}")))
    for field in ("pose_factors", "appearance_factors"):
        for name in dataset.attrs.get(field, []) if dataset.has(field) else []:
            if str(name) in choices:
                found[str(name)] = _kinds(str(name).replace("_", " "), choices[str(name)])
    return found


def _add_labels(found: dict[str, Histogram], rows: dict[str, NDArray[Any]], dataset: HandDataset) -> None:
    seen = rows["visibility"]
    labelled = seen != NOT_LABELLED
    height, width = dataset.size
    for joint in range(len(JOINTS)):
        found["visibility"].add(seen[:, joint], joint)
    pixels = np.where(labelled[..., None], rows["keypoints_2d"].astype(np.float64), np.nan)
    some = labelled.sum(1) >= 2
    if some.any():
        box = np.nanmax(pixels[some], 1) - np.nanmin(pixels[some], 1)
        found["fill"].add(box.max(1) / max(height, width))
    cell = np.floor((pixels + 0.5) / [width, height] * 24)
    inside = np.isfinite(cell).all(-1) & (cell >= 0).all(-1) & (cell < 24).all(-1)
    found["place"].add((cell[..., 1] * 24 + cell[..., 0])[inside])
    way = pixels[:, _MIDDLE_MCP] - pixels[:, 0]
    found["turn"].add(np.degrees(np.arctan2(way[:, 0], -way[:, 1])))
    if "occlusion" in rows:
        found["occlusion"].add(rows["occlusion"][labelled])
    if "provenance/label_error_px" in rows:
        found["label_error"].add(rows["provenance/label_error_px"])
    if "keypoints_3d" in rows:
        _add_joints(found, np.where(labelled[..., None], rows["keypoints_3d"].astype(np.float64), np.nan), rows)
    for field in _DRAWN:
        names = [str(name) for name in dataset.attrs.get(field, [])]
        for column, name in enumerate(names if field in rows else []):
            if name in _NUMBERS or (name in found and found[name].categories is not None):
                found[name].add(_cells(name, rows[field][:, column]))


def _cells(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Categories from 0 of what is stored from another number on."""
    if name.endswith("environment"):  # -2 a sky, -1 a room, from 0 the panorama's number
        return np.minimum(values, 0) + 2
    return values - (name == "draws")  # they begin with 1


def _add_joints(found: dict[str, Histogram], joints: Floats, rows: dict[str, NDArray[Any]]) -> None:
    for which, column in enumerate(bends(joints).T):
        found["bends"].add(column, which)
    view = viewpoints(joints, rows["handedness"])
    view = view[np.isfinite(view).all(1)]
    azimuth = np.clip(np.floor((view[:, 0] + 180) / 15), 0, 23)
    level = np.clip(np.floor((np.sin(np.radians(view[:, 1])) + 1) * 6), 0, 11)  # cells of equal solid angle
    found["viewpoint"].add(level * 24 + azimuth)
    length = np.linalg.norm(np.diff(joints[:, _MIDDLE], axis=1), axis=-1).sum(1)
    breadth = np.linalg.norm(joints[:, _INDEX] - joints[:, _LITTLE], axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found["breadth"].add(breadth / length)
    found["hand_length"].add(1000 * length)


def _add_images(found: dict[str, Histogram], dataset: HandDataset, rows: NDArray[np.int64]) -> None:
    grey = dataset.read("images", rows).astype(np.float64).mean(-1)
    found["picture"].add(grey.mean((1, 2)))
    found["contrast"].add(grey.std((1, 2)))
    known = dataset.read("visibility", rows) != NOT_LABELLED
    at = np.where(known[..., None], dataset.read("keypoints_2d", rows), 0.0)
    x, y = np.clip(np.round(at), 0, np.array(dataset.size[::-1]) - 1).astype(int).transpose(2, 0, 1)
    values = np.where(known, grey[np.arange(len(rows))[:, None], y, x], np.nan)
    some = known.any(1)
    found["brightness"].add(np.nanmean(values[some], 1) if some.any() else np.empty(0))

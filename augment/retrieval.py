"""Which hands are alike in pose, which in appearance: retrieval by either code, Fig. 6 of Li et al. 2019.

The nearest rows by the pose code should show the query's pose in other environments, those by the appearance code the
query's environment with other poses. Distances are Euclidean between codes; maps are averaged down to 8x8 cells first
(`handaug.models.probes.features_of`).
"""

import numpy as np
from numpy.typing import NDArray

from handaug.augment.codes import encode_block
from handaug.augment.walk import Picture, Sheet, check_images
from handaug.data_specs.draw import enlarge, image_grid
from handaug.data_specs.errors import InputError
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.models.dvae.pictures import framed
from handaug.models.methods import PoseAppearanceModel
from handaug.models.metrics import keypoint_distances
from handaug.models.probes import features_of

__all__ = ["nearest", "retrieval_sheet"]

_BATCH = 64
_COLUMNS = 10
_CODES = ("pose", "appearance")


def nearest(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], count: int, *, never: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The nearest rows of a gallery.

    Args:
        queries: (Q, F).
        gallery: (G, F).
        count: How many for each query, at most G.
        never: (Q, G) rows that may not be returned; at least `count` of each query's must be allowed.

    Returns:
        (Q, count) row numbers, nearest first.
    """
    squares = (gallery**2).sum(1)[None] - 2 * queries @ gallery.T  # the query's own square moves no rank
    return np.argsort(np.where(never, np.inf, squares), axis=1, kind="stable")[:, :count]


def retrieval_sheet(
    model: PoseAppearanceModel,
    queries: HandDataset,
    gallery: HandDataset,
    *,
    top: int = 20,
    scale: int = 2,
    progress: Progress = SILENT,
) -> Sheet:
    """Draw the rows nearest to each query, by pose and by appearance, and measure how well they fit.

    Args:
        model: Of any method that encodes images to both codes.
        queries: Rows to ask with; they never find themselves.
        gallery: Rows to search.
        top: Rows to find.
        scale: Enlargement in whole numbers.
        progress: Told of the rows encoded.

    Returns:
        The sheet: for each query two blocks, above by pose, below by appearance, the query in a red frame before each.
        Figures over the queries, each for `by_pose` and `by_appearance`, beside `chance` (any row of the gallery):
        pose_error_px, mean distance between the joints of the rows found and the query's, placed as they are;
        same_appearance and same_pose, share found of the rows that share the query's id, of those that could be found.

    Raises:
        InputError: The model takes other images, or the gallery has fewer rows than asked for.
    """
    check_images(model, queries, gallery)
    if len(gallery) <= top:
        raise InputError(f"--top {top}: {gallery.path} has {len(gallery)} rows to search; ask for fewer")
    same_file = queries.checksum == gallery.checksum
    never = (queries.rows[:, None] == gallery.rows[None]) & same_file
    found = {}
    for code in _CODES:
        asked, searched = (_features(model, data, code, progress) for data in (queries, gallery))
        found[code] = nearest(asked, searched, top, never=never)
    return Sheet(_draw(queries, gallery, found, scale), _figures(queries, gallery, found, never))


def _features(model: PoseAppearanceModel, data: HandDataset, code: str, progress: Progress) -> NDArray[np.float32]:
    out = []
    with progress.task(f"encode {code}", len(data), "images") as advance:
        for block in data.iter_batches(_BATCH, ["images"]):
            out.append(features_of(encode_block(model, block["images"], code, str(model.device))).astype(np.float32))
            advance(len(block["images"]))
    return np.concatenate(out)


def _draw(queries: HandDataset, gallery: HandDataset, found: dict[str, NDArray[np.int64]], scale: int) -> Picture:
    blank = np.full((*queries.size, 3), 255, np.uint8)
    sheet: list[list[Picture]] = []
    for i, image in enumerate(queries.read("images")):
        for code in _CODES:
            hits = list(gallery.read("images", found[code][i]))
            for start in range(0, len(hits), _COLUMNS):
                first = blank if start else framed(image)
                sheet.append([enlarge(cell, scale) for cell in (first, *hits[start : start + _COLUMNS])])
            sheet.append([enlarge(blank[:2], scale)])
    return _stacked(sheet)


def _stacked(rows: list[list[Picture]]) -> Picture:
    """Rows of cells of different heights, one under the other."""
    strips = [image_grid([row]) for row in rows]
    width = max(strip.shape[1] for strip in strips)
    return np.concatenate([np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips])


def _figures(
    queries: HandDataset, gallery: HandDataset, found: dict[str, NDArray[np.int64]], never: NDArray[np.bool_]
) -> dict[str, float]:
    figures: dict[str, float] = {}
    asked, places = queries.read("keypoints_2d"), gallery.read("keypoints_2d")
    seen_asked, seen = queries.read("visibility"), gallery.read("visibility")
    errors = np.stack(
        [np.nanmean(_distances(a, places, s, seen), axis=1) for a, s in zip(asked, seen_asked, strict=True)]
    )
    top = found["pose"].shape[1]
    for code in _CODES:
        figures[f"pose_error_px_by_{code}"] = float(np.nanmean(np.take_along_axis(errors, found[code], 1)))
    figures["pose_error_px_chance"] = float(np.nanmean(errors[~never]))
    for name, field in (("same_appearance", "appearance_id"), ("same_pose", "pose_id")):
        if not (queries.has(field) and gallery.has(field)):
            continue
        alike = (queries.read(field)[:, None] == gallery.read(field)[None]) & ~never
        could = np.minimum(alike.sum(1), top)
        use = could > 0
        if use.any():
            for code in _CODES:
                hits = np.take_along_axis(alike, found[code], 1).sum(1)
                figures[f"{name}_by_{code}"] = float((hits[use] / could[use]).mean())
            expected = alike.sum(1) * top / (~never).sum(1)
            figures[f"{name}_chance"] = float((expected[use] / could[use]).mean())
    return figures


def _distances(
    query: NDArray[np.float32],
    places: NDArray[np.float32],
    seen_query: NDArray[np.uint8],
    seen: NDArray[np.uint8],
) -> NDArray[np.float64]:
    return keypoint_distances(np.broadcast_to(query, places.shape), places, np.minimum(seen_query[None], seen))

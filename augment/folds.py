"""Two halves of a dataset that share no relatives, for estimators that check each other's half."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

__all__ = ["cut_folds"]

_FOLD_DRAW = 21


def cut_folds(
    group: NDArray[np.int64],
    pose_id: NDArray[np.int64],
    image_id: NDArray[np.int64],
    labelled: NDArray[np.bool_],
    seed: int,
) -> NDArray[np.int8]:
    """Two folds of about as many labelled rows; rows that share a group, a pose or a frame share the fold.

    Args:
        group: (N,) ids.
        pose_id: (N,) ids.
        image_id: (N,) ids.
        labelled: (N,) whether an estimator can learn from the row.
        seed: Of the draw.

    Returns:
        (N,) 0 or 1; -1 for rows that have no labels and no labelled relative.
    """
    rows = np.arange(len(group))
    edges = []
    for ids in (group, pose_id, image_id):
        _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        edges.append(first[inverse.reshape(-1)])
    ends = np.concatenate(edges)
    links = coo_matrix((np.ones(len(ends), np.int8), (np.tile(rows, 3), ends)), shape=(len(rows), len(rows)))
    count, component = connected_components(links, directed=False)
    sizes = np.bincount(component[labelled], minlength=count)
    fold_of = np.zeros(count, np.int8)
    filled = [0, 0]
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_FOLD_DRAW,))).permutation(count)
    # Large components first, in drawn order among equals: the emptier fold takes the next one.
    for k in order[np.argsort(-sizes[order], kind="stable")]:
        emptier = int(filled[1] < filled[0])
        fold_of[k] = emptier
        filled[emptier] += int(sizes[k])
    fold_of[sizes == 0] = -1
    fold: NDArray[np.int8] = fold_of[component]
    return fold

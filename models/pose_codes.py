"""Pose codes of the rows of a dataset: one rule for remix, walks, grids, measures and tables."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.models.dvae.api import Dvae
from handaug.models.dvae.data import read_poses
from handaug.models.methods import PoseAppearanceModel

__all__ = ["pose_codes"]

_BLOCK = 64


def pose_codes(model: PoseAppearanceModel, data: HandDataset, index: NDArray[np.int64]) -> Tensor:
    """Pose codes of rows of a view, by their places in it.

    The dVAEs encode poses from labels, which is what the label of a mix will be; rows whose labels are not complete,
    and all rows for other methods, are encoded from their images.

    Args:
        model: Of any method with both codes.
        data: Images of the model's size.
        index: (N,) places in the view.

    Returns:
        (N, ...) on the model's device.

    Raises:
        InputError: A row's labels are not complete, and the model reads no poses from images.
    """
    if not (isinstance(model, Dvae) and data.has("keypoints_3d")):
        return _of_images(model, data, index)
    labels = read_poses(data, model.config.root, index)
    codes = model.encode_labels(labels)
    unknown = np.flatnonzero(~labels.placed.numpy())
    if len(unknown):
        if not model.reads_images:
            raise InputError(
                f"{data.path}: the labels of row {int(data.rows[index[unknown[0]]])} are not complete, and this "
                f"{model.method} reads no poses from images; give data whose rows have all of their labels"
            )
        codes = codes.clone()
        codes[torch.from_numpy(unknown).to(codes.device)] = _of_images(model, data, index[unknown])
    return codes


def _of_images(model: PoseAppearanceModel, data: HandDataset, index: NDArray[np.int64]) -> Tensor:
    blocks = [index[start : start + _BLOCK] for start in range(0, len(index), _BLOCK)]
    images = (torch.from_numpy(data.read("images", block)).permute(0, 3, 1, 2).float() / 255.0 for block in blocks)
    return torch.cat([model.encode_pose(block) for block in images])

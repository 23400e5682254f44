"""Pose estimators: a registry in which importing this package enters `heatmap` and `unet`."""

from handaug.models.estimators.base import (
    Estimator,
    build_estimator,
    estimator_names,
    load_estimator,
    register_estimator,
    save_estimator,
)
from handaug.models.estimators.heatmap import HeatmapEstimator
from handaug.models.estimators.unet import UNetEstimator

__all__ = [
    "Estimator",
    "HeatmapEstimator",
    "UNetEstimator",
    "build_estimator",
    "estimator_names",
    "load_estimator",
    "register_estimator",
    "save_estimator",
]

"""Pose estimators: a registry into which importing this package enters those of its modules."""

from handaug.models.estimators.base import (
    Estimator,
    build_estimator,
    estimator_names,
    load_estimator,
    register_estimator,
    save_estimator,
)
from handaug.models.estimators.compact import Compact3DEstimator, CompactEstimator
from handaug.models.estimators.dvae_pose import DvaePoseEstimator
from handaug.models.estimators.heatmap import HeatmapEstimator
from handaug.models.estimators.resnet import ResNet18Estimator, ResNet50Estimator, load_backbone
from handaug.models.estimators.simcc import SimCCEstimator
from handaug.models.estimators.unet import UNetEstimator

__all__ = [
    "Compact3DEstimator",
    "CompactEstimator",
    "DvaePoseEstimator",
    "Estimator",
    "HeatmapEstimator",
    "ResNet18Estimator",
    "ResNet50Estimator",
    "SimCCEstimator",
    "UNetEstimator",
    "build_estimator",
    "estimator_names",
    "load_backbone",
    "load_estimator",
    "register_estimator",
    "save_estimator",
]

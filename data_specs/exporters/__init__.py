"""Exporters into the formats of other trainers: a registry in which importing this package enters all of them."""

from handaug.data_specs.exporters import coco, freihand, rowfiles, yolo
from handaug.data_specs.exporters.base import ExportConfig, Exporter, exporter_names, get_exporter, register_exporter
from handaug.data_specs.exporters.job import ExportCounts, export_dataset

__all__ = [
    "ExportConfig",
    "ExportCounts",
    "Exporter",
    "coco",
    "export_dataset",
    "exporter_names",
    "freihand",
    "get_exporter",
    "register_exporter",
    "rowfiles",
    "yolo",
]

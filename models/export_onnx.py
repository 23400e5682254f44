"""A trained estimator as an ONNX file, checked with onnxruntime against PyTorch before it gets its name.

The graph takes `images` (N, C, H, W) float32 in [0, 1], N free, and gives `keypoints` (N, 21, 2) in pixels, and
`keypoints_3d` (N, 21, 3) in metres relative to the wrist where the estimator has them. An estimator whose read-out
cannot be a graph (`readout_in_graph` is False: the Gaussian fit solves equations) gives `heatmaps` instead.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handaug import __version__
from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.joints import JOINTS
from handaug.data_specs.writer import replace_atomically
from handaug.models.estimators import Estimator, load_estimator

__all__ = ["TOLERANCE", "OnnxExport", "export_onnx"]

TOLERANCE = 1e-4
"""Largest difference allowed, relative to the larger of 1 and the value: pixels, metres or map values."""

_OPSET = 18
_CHECKED = (1, 5)
"""Batch sizes of the check: N must be free."""


@dataclass(frozen=True)
class OnnxExport:
    """What was written."""

    path: Path
    outputs: tuple[str, ...]
    difference: float
    """Largest difference between onnxruntime and PyTorch that was met."""


class _Graph(nn.Module):
    """Image to what users of the file want."""

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        output = self.estimator(images)
        if not _reads_out(self.estimator):
            return (output,)
        places = self.estimator.keypoints(output)
        return (places, self.estimator.keypoints_3d(output)) if self.estimator.dimensions == 3 else (places,)


def _reads_out(estimator: Estimator) -> bool:
    """Estimators from outside need not know the attribute."""
    return bool(getattr(estimator, "readout_in_graph", True))


def export_onnx(checkpoint: Path, out: Path, *, trust: str | None = None, overwrite: bool = False) -> OnnxExport:
    """Write an estimator as ONNX.

    Args:
        checkpoint: Folder of an estimator.
        out: The file, `.onnx`.
        trust: The module:factory that may be imported, where the checkpoint names one.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: onnx is not installed, the checkpoint cannot be read, `out` exists or cannot be written, or the
            estimator cannot be expressed as ONNX.
        WorkError: onnxruntime computes something else than PyTorch.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise InputError("export-onnx needs onnx and onnxruntime; install them: pip install 'handaug[onnx]'") from error
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists; add --overwrite or choose another name")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; make it first")
    estimator, info = load_estimator(checkpoint, trust=trust)
    graph = _Graph(estimator).eval()
    if _reads_out(estimator):
        names = ("keypoints", "keypoints_3d")[: 2 if estimator.dimensions == 3 else 1]
    else:
        names = ("heatmaps",)
    temporary = out.with_name(out.name + ".partial")
    try:
        _write(graph, temporary, names)
        model = onnx.load(temporary)
        _describe(model, estimator, info)
        onnx.checker.check_model(model)
        onnx.save(model, temporary)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(temporary, options, providers=["CPUExecutionProvider"])
        difference = _compare(graph, session, estimator)
        if not difference <= TOLERANCE:  # NaN is no agreement either
            raise WorkError(
                f"{out}: onnxruntime differs from PyTorch by {difference:.2g}, more than {TOLERANCE:g}; not written"
            )
        replace_atomically(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return OnnxExport(out, names, difference)


def _write(graph: nn.Module, path: Path, names: tuple[str, ...]) -> None:
    estimator = graph.estimator
    assert isinstance(estimator, nn.Module)
    example = torch.rand(2, int(estimator.channels), *estimator.size)  # type: ignore[misc, arg-type]
    try:
        torch.onnx.export(
            graph,
            (example,),
            path,
            input_names=["images"],
            output_names=list(names),
            opset_version=_OPSET,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be written ({error.strerror}); choose another place") from error
    except Exception as error:  # whatever the exporter meets in an operation that ONNX does not have
        name = str(estimator.name)
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"--estimator {name}: cannot be expressed as ONNX ({line[:200]})") from error


def _describe(model: Any, estimator: Estimator, info: dict[str, Any]) -> None:
    """What a user of the file has to know, as metadata."""
    known = {
        "handaug_version": __version__,
        "estimator": estimator.name,
        "input": "images (N, C, H, W) float32 in [0, 1], RGB order",
        "keypoints": "x, y in pixels of the input, the centre of the top-left pixel is (0, 0)",
        "joints": json.dumps(list(JOINTS)),
        "info": json.dumps(info),
    }
    del model.metadata_props[:]
    for key, value in known.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


@torch.no_grad()
def _compare(graph: nn.Module, session: Any, estimator: Estimator) -> float:
    """Largest relative difference over random images of several batch sizes."""
    rng = np.random.default_rng(0)
    worst = []
    for count in _CHECKED:
        images: NDArray[np.float32] = rng.random((count, estimator.channels, *estimator.size), np.float32)
        for ours, theirs in zip(graph(torch.from_numpy(images)), session.run(None, {"images": images}), strict=True):
            wanted = ours.numpy()
            worst.append((np.abs(theirs - wanted) / np.maximum(1.0, np.abs(wanted))).max())
    return float(np.max(worst))

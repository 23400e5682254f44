"""Stereo Hand Pose Tracking Benchmark (Zhang et al., ICIP 2017): one person's left hand, two cameras.

`images/<sequence>/{BB_left,BB_right,SK_color}_<n>.png` and `labels/<sequence>_{BB,SK}.mat` with `handPara` (3, 21,
frames) in millimetres: palm centre, then little to thumb, each from palm to tip. BB labels are in the left Bumblebee
camera (the right one stands 120.054 mm to its right), SK labels in the RealSense's DEPTH camera.

Joint 0 is the palm centre, not the wrist. `--wrist extrapolate` (default) puts the wrist at ring_mcp + 2 (palm -
ring_mcp), as Zimmermann and Brox do; `palm` stores the palm centre as the wrist; `drop` leaves the wrist unlabelled.

Each of the 18,000 frames is seen by three colour cameras. `--views BB_left` (or another one) takes each frame once:
15,000 for training, 3,000 for testing. `--views BB` takes both images of the stereo pair, as Zimmermann and Brox do.
"""

import bisect
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.importers.changes import content_digest
from handaug.data_specs.importers.files import entry, find_root, numbers, photo
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import DamagedError, Hand, MissingError, Unit, all_visible
from handaug.data_specs.joints import JOINTS, reorder
from handaug.data_specs.schema import LEFT, NOT_LABELLED, TEST, TRAIN

__all__ = ["open_source"]

_SEQUENCES = tuple(f"B{n}{what}" for n in range(1, 7) for what in ("Counting", "Random"))
_TEST = ("B1Counting", "B1Random")
_SIZE = (640, 480)
_MM = 1e-3
_BASELINE_MM = 120.054
_BB = np.array([[822.79041, 0, 318.47345], [0, 822.79041, 250.31296], [0, 0, 1]])
_SK = np.array([[607.92271, 0, 314.78337], [0, 607.88192, 236.42484], [0, 0, 1]])
_SK_ROTATION_VECTOR = np.array([0.00531, -0.01196, 0.00301])
_SK_TRANSLATION_MM = np.array([-24.0381, -0.4563, -1.2326])
"""X_depth = R X_colour + t."""

_VIEWS = {"BB": ("BB_left", "BB_right"), "SK": ("SK_color",)}
_WRIST, _RING_MCP = JOINTS.index("wrist"), JOINTS.index("ring_mcp")


def open_source(path: Path, options: ImportOptions) -> "_Stb":
    """Open the folder that holds `images` and `labels`."""
    title = "Stereo Hand Pose Tracking Benchmark"
    chosen = {
        camera: [view for view in views if options.views in ("all", camera, view)] for camera, views in _VIEWS.items()
    }
    views = {camera: names for camera, names in chosen.items() if names}
    needs = [f"labels/B?{what}_{camera}.mat" for camera in views for what in ("Counting", "Random")]
    return _Stb(find_root(path, title, needs), options.wrist or "extrapolate", views)


class _Stb:
    origin = "stb"
    fields = ("keypoints_3d", "camera")

    def __init__(self, root: Path, wrist: str, views: dict[str, list[str]]) -> None:
        self._root = root
        self._wrist = wrist
        self._tracks: list[tuple[str, str, NDArray[np.float64]]] = []
        """Sequence, view, (frames, 21, 3) metres in that view's camera, joints in our order."""
        missing, read = [], []
        for sequence in _SEQUENCES:
            files = {camera: root / "labels" / f"{sequence}_{camera}.mat" for camera in views}
            if not any(file.is_file() for file in files.values()):
                if (root / "images" / sequence).is_dir():
                    file = next(iter(files.values()))
                    raise MissingError(f"{file}: is missing, images/{sequence} is there; complete the download")
                missing.append(sequence)
            for camera, file in files.items():
                if file.is_file():
                    read.append(file)
                    labels = _labels(file)
                    self._tracks += [(sequence, view, _in_view(labels, view)) for view in views[camera]]
        self.labels = content_digest(read)
        self._ends = np.cumsum([len(track) for _, _, track in self._tracks]).tolist()
        self.notes = (f"sequences not there: {', '.join(missing)}",) if missing else ()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _place(self, index: int) -> tuple[int, int]:
        """Track and frame of a unit."""
        track = bisect.bisect_right(self._ends, index)
        return track, index - (self._ends[track - 1] if track else 0)

    def unit(self, index: int) -> Unit:
        track, frame = self._place(index)
        sequence, view, _ = self._tracks[track]
        return Unit(f"{sequence}/{view}_{frame}", sequence, TEST if sequence in _TEST else TRAIN)

    def read(self, index: int) -> Iterable[Hand]:
        track, frame = self._place(index)
        sequence, view, labels = self._tracks[track]
        points, visibility = labels[frame].copy(), all_visible()
        if self._wrist == "extrapolate":
            points[_WRIST] = points[_RING_MCP] + 2.0 * (points[_WRIST] - points[_RING_MCP])
        elif self._wrist == "drop":
            points[_WRIST], visibility[_WRIST] = np.nan, NOT_LABELLED
        image = self._root / "images" / sequence / f"{view}_{frame}.png"
        name = f"{sequence}/{view}_{frame}"
        yield Hand(
            name=str(image),
            image=photo(image, _SIZE),
            image_key=name,
            pose_key=name,
            side=LEFT,
            visibility=visibility,
            keypoints_3d=points,
            camera=_SK if view == "SK_color" else _BB,
            size=_SIZE,
        )


def _labels(file: Path) -> NDArray[np.float64]:
    """(frames, 21, 3) millimetres in our order; the palm centre in the wrist's place."""
    from scipy.io import loadmat

    try:
        content = loadmat(file)
    except Exception as error:  # scipy's reader fails in its own ways on damaged files
        raise DamagedError(f"{file}: is no sound MATLAB file ({str(error).splitlines()[0]}); download it") from error
    values = numbers(entry(content, "handPara", file), (3, 21, -1), file, "handPara").transpose(2, 1, 0)
    ours = reorder(values, "stb")
    ours[:, _WRIST] = values[:, 0]
    return ours


def _in_view(labels_mm: NDArray[np.float64], view: str) -> NDArray[np.float64]:
    """Labels of a stereo pair or depth camera -> metres in the frame of one of its colour cameras."""
    if view == "BB_right":
        labels_mm = labels_mm - (_BASELINE_MM, 0, 0)
    elif view == "SK_color":
        from scipy.spatial.transform import Rotation

        rotation = Rotation.from_rotvec(_SK_ROTATION_VECTOR).as_matrix()
        labels_mm = (labels_mm - _SK_TRANSLATION_MM) @ rotation  # R^T x, for row vectors
    return labels_mm * _MM

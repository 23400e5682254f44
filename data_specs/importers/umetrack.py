"""UmeTrack (Han et al., SIGGRAPH Asia 2022): headset video, four grey fisheye cameras, both hands.

`raw_data/{real,synthetic}/{hand_hand,separate_hand}/{training,testing}/user_XX/recording_YY.{json,mp4}`; a frame of
the video is the four views of 636 x 480 px side by side. The json holds the cameras, their poses, the user's hand
model, and for each frame joint angles and wrist poses; world and hand are in millimetres.

A stored image is what a pinhole camera at the fisheye's place would see, turned towards the hand; 3D keypoints turn
with it. See `umetrack_model` for the keypoints, of which the thumb's cmc is no landmark of the set and comes from its
hand model. Nothing is said about occlusion: every joint counts as visible.
"""

import functools
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.camera import inside_image
from handaug.data_specs.importers.changes import content_digest
from handaug.data_specs.importers.files import entry, find_root, listed, numbers, read_json
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import DamagedError, Hand, MissingError, Unit, all_visible
from handaug.data_specs.importers.umetrack_model import Fisheye, HandModel, read_fisheye, read_hand_model
from handaug.data_specs.schema import LEFT, RIGHT, TEST, TRAIN

__all__ = ["open_source"]

_PARTS = {"training": TRAIN, "testing": TEST}
_BLOCK = 8
"""Frames read at once."""
_MM = 1e-3
_SEEN_JOINTS = 11
"""Joints that must lie on a view for the hand to count as seen by it: the views overlap only in part."""


def open_source(path: Path, options: ImportOptions) -> "_UmeTrack":
    """Open the folder that holds `real` or `synthetic`, or any folder above recordings."""
    pattern = "*/*/{}/user_*/recording_*.json"
    root = find_root(path, "UmeTrack", [pattern.format(part) for part in _PARTS], ("raw_data", "UmeTrack/raw_data"))
    return _UmeTrack(root)


class _Recording:
    """One label file, and the video beside it."""

    def __init__(self, file: Path) -> None:
        labels = read_json(file)
        self.video = file.with_suffix(".mp4")
        self.cameras = [
            read_fisheye(item, f"{file}, camera {k}") for k, item in enumerate(listed(labels, "cameras", file))
        ]
        self.model: HandModel = read_hand_model(entry(labels, "hand_model", file), file)
        views = len(self.cameras)
        self.angles = numbers(entry(labels, "joint_angles", file), (-1, 2, 22), file, "joint_angles")
        shapes = {"wrist_transforms": (2, 4, 4), "hand_confidences": (2,), "camera_to_world_transforms": (views, 4, 4)}
        values = {name: numbers(entry(labels, name, file), (-1, *shape), file, name) for name, shape in shapes.items()}
        for name, value in values.items():
            if len(value) != len(self.angles):
                raise DamagedError(
                    f"{file}: has {len(self.angles)} joint_angles and {len(value)} {name}; download it again"
                )
        self.wrists, self.confidences = values["wrist_transforms"], values["hand_confidences"]
        self.poses = values["camera_to_world_transforms"]
        self.frames = _Frames(self.video, len(self.angles))


class _UmeTrack:
    origin = "umetrack"
    fields = ("keypoints_3d", "camera")
    notes = ()

    def __init__(self, root: Path) -> None:
        self._root = root
        self._units: list[tuple[Path, int, int]] = []
        """Label file, first frame and split."""
        self._lock = threading.Lock()
        self._open: dict[Path, _Recording] = {}
        files = []
        for file in sorted(root.glob("*/*/*/user_*/recording_*.json")):
            split = _PARTS.get(file.parts[-3])
            if split is not None:
                files.append(file)
                count = len(listed(read_json(file), "joint_angles", file))
                self._units += [(file, start, split) for start in range(0, count, _BLOCK)]
        self.labels = content_digest(files)

    def __len__(self) -> int:
        return len(self._units)

    def unit(self, index: int) -> Unit:
        file, start, split = self._units[index]
        name = file.relative_to(self._root).with_suffix("").as_posix()
        return Unit(f"{name}/{start}", file.parent.name, split)

    def read(self, index: int) -> Iterable[Hand]:
        file, start, _ = self._units[index]
        recording = self._recording(file)
        name = file.relative_to(self._root).with_suffix("").as_posix()
        for frame in range(start, min(start + _BLOCK, len(recording.angles))):
            world = {
                side: recording.model.joints(recording.angles[frame, side], recording.wrists[frame, side], side)
                for side in (LEFT, RIGHT)
                if recording.confidences[frame, side] > 0
            }
            for view, lens in enumerate(recording.cameras):
                pose = recording.poses[frame, view]
                if not pose.any():
                    continue  # the headset was not tracked
                image = functools.partial(recording.frames.view, frame, view, len(recording.cameras), lens.size)
                for side, points in world.items():
                    local = (points - pose[:3, 3]) @ pose[:3, :3] * _MM
                    if inside_image(lens.project(local), *lens.size).sum() >= _SEEN_JOINTS:
                        yield _hand(recording.video, f"{name}/{frame}/{view}", side, image, local, lens)

    def _recording(self, file: Path) -> _Recording:
        """The recording of a unit; the last few stay open, so that a video is read from its start to its end."""
        with self._lock:
            if file not in self._open:
                while len(self._open) >= 2:
                    del self._open[next(iter(self._open))]
                self._open[file] = _Recording(file)
            return self._open[file]


def _hand(video: Path, name: str, side: int, image: Any, points: NDArray[np.float64], lens: Fisheye) -> Hand:
    return Hand(
        name=f"{video}, frame/view {'/'.join(name.split('/')[-2:])}",
        image=image,
        image_key=name,
        pose_key=f"{name}/{side}",
        side=side,
        visibility=all_visible(),
        keypoints_3d=points,
        lens=lens,
        size=lens.size,
    )


class _Frames:
    """Frames of a video, asked for in nearly their order by several threads; each is decoded once."""

    def __init__(self, video: Path, count: int) -> None:
        self._video = video
        self._count = count
        self._lock = threading.Lock()
        self._capture: Any = None
        self._next = 0
        self._kept: dict[int, NDArray[np.uint8]] = {}

    def view(self, frame: int, view: int, views: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """One camera's image of a frame, (H, W)."""
        with self._lock:
            whole = self._kept[frame] if frame in self._kept else self._read(frame)
        width, height = size
        if whole.shape != (height, width * views):
            raise DamagedError(
                f"{self._video}: is {whole.shape[1]} x {whole.shape[0]} px, {views} views of {width} x {height} px "
                "should stand side by side; get video and labels of the same release"
            )
        return np.ascontiguousarray(whole[:, view * width : (view + 1) * width])

    def _read(self, frame: int) -> NDArray[np.uint8]:
        import cv2

        if self._capture is None or frame < self._next:
            if not self._video.is_file():
                raise MissingError(f"{self._video}: is missing; complete the download, or add --skip-missing")
            self._capture, self._next = cv2.VideoCapture(str(self._video)), 0
            self._kept.clear()
        while self._next <= frame:
            good, image = self._capture.read()
            if not good:
                raise DamagedError(
                    f"{self._video}: ends after {self._next} frames, its labels are for {self._count}; "
                    "download it again"
                )
            self._kept[self._next] = image[..., 0]
            self._next += 1
            while len(self._kept) > 8 * _BLOCK:
                del self._kept[next(iter(self._kept))]
        return self._kept[frame]

"""One minted image: which rows give it, how it is drawn and checked, what its row says.

`handaug.augment.remix` says which images are kept and runs the whole job.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.augment.checker import Checkers, fingerprint, row_errors
from handaug.augment.codes import CodeStore, decode_images
from handaug.augment.pairing import Pairing, read_sources
from handaug.augment.remix_report import Tones, pose_bins
from handaug.data_specs.camera import flip_keypoints_2d
from handaug.data_specs.errors import InputError
from handaug.data_specs.progress import Progress
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import TRAIN
from handaug.models.methods import load_run

__all__ = ["Judged", "Mint", "RemixConfig"]

_COPIED = (
    "keypoints_2d",
    "keypoints_3d",
    "visibility",
    "camera",
    "handedness",
    "mask",
    "group",
    "pose_id",
    "shape",
    "pose",
)
"""Fields of x that are true of the minted image. Depth, occlusion, normals, parts and UVs are not: they describe
pixels that were not drawn.
"""


@dataclass(frozen=True)
class RemixConfig:
    """What is minted from what."""

    n: int
    """Images kept in the end (--n)."""
    poses: Path
    """Dataset whose train split gives poses and labels (--poses)."""
    disentangler: Path
    """Folder of the disentangler (--checkpoint)."""
    checker: Path
    """Folder of the checker (--checker)."""
    appearances: Path | None = None
    """Dataset whose train split lends appearances, labelled or not (--appearances); the poses' own by default."""
    max_label_error: float | None = None
    """Threshold in pixels (--max-label-error); the checker's own by default."""
    seed: int = 0
    """Of the pairs (--seed)."""
    max_tries: int = 8
    """Draws for each image wanted of a pose row before the rest of its quota goes to others."""

    def __post_init__(self) -> None:
        if self.n <= 0:
            raise InputError(f"--n {self.n}: mint at least 1 image")
        if self.max_label_error is not None and not self.max_label_error > 0:
            raise InputError(f"--max-label-error {self.max_label_error}: give a distance above 0 pixels")


@dataclass
class Judged:
    """What came of a block of pairs; first axis B."""

    images: NDArray[np.uint8]
    error: NDArray[np.float32]
    error_max: NDArray[np.float32]
    strays: NDArray[np.bool_]
    keep: NDArray[np.bool_]


class Mint:
    """The sources, the models and the rules, opened once."""

    def __init__(self, config: RemixConfig, device: str) -> None:
        self.config, self.device = config, device
        appearances = config.appearances or config.poses
        self.pose_data = HandDataset(config.poses, split="train")
        self.appearance_data = HandDataset(appearances, split="train")
        for path, data in ((config.poses, self.pose_data), (appearances, self.appearance_data)):
            if not len(data):
                raise InputError(f"{path}: has no rows in its train split; remix reads split 0 only")
        self.model = load_run(config.disentangler, device=device)
        size, channels = tuple(self.model.size), self.model.channels
        for data in (self.pose_data, self.appearance_data):
            if data.size != size or data.channels != channels:
                raise InputError(
                    f"{data.path}: has {data.size[0]} x {data.size[1]} px with {data.channels} channels, the "
                    "disentangler "
                    f"{config.disentangler} takes {size[0]} x {size[1]} px with {channels}; give data of that size"
                )
        self.checkers = Checkers.load(config.checker, device=device)
        self.threshold = self.checkers.threshold_px if config.max_label_error is None else config.max_label_error
        self.poses = read_sources(self.pose_data, self.checkers.folds_of(self.pose_data))
        self.appearances = read_sources(self.appearance_data, self.checkers.folds_of(self.appearance_data))
        self.pairing = Pairing(self.poses, self.appearances, config.seed)
        self.tones = Tones.of(self.appearances.tone)
        self.bins, self.bin_names = pose_bins(self.pose_data)
        self.capacity = np.array(
            [self.pairing.capacity(i) if ok else 0 for i, ok in enumerate(self.poses.labelled)], np.int64
        )
        if not self.poses.labelled.any():
            raise InputError(f"{config.poses}: none of its train rows is labelled; give labelled data as --poses")
        self.identity = {
            "command": "remix",
            "n": config.n,
            "seed": config.seed,
            "max_label_error_px": self.threshold,
            "max_tries": config.max_tries,
            "poses": self.pose_data.checksum,
            "appearances": self.appearance_data.checksum,
            "disentangler": fingerprint(config.disentangler),
            "checker": fingerprint(config.checker),
        }
        self.fields = [name for name in _COPIED if self.pose_data.has(name)]

    def open_codes(self, folder: Path, progress: Progress) -> None:
        """Encode poses and appearances; mirrored appearances follow when they are needed."""
        self.p = CodeStore(self.model, self.pose_data, "pose", folder, self.device)
        self.a = CodeStore(self.model, self.appearance_data, "appearance", folder, self.device)
        self.a_mirrored = CodeStore(self.model, self.appearance_data, "appearance", folder, self.device, mirror=True)
        self.p.encode_all(progress)
        self.a.encode_all(progress)

    def judge(self, pose: NDArray[np.int64], appearance: NDArray[np.int64]) -> Judged:
        """Draw and check a block of pairs."""
        mirrored = self.appearances.handedness[appearance] != self.poses.handedness[pose]
        codes = np.empty_like(self.a.get(appearance[:1]), shape=(len(pose), *self.a.get(appearance[:1]).shape[1:]))
        for flag, store in ((False, self.a), (True, self.a_mirrored)):
            if (mirrored == flag).any():
                codes[mirrored == flag] = store.get(appearance[mirrored == flag])
        images = decode_images(self.model, self.p.get(pose), codes, self.device)
        number = self.pairing.checker_of(pose, appearance)
        found, empty = np.empty((len(pose), 21, 2), np.float32), np.empty((len(pose), 21, 2), np.float32)
        for k in (0, 1):
            if (number == k).any():
                found[number == k] = self.checkers.predict(k, images[number == k])
                empty[number == k] = self.checkers.of_empty_images(k, images[number == k])
        true, seen = self.poses.keypoints_2d[pose], self.poses.visibility[pose] > 0
        error = row_errors(found, true, seen)
        error_max = np.where(seen, np.linalg.norm(found - true, axis=-1), 0).max(1).astype(np.float32)
        other = self.appearances.keypoints_2d[appearance]
        other = np.where(mirrored[:, None, None], flip_keypoints_2d(other, images.shape[2]), other)
        to_other = row_errors(found, other, self.appearances.visibility[appearance])
        blind = row_errors(found, empty, seen) < self.checkers.empty_px
        strays = (np.isfinite(to_other) & (to_other < error)) | blind
        return Judged(images, error, error_max, strays, (error <= self.threshold) & ~strays)

    def rows(self, pose: NDArray[np.int64], appearance: NDArray[np.int64], judged: Judged) -> dict[str, NDArray[Any]]:
        """File rows of the kept pairs of a block."""
        x, y = pose[judged.keep], appearance[judged.keep]
        rows = {name: self.pose_data.read(name, x) for name in self.fields}
        rows["images"] = judged.images[judged.keep]
        rows["split"] = np.full(len(x), TRAIN, np.uint8)
        rows["appearance_id"] = self._appearance_ids(y)
        rows["image_id"] = np.array(
            [_hash_id(self.identity, *self._pair(i, j)) for i, j in zip(x, y, strict=True)], np.int64
        )
        rows["provenance/pose_source"] = self.poses.rows[x]
        rows["provenance/appearance_source"] = self.appearances.rows[y]
        rows["provenance/label_error_px"] = judged.error[judged.keep]
        rows["provenance/label_error_max_px"] = judged.error_max[judged.keep]
        return rows

    def _pair(self, x: int, y: int) -> tuple[int, int]:
        return int(self.poses.rows[x]), int(self.appearances.rows[y])

    def _appearance_ids(self, y: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.appearance_data.has("appearance_id"):
            return self.appearances.appearance_id[y]
        source = {"appearances": self.appearance_data.checksum}
        return np.array([_hash_id(source, int(row)) for row in self.appearances.rows[y]], np.int64)


def _hash_id(context: dict[str, Any], *numbers: int) -> int:
    """A 63-bit id, unique across files as far as hashes are."""
    text = json.dumps([context, *numbers], sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1

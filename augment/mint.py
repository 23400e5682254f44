"""One minted image: which rows give it, how it is drawn and checked, what its row says.

`handaug.augment.remix` says which images are kept and runs the whole job.
"""

import hashlib
import json
import struct
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handaug.augment.checker import Checkers, fingerprint, row_errors
from handaug.augment.codes import CodeFile, blend_appearances, decode_levels, encode_block, encode_poses, padded
from handaug.augment.fits import check_fits
from handaug.augment.pairing import Pairing
from handaug.augment.rarity import appearance_rarity
from handaug.augment.remix_config import PRIOR, RemixConfig, open_sources, requested
from handaug.augment.sources import UNKNOWN, SourceTable, prior_sources, read_sources
from handaug.data_specs.camera import flip_keypoints_2d
from handaug.data_specs.errors import InputError
from handaug.data_specs.schema import FIELDS, TRAIN
from handaug.models.dvae.api import Dvae
from handaug.models.dvae.data import read_poses
from handaug.models.methods import PoseAppearanceModel, load_run

__all__ = ["Judged", "Mint", "check_prior"]

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

_PRIOR_DRAWS = 4096

_RAREST = {"random": 1, "interpolate": 1, "coverage": 4}
"""How many times its even share a pose row may be asked for."""

_POSE_FILE_BYTES = 1 << 30
"""Pose codes of all rows may take so much of the disk; larger ones are made by each shard for itself."""

_Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass
class Judged:
    """What came of a block of pairs; first axis B."""

    images: NDArray[np.uint8]
    """(B, H, W, C)."""
    error: NDArray[np.float32]
    """Mean distance between estimate and label, pixels."""
    error_max: NDArray[np.float32]
    """Largest distance of a joint."""
    nearer: NDArray[np.bool_]
    """The estimate is nearer to the pose of a row that lent its appearance."""
    blind: NDArray[np.bool_]
    """The estimate is what the estimator answers where there is no hand."""
    keep: NDArray[np.bool_]
    second: NDArray[np.int64]
    """The second appearance of a blend, else the first."""
    weight: NDArray[np.float32]
    """Of the first."""


def check_prior(model: PoseAppearanceModel) -> None:
    """Raise InputError where a model has no appearances of its own to draw from."""
    if not (isinstance(model, Dvae) and model.draws_images):
        raise InputError(
            f"--appearances {PRIOR}: {model.method} has no prior over appearances; give a dataset, or --checkpoint a "
            "run of dvae or dvae-zu"
        )


class Mint:
    """The sources, the models and the rules, opened once in each process.

    Args:
        config: What from what.
        device: Where to compute.
        folder: Work folder in which another process has left the tables of the sources (`save_sources`).
    """

    def __init__(self, config: RemixConfig, device: str, folder: Path | None = None) -> None:
        self.config, self.device = config, device
        self.pose_data, self.appearance_data = open_sources(config)
        self.model: PoseAppearanceModel = load_run(config.disentangler, device=device)
        size = (self.model.size[0], self.model.size[1])
        check_fits(self.pose_data, size, self.model.channels, f"the disentangler {config.disentangler}")
        self.checkers = Checkers.load(config.checker, device=device)
        self.threshold = self.checkers.threshold_px if config.max_label_error is None else config.max_label_error
        if folder is None:
            self.poses, self.appearances = self._read_tables()
        else:
            self.poses, self.appearances = (SourceTable.load(path) for path in _table_paths(folder))
        weights = None
        if config.pairs == "coverage" and not config.from_prior:
            weights = appearance_rarity(self.appearances, config.seed)
        # As many as the tries of one image more than a row may be asked for.
        wanted = config.max_tries * (1 + config.n * _RAREST[config.pairs] // int(self.poses.labelled.sum()))
        self.pairing = Pairing(self.poses, self.appearances, config.seed, wanted=wanted, weights=weights)
        self.fields = [name for name in _COPIED if self.pose_data.has(name)]

    def _read_tables(self) -> tuple[SourceTable, SourceTable]:
        config = self.config
        poses = read_sources(self.pose_data, self.checkers.folds_of(self.pose_data))
        if isinstance(self.model, Dvae) and not self.model.reads_images:  # such poses are encoded from labels alone
            placed = read_poses(self.pose_data, self.model.config.root).placed.numpy()
            poses = replace(poses, labelled=poses.labelled & placed)
        if not poses.labelled.any():
            raise InputError(f"{config.poses}: none of its train rows is labelled; give labelled data as --poses")
        if config.from_prior:
            check_prior(self.model)
            wanted = 2 * config.max_tries * -(-config.n // int(poses.labelled.sum()))
            return poses, prior_sources(max(_PRIOR_DRAWS, wanted))
        fold = self.checkers.folds_of(self.appearance_data)
        other = self.appearance_data.checksum != self.pose_data.checksum
        return poses, read_sources(self.appearance_data, fold, other_file=other)

    def save_sources(self, folder: Path) -> None:
        """Leave the tables for other processes."""
        for table, path in zip((self.poses, self.appearances), _table_paths(folder), strict=True):
            table.save(path)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What makes the minted file what it is."""
        config = self.config
        return {
            **requested(config, self.pose_data, self.appearance_data),
            "max_label_error_px": self.threshold,
            "disentangler": fingerprint(config.disentangler),
            "checker": fingerprint(config.checker),
        }

    @cached_property
    def capacity(self) -> NDArray[np.int64]:
        """(poses,) images that each row can be minted into before the check."""
        count = [self.pairing.capacity(i) if ok else 0 for i, ok in enumerate(self.poses.labelled)]
        return np.array(count, np.int64)

    @property
    def mirrors(self) -> bool:
        """Whether any appearance has to be mirrored for any pose."""
        sides = set(np.unique(self.appearances.handedness).tolist()) - {UNKNOWN}
        other = any(side != mine for side in sides for mine in np.unique(self.poses.handedness).tolist())
        return self.pairing.mirrors and other

    @cached_property
    def pose_code_bytes(self) -> int:
        """Bytes of one pose code as it is kept."""
        return int(
            encode_poses(self.model, self.pose_data, np.flatnonzero(self.poses.labelled)[:1], self.device).nbytes
        )

    def code_files(self, folder: Path) -> dict[bool, CodeFile]:
        """The appearance codes, plain (False) and mirrored (True)."""
        if self.config.from_prior:
            assert isinstance(self.model, Dvae)
            shape = tuple(self.model.prior_appearance(1, 0).shape[1:])
        else:
            image = self.appearance_data.read("images", slice(0, 1))
            shape = encode_block(self.model, image, "appearance", self.device).shape[1:]
        names = {False: "codes-appearance.f16", **({True: "codes-mirrored.f16"} if self.mirrors else {})}
        return {flag: CodeFile(folder / name, len(self.appearances), shape) for flag, name in names.items()}

    def pose_file(self, folder: Path) -> CodeFile | None:
        """The pose codes, where the rows that lend appearance are those that give poses: one look at an image gives
        both. None where each shard encodes its own.
        """
        config = self.config
        same = not config.from_prior and self.pose_data.checksum == self.appearance_data.checksum
        if not same or isinstance(self.model, Dvae) or self.pose_code_bytes * len(self.poses) > _POSE_FILE_BYTES:
            return None
        image = self.pose_data.read("images", slice(0, 1))
        shape = encode_block(self.model, image, "pose", self.device).shape[1:]
        return CodeFile(folder / "codes-pose.f16", len(self.poses), shape)

    def open_codes(self, folder: Path) -> None:
        """Use the codes of a work folder."""
        self.codes, self.pose_codes = self.code_files(folder), self.pose_file(folder)

    def open_poses(self, poses: NDArray[np.int64]) -> None:
        """Have the codes of the pose rows that are drawn next at hand."""
        self._place = np.full(len(self.poses), -1, np.int64)
        self._place[poses] = np.arange(len(poses))
        if self.pose_codes is not None:
            self._drawn = self.pose_codes.read(poses)
        else:
            self._drawn = encode_poses(self.model, self.pose_data, poses, self.device)

    def judge(self, pose: NDArray[np.int64], appearance: NDArray[np.int64]) -> Judged:
        """Draw and check a block of pairs."""
        second, weight = appearance, np.ones(len(pose), np.float32)
        if self.config.pairs == "interpolate":
            second, weight = self.pairing.partners(pose, appearance)
        levels = self._draw(*self._tensors(pose, self._lend(pose, appearance, second, weight)))[: len(pose)]
        number = self.pairing.checker_of(pose, appearance)
        images = np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())
        found, empty = np.empty((len(pose), 21, 2), np.float32), np.empty((len(pose), 21, 2), np.float32)
        for k in (0, 1):
            if (mine := np.flatnonzero(number == k)).size:
                # Most blocks are checked by one estimator: those are not copied.
                whole = levels if len(mine) == len(levels) else levels[torch.from_numpy(mine).to(levels.device)]
                found[mine] = self.checkers.predict(k, whole)
                empty[mine] = self.checkers.of_empty_images(k, images[mine])
        true, seen = self.poses.keypoints_2d[pose], self.poses.visibility[pose] > 0
        error = row_errors(found, true, seen)
        error_max = np.where(seen, np.linalg.norm(found - true, axis=-1), 0).max(1).astype(np.float32)
        nearer = self._distance_to(found, pose, appearance) < error
        if self.config.pairs == "interpolate":
            nearer |= self._distance_to(found, pose, second) < error
        blind = row_errors(found, empty, seen) < self.checkers.empty_px
        if self.config.check:
            keep = (error <= self.threshold) & ~nearer & ~blind
        else:
            nearer, blind, keep = (np.full(len(pose), answer) for answer in (False, False, True))
        return Judged(images, error, error_max, nearer, blind, keep, second, weight)

    def mirrored(self, pose: NDArray[np.int64], appearance: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each appearance is used as its mirror image: its side is known, and it is the other one."""
        side = self.appearances.handedness[appearance]
        turned: NDArray[np.bool_] = (side != UNKNOWN) & (side != self.poses.handedness[pose])
        return turned

    def _distance_to(
        self, found: NDArray[np.float32], pose: NDArray[np.int64], appearance: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Mean distance from the estimate to the label of the row that lent its appearance, as that row was used;
        infinite where it has none.
        """
        other = self.appearances.keypoints_2d[appearance]
        turned = flip_keypoints_2d(other, self.pose_data.size[1])
        other = np.where(self.mirrored(pose, appearance)[:, None, None], turned, other)
        distance = row_errors(found, other, self.appearances.visibility[appearance])
        return np.where(np.isfinite(distance), distance, np.float32(np.inf))

    def _lend(
        self,
        pose: NDArray[np.int64],
        first: NDArray[np.int64],
        second: NDArray[np.int64],
        weight: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        codes = self._codes_of(pose, first)
        return codes if second is first else blend_appearances(self.model, codes, self._codes_of(pose, second), weight)

    def _codes_of(self, pose: NDArray[np.int64], appearance: NDArray[np.int64]) -> NDArray[np.float32]:
        mirrored = self.mirrored(pose, appearance)
        codes = np.empty((len(pose), *self.codes[False].shape), np.float32)
        for flag, file in self.codes.items():
            if (mirrored == flag).any():
                codes[mirrored == flag] = file.get(appearance[mirrored == flag])
        return codes

    def _tensors(self, pose: NDArray[np.int64], codes: NDArray[np.float32]) -> _Tensors:
        distinct, which = np.unique(pose, return_inverse=True)
        given = padded(self._drawn[self._place[distinct]], 4)
        return (
            torch.from_numpy(given).to(self.device).float(),
            torch.from_numpy(padded(which.reshape(-1))).to(self.device),
            torch.from_numpy(padded(codes)).to(self.device),
        )

    def _draw(self, given: torch.Tensor, which: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W) uint8 on the device."""
        return decode_levels(self.model, given, which, codes)

    def tensors(self, pose: NDArray[np.int64], appearance: NDArray[np.int64]) -> _Tensors:
        """What `forward` takes for a block of pairs: pose codes, the pose of each image, appearance codes."""
        return self._tensors(pose, self._codes_of(pose, appearance))

    def forward(
        self, number: int, given: torch.Tensor, which: torch.Tensor, codes: torch.Tensor
    ) -> NDArray[np.float32]:
        """Decoder and estimator `number` alone, which no remix can be faster than; keypoints (B, 21, 2) in pixels."""
        return self.checkers.predict(number, self._draw(given, which, codes))

    def rows(self, pose: NDArray[np.int64], appearance: NDArray[np.int64], judged: Judged) -> dict[str, NDArray[Any]]:
        """File rows of the kept pairs of a block."""
        keep = judged.keep
        x, y, second = pose[keep], appearance[keep], judged.second[keep]
        distinct, which = np.unique(x, return_inverse=True)
        rows = {
            name: self.pose_data.read(name, distinct)[which] if FIELDS[name].pixels else self._labels[name][x]
            for name in self.fields
        }
        sources = [self.poses.rows[x], self.appearances.rows[y]]
        blended = self.config.pairs == "interpolate"
        if blended:
            sources.append(self.appearances.rows[second])
        rows["images"] = judged.images[keep]
        rows["split"] = np.full(len(x), TRAIN, np.uint8)
        rows["appearance_id"] = self._appearance_ids(y, second, judged.weight[keep])
        rows["image_id"] = _hash_ids(self._image_context, np.stack(sources, 1))
        rows["provenance/pose_source"] = sources[0]
        rows["provenance/appearance_source"] = sources[1]
        rows["provenance/pose_picture"] = self.poses.picture[x]
        rows["provenance/appearance_picture"] = self.appearances.picture[y]
        if blended:
            rows["provenance/appearance_source_2"] = sources[2]
            rows["provenance/appearance_picture_2"] = self.appearances.picture[second]
            rows["provenance/appearance_weight"] = judged.weight[keep]
        rows["provenance/label_error_px"] = judged.error[keep]
        rows["provenance/label_error_max_px"] = judged.error_max[keep]
        return rows

    @property
    def written(self) -> list[str]:
        """Fields of a minted file beside the required ones."""
        provenance = ["pose_source", "appearance_source", "pose_picture", "appearance_picture"]
        provenance += ["label_error_px", "label_error_max_px"]
        if self.config.pairs == "interpolate":
            provenance += ["appearance_source_2", "appearance_weight", "appearance_picture_2"]
        return [*self.fields, "appearance_id", "image_id", *(f"provenance/{name}" for name in provenance)]

    @cached_property
    def _labels(self) -> dict[str, NDArray[Any]]:
        """Labels of all pose rows: read as a whole, since rows one by one cost more than drawing the image."""
        return {name: self.pose_data.read(name) for name in self.fields if not FIELDS[name].pixels}

    @cached_property
    def _image_context(self) -> bytes:
        return _context(self.identity)

    def _appearance_ids(
        self, first: NDArray[np.int64], second: NDArray[np.int64], weight: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Those of the file that lends; a blend or a draw from the prior is an appearance of its own."""
        rows = self.appearances.rows
        if self.config.from_prior:
            lends = {"disentangler": self.identity["disentangler"], "prior": self.config.seed}
        else:
            lends = {"appearances": self.appearance_data.checksum}
        if self.config.pairs == "interpolate":
            bits = weight.view(np.int32).astype(np.int64)
            parts = np.stack([rows[first], rows[second], bits], 1)
            return _hash_ids(_context({**lends, "blend": True}), parts)
        if not self.config.from_prior and self.appearance_data.has("appearance_id"):
            return self.appearances.appearance_id[first]
        return _hash_ids(_context(lends), rows[first][:, None])


def _table_paths(folder: Path) -> tuple[Path, Path]:
    return folder / "sources-poses.npz", folder / "sources-appearances.npz"


def _context(values: dict[str, Any]) -> bytes:
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode()).digest()


def _hash_ids(context: bytes, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """63-bit ids of rows of numbers (N, K), unique across files as far as hashes are."""
    ids = [
        int.from_bytes(hashlib.blake2b(context + struct.pack(f"<{len(row)}q", *row), digest_size=8).digest(), "big")
        >> 1
        for row in numbers.tolist()
    ]
    return np.array(ids, np.int64)

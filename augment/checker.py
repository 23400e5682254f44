"""Independent estimators that check minted labels, cross-fitted so that none has seen what it judges.

The split-0 rows are cut into two folds. Rows that share a group, a pose or a frame always lie in the same fold;
everything else follows a seeded draw that balances the row counts. Estimator k is trained on the rows *outside* fold
k, and a minted image takes pose and appearance from rows of one fold k and is judged by estimator k. What holds, and
what does not:

* Neither source row, nor any row of their groups, poses or frames, was ever in estimator k's training.
* The estimator shares no weight, loss or seed with the disentangler: it is an estimator of the registry, trained by
  itself on real rows.
* It may know the *lighting and background* of y from other poses, since a rendered pool of appearances is shared by
  all poses (folds without a common appearance would not exist). Light says nothing about where the joints of x are,
  so the check stays one of the pose.
* No minted image is ever trained on, and its weights are those of the last step: nothing is chosen on the rows it
  will judge.

The error that estimator k makes on the untouched images of fold k is stored; its 90th percentile over both folds is
the default threshold. So is the distance of its answers from what it says of an empty image: an answer nearer to that
than all but 5 % of those for true images counts as "no hand seen".
"""

import hashlib
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handaug.augment.codes import PAD_ROWS, padded
from handaug.augment.parallel import run_trainings
from handaug.data_specs.errors import InputError
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.models.checkpoint import CONFIG, WEIGHTS, load_model, save_model
from handaug.models.estimators import Estimator, build_estimator, load_estimator, save_estimator
from handaug.models.fit import fit_estimator, predict_keypoints
from handaug.models.loop import STATE
from handaug.models.metrics import keypoint_distances
from handaug.models.run_folder import RunFolder

__all__ = [
    "CheckerConfig",
    "Checkers",
    "THRESHOLD_PERCENTILE",
    "default_checker_config",
    "estimate",
    "fingerprint",
    "row_errors",
    "train_checkers",
]

THRESHOLD_PERCENTILE = 90.0
EMPTY_PERCENTILE = 5.0
_TRAINING_SEED = 22
_PREDICT_ROWS = 256
_GREYS = 17


@dataclass(frozen=True)
class CheckerConfig:
    """How the two estimators are trained."""

    estimator: str = "compact"
    """Name in the registry of estimators."""
    width: int | None = None
    """Channels of its first level; its own default if None."""
    steps: int = 4000
    """Optimiser steps of each of the two."""
    batch_size: int = 16
    """Rows in a step: small, because many steps teach more than many rows."""
    lr: float = 2e-3
    """Highest learning rate."""
    seed: int = 0
    """Of the folds, the initialisation and the order."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"checker steps {self.steps}: train at least 1 step")


def default_checker_config(device: str) -> CheckerConfig:
    """Settings of a bare command: as many steps as two cores do in about four minutes at 64 px; wider on a GPU."""
    return CheckerConfig(width=64, steps=12000, batch_size=64) if device.startswith("cuda") else CheckerConfig()


def fingerprint(folder: Path) -> str:
    """SHA-256 over names and contents of the safetensors files below a folder, wherever the folder lies."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def row_errors(predicted: NDArray[Any], true: NDArray[Any], visibility: NDArray[Any]) -> NDArray[np.float32]:
    """Mean Euclidean distance in pixels over the joints with visibility >= 1; (N,), NaN where none is labelled."""
    distances = keypoint_distances(predicted, true, visibility)
    labelled = np.isfinite(distances)
    total = np.where(labelled, distances, 0).sum(1)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float32] = (total / np.where(labelled.any(1), labelled.sum(1), np.nan)).astype(np.float32)
    return mean


def estimate(estimator: Estimator, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Keypoints (N, 21, 2) in pixels of uint8 NHWC images."""
    pixels = torch.from_numpy(np.ascontiguousarray(padded(images).transpose(0, 3, 1, 2)))
    return predict_keypoints(estimator.eval(), pixels, batch_size=_PREDICT_ROWS).numpy()[: len(images)]


def _settings(data: HandDataset, config: CheckerConfig) -> dict[str, Any]:
    """What makes a checker what it is; paths are no part of it."""
    height, width = data.size
    return {
        "kind": "checker",
        **asdict(config),
        "data_checksum": data.checksum,
        "size": [height, width],
        "channels": data.channels,
    }


def train_checkers(
    data: Path,
    out: Path,
    config: CheckerConfig,
    *,
    device: str = "cpu",
    overwrite: bool = False,
    progress: Progress = SILENT,
    workers: int | None = None,
) -> Path:
    """Train the two estimators on the train split of a dataset.

    Args:
        data: Dataset with labelled split-0 rows.
        out: Folder of the checker; a fold that is trained is not trained again after an interruption.
        config: Settings.
        device: Where to train.
        overwrite: Whether a checker of other settings may be replaced.
        progress: Told of the steps.
        workers: Processes on a CPU, one per core by default; it changes nothing of the result.

    Returns:
        `out`.

    Raises:
        InputError: Too few labelled rows, or `out` holds something else.
    """
    view = HandDataset(data, split="train")
    labelled = (view.read("visibility") > 0).any(1)
    from handaug.augment.folds import cut_folds  # SciPy's graphs, which nobody needs who only checks

    settings = _settings(view, config)
    ids = [view.read(name) if view.has(name) else -1 - view.rows for name in ("group", "pose_id", "image_id")]
    fold = cut_folds(ids[0], ids[1], ids[2], labelled, config.seed)
    if min((labelled & (fold == k)).sum() for k in (0, 1)) == 0:
        raise InputError(f"{data}: a checker needs labelled train rows of at least two groups; add data")
    run = RunFolder.open(out, settings, overwrite=overwrite)
    if run is None:
        return out
    with run:
        _train_both(view, fold, labelled, ids, settings, config, run.folder, device, progress, workers)
        return run.finish()


def _train_both(
    view: HandDataset,
    fold: NDArray[np.int8],
    labelled: NDArray[np.bool_],
    ids: list[NDArray[np.int64]],
    settings: dict[str, Any],
    config: CheckerConfig,
    work: Path,
    device: str,
    progress: Progress,
    workers: int | None,
) -> None:
    """Train estimator 0 and 1, measure each on the fold it never saw, write what they saw and the threshold."""
    run_trainings(
        [
            partial(
                _train_fold,
                HandDataset(view.path, rows=view.rows[labelled & (fold == 1 - k)]),
                work / f"fold-{k}",
                config,
                k,
                device,
            )
            for k in (0, 1)
        ],
        steps=2 * config.steps,
        label="two checkers",
        device=device,
        progress=progress,
        workers=workers,
    )
    held_out = []
    for k in (0, 1):
        estimator, _ = load_estimator(work / f"fold-{k}", device)
        held_out.append(_held_out_errors(estimator, HandDataset(view.path, rows=view.rows[labelled & (fold == k)])))
    errors, from_empty = (np.concatenate(both) for both in zip(*held_out, strict=True))
    kin = fold >= 0  # unlabelled rows too: an estimator may not judge what shares a scene with its lessons
    tensors = {
        "rows": torch.from_numpy(view.rows[kin]),
        "fold": torch.from_numpy(fold[kin]),
        "group": torch.from_numpy(ids[0][kin]),
        "pose_id": torch.from_numpy(ids[1][kin]),
    }
    threshold = float(np.percentile(errors, THRESHOLD_PERCENTILE))
    quantiles = {str(q): float(np.percentile(errors, q)) for q in (10, 50, 90, 99)}
    measured = {
        "threshold_px": threshold,
        "held_out_percentiles_px": quantiles,
        "empty_px": float(np.percentile(from_empty, EMPTY_PERCENTILE)),
    }
    save_model(work, tensors, {**settings, **measured})
    progress.note(
        f"checker: held-out error {quantiles['50']:.2f} px median, threshold {threshold:.2f} px (90th percentile)"
    )


def _train_fold(
    seen: HandDataset, folder: Path, config: CheckerConfig, fold: int, device: str, progress: Progress
) -> None:
    """Train the estimator that checks `fold` on `seen`, unless that was done before."""
    if (folder / CONFIG).exists():
        with progress.task(folder.name, config.steps, "steps") as advance:
            advance(config.steps)
        return
    # Training loads much that those who only check do without.
    from handaug.augment.batches import RowPool, TrainingBatches
    from handaug.augment.prefetch import makers
    from handaug.augment.transforms import TrainTransform

    pool = RowPool([seen])
    seed = int(np.random.SeedSequence(config.seed, spawn_key=(_TRAINING_SEED, fold)).generate_state(1)[0])
    torch.manual_seed(seed)
    estimator = build_estimator(
        config.estimator,
        size=pool.size,
        channels=pool.channels,
        **({} if config.width is None else {"width": config.width}),
    )
    fit_estimator(
        estimator,
        TrainingBatches(
            pool,
            batch_size=config.batch_size,
            seed=seed,
            transform=TrainTransform("light", flips=pool.both_hands),
            processes=makers(device),
        ),
        steps=config.steps,
        lr=config.lr,
        checkpoints=1,
        validate=None,
        device=device,
        state=folder / STATE,
        progress=progress,
        label=f"checker {fold + 1} of 2",
    )
    save_estimator(folder, estimator, {"checks_fold": fold, "steps": config.steps})
    (folder / STATE).unlink(missing_ok=True)


def _held_out_errors(estimator: Estimator, unseen: HandDataset) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance of each row's estimate from its label, and from what the estimator answers for an empty image."""
    errors, from_empty = [], []
    answers = _empty_answers(estimator, unseen.size, unseen.channels)
    for block in unseen.iter_batches(_PREDICT_ROWS, ["images", "keypoints_2d", "visibility"]):
        predicted = estimate(estimator, block["images"])
        errors.append(row_errors(predicted, block["keypoints_2d"], block["visibility"]))
        from_empty.append(row_errors(predicted, answers[_grey_level(block["images"])], block["visibility"]))
    return np.concatenate(errors), np.concatenate(from_empty)


def _empty_answers(estimator: Estimator, size: tuple[int, int], channels: int) -> NDArray[np.float32]:
    """Keypoints (17, 21, 2) of even images of 17 brightnesses."""
    grey = np.round(np.linspace(0, 255, _GREYS)).astype(np.uint8)
    return estimate(
        estimator, np.ascontiguousarray(np.broadcast_to(grey[:, None, None, None], (_GREYS, *size, channels)))
    )


def _grey_level(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Which of the 17 brightnesses is nearest to each image's mean."""
    level: NDArray[np.int64] = np.round(images.mean((1, 2, 3)) / 255 * (_GREYS - 1)).astype(np.int64)
    return level


class Checkers:
    """The two trained estimators and what each of them has seen. Get one from `load`."""

    def __init__(self, folder: Path, device: str) -> None:
        tensors, info = load_model(folder, "checker")
        self.folder = folder
        try:
            self.size: tuple[int, int] = (int(info["size"][0]), int(info["size"][1]))
            self.channels = int(info["channels"])
            self.threshold_px, self.empty_px = float(info["threshold_px"]), float(info["empty_px"])
            self.data_checksum = str(info["data_checksum"])
            self.held_out_percentiles_px = {str(q): float(px) for q, px in info["held_out_percentiles_px"].items()}
            self._rows: NDArray[np.int64] = tensors["rows"].numpy()
            self._fold: NDArray[np.int8] = tensors["fold"].numpy()
            self._ids = {"pose_id": tensors["pose_id"].numpy(), "group": tensors["group"].numpy()}
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise InputError(f"{folder}: is damaged ({error}); train the checker again") from error
        tables = (self._rows, *self._ids.values())
        if not (len(self._fold) and all(len(table) == len(self._fold) for table in tables)):
            raise InputError(f"{folder / WEIGHTS}: is damaged (tables of different lengths); train the checker again")
        if not np.isfinite([self.threshold_px, self.empty_px]).all():
            raise InputError(f"{folder / CONFIG}: is damaged (thresholds are not finite); train the checker again")
        self._empty: dict[int, NDArray[np.float32]] = {}
        self._estimators = [load_estimator(folder / f"fold-{k}", device)[0] for k in (0, 1)]

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> "Checkers":
        """Read a checker's folder.

        Raises:
            InputError: It is no finished checker.
        """
        return cls(folder, device)

    @property
    def seen(self) -> dict[str, NDArray[np.int64]]:
        """Groups and poses of the rows that either estimator learned from, and of their unlabelled relatives."""
        return {field: np.unique(ids) for field, ids in self._ids.items()}

    def folds_of(self, data: HandDataset) -> NDArray[np.int8]:
        """The fold that holds each row of a dataset view.

        Rows of the checker's own file are known by number, rows of other files by `pose_id` (unique across files) and
        `group`.

        Returns:
            (N,) 0 or 1: estimator number 0 or 1 never saw the row, the other did; -1: neither saw it.

        Raises:
            InputError: The data does not fit the checker, or both estimators saw rows of a row's pose or group.
        """
        if data.size != self.size or data.channels != self.channels:
            raise InputError(
                f"{self.folder}: checks {self.size[0]} x {self.size[1]} px with {self.channels} channels, "
                f"{data.path} has {data.size[0]} x {data.size[1]} px with {data.channels}; give data of that size, or "
                "move the folder away and remix trains one anew"
            )
        if data.checksum == self.data_checksum:
            return _look_up(self._rows, self._fold, data.rows)
        known = [_look_up(self._ids[n], self._fold, data.read(n)) for n in ("pose_id", "group") if data.has(n)]
        lowest = np.min(np.where(np.stack(known) < 0, 2, known), axis=0)
        highest: NDArray[np.int8] = np.max(known, axis=0)
        torn = (lowest < 2) & (lowest != highest)
        if torn.any():
            raise InputError(
                f"{self.folder}: both of its estimators saw relatives of row {int(data.rows[torn.argmax()])} of "
                f"{data.path}, so "
                "none can check it; train a checker on this data"
            )
        return highest

    def of_empty_images(self, number: int, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What estimator `number` answers where there is nothing to see: an even grey of each image's mean brightness.

        Returns:
            (N, 21, 2) pixels; brightness is rounded to one of 17 levels.
        """
        if number not in self._empty:
            self._empty[number] = _empty_answers(self._estimators[number], self.size, self.channels)
        answers: NDArray[np.float32] = self._empty[number][_grey_level(images)]
        return answers

    def predict(self, number: int, images: Tensor) -> NDArray[np.float32]:
        """Keypoints (N, 21, 2) in pixels by estimator `number` of uint8 images (N, C, H, W), on any device."""
        missing = -len(images) % PAD_ROWS
        whole = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
        return predict_keypoints(self._estimators[number], whole).numpy()[: len(images)]


def _look_up(keys: NDArray[np.int64], values: NDArray[np.int8], wanted: NDArray[np.int64]) -> NDArray[np.int8]:
    """values[keys == wanted] for each wanted key, -1 where there is none."""
    order = np.argsort(keys, kind="stable")
    place = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    found = keys[order][place] == wanted
    return np.where(found, values[order][place], -1).astype(np.int8)

"""One run of a gain experiment: an arm, a seed, an estimator trained on it, its best checkpoint on validation.

Arms differ in one thing each. Within a seed every arm starts from the same weights, takes the same number of steps (of
several lengths: each of them) of the same size, fills its real slots in the same order, mirrors rows or not as the
others do, and chooses among the same number of checkpoints on the same validation rows. Nothing is stopped early, and
there is one setting for all arms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handaug.augment.batches import RowPool, TrainingBatches
from handaug.augment.prefetch import makers
from handaug.augment.transforms import TrainTransform
from handaug.data_specs.errors import InputError
from handaug.data_specs.progress import Progress
from handaug.data_specs.reader import HandDataset
from handaug.models.checkpoint import CONFIG, read_config
from handaug.models.estimators import Estimator, build_estimator, load_backbone, load_estimator, save_estimator
from handaug.models.estimators.base import KIND
from handaug.models.estimators.plugins import named_failures
from handaug.models.estimators.predict import Prediction, predict
from handaug.models.fit import fit_estimator
from handaug.models.loop import STATE
from handaug.models.metrics import keypoint_distances
from handaug.models.seen import write_seen

__all__ = [
    "ARMS",
    "BASELINE",
    "CANDIDATE",
    "FURTHER_ARMS",
    "Arm",
    "Recipe",
    "Training",
    "make_estimator",
    "parse_further",
    "predict_run",
    "train_run",
    "validation_of",
]

_RUN_SEED = 51
_PREDICT_ROWS = 256

BASELINE, CANDIDATE = "real+albumentations", "real+minted+albumentations"
"""The two arms of the headline."""


@dataclass(frozen=True)
class Arm:
    """What an arm trains on."""

    name: str
    """As in gain.json."""
    extra: tuple[str, ...]
    """Rows beside the real ones, each as likely as any other: of `minted`, `renders`, `unchecked`."""
    transformed: bool
    """Whether the albumentations pipeline runs."""
    alone: bool = False
    """Whether the extra rows take all slots and no real row is seen."""


ARMS = (
    Arm("real", (), transformed=False),
    Arm(BASELINE, (), transformed=True),
    Arm("real+minted", ("minted",), transformed=False),
    Arm(CANDIDATE, ("minted",), transformed=True),
)
"""The four arms of every experiment."""

FURTHER_ARMS = (
    Arm("real+renders+albumentations", ("renders",), transformed=True),
    Arm("real+renders+minted+albumentations", ("renders", "minted"), transformed=True),
    Arm("renders+albumentations", ("renders",), transformed=True, alone=True),
    Arm("minted+albumentations", ("minted",), transformed=True, alone=True),
    Arm("real+unchecked+albumentations", ("unchecked",), transformed=True),
)
"""Arms on demand: renders beside real rows, with and without minted ones, renders alone, minted rows alone, rows minted
without the label check."""


def parse_further(text: str) -> tuple[Arm, ...]:
    """Further arms by name, separated by commas, with or without "+albumentations"; in the order of `FURTHER_ARMS`.

    Example:
        >>> [arm.name for arm in parse_further("renders")]
        ['renders+albumentations']
    """
    known = {arm.name: arm for arm in FURTHER_ARMS}
    words = [word.strip() for word in text.split(",") if word.strip()]
    wanted = {word if word in known else f"{word}+albumentations" for word in words}
    if wanted - set(known):
        short = ", ".join(name.removesuffix("+albumentations") for name in known)
        unknown = sorted(wanted - set(known))[0].removesuffix("+albumentations")
        raise InputError(f"--arms {text}: {unknown!r} is no further arm; choose from {short}")
    return tuple(arm for arm in FURTHER_ARMS if arm.name in wanted)


@dataclass(frozen=True)
class Recipe:
    """How an estimator comes to be."""

    name: str
    """Name in the registry or of an entry point, `module:factory`, or the folder of a checkpoint to go on from."""
    width: int | None = None
    """Channels of a registered estimator's first level."""
    backbone: Path | None = None
    """Weights of its backbone."""
    trust: str | None = None
    """The module:factory that may be imported where the checkpoint to go on from names one."""

    @property
    def start(self) -> Path | None:
        """The checkpoint to go on from, if `name` is one."""
        return Path(self.name) if (Path(self.name) / CONFIG).is_file() else None


@dataclass(frozen=True)
class Training:
    """What all arms share."""

    recipe: Recipe
    steps: int
    batch_size: int
    lr: float
    checkpoints: int
    minted_fraction: float
    device: str
    flips: bool
    """Whether the albumentations pipeline mirrors half of the rows: one answer for all arms, whatever their rows."""
    precision: str = "32-true"


def make_estimator(recipe: Recipe, size: tuple[int, int], channels: int) -> Estimator:
    """Build an estimator; random weights come from torch's global generator.

    Args:
        recipe: What to build.
        size: Image height and width.
        channels: 1 or 3.

    Raises:
        InputError: Unknown name, weights that do not fit, or a module that does not do what an estimator does.
    """
    start = recipe.start
    if start is None:
        settings = {} if recipe.width is None else {"width": recipe.width}
        estimator = build_estimator(recipe.name, size=size, channels=channels, **settings)
    else:
        estimator, _ = load_estimator(start, trust=recipe.trust, flag="--trust")
        if estimator.size != size or estimator.channels != channels:
            height, width = estimator.size
            raise InputError(
                f"--estimator {start}: takes {width}x{height} px with {estimator.channels} channels, the data has "
                f"{size[1]}x{size[0]} px with {channels}; give a checkpoint of that size"
            )
    if recipe.backbone is not None:
        load_backbone(estimator, recipe.backbone)
    return estimator


def _predict(estimator: Estimator, rows: RowPool, views: int = 1) -> Prediction:
    """Places of all rows."""
    parts = []
    for begin in range(0, len(rows), _PREDICT_ROWS):
        index = np.arange(begin, min(begin + _PREDICT_ROWS, len(rows)))
        parts.append(predict(estimator, rows.images(index), views))
    spatial = [part.keypoints_3d for part in parts if part.keypoints_3d is not None]
    return Prediction(np.concatenate([part.keypoints for part in parts]), np.concatenate(spatial) if spatial else None)


def _mean_error(estimator: Estimator, rows: RowPool) -> float:
    """Mean joint error in pixels."""
    found = _predict(estimator, rows).keypoints
    return float(np.nanmean(keypoint_distances(found, rows.keypoints_2d, rows.visibility)))


def train_run(
    folder: Path,
    arm: Arm,
    number: int,
    seed: int,
    training: Training,
    real: RowPool,
    extra: RowPool | None,
    validation: RowPool,
    learned_from: Sequence[HandDataset],
    progress: Progress,
) -> None:
    """Train one arm with one seed and store its best checkpoint; nothing is done where it lies there already, and a
    run that was killed goes on.

    Args:
        folder: Of the checkpoint.
        arm: What to train on.
        number: Of the seed, from 0.
        seed: Of the experiment.
        training: What all arms share.
        real: Real rows.
        extra: The arm's extra rows.
        validation: Rows on which the checkpoint is chosen.
        learned_from: What the checkpoint will say it has seen.
        progress: Told of the steps.
    """
    if (folder / CONFIG).exists():
        with progress.task(folder.name, training.steps, "steps") as advance:
            advance(training.steps)
        return
    from lightning_fabric.utilities.seed import seed_everything  # seconds to import, as in `models.fabric`

    own = int(np.random.SeedSequence(seed, spawn_key=(_RUN_SEED, number)).generate_state(1)[0])
    seed_everything(own, verbose=False)  # the same initialisation in every arm, whatever a factory draws from
    estimator = make_estimator(training.recipe, real.size, real.channels)
    with named_failures(estimator):
        result = fit_estimator(
            estimator,
            TrainingBatches(
                real,
                batch_size=training.batch_size,
                seed=own,
                minted=extra if arm.extra else None,
                minted_fraction=1.0 if arm.alone else training.minted_fraction,
                transform=TrainTransform("standard", flips=training.flips) if arm.transformed else None,
                processes=makers(training.device),
            ),
            steps=training.steps,
            lr=training.lr,
            checkpoints=training.checkpoints,
            validate=lambda model: _mean_error(model, validation),
            device=training.device,
            precision=training.precision,
            state=folder / STATE,
            progress=progress,
            label=f"{arm.name}, seed {number}, {training.steps:,} steps",
        )
    info = {"arm": arm.name, "seed": number, "steps": training.steps, "validation_px": list(result.validation)}
    write_seen(folder, learned_from, training.recipe.start)
    save_estimator(folder, estimator, info)
    (folder / STATE).unlink(missing_ok=True)


def predict_run(folder: Path, recipe: Recipe, rows: RowPool, device: str, views: int = 1) -> Prediction:
    """Places in all rows by a stored run, from so many views of each image."""
    estimator, _ = load_estimator(folder, device, trust=recipe.trust or recipe.name)
    return _predict(estimator, rows, views)


def validation_of(folder: Path) -> list[float]:
    """Validation error in pixels at each checkpoint of a stored run."""
    return [float(value) for value in read_config(folder, KIND)["info"]["validation_px"]]

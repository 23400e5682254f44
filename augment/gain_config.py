"""What a gain experiment compares: its settings, its data opened and checked, and what makes it the same one again."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from handaug.augment.batches import RowPool, check_share
from handaug.augment.budgets import parse_budgets
from handaug.augment.checker import CheckerConfig
from handaug.augment.fits import check_fits
from handaug.augment.gain_runs import ARMS, Arm, Recipe, parse_further
from handaug.augment.leaks import check_leaks
from handaug.augment.transforms import named_transforms
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.models.checkpoint import CONFIG, WEIGHTS
from handaug.models.disentangle.config import DisentangleConfig
from handaug.models.estimators import Estimator
from handaug.models.estimators.plugins import source_digest
from handaug.models.fabric import check_precision
from handaug.models.seen import check_seen

__all__ = ["GainConfig", "GainData", "check_start", "default_training", "identity", "open_data", "parse_steps"]

_FILES = ("real", "minted", "test", "renders", "unchecked", "backbone")


def default_training(device: str) -> dict[str, int]:
    """Steps and batch size of a bare command: what two cores do at 64 px in ten to twenty minutes for all runs, more
    on a GPU.

    Small batches: in the same time a batch of 16 takes four times the steps of one of 64, which is worth more as long
    as nothing has converged (docs/results.md).
    """
    return {"steps": 10_000, "batch_size": 64} if device.startswith("cuda") else {"steps": 2400, "batch_size": 16}


def parse_steps(text: str) -> tuple[int, ...]:
    """Optimiser steps, or several lengths separated by commas, in any order.

    Example:
        >>> parse_steps("4000,1000")
        (1000, 4000)

    Raises:
        InputError: Something else.
    """
    try:
        return tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError as error:
        raise InputError(f"--steps {text}: give a number, or several with commas between, like 1000,4000") from error


@dataclass(frozen=True)
class GainConfig:
    """The experiment."""

    real: Path
    """Labelled data whose train split all arms share and whose val split chooses checkpoints (--real)."""
    minted: Path
    """Minted data (--minted)."""
    test: Path | None = None
    """Data whose test split measures (--test); that of `real` by default."""
    renders: Path | None = None
    """Rendered data whose train split the arms with renders learn from (--renders)."""
    unchecked: Path | None = None
    """Data minted without the label check, for the arm of that name (--unchecked)."""
    arms: str = ""
    """Further arms, comma-separated (--arms)."""
    estimator: str = "compact"
    """Registry name, entry point, module:factory, or a checkpoint to go on from (--estimator)."""
    width: int | None = None
    """Channels of a registered estimator's first level; its own default if None."""
    backbone: Path | None = None
    """Weights of a ResNet's backbone (--backbone)."""
    trust: str | None = None
    """The module:factory that may be imported where the checkpoint to go on from names one (--trust)."""
    seeds: int = 3
    """Seeds of each arm (--seeds)."""
    steps: tuple[int, ...] = (4000,)
    """Optimiser steps of each run (--steps). Of several lengths every arm is trained at each, and counts at the one
    that is best for it on validation."""
    batch_size: int = 16
    """Rows in a step (--batch-size)."""
    lr: float = 2e-3
    """Learning rate, the same in every arm (--lr)."""
    precision: str = "32-true"
    """Of the arithmetic (--precision)."""
    checkpoints: int = 5
    """Checkpoints of which each run keeps the best on validation."""
    minted_fraction: float = 0.25
    """Share of the batch that minted rows, or renders, take beside real ones (--minted-fraction)."""
    weight_scale: float | None = None
    """Label error in pixels at which a minted row counts half; all count alike if None (--weight-scale)."""
    label_budgets: str = "all"
    """Comma-separated numbers of poses, or all (--label-budgets)."""
    seed: int = 0
    """Of everything (--seed)."""
    replicates: int = 4000
    """Bootstrap draws."""
    real_is_rendered: bool = False
    """No real labels were given: the renders play real, and the report says so."""
    demo: bool = False
    """A run too small to prove a gain; the report says so."""
    checker: CheckerConfig = field(default_factory=CheckerConfig)
    """Checkers of the smaller budgets."""
    disentangle: DisentangleConfig | None = None
    """Disentanglers of the smaller budgets; sized for device and data by default."""

    def __post_init__(self) -> None:
        for name, flag in (("seeds", "--seeds"), ("batch_size", "--batch-size")):
            if getattr(self, name) < 1:
                raise InputError(f"{flag} {getattr(self, name)}: give a number of at least 1")
        given = ",".join(map(str, self.steps))
        if not self.steps or list(self.steps) != sorted(set(self.steps)):
            raise InputError(f"--steps {given}: give different numbers in rising order")
        if self.steps[0] < self.checkpoints:
            raise InputError(f"--steps {given}: train at least {self.checkpoints} steps, one for each checkpoint")
        if not 0 < self.minted_fraction < 1:
            raise InputError(f"--minted-fraction {self.minted_fraction}: give a share above 0 and below 1")
        check_share("--minted-fraction", self.minted_fraction, self.batch_size)
        if round(self.minted_fraction * self.batch_size) >= self.batch_size:
            raise InputError(
                f"--minted-fraction {self.minted_fraction:g}: leaves no other row of --batch-size {self.batch_size}; "
                "lower it, or ask for --arms minted"
            )
        if self.weight_scale is not None and not 1e-6 <= self.weight_scale <= 1e6:
            raise InputError(f"--weight-scale {self.weight_scale}: give a number of pixels from 1e-6 to 1e6")
        if not 0 < self.lr < 1:
            raise InputError(f"--lr {self.lr}: give a learning rate between 0 and 1")
        check_precision(self.precision)
        if self.trust is not None and self.recipe.start is None:
            raise InputError(f"--trust {self.trust}: --estimator {self.estimator} is no checkpoint; leave --trust out")
        parse_budgets(self.label_budgets)
        extras = {name for arm in parse_further(self.arms) for name in arm.extra}
        if "renders" in extras and self.renders is None:
            raise InputError(f"--arms {self.arms}: arms with renders need --renders DATA")
        if "unchecked" in extras and self.unchecked is None:
            raise InputError(f"--arms {self.arms}: real+unchecked needs --unchecked DATA, minted without the check")

    @property
    def recipe(self) -> Recipe:
        """How an estimator comes to be."""
        return Recipe(self.estimator, self.width, self.backbone, self.trust)

    @property
    def all_arms(self) -> tuple[Arm, ...]:
        """The four and the further ones."""
        return (*ARMS, *parse_further(self.arms))

    def arms_of(self, budget: str) -> tuple[Arm, ...]:
        """Arms at a label budget: rows minted without the check exist for all labels only."""
        return tuple(arm for arm in self.all_arms if budget == "all" or "unchecked" not in arm.extra)


@dataclass(frozen=True)
class GainData:
    """The data, checked; images are read when they are needed."""

    real: HandDataset
    validation: HandDataset
    test: HandDataset
    minted: HandDataset
    renders: HandDataset | None
    unchecked: HandDataset | None

    def extra(self, names: Collection[str], minted: HandDataset) -> list[HandDataset]:
        """The rows that arms with these extras take beside the real ones; `minted` are those of their budget."""
        found = {"minted": minted, "renders": self.renders, "unchecked": self.unchecked}
        return [rows for name, rows in found.items() if name in names and rows is not None]

    def pool(self, rows: Sequence[HandDataset], estimator: Estimator, weight_scale: float | None = None) -> RowPool:
        """Rows as this estimator learns from them."""
        return RowPool(rows, spatial=estimator.dimensions == 3, weight_scale=weight_scale)


def open_data(config: GainConfig) -> GainData:
    """Open the data.

    Raises:
        InputError: Rows or labels are missing, images differ in size, or a training row is related to a test row.
    """
    data = GainData(
        real=HandDataset(config.real, split="train"),
        validation=HandDataset(config.real, split="val"),
        test=HandDataset(config.test or config.real, split="test"),
        minted=HandDataset(config.minted),
        renders=HandDataset(config.renders, split="train") if config.renders else None,
        unchecked=HandDataset(config.unchecked) if config.unchecked else None,
    )
    for rows, what, flag in (
        (data.real, "train", "--real"),
        (data.validation, "val", "--real"),
        (data.test, "test", "--test"),
    ):
        if not len(rows) or not (rows.read("visibility") > 0).any():
            raise InputError(f"{rows.path}: has no labelled rows in its {what} split; give {flag} data that has")
    for more, how in (
        (data.minted, "mint some with 'handaug remix'"),
        (data.renders, "give --renders data with a train split"),
        (data.unchecked, "mint some with 'handaug remix'"),
    ):
        if more is not None and not len(more):
            raise InputError(f"{more.path}: has no rows; {how}")
    for more, flag, checked in ((data.minted, "--minted", True), (data.unchecked, "--unchecked", False)):
        # Files of other makers do not say whether their labels were checked.
        if more is not None and bool(more.attrs.get("label_checked", checked)) != checked:
            how = "mint without --no-check" if checked else "mint with --no-check"
            raise InputError(f"{flag} {more.path}: its labels were {'not ' * checked}checked; {how}")
    if data.unchecked is not None:
        _check_alike(data.minted, data.unchecked)
    learned = [rows for rows in (data.minted, data.renders, data.unchecked) if rows is not None]
    for rows in (data.test, *learned):
        check_fits(rows, data.real.size, data.real.channels, str(data.real.path))
    check_leaks([data.real, *learned], data.test, data.validation)
    return data


def _check_alike(minted: HandDataset, unchecked: HandDataset) -> None:
    """Minted data with and without the check differ in the check alone, as far as the files tell."""
    for name in ("pose_source_checksum", "appearance_source_checksum", "disentangler_fingerprint", "seed"):
        if name in minted.attrs and name in unchecked.attrs and minted.attrs[name] != unchecked.attrs[name]:
            raise InputError(
                f"--unchecked {unchecked.path}: has another {name} than {minted.path}, so the two arms would differ in "
                "more than the check; mint both by the same command, one with --no-check"
            )


def check_start(config: GainConfig, data: GainData) -> str:
    """Refuse a checkpoint to go on from that has seen what measures or chooses it.

    Returns:
        A sentence for the report; empty where the estimator starts at random.
    """
    start = config.recipe.start
    if start is None:
        return ""
    known = [check_seen(start, data.test, "test"), check_seen(start, data.validation, "validation")]
    line = f" All arms go on from the checkpoint {start.name}"
    return f"{line}." if all(known) else f"{line}, which keeps no record of what it was trained on."


def identity(config: GainConfig, data: GainData) -> dict[str, Any]:
    """What makes the experiment what it is; paths are no part of it."""
    settings = asdict(config)
    for name in _FILES:
        settings.pop(name)
    # As it is read from a file; one length as it was before there could be several.
    settings["steps"] = list(config.steps) if config.steps[1:] else config.steps[0]
    settings.pop("trust")  # the checkpoint's weights say which
    settings["disentangle"] = config.disentangle.to_json() if config.disentangle else None
    start = config.recipe.start
    settings["estimator_source"] = source_digest(config.recipe.trust or config.recipe.name)
    if start is not None:
        settings["estimator"] = [_digest(start / name) for name in (CONFIG, WEIGHTS)]
    return {
        "command": "train-pose",
        **settings,
        "albumentations": named_transforms("standard"),
        "backbone": _digest(config.backbone) if config.backbone else None,
        "real_checksum": data.real.checksum,
        "minted_checksum": data.minted.checksum,
        "test_checksum": data.test.checksum,
        "renders_checksum": data.renders.checksum if data.renders else None,
        "unchecked_checksum": data.unchecked.checksum if data.unchecked else None,
    }


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file of weights") from error

"""Label budgets: the experiment as it would have been with the labels of B poses.

The poses of a budget are the first B of one seeded order, so smaller budgets lie inside larger ones. Below "all", the
rows of these poses go to a file of their own. Minted data that owe a label to the real data (poses, disentangler or
checker) are then made afresh from that file alone. Minted data that owe them none, as with poses and models of renders
and real images for their looks only, serve every budget as they are. Validation and test rows stay the same at every
budget: they choose and measure in all arms alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.augment.checker import CheckerConfig, train_checkers
from handaug.augment.leaks import saw, shared_rows
from handaug.augment.remix import RemixConfig, remix, remix_capacity
from handaug.data_specs.errors import InputError
from handaug.data_specs.progress import Progress
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import RELATIONS
from handaug.data_specs.subset import write_subset
from handaug.models.methods import train_method
from handaug.models.seen import check_seen

__all__ = ["BudgetData", "check_budgets", "make_budget_data", "owes_labels", "parse_budgets", "pose_order"]

_ORDER = 61
_DIGITS = 18
"""Of a number of poses, at most; so many fit into 64 bits."""


@dataclass(frozen=True)
class BudgetData:
    """What the arms of one budget train on."""

    name: str
    """`all` or the number of poses."""
    poses: int
    real: HandDataset
    minted: HandDataset


def parse_budgets(text: str) -> list[int | None]:
    """Budgets in poses, None for all, ascending, each once.

    Example:
        >>> parse_budgets("all,100,500")
        [100, 500, None]
    """
    numbers: set[int] = set()
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word != "all":
            if not word.isdecimal() or len(word) > _DIGITS or int(word) < 2:
                raise InputError(f"--label-budgets {text}: {word!r} is neither a number of poses of at least 2 nor all")
            numbers.add(int(word))
    if not words:
        raise InputError("--label-budgets: give numbers of poses or all, separated by commas")
    return [*sorted(numbers), *([None] if "all" in words else [])]


def pose_order(real: HandDataset, seed: int) -> tuple[NDArray[np.int64], int]:
    """Rank of each row's pose in the seeded order, and the number of poses; rows without `pose_id` count by group."""
    ids = real.read("pose_id" if real.has("pose_id") else "group")
    _, pose = np.unique(ids, return_inverse=True)
    total = int(pose.max()) + 1
    rank = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_ORDER,))).permutation(total)
    return rank[pose.reshape(-1)], total


def check_budgets(
    budgets: Sequence[int | None], real: HandDataset, renders: HandDataset | None, start: Path | None, seed: int
) -> None:
    """Refuse budgets that cannot be, before anything is made.

    Args:
        budgets: Poses, None for all.
        real: Train rows of the real data.
        renders: Rows that further arms learn from, at every budget.
        start: The checkpoint that all arms go on from.
        seed: Of the choice of poses.

    Raises:
        InputError: More poses are asked for than there are, or renders or checkpoint know labels beyond a budget.
    """
    rank, poses = pose_order(real, seed)
    for budget in budgets:
        if budget is None or budget == poses:
            continue
        flag = f"--label-budgets {budget}"
        if budget > poses:
            raise InputError(f"{flag}: {real.path} has {poses} train poses; ask for fewer, or for all")
        beyond = HandDataset(real.path, rows=real.rows[rank >= budget])
        if renders is not None and _related(renders, beyond):
            raise InputError(
                f"{flag}: {renders.path} shares groups or poses with train rows of {real.path} beyond the budget; give "
                "other --renders, or ask for all"
            )
        if start is not None:
            check_seen(start, beyond, f"train (beyond {flag})")


def _related(data: HandDataset, real: HandDataset) -> bool:
    return any(shared_rows(data, real, field).any() for field in RELATIONS)


def owes_labels(minted: HandDataset, real: HandDataset, renders: HandDataset | None) -> bool:
    """Whether a label of `real` may have gone into the minted data.

    As pose source, into its disentangler or checker, or, where `real` itself lends the looks, into the check of mixes
    against their lender. A file that does not say where these come from counts as owing, and so does one with a group
    or pose of `real`, which may be a cut or a copy of the source. So do models that learned from one of them; where
    the minted file does not tell, those that were trained on a file which is neither the poses' nor `renders`.

    Args:
        minted: The minted file.
        real: Train rows of the real data.
        renders: The renders that further arms learn from, if any.
    """
    poses = str(minted.attrs.get("pose_source_checksum", ""))
    looks = str(minted.attrs.get("appearance_source_checksum", ""))
    if real.checksum in (poses, looks) or "" in (poses, looks) or _related(minted, real):
        return True
    shared = saw(minted, real)
    if shared is not None:
        return bool(shared.any())
    models = {str(minted.attrs.get(f"{name}_data_checksum", "")) for name in ("disentangler", "checker")}
    return not models <= {poses, renders.checksum if renders else poses} - {real.checksum}


def make_budget_data(
    budget: int | None,
    real: HandDataset,
    minted: HandDataset,
    folder: Path,
    *,
    renders: HandDataset | None,
    seed: int,
    checker: CheckerConfig,
    disentangle: Any,
    device: str,
    progress: Progress,
    workers: int | None,
) -> BudgetData:
    """The data of one budget, made where it is not there yet.

    Args:
        budget: Poses, None for all of them with the minted data as given.
        real: Train rows of the real data.
        minted: Minted data of all labels, used at every budget where it owes `real` no label; otherwise its images for
            each pose row set how many are minted at smaller budgets.
        renders: What further arms learn from, if any.
        folder: Of the experiment; a budget's files go to `folder/budget-B`.
        seed: Of the choice of poses and of everything trained.
        checker: Settings of the checkers.
        disentangle: Settings of the disentangler, of any method; sized for device and data if None.
        device: Where to train.
        progress: Told of everything.
        workers: Processes for the checkers on a CPU.
    """
    rank, poses = pose_order(real, seed)
    if budget is None:
        return BudgetData("all", poses, real, minted)
    place = folder / f"budget-{budget:06d}"
    place.mkdir(exist_ok=True)
    rows = real.rows[rank < budget]
    subset = place / "real.h5"
    fields = [name for name in real.available if not name.startswith("provenance/")]
    config = {"subset_of": real.checksum, "poses": budget, "seed": seed}
    write_subset(HandDataset(real.path, rows=rows), subset, config, fields)
    if not owes_labels(minted, real, renders):
        progress.note(f"budget of {budget} poses: {minted.path} owes no label to {real.path} and serves as it is")
        return BudgetData(str(budget), budget, HandDataset(subset), minted)
    progress.note(f"budget of {budget} poses: disentangler, checker and minted data from these {len(rows)} rows alone")
    train_method(subset, place / "disentangler", config=disentangle, seed=seed, device=device, progress=progress)
    settings = replace(checker, seed=seed)
    train_checkers(subset, place / "checker", settings, device=device, progress=progress, workers=workers)
    wanted = max(1, round(len(minted) * len(rows) / len(real)))
    request = RemixConfig(wanted, subset, place / "disentangler", place / "checker", seed=seed)
    # Few poses have few combinations, and not all of them pass the check.
    request = replace(request, n=max(1, min(wanted, remix_capacity(request) // 2)))
    remix(request, place / "minted.h5", device=device, progress=progress)
    return BudgetData(str(budget), budget, HandDataset(subset), HandDataset(place / "minted.h5"))

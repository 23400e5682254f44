"""Which part a unit belongs to, so that no group is torn apart."""

from collections.abc import Mapping, Sequence

from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import Source, Unit
from handaug.data_specs.schema import SPLITS, TEST, TRAIN, VAL

__all__ = ["Splitter"]


class Splitter:
    """Applies `--split` and `--val` to a source.

    The official split is kept as it is, even where its makers let a scene appear in two parts: the same scene then
    counts as two groups. A new split by shares keeps scenes whole and runs along the source's order, so that
    neighbours in a video part at two places only.
    """

    def __init__(self, source: Source, options: ImportOptions) -> None:
        self.name = options.split
        self._only = options.only
        self._new: dict[str, int] | None = None
        self._to_val: set[str] = set()
        self.notes: tuple[str, ...] = ()
        """Parts that were asked for and get nothing."""
        if options.shares is not None:
            train, val, _ = options.shares
            self._new = _along(_counts(source, None), train, train + val)
            asked = [part for part, share in enumerate(options.shares) if share]
            self.notes = _empty(f"--split {options.split}", asked, self._new)
        elif options.val:
            groups = _along(_counts(source, TRAIN), 1 - options.val, 1.0)
            self._to_val = {group for group, part in groups.items() if part == VAL}
            self.notes = _empty(f"--val {options.val:g}", [VAL], groups)

    def wanted(self, unit: Unit) -> bool:
        """Whether a unit is to be imported."""
        return self._only is None or self.place(unit)[0] == self._only

    def place(self, unit: Unit) -> tuple[int, str]:
        """Split and name of the group of a unit."""
        if self._new is not None:
            return self._new[unit.group], unit.group
        to_val = unit.split == TRAIN and unit.group in self._to_val
        return VAL if to_val else unit.split, f"{unit.split}/{unit.group}"


def _counts(source: Source, split: int | None) -> dict[str, int]:
    """Units of each group, in the order in which groups first appear."""
    counts: dict[str, int] = {}
    for index in range(len(source)):
        unit = source.unit(index)
        if split is None or unit.split == split:
            counts[unit.group] = counts.get(unit.group, 0) + 1
    return counts


def _along(counts: dict[str, int], val_from: float, test_from: float) -> dict[str, int]:
    """Cut the row of groups where the shares end: a group goes where its middle lies."""
    total = sum(counts.values())
    parts: dict[str, int] = {}
    before = 0
    for group, count in counts.items():
        middle = (before + count / 2) / total
        parts[group] = TRAIN if middle < val_from else VAL if middle < test_from else TEST
        before += count
    return parts


def _empty(option: str, asked: Sequence[int], groups: Mapping[str, int]) -> tuple[str, ...]:
    """Says which of the parts asked for get none of the groups."""
    names = [name for name, part in SPLITS.items() if part in asked and part not in groups.values()]
    if not names:
        return ()
    there = "is 1 group" if len(groups) == 1 else f"are {len(groups):,} groups"
    return (f"{option}: nothing for {' and '.join(names)}: groups stay whole, and there {there} to split",)

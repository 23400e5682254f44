"""Trainings side by side: one thread each, errors and notes brought home, a dead process named."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from parallel_tasks import die, fail, fill_disk, stumble, train
from toy import write_toy

from handaug.augment.checker import CheckerConfig, fingerprint, train_checkers
from handaug.augment.parallel import run_trainings
from handaug.data_specs.errors import InputError, WorkError


class Watch:
    """Counts steps and keeps notes."""

    def __init__(self) -> None:
        self.steps, self.notes = 0, list[str]()

    @contextmanager
    def task(self, label: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        def advance(n: int) -> None:
            self.steps += n

        yield advance

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("workers", [1, 2])
def test_each_runs_once_with_one_thread_and_is_counted(tmp_path: Path, workers: int) -> None:
    watch = Watch()
    names = ["a", "b", "c"]
    trainings = [partial(train, tmp_path, name) for name in names]
    run_trainings(trainings, steps=15, label="all", device="cpu", progress=watch, workers=workers)
    assert watch.steps == 15 and sorted(watch.notes) == ["a done", "b done", "c done"]
    assert {(tmp_path / name).read_text() for name in names} == {"1"}


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (fail, InputError, "bad: wrong"),
        (die, WorkError, "exit code -9.*it goes on"),
        (fill_disk, WorkError, "bad: the disk is full; free some space"),
        (stumble, WorkError, "exit code 1;"),
    ],
)
def test_what_fails_in_a_process_is_said(
    tmp_path: Path, bad: Callable[..., None], error: type[Exception], message: str
) -> None:
    trainings = [partial(bad, tmp_path, "bad"), partial(train, tmp_path, "good")]
    with pytest.raises(error, match=message):
        run_trainings(trainings, steps=10, label="all", device="cpu", progress=Watch(), workers=2)


def test_workers_change_nothing_of_a_checker(tmp_path: Path) -> None:
    data = write_toy(tmp_path / "toy.h5", 16, size=32)
    config = CheckerConfig(width=8, steps=6, batch_size=8)
    alone = train_checkers(data, tmp_path / "alone", config, workers=1)
    together = train_checkers(data, tmp_path / "together", config, workers=2)
    assert fingerprint(alone) == fingerprint(together)

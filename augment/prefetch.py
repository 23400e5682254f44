"""Batches made beside the device that learns from them, in processes of their own.

A GPU takes a batch of small images faster than one core transforms it. On a CPU the cores are taken by the trainings
themselves (`parallel.py`) and nothing is made beside them.
"""

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch.utils.data import DataLoader, Dataset

from handaug.data_specs.errors import HandaugError
from handaug.models.fit import Batch

__all__ = ["made_beside", "makers"]


def makers(device: str) -> int:
    """How many processes make batches for a training on a device: all cores but the one that feeds a GPU."""
    return 0 if device == "cpu" else max(1, len(os.sched_getaffinity(0)) - 1)


def made_beside(make: Callable[[int], Batch], first: int, processes: int) -> Iterator[Batch]:
    """The batches of the steps from `first` on, in order, whoever of the processes makes them.

    Args:
        make: Gives the batch of a step, a function of the step alone; picklable.
        first: The first step.
        processes: At least 1; they end when the iterator is closed.

    Raises:
        HandaugError: As `make` raised it.
    """
    context = multiprocessing.get_context("forkserver")  # a process with threads and a GPU cannot be forked safely
    context.set_forkserver_preload(["handaug.augment.batches"])
    loader = DataLoader(
        _Steps(make),
        batch_size=None,
        sampler=itertools.count(first),
        num_workers=processes,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_ctrl_c,
        multiprocessing_context=context,
    )
    for made in loader:
        if isinstance(made, HandaugError):
            raise made
        yield cast(Batch, made)


class _Steps(Dataset[Batch | HandaugError]):
    def __init__(self, make: Callable[[int], Batch]) -> None:
        self._make = make

    def __getitem__(self, step: int) -> Batch | HandaugError:
        try:
            return self._make(step)
        except HandaugError as error:
            return error  # raised, it would come home with a traceback for a message


def _ignore_ctrl_c(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears of it and ends

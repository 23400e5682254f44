"""Small trainings side by side: on a CPU, one process with one thread for each, as many at a time as there are cores.

Networks of this size gain little from a second thread, and two runs side by side take half the time of one after the
other. One thread each, however many run at a time, so that the number of cores changes no result. On a GPU they run one
after the other in this process.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

import torch

from handaug.data_specs.errors import HandaugError, WorkError, is_full
from handaug.data_specs.progress import Advance, Progress

__all__ = ["Training", "one_thread", "run_trainings", "side_by_side"]

Training = Callable[[Progress], None]
"""One run; its progress counts optimiser steps. Picklable, and it leaves its result in a file."""

_POLL_SECONDS = 0.25
_PR_SET_PDEATHSIG = 1


def run_trainings(
    trainings: Sequence[Training],
    *,
    steps: int,
    label: str,
    device: str,
    progress: Progress,
    workers: int | None = None,
) -> None:
    """Run all of them.

    Args:
        trainings: What to run; the order of their results must not matter.
        steps: Of all together, for the bar.
        label: Of the bar.
        device: "cpu" or a CUDA device.
        progress: Where to show progress.
        workers: Processes at a time, one per core by default; 1 runs them here, with one thread as well.

    Raises:
        HandaugError: The first one that any of them raised; the others are stopped.
    """
    count = side_by_side(len(trainings), device, workers)
    with progress.task(label, total=steps, unit="steps") as advance:
        if device != "cpu":
            for training in trainings:
                training(_Inner(advance, progress.note))
        elif count == 1:
            with one_thread():
                for training in trainings:
                    training(_Inner(advance, progress.note))
        else:
            _run_processes(trainings, count, advance, progress.note)


class _Inner:
    """Progress of one training inside the bar of all."""

    def __init__(self, advance: Advance, note: Callable[[str], None]) -> None:
        self._advance = advance
        self.note = note

    @contextmanager
    def task(self, label: str, total: int, unit: str) -> Iterator[Advance]:
        yield self._advance


def side_by_side(trainings: int, device: str, workers: int | None) -> int:
    """How many run at a time."""
    return max(1, min(workers or len(os.sched_getaffinity(0)), trainings)) if device == "cpu" else 1


@contextmanager
def one_thread() -> Iterator[None]:
    """A block in which torch computes with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _run_processes(trainings: Sequence[Training], count: int, advance: Advance, note: Callable[[str], None]) -> None:
    context = multiprocessing.get_context("spawn")
    shared = _Shared(context)
    processes: list[SpawnProcess] = []
    try:
        for _ in range(count):
            process = context.Process(target=_work, args=(list(trainings), shared), daemon=True)
            process.start()
            processes.append(process)
        shown = 0
        while any(process.is_alive() for process in processes):
            wait([process.sentinel for process in processes if process.is_alive()], _POLL_SECONDS)
            done = shared.steps.value
            advance(done - shown)
            shown = done
            _tell(shared, note)
            broken = next((p for p in processes if p.exitcode not in (None, 0)), None)
            if broken is not None:
                raise WorkError(
                    f"a training process ended with exit code {broken.exitcode}; if memory was short, close other "
                    "programs, then run the same command again: it goes on"
                )
        _tell(shared, note)
        advance(shared.steps.value - shown)
    finally:
        for process in processes:
            process.terminate()
            process.join()


class _Shared:
    """What the processes share: the next training, the steps done, and what there is to say."""

    def __init__(self, context: SpawnContext) -> None:
        self.next = context.Value("L", 0)
        self.steps = context.Value("L", 0)
        self.words = context.SimpleQueue()


def _tell(shared: _Shared, note: Callable[[str], None]) -> None:
    """Pass on notes; raise what a training raised."""
    while not shared.words.empty():
        word: Any = shared.words.get()
        if isinstance(word, HandaugError):
            raise word
        note(word)


def _work(trainings: list[Training], shared: _Shared) -> None:
    """A process: take trainings until there are none left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears of Ctrl-C and stops everybody
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    torch.set_num_threads(1)

    def count(steps: int) -> None:
        with shared.steps.get_lock():
            shared.steps.value += steps

    while True:
        with shared.next.get_lock():
            index = shared.next.value
            shared.next.value += 1
        if index >= len(trainings):
            return
        try:
            trainings[index](_Inner(count, shared.words.put))
        except HandaugError as error:
            shared.words.put(error)
            return
        except MemoryError:
            shared.words.put(WorkError("out of memory; lower --batch-size and run the same command again: it goes on"))
            return
        except Exception as error:
            if isinstance(error, OSError) and is_full(error):
                name = error.filename or "the output"
                shared.words.put(WorkError(f"{name}: the disk is full; free some space, then the same command goes on"))
                return
            traceback.print_exc()
            os._exit(1)

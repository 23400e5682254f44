"""Who does the pieces of a large job: this process, processes beside it, or a Dask cluster.

A piece is a call of a module's function with picklable arguments; it says what it did by what it returns or raises.
Results come back in the order in which they are ready.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from handaug.data_specs.errors import WorkError

__all__ = ["Crew", "hire"]

_PR_SET_PDEATHSIG = 1
_WINDOW = 4

T = TypeVar("T")


class Crew(Protocol):
    """Whoever works."""

    size: int
    """Pieces at a time."""
    inside: bool
    """Whether it is this process."""

    def run(self, function: Callable[..., T], calls: Sequence[tuple[Any, ...]]) -> Iterator[T]:
        """Call the function with each tuple of arguments; yields what comes back as it is ready."""


@contextmanager
def hire(workers: int, scheduler: str | None = None) -> Iterator[Crew]:
    """A crew for the time of the block; however the block is left, nobody works on afterwards.

    Args:
        workers: Processes on this machine; 1 is this process alone.
        scheduler: Address of a Dask scheduler, or its file, in place of them.

    Raises:
        InputError: No scheduler answers.
        WorkError: A process died, or the cluster lost a piece.
    """
    if scheduler is not None:
        from handaug.render.pool import connect_dask

        with connect_dask(scheduler) as client:
            yield _Many(client.get_executor(pure=False), max(1, len(client.nthreads())), "--scheduler")
    elif workers == 1:
        yield _Alone()
    else:
        pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_prepare, initargs=(os.getpid(),)
        )
        try:
            yield _Many(pool, workers, "a worker process")
        finally:
            # Whoever stops does not wait for pieces that nobody asks for any more.
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=True, cancel_futures=True)


class _Alone:
    size = 1
    inside = True

    def run(self, function: Callable[..., T], calls: Sequence[tuple[Any, ...]]) -> Iterator[T]:
        for call in calls:
            yield function(*call)


class _Many:
    inside = False

    def __init__(self, executor: Executor, size: int, who: str) -> None:
        self._executor, self.size, self._who = executor, size, who

    def run(self, function: Callable[..., T], calls: Sequence[tuple[Any, ...]]) -> Iterator[T]:
        waiting = iter(calls)
        at_work: set[Future[T]] = set()
        try:
            while True:
                # A window instead of all at once: what waits need not lie in a queue.
                while len(at_work) < _WINDOW * self.size and (call := next(waiting, None)) is not None:
                    at_work.add(self._executor.submit(function, *call))
                if not at_work:
                    return
                future = next(as_completed(at_work))
                at_work.remove(future)
                yield future.result()
        except BrokenExecutor as error:
            raise self._lost(error) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] == "distributed":
                raise self._lost(error) from error
            raise
        finally:
            for future in at_work:
                future.cancel()

    def _lost(self, error: Exception) -> WorkError:
        return WorkError(
            f"{self._who} was lost ({type(error).__name__}); finished shards are kept: if memory was short, close "
            "other programs or lower --workers, then run the same command again"
        )


def _prepare(parent: int) -> None:
    """In a new process: leave Ctrl-C to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The kernel tells us of the parent's end even where it was killed; it must not have ended before we asked.
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

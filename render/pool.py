"""Shards on worker processes of this machine, or on a Dask cluster. Which one, and how many, changes no byte of the
result."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from handaug.data_specs.errors import InputError, WorkError
from handaug.render.config import RenderConfig

__all__ = ["SceneLostError", "WorkerProcess", "connect_dask", "default_workers", "run_dask", "run_local"]

Shard = tuple[int, Path]
Done = Callable[[int], None]

_RECYCLE_IMAGES = 20_000
"""A worker is replaced after this many images. No leak is known (flat over 1,500 frames)."""
_LOST = 3
"""So many shards may be lost before the rest is not tried."""


def default_workers(need: int) -> int:
    """One for each core this process may use, as far as memory allows: `need` bytes for each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(cores, memory // need))


class WorkerProcess:
    """The caller's end of one `handaug.render.worker`.

    Args:
        config: What it renders.
        log: File that takes what it and Blender print; None: nowhere.
        number: Of the process on this machine; with several GPUs, each process takes its own.
        die_with_parent: Whether the kernel shall kill it together with the thread that starts it (the end of its
            standard input ends it in any case).
    """

    def __init__(
        self, config: RenderConfig, log: Path | None = None, *, number: int = 0, die_with_parent: bool = True
    ) -> None:
        environment = dict(os.environ)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = "1"
        self.log = log
        self.images = 0
        self.number = number
        self.device = ""
        """Name of what it traces on, once it has finished a shard."""
        self._config = config
        self._shard = -1
        with open(log or os.devnull, "ab") as printed:
            # A session of its own: Ctrl-C in the terminal reaches the parent alone, which then ends its workers.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "handaug.render.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                env=environment,
                start_new_session=True,
            )
        self._send({"config": asdict(config), "number": number, "die_with_parent": die_with_parent})

    def fileno(self) -> int:
        """Readable when an answer is there, or the end."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def start(self, shard: Shard) -> None:
        """Begin a shard."""
        self._shard = shard[0]
        self._send({"shard": shard[0], "path": str(shard[1])})

    def finish(self) -> int:
        """Wait for the shard begun; returns its images.

        Raises:
            InputError: It cannot work here (a missing library, an unreadable panorama).
            WorkError: It was killed, or cannot write.
            SceneLostError: It crashed, or one of the shard's scenes cannot be drawn; others may.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._obituary()
        reply = json.loads(line)
        if "error" in reply:
            raise _rebuild(reply["error"], reply["message"], self._poses())
        self.device = reply["device"]
        images = len(self._config.shard_poses(self._shard)) * self._config.appearances
        self.images += images
        return images

    def end(self) -> None:
        """Kill it; what it was writing is left as a partial shard and made again by the next run."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        # A worker that is gone shows in finish(), with its reason.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _poses(self) -> str:
        poses = self._config.shard_poses(self._shard)
        return f"poses {poses.start} to {poses.stop - 1}"

    def _obituary(self) -> WorkError:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        log = (
            f"; its last words are in {self.log}" if self.log and self.log.exists() and self.log.stat().st_size else ""
        )
        if -code in (signal.SIGKILL, signal.SIGTERM):
            return WorkError(
                f"a render worker died ({how}); finished shards are kept, run the same command again, or with fewer "
                f"--workers if memory is short{log}"
            )
        return SceneLostError(
            f"a render worker died ({how}) in {self._poses()}; finished shards are kept, run the same command again"
            f"{log}"
        )


class SceneLostError(WorkError):
    """A shard could not be made, for a reason that may be its own."""


def _rebuild(kind: str, message: str, poses: str) -> Exception:
    if kind == "InputError":
        return InputError(message)
    if kind in ("ImportError", "ModuleNotFoundError"):
        return InputError(f"Blender cannot start here ({message}): run `handaug doctor`, it names what to install")
    if kind == "WorkError":
        return WorkError(message)
    if kind in ("SceneError", "NoViewError"):
        return SceneLostError(f"{poses}: {message}; finished shards are kept")
    return SceneLostError(
        f"rendering {poses} failed ({kind}: {message}); finished shards are kept, run the same command again"
    )


class _Crew:
    """Worker processes that are gone when the block is left, however it is left."""

    def __init__(self, config: RenderConfig, folder: Path) -> None:
        self._config, self._folder = config, folder
        self._members: list[WorkerProcess] = []

    def hire(self, number: int) -> WorkerProcess:
        log = self._folder / f"worker-{len(self._members)}.log"
        member = WorkerProcess(self._config, log, number=number)
        self._members.append(member)
        return member

    def __enter__(self) -> "_Crew":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members:
            member.end()


def run_local(
    config: RenderConfig,
    shards: Iterable[Shard],
    folder: Path,
    workers: int,
    done: Done,
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Render shards on worker processes.

    Args:
        config: What is rendered.
        shards: Numbers and files of the shards still to do.
        folder: For the workers' logs.
        workers: How many processes.
        done: Called with the number of images of each shard that is finished.
        note: Told which GPU each worker traces on.

    Raises:
        InputError, WorkError: As of `WorkerProcess.finish`. Where one shard is lost, the others are made first.
    """
    waiting = iter(shards)
    lost: list[SceneLostError] = []
    with _Crew(config, folder) as crew, selectors.DefaultSelector() as ready:

        def employ(number: int, worker: WorkerProcess | None) -> None:
            shard = next(waiting, None)
            if shard is None:
                return
            if worker is not None and worker.images >= _RECYCLE_IMAGES:
                worker.end()
                worker = None
            worker = worker or crew.hire(number)
            worker.start(shard)
            ready.register(worker, selectors.EVENT_READ)

        for number in range(workers):
            employ(number, None)
        while ready.get_map():
            for key, _events in ready.select():
                worker = key.fileobj
                assert isinstance(worker, WorkerProcess)
                ready.unregister(worker)
                try:
                    known = worker.device
                    done(worker.finish())
                    if config.device != "cpu" and not known:
                        note(f"Worker {worker.number} traces on {worker.device}.")
                    employ(worker.number, worker)
                except SceneLostError as error:
                    lost.append(error)
                    worker.end()
                    if len(lost) >= _LOST:  # not a scene's fault
                        _tell(lost)
                    employ(worker.number, None)
    _tell(lost)


def _tell(lost: Sequence[SceneLostError]) -> None:
    """Raise what became of the shards that were lost, if any."""
    if lost:
        raise SceneLostError(str(lost[0]) + (f" (the first of {len(lost)} lost shards)" if lost[1:] else ""))


def connect_dask(address: str) -> Any:
    """A client of a Dask cluster; closes at the end of a `with` block.

    Args:
        address: Of the scheduler, as `tcp://host:8786`, or a scheduler file.

    Raises:
        InputError: Dask is not installed, or no scheduler answers.
    """
    try:
        import distributed
    except ImportError as error:
        raise InputError('--scheduler needs Dask: pip install "handaug[cluster]"') from error
    client: Any = distributed.Client
    try:
        return client(scheduler_file=address) if Path(address).is_file() else client(address, timeout="5s")
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"--scheduler {address}: no Dask scheduler answers there, start one or check the address"
        ) from error


def run_dask(config: RenderConfig, shards: Iterable[Shard], client: Any, done: Done) -> None:
    """Render shards on a Dask cluster whose workers see the output folder under the same path.

    Args:
        config: What is rendered; folders it names must be there on each node.
        shards: Numbers and files of the shards still to do.
        client: From `connect_dask`.
        done: Called with the number of images of each shard that is finished.

    Raises:
        InputError, WorkError: As of `run_local`; also where the cluster loses a shard.
    """
    import distributed

    # A worker elsewhere has another working directory.
    folders = {name: str(Path(path).resolve()) for name in ("hdris", "backgrounds") if (path := getattr(config, name))}
    config = RenderConfig.from_mapping({**asdict(config), **folders})
    waiting = iter(shards)
    collect: Any = distributed.as_completed
    futures = collect()
    lost: list[SceneLostError] = []

    def submit() -> None:
        shard = next(waiting, None)
        if shard is not None:
            path = str(shard[1].resolve())
            futures.add(client.submit(_dask_shard, config.to_json(), shard[0], path, pure=False))

    # A window instead of all at once: neither the parent's nor the scheduler's memory grows with the poses.
    for _ in range(4 * max(1, sum(client.nthreads().values()))):
        submit()
    for future in futures:
        try:
            kind, value = future.result()
        except (distributed.KilledWorker, distributed.CancelledError, OSError) as error:
            raise WorkError(
                f"--scheduler: the cluster lost a shard ({type(error).__name__}); finished shards are kept, run the "
                "same command again"
            ) from error
        if kind == "SceneLostError":
            lost.append(SceneLostError(str(value)))
            if len(lost) >= _LOST:
                _tell(lost)
        elif kind:
            raise _rebuild(kind, str(value), "a shard")
        else:
            done(int(value))
        submit()
    _tell(lost)


_dask_lock = threading.Lock()
_dask_workers: dict[str, WorkerProcess] = {}


def _dask_shard(config_json: str, shard: int, path: str) -> tuple[str, int | str]:
    """One shard, in a Dask worker: ("", images) or (class of the error, its message)."""
    config = RenderConfig.from_mapping(json.loads(config_json))
    with _dask_lock:
        worker = _dask_workers.get(config_json)
        if worker is None:
            for old in _dask_workers.values():
                old.end()
            _dask_workers.clear()
            # Threads of a Dask worker come and go: only the end of standard input may end the process.
            worker = _dask_workers[config_json] = WorkerProcess(config, die_with_parent=False)
        try:
            worker.start((shard, Path(path)))
            return "", worker.finish()
        except (InputError, WorkError) as error:
            worker.end()
            _dask_workers.clear()
            return type(error).__name__, str(error)

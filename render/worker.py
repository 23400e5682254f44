"""A render worker: a process of its own with one Blender in it, told what to do in lines of JSON.

`python -P -m handaug.render.worker` reads `{"config": {...}, "number": n, "die_with_parent": bool}`, then `{"shard": i,
"path": "..."}` any number of times, and answers each shard with `{"shard": i, "device": name}` or `{"error": class,
"message": text}`. It ends when its standard input ends.

A plain process instead of multiprocessing: it does not import the caller's main module, may be started from a
daemonic process (Dask's are), and a crash of Blender is an end of file and not a hang. It never outlives the
one who started it: the end of standard input ends it at once, and on Linux the kernel kills it when its parent dies.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import queue
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import IO, Any

__all__ = ["claim_core", "main"]

_PR_SET_PDEATHSIG = 1
_locks: list[IO[str]] = []


def claim_core() -> None:
    """Pin this process to a core that no other worker on this machine has; call before bpy is imported.

    With `threads = 1` alone Blender's thread pool still spins on every core it may use, which halves the rate.
    The claim is a lock on a file, which ends with the process. With more workers than cores, cores are shared.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    mine = cores[os.getpid() % len(cores)]
    for core in cores:
        with contextlib.suppress(OSError):
            name = f"handaug-{os.getuid()}-core-{core}.lock"
            lock = open(os.path.join(tempfile.gettempdir(), name), "a")  # noqa: SIM115
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            _locks.append(lock)
            mine = core
            break
    os.sched_setaffinity(0, {mine})


def _die_with_parent() -> None:
    parent = os.getppid()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _read_orders(orders: "queue.SimpleQueue[dict[str, Any]]") -> None:
    for line in sys.stdin:
        orders.put(json.loads(line))
    os._exit(0)


def main() -> None:
    """Serve until standard input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever Blender prints goes to the log
    header = json.loads(sys.stdin.readline() or "null")
    if header is None:
        return
    if header["die_with_parent"]:
        _die_with_parent()
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_orders, args=(orders,), daemon=True).start()
    claim_core()
    worker = None
    while True:
        order = orders.get()
        try:
            if worker is None:
                from handaug.render.config import RenderConfig
                from handaug.render.shard import ShardRenderer

                worker = ShardRenderer(RenderConfig.from_mapping(header["config"]), header["number"])
            worker.write(order["shard"], Path(order["path"]))
            reply = {"shard": order["shard"], "device": worker.device}
        except Exception as error:
            traceback.print_exc()
            reply = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()

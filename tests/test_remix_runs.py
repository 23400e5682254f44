"""Runs of remix: processes, kill and resume, a cluster, a finished output, a full disk."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from remix_home import N, remix_config

import handaug.augment.remix as remix_module
import handaug.augment.remix_plan as plan_module
from handaug.augment.remix import remix
from handaug.augment.remix_work import Job, Shard, mint_shard
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset

pytestmark = pytest.mark.usefixtures("no_picture")

_RUN = """
import sys
from pathlib import Path
import handaug.augment.remix_plan as plan
from handaug.augment.remix import RemixConfig, remix
if __name__ == "__main__":
    plan.SHARD_IMAGES = 64
    home, out = Path(sys.argv[1]), Path(sys.argv[2])
    config = RemixConfig(300, home / "toy.h5", home / "disentangler", home / "checker", max_label_error=12.0)
    try:
        remix(config, out, workers=int(sys.argv[3]))
    except KeyboardInterrupt:
        sys.exit(130)
"""


def _start(home: Path, out: Path, workers: int) -> "subprocess.Popen[bytes]":
    script = out.with_suffix(".py")
    script.write_text(_RUN)
    return subprocess.Popen(
        [sys.executable, str(script), str(home), str(out), str(workers)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def _children(pid: int) -> list[int]:
    return [int(p) for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()]


@pytest.mark.parametrize(("stop", "workers"), [(signal.SIGKILL, 2), (signal.SIGINT, 2)])
def test_stopped_and_the_same_command_give_the_same_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: signal.Signals, workers: int
) -> None:
    """Killed while two processes minted, gone on with in one; the file of one process that was not disturbed."""
    straight, killed = tmp_path / "straight.h5", tmp_path / "killed.h5"
    monkeypatch.setattr(plan_module, "SHARD_IMAGES", 64)
    remix(remix_config(home), straight, workers=1)
    process = _start(home, killed, workers)
    partial = tmp_path / "killed.h5.partial"
    deadline = time.monotonic() + 300
    while len(list(partial.glob("shard-*.h5"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    children = _children(process.pid)
    process.send_signal(stop)
    assert process.wait(60) == (-stop if stop == signal.SIGKILL else 130)
    while any(Path(f"/proc/{child}/stat").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.02)  # they end with their parent
    assert not killed.exists() and len(list(partial.glob("shard-*.h5"))) >= 2, "stopped in the middle"
    kept = {path: path.stat().st_mtime_ns for path in sorted(partial.glob("shard-*.h5"))[:2]}
    made: list[Path] = []

    def note(job: Job, shard: Shard) -> int:
        made.append(shard.path)
        return mint_shard(job, shard)

    monkeypatch.setattr(remix_module, "mint_shard", note)
    remix(remix_config(home), killed, workers=1)
    assert made and not set(made) & set(kept), "what was done is not done again"
    assert HandDataset(killed).checksum == HandDataset(straight).checksum
    assert (tmp_path / "killed.json").read_text() == (tmp_path / "straight.json").read_text()
    assert not partial.exists()


def test_a_dask_cluster_makes_the_same_file(home: Path, minted: HandDataset, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        remix(remix_config(home), tmp_path / "dask.h5", scheduler=cluster.scheduler_address)
    assert HandDataset(tmp_path / "dask.h5").checksum == minted.checksum


def test_finished_output_is_left_alone_and_another_config_refused(home: Path, minted: HandDataset) -> None:
    before = minted.path.stat().st_mtime_ns
    assert remix(remix_config(home), minted.path).figures["kept"] == N
    assert minted.path.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="--overwrite"):
        remix(remix_config(home, seed=1), minted.path)


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(home: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the shard is too large for it."""
    out = tmp_path / "minted.h5"
    limited = (
        "import resource, runpy, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "from handaug.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = [str(out), "--n", str(N), "--poses", str(home / "toy.h5"), "--checkpoint", str(home / "disentangler")]
    arguments += ["--checker", str(home / "checker"), "--max-label-error", "12"]
    done = subprocess.run([sys.executable, "-c", limited, "remix", *arguments], capture_output=True, text=True)
    assert done.returncode == 1 and "free space" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not out.exists()
    assert remix(remix_config(home), out).figures["kept"] == N

"""Peak memory of a remix at several values of N: it must not grow with N.

    python benchmarks/remix_memory.py WORKSPACE 10000 1000000 [--workers 2] [--small]

WORKSPACE holds renders.h5, disentangler/ and checker/ (a bare `handaug remix` makes the last two). With --small they
are made first: drawn hands of 16 px, and networks of seconds whose every image is kept, so that a million take minutes.
Each N runs in processes of its own, so that its peaks (ru_maxrss) are its own: of the process that hands out the work,
and of the largest of those that do it. The minted files are removed again.
"""

import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import h5py
from commands import Parser, make_folder, positive, run_again

from handaug.cli.common import run_script
from handaug.data_specs.errors import InputError

__all__ = ["main"]


def _mint(workspace: Path, n: int, workers: int | None) -> None:
    """Mint and print N, seconds and the peak resident sets in MiB."""
    from handaug.augment.remix import RemixConfig, remix

    lends = workspace / "lends.h5"
    config = RemixConfig(
        n,
        workspace / "renders.h5",
        workspace / "disentangler",
        workspace / "checker",
        appearances=lends if lends.exists() else None,
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=workspace) as folder:
        figures = remix(config, Path(folder) / "minted.h5", workers=workers).figures
    seconds = time.perf_counter() - start
    own, other = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        f"n {n:>9,}  {seconds:8.1f} s  {figures['kept_share']:5.1%} kept  peak {own:6.0f} MiB, largest worker "
        f"{other:6.0f} MiB",
        flush=True,
    )


def _make_small(workspace: Path) -> None:
    """A workspace whose images cost next to nothing: 2,100 train rows of drawn hands."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from toy import write_toy

    from handaug.augment.checker import CheckerConfig, train_checkers
    from handaug.models.disentangle.config import DisentangleConfig
    from handaug.models.disentangle.train import train_disentangler

    data = write_toy(workspace / "renders.h5", 1500, size=16, pool=1500)
    train_disentangler(data, workspace / "disentangler", DisentangleConfig(steps=60, batch_size=16, width=4))
    train_checkers(data, workspace / "checker", CheckerConfig(width=8, steps=80, batch_size=16))
    stored = workspace / "checker" / "config.json"
    # Memory is measured, not labels: nothing is too far off, or nearer to a label that no lender has.
    with h5py.File(shutil.copy(data, workspace / "lends.h5"), "r+") as file:
        file["keypoints_2d"][:], file["visibility"][:] = float("nan"), 0
        file["group"][:] += 10_000
        del file["pose_id"]
    stored.write_text(json.dumps({**json.loads(stored.read_text()), "empty_px": 0.0, "threshold_px": 1000.0}))


def main() -> int:
    """Run each N of the command line in a fresh process."""
    parser = Parser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("n", type=positive, nargs="+")
    parser.add_argument("--workers", type=positive)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    if given.small and not (given.workspace / "checker").exists():
        make_folder(given.workspace)
        _make_small(given.workspace)
    if not given.workspace.is_dir():
        raise InputError(
            f"{given.workspace}: no such folder; give a workspace with a disentangler and a checker, or --small"
        )
    if len(given.n) == 1:
        _mint(given.workspace, given.n[0], given.workers)
        return 0
    workers = [] if given.workers is None else ["--workers", given.workers]
    for n in given.n:
        run_again(__file__, given.workspace, n, *workers)
    return 0


if __name__ == "__main__":
    run_script(main)

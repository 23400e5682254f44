"""What the scenarios few_labels and cross_domain share: recordings of a headset's camera, all rendered, and help.

Three sets of renders that share no pose and no appearance. Source and target were fixed before anything was measured;
help was made to show the same view (it showed any, at first) after a first run. The target has had more poses since.
All show what a headset (mono, egocentric) sees of hands that gesture: open, relaxed, counting, pinch.

* source: few looks (a pool of 20), four of Blender's eight panoramas, a clean sensor: a recording in a laboratory.
* target: hundreds of looks, rooms and skies made by formula in place of panoramas, a rough sensor (movement, defocus,
  casts, tone, JPEG): recordings out in the world.
* help: what `handaug render` draws for this camera and these gestures: panoramas, the standard sensor. Disentangler and
  label checker learn from it alone. It has no picture of source or target, no room, no sky, no rough sensor.

The minted images show poses of help in looks of the target, whose images are taken from a copy without keypoints, mask,
camera or side: minting owes no label to source or target.
"""

import argparse
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from commands import handaug, make_folder, positive, share
from numpy.typing import NDArray

from handaug.augment.checker import default_checker_config, train_checkers
from handaug.augment.gain_config import GainConfig, parse_steps
from handaug.cli.common import RichProgress, pick_device
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import NOT_LABELLED, RIGHT
from handaug.data_specs.subset import write_subset

__all__ = ["Recordings", "add_options", "prepare", "training_options", "without_labels"]

PANORAMAS = ("courtyard", "interior", "night", "studio")
VIEW = ("--camera", "egocentric", "--pose-kinds", "open=1,relaxed=1,count=2,pinch=1")


@dataclass(frozen=True)
class Recordings:
    """The files."""

    source: Path
    """Labelled, of few looks."""
    target: Path
    """Labelled, of many looks."""
    looks: Path
    """The target's train images without labels."""
    help: Path
    """Renders that help; where bare commands expect them."""


def add_options(parser: argparse.ArgumentParser, run: str) -> None:
    """Options of every scenario; `run` is the name of the experiment's folder where none is given."""
    parser.add_argument("out", type=Path, help="folder of everything; scenarios may share one")
    parser.add_argument("--run", default=run, help="the experiment's folder in OUT; another one for other settings")
    parser.add_argument("--seeds", type=positive, default=5)
    parser.add_argument("--steps", default="8000", help="of each estimator, as in train-pose: 1000,8000")
    parser.add_argument("--label-budgets", default="all", help="in poses, as in train-pose: 25,100,all")
    parser.add_argument("--precision", help="of the estimators' arithmetic, as in train-pose")
    parser.add_argument("--minted-fraction", type=share, default=0.5, help="of a batch, where labels are few or alike")
    parser.add_argument("--n", type=positive, default=20_000, help="minted images")
    parser.add_argument("--target-poses", type=positive, default=2000, help="80 %% for training, as in all sets")
    parser.add_argument("--help-poses", type=positive, default=6000)
    parser.add_argument("--disentangle-steps", type=positive, default=2000)
    parser.add_argument("--checker-steps", type=positive, default=12_000, help="of each of the two")
    parser.add_argument("--arms", default="real+renders,real+renders+minted", help="beside the four")
    parser.add_argument("--device", type=pick_device, default="auto")


def prepare(given: argparse.Namespace, *, source_poses: int = 0) -> Recordings:
    """Render, disentangle and mint; what is there already stays. `source_poses`: 0 where no source is asked for."""
    names = ("source.h5", "target.h5", "target-unlabelled.h5", "renders.h5")
    files = Recordings(*(given.out / name for name in names))
    # Its checks, before hours of work.
    GainConfig(
        files.source if source_poses else files.target,
        given.out / "minted.h5",
        renders=files.help,
        arms=given.arms,
        seeds=given.seeds,
        steps=parse_steps(given.steps),
        precision=given.precision or "32-true",
        minted_fraction=given.minted_fraction,
        label_budgets=given.label_budgets,
    )
    make_folder(given.out)
    where, device = ("--workspace", given.out), ("--device", given.device)
    if source_poses:
        panoramas = _link_panoramas(given.out / "panoramas-seen", PANORAMAS)
        uniform = ("--appearance-pool", 20, "--sensor", "clean", "--hdris", panoramas, "--seed", 11)
        handaug("render", files.source, "--poses", source_poses, *VIEW, *uniform, *where)
    wild = ("--environments", "room=1,sky=1", "--sensor", "rough", "--seed", 12)
    handaug("render", files.target, "--poses", given.target_poses, *VIEW, *wild, *where)
    handaug("render", files.help, "--poses", given.help_poses, "--appearances", 8, *VIEW, "--seed", 13, *where)
    without_labels(files.target, files.looks)
    handaug("disentangle", "--steps", given.disentangle_steps, *where, *device)
    settings = replace(default_checker_config(given.device), steps=given.checker_steps)
    train_checkers(files.help, given.out / "checker", settings, device=given.device, progress=RichProgress())
    handaug("remix", "--n", given.n, "--appearances", files.looks, *where, *device)
    return files


def training_options(given: argparse.Namespace, files: Recordings) -> tuple[object, ...]:
    """What `train-pose` is told in every scenario."""
    arms = ("--renders", files.help, "--arms", given.arms) if given.arms else ()
    how = ("--minted-fraction", given.minted_fraction, *(("--precision", given.precision) if given.precision else ()))
    length = ("--seeds", given.seeds, "--steps", given.steps, "--label-budgets", given.label_budgets)
    return (*arms, *how, *length, "--device", given.device, "--workspace", given.out)


def without_labels(source: Path, out: Path) -> None:
    """Copy the train split's images with nothing that tells of the hand; ids say which images belong together."""
    view = HandDataset(source, split="train")
    config = {"unlabelled_copy_of": view.checksum}
    write_subset(view, out, config, ["appearance_id"], kind="imported", change=_forget)


def _forget(rows: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    count = len(rows["images"])
    return rows | {
        "keypoints_2d": np.full((count, 21, 2), np.nan, np.float32),
        "visibility": np.full((count, 21), NOT_LABELLED, np.uint8),
        "handedness": np.full(count, RIGHT, np.uint8),  # the schema has no "unknown": all say the same
    }


def _link_panoramas(folder: Path, names: tuple[str, ...]) -> Path:
    """A folder with these of the panoramas that come with Blender."""
    spec = importlib.util.find_spec("bpy")
    if spec is None or spec.origin is None:
        raise InputError("bpy: is not installed; pip install 'handaug[render]'")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        source = next(Path(spec.origin).parent.rglob(f"studiolights/world/{name}.exr"))
        if not (folder / source.name).exists():
            (folder / source.name).symlink_to(source)
    return folder

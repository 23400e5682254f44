"""What the scenarios few_labels and cross_domain share: recordings of a headset's camera, all rendered, and help.

Three sets of renders that share no pose and no appearance, fixed before anything was measured. All show the view of a
headset (mono, egocentric) of hands that gesture: open, relaxed, counting, pinch.

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
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from commands import handaug

from handaug.data_specs.partial import PartialOutput
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import NOT_LABELLED, RIGHT
from handaug.data_specs.writer import DatasetWriter

__all__ = ["Recordings", "add_options", "prepare", "without_labels"]

PANORAMAS = ("courtyard", "interior", "night", "studio")
VIEW = ("--camera", "egocentric", "--pose-kinds", "open=1,relaxed=1,count=2,pinch=1")
_BLOCK = 512


@dataclass(frozen=True)
class Recordings:
    """Where the files lie."""

    folder: Path

    @property
    def source(self) -> Path:
        """Labelled, of few looks."""
        return self.folder / "source.h5"

    @property
    def target(self) -> Path:
        """Labelled, of many looks."""
        return self.folder / "target.h5"

    @property
    def looks(self) -> Path:
        """The target's train images without labels."""
        return self.folder / "target-unlabelled.h5"

    @property
    def help(self) -> Path:
        """Renders that help; where bare commands expect them."""
        return self.folder / "renders.h5"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of every scenario."""
    parser.add_argument("out", type=Path, help="folder of everything; scenarios may share one")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8000, help="of each estimator")
    parser.add_argument("--n", type=int, default=20_000, help="minted images")
    parser.add_argument("--source-poses", type=int, default=1000, help="80 %% for training, as in all sets")
    parser.add_argument("--target-poses", type=int, default=2000)
    parser.add_argument("--help-poses", type=int, default=6000)
    parser.add_argument("--device", default="auto")


def prepare(given: argparse.Namespace) -> Recordings:
    """Render, disentangle and mint; what is there already stays."""
    files = Recordings(given.out)
    given.out.mkdir(parents=True, exist_ok=True)
    where, device = ("--workspace", given.out), ("--device", given.device)
    panoramas = _link_panoramas(given.out / "panoramas-seen", PANORAMAS)
    uniform = ("--appearance-pool", 20, "--sensor", "clean", "--hdris", panoramas, "--seed", 11)
    wild = ("--environments", "room=1,sky=1", "--sensor", "rough", "--seed", 12)
    handaug("render", files.source, "--poses", given.source_poses, *VIEW, *uniform, *where)
    handaug("render", files.target, "--poses", given.target_poses, *VIEW, *wild, *where)
    handaug("render", files.help, "--poses", given.help_poses, "--appearances", 8, *VIEW, "--seed", 13, *where)
    without_labels(files.target, files.looks)
    handaug("disentangle", *where, *device)
    handaug("remix", "--n", given.n, "--appearances", files.looks, *where, *device)
    return files


def without_labels(source: Path, out: Path) -> None:
    """Copy the train split's images with nothing that tells of the hand; ids say which images belong together."""
    view = HandDataset(source, split="train")
    config = {"unlabelled_copy_of": view.checksum}
    work = PartialOutput.open(out, config, overwrite=False)
    if work is None:
        return
    if not work.is_done(0):
        with DatasetWriter(
            work.shard(0),
            kind="imported",
            config=config,
            seed=view.seed,
            size=view.size,
            channels=view.channels,
            fields=["appearance_id"],
        ) as writer:
            for block in view.iter_batches(_BLOCK, ["images", "split", "group", "appearance_id"]):
                rows = len(block["images"])
                block["keypoints_2d"] = np.full((rows, 21, 2), np.nan, np.float32)
                block["visibility"] = np.full((rows, 21), NOT_LABELLED, np.uint8)
                block["handedness"] = np.full(rows, RIGHT, np.uint8)  # the schema has no "unknown": all say the same
                writer.append(block)
    work.assemble(1, seed=view.seed)


def _link_panoramas(folder: Path, names: tuple[str, ...]) -> Path:
    """A folder with these of the panoramas that come with Blender."""
    spec = importlib.util.find_spec("bpy")
    if spec is None or spec.origin is None:
        sys.exit("Error: bpy: is not installed; pip install 'handaug[render]'")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        source = next(Path(spec.origin).parent.rglob(f"studiolights/world/{name}.exr"))
        if not (folder / source.name).exists():
            (folder / source.name).symlink_to(source)
    return folder

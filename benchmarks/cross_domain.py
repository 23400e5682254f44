"""The gain where the look of the target is unknown to the labels: a labelled source, an unlabelled target.

    python benchmarks/cross_domain.py OUT [--seeds 5] [--steps 4000] [--n 10000] [--device auto]

Three sets of renders that share no pose and no appearance, fixed before anything was measured:

* source, labelled: few looks (a pool of 20), four of Blender's eight panoramas, a clean sensor, like a recording in a
  laboratory. It plays real: its train split is in every arm, its val split chooses checkpoints.
* target: hundreds of looks, rooms and skies made by formula in place of panoramas, a rough sensor (movement, defocus,
  casts, tone, JPEG). Its train split lends its images without a label: a copy that holds no keypoints, mask, camera or
  side. Its test split measures.
* help: what a bare `handaug render` draws: panoramas, the standard sensor. Disentangler and label checker learn from it
  with their defaults; they see no picture of source or target, and no room, sky or rough sensor. Further arms show what
  these renders do when they are simply added, or used alone.

Source and target show the view of a headset (mono, egocentric) of hands that gesture: open, relaxed, counting, pinch.

Ends with what `handaug train-pose` prints: `OUT/pose/report.html` and `gain.json`. Every step is a command of handaug
and is shown; a run that was stopped goes on with the same command.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
from commands import handaug

from handaug.data_specs.partial import PartialOutput
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import NOT_LABELLED, RIGHT
from handaug.data_specs.writer import DatasetWriter

PANORAMAS = ("courtyard", "interior", "night", "studio")
_BLOCK = 512


def link_panoramas(folder: Path, names: tuple[str, ...]) -> Path:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4000, help="of each estimator")
    parser.add_argument("--n", type=int, default=10_000, help="minted images")
    parser.add_argument("--source-poses", type=int, default=1000)
    parser.add_argument("--target-poses", type=int, default=1000)
    parser.add_argument("--help-poses", type=int, default=2000)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    out: Path = given.out
    panoramas = link_panoramas(out / "panoramas-seen", PANORAMAS)
    source, target, help_ = out / "source.h5", out / "target.h5", out / "renders.h5"
    where, device = ("--workspace", out), ("--device", given.device)
    view = ("--camera", "egocentric", "--pose-kinds", "open=1,relaxed=1,count=2,pinch=1")
    uniform = ("--appearance-pool", 20, "--sensor", "clean", "--hdris", panoramas, "--seed", 11)
    wild = ("--environments", "room=1,sky=1", "--sensor", "rough", "--seed", 12)
    handaug("render", source, "--poses", given.source_poses, *view, *uniform, *where)
    handaug("render", target, "--poses", given.target_poses, *view, *wild, *where)
    handaug("render", help_, "--poses", given.help_poses, *where)
    unlabelled = out / "target-unlabelled.h5"
    without_labels(target, unlabelled)
    handaug("disentangle", *where, *device)
    handaug("remix", "--n", given.n, "--poses", source, "--appearances", unlabelled, *where, *device)
    arms = ("--renders", help_, "--arms", "real+renders,renders,minted")
    training = ("--seeds", given.seeds, "--steps", given.steps)
    handaug("train-pose", "--real", source, "--test", target, *arms, *training, *where, *device)


if __name__ == "__main__":
    main()

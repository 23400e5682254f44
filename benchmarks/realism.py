"""Do the renders pass for photographs? MediaPipe Hands, trained on real images, is asked.

    python benchmarks/realism.py OUT [--renders FILE] [--real DATA.h5 ...] [--rows 300] [--env DIR]

Makes an environment of its own with mediapipe 0.10.21 (its wheel carries the models), renders 300 poses of 256 px with
the defaults of `handaug render` (no occluders) unless a file is given, and looks at every image on its own.
Photographs come from `handaug import`, best with `--size 256 --channels rgb`. What was made is not made again: the same
command goes on where it was stopped. OUT then holds renders.h5, realism.json, and misses.png: renders that were not
found or found astray, with the truth and MediaPipe's answer. Pictures of photographs are never written.

Reported, for all and for each group of rows:

* found: share of images in which MediaPipe sees a hand.
* median: of the distances of all labelled joints of the found hands, % of the longer side of the labelled joints' box.
* astray: share of the found hands that are off by more than 20 % on average: something else was taken for the hand.
* offset of each joint: how much nearer to the fingertips than its label MediaPipe puts it, along the bones that meet
  there, % of the box: median over hands that are not astray and bones seen at length.
* side: share of the found hands whose left or right is right. MediaPipe names the side as in a mirror image
  (`true_side`).

Targets, from what it does on photographs (77 to 100 %, 3.2 to 5.6 %): found 90, median 5.5, side 90.
"""

import argparse
import json
import subprocess
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from commands import Parser, at_least, last_line, make_folder, positive
from numpy.typing import NDArray

from handaug.cli.common import RichProgress, run_script
from handaug.data_specs.draw import draw_skeleton, image_grid, save_png
from handaug.data_specs.errors import InputError, WorkError
from handaug.data_specs.joints import JOINTS, PARENTS
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import LEFT, RIGHT
from handaug.models.metrics import hand_box_sides, keypoint_distances
from handaug.render.config import CHOICES, RenderConfig
from handaug.render.job import render_dataset
from handaug.render.skin_model import nearest_monk

__all__ = ["Judged", "facing", "figures", "main", "offsets_along", "pixels_of_shares", "row_groups", "true_side"]

VERSION = "0.10.21"
ASTRAY = 0.2
TARGETS = {"found": 0.90, "median": 0.055, "side": 0.90}
_INDEX, _MIDDLE, _LITTLE = 5, 9, 17
_SHOWN = 24


@dataclass(frozen=True)
class Judged:
    """What MediaPipe made of a dataset; first axis is its rows."""

    shares: NDArray[np.float64]
    """(N, 21) distances of joints over the longer side of the hand's box; NaN without a label or without a hand."""
    found: NDArray[np.bool_]
    """(N,) whether it saw a hand."""
    side_right: NDArray[np.bool_]
    """(N,) whether it saw a hand and named the right side."""
    offsets: NDArray[np.float64]
    """(N, 21) of `offsets_along`."""

    @property
    def means(self) -> NDArray[np.float64]:
        """(N,) mean share of each row's joints; 0 where no hand was found or labelled."""
        known = np.isfinite(self.shares)
        return np.asarray(np.where(known, self.shares, 0.0).sum(1) / np.maximum(known.sum(1), 1))

    @classmethod
    def of(
        cls,
        answers: NDArray[np.floating[Any]],
        labels: Sequence[str],
        keypoints: NDArray[np.floating[Any]],
        visibility: NDArray[np.integer[Any]],
        handedness: NDArray[np.integer[Any]],
    ) -> "Judged":
        """Compare answers (N, 21, 2) in pixels, NaN where no hand was seen, and words, with the labels of a file."""
        found = np.isfinite(answers).all((1, 2))
        sides = np.array([true_side(label) for label in labels])
        boxes = hand_box_sides(keypoints, visibility)
        distances = keypoint_distances(answers, keypoints, visibility)
        sizes = np.where(boxes > 0, boxes, np.nan)[:, None]
        along = offsets_along(answers, keypoints) / sizes
        return cls(distances / sizes, found, found & (sides == handedness), np.where(distances >= 0, along, np.nan))


def offsets_along(found: NDArray[np.floating[Any]], true: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """How far places (N, 21, 2) lie from their labels along the hand, (N, 21), positive towards the fingertips.

    Along the line from the joint before to the one after; at the wrist towards the middle knuckle, at a tip along its
    bone. NaN where that line is shorter than an eighth of the box of all joints whose place is known: it points at the
    camera.
    """
    places = np.asarray(true, np.float64)
    before = np.array([0 if parent < 0 else parent for parent in PARENTS])
    after = np.array([_MIDDLE, *(joint if joint % 4 == 0 else joint + 1 for joint in range(1, len(PARENTS)))])
    line = places[:, after] - places[:, before]
    length = np.linalg.norm(line, axis=-1)
    box = (np.fmax.reduce(places, axis=1) - np.fmin.reduce(places, axis=1)).max(-1)  # leave NaN out
    seen = length > box[:, None] / 8
    return np.where(seen, ((found - places) * line).sum(-1) / np.where(seen, length, 1.0), np.nan)


def true_side(label: str) -> int:
    """The hand that MediaPipe's word means: it takes images to be mirrored, so its "Left" is a right hand; -1 none."""
    return {"Left": RIGHT, "Right": LEFT, "": -1}[label]


def pixels_of_shares(landmarks: NDArray[np.floating[Any]], width: int, height: int) -> NDArray[np.float64]:
    """MediaPipe's landmarks (..., 2), 0 and 1 at the image's borders, in pixels with the first centre at (0, 0)."""
    return np.asarray(landmarks, np.float64) * (width, height) - 0.5


def facing(keypoints_3d: NDArray[np.floating[Any]], handedness: NDArray[np.integer[Any]]) -> list[str]:
    """How each hand (N, 21, 3), camera frame, shows itself.

    "end-on": the palm lies along the line of sight within 45 degrees (from wrist to middle knuckle); else "palm" or
    "back" where that side faces the camera within 60 degrees; else "edge".
    """
    points = np.asarray(keypoints_3d, np.float64)
    wrist = points[:, 0]
    normal = np.cross(points[:, _INDEX] - wrist, points[:, _LITTLE] - wrist)  # out of a right hand's palm
    normal *= np.where(np.asarray(handedness) == RIGHT, 1.0, -1.0)[:, None]
    sight = -points[:, [0, _INDEX, _LITTLE]].mean(1)

    def cosine(a: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((a * sight).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(sight, axis=1)))

    end_on, palm = np.abs(cosine(points[:, _MIDDLE] - wrist)) > np.sqrt(0.5), cosine(normal)
    return [
        "end-on" if along else "palm" if out > 0.5 else "back" if out < -0.5 else "edge"
        for along, out in zip(end_on, palm, strict=True)
    ]


def row_groups(rows: HandDataset) -> dict[str, list[str]]:
    """For each way to group a dataset's rows, the name of each row's group; ways it has no fields for are left out."""
    handedness = rows.read("handedness")
    out = {"side": ["right" if side == RIGHT else "left" for side in handedness]}
    if rows.has("keypoints_3d"):
        out["viewpoint"] = facing(rows.read("keypoints_3d"), handedness)
    if rows.has("appearance_factors"):
        tones = [nearest_monk(float(tone)) for tone in _named(rows, "appearance_factors", "tone")]
        out["skin (Monk)"] = [_range(tone, ((1, 3), (4, 5), (6, 7), (8, 10))) for tone in tones]
    if rows.has("shape") and "age" in list(rows.attrs["shape"]):
        ages = _named(rows, "shape", "age")
        out["age"] = ["child" if age < 0.6 else "adult" if age < 0.8 else "old" for age in ages]
    if rows.has("pose_factors"):
        kinds = CHOICES["pose_kinds"]
        known = _named(rows, "pose_factors", "pose_kind")
        out["pose"] = ["grip" if kind < 0 else kinds[int(kind)] for kind in known]
    return out


def _named(rows: HandDataset, field: str, name: str) -> NDArray[np.float64]:
    return np.asarray(rows.read(field)[:, list(rows.attrs[field]).index(name)], np.float64)


def _range(value: int, ranges: Sequence[tuple[int, int]]) -> str:
    return next(f"{low}-{high}" for low, high in ranges if low <= value <= high)


def figures(judged: Judged, which: NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Figures of the rows `which` (N,), all by default; NaN where nothing was found."""
    picked = np.ones(len(judged.found), bool) if which is None else which
    found = picked & judged.found
    nan = float("nan")
    return {
        "rows": float(picked.sum()),
        "found": float(found.sum() / picked.sum()) if picked.any() else nan,
        "median": _median(judged.shares[found]),
        "astray": float((judged.means[found] > ASTRAY).mean()) if found.any() else nan,
        "side": float(judged.side_right[found].mean()) if found.any() else nan,
    }


def ask(rows: HandDataset, answers: Path, python: Path) -> Judged:
    """MediaPipe's answers for a dataset, kept in the folder `answers` under its checksum."""
    store = _store(rows, answers)
    height, width = rows.size
    if not store.exists():
        answers.mkdir(parents=True, exist_ok=True)
        images, working = answers / "images.npy", answers / "working.npz"
        pixels = rows.read("images")
        np.save(images, np.repeat(pixels, 3, 3) if rows.channels == 1 else pixels)
        command = [python, Path(__file__).with_name("mediapipe_hands.py"), images, working]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        images.unlink()
        if done.returncode:
            raise WorkError(f"MediaPipe failed on {rows.path}: {last_line(done.stderr)}")
        working.replace(store)
    with np.load(store) as answer:
        places, labels = pixels_of_shares(answer["landmarks"], width, height), [str(word) for word in answer["label"]]
    return Judged.of(places, labels, rows.read("keypoints_2d"), rows.read("visibility"), rows.read("handedness"))


def _store(rows: HandDataset, answers: Path) -> Path:
    """Where the answers for these rows are kept."""
    return answers / f"{rows.checksum[:16]}-{len(rows)}.npz"


def environment(folder: Path) -> Path:
    """Python of the environment with MediaPipe, made if it is not there."""
    python = folder / "bin" / "python"
    probe = [python, "-c", f"import mediapipe; assert mediapipe.__version__ == '{VERSION}'"]
    if python.exists() and not subprocess.run(probe, check=False, capture_output=True).returncode:
        return python
    venv.create(folder, with_pip=True, clear=True)
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"mediapipe=={VERSION}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        why = next((line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), "no message")
        raise WorkError(
            f"mediapipe {VERSION} cannot be installed in {folder}: {why}; it needs a package index and "
            "Python 3.9 to 3.12"
        )
    return python


def draw_misses(rows: HandDataset, judged: Judged, answers: Path, out: Path) -> None:
    """Renders that were not found, then those farthest off: truth above, MediaPipe's answer below."""
    off = np.where(judged.found, judged.means, 9.0)
    worst = np.argsort(-off, kind="stable")[:_SHOWN]
    with np.load(_store(rows, answers)) as answer:
        places = pixels_of_shares(answer["landmarks"], rows.size[1], rows.size[0])
    lines: list[list[NDArray[np.uint8]]] = []
    for start in range(0, len(worst), 8):
        block = worst[start : start + 8]
        images, truth = rows.read("images", block), rows.read("keypoints_2d", block)
        lines.append([draw_skeleton(image, points) for image, points in zip(images, truth, strict=True)])
        lines.append([draw_skeleton(image, places[row]) for image, row in zip(images, block, strict=True)])
    save_png(out, image_grid(lines))


def report(name: str, rows: HandDataset, judged: Judged, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Print the table of one dataset; returns what it shows."""
    table: dict[str, Any] = {"all": {"": figures(judged)}}
    for way, names in row_groups(rows).items():
        of_row = np.array(names)
        table[way] = {group: figures(judged, of_row == group) for group in sorted(set(names))}
    say(f"\n{name}: {rows.path}, {len(rows)} images of {rows.size[1]}x{rows.size[0]} px")
    say(f"{'':28}{'images':>8}{'found %':>9}{'median %':>10}{'astray %':>10}{'side %':>9}")
    for way, groups in table.items():
        for group, row in groups.items():
            cells = "".join(f"{100 * row[key]:{width}.1f}" for key, width in _COLUMNS)
            say(f"{(way + ' ' + group).strip():28}{row['rows']:8.0f}{cells}")
    fair = judged.found & (judged.means <= ASTRAY)
    say(f"\n{'not astray':28}{int(fair.sum()):8}{'':9}{'median %':>10}{'offset %':>10}")
    table["joint"] = {}
    for joint, joint_name in enumerate(JOINTS):
        median, offset = (_median(part[fair, joint]) for part in (judged.shares, judged.offsets))
        table["joint"][joint_name] = {"median": median, "offset": offset}
        say(f"{joint_name:45}{100 * median:10.1f}{100 * offset:+10.1f}")
    return table


def _median(values: NDArray[np.float64]) -> float:
    """Of those that are numbers."""
    there = values[np.isfinite(values)]
    return float(np.median(there)) if len(there) else float("nan")


_COLUMNS = (("found", 9), ("median", 10), ("astray", 10), ("side", 9))


def run(arguments: argparse.Namespace) -> None:
    """Everything, from nothing to the tables."""
    out, progress = arguments.out, RichProgress()
    make_folder(out)
    photographs = [HandDataset(path) for path in arguments.real]
    renders = arguments.renders
    if renders is None:
        renders = out / "renders.h5"
        config = RenderConfig(poses=arguments.rows, appearances=1, size=256, channels="rgb", seed=arguments.seed)
        render_dataset(config, renders, workers=arguments.workers, progress=progress)
    rows = HandDataset(renders)
    if len(rows) > arguments.rows:
        rows = HandDataset(renders, rows=np.linspace(0, len(rows) - 1, arguments.rows).astype(int))
    if not len(rows):
        raise InputError(f"{renders}: has no rows; give renders")
    python, answers = environment(arguments.env or out / "mediapipe"), out / "answers"
    judged = ask(rows, answers, python)
    tables = {"renders": report("Renders", rows, judged)}
    draw_misses(rows, judged, answers, out / "misses.png")
    for data in photographs:
        tables[str(data.path)] = report("Photographs", data, ask(data, answers, python))
    reached = tables["renders"]["all"][""]
    for key, target in TARGETS.items():
        good = reached[key] <= target if key == "median" else reached[key] >= target
        print(f"{key}: {100 * reached[key]:.1f} %, target {100 * target:g} %: {'reached' if good else 'missed'}")
    (out / "realism.json").write_text(json.dumps(tables, indent=2) + "\n")


def main() -> int:
    """Parse the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--renders", type=Path, help="renders to judge, in place of rendering them")
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="photographs, as `handaug import` wrote them")
    parser.add_argument("--rows", type=positive, default=300, help="renders to look at, spread over the file")
    parser.add_argument("--env", type=Path, help="environment with MediaPipe, made if missing; OUT/mediapipe")
    parser.add_argument("--seed", type=at_least(0), default=11)
    parser.add_argument("--workers", type=positive)
    arguments = parser.parse_args()
    run(arguments)
    return 0


if __name__ == "__main__":
    run_script(main)

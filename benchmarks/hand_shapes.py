"""Bone lengths and breadths of drawn hands beside published ones, how often poses are drawn again, and pinches.

    python benchmarks/hand_shapes.py [--hands 600] [--poses 400] [--pinches 60]

Bones: Buryanov and Kotiuk, Proportions of Hand Segments, Int. J. Morphology 28 (2010): radiographs of 66 adults, both
sexes. Length and breadth of the hand: Gordon et al., 1988 Anthropometric Survey of U.S. Army Personnel (Natick
TR-89/044), men and women in equal parts. Printed as a Markdown table, millimetres, mean and standard deviation.
"""

import time
from collections import Counter

import numpy as np
from commands import Parser, at_least, positive
from numpy.typing import NDArray

from handaug.cli.common import run_script
from handaug.data_specs.joints import FINGERS
from handaug.render.clear_pose import sample_clear_pose
from handaug.render.hand import HandModel
from handaug.render.penetration import ALLOWED_DEPTH, penetration
from handaug.render.pinching import meet, skin_gap
from handaug.render.pose_prior import ANGLES, KINDS, HandPose, sample_pinch, sample_pose

PUBLISHED = {
    "thumb": ((46.2, 3.9), (31.6, 3.1), (27.4, 1.6)),
    "index": ((39.8, 4.9), (22.4, 2.5), (19.6, 2.3)),
    "middle": ((44.6, 3.8), (26.3, 3.0), (21.4, 1.9)),
    "ring": ((41.4, 3.9), (25.7, 3.3), (21.3, 2.2)),
    "little": ((32.7, 2.8), (18.1, 2.5), (19.7, 2.5)),
}
"""Millimetres, from the palm outwards (thumb: metacarpal and two phalanges); the last with the pulp beyond the bone."""
LENGTH, BREADTH = (187.2, 11.8), (84.9, 6.9)
OPEN = 0.003
"""Metres between two fingertips from which on a pinch looks open."""


def drawn_bones(model: HandModel, hands: int) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """(hands, 3) lengths of each finger's bones and (hands, 2) length and breadth of adults' hands, mm."""
    rng, straight = np.random.default_rng(0), HandPose(np.zeros(len(ANGLES)))
    bones: dict[str, list[NDArray[np.float64]]] = {finger: [] for finger in FINGERS}
    sizes = []
    while len(sizes) < hands:
        shape = model.sample_shape(rng)
        if shape[1] < 0.6:
            continue  # a child
        posed = model.pose(shape, straight)
        joints = posed.joints.astype(np.float64)
        for finger, chain in FINGERS.items():
            steps = np.linalg.norm(np.diff(joints[list(chain)], axis=0), axis=1)
            steps[-1] *= 1 / (1 - 0.12)  # the tip joint lies 12 % inside the skin
            bones[finger].append(1000 * steps)
        palm = posed.vertices[np.unique(model.quads[model.face_segment == 1])]
        at_knuckles = palm[np.abs(palm[:, 1] - 0.92 * joints[9, 1]) < 0.012]
        sizes.append(1000 * np.array([posed.vertices[:, 1].max(), np.ptp(at_knuckles[:, 0])]))
    return {finger: np.array(rows) for finger, rows in bones.items()}, np.array(sizes)


def redrawn(model: HandModel, poses: int) -> tuple[dict[str, float], float, float]:
    """Share of single draws of each kind with fingers in each other; mean draws for a pose; share still touching."""
    rng = np.random.default_rng(1)
    rest = model.rest(model.mean_shape)
    radii = model.radii(rest)
    rates = {}
    for kind in KINDS:
        depth = [penetration(model.joints(rest, sample_pose(rng, kind)), radii) for _ in range(poses // 2)]
        rates[kind] = float(np.mean(np.array(depth) > ALLOWED_DEPTH))
    clear = [sample_clear_pose(rng, model, rest) for _ in range(poses)]
    left = np.mean([penetration(model.joints(rest, c.pose), radii) > ALLOWED_DEPTH for c in clear])
    print("draws for a pose:", dict(sorted(Counter(c.draws for c in clear).items())))
    return rates, float(np.mean([c.draws for c in clear])), float(left)


def pinched(model: HandModel, finger: str, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(count, 2) gaps of drawn pinches of sampled hands before and after `meet`, metres; (count,) its process time,
    seconds."""
    rng = np.random.default_rng(2)
    gaps, spent = np.empty((count, 2)), np.empty(count)
    for k in range(count):
        rest = model.rest(model.sample_shape(rng))
        radii, drawn = model.radii(rest), sample_pinch(rng, finger)
        started = time.process_time()
        met = meet(model, rest, drawn)
        spent[k] = time.process_time() - started
        gaps[k] = [skin_gap(model, rest, pose, radii, finger) for pose in (drawn, met)]
    return gaps, spent


def main() -> int:
    """Print bones, draws and pinches."""
    parser = Parser(description=__doc__)
    parser.add_argument("--hands", type=positive, default=600)
    parser.add_argument("--poses", type=at_least(2), default=400)
    parser.add_argument("--pinches", type=positive, default=60, help="of each finger")
    options = parser.parse_args()
    model = HandModel.load()
    bones, sizes = drawn_bones(model, options.hands)
    print(f"{options.hands} adult hands\n\n| bone | published | drawn |\n| --- | --- | --- |")
    for finger, published in PUBLISHED.items():
        for k, (mean, deviation) in enumerate(published):
            ours = bones[finger][:, k]
            print(f"| {finger} {k + 1} | {mean:.1f} ± {deviation:.1f} | {ours.mean():.1f} ± {ours.std():.1f} |")
        whole = bones[finger].sum(1)
        print(f"| {finger}, whole | {sum(m for m, _ in published):.1f} | {whole.mean():.1f} ± {whole.std():.1f} |")
    for k, (name, (mean, deviation)) in enumerate((("hand length", LENGTH), ("hand breadth", BREADTH))):
        print(f"| {name} | {mean:.1f} ± {deviation:.1f} | {sizes[:, k].mean():.1f} ± {sizes[:, k].std():.1f} |")
    rates, draws, left = redrawn(model, options.poses)
    print(f"\nfingers in each other by more than {1000 * ALLOWED_DEPTH:.0f} mm, single draws: ", end="")
    print(", ".join(f"{kind} {rate:.0%}" for kind, rate in rates.items()))
    print(f"mean draws for a pose {draws:.2f}; still touching after all tries {left:.1%}")
    print(
        f"\n{options.pinches} pinches of each finger: more than {1000 * OPEN:.0f} mm apart, before -> after `meet`",
        end="",
    )
    print("; its process time in ms, least, median, greatest")
    for finger in [finger for finger in FINGERS if finger != "thumb"]:
        gaps, spent = pinched(model, finger, options.pinches)
        before, after = (gaps > OPEN).mean(0)
        low, middle, high = 1000 * np.quantile(spent, (0, 0.5, 1))
        print(f"{finger}: {before:.0%} -> {after:.0%}; {low:.0f}, {middle:.0f}, {high:.0f}")
    return 0


if __name__ == "__main__":
    run_script(main)

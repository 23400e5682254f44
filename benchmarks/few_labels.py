"""The gain in-domain when few poses are labelled.

    python benchmarks/few_labels.py OUT [--budgets 50,200,all] [--seeds 5] [--steps 4000] [--device auto]

Renders of a headset's view (mono, egocentric, hands that gesture) play real. At each budget, disentangler, label
checker and minted images come from the labelled poses alone; validation and test rows stay the same. Ends with what
`handaug train-pose` prints; the curve over budgets is in `OUT/pose/report.html`. A run that was stopped goes on with
the same command.
"""

import argparse
from pathlib import Path

from commands import handaug


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--budgets", default="50,200,all", help="in poses")
    parser.add_argument("--poses", type=int, default=1000, help="of which 80 %% are for training")
    parser.add_argument("--n", type=int, default=10_000, help="minted images at the budget all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4000, help="of each estimator")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    where, device = ("--workspace", given.out), ("--device", given.device)
    view = ("--camera", "egocentric", "--pose-kinds", "open=1,relaxed=1,count=2,pinch=1")
    given.out.mkdir(parents=True, exist_ok=True)
    handaug("render", "--poses", given.poses, *view, "--seed", 21, *where)
    handaug("disentangle", *where, *device)
    handaug("remix", "--n", given.n, *where, *device)
    training = ("--seeds", given.seeds, "--steps", given.steps, "--label-budgets", given.budgets)
    handaug("train-pose", *training, *where, *device)


if __name__ == "__main__":
    main()

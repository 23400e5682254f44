"""The gain in-domain when few poses are labelled.

    python benchmarks/few_labels.py OUT [--label-budgets 25,100] [--seeds 5] [--steps 8000] [--n 20000] [--device auto]

The target of `headset.py` plays real: it is trained on, at each budget with the labels of so many poses, and tested on.
Minted images show poses of renders in the looks of its unlabelled train images, so they are the same at each budget.
Further arms add the renders as they are, which tells how much of a gain is their poses and how much the look, and both.

Ends with what `handaug train-pose` prints; the curve over budgets is in `OUT/few-labels/report.html` (`--run`). A run
that was stopped goes on with the same command.
"""

from commands import Parser, handaug
from headset import add_options, prepare, training_options

from handaug.cli.common import run_script


def main() -> int:
    parser = Parser(description=__doc__)
    add_options(parser, "few-labels")
    parser.set_defaults(label_budgets="25,100")
    given = parser.parse_args()
    files = prepare(given)
    data = ("--real", files.target, "--out", given.out / given.run)
    handaug("train-pose", *data, *training_options(given, files))
    return 0


if __name__ == "__main__":
    run_script(main)

"""The gain where the look of the target is unknown to the labels: a labelled source, an unlabelled target.

    python benchmarks/cross_domain.py OUT [--label-budgets 100,all] [--seeds 5] [--steps 8000] [--n 20000]

The recordings are those of `headset.py`. The source plays real: its train split (at each budget the labels of so many
of its poses) is in every arm, its val split chooses checkpoints; the target's test split measures. Further arms add the
renders of help as they are, which tells how much of a gain is their poses and how much the target's look, and both.

Ends with what `handaug train-pose` prints: `OUT/cross-domain/report.html` and `gain.json`. Every step is a command of
handaug and is shown; a run that was stopped goes on with the same command.
"""

from commands import Parser, handaug, positive
from headset import add_options, prepare, training_options

from handaug.cli.common import run_script


def main() -> int:
    parser = Parser(description=__doc__)
    add_options(parser, "cross-domain")
    parser.add_argument("--source-poses", type=positive, default=1000)
    given = parser.parse_args()
    files = prepare(given, source_poses=given.source_poses)
    data = ("--real", files.source, "--test", files.target, "--out", given.out / given.run)
    handaug("train-pose", *data, *training_options(given, files))
    return 0


if __name__ == "__main__":
    run_script(main)

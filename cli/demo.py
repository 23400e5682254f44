"""`handaug demo`: the whole way through, small enough to watch."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from handaug.cli.common import (
    FOLDER,
    RichProgress,
    Workspace,
    debug_option,
    device_option,
    overwrite_option,
    pick_device,
    seed_option,
)
from handaug.cli.progress import duration

if TYPE_CHECKING:
    from handaug.augment.checker import CheckerConfig

__all__ = ["Demo", "command"]

POSES = 64
MINTED = 1000
DISENTANGLE_STEPS = 600
CHECKER_STEPS = 400
GAIN_STEPS = 240
GAIN_SEEDS = 2
"""Sized for about five minutes on two cores: enough to see shapes in the grid, nowhere near enough to see a gain."""


class How(TypedDict):
    """Arguments that every training takes."""

    device: str
    overwrite: bool
    progress: RichProgress


@click.command()
@click.option(
    "--out",
    "--workspace",
    "out",
    metavar="DIR",
    type=FOLDER,
    default=Path("handaug-demo"),
    show_default="./handaug-demo",
    help="Folder for everything that the demo makes.",
)
@seed_option
@device_option
@overwrite_option
@debug_option
def command(out: Path, seed: int, device: str, overwrite: bool) -> None:
    """Run the whole way through, small, in under ten minutes on two cores.

    Renders 64 poses in two appearances each at 64 px, trains a disentangler on them, mints 1,000 checked images and
    trains pose estimators with and without them. That proves the machinery; it is far too small to measure a gain.
    """
    started_at = time.monotonic()
    progress = RichProgress()
    progress.note("The whole way through, small: about five minutes on two cores.")
    demo = Demo(Workspace(out), seed, pick_device(device), overwrite, progress)
    demo.render()
    demo.disentangle()
    lines = demo.remix() + demo.train_pose()
    progress.note(f"All done in {duration(time.monotonic() - started_at)}.")
    click.echo("\n".join([*lines, "", "Look at:"]))
    for file, what in (
        (demo.place.renders.with_suffix(".png"), "rendered pairs, below them their keypoints"),
        (demo.place.disentangler / "grid.png", "poses by appearances, as the disentangler draws them"),
        (demo.place.minted.with_suffix(".png"), "minted images with their labels"),
        (demo.place.pose / "report.html", "the arms of the gain experiment"),
    ):
        click.echo(f"  {file}  {what}")


@dataclass(frozen=True)
class Demo:
    """The four steps; each does nothing where its output is complete and goes on where it is not."""

    place: Workspace
    """Where everything goes."""
    seed: int
    """Of every step."""
    device: str
    """Where to train, as torch names it."""
    overwrite: bool
    """Whether outputs of other settings may be replaced."""
    progress: RichProgress
    """Told of every step."""

    def render(self) -> None:
        """Draw the pairs."""
        from handaug.render.config import RenderConfig
        from handaug.render.job import render_dataset

        self.progress.note(f"1/4 Rendering {POSES} poses in two appearances each, 64 px, with Blender.")
        config = RenderConfig(poses=POSES, seed=self.seed)
        render_dataset(config, self.place.renders, overwrite=self.overwrite, progress=self.progress)

    def disentangle(self) -> None:
        """Train the disentangler; small batches learn more of so few images."""
        from handaug.models.layered import LayeredConfig, train_layered

        self.progress.note("2/4 Training a network to split an image into pose and appearance.")
        config = LayeredConfig(steps=DISENTANGLE_STEPS, batch_size=16, seed=self.seed)
        train_layered(self.place.renders, self.place.disentangler, config, **self._how())

    def remix(self) -> list[str]:
        """Mint; returns what there is to say about the check."""
        from handaug.augment.checker import train_checkers
        from handaug.augment.remix import RemixConfig, remix

        self.progress.note(f"3/4 Minting {MINTED:,} images, each checked by an estimator that never saw its sources.")
        train_checkers(self.place.renders, self.place.checker, self._checker(), **self._how())
        config = RemixConfig(
            n=MINTED,
            poses=self.place.renders,
            disentangler=self.place.disentangler,
            checker=self.place.checker,
            seed=self.seed,
        )
        return remix(config, self.place.minted, **self._how()).lines()

    def train_pose(self) -> list[str]:
        """Train the arms; returns what there is to say about the gain."""
        from handaug.augment.gain import GainConfig, measure_gain

        self.progress.note("4/4 Training pose estimators with and without the minted images.")
        config = GainConfig(
            real=self.place.renders,
            minted=self.place.minted,
            seeds=GAIN_SEEDS,
            width=16,
            steps=(GAIN_STEPS,),
            seed=self.seed,
            real_is_rendered=True,
            demo=True,
            checker=self._checker(),
        )
        return measure_gain(config, self.place.pose, **self._how()).lines()

    def _checker(self) -> "CheckerConfig":
        from handaug.augment.checker import CheckerConfig

        return CheckerConfig(width=16, steps=CHECKER_STEPS, batch_size=16, seed=self.seed)

    def _how(self) -> "How":
        return {"device": self.device, "overwrite": self.overwrite, "progress": self.progress}

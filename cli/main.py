"""`handaug`: one group of commands, each imported only when it is called."""

import importlib
import keyword
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Never

import click

from handaug import __version__
from handaug.cli.common import exit_code_of, sigterm_raises

__all__ = ["COMMANDS", "LazyGroup", "main"]

COMMANDS: dict[str, str] = {
    "render": "Render paired hands: every pose in two or more appearances.",
    "disentangle": "Train a model that splits images into pose and appearance.",
    "remix": "Mint new labelled images from pose x appearance pairs.",
    "train-pose": "Train pose estimators with and without minted data; report the gain.",
    "evaluate": "Measure a pose estimator on a dataset.",
    "export-onnx": "Write a trained estimator as ONNX, checked against PyTorch.",
    "export": "Write a dataset in another trainer's format.",
    "import": "Import a public hand dataset.",
    "walk": "Draw a walk through pose and appearance space.",
    "transfer": "Draw poses by appearances.",
    "retrieve": "Find the nearest hands in pose and in appearance.",
    "inspect": "Summarise a dataset and draw its contact sheet.",
    "verify": "Check a dataset: schema, ranges, projection, checksum.",
    "doctor": "Report what this machine has and lacks, with remedies.",
    "demo": "Run the whole way through, small, in a few minutes.",
}
"""Each command in the order of the work, with its line in `handaug --help`; it lives in `cli/NAME.py` as `command`."""


class LazyGroup(click.Group):
    """Lists commands without importing them and turns whatever stops one into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `cli/NAME.py` (`import` has a trailing underscore) and return its `command`."""
        if cmd_name not in COMMANDS:
            return None
        module = cmd_name.replace("-", "_") + "_" * keyword.iskeyword(cmd_name)
        command = importlib.import_module(f"handaug.cli.{module}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of `args`, or say which one may have been meant."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = get_close_matches(name, COMMANDS, n=1)
            ctx.fail(f"No such command '{name}'." + (f" Did you mean '{near[0]}'?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands from `COMMANDS` alone."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Never:
        """Run the command and exit; `standalone_mode` is accepted for click's sake and always on."""
        argv = list(sys.argv[1:] if args is None else args)

        def work() -> int:
            with sigterm_raises():
                result = super(LazyGroup, self).main(argv, prog_name, complete_var, standalone_mode=False, **extra)
            return result if isinstance(result, int) else 0

        sys.exit(exit_code_of(work, debug="--debug" in argv))


@click.group(
    cls=LazyGroup,
    context_settings={"show_default": True, "max_content_width": 100, "help_option_names": ["-h", "--help"]},
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.version_option(__version__, message="handaug %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Synthetic hands that make pose estimators better.

    Three commands are a full run, each finding its files in the workspace:

    \b
        handaug render
        handaug remix --n 100000
        handaug train-pose

    `handaug COMMAND --help` shows every option with its unit and default.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())

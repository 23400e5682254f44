"""Write docs/cli.md from the help texts: `make docs`. A test keeps the page and the texts equal."""

from pathlib import Path

import click

from handaug.cli.main import COMMANDS, main

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"

HEAD = """# The commands

Written by `make docs` from `handaug --help` and `handaug COMMAND --help`; change the help texts, not this page.

Exit codes: 0 done; 1 the work failed, or `verify` found damage; 2 an argument or an input file is wrong, or the output
cannot be written; 130 stopped by Ctrl-C; 143 by SIGTERM. What went wrong is one line on stderr; `--debug` adds the
traceback. Long commands go on where they stopped when they are typed again, and do nothing when the work is done.
"""


def page() -> str:
    """The whole page, at a fixed width so that no terminal changes it."""
    root = click.Context(main, info_name="handaug", terminal_width=100, **main.context_settings)
    parts = [HEAD, "## handaug\n", f"```\n{main.get_help(root)}\n```\n"]
    for name in COMMANDS:
        command = main.get_command(root, name)
        assert command is not None
        with click.Context(command, info_name=name, parent=root, terminal_width=100) as context:
            parts += [f"## handaug {name}\n", f"```\n{command.get_help(context)}\n```\n"]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

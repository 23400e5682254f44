"""What tests of `handaug import` share: the command, its one line of error, and sources to spoil."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from handaug.cli.main import main


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["import", *map(str, arguments)])


def refused(result: Result, *words: str) -> str:
    """The one line on stderr, which holds these words."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.exit_code == 2 and len(lines) == 1 and not result.stdout, result.output
    assert all(word in lines[0] for word in words), lines[0]
    return lines[0]


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


def no_image(path: Path) -> None:
    path.write_bytes(b"hello" * 50)

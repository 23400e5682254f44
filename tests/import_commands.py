"""What tests of `handaug import` share: the command, its one line of error, and sources to spoil or turn."""

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


def with_exif_turn(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with an APP1 of one EXIF entry, the orientation: 3 to be turned by half, 6 clockwise, 8 the other way."""
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00%c" % orientation + bytes(6)
    exif = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]


def no_image(path: Path) -> None:
    path.write_bytes(b"hello" * 50)

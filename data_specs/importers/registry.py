"""The formats that can be imported; each reader is a module that is loaded when it is asked for."""

import importlib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from handaug.data_specs.errors import InputError
from handaug.data_specs.importers.options import ImportOptions
from handaug.data_specs.importers.records import Source
from handaug.data_specs.schema import SPLITS

__all__ = ["FORMATS", "Format", "find_format", "open_source"]


@dataclass(frozen=True)
class Format:
    """One dataset format."""

    name: str
    """What the user types; the reader is `handaug.data_specs.importers.NAME`, with `open_source(path, options)`."""
    title: str
    """The dataset's own name."""
    setups: tuple[str, ...] = ()
    """Names that `--split` knows for this format besides the usual ones."""

    @property
    def module(self) -> str:
        """The reader's module."""
        return f"handaug.data_specs.importers.{self.name.replace('-', '_')}"


FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        Format("rhd", "Rendered Hand Pose Dataset v2"),
        Format("stb", "Stereo Hand Pose Tracking Benchmark"),
        Format("freihand", "FreiHAND v2"),
        Format("interhand", "InterHand2.6M v1.0"),
        Format("ho3d", "HO-3D v2 or v3"),
        Format("dexycb", "DexYCB", ("s0", "s1", "s2", "s3")),
        Format("coco-wholebody", "COCO-WholeBody v1.0"),
        Format("onehand10k", "OneHand10K"),
        Format("panoptic", "CMU Panoptic HandDB"),
        Format("umetrack", "UmeTrack"),
        Format("coco", "COCO keypoints JSON"),
        Format("frames", "pictures without labels"),
    )
}
"""Every format by name."""


def find_format(name: str, path: Path, options: ImportOptions) -> Format:
    """The format of a name, without a look into the source.

    Raises:
        InputError: Unknown format, an option that does not go with it, or nothing at `path`.
    """
    form = FORMATS.get(name)
    if form is None:
        near = get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose {', '.join(FORMATS)}"
        raise InputError(f"{name}: is no format to import; {hint}")
    known = ("official", *SPLITS, *form.setups)
    if options.split not in known and options.shares is None:
        raise InputError(f"--split {options.split}: {name} knows {', '.join(known)}, or shares such as 8:1:1")
    if options.wrist is not None and name != "stb":
        raise InputError(f"--wrist {options.wrist}: is for stb, whose labels have no wrist; {name} has one")
    if options.views != "all" and name != "stb":
        raise InputError(f"--views {options.views}: is for stb, which has three cameras; leave it out for {name}")
    if options.hands == "prominent" and name != "rhd":
        raise InputError(f"--hands prominent: is for rhd, whose masks tell which that is; {name} has left, right, both")
    if not path.exists():
        raise InputError(f"{path}: no such folder; give the folder in which {form.title} lies")
    return form


def open_source(name: str, path: Path, options: ImportOptions) -> tuple[Format, Source]:
    """Open a dataset of a format.

    Raises:
        InputError: As of `find_format`, or `path` does not hold it.
    """
    form = find_format(name, path, options)
    opened: Source = importlib.import_module(form.module).open_source(path, options)
    return form, opened

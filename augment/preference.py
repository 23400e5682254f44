"""A sheet of held-out swaps on which a person says which of two is better: the user study of Table 3 of Li et al. 2019.

The sheet is one HTML file with everything in it. It does not say which image is whose: that is in a key file beside it,
which the person does not get. The button on the sheet saves the answers as CSV; `count_answers` joins both.
"""

import base64
import csv
import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.draw import as_rgb, enlarge
from handaug.data_specs.errors import InputError
from handaug.data_specs.writer import replace_atomically

__all__ = ["Preference", "Trial", "count_answers", "write_sheet"]

_SCALE = 3
_CHOICES = ("left", "right", "same")
_Z = 1.959963984540054

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Which image is better?</title><style>
body {{ font: 16px sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }}
img {{ image-rendering: pixelated; display: block; }}
fieldset {{ display: flex; flex-wrap: wrap; gap: 1.2em; margin: 1em 0; align-items: end; }}
button {{ font-size: 1.1em; padding: .4em 1em; }}
</style></head><body>
<h1>Which image is better?</h1>
<p>Each line shows a hand whose <b>pose</b> is wanted and an image whose <b>appearance</b> (light, skin, background) is
wanted. Left and right are two attempts at that pose in that appearance. Choose the one that looks more like a
photograph of it. Then save your answers with the button at the end.</p>
<form>
{trials}
</form>
<button type="button" onclick="save()">Save answers.csv</button> <span id="left"></span>
<script>
function save() {{
  var lines = ["trial,answer"], open = 0;
  document.querySelectorAll("fieldset").forEach(function (set) {{
    var chosen = set.querySelector("input:checked");
    if (chosen) lines.push(set.id.slice(1) + "," + chosen.value); else open += 1;
  }});
  document.getElementById("left").textContent = open ? open + " lines have no answer yet" : "";
  var link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\\n") + "\\n"], {{type: "text/csv"}}));
  link.download = "answers.csv";
  link.click();
}}
</script></body></html>
"""


@dataclass(frozen=True)
class Trial:
    """One line of the sheet; images are (H, W, C) uint8."""

    pose: NDArray[np.uint8]
    appearance: NDArray[np.uint8]
    first: NDArray[np.uint8]
    """By the first method."""
    second: NDArray[np.uint8]
    """By the second."""


@dataclass(frozen=True)
class Preference:
    """What came of it."""

    names: tuple[str, str]
    counts: tuple[int, int]
    """Answers for either."""
    undecided: int
    """Answers "same", which count for neither."""

    @property
    def share(self) -> float:
        """Of the decided answers, those for the first."""
        return self.counts[0] / max(1, sum(self.counts))

    @property
    def ci95(self) -> tuple[float, float]:
        """Wilson's interval of the share; (0, 1) without answers."""
        n = sum(self.counts)
        if not n:
            return 0.0, 1.0
        middle = (self.share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(self.share * (1 - self.share) / n + _Z**2 / (4 * n**2))
        return max(0.0, middle - half), min(1.0, middle + half)


def write_sheet(folder: Path, trials: Sequence[Trial], names: tuple[str, str], seed: int = 0) -> tuple[Path, Path]:
    """Write `preference.html` and `key.csv`.

    Args:
        folder: Made if missing.
        trials: Lines of the sheet.
        names: Of the two methods, for the key.
        seed: Of which side each is shown on.

    Returns:
        The sheet and the key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    swapped = np.random.default_rng(seed).integers(0, 2, len(trials)).astype(bool)
    sets, key = [], ["trial,left,right"]
    for i, (trial, swap) in enumerate(zip(trials, swapped.tolist(), strict=True)):
        left, right = (trial.second, trial.first) if swap else (trial.first, trial.second)
        key.append(f"{i},{names[swap]},{names[not swap]}")
        shown = (("pose", trial.pose), ("appearance", trial.appearance), ("left", left), ("right", right))
        cells = [f"<div>{html.escape(name)}{_image(image, name)}</div>" for name, image in shown]
        cells += [f'<label><input type="radio" name="t{i}" value="{one}"> {one}</label>' for one in _CHOICES]
        sets.append(f'<fieldset id="t{i}"><legend>{i + 1}</legend>{"".join(cells)}</fieldset>')
    sheet, answers = folder / "preference.html", folder / "key.csv"
    for path, text in ((sheet, _PAGE.format(trials="\n".join(sets))), (answers, "\n".join(key) + "\n")):
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text(text)
        replace_atomically(temporary, path)
    return sheet, answers


def _image(image: NDArray[np.uint8], name: str) -> str:
    png = cv2.imencode(".png", enlarge(as_rgb(image), _SCALE)[..., ::-1])[1].tobytes()
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def count_answers(key: Path, answers: Sequence[Path]) -> Preference:
    """Count what people preferred.

    Args:
        key: Of `write_sheet`.
        answers: One file a person.

    Raises:
        InputError: A file is missing or holds something else; the message names file and line.
    """
    sides = {}
    for line in _read(key, ("trial", "left", "right")):
        sides[line["trial"]] = {"left": line["left"], "right": line["right"]}
    names = sorted({name for side in sides.values() for name in side.values()})
    if len(names) != 2:
        raise InputError(f"{key}: names {len(names)} methods, must name two; give the key.csv of the sheet")
    votes = {name: 0 for name in names}
    undecided = 0
    for path in answers:
        for number, line in enumerate(_read(path, ("trial", "answer")), start=2):
            if line["trial"] not in sides or line["answer"] not in _CHOICES:
                raise InputError(f"{path}: line {number} is not an answer to a line of the sheet; save it anew")
            if line["answer"] == "same":
                undecided += 1
            else:
                votes[sides[line["trial"]][line["answer"]]] += 1
    return Preference((names[0], names[1]), (votes[names[0]], votes[names[1]]), undecided)


def _read(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV; give a file with columns {', '.join(columns)}") from error
    if tuple(reader.fieldnames or ()) != columns or any(None in line.values() for line in lines):
        raise InputError(f"{path}: must have the columns {', '.join(columns)}; give another file")
    return lines

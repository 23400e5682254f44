"""Table 4: its arithmetic in closed form, and the whole command on toy hands."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from toy import write_toy

from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import LEFT

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "table4.py"


@pytest.fixture(scope="module")
def table4() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)  # as for a script: it imports its neighbours
        return runpy.run_path(str(SCRIPT))


def test_gains_over_both_baselines_in_closed_form(table4: dict[str, Any]) -> None:
    level = {"1": 10.0, "2": 9.0, "3": 9.5, "1+": 8.0, "4": 9.0, "5": 8.0, "6": 6.0}
    errors = {name: np.full((3, 6, 21), value) for name, value in level.items()}
    rows = {row["model"]: row for row in table4["table"](errors, np.repeat(np.arange(3), 2), 25)}
    assert rows["6"]["gain_over_1"]["mean"] == pytest.approx(40.0)
    assert rows["6"]["gain_over_1+"] == {"mean": pytest.approx(25.0), "ci95": [pytest.approx(25.0)] * 2}
    assert rows["1+"]["gain_over_1"]["mean"] == pytest.approx(20.0)  # what the longer training alone gives
    assert "gain_over_1+" not in rows["2"] and rows["6"]["epochs"] == 50 and rows["6"]["square_px2"] == 36.0
    text = table4["as_markdown"](list(rows.values()), 3, 12.0)
    assert "| 6 5 + no pose detach | 50 | 6.00 (6.00, 6.00, 6.00) | 36.0 | +40.0 % (+40.0 to +40.0)" in text
    assert "3.735, 10.53 %" in text and "| 12.00 |" in text


def test_resumed_models_begin_as_the_model_they_resume(table4: dict[str, Any]) -> None:
    chosen = table4["setting"](False, None, None, None)
    made = table4["configs"](chosen, 800)
    assert made["1"].steps == 25 * 50 and made["6"].steps == 2 * made["3"].steps
    for name, (first, phase) in {"1+": ("1", 1), "4": ("3", 4), "5": ("3", 5), "6": ("3", 6)}.items():
        half = made[first].steps
        assert {made[name].phase_at(s) for s in range(half)} == {made[first].phase_at(0)}
        assert {made[name].phase_at(s) for s in range(half, 2 * half)} == {phase}
    full = table4["setting"](True, None, None, None)
    assert (full.epochs, full.base.batch_size, full.poses, full.right) == (75, 128, None, False)


def test_the_command_trains_all_seven_and_goes_on(
    table4: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_toy(tmp_path / "toy.h5", 30, size=32)
    arguments = [str(data), str(tmp_path / "out"), "--poses", "8", "--epochs", "1", "--seeds", "1", "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["table4.py", *arguments])
    table4["main"]()
    first = json.loads((tmp_path / "out" / "table4.json").read_text())
    assert [row["model"] for row in first["rows"]] == ["1", "2", "3", "1+", "4", "5", "6"]
    assert first["train_rows"] == 16 and "baseline, resumed" in capsys.readouterr().out
    used = HandDataset(tmp_path / "out" / "data.h5")
    groups = [set(HandDataset(used.path, split=split).read("group").tolist()) for split in ("train", "test")]
    looks = [set(HandDataset(used.path, split=split).read("appearance_id").tolist()) for split in ("train", "test")]
    assert not groups[0] & groups[1] and not looks[0] & looks[1]
    before = (tmp_path / "out" / "6-0" / "model.safetensors").stat().st_mtime_ns
    table4["main"]()
    assert json.loads((tmp_path / "out" / "table4.json").read_text()) == first
    assert (tmp_path / "out" / "6-0" / "model.safetensors").stat().st_mtime_ns == before
    monkeypatch.setattr(sys, "argv", ["table4.py", *arguments[:1], str(tmp_path / "other"), "--poses", "900"])
    with pytest.raises(InputError, match="--poses 900: .* has 21 such train poses"):
        table4["main"]()
    with h5py.File(data, "r+") as file:
        file["handedness"][:] = LEFT
    with pytest.raises(InputError, match="--poses 900: .* has 0 such train poses"):
        table4["main"]()

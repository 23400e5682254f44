"""Retrieval by either code, against codes whose neighbours are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from test_leakage import Coded
from toy import write_toy

from handaug.augment.retrieval import nearest, retrieval_sheet
from handaug.cli import retrieve as retrieve_command
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.models.disentangle import DisentangleConfig, train_disentangler


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.h5", 40, size=32, pool=9)


def test_nearest_is_the_sorted_distance_without_what_is_excluded() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(3, 5)).astype(np.float32), rng.normal(size=(20, 5)).astype(np.float32)
    never = np.zeros((3, 20), np.bool_)
    never[0, np.linalg.norm(gallery - queries[0], axis=1).argmin()] = True
    found = nearest(queries, gallery, 4, never=never)
    for i in range(3):
        order = [int(k) for k in np.argsort(np.linalg.norm(gallery - queries[i], axis=1)) if not never[i, k]]
        assert found[i].tolist() == order[:4]


class Labels(Coded):
    """Pose codes are the joints, appearance codes the number of the appearance."""

    def __init__(self, data: Path) -> None:
        super().__init__(data, "joints", "number")
        rows = HandDataset(data)
        self.codes = {
            "joints": rows.read("keypoints_2d").reshape(len(rows), -1),
            "number": rows.read("appearance_id")[:, None] * 1.0,
        }


def test_codes_that_are_the_labels_find_what_shares_them(data: Path) -> None:
    train = HandDataset(data, split="train")
    queries = HandDataset(data, rows=train.rows[:4])
    model: Any = Labels(data)
    figures = retrieval_sheet(model, queries, train, top=3).figures
    # Each pose has one other render, each appearance many: the first is found at once, the rest fill the places.
    assert figures["same_pose_by_pose"] == 1.0 and figures["same_appearance_by_appearance"] == 1.0
    assert figures["pose_error_px_by_pose"] < 0.8 * figures["pose_error_px_chance"]
    assert figures["same_pose_chance"] == pytest.approx(3 / (len(train) - 1))
    assert figures["same_appearance_by_pose"] < 0.9
    with pytest.raises(InputError, match="--top 100: .* has 56 rows to search"):
        retrieval_sheet(model, queries, train, top=100)


def test_the_command_draws_the_top_in_two_blocks(data: Path, tmp_path: Path) -> None:
    config = DisentangleConfig(steps=1, batch_size=8, width=4, discriminator_width=4, phases=((3, 1.0),))
    run = train_disentangler(data, tmp_path / "run", config)
    arguments = [
        str(data),
        "--checkpoint",
        str(run),
        "--split",
        "train",
        "--device",
        "cpu",
        "--workspace",
        str(tmp_path),
    ]
    result = CliRunner().invoke(retrieve_command.command, [*arguments, "--top", "12", "--query-rows", "0,5,8"])
    assert result.exit_code == 0, result.output
    assert "same_appearance_by_appearance" in result.output and "[0, 5, 8]" in result.output
    picture = Image.open(tmp_path / "retrieve.png")
    # 3 queries, 2 codes, 12 hits in lines of 10, 32 pixels doubled, and a thin gap under each block
    assert picture.size == (11 * (64 + 4) + 4, 3 * 2 * (2 * (64 + 8) + 4 + 8))
    for bad, message in (
        (["--top", "0"], "--top 0"),
        (["--split", "some"], "--split some"),
        (["--query-rows", "x"], "--query-rows x"),
    ):
        refused = CliRunner().invoke(retrieve_command.command, [*arguments, *bad])
        assert isinstance(refused.exception, InputError) and message in str(refused.exception)
    other = write_toy(tmp_path / "small.h5", 8, size=16)
    refused = CliRunner().invoke(retrieve_command.command, [*arguments, "--gallery", str(other)])
    assert isinstance(refused.exception, InputError) and "16x16 px" in str(refused.exception)


def test_codes_do_not_depend_on_the_block(data: Path) -> None:
    torch.manual_seed(0)
    view = HandDataset(data, split="train")
    model: Any = Labels(data)
    whole, few = (retrieval_sheet(model, v, view, top=2).image for v in (view, HandDataset(data, rows=view.rows[:1])))
    assert np.array_equal(whole[: len(few)], few)

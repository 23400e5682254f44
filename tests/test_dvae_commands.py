"""The commands around the dVAE: disentangle --method, --set, evaluate, walk, transfer; and the plots."""

import json
import runpy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from test_disentangle import TINY
from tiny_dvae import SIZE, tiny
from toy import write_toy

from handaug.augment.dvae_figures import line_figure, pck_figure, text_table
from handaug.augment.walk import pick_rows, rows_of, transfer_sheet, walk_sheet
from handaug.cli.main import main
from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.models.disentangle import train_disentangler
from handaug.models.dvae.api import Dvae
from handaug.models.dvae.data import read_poses
from handaug.models.dvae.measure import mean_pose, read_rows
from handaug.models.dvae.pictures import TRUE, skeleton
from handaug.models.dvae.train import train_dvae
from handaug.models.methods import METHODS, change_config, load_run, method_of_run, resolve
from handaug.models.metrics import MM_GRID


def handaug(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def runs(dvae_runs: dict[str, Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {**dvae_runs, "self": train_disentangler(data, tmp_path_factory.mktemp("runs") / "self", TINY)}


def test_every_method_has_a_config_a_trainer_and_a_loader(runs: dict[str, Path]) -> None:
    for name, method in METHODS.items():
        config = resolve(method.default_config)(name, 100, (64, 64), "cpu")
        assert config.method == name and callable(resolve(method.train)) and callable(resolve(method.load))
    for name, run in runs.items():
        assert method_of_run(run) == name == load_run(run).method


def test_command_trains_with_set_and_evaluates(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["disentangle", data, "--method", "dvae-pose", "--out", out, "--steps", "4", "--batch-size", "4"]
    command += ["--set", "factors=cpose:3,viewpoint:2", "--set", "width=2", "--set", "augment=false", "--device", "cpu"]
    done = handaug(*command, "--triples", data)
    assert done.exit_code == 0, done.output
    stored = json.loads((out / "config.json").read_text())["config"]
    assert stored["factors"] == [["cpose", 3], ["viewpoint", 2]] and stored["augment"] is False and stored["steps"] == 4
    shown = handaug("evaluate", out, data, "--split", "val", "--json", "--device", "cpu")
    assert shown.exit_code == 0, shown.output
    figures = json.loads(shown.stdout)
    judged = handaug("evaluate", out, data, "--judge", out, "--device", "cpu")
    assert judged.exit_code == 2 and "--judge" in judged.output and "draws no images" in judged.output
    assert {"pose3d_epe_mean_mm", "cpose_auc_20_50_mm", "viewpoint_mean_deg", "kl_embed/image_nats"} <= set(figures)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "magic"], ["--method magic", "dvae-zu"]),
        (["--method", "dvae", "--set", "bta=3"], ["--set bta=3", "beta"]),
        (["--method", "dvae", "--set", "beta"], ["--set beta: give NAME=VALUE"]),
        (["--method", "dvae", "--set", "beta=high"], ["--set beta=high", "float"]),
        (["--method", "dvae", "--set", "augment=maybe"], ["--set augment=maybe"]),
        (["--method", "self", "--set", "seed=" + "9" * 23], ["--seed " + "9" * 23, "below 2**63"]),
        (["--method", "dvae", "--phase", "3:1"], ["--phase"]),
        (["--method", "dvae", "--triples", "x.h5"], ["--triples"]),
        (["--method", "dvae-pose", "--triples", "nothing.h5"], ["nothing.h5: no such file"]),
    ],
)
def test_bad_options_of_disentangle_in_one_line(
    data: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    done = handaug("disentangle", data, "--out", tmp_path / "run", "--device", "cpu", *arguments)
    lines = done.stderr.splitlines()
    assert done.exit_code == 2 and len(lines) == 1 and all(word in lines[0] for word in words), done.output
    assert not (tmp_path / "run").exists()


def test_set_reads_every_kind_of_value() -> None:
    config = change_config(
        tiny("dvae-zu"), ["factors=cpose:4,viewpoint:3", "z-u=7", "beta=1e-2", "augment=FALSE", "embed=image"]
    )
    assert config.factors == (("cpose", 4), ("viewpoint", 3)) and (config.z_u, config.beta) == (7, 0.01)
    assert config.augment is False and config.embed == ("image",)


@pytest.mark.parametrize("method", ["dvae", "dvae-zu", "self"])
def test_walk_and_transfer_draw_what_they_say(runs: dict[str, Path], data: Path, tmp_path: Path, method: str) -> None:
    common = [data, "--checkpoint", runs[method], "--device", "cpu"]
    walked = handaug("walk", *common, "--out", tmp_path / "walk.png", "--steps", "5", "--split", "train")
    assert walked.exit_code == 0, walked.output
    assert "content_drift_px" in walked.stdout
    cell = 2 * SIZE + 4
    assert Image.open(tmp_path / "walk.png").size == (8 * cell + 4, 5 * cell + 4)
    moved = handaug(
        "transfer", *common, "--out", tmp_path / "t.png", "--pose-rows", "0,2,4", "--appearance-rows", "1,3"
    )
    assert moved.exit_code == 0, moved.output
    assert Image.open(tmp_path / "t.png").size == (4 * cell + 4, 4 * cell + 4)


def test_a_walk_starts_and_ends_where_it_says(runs: dict[str, Path], data: Path) -> None:
    """The first image of the walk is pose 0 in appearance 0, the last pose 1, to the level."""
    model = load_run(runs["dvae-zu"])
    poses, appearances = rows_of(data, [0, 4]), rows_of(data, [2, 6])
    image = walk_sheet(model, poses, appearances, steps=3, scale=1).image
    grid = transfer_sheet(model, poses, appearances, scale=1).image

    def cell(sheet: Any, row: int, column: int) -> Any:
        top, left = 4 + row * (SIZE + 4), 4 + column * (SIZE + 4)
        return sheet[top : top + SIZE, left : left + SIZE].astype(int)

    for row, end, column in ((0, 0, 2), (0, 1, 4)):  # line of the walk in appearance 0, its ends
        assert np.abs(cell(image, row, column) - cell(grid, 1 + end, 2)).max() <= 1
    assert np.abs(cell(image, 1, 2) - cell(grid, 1, 3)).max() <= 1  # appearance 1
    content = cell(image, 3, 2), cell(image, 3, 4)  # the content walk, in the pose of the walk's last column
    assert np.abs(content[0] - cell(image, 0, 4)).max() <= 1 and np.abs(content[1] - cell(image, 1, 4)).max() <= 1


def test_a_model_that_places_no_hands_walks_without_skeletons(data: Path, tmp_path: Path) -> None:
    """3DPose x content, the paper's own factors."""
    config = tiny("dvae", factors=(("pose3d", 6), ("content", 5)))
    model = load_run(train_dvae(data, tmp_path / "run", config))
    poses, appearances = rows_of(data, [0, 4]), rows_of(data, [2, 6])
    for sheet in (walk_sheet(model, poses, appearances, steps=3), transfer_sheet(model, poses, appearances)):
        assert sheet.image.std() > 0 and sheet.figures == {}


def test_appearances_from_the_prior(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    arguments = [data, "--device", "cpu", "--appearances", "prior", "--n-appearances", "3", "--n-poses", "2"]
    done = handaug("transfer", *arguments, "--checkpoint", runs["dvae-zu"], "--out", tmp_path / "p.png")
    assert done.exit_code == 0, done.output
    assert Image.open(tmp_path / "p.png").width == 5 * (2 * SIZE + 4) + 4
    refused = handaug("transfer", *arguments, "--checkpoint", runs["self"], "--out", tmp_path / "q.png")
    assert refused.exit_code == 2 and "has no prior" in refused.stderr
    model = load_run(runs["dvae"])
    assert isinstance(model, Dvae)
    draws = [model.prior_appearance(3, seed) for seed in (0, 0, 1)]
    pose = model.encode_labels(read_poses(rows_of(data, [0, 2, 4]), "wrist"))
    images = [model.decode(pose, draw) for draw in draws]
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        ("walk", ["--steps", "65"], ["--steps 65", "2..64"]),
        ("walk", ["--pose-rows", "1"], ["--pose-rows 1", "two row numbers"]),
        ("walk", ["--pose-rows", "a,b"], ["--pose-rows a,b"]),
        ("walk", ["--appearance-rows", "0,99999"], ["no row 99999"]),
        ("walk", ["--split", "all"], ["--split all"]),
        ("transfer", ["--appearances", "dreams"], ["--appearances dreams"]),
        ("transfer", ["--n-poses", "0"], ["--n-poses 0"]),
        ("transfer", ["--pose-rows", "-1"], ["--pose-rows"]),
        ("transfer", ["--appearances", "prior", "--appearance-rows", "1,2"], ["--appearance-rows 1,2", "prior"]),
    ],
)
def test_bad_options_of_the_pictures(
    runs: dict[str, Path], data: Path, tmp_path: Path, command: str, options: list[str], words: list[str]
) -> None:
    done = handaug(command, data, "--checkpoint", runs["dvae-zu"], "--out", tmp_path / "x.png", *options)
    lines = done.stderr.splitlines()
    assert done.exit_code == 2 and len(lines) == 1 and all(word in lines[0] for word in words), done.output
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("command", ["walk", "transfer", "retrieve"])
def test_pictures_make_the_workspace_or_name_it_before_they_are_drawn(
    runs: dict[str, Path], data: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [command, data, "--checkpoint", runs["self"], "--device", "cpu", "--split", "train"]
    place = tmp_path / "no" / "workspace" / f"{command}.png"
    done = handaug(*arguments, "--workspace", place.parent)
    assert done.exit_code == 0, done.output
    assert list(place.parent.iterdir()) == [place]
    (tmp_path / "file").write_text("no folder")
    for name in ("walk.walk_sheet", "walk.transfer_sheet", "retrieval.retrieval_sheet"):
        monkeypatch.setattr(f"handaug.augment.{name}", None)
    refused = handaug(*arguments, "--workspace", tmp_path / "file")
    lines = refused.stderr.splitlines()
    assert refused.exit_code == 2 and len(lines) == 1 and "cannot be written" in lines[0], refused.output


@pytest.mark.filterwarnings("error")
def test_rows_without_labels_have_no_part_in_the_error(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.h5"
    part.write_bytes(data.read_bytes())
    with h5py.File(part, "r+") as file:
        file["visibility"][:2] = 0
        file["keypoints_2d"][:2] = np.nan
        del file["keypoints_3d"]
    model = load_run(runs["self"])
    known, lends = rows_of(part, [4]), rows_of(part, [8, 11])
    expected = transfer_sheet(model, known, lends).figures["own_error_px"]
    assert transfer_sheet(model, rows_of(part, [0, 4, 1]), lends).figures == {"own_error_px": pytest.approx(expected)}
    assert transfer_sheet(model, rows_of(part, [0, 1]), lends).figures == {}


def test_a_run_without_images_is_refused(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    done = handaug("walk", data, "--checkpoint", runs["dvae-pose"], "--out", tmp_path / "x.png", "--device", "cpu")
    assert done.exit_code == 2 and "decodes no images from pose and appearance" in done.stderr
    other = write_toy(tmp_path / "large.h5", 8, size=48)
    done = handaug("transfer", other, "--checkpoint", runs["dvae"], "--out", tmp_path / "x.png", "--split", "train")
    assert done.exit_code == 2 and "give data of that size" in done.stderr


def test_rows_are_drawn_of_one_side_and_differ(data: Path) -> None:
    view = HandDataset(data, split="train")
    drawn = pick_rows(view, 5, 3, differ="pose_id")
    assert len(np.unique(drawn.read("pose_id"))) == 5 and len(np.unique(drawn.read("handedness"))) == 1
    assert set(drawn.rows.tolist()) <= set(view.rows.tolist())
    assert drawn.rows.tolist() == pick_rows(view, 5, 3, differ="pose_id").rows.tolist()
    with pytest.raises(InputError, match="has 0 rows in this split"):
        pick_rows(HandDataset(data, rows=[]), 2, 0, differ="pose_id")


def test_plots_and_tables(tmp_path: Path) -> None:
    pck_figure({"a": MM_GRID / 50, "b": np.sqrt(MM_GRID / 50)}, tmp_path / "pck.png")
    line_figure({"a": ([1, 10, 100], [3.0, 2.0, 1.0])}, tmp_path / "line.png", x="beta", y="mm", log_x=True)
    assert all(Image.open(tmp_path / f"{name}.png").width > 300 for name in ("pck", "line"))
    with pytest.raises(InputError, match="cannot be written"):
        line_figure({"a": ([1], [1])}, tmp_path / "nowhere" / "x.png", x="", y="")
    assert text_table([{"a": 1.23456, "b": None}]) == "| a | b |\n| --- | --- |\n| 1.235 | - |\n"
    picture = skeleton(np.full((21, 2), 10.0), (20, 30), TRUE, 2)
    assert picture.shape == (40, 60, 3) and (picture[20:22, 20:22] == TRUE).all() and (picture[0] == 255).all()


def test_the_study_of_few_labels_shows_the_mean_pose(data: Path, tmp_path: Path) -> None:
    script = Path(__file__).resolve().parent.parent / "benchmarks" / "dvae_pose.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(script.parent)  # as for a script: it imports its neighbours
        study = runpy.run_path(str(script))
    command = ["labelled", data, tmp_path / "out", "--percent", "50", "--supervision", "weak", "--seeds", "1"]
    command += ["--steps", "2", "--set", "batch_size=4", "--set", "factors=cpose:3,viewpoint:2", "--device", "cpu"]
    study["labelled"](study["parser"]().parse_args([str(word) for word in command]))
    results = json.loads((tmp_path / "out" / "labelled.json").read_text())
    view = HandDataset(data, split="train")
    known = read_poses(view, "wrist", np.arange(round(len(view) / 2)))
    expected = mean_pose(known, read_rows(HandDataset(data, split="test"), "wrist")).figures()
    assert [one["supervision"] for one in results] == ["the mean labelled pose, always", "weak"]
    assert results[0]["pose3d_epe_mean_mm"] == pytest.approx(expected["pose3d_epe_mean_mm"])
    lines = (tmp_path / "out" / "labelled.md").read_text().splitlines()
    assert f"| {results[0]['supervision']} | 50 | {expected['pose3d_epe_mean_mm']:.4g} | - |" in lines


def test_torch_generator_is_left_alone(runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train_dvae(data, tmp_path / "run", tiny("dvae-pose", steps=2, embed=("pose3d",)))
    assert torch.equal(torch.get_rng_state(), before)

"""Configurations of the dVAE, their defaults, and the configurations and data that are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_dvae import tiny

from handaug.data_specs.errors import InputError
from handaug.models.dvae.config import METHODS, DvaeConfig, default_dvae_config
from handaug.models.dvae.train import train_dvae

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("dvae", {"factors": (("nose", 3), ("content", 2))}, "nose is no modality"),
    ("dvae", {"factors": (("content", 3), ("placed_pose", 2))}, "content must be the last"),
    ("dvae", {"factors": (("placed_pose", 3),)}, "give two or more"),
    ("dvae-pose", {"factors": (("pose3d", 3), ("viewpoint", 2))}, "is x itself"),
    ("dvae-zu", {"z_u": 0}, "give two or more"),
    ("dvae", {"factors": (("cpose", 3), ("content", 2))}, "images need a pose"),
    ("dvae", {"z_u": 3}, "content must be the last factor, and stands in place of z_u"),
    ("dvae", {"beta": float("nan")}, "beta=nan"),
    ("dvae", {"supervision": "weak"}, "only --method dvae-pose"),
    ("dvae", {"augment": True}, "turned images have no true background"),
    ("dvae-pose", {"labelled": 0.0}, "labelled=0: is a percentage"),
    ("dvae-pose", {"supervision": "magic"}, "choose one of supervised, semi, weak"),
    ("dvae-pose", {"root": "elbow"}, "choose one of wrist, palm"),
    ("dvae-pose", {"alternating": True}, "belong to --method cross-modal"),
    ("dvae-pose", {"x": "image", "factors": (("placed_pose", 3), ("content", 2))}, "--method dvae draws images"),
    ("dvae", {"embed": ()}, "give at least one modality"),
    ("cross-modal", {"factors": (("cpose", 3),)}, "one z without factors"),
    ("cross-modal", {"outputs": (("cpose", 1.0),)}, "--set outputs: give placed_pose or pose3d"),
    ("cross-modal", {"outputs": ()}, "--set outputs: give placed_pose or pose3d"),
]


@pytest.mark.parametrize(("method", "changes", "message"), BAD)
def test_bad_configs_say_what_is_wrong(method: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(default_dvae_config(method, 100, (64, 64), "cpu"), **changes)


@pytest.mark.parametrize("method", METHODS)
def test_configs_survive_json(method: str) -> None:
    config = default_dvae_config(method, 5000, (64, 64), "cuda")
    assert DvaeConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_the_papers_numbers_are_the_defaults() -> None:
    for method in METHODS:
        config = default_dvae_config(method, 40000, (64, 64), "cuda")
        assert (config.learning_rate, config.batch_size, config.width) == (1e-4, 32, 64)
        assert sum(dims for _, dims in config.blocks) == 64
        if method != "cross-modal":
            assert [dims for _, dims in config.blocks] == [32, 32]
            assert (config.lambda_x, config.lambda_y) == (1.0, 0.01)
            assert config.beta == (0.01 if method == "dvae-pose" else 100.0)


def _without(path: Path, target: Path, *fields: str) -> Path:
    import h5py

    target.write_bytes(path.read_bytes())
    with h5py.File(target, "r+") as file:
        for name in fields:
            del file[name]
    return target


def test_data_that_lacks_labels_or_tags_is_refused(data: Path, tmp_path: Path) -> None:
    flat = _without(data, tmp_path / "flat.h5", "keypoints_3d", "camera")
    with pytest.raises(InputError, match="has no keypoints_3d"):
        train_dvae(flat, tmp_path / "a", tiny("dvae-pose"))
    untagged = _without(data, tmp_path / "untagged.h5", "appearance_id")
    with pytest.raises(InputError, match="use --method dvae-zu"):
        train_dvae(untagged, tmp_path / "b", tiny("dvae"))
    assert not list(tmp_path.glob("*.partial"))

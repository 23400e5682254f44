"""Estimators from outside: found, tried, trained, stored, refused; and the worked example of the documentation."""

import hashlib
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import outside_estimators
import pytest
import torch
from outside_estimators import Tiny
from toy import toy_arrays

from handaug.data_specs.errors import InputError
from handaug.models.checkpoint import save_model
from handaug.models.estimators import build_estimator, load_estimator, plugins, save_estimator
from handaug.models.estimators.plugins import named_failures, source_digest
from handaug.models.estimators.predict import predict
from handaug.models.fit import Batch, fit_estimator

SIZE = (32, 48)
ROOT = Path(__file__).resolve().parent.parent


def _build(name: str, size: tuple[int, int] = SIZE, channels: int = 1):  # type: ignore[no-untyped-def]
    return build_estimator(f"outside_estimators:{name}", size=size, channels=channels)


def test_a_factory_needs_no_base_class_and_draws_nothing_when_it_is_tried() -> None:
    torch.manual_seed(3)
    estimator = _build("good")
    after = torch.rand(1)
    torch.manual_seed(3)
    alone = Tiny(SIZE, 1)
    assert all(torch.equal(estimator.state_dict()[k], v) for k, v in alone.state_dict().items())
    assert torch.equal(after, torch.rand(1)), "trying it must not move the generator from which arms start"
    assert (estimator.size, estimator.channels, estimator.dimensions) == (SIZE, 1, 2)
    assert all(parameter.grad is None for parameter in estimator.parameters())
    assert _build("spatial").dimensions == 3
    assert _build("Volumes")(torch.rand(2, 1, *SIZE)).shape == (2, 42)


def test_a_source_is_known_by_its_file() -> None:
    own = source_digest("outside_estimators:good")
    assert own == hashlib.sha256(Path(outside_estimators.__file__).read_bytes()).hexdigest()
    assert source_digest("compact") is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("raises", "factory raised KeyError: 'no licence' for size=(32, 48), channels=1"),
        ("imports_nothing", "lacks loss, keypoints"),
        ("missing", "cannot be imported"),
        ("WrongShape", "keypoints are (2, 20, 2) for 2 images, must be (2, 21, 2)"),
        ("GivesNaN", "keypoints hold NaN"),
        ("LossOfMissing", "the loss is nan where a joint has visibility 0"),
        ("GradientOfMissing", "the gradient is not finite where a joint has visibility 0"),
        ("NoGradient", "no gradient"),
        ("VectorLoss", "loss must be one number, is (2,)"),
        ("FailsForward", "RuntimeError: first line on"),
        ("exits", "factory raised SystemExit: 3"),
        ("FailsInTraining", "RuntimeError: in training"),
        ("RightForTwo", "keypoints are (2, 21, 2) for 5 images"),
        ("NaNInTraining", "the loss is nan"),
        ("OwnSize", "cannot be given name, size, channels and settings"),
        ("LayerCalledName", "cannot be given name, size, channels and settings"),
    ],
)
def test_what_breaks_the_protocol_is_named_in_one_line(name: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        _build(name)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert f"--estimator outside_estimators:{name}" in str(caught.value)


def test_a_trial_leaves_running_statistics_as_they_were() -> None:
    estimator = _build("Normed")
    assert not estimator.norm.running_mean.any() and estimator.norm.num_batches_tracked == 0
    assert estimator.training


def test_what_fails_later_is_named_too() -> None:
    for name in ("unet", "outside_estimators:good"):
        estimator = build_estimator(name, size=SIZE, channels=1)
        says = (
            "^third step$" if name == "unet" else "--estimator outside_estimators:good: raised RuntimeError: third step"
        )
        with pytest.raises(RuntimeError if name == "unet" else InputError, match=says), named_failures(estimator):
            raise RuntimeError("third step")


def test_nan_in_use_is_an_error_and_not_a_joint_without_label() -> None:
    estimator = _build("NaNInUse")
    images = np.full((3, *SIZE, 1), 9, np.uint8)
    assert predict(estimator, images).keypoints.shape == (3, 21, 2)
    images[1] = 0
    with pytest.raises(InputError, match="NaN or infinity for 1 of 3 images"):
        predict(estimator, images)


def test_entry_points_are_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    point = EntryPoint("tiny", "outside_estimators:good", plugins.ENTRY_POINTS)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == "handaug.estimators" else [])
    estimator = build_estimator("tiny", size=SIZE, channels=1)
    save_estimator(tmp_path, estimator, {})
    assert load_estimator(tmp_path)[0].name == "tiny", "an installed package needs no further trust"
    with pytest.raises(InputError, match="choose one of .*unet, tiny"):
        build_estimator("nothing", size=SIZE, channels=1)


def test_a_checkpoint_imports_nothing_that_the_user_did_not_name(tmp_path: Path) -> None:
    estimator = _build("good")
    save_estimator(tmp_path / "own", estimator, {"note": 1})
    for trust in (None, "outside_estimators:spatial"):
        with pytest.raises(InputError, match="if you trust that code, give --estimator outside_estimators:good"):
            load_estimator(tmp_path / "own", trust=trust)
    loaded, info = load_estimator(tmp_path / "own", trust="outside_estimators:good")
    images = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 1), np.uint8)
    assert info == {"note": 1}
    assert np.array_equal(predict(loaded, images).keypoints, predict(estimator, images).keypoints)
    config = {"kind": "estimator", "estimator": "antigravity_of_tests:x", "size": [32, 32], "channels": 1}
    save_model(tmp_path / "foreign", {}, config)
    with pytest.raises(InputError, match="trust"):
        load_estimator(tmp_path / "foreign")
    assert "antigravity_of_tests" not in sys.modules


def test_the_worked_example_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found in the working directory, tried by the protocol, and better after training than before."""
    monkeypatch.chdir(ROOT / "docs" / "examples")
    torch.manual_seed(0)
    estimator = build_estimator("lraspp_keypoints:factory", size=(32, 32), channels=1)
    assert str(ROOT / "docs" / "examples") not in sys.path
    rows = toy_arrays(4, per_pose=1, size=32)
    images = torch.from_numpy(rows["images"]).permute(0, 3, 1, 2)
    batch: Batch = (images, torch.from_numpy(rows["keypoints_2d"]), torch.from_numpy(rows["visibility"]))
    result = fit_estimator(estimator, lambda _: [batch] * 30, steps=30, lr=3e-3, checkpoints=3, validate=None)
    assert result.losses[-1] < 0.8 * result.losses[0]


def test_the_example_in_the_text_is_the_file() -> None:
    page = (ROOT / "docs" / "estimators.md").read_text()
    assert "(examples/lraspp_keypoints.py)" in page and "lraspp_keypoints:factory" in page
    assert (ROOT / "docs" / "examples" / "lraspp_keypoints.py").is_file()

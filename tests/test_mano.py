"""MANO as the hand model, on a synthetic file: reading, skinning against the paper's formula, geometry, refusals."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from mano_files import JOINTS, PARENTS, TIP_VERTICES, TIPS, mano_truth, mirrored, write_mano
from numpy.typing import NDArray

from handaug.cli.main import main
from handaug.data_specs.errors import InputError
from handaug.data_specs.joints import FINGERS
from handaug.render import mano_file
from handaug.render.config import RenderConfig
from handaug.render.hand import SEGMENTS
from handaug.render.mano import ManoModel, hand_model_of
from handaug.render.mano_file import load_mano
from handaug.render.pose_prior import ANGLES, HandPose, sample_pose

TRUTH = mano_truth()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Both files; the left one with the wrong sign, as distributed."""
    left = mirrored(TRUTH)
    left["shapedirs"][:, 0] *= -1
    write_mano(tmp_path / "MANO_RIGHT.pkl", TRUTH)
    write_mano(tmp_path / "MANO_LEFT.pkl", left)
    return tmp_path


@pytest.fixture(scope="module")
def model() -> ManoModel:
    return ManoModel(TRUTH)


@pytest.fixture(scope="module")
def plain() -> ManoModel:
    """Without corrections of the pose, and each vertex moved by one joint alone: angles can be read off the tips."""
    alone = np.eye(16)[TRUTH["weights"].argmax(1)]
    return ManoModel({**TRUTH, "posedirs": np.zeros((778, 3, 135)), "weights": alone})


# the file


def test_pickle_without_chumpy_gives_the_arrays_and_is_kept_as_npz(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, values in load_mano(folder, "right").items():
        assert values.dtype in (np.float64, np.int64) and np.allclose(values, TRUTH[name], rtol=0, atol=1e-12)
    (stored,) = (folder / "cache" / "handaug").iterdir()
    with np.load(stored, allow_pickle=False) as found:
        assert set(found.files) == set(TRUTH)
    monkeypatch.setattr(mano_file, "load_pickle", None)  # from now on the cache alone answers
    assert np.array_equal(load_mano(folder, "right")["f"], TRUTH["f"])
    stored.write_bytes(b"damaged")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    assert np.array_equal(load_mano(folder, "right")["f"], TRUTH["f"])


def test_wrong_sign_of_the_left_hand_is_mended_and_a_right_one_kept(folder: Path) -> None:
    wanted = mirrored(TRUTH)
    for _ in range(2):
        assert np.allclose(load_mano(folder, "left")["shapedirs"], wanted["shapedirs"], rtol=0, atol=1e-12)
        write_mano(folder / "MANO_LEFT.pkl", wanted)  # mended at its source


def test_left_file_poses_like_the_right_one(folder: Path, model: ManoModel) -> None:
    left = ManoModel.from_folder(folder, "left")
    rng = np.random.default_rng(0)
    for _ in range(3):
        shape, pose = rng.normal(size=10), sample_pose(rng)
        ours, theirs = model.pose(shape, pose), left.pose(shape, pose)
        assert np.allclose(ours.joints, theirs.joints, atol=1e-6)
        assert np.allclose(left.cage(shape, pose), model.cage(shape, pose), atol=1e-9)


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch stolen",)


def test_code_in_the_file_is_refused_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    write_mano(folder / "MANO_RIGHT.pkl", TRUTH, extra=Runs())
    with pytest.raises(InputError, match=r"MANO_RIGHT.pkl: asks for (posix|nt|os)\.system, which is not allowed"):
        load_mano(folder, "right")
    assert not (folder / "stolen").exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("weights", np.ones((778, 16)), "joints, faces or weights"),
        ("v_template", np.zeros((6890, 3)), r"v_template is \(6890, 3\)"),
        ("posedirs", np.full((778, 3, 135), np.nan), "posedirs"),
        ("shapedirs", "text", "shapedirs cannot be read"),
        ("f", np.full((1538, 3), 778), "faces"),
        ("kintree_table", np.zeros((2, 16)), "joints"),
        ("J_regressor", None, "J_regressor is"),
    ],
)
def test_files_that_are_no_mano_are_refused(folder: Path, name: str, value: Any, words: str) -> None:
    write_mano(folder / "MANO_RIGHT.pkl", TRUTH, **{name: value})
    with pytest.raises(InputError, match=words) as refused:
        load_mano(folder, "right")
    assert "\n" not in str(refused.value) and "MANO_RIGHT.pkl" in str(refused.value)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MANO_RIGHT\.pkl cannot be read"):
        load_mano(tmp_path, "right")
    (tmp_path / "MANO_RIGHT.pkl").write_bytes(b"\x80\x02]q\x00.")
    with pytest.raises(InputError, match="holds no dict"):
        load_mano(tmp_path, "right")
    with pytest.raises(InputError, match="not exactly one opening"):
        ManoModel({**TRUTH, "f": TRUTH["f"][:-4]})


# the model


def embodied_hands(shape: NDArray[Any], turns: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Vertices and joints by Eq. 1 to 4 of the paper, written with 4 x 4 matrices; turns (16, 3, 3), the first is the
    wrist's."""
    shaped = TRUTH["v_template"] + np.einsum("vck,k->vc", TRUTH["shapedirs"], shape)
    joints = TRUTH["J_regressor"] @ shaped
    posed = shaped + np.einsum("vck,k->vc", TRUTH["posedirs"], (turns[1:] - np.eye(3)).ravel())
    world: list[NDArray[Any]] = []
    for joint, parent in enumerate(PARENTS):
        step = np.eye(4)
        step[:3, :3] = turns[joint]
        step[:3, 3] = joints[joint] - (joints[parent] if joint else 0)
        world.append(world[parent] @ step if joint else step)
    out = np.zeros_like(posed)
    for joint in range(16):
        back = np.eye(4)
        back[:3, 3] = -joints[joint]
        moved = np.c_[posed, np.ones(778)] @ (world[joint] @ back).T
        out += TRUTH["weights"][:, joint, None] * moved[:, :3]
    return out, np.stack([w[:3, 3] for w in world])


def test_skinning_is_that_of_the_paper(model: ManoModel) -> None:
    rng = np.random.default_rng(1)
    for _ in range(4):
        shape, pose = rng.normal(size=10), sample_pose(rng)
        rest = model.rest(shape)
        rotation, _ = model._bones(rest, pose)
        ours = rotation[np.r_[2, 4:19]]
        turns = np.stack([ours[j] if not j else ours[PARENTS[j]].T @ ours[j] for j in range(16)])
        vertices, joints = embodied_hands(shape, turns)
        posed = model.pose(rest, pose)
        assert np.allclose(posed.vertices[:778], vertices - joints[0], atol=2e-6)
        order = [0, 13, 14, 15, -1, 1, 2, 3, -1, 4, 5, 6, -1, 10, 11, 12, -1, 7, 8, 9, -1]
        fixed = np.array(order) >= 0
        assert np.allclose(posed.joints[fixed], (joints - joints[0])[np.array(order)[fixed]], atol=2e-6)
        assert np.allclose(posed.joints[~fixed], (vertices - joints[0])[TIP_VERTICES], atol=2e-6)


def test_flat_hand_lies_as_the_template_does(plain: ManoModel) -> None:
    """At its rest angles a finger is where the file has it: in thumb side, along, palm, from the wrist."""
    posed = plain.pose(plain.mean_shape, HandPose(plain.rest_angles))
    fingers = [joint for name, chain in FINGERS.items() if name != "thumb" for joint in chain]
    frame = np.linalg.lstsq(posed.joints[fingers], _template_joints()[fingers], rcond=None)[0]
    assert np.allclose(frame @ frame.T, np.eye(3), atol=1e-4) and np.linalg.det(frame) > 0
    assert np.allclose(frame, np.eye(3), atol=0.08)  # along is towards the middle MCP, a degree off our y


def _template_joints() -> NDArray[Any]:
    order = [0, 13, 14, 15, -1, 1, 2, 3, -1, 4, 5, 6, -1, 10, 11, 12, -1, 7, 8, 9, -1]
    out = JOINTS[order]
    out[4::4] = TIPS
    return out


@pytest.mark.parametrize("finger", FINGERS)
def test_angles_bend_towards_the_palm_by_their_size(plain: ManoModel, finger: str) -> None:
    part, bones = ("ip", (2, 3, 4)) if finger == "thumb" else ("pip", (1, 2, 3))
    chain = FINGERS[finger]
    a, b, c = (chain[bone - 1] for bone in bones)
    directions = []
    for degrees in (10.0, 60.0):
        joints = plain.joints(plain.mean_shape, HandPose.from_degrees(**{f"{finger}_{part}_flexion": degrees}))
        upper, lower = joints[b] - joints[a], joints[c] - joints[b]
        directions.append(lower / np.linalg.norm(lower))
    turned = np.degrees(np.arccos(directions[0] @ directions[1]))
    assert turned == pytest.approx(50, abs=1.5)
    moved = directions[1] - directions[0]
    inwards = np.array([-1, 0, 0.0]) if finger == "thumb" else np.array([0, 0, 1.0])
    assert moved @ inwards > 0.3, "bends to the back"
    assert upper @ moved < 0


def test_mesh_is_closed_and_its_arm_is_forearm(model: ManoModel) -> None:
    sides = np.stack([model.quads, np.roll(model.quads, -1, 1)], -1).reshape(-1, 2)
    there, back = ({tuple(side) for side in way.tolist()} for way in (sides, sides[:, ::-1]))
    assert len(there) == len(sides) and there == back
    posed = model.pose(model.mean_shape, HandPose.from_degrees())
    corner = posed.vertices[model.quads].astype(float)
    volume = np.einsum("fi,fi->f", corner[:, 0], np.cross(corner[:, 1], corner[:, 2])).sum() / 6
    volume += np.einsum("fi,fi->f", corner[:, 0], np.cross(corner[:, 2], corner[:, 3])).sum() / 6
    assert volume > 1e-4  # a tenth of a litre, faces outwards
    middle = corner.mean(1)
    forearm = model.face_segment == SEGMENTS.index("forearm")
    assert middle[forearm, 1].max() < -0.01 and middle[~forearm, 1].min() > -0.06
    assert posed.elbow[1] == pytest.approx(-2.6 * 0.0955, abs=0.02)
    assert set(np.unique(model.face_segment)) == set(range(len(SEGMENTS)))
    assert model.face_uv.shape == (len(model.quads), 4, 2) and 0 <= model.face_uv.min() <= model.face_uv.max() <= 1
    bent = model.pose(model.mean_shape, HandPose.from_degrees(wrist_flexion=50))
    assert bent.elbow[2] > 0.1 and np.allclose(bent.joints, posed.joints, atol=1e-6)


def test_shapes_change_bones_as_their_blend_shapes_say(model: ManoModel) -> None:
    shape = np.eye(10)[3] * 2
    moved = TRUTH["J_regressor"] @ (TRUTH["v_template"] + 2 * TRUTH["shapedirs"][..., 3])
    joints = model.joints(shape, HandPose(np.zeros(len(ANGLES))))
    for j, parent, ours in ((2, 1, (6, 5)), (9, 8, (19, 18)), (15, 14, (3, 2))):
        wanted = np.linalg.norm(moved[j] - moved[parent])
        assert np.linalg.norm(joints[ours[0]] - joints[ours[1]]) == pytest.approx(wanted, abs=1e-6)


# the wiring


def test_config_takes_the_model_and_its_folder_together(folder: Path) -> None:
    assert isinstance(hand_model_of(RenderConfig(hand_model="mano", mano_dir=str(folder))), ManoModel)
    for name, place in (("mano", None), ("anny", str(folder)), ("nimble", None)):
        with pytest.raises(InputError, match="--hand-model"):
            RenderConfig(hand_model=name, mano_dir=place)


def test_labels_of_mano_hands(folder: Path) -> None:
    from handaug.render.posing import sample_hand

    config = RenderConfig(hand_model="mano", mano_dir=str(folder), poses=8)
    hands = [sample_hand(config, hand_model_of(config), pose).labels for pose in range(3)]
    for labels in hands:
        rays = labels["keypoints_3d"].astype(float) @ labels["camera"].astype(float).T
        assert np.allclose(rays[:, :2] / rays[:, 2:], labels["keypoints_2d"], atol=1e-2)
        assert {1, 2} <= set(np.unique(labels["mask"])) and labels["shape"].shape == (10,)
    assert len({int(labels["pose_id"]) for labels in hands}) == 3


def test_the_command_names_what_is_wrong(folder: Path) -> None:
    run = CliRunner().invoke(main, ["render", str(folder / "a.h5"), "--hand-model", "mano", "--poses", "1"])
    assert run.exit_code == 2 and "--mano-dir DIR" in run.stderr
    options = ["--hand-model", "mano", "--mano-dir", str(folder / "none"), "--poses", "1"]
    run = CliRunner().invoke(main, ["render", str(folder / "a.h5"), *options])
    assert run.exit_code == 2 and "MANO_RIGHT.pkl cannot be read" in run.stderr and not (folder / "a.h5").exists()

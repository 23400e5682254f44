"""Where the hand stands before the camera.

The camera is fixed at the origin (x right, y down, z forward, metres), so that everything fixed in the camera's frame
(light, background) stays when the pose changes; the hand is turned and moved instead.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.camera import centred_intrinsics, project
from handaug.data_specs.errors import WorkError
from handaug.render.hand import PosedHand

__all__ = [
    "ARM_TILT",
    "CAMERAS",
    "FIELD_OF_VIEW",
    "FILL",
    "NEAREST",
    "CameraPreset",
    "NoViewError",
    "SceneError",
    "describe_view",
    "place_hand",
    "preset_of",
    "to_camera",
]

FIELD_OF_VIEW = (15.0, 50.0)
"""Degrees across the longer side of the crop, least and greatest."""

FILL = (0.6, 0.9)
"""Share of the frame that the longer side of the joints' box, with the skin round it, takes."""

ARM_TILT = 60.0
"""Degrees by which the arm, seen in the picture, may lean away from entering straight from below.

Cameras are held upright, worn on the head or stand on a table, so arms come from below and from the sides. Rolls over
the full circle also cost more poses than a small set has: an estimator trained on 1,600 poses of free roll learned them
by heart and stayed at 11 px on others. Rotating while training widens the range again.
"""

NEAREST = 0.12
"""Metres between the camera and the nearest skin, forearm included; beside the camera an arm may pass."""

_SKIN = 0.008  # metres from a joint to the skin beyond it
_KNUCKLE = 9  # middle MCP: from there to the elbow is along the arm in every view, also where the forearm is hidden
_ROUNDS = 20
_DAMPING = 0.7  # without it, views of a finger that points at the camera swing between two distances
_DRAWS = 2000
_PATIENCE, _LONGER = 40, 1.02
"""Draws after which a lens is made longer with each that brought the hand too near."""
_REFUSALS = 16


class SceneError(WorkError):
    """A scene cannot be drawn as it is asked for; others may."""


class NoViewError(SceneError):
    """Of many directions that a preset allows none was accepted."""


@dataclass(frozen=True)
class CameraPreset:
    """Where cameras of a kind stand. The hand's box fills a share drawn from `FILL` in each."""

    field_of_view: tuple[float, float]
    """Degrees across the longer side of the crop, least and greatest: the focal length."""
    tilt: float
    """Degrees by which the arm may lean away from entering straight from below."""
    arm: tuple[float, float]
    """Cosine of the angle at the wrist between elbow and camera, least and greatest: near 1 the camera looks along
    the arm from behind, at -1 the arm comes from beyond the hand."""
    off_axis: float
    """Degrees by which the crop may lie off the optical axis of the camera it is cut from."""


CAMERAS = {
    "uniform": CameraPreset(FIELD_OF_VIEW, ARM_TILT, (-1.0, 0.75), 0.0),
    "egocentric": CameraPreset((22.0, 45.0), 50.0, (0.1, 0.82), 35.0),
    "third-person": CameraPreset((6.0, 22.0), ARM_TILT, (-0.9, 0.25), 12.0),
    "close-up": CameraPreset((40.0, 60.0), ARM_TILT, (-1.0, 0.7), 5.0),
}
"""The default draws directions uniformly over the sphere. Egocentric: from the wearer's head, the arm goes away from
the camera, crops of a wide lens. Third-person: a person at 0.3 to 2 m, longer lenses. Close-up: a hand held into a near
camera."""


def preset_of(name: str, field_of_view: tuple[float, float] | None) -> CameraPreset:
    """One of `CAMERAS`, with other limits of its lens where they are given."""
    preset = CAMERAS[name]
    return preset if field_of_view is None else replace(preset, field_of_view=field_of_view)


def place_hand(
    rng: np.random.Generator,
    posed: PosedHand,
    size: int | tuple[int, int],
    preset: CameraPreset = CAMERAS["uniform"],
    refused: Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]], bool] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """Draw a camera for a hand.

    Directions are uniform over the part of the sphere that the preset allows (`uniform`: all but views along the
    forearm from behind, where it would hide the hand); the roll leans the arm by up to the preset's tilt. The joints'
    box fills a share of the frame drawn from `FILL` and lies anywhere in the room that is left. Where a small hand
    would have to stand nearer than `NEAREST` to fill it, as a fist before a wide lens, the lens gets longer.

    Args:
        rng: source of randomness.
        posed: a right or a mirrored hand.
        size: image side in pixels, or (H, W).
        preset: kind of camera.
        refused: says of R, t and K, as returned, whether another direction is to be drawn, such as where an arm's end
            would be seen.

    Raises:
        SceneError: no draw of many met the preset; NoViewError, if many did and all were refused.

    Returns:
        R (3, 3) and t (3,), metres: a point x of the posed hand stands at R @ x + t; K (3, 3) float32 intrinsics.
    """
    height, width = (size, size) if isinstance(size, int) else size
    side = min(height, width)
    half = np.tan(np.radians(rng.uniform(*preset.field_of_view)) / 2)
    focal = float(np.float32(max(height, width) / 2 / half))
    fill = rng.uniform(*FILL)
    room = 0.5 * (np.array([width, height]) - fill * side)
    middle = np.array([width - 1, height - 1], np.float64) / 2
    target = middle + rng.uniform(-1, 1, 2) * room
    aside = np.zeros(2)
    if preset.off_axis:
        # The crop is cut from a larger picture: its principal point lies beside it.
        turn, angle = rng.uniform(0, 2 * np.pi), np.radians(preset.off_axis) * np.sqrt(rng.uniform())
        aside = np.tan(angle) * np.array([np.cos(turn), np.sin(turn)])
    joints = np.asarray(posed.joints, np.float64)
    refusals = 0
    for draw in range(_DRAWS):
        camera, centre = centred_intrinsics(focal, width, height), middle - focal * aside
        camera[0, 2], camera[1, 2] = centre
        rotation = _uniform_rotation(rng)
        tilt = np.radians(rng.uniform(-preset.tilt, preset.tilt))
        rotation = _lean(rotation, posed.elbow - joints[_KNUCKLE], tilt)
        translation = _fit(joints @ rotation.T, focal, centre, target, fill * side)
        wrist, elbow = (rotation @ np.asarray(point, np.float64) + translation for point in (joints[0], posed.elbow))
        arm = elbow - wrist
        cosine = -(arm @ wrist) / (np.linalg.norm(arm) * np.linalg.norm(wrist))
        nearest = np.linalg.norm(posed.vertices + rotation.T @ translation, axis=1).min()
        if preset.arm[0] <= cosine < preset.arm[1] and nearest > NEAREST:
            if refused is None or not refused(rotation, translation, camera):
                return rotation, translation, camera
            refusals += 1
            if refusals == _REFUSALS:
                break
        if draw >= _PATIENCE and nearest <= NEAREST:
            focal *= _LONGER
    error = SceneError if refusals < _REFUSALS else NoViewError
    raise error(
        f"no camera of {preset} shows the hand from where it may stand; choose another --camera, or --field-of-view"
    )


def to_camera(
    points: NDArray[np.floating[Any]], rotation: NDArray[np.float64], translation: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Move (P, 3) points of the posed hand into the camera's frame; float32, computed in float64."""
    return (np.asarray(points, np.float64) @ rotation.T + translation).astype(np.float32)


def describe_view(
    posed: PosedHand,
    turn: NDArray[np.float64],
    origin: NDArray[np.float64],
    camera: NDArray[np.floating[Any]],
    size: int,
) -> dict[str, float]:
    """How a camera sees a hand: `field_of_view`, `azimuth`, `elevation`, `tilt` (degrees) and `fill`.

    Args:
        posed: the hand in the camera's frame.
        turn: (3, 3) and `origin` (3,), metres: a point p of the right hand's own frame stands at turn @ p + origin.
        origin: see there.
        camera: (3, 3) intrinsics.
        size: image side in pixels.
    """
    eye = -turn.T @ origin  # in the right hand's own frame, whatever mirrored it
    arm = (posed.elbow - posed.joints[_KNUCKLE]).astype(np.float64)
    return {
        "field_of_view": float(np.degrees(2 * np.arctan(size / 2 / camera[0, 0]))),
        "azimuth": float(np.degrees(np.arctan2(eye[0], eye[2]))),
        "elevation": float(np.degrees(np.arcsin(eye[1] / np.linalg.norm(eye)))),
        "tilt": float(np.degrees(np.arctan2(arm[0], arm[1]))),
        "fill": float(np.ptp(project(camera, posed.joints), axis=0).max() / size),
    }


def _uniform_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """Haar-uniform rotation matrix from a uniform unit quaternion (Shoemake 1992)."""
    w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _lean(rotation: NDArray[np.float64], arm: NDArray[np.floating[Any]], tilt: float) -> NDArray[np.float64]:
    """Roll a rotation about the optical axis until `arm` (to the elbow) leans by `tilt` radians from image down."""
    x, y = (rotation @ np.asarray(arm, np.float64))[:2]
    turn = tilt - np.arctan2(x, y)  # the angle from +y towards +x, which a turn by -a about z raises by a
    cosine, sine = np.cos(turn), np.sin(turn)
    roll = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    return np.asarray(roll @ rotation)


def _fit(
    points: NDArray[np.float64],
    focal: float,
    centre: NDArray[np.floating[Any]],
    target: NDArray[np.float64],
    extent: float,
) -> NDArray[np.float64]:
    """Translation that puts the middle of the projected box at `target` with its longer side `extent` pixels.

    A damped fixed point: perspective makes both depend weakly on the translation.
    """
    middle = 0.5 * (points.min(0) + points.max(0))
    size = float(np.ptp(points[:, :2], axis=0).max()) + 2 * _SKIN
    shift = np.array([0.0, 0.0, focal * size / extent]) - middle
    for _ in range(_ROUNDS):
        placed = points + shift
        # Skin nearer than the joints never comes behind the camera while the fixed point is found.
        depth = np.maximum(placed[:, 2:], 0.02)
        low = (focal * (placed[:, :2] - _SKIN) / depth).min(0) + centre
        high = (focal * (placed[:, :2] + _SKIN) / depth).max(0) + centre
        distance = shift[2] + middle[2]
        shift[2] += _DAMPING * distance * (float((high - low).max()) / extent - 1)
        shift[:2] += _DAMPING * (target - 0.5 * (low + high)) * distance / focal
    return np.asarray(shift)

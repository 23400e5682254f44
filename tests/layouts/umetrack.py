"""UmeTrack in miniature: a hand model of our own, its kinematics and cameras written out joint by joint."""

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from layouts.hands import BASE_MM, BONES_MM, DOT, FINGERS, LEFT, RIGHT, SPREAD, Truth

SIZE = (636, 480)
TIPS = ("thumb", "index", "middle", "ring", "little")


def rest_left_hand() -> NDArray[np.float64]:
    """(21, 3) mm in our order; palm down, a left hand whose fingers point along x (as UmeTrack's do)."""
    flat = [np.zeros(2)]
    for finger in FINGERS:
        place = np.array(BASE_MM[finger], float)
        flat.append(place)
        for length in BONES_MM[finger]:
            place = place + length * np.array([np.sin(SPREAD[finger]), -np.cos(SPREAD[finger])])
            flat.append(place)
    # right hand in the image plane: x to its little finger, y to its wrist. Left hand: fingers along x, thumb along z
    return np.array([[-y, 0.0, -x] for x, y in flat])


def hand_model(seed: int = 0) -> dict[str, Any]:
    rest = rest_left_hand()
    rng = np.random.default_rng(seed)
    axes, pivots = [], []
    for f in range(5):
        chain = rest[1 + 4 * f : 5 + 4 * f]
        # the thumb turns about a point near the wrist, then about its cmc; a finger twice about its mcp
        hinges = [0.3 * chain[0], *chain[:3]] if f == 0 else [chain[0], *chain[:3]]
        for k, pivot in enumerate(hinges):
            axis = np.array([0.0, 1.0, 0.0] if k == 0 else [0.0, 0.0, -1.0]) + rng.normal(0, 0.1, 3)
            axes.append(axis / np.linalg.norm(axis))
            pivots.append(pivot)
    axes += [np.array([0, 1.0, 0]), np.array([0, 0, 1.0])]
    pivots += [np.zeros(3)] * 2
    # landmarks: tips, wrist, thumb mcp and ip, then mcp, pip, dip of the fingers, and the palm
    places = [rest[4 * f + 4] for f in range(5)] + [rest[0], rest[2], rest[3]]
    bones = [[2 + 3 * f + 2] * 3 for f in range(5)] + [[1] * 3, [2] * 3, [3] * 3]
    for f in range(1, 5):
        places += list(rest[4 * f + 1 : 4 * f + 4])
        bones += [[1] * 3, [2 + 3 * f] * 3, [3 + 3 * f] * 3]
    places.append(rest[9] * 0.6)
    bones.append([1, 8, 5])
    weights = [[1.0, 0.0, 0.0]] * 20 + [[0.9, 0.06, 0.04]]
    return {
        "joint_rotation_axes": np.array(axes).tolist(),
        "joint_rest_positions": np.array(pivots).tolist(),
        "landmark_rest_positions": np.array(places).tolist(),
        "landmark_rest_bone_weights": weights,
        "landmark_rest_bone_indices": bones,
        "hand_scale": 1.0,
    }


def posed(
    model: dict[str, Any], angles: NDArray[np.float64], wrist: NDArray[np.float64], side: int
) -> NDArray[np.float64]:
    """(21, 3) mm in the world, our order: each joint is turned by the hinges before it, the outermost first."""
    rest = rest_left_hand()
    out = np.zeros((21, 3))
    for joint in range(1, 21):
        finger, k = divmod(joint - 1, 4)
        place = rest[joint]
        # k-th joint of a chain: the thumb's cmc moves with its first hinge alone, later ones with one more each
        hinges = range(4 * finger, 4 * finger + k + 1)
        if finger and k == 0:
            hinges = range(0)  # a finger's mcp sits on both its hinges
        for hinge in reversed(hinges):
            pivot, axis = (np.array(model[f"joint_{what}"][hinge]) for what in ("rest_positions", "rotation_axes"))
            place = pivot + Rotation.from_rotvec(axis * angles[hinge]).apply(place - pivot)
        out[joint] = place
    if side == RIGHT:
        out[:, 0] *= -1
    world: NDArray[np.float64] = out @ wrist[:3, :3].T + wrist[:3, 3]
    return world


CAMERA = {
    "ImageSizeX": 636, "ImageSizeY": 480, "fx": 275.0, "fy": 276.0, "cx": 317.0, "cy": 241.0,
    "DistortionModel": "FishEye62", "k1": 0.12, "k2": -0.08, "k3": 0.03, "k4": -0.01, "k5": 0.002, "k6": -0.0003,
    "p1": 0.002, "p2": -0.001,
}  # fmt: skip


def fisheye(camera: dict[str, Any], point: NDArray[np.float64]) -> tuple[float, float]:
    """One point's pixel, in plain numbers."""
    x, y, z = (float(v) for v in point)
    r = math.hypot(x, y)
    theta = math.atan2(r, z)
    px, py = theta * x / r, theta * y / r
    scale = 1.0
    for k in range(1, 7):
        scale += camera[f"k{k}"] * theta ** (2 * k)
    px, py = px * scale, py * scale
    r2 = px * px + py * py
    qx = px + 2 * camera["p2"] * px * py + camera["p1"] * (r2 + 2 * px * px)
    qy = py + 2 * camera["p1"] * px * py + camera["p2"] * (r2 + 2 * py * py)
    return qx * camera["fx"] + camera["cx"], qy * camera["fy"] + camera["cy"]


def write_umetrack(root: Path, frames: int = 3) -> list[Truth]:
    """One training recording: two of four cameras see the hands, the right hand is lost in the second frame."""
    rng = np.random.default_rng(5)
    model = hand_model()
    file = root / "real" / "hand_hand" / "training" / "user_03" / "recording_01.json"
    file.parent.mkdir(parents=True)
    poses = np.zeros((frames, 4, 4, 4))
    for view, (angle, shift) in enumerate(((0.15, -40.0), (-0.15, 40.0))):
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_euler("yz", [angle, 0.1]).as_matrix()
        pose[:3, 3] = shift, 10, 0
        poses[:, view] = pose
    away = np.eye(4)
    away[:3, :3] = Rotation.from_euler("y", np.pi).as_matrix()
    poses[:, 2] = away  # looks the other way; the fourth camera is not tracked
    angles = rng.uniform(0.05, 0.35, (frames, 2, 22))
    wrists = np.tile(np.eye(4), (frames, 2, 1, 1))
    confidences = np.ones((frames, 2))
    confidences[1, RIGHT] = 0
    writer = cv2.VideoWriter(str(file.with_suffix(".mp4")), cv2.VideoWriter.fourcc(*"mp4v"), 30, (4 * SIZE[0], SIZE[1]))
    assert writer.isOpened()
    truths = []
    for frame in range(frames):
        image = np.zeros((SIZE[1], 4 * SIZE[0], 3), np.uint8)
        hands = {}
        for side in (LEFT, RIGHT):
            # fingers up (against the camera's y), the left hand's palm away from the camera
            turn = (
                np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
                if side == LEFT
                else np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]])
            )
            wrists[frame, side, :3, :3] = Rotation.from_rotvec(rng.normal(0, 0.1, 3)).as_matrix() @ turn
            wrists[frame, side, :3, 3] = (120 if side else -120), 80, 380
            if confidences[frame, side]:
                hands[side] = posed(model, angles[frame, side], wrists[frame, side], side)
        for view in (0, 1):
            for side, world in hands.items():
                local = (world - poses[frame, view, :3, 3]) @ poses[frame, view, :3, :3]
                pixels = np.array([fisheye(CAMERA, point) for point in local])
                for x, y in pixels:
                    place = (round(16 * (x + view * SIZE[0])), round(16 * y))
                    cv2.circle(image, place, 16 * DOT, (255, 255, 255), -1, cv2.LINE_AA, 4)
                truths.append(Truth(side, 0, "user_03", pixels, f"{frame}/{view}", "", local * 1e-3))
        writer.write(image)
    writer.release()
    labels = {
        "cameras": [CAMERA] * 4,
        "camera_angles": [0.0] * 4,
        "hand_model": model,
        "joint_angles": angles.tolist(),
        "wrist_transforms": wrists.tolist(),
        "hand_confidences": confidences.tolist(),
        "camera_to_world_transforms": poses.tolist(),
    }
    file.write_text(json.dumps(labels))
    return truths

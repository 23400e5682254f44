"""COCO-WholeBody, OneHand10K, CMU Panoptic and COCO JSON in miniature. Each returns the hands in import order."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layouts.hands import LEFT, RIGHT, Truth, intrinsics, make_hand, picture, pinhole, save

TRAIN, VAL, TEST = 0, 1, 2
CAMERA = intrinsics(500, 510, 200, 150)
SIZE = (400, 320)


def two_hands(seed: int) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """3D and pixels of a left and a right hand side by side."""
    points = [make_hand(seed, side, 0.6, (0.11 if side else -0.11, 0.09)) for side in (LEFT, RIGHT)]
    return points, [pinhole(CAMERA, p) for p in points]


def write_wholebody(root: Path) -> list[Truth]:
    """Each part: an image with both hands of a person (a joint of weight 0.05, one of 0), one without a valid hand."""
    truths = []
    for part, split in (("train", TRAIN), ("val", VAL)):
        _, pixels = two_hands(split)
        v = np.full(21, 1.7)
        v[3], v[4] = 0.05, 0.0
        hand = {
            name: np.concatenate([pixels[side], v[:, None]], 1).reshape(-1).tolist()
            for name, side in (("lefthand", LEFT), ("righthand", RIGHT))
        }
        people: list[dict[str, Any]] = [
            {"id": 1, "image_id": 7, "category_id": 1, "keypoints": [0] * 51, "bbox": [0, 0, 9, 9]},
            {"id": 2, "image_id": 8, "category_id": 1, "keypoints": [0] * 51, "bbox": [0, 0, 9, 9]},
        ]
        for name in hand:
            people[0] |= {f"{name}_kpts": hand[name], f"{name}_valid": True, f"{name}_box": [0, 0, 9, 9]}
            people[1] |= {f"{name}_kpts": [0.0] * 63, f"{name}_valid": False, f"{name}_box": [0, 0, 0, 0]}
        images = [{"id": k, "file_name": f"{k:012d}.jpg", "width": 400, "height": 320} for k in (7, 8)]
        file = root / "annotations" / f"coco_wholebody_{part}_v1.0.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"info": {"year": 2020}, "images": images, "annotations": people, "categories": []}))
        for image in images:
            save(root / f"{part}2017" / str(image["file_name"]), picture(list(enumerate(pixels)), SIZE))
        visibility = np.where(v > 0, 2, 0).astype(np.uint8)
        for side in (LEFT, RIGHT):
            truths.append(Truth(side, split, part, pixels[side], part, visibility=visibility))
    return truths


def write_onehand10k(root: Path) -> list[Truth]:
    """Two train images, the second with unlabelled joints, and a test image."""
    truths = []
    for part, split, count in (("Train", TRAIN, 2), ("Test", TEST, 1)):
        lines = []
        for k in range(count):
            pixels = np.round(two_hands(10 + k + split)[1][RIGHT])
            visibility = np.full(21, 2, np.uint8)
            written = pixels.copy()
            if k == 1:
                written[[4, 8]], visibility[[4, 8]] = (-1, -1), 0
                written[12], visibility[12] = (0, 0), 0
            save(root / part / "source" / f"{part} {k}.jpg", picture([(RIGHT, pixels)], SIZE))
            numbers = ",".join(f"{value:g}" for value in written.reshape(-1))
            lines.append(f"{part} {k}.jpg,400,320,1,{numbers}")
            truths.append(Truth(RIGHT, split, f"{part}{k}", pixels, f"{part}{k}", visibility=visibility))
        (root / part / "label_joint.txt").write_text("\n".join(lines) + "\n")
    return truths


def write_panoptic(root: Path) -> list[Truth]:
    """All three parts; two hands of one frame, and two frames of one video."""
    truths: list[Truth] = []
    for part, split, name, sides in (
        ("manual_test", TEST, "0123456_01", (LEFT,)),
        ("manual_train", TRAIN, "Ricki_unit_8.flv_000002", (LEFT, RIGHT)),
        ("manual_train", TRAIN, "Ricki_unit_8.flv_000009", (RIGHT,)),
    ):
        _, pixels = two_hands(len(truths))
        for side in sides:
            visibility = np.full(21, 2, np.uint8)
            visibility[20] = 0
            points = np.concatenate([pixels[side], (visibility > 0)[:, None]], 1)
            file = root / "hand_labels" / part / f"{name}_{'lr'[side]}.json"
            save(file.with_suffix(".jpg"), picture(list(enumerate(pixels)), SIZE))
            file.write_text(json.dumps({"hand_pts": points.tolist(), "is_left": 1 - side, "hand_box_center": [0, 0]}))
            group = name.split("_0000")[0]
            truths.append(Truth(side, split, group, pixels[side], part + name, visibility=visibility))
    order = {TRAIN: 0, TEST: 1}
    truths.sort(key=lambda truth: order[truth.split])
    _, pixels = two_hands(40)
    save(root / "hand143_panopticdb" / "imgs" / "00000000.jpg", picture([(RIGHT, pixels[RIGHT])], SIZE))
    item = {"img_paths": "imgs/00000000.jpg", "joint_self": np.insert(pixels[RIGHT], 2, 1, 1).tolist()}
    (root / "hand143_panopticdb" / "hands_v143_14817.json").write_text(json.dumps({"root": [item]}))
    truths.append(Truth(RIGHT, TRAIN, "143", pixels[RIGHT], "143"))
    _, pixels = two_hands(41)
    file = root / "hand_labels_synth" / "synth2" / "0001.json"
    save(file.with_suffix(".jpg"), picture([(LEFT, pixels[LEFT])], SIZE))
    file.write_text(json.dumps({"hand_pts": np.insert(pixels[LEFT], 2, 1, 1).tolist(), "is_left": 1}))
    truths.append(Truth(LEFT, TRAIN, "synth", pixels[LEFT], "synth"))
    other = file.with_name("0002.json")
    save(other.with_suffix(".jpg"), picture([(RIGHT, pixels[RIGHT])], SIZE))
    other.write_text(json.dumps({"hand_pts": np.insert(pixels[RIGHT], 2, 1, 1).tolist()}))
    truths.append(Truth(RIGHT, TRAIN, "synth 2", pixels[RIGHT], "synth 2"))
    return truths


NAMES = ("wrist", *(f"{f}_{p}" for f in ("thumb",) for p in ("cmc", "mcp", "ip", "tip")),
         *(f"{f}_{p}" for f in ("index", "middle", "ring", "little")
           for p in ("mcp", "pip", "dip", "tip")))  # fmt: skip


def write_coco(
    root: Path,
    images: int = 4,
    order: NDArray[np.intp] | None = None,
    names: tuple[str, ...] = NAMES,
    suffix: str = ".png",
) -> list[Truth]:
    """One JSON with intrinsics and 3D keypoints; two hands in each image; keypoints in any order, named accordingly."""
    order = np.arange(21) if order is None else order
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [
        {"id": 1, "name": "person", "keypoints": ["nose", "left_eye"]},
        {"id": 2, "name": "hand", "keypoints": [names[j] for j in order]},
    ]
    truths = []
    for k in range(images):
        points, pixels = two_hands(k)
        name = f"{k:05d}{suffix}"
        save(root / "images" / name, picture(list(enumerate(pixels)), SIZE))
        content["images"].append({"id": k, "file_name": name, "width": 400, "height": 320, "K": CAMERA.tolist()})
        for side in (LEFT, RIGHT):
            visibility = np.full(21, 2, np.uint8)
            visibility[6] = 1
            content["annotations"].append(
                {"id": 2 * k + side, "image_id": k, "category_id": 2, "handedness": ("left", "right")[side],
                 "keypoints": np.insert(pixels[side], 2, visibility, 1)[order].reshape(-1).tolist(),
                 "keypoints_3d": points[side][order].tolist(), "num_keypoints": 21}
            )  # fmt: skip
            truths.append(Truth(side, TRAIN, name, pixels[side], name, "", points[side], CAMERA, visibility))
    content["annotations"].append({"id": 10_000, "image_id": 0, "category_id": 1, "keypoints": [1, 1, 2, 3, 3, 2]})
    (root / "annotations.json").write_text(json.dumps(content))
    return truths

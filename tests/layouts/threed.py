"""RHD, STB, FreiHAND, InterHand2.6M, HO-3D and DexYCB in miniature. Each function returns the hands in import order."""

import json
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from layouts.hands import LEFT, RIGHT, Truth, disc, intrinsics, make_hand, picture, pinhole, save

TRAIN, VAL, TEST = 0, 1, 2


def tip_to_palm(values: NDArray[Any], wrist_first: bool) -> NDArray[Any]:
    """Each finger from its tip to the palm, written out; the wrist first (RHD) or last (InterHand2.6M)."""
    fingers = [values[1 + 4 * k : 5 + 4 * k][::-1] for k in range(5)]
    return np.concatenate([values[:1], *fingers] if wrist_first else [*fingers, values[:1]])


def write_rhd(root: Path, hide: bool = True) -> list[Truth]:
    """Two train images and one evaluation image; both hands, the second train image's left hand behind the body."""
    truths = []
    camera = intrinsics(280, 280, 160, 160)
    for part, numbers, split in (("training", (0, 1), TRAIN), ("evaluation", (0,), TEST)):
        labels = {}
        for number in numbers:
            points = [
                make_hand(10 * number + split, side, 0.6, (0.13 if side else -0.13, 0.1)) for side in (LEFT, RIGHT)
            ]
            pixels = [pinhole(camera, p) for p in points]
            seen = np.ones((2, 21))
            seen[LEFT, 8] = 0
            if number == 1 and hide:
                seen[LEFT] = 0
            folder = root / part
            save(folder / "color" / f"{number:05d}.png", picture(list(enumerate(pixels)), (320, 320)))
            mask = np.ones((320, 320), np.uint8)
            disc(mask, pixels[LEFT][9], 12, 17)
            disc(mask, pixels[RIGHT][9], 12, 33)
            mask[:5] = 0
            save(folder / "mask" / f"{number:05d}.png", mask)
            uv_vis = [np.concatenate([pixels[s], seen[s][:, None]], 1) for s in (LEFT, RIGHT)]
            labels[number] = {
                "K": camera,
                "uv_vis": np.concatenate([tip_to_palm(v, True) for v in uv_vis]),
                "xyz": np.concatenate([tip_to_palm(p, True) for p in points]),
            }
            for side in (LEFT, RIGHT):
                if seen[side].any():
                    visibility = np.where(seen[side] > 0, 2, 1).astype(np.uint8)
                    name = f"{part}{number}"
                    truths.append(Truth(side, split, name, pixels[side], name, "", points[side], camera, visibility))
        (root / part / f"anno_{part}.pickle").write_bytes(pickle.dumps(labels, 2))
    return truths


BB = intrinsics(822.79041, 822.79041, 318.47345, 250.31296)
SK = intrinsics(607.92271, 607.88192, 314.78337, 236.42484)


def write_stb(root: Path, frames: int = 2) -> list[Truth]:
    """B1Counting (test) and B3Random (train), both cameras; the palm lies so that the usual extrapolation is exact."""
    truths = []
    rotation = cv2.Rodrigues(np.array([0.00531, -0.01196, 0.00301]))[0]
    translation = np.array([-24.0381, -0.4563, -1.2326])
    for sequence, split in (("B1Counting", TEST), ("B3Random", TRAIN)):
        hands = [1000 * make_hand(k + 7 * split, LEFT, 0.6, (0.05, 0.05)) for k in range(frames)]
        stored: dict[str, list[NDArray[Any]]] = {"BB": [], "SK": []}
        views: dict[str, list[NDArray[Any]]] = {"BB_left": [], "BB_right": [], "SK_color": []}
        for hand in hands:
            palm = hand[13] + 0.5 * (hand[0] - hand[13])
            theirs = np.concatenate([[palm], hand[17:21], hand[13:17], hand[9:13], hand[5:9], hand[1:5]])
            stored["BB"].append(theirs)
            stored["SK"].append(theirs @ rotation.T + translation)
            views["BB_left"].append(hand / 1000)
            views["BB_right"].append((hand - (120.054, 0, 0)) / 1000)
            views["SK_color"].append(hand / 1000)
        (root / "labels").mkdir(parents=True, exist_ok=True)
        for device, values in stored.items():
            savemat(root / "labels" / f"{sequence}_{device}.mat", {"handPara": np.stack(values).transpose(2, 1, 0)})
        for view, points in views.items():
            camera = SK if view == "SK_color" else BB
            for k, hand in enumerate(points):
                pixels = pinhole(camera, hand)
                save(root / "images" / sequence / f"{view}_{k}.png", picture([(LEFT, pixels)], (640, 480)))
                truths.append(Truth(LEFT, split, sequence, pixels, f"{sequence}{view}{k}", "", hand, camera))
    return truths


def write_freihand(root: Path, samples: int = 3, evaluation: int = 2) -> list[Truth]:
    """Samples with four backgrounds each, and evaluation images."""
    truths = []
    for part, count, versions, split in (("training", samples, 4, TRAIN), ("evaluation", evaluation, 1, TEST)):
        cameras = [intrinsics(480 + k, 481 + k, 112, 111.5) for k in range(count)]
        hands = [make_hand(k + 50 * split, RIGHT, 0.7, (0.0, 0.06)) for k in range(count)]
        for k in range(count):
            pixels = pinhole(cameras[k], hands[k])
            for version in range(versions):
                image = picture([(RIGHT, pixels)], (224, 224))
                image[:8] = 40 * version
                save(root / part / "rgb" / f"{k + version * count:08d}.jpg", image)
                pose = f"{part}{k}"
                truths.append(Truth(RIGHT, split, pose, pixels, f"{pose}/{version}", pose, hands[k], cameras[k]))
            if part == "training":
                mask = np.zeros((224, 224), np.uint8)
                disc(mask, pixels[9], 15, 255)
                save(root / part / "mask" / f"{k:08d}.jpg", mask)
        for what, values in (("K", cameras), ("xyz", hands)):
            (root / f"{part}_{what}.json").write_text(json.dumps([v.tolist() for v in values]))
    return truths


def write_interhand(root: Path) -> list[Truth]:
    """Train: a right hand, a left hand, and both; val: a right hand whose wrist is not valid beside a left hand."""
    truths: list[Truth] = []
    place, turn = np.array([120.0, -300.0, -900.0]), cv2.Rodrigues(np.array([0.3, -0.4, 0.1]))[0]
    camera, size = intrinsics(1250, 1260, 170, 250), (334, 512)
    for part, kinds, split in (("train", ("right", "left", "interacting"), TRAIN), ("val", ("interacting",), VAL)):
        images, annotations, frames = [], [], {}
        for k, kind in enumerate(kinds):
            frame = 100 + 3 * k
            hands = [make_hand(k + 30 * split, side, 1.2, (0.06 if side else -0.06, 0.09)) for side in (LEFT, RIGHT)]
            world = [1000 * hand @ turn + place for hand in hands]
            valid = np.ones((2, 21), int)
            valid[LEFT if kind == "right" else RIGHT] *= kind == "interacting"
            valid[LEFT, 12] = 0
            if part == "val":
                valid[RIGHT, 0] = 0
            pixels = [pinhole(camera, hand) for hand in hands]
            name = f"Capture{split}/0001_seq/cam400002/image{frame}.jpg"
            drawn = [(side, pixels[side]) for side in (LEFT, RIGHT) if valid[side].any()]
            save(root / "images" / part / name, picture(drawn, size))
            images.append(
                {"id": k, "file_name": name, "width": 334, "height": 512, "capture": split, "subject": 3,
                 "seq_name": "0001_seq", "camera": "400002", "frame_idx": frame}
            )  # fmt: skip
            flags = np.concatenate([tip_to_palm(valid[s], False) for s in (RIGHT, LEFT)])
            annotations.append(
                {"id": k, "image_id": k, "bbox": [0, 0, 1, 1], "joint_valid": flags[:, None].tolist(),
                 "hand_type": kind, "hand_type_valid": 1}
            )  # fmt: skip
            coordinates = np.concatenate([tip_to_palm(world[s], False) for s in (RIGHT, LEFT)])
            frames[str(frame)] = {"world_coord": coordinates.tolist(), "joint_valid": flags[:, None].tolist(),
                                  "hand_type": kind, "hand_type_valid": True}  # fmt: skip
            for side in (RIGHT, LEFT):
                if valid[side].any() and valid[side, 0]:
                    visibility = (2 * valid[side]).astype(np.uint8)
                    truths.append(
                        Truth(
                            side,
                            split,
                            f"{part}{split}",
                            pixels[side],
                            part + name,
                            "",
                            hands[side],
                            camera,
                            visibility,
                        )
                    )
        folder = root / "annotations" / part
        folder.mkdir(parents=True)
        cameras = {str(split): {"campos": {"400002": place.tolist()}, "camrot": {"400002": turn.tolist()},
                                "focal": {"400002": [1250, 1260]}, "princpt": {"400002": [170, 250]}}}  # fmt: skip
        for what, content in (
            ("data", {"images": images, "annotations": annotations}),
            ("camera", cameras),
            ("joint_3d", {str(split): frames}),
        ):
            (folder / f"InterHand2.6M_{part}_{what}.json").write_text(json.dumps(content))
    return truths


def write_ho3d(root: Path, version: int = 3) -> list[Truth]:
    """Two cameras of one recording and another one; a frame without labels; an evaluation frame with the root alone."""
    truths = []
    camera = intrinsics(615, 615, 312, 242)
    lines: dict[str, list[str]] = {"train": [], "evaluation": []}
    for k, (part, sequence, frame, labelled) in enumerate(
        (
            ("train", "ABF10", "0000", True),
            ("train", "ABF11", "0000", True),
            ("train", "MC1", "0007", True),
            ("train", "MC1", "0008", False),
            ("evaluation", "SM1", "0003", False),
        )
    ):
        hand = make_hand(k, RIGHT, 0.6, (0.02, 0.05))
        pixels = pinhole(camera, hand)
        folder = root / part / sequence
        save(folder / "rgb" / f"{frame}.{'jpg' if version == 3 else 'png'}", picture([(RIGHT, pixels)], (640, 480)))
        tips = hand[[4, 8, 12, 16, 20]]
        mano = np.concatenate([hand[:1], hand[5:8], hand[9:12], hand[17:20], hand[13:16], hand[1:4], tips])
        joints: Any = mano * (1, -1, -1) if labelled else None
        if part == "evaluation":
            joints = mano[0] * (1, -1, -1)
        meta = {"handJoints3D": joints, "camMat": camera, "objName": "011_banana", "handPose": np.zeros(48)}
        (folder / "meta").mkdir(exist_ok=True)
        (folder / "meta" / f"{frame}.pkl").write_bytes(pickle.dumps(meta, 2))
        lines[part].append(f"{sequence}/{frame}")
        if labelled:
            recording = "ABF1" if sequence.startswith("ABF") else sequence
            truths.append(Truth(RIGHT, TRAIN, recording, pixels, sequence + frame, "", hand, camera))
    for part, names in lines.items():
        (root / f"{part}.txt").write_text("\n".join(names) + "\n")
    return truths


def write_dexycb(root: Path) -> list[Truth]:
    """Subjects 1 (left hand) and 8 (right hand), five sequences each of which two are filled, two cameras."""
    truths = []
    camera = intrinsics(613, 614, 320, 240)
    serials = ("836212060125", "932122062010")
    for serial in serials:
        file = root / "calibration" / "intrinsics" / f"{serial}_640x480.yml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            "color:\n  fx: 613.0\n  fy: 614.0\n  ppx: 320.0\n  ppy: 240.0\n"
            "depth:\n  fx: 1.0\n  fy: 1.0\n  ppx: 1.0\n  ppy: 1.0\n"
        )
    for subject, side in ((1, LEFT), (8, RIGHT)):
        for k in range(5):
            sequence = root / f"2020{subject:02d}09-subject-{subject:02d}" / f"2020{subject:02d}09_14{k:02d}00"
            sequence.mkdir(parents=True)
            (sequence / "meta.yml").write_text(
                f"mano_calib:\n- 20200514_subject-01\nmano_sides:\n- {'right' if side else 'left'}\nnum_frames: 2\n"
            )
            for serial in serials if k in (0, 4) else ():
                for frame in range(2):
                    hand = make_hand(100 * subject + 10 * k + frame, side, 0.8)
                    pixels = pinhole(camera, hand)
                    folder = sequence / serial
                    save(folder / f"color_{frame:06d}.jpg", picture([(side, pixels)], (640, 480)))
                    seg = np.zeros((480, 640), np.uint8)
                    seg[200:230, 300:340], seg[240:260, 300:340] = 255, 11
                    there = frame == 0
                    np.savez_compressed(
                        folder / f"labels_{frame:06d}.npz",
                        seg=seg,
                        pose_m=np.zeros((1, 51), np.float32),
                        joint_3d=(hand if there else np.full((21, 3), -1))[None].astype(np.float32),
                        joint_2d=(pixels if there else np.full((21, 2), -1))[None].astype(np.float32),
                    )
                    if there:
                        split = TRAIN if k == 0 else VAL if subject == 1 else TEST
                        truths.append(
                            Truth(side, split, sequence.name, pixels, f"{sequence}{serial}", "", hand, camera)
                        )
    return truths

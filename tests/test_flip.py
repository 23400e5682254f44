"""Mirroring whole rows: twice is the identity, once moves every field as a mirror would and permutes no joint."""

import numpy as np
from export_data import WIDTH, every_field
from hypothesis import given, settings
from hypothesis import strategies as st

from handaug.augment.transforms import PoseBatch, flip_batch
from handaug.data_specs.flip import flip_rows


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_twice_is_the_identity(seed: int) -> None:
    rows = every_field(4, seed=seed)
    twice = flip_rows(flip_rows(rows, WIDTH), WIDTH)
    assert twice.keys() == rows.keys()
    for name, values in rows.items():
        assert twice[name].dtype == values.dtype and twice[name].shape == values.shape
        # W - 1 - (W - 1 - x) rounds in float32; everything else comes back bit for bit
        if name in ("keypoints_2d", "camera"):
            assert np.allclose(twice[name], values, rtol=0, atol=1e-5, equal_nan=True)
        else:
            assert np.array_equal(twice[name], values, equal_nan=values.dtype.kind == "f")


def test_once_mirrors_pixels_labels_camera_and_side() -> None:
    rows = every_field(4, seed=1)
    rows["camera"][:, 0, 1] = 0.7  # a skew, which changes its sign
    once = flip_rows(rows, WIDTH)
    for row in range(4):
        x, y = int(row * 3 + 1), 7
        for name in ("images", "mask", "depth", "part", "uv"):
            assert np.array_equal(once[name][row, y, WIDTH - 1 - x], rows[name][row, y, x])
        assert np.array_equal(once["normals"][row, y, WIDTH - 1 - x], rows["normals"][row, y, x] * [-1, 1, 1])
        for joint in range(21):
            (u, v), (p, q, r) = rows["keypoints_2d"][row, joint], rows["keypoints_3d"][row, joint]
            assert np.allclose(once["keypoints_2d"][row, joint], [WIDTH - 1 - u, v], equal_nan=True)
            assert np.array_equal(once["keypoints_3d"][row, joint], [-p, q, r], equal_nan=True)
            # the mirrored camera sees the mirrored joint where the mirrored picture shows it
            ray = rows["camera"][row, :2] @ (rows["keypoints_3d"][row, joint] / rows["keypoints_3d"][row, joint, 2])
            seen = once["camera"][row, :2] @ (once["keypoints_3d"][row, joint] / once["keypoints_3d"][row, joint, 2])
            assert np.allclose(seen, [WIDTH - 1 - ray[0], ray[1]], atol=1e-3, equal_nan=True)
        assert once["handedness"][row] == 1 - rows["handedness"][row]
    for name in ("visibility", "occlusion", "split", "group", "pose_id", "shape", "pose"):
        assert np.array_equal(once[name], rows[name])


def test_only_the_chosen_rows_change_and_the_input_stays() -> None:
    rows = every_field(4, seed=2)
    before = {name: values.copy() for name, values in rows.items()}
    which = np.array([True, False, False, True])
    some, every = flip_rows(rows, WIDTH, which), flip_rows(rows, WIDTH)
    for name in rows:
        for row, chosen in enumerate(which):
            wanted = every[name][row] if chosen else before[name][row]
            assert some[name][row].tobytes() == np.ascontiguousarray(wanted).tobytes()
        assert rows[name].tobytes() == before[name].tobytes()


def test_training_flips_the_same_way() -> None:
    rows = every_field(4, seed=3)
    names = ("images", "keypoints_2d", "visibility", "handedness")
    which = np.array([True, False, True, True])
    batch = flip_batch(PoseBatch(**{name: rows[name] for name in names}), which)
    ours = flip_rows({name: rows[name] for name in names}, WIDTH, which)
    for name in names:
        assert np.array_equal(getattr(batch, name), ours[name], equal_nan=name == "keypoints_2d")

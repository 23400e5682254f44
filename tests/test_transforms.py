"""Every training-time transform keeps keypoints on the pixels: dots are drawn, transformed, and found again by their
centroid.
"""

import albumentations as A
import numpy as np
import pytest
from numpy.typing import NDArray

from handaug.augment.transforms import STRENGTHS, PoseBatch, TrainTransform, _pipeline, flip_batch, outside
from handaug.data_specs.errors import InputError

SIZE = 64
DOTS = 48


def _dot(x: float, y: float, channels: int = 1) -> NDArray[np.uint8]:
    """A Gaussian dot of sigma 2 px on a dark background, its centre at (x, y) with pixel centres at whole numbers."""
    v, u = np.mgrid[:SIZE, :SIZE]
    value: NDArray[np.float64] = 20 + 230 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / 8.0)
    image: NDArray[np.uint8] = np.repeat(value.round().astype(np.uint8)[..., None], channels, axis=2)
    return image


def _centroid(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Centroid of what stands out from the background, around the brightest pixel."""
    grey = image.astype(np.float64).mean(-1)
    grey = np.clip(grey - np.median(grey) - 0.1 * (grey.max() - np.median(grey)), 0, None)
    v0, u0 = np.unravel_index(grey.argmax(), grey.shape)
    v, u = np.mgrid[:SIZE, :SIZE]
    weight = grey * ((np.abs(v - v0) <= 9) & (np.abs(u - u0) <= 9))
    centre: NDArray[np.float64] = np.array([(weight * u).sum(), (weight * v).sum()]) / weight.sum()
    return centre


def _dots(channels: int = 1) -> PoseBatch:
    """One dot an image, at keypoint 0; the other keypoints lie on it too."""
    centres = np.random.default_rng(0).uniform(24, 40, (DOTS, 2))
    images = np.stack([_dot(x, y, channels) for x, y in centres])
    keypoints = np.repeat(centres[:, None], 21, axis=1).astype(np.float32)
    return PoseBatch(images, keypoints, np.full((DOTS, 21), 2, np.uint8), (np.arange(DOTS) % 2).astype(np.uint8))


def _misses(before: PoseBatch, after: PoseBatch) -> NDArray[np.float64]:
    inside = ~outside(after.keypoints_2d[:, 0], SIZE, SIZE)
    margin = np.abs(after.keypoints_2d[:, 0] - (SIZE - 1) / 2).max(1) < SIZE / 2 - 8
    found = np.stack([_centroid(image) for image in after.images])
    misses: NDArray[np.float64] = (found - after.keypoints_2d[:, 0])[inside & margin]
    return misses


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("strength", "index"), [(strength, index) for strength in STRENGTHS for index in range(len(_pipeline(strength)))]
)
def test_each_transform_keeps_dots_on_their_keypoints(strength: str, index: int, channels: int) -> None:
    single = _pipeline(strength)[index]
    single.p = 1.0
    transform = TrainTransform(strength)
    transform._compose = A.Compose(
        [single], keypoint_params=A.KeypointParams(format="xy", remove_invisible=False), seed=0
    )
    before = _dots(channels)
    if isinstance(single, A.ColorJitter):  # which leaves grey as it is
        before.images[..., 0] //= 2
    after = transform(before, seed=3)
    if isinstance(single, A.ColorJitter) and channels == 1:
        assert np.array_equal(before.images, after.images)
    else:
        assert not np.array_equal(before.images, after.images), "the transform did nothing"
    misses = _misses(before, after)
    assert len(misses) > DOTS // 2
    assert np.abs(misses.mean(0)).max() < 0.03
    # Noise moves single centroids; the other transforms none by 0.1 px.
    assert np.abs(misses).max() < (0.4 if isinstance(single, A.GaussNoise) else 0.1)


def test_the_centroid_check_sees_the_known_shift_of_resize() -> None:
    """The measure is fine enough: albumentations' Resize moves keypoints by 0.25 px when halving."""
    before = _dots()
    compose = A.Compose(
        [A.Resize(SIZE // 2, SIZE // 2, interpolation=3)], keypoint_params=A.KeypointParams(format="xy")
    )
    shifts = []
    for image, points in zip(before.images, before.keypoints_2d, strict=True):
        done = compose(image=image, keypoints=points[:1])
        small = done["image"].reshape(SIZE // 2, SIZE // 2, 1)
        padded = np.full((SIZE, SIZE, 1), 20, np.uint8)
        padded[: SIZE // 2, : SIZE // 2] = small
        shifts.append(_centroid(padded) - done["keypoints"][0])
    assert np.allclose(np.mean(shifts, 0), -0.25, atol=0.05)


def test_flip_mirrors_pixels_keypoints_and_side_and_undoes_itself() -> None:
    before = _dots()
    which = np.arange(DOTS) % 3 == 0
    after = flip_batch(before, which)
    assert np.abs(_misses(before, after)).max() < 0.1
    assert (after.handedness[which] == 1 - before.handedness[which]).all()
    assert (after.handedness[~which] == before.handedness[~which]).all()
    twice = flip_batch(after, which)
    assert np.array_equal(twice.images, before.images)
    assert np.allclose(twice.keypoints_2d, before.keypoints_2d, atol=1e-5)


def test_whole_pipeline_is_a_function_of_its_seed_and_keeps_dots() -> None:
    before = _dots()
    first, again = (TrainTransform("standard", flips=True)(before, seed=11) for _ in range(2))
    assert np.array_equal(first.images, again.images) and np.array_equal(first.keypoints_2d, again.keypoints_2d)
    other = TrainTransform("standard", flips=True)(before, seed=12)
    assert not np.array_equal(first.images, other.images)
    used = TrainTransform("standard", flips=True)
    used(before, seed=1)
    assert np.array_equal(used(before, seed=11).images, first.images), "an earlier call must leave no trace"
    # Noise on top of everything: dots stay under their keypoints on average.
    assert np.abs(np.median(_misses(before, first), 0)).max() < 0.1


def test_joints_that_leave_the_image_lose_their_visibility_and_none_gains_it() -> None:
    batch = _dots()
    edge = np.full((DOTS, 21, 2), 62.0, np.float32)
    hidden = np.full((DOTS, 21), 2, np.uint8)
    hidden[:, 5] = 0
    after = TrainTransform("standard")(PoseBatch(batch.images, edge, hidden, batch.handedness), seed=5)
    gone = outside(after.keypoints_2d, SIZE, SIZE)
    assert 0 < gone.mean() < 1
    assert (after.visibility[gone] == 0).all()
    assert (after.visibility[:, 5] == 0).all()
    assert (after.visibility[~gone & (hidden > 0)] == 2).all()


def test_unlabelled_keypoints_stay_unlabelled() -> None:
    batch = _dots()
    points = batch.keypoints_2d.copy()
    points[:, 3] = np.nan
    seen = batch.visibility.copy()
    seen[:, 3] = 0
    after = TrainTransform("standard")(PoseBatch(batch.images, points, seen, batch.handedness), seed=5)
    assert np.isnan(after.keypoints_2d[:, 3]).all() and (after.visibility[:, 3] == 0).all()
    assert np.isfinite(after.keypoints_2d[:, 4]).all()


def test_unknown_strength_is_refused() -> None:
    with pytest.raises(InputError, match="light, standard"):
        TrainTransform("wild")

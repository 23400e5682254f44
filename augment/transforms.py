"""Training-time transforms of images with keypoints: the only module that imports albumentations.

Conventions. Images are uint8 NHWC, keypoints pixels with the centre of the top-left pixel at (0, 0), visibility is
COCO's 0/1/2. A joint that a transform moves out of the image becomes visibility 0 (outside); its coordinates stay, so
that nothing is invented.

albumentations 2.0.8 shifts keypoints in Resize (+0.25 px when halving, -0.5 px when doubling) and in
RandomResizedCrop, so neither is used
here: scale, rotation and shift are one Affine, which is exact, and flips are done by `handaug.data_specs.camera`'s
rule (x -> W-1-x, handedness toggles, joint order stays). The tests draw dots and find them again within 0.1 px.
"""

from dataclasses import dataclass
from typing import Any

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.camera import flip_points_3d
from handaug.data_specs.errors import InputError

__all__ = ["STRENGTHS", "PoseBatch", "TrainTransform", "flip_batch", "named_transforms", "outside"]

STRENGTHS = ("light", "standard")


@dataclass(frozen=True)
class PoseBatch:
    """Rows on their way into an estimator; first axis N in every array."""

    images: NDArray[np.uint8]
    """(N, H, W, C)."""
    keypoints_2d: NDArray[np.float32]
    """(N, 21, 2) pixels."""
    visibility: NDArray[np.uint8]
    """(N, 21), 0 outside or not labelled, 1 hidden, 2 visible."""
    handedness: NDArray[np.uint8]
    """(N,), 0 left, 1 right."""
    keypoints_3d: NDArray[np.float32] | None = None
    """(N, 21, 3) metres, camera frame, relative to the wrist; None where nobody asks for 3D."""


def outside(keypoints: NDArray[np.float32], height: int, width: int) -> NDArray[np.bool_]:
    """Which keypoints (..., 2) lie outside the image, whose pixels cover [-0.5, W-0.5) x [-0.5, H-0.5) (NaN counts as
    outside).
    """
    x, y = keypoints[..., 0], keypoints[..., 1]
    return ~((x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5))


def flip_batch(batch: PoseBatch, which: NDArray[np.bool_]) -> PoseBatch:
    """Mirror the rows where `which` (N,) is true: image, x in 2D and 3D, handedness; the joint order stays."""
    width = batch.images.shape[2]
    images, keypoints, handedness = batch.images.copy(), batch.keypoints_2d.copy(), batch.handedness.copy()
    images[which] = images[which][:, :, ::-1]
    keypoints[which, :, 0] = (width - 1) - keypoints[which, :, 0]
    handedness[which] = 1 - handedness[which]
    spatial = batch.keypoints_3d
    if spatial is not None:
        spatial = np.where(which[:, None, None], flip_points_3d(spatial), spatial)
    return PoseBatch(images, keypoints, batch.visibility, handedness, spatial)


def _pipeline(strength: str) -> list[Any]:
    """Light: what a checker needs to generalise from half the data. Standard: the strong baseline that a gain must
    beat.
    """
    light = strength == "light"
    # What a camera does to colours and a file to pixels; of one channel colour jitter leaves everything as it is.
    camera = [
        A.ColorJitter(brightness=(1, 1), contrast=(1, 1), saturation=(0.6, 1.4), hue=(-0.03, 0.03), p=0.5),
        A.ImageCompression(quality_range=(40, 95), p=0.3),
    ]
    return [
        A.Affine(
            scale=(0.9, 1.1) if light else (0.75, 1.25),
            keep_ratio=True,  # a hand that is stretched along one axis is no view of any hand
            rotate=(-15, 15) if light else (-45, 45),
            translate_percent={"x": (-0.05, 0.05), "y": (-0.05, 0.05)}
            if light
            else {"x": (-0.1, 0.1), "y": (-0.1, 0.1)},
            # Edge pixels repeated: a black wedge would tell the network how the picture was turned, and
            # albumentations repeats the keypoints too where the border is a reflection.
            border_mode=1,
            p=0.7 if light else 0.8,
        ),
        A.RandomBrightnessContrast(
            brightness_limit=0.15 if light else 0.3, contrast_limit=0.15 if light else 0.3, p=0.5 if light else 0.8
        ),
        A.RandomGamma(gamma_limit=(85, 118) if light else (60, 160), p=0.3 if light else 0.4),
        A.GaussianBlur(blur_limit=(3, 3), sigma_limit=(0.3, 0.9) if light else (0.3, 1.2), p=0.15 if light else 0.2),
        A.GaussNoise(std_range=(0.005, 0.02) if light else (0.01, 0.05), p=0.2 if light else 0.4),
        *([] if light else camera),
    ]


def named_transforms(strength: str) -> list[dict[str, Any]]:
    """Every transform of a strength with its settings, in order: what a reader must know of the arm, and what must not
    change between the runs of an experiment.
    """
    return [A.to_dict(transform)["transform"] for transform in _pipeline(strength)]


class TrainTransform:
    """Random scale, rotation, shift, brightness, contrast, gamma, blur, noise; colours and JPEG by `standard`; flips
    where the data has both hands.

    Example:
        >>> transform = TrainTransform("standard", flips=False)
        >>> batch = PoseBatch(np.zeros((2, 64, 64, 1), np.uint8), np.full((2, 21, 2), 30, np.float32),
        ...                   np.full((2, 21), 2, np.uint8), np.ones(2, np.uint8))
        >>> transform(batch, seed=7).images.shape
        (2, 64, 64, 1)
    """

    def __init__(self, strength: str = "standard", *, flips: bool = False) -> None:
        """Build the pipeline.

        Args: strength: `light` or `standard`. flips: Mirror half of the rows. Right only where both hands occur in
            the data: a mirrored right hand is a left hand, and teaching a hand that never comes costs accuracy.
        """
        if strength not in STRENGTHS:
            raise InputError(f"transform strength {strength!r} is unknown: take one of {', '.join(STRENGTHS)}")
        self.strength = strength
        self.flips = flips
        self._compose = A.Compose(
            _pipeline(strength), keypoint_params=A.KeypointParams(format="xy", remove_invisible=False), seed=0
        )

    def __call__(self, batch: PoseBatch, *, seed: int) -> PoseBatch:
        """Transform a batch; the result is a function of the batch and the seed alone."""
        rng = np.random.default_rng(seed)
        if self.flips:
            batch = flip_batch(batch, rng.random(len(batch.images)) < 0.5)
        # One seed for the whole batch: reseeding the pipeline costs more than transforming an image.
        self._compose.set_random_seed(int(rng.integers(2**31)))
        images = np.empty_like(batch.images)
        keypoints = batch.keypoints_2d.copy()
        height, width = images.shape[1:3]
        spatial = None if batch.keypoints_3d is None else batch.keypoints_3d.copy()
        probes = _PROBES * np.float32(width)
        for i, image in enumerate(batch.images):
            labelled = np.isfinite(keypoints[i]).all(-1)
            done = self._compose(image=image, keypoints=np.concatenate([keypoints[i, labelled], probes]))
            images[i] = done["image"].reshape(images.shape[1:])
            keypoints[i, labelled] = done["keypoints"][: -len(probes)]
            if spatial is not None:
                spatial[i, :, :2] = spatial[i, :, :2] @ _turn(done["keypoints"][-len(probes) :]).T
        visibility = np.where(outside(keypoints, height, width), 0, batch.visibility).astype(np.uint8)
        return PoseBatch(images, keypoints, visibility, batch.handedness, spatial)


_PROBES = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
"""Points that go through the pipeline beside the joints and show how it turned the picture."""


def _turn(probes: NDArray[Any]) -> NDArray[np.float32]:
    """Rotation (2, 2) of the picture that took `_PROBES` to these points.

    Turning a picture about its middle is turning the camera about its axis, so x and y of 3D points turn with it. Scale
    and shift are a nearer hand and another principal point; relative to the wrist they change nothing but perspective.
    """
    along_x = np.asarray(probes[1], np.float64) - np.asarray(probes[0], np.float64)
    cosine, sine = along_x / np.linalg.norm(along_x)
    return np.array([[cosine, -sine], [sine, cosine]], np.float32)

"""One shard: sample its poses, label them from the geometry, let Blender draw them, write the rows.

Runs in a worker process. What it writes is a function of (config, shard number) alone.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.camera import project
from handaug.data_specs.schema import LEFT, MASK_BACKGROUND, MASK_FOREARM, MASK_HAND, RIGHT
from handaug.data_specs.writer import DatasetWriter
from handaug.render.appearance import sample_appearance
from handaug.render.backdrop import IMAGE_SUFFIXES, PANORAMA_SUFFIXES, backdrop, image_files, load_background
from handaug.render.blender.session import BlenderSession
from handaug.render.config import RenderConfig, split_of
from handaug.render.hand import JOINT_SEGMENTS, HandModel, mirror_quads
from handaug.render.labels import rasterise, visibility
from handaug.render.lighting import measure
from handaug.render.penetration import sample_clear_pose
from handaug.render.scene import Appearance, HandScene
from handaug.render.seeds import Factor, Kind, generator, identity
from handaug.render.sensor import develop
from handaug.render.surface import surface_of
from handaug.render.viewpoint import place_hand, to_camera

__all__ = ["LabelledHand", "ShardRenderer", "optional_fields", "sample_hand"]

Rows = dict[str, NDArray[Any]]
_FOREARM = 0
"""Number of the forearm in `hand.SEGMENTS`."""


@dataclass(frozen=True, eq=False)
class LabelledHand:
    """One pose of a config."""

    scene: HandScene
    """What Blender draws."""
    labels: Rows
    """The row's fields, all but images and what depends on the appearance."""


def optional_fields(config: RenderConfig) -> list[str]:
    """The fields of a rendered file besides the required ones."""
    fields = ["keypoints_3d", "camera", "mask", "pose_id", "appearance_id", "image_id", "shape", "pose"]
    return fields + ["depth"] * config.depth


def sample_hand(config: RenderConfig, model: HandModel, pose: int) -> LabelledHand:
    """Draw pose number `pose` and label it, from the geometry alone."""

    def rng(factor: Factor) -> np.random.Generator:
        return generator(config.seed, Kind.POSE, pose, factor)

    shape = model.sample_shape(rng(Factor.SHAPE))
    rest = model.rest(shape)
    angles = sample_clear_pose(rng(Factor.ARTICULATION), model, rest)
    left = config.hands == "left" or (config.hands == "both" and bool(rng(Factor.SIDE).integers(2)))
    posed = model.pose(rest, angles)
    if left:
        posed = posed.mirrored()
    quads = mirror_quads(model.quads) if left else model.quads
    rotation, translation, camera = place_hand(rng(Factor.VIEWPOINT), posed, config.size)
    vertices, joints = (to_camera(points, rotation, translation) for points in (posed.vertices, posed.joints))
    raster = rasterise(vertices, quads, camera, config.size, config.size)
    part = np.where(model.face_segment == _FOREARM, MASK_FOREARM, MASK_HAND)
    size = config.size
    labels: Rows = {
        "keypoints_2d": project(camera, joints),
        "keypoints_3d": joints,
        "visibility": visibility(joints, vertices, quads, model.face_segment, JOINT_SEGMENTS, camera, size, size),
        "camera": camera,
        "handedness": np.array(LEFT if left else RIGHT, np.uint8),
        "mask": raster.labels(part, MASK_BACKGROUND),
        "split": np.array(split_of(pose), np.uint8),
        "group": np.array(identity("group", config.seed, pose, config.hands), np.int64),
        "pose_id": np.array(identity("pose", config.seed, pose, config.hands, size), np.int64),
        "shape": shape.astype(np.float32),
        "pose": angles.angles.astype(np.float32),
    }
    if config.depth:
        labels["depth"] = raster.depth.astype(np.float16)
    middle = (joints.min(0) + joints.max(0)) / 2
    centre = (float(middle[0]), float(middle[1]), float(middle[2]))
    return LabelledHand(HandScene(vertices, camera, size, left, centre), labels)


class ShardRenderer:
    """Keeps one Blender and one hand model for all shards of a process."""

    def __init__(self, config: RenderConfig) -> None:
        self.config = config
        self._model = HandModel.load()
        self._session = BlenderSession(surface_of(self._model), hdris=config.hdris)
        folder = config.backgrounds
        self._backgrounds = image_files(Path(folder), "--backgrounds", IMAGE_SUFFIXES) if folder else []
        panoramas = image_files(Path(config.hdris), "--hdris", PANORAMA_SUFFIXES) if config.hdris else []
        # Names and lengths, not the folders' paths: the same pictures are the same appearances wherever they lie.
        self._library = repr([(p.name, p.stat().st_size) for p in (*panoramas, *self._backgrounds)])

    def write(self, shard: int, path: Path) -> None:
        """Render one shard into a file, which gets its name when it is complete."""
        config = self.config
        with DatasetWriter(
            path,
            kind="rendered",
            config={"command": "render", **asdict(config)},
            seed=config.seed,
            size=config.size,
            channels=config.n_channels,
            fields=optional_fields(config),
        ) as writer:
            for pose in config.shard_poses(shard):
                writer.append(self.rows(pose))

    def rows(self, pose: int) -> Rows:
        """All rows of one pose: K images with the same labels."""
        hand = sample_hand(self.config, self._model, pose)
        worn = [self._appearance(number) for number in self.config.wardrobe.worn_by(pose)]
        images = [self._draw(hand.scene, appearance, pose) for appearance in worn]
        rows = {name: np.repeat(np.asarray(value)[None], len(worn), axis=0) for name, value in hand.labels.items()}
        rows["images"] = np.stack(images)
        rows["appearance_id"] = np.array([a.identity for a in worn], np.int64)
        pose_id = int(hand.labels["pose_id"])
        rows["image_id"] = np.array([identity("image", pose_id, a.identity) for a in worn], np.int64)
        return rows

    def _appearance(self, number: int) -> Appearance:
        return sample_appearance(
            self.config.seed,
            number,
            environments=self._session.environments,
            backgrounds=len(self._backgrounds),
            library=self._library,
        )

    def _draw(self, scene: HandScene, appearance: Appearance, pose: int) -> NDArray[np.uint8]:
        config = self.config
        panorama = self._session.panorama(appearance.environment)
        light = measure(appearance, self._session.lighting(appearance.environment), config.n_channels)
        index = (pose, appearance.number)
        seed = int(generator(config.seed, Kind.IMAGE, *index, Factor.SAMPLES).integers(2**31 - 1))
        drawn = self._session.render(scene, appearance, light, samples=config.samples, seed=seed)
        number = appearance.backdrop.image
        image = load_background(self._backgrounds[number]) if number >= 0 else None
        behind = backdrop(appearance, light, panorama, image, config.size)
        alpha = np.clip(drawn[..., 3:4], 0, 1)
        hand = drawn[..., :3] * np.array(light.balance, np.float32) * np.float32(light.exposure)
        noise = generator(config.seed, Kind.IMAGE, *index, Factor.NOISE)
        return develop(hand + (1 - alpha) * behind, appearance.sensor, config.n_channels, noise)

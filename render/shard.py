"""One shard: sample its poses, label them from the geometry, let Blender draw them, write the rows.

Runs in a worker process. What it writes is a function of (config, shard number) alone.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.writer import DatasetWriter
from handaug.render.appearance import appearance_factors, sample_appearance
from handaug.render.backdrop import IMAGE_SUFFIXES, PANORAMA_SUFFIXES, backdrop, image_files, load_background
from handaug.render.blender.session import BlenderSession
from handaug.render.config import RenderConfig
from handaug.render.lighting import measure
from handaug.render.mano import hand_model_of
from handaug.render.posing import optional_fields, sample_hand
from handaug.render.scene import Appearance, HandScene
from handaug.render.seeds import Factor, Kind, generator, identity
from handaug.render.sensor import develop, smear
from handaug.render.surface import surface_of

__all__ = ["ShardRenderer"]

Rows = dict[str, NDArray[Any]]


class ShardRenderer:
    """Keeps one Blender and one hand model for all shards of a process."""

    def __init__(self, config: RenderConfig) -> None:
        self.config = config
        self._model = hand_model_of(config)
        self._session = BlenderSession(surface_of(self._model), hdris=config.hdris)
        self._surroundings = config.weights("environments")
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
        """All rows of one pose: K images with the same labels; where both hands are labelled, one hand after the
        other."""
        hand = sample_hand(self.config, self._model, pose)
        worn = [self._appearance(number) for number in self.config.wardrobe.worn_by(pose)]
        images = [self._draw(hand.scene, appearance, pose) for appearance in worn]
        pose_id = int(hand.labels["pose_id"])
        shared = {
            "images": np.stack(images),
            "appearance_id": np.array([a.identity for a in worn], np.int64),
            "appearance_factors": np.stack([appearance_factors(a) for a in worn]),
            "image_id": np.array([identity("image", pose_id, a.identity) for a in worn], np.int64),
        }
        each = [{**{name: _times(value, len(worn)) for name, value in own.items()}, **shared} for own in hand.rows]
        return {name: np.concatenate([rows[name] for rows in each]) for name in each[0]}

    def _appearance(self, number: int) -> Appearance:
        return sample_appearance(
            self.config.seed,
            number,
            environments=self._session.environments,
            backgrounds=len(self._backgrounds),
            library=self._library,
            surroundings=self._surroundings,
            sensor=self.config.sensor,
        )

    def _draw(self, scene: HandScene, appearance: Appearance, pose: int) -> NDArray[np.uint8]:
        config = self.config
        light = measure(appearance, self._session.lighting(appearance), config.n_channels)
        index = (pose, appearance.number)
        seed = int(generator(config.seed, Kind.IMAGE, *index, Factor.SAMPLES).integers(2**31 - 1))
        drawn = self._session.render(scene, appearance, light, samples=config.samples, seed=seed)
        number = appearance.backdrop.image
        image = load_background(self._backgrounds[number]) if number >= 0 else None
        behind = backdrop(appearance, light, self._session.surrounding(appearance), image, config.size)
        drawn = smear(drawn, appearance.sensor)
        alpha = np.clip(drawn[..., 3:4], 0, 1)
        hand = drawn[..., :3] * np.array(light.balance, np.float32) * np.float32(light.exposure)
        noise = generator(config.seed, Kind.IMAGE, *index, Factor.NOISE)
        return develop(hand + (1 - alpha) * behind, appearance.sensor, config.n_channels, noise)


def _times(value: NDArray[Any], count: int) -> NDArray[Any]:
    return np.repeat(np.asarray(value)[None], count, axis=0)

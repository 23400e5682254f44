"""One shard: sample its poses, label them from the geometry, let Blender draw them, write the rows.

Runs in a worker process. What it writes is a function of (config, shard number) alone.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from handaug.data_specs.writer import DatasetWriter
from handaug.render.appearance import sample_appearance, sample_rig
from handaug.render.appearance_factors import appearance_factors
from handaug.render.backdrop import IMAGE_SUFFIXES, PANORAMA_SUFFIXES, backdrop, image_files, load_background
from handaug.render.blender.session import BlenderSession
from handaug.render.config import TRACES, RenderConfig
from handaug.render.lighting import Light, measure
from handaug.render.mano import hand_model_of
from handaug.render.posing import optional_fields, sample_hand
from handaug.render.relighting import relight
from handaug.render.scene import Appearance, HandScene
from handaug.render.seeds import Factor, Kind, generator, identity
from handaug.render.sensor import develop, smear
from handaug.render.surface import surface_of

__all__ = ["ShardRenderer"]

Rows = dict[str, NDArray[Any]]
Floats = NDArray[np.float32]

_KEPT_BYTES = 64 << 20
"""For backdrops of appearances that come again: drawing one takes 4 ms at 64 px."""

_KEPT_RIGS = 500
"""Rigs whose light stays measured: measuring one means loading its environment again."""


class _Look(NamedTuple):
    """An appearance, and what follows from it alone."""

    appearance: Appearance
    own: Appearance
    """As it would be with surroundings of its own, which stand behind the hand; else that of its rig lights it."""
    light: Light
    behind: Floats
    """(size, size, 3) exposed."""


class ShardRenderer:
    """Keeps one Blender and one hand model for all shards of a process.

    Args:
        config: What is rendered.
        number: Of the process among those of this job on this machine.
    """

    def __init__(self, config: RenderConfig, number: int = 0) -> None:
        self.config = config
        self._model = hand_model_of(config)
        self._session = BlenderSession(
            surface_of(self._model), hdris=config.hdris, relighting=config.relit, device=config.device, number=number
        )
        self._surroundings = config.weights("environments")
        self._tones = config.weights("tones")
        self._lamps, self._exposures = config.lamp_weights, config.limits("exposures")
        folder = config.backgrounds
        self._backgrounds = image_files(Path(folder), "--backgrounds", IMAGE_SUFFIXES) if folder else []
        panoramas = image_files(Path(config.hdris), "--hdris", PANORAMA_SUFFIXES) if config.hdris else []
        self._looks: OrderedDict[int, _Look] = OrderedDict()
        self._rigs: OrderedDict[int, tuple[Appearance, Light]] = OrderedDict()
        # Names and lengths, not the folders' paths: the same pictures are the same appearances wherever they lie.
        self._library = repr([(p.name, p.stat().st_size) for p in (*panoramas, *self._backgrounds)])

    @property
    def device(self) -> str:
        """Name of what Blender traces on."""
        return self._session.device

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
        worn = [self._look(number) for number in self.config.wardrobe.worn_by(pose)]
        drawn = self._relit(hand.scene, worn, pose) if self.config.relit else self._direct(hand.scene, worn, pose)
        images = [self._finish(light, look, pose) for light, look in zip(drawn, worn, strict=True)]
        pose_id = int(hand.labels["pose_id"])
        shared = {
            "images": np.stack(images),
            "appearance_id": np.array([look.appearance.identity for look in worn], np.int64),
            "appearance_factors": np.stack([appearance_factors(look.appearance, look.own) for look in worn]),
            "image_id": np.array([identity("image", pose_id, look.appearance.identity) for look in worn], np.int64),
        }
        each = [{**{name: _times(value, len(worn)) for name, value in own.items()}, **shared} for own in hand.rows]
        return {name: np.concatenate([rows[name] for rows in each]) for name in each[0]}

    def _look(self, number: int) -> _Look:
        if number in self._looks:
            self._looks.move_to_end(number)
            return self._looks[number]
        config = self.config
        own = self._appearance(number, -1)
        rig = config.wardrobe.rig(number)
        appearance = self._appearance(number, rig) if rig >= 0 else own
        light = measure(appearance, self._session.lighting(appearance), config.n_channels)
        seen = light
        if rig >= 0:  # looks of one rig are lit alike; behind them stands what they would have had for themselves
            around = measure(own, self._session.lighting(own), config.n_channels)
            seen = replace(light, environment_strength=around.environment_strength)
        picture = own.backdrop.image
        image = load_background(self._backgrounds[picture]) if picture >= 0 else None
        behind = backdrop(own, seen, self._session.surrounding(own), image, config.size)
        if len(self._looks) >= max(1, _KEPT_BYTES // behind.nbytes):
            self._looks.popitem(last=False)
        self._looks[number] = _Look(appearance, own, light, behind)
        return self._looks[number]

    def _appearance(self, number: int, rig: int) -> Appearance:
        return sample_appearance(
            self.config.seed,
            number,
            environments=self._session.environments,
            backgrounds=len(self._backgrounds),
            library=self._library,
            surroundings=self._surroundings,
            sensor=self.config.sensor,
            tones=self._tones,
            lamps=self._lamps,
            exposures=self._exposures,
            rig=rig,
        )

    def _rig(self, number: int) -> tuple[Appearance, Light]:
        if number not in self._rigs:
            if len(self._rigs) >= _KEPT_RIGS:
                self._rigs.popitem(last=False)
            rig = sample_rig(self.config.seed, number, self._session.environments, self._surroundings)
            self._rigs[number] = rig, measure(rig, self._session.lighting(rig), self.config.n_channels)
        return self._rigs[number]

    def _direct(self, scene: HandScene, worn: list[_Look], pose: int) -> Iterator[Floats]:
        for look in worn:
            seed = self._seed(pose, look.appearance.number, Factor.SAMPLES)
            yield self._session.render(scene, look.appearance, look.light, samples=self.config.samples, seed=seed)

    def _relit(self, scene: HandScene, worn: list[_Look], pose: int) -> Iterator[Floats]:
        numbers = list(dict.fromkeys(look.appearance.rig for look in worn))
        rigs = [(*self._rig(number), self._seed(pose, number, Factor.TRACES)) for number in numbers]
        traced = self._session.trace(scene, rigs, samples=TRACES[self.config.quality])
        found = dict(zip(numbers, traced, strict=True))
        for look in worn:
            yield relight(found[look.appearance.rig], look.appearance)

    def _seed(self, pose: int, number: int, factor: Factor) -> int:
        return int(generator(self.config.seed, Kind.IMAGE, pose, number, factor).integers(2**31 - 1))

    def _finish(self, drawn: Floats, look: _Look, pose: int) -> NDArray[np.uint8]:
        """Behind the hand its backdrop, before both the sensor."""
        sensor, light = look.appearance.sensor, look.light
        drawn = smear(drawn, sensor)
        alpha = np.clip(drawn[..., 3:4], 0, 1)
        hand = drawn[..., :3] * np.array(light.balance, np.float32) * np.float32(light.exposure)
        noise = generator(self.config.seed, Kind.IMAGE, pose, look.appearance.number, Factor.NOISE)
        return develop(hand + (1 - alpha) * look.behind, sensor, self.config.n_channels, noise)


def _times(value: NDArray[Any], count: int) -> NDArray[Any]:
    return np.repeat(np.asarray(value)[None], count, axis=0)

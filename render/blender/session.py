"""One Blender, one scene, kept for the life of the process: a hand and an appearance in, linear light out.

What makes it fast (measured on two cores, 64 px): the environment's importance map is set by hand to the size of the
panorama (AUTOMATIC rebuilds a 4096 px map, 1.3 s, at each change); panoramas are averaged down to 128 px, since a map
smaller than its picture misses small lamps; one mesh is refilled, never replaced; data persists between renders;
passes are read from the engine without a file; OIDN runs at FAST with no prefilter. Blender's own threads spin when
there are more of them than cores: the process must be pinned to one core before this module is imported
(`handaug.render.worker` does).

With persistent data Cycles ignores changes of its own settings (samples, seed) until `scene.update_tag()`.
"""

import os
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import bpy
import numpy as np
from cycles import CyclesRender, engine
from mathutils import Quaternion, Vector
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError, WorkError
from handaug.render.backdrop import PANORAMA_SUFFIXES, image_files
from handaug.render.blender.camera import add_camera, aim_camera, to_blender
from handaug.render.blender.denoise import Denoiser
from handaug.render.blender.device import use_gpu
from handaug.render.blender.skin import KIND_ATTRIBUTE, REST_ATTRIBUTE, SkinMaterial
from handaug.render.blender.things import Things
from handaug.render.environment import Panorama, Surrounding, directions
from handaug.render.lighting import Light
from handaug.render.relighting import SAMPLES, Gathered, Traced, assemble, gather
from handaug.render.scene import Appearance, HandScene
from handaug.render.surface import Surface

__all__ = ["SECOND_HAND", "BlenderSession", "panorama_files"]

Floats = NDArray[np.float32]
_MAP = 128
"""Width of the lighting panorama and of its importance map."""
_FINE = 1024
"""Widest panorama kept for the backdrop."""
_KEPT = 24
"""Panoramas kept in memory."""
_LAMPS = 2
SECOND_HAND = 100
"""Object index of the second hand; the first has 1, things have 2 and more."""
_SPLIT = ("diffuse_color", "diffuse_direct", "diffuse_indirect", "glossy_color", "glossy_direct", "glossy_indirect")
"""Passes that tell diffuse light from gloss."""
_passes: dict[str, Floats] = {}


def _render_and_keep(self: Any, depsgraph: Any) -> None:
    engine.render(self, depsgraph)
    result = self.get_result()
    for layer in result.layers:
        for found in layer.passes:
            values = np.empty(result.resolution_x * result.resolution_y * found.channels, np.float32)
            found.rect.foreach_get(values)
            _passes[found.name] = values.reshape(result.resolution_y, result.resolution_x, found.channels)[::-1].copy()


@contextmanager
def _quiet() -> Iterator[None]:
    """Blender's C code prints to file descriptor 1; send that to nowhere."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def panorama_files(folder: str | None) -> list[Path]:
    """The panoramas of a folder, or those that come with Blender, by name.

    Raises:
        InputError: The folder has none.
    """
    place = Path(folder) if folder else Path(bpy.utils.system_resource("DATAFILES")) / "studiolights" / "world"
    return image_files(place, "--hdris", PANORAMA_SUFFIXES)


class BlenderSession:
    """The scene. There is one Blender in a process: make one session in a process and keep it.

    Args:
        surface: The mesh and what its parts are.
        hdris: Folder of panoramas, None for Blender's.
        passes: Further passes to read, of `z`, `object_index`.
        relighting: Whether it is used for `trace`, and not for `render`.
        device: One of `config.DEVICES`.
        number: Of the process: with several GPUs, each process takes its own.
    """

    def __init__(
        self,
        surface: Surface,
        *,
        hdris: str | None = None,
        passes: tuple[str, ...] = (),
        relighting: bool = False,
        device: str = "cpu",
        number: int = 0,
    ) -> None:
        CyclesRender.render = _render_and_keep
        with _quiet():
            bpy.ops.wm.read_factory_settings(use_empty=True)
        self.scene = bpy.context.scene
        self._set_up_engine()
        self.device = "CPU" if device == "cpu" else use_gpu(self.scene, device, number)
        """Name of what it traces on."""
        layer = bpy.context.view_layer
        for name in (*passes, *(_SPLIT if relighting else ())):
            setattr(layer, f"use_pass_{name}", True)
        self.camera = add_camera(self.scene)
        self._skin = SkinMaterial(surface.maps)
        if relighting:
            # Cycles sends sample 0 through the middle of the pixel, which jags edges where samples are few.
            self.scene.cycles.use_sample_subset, self.scene.cycles.sample_offset = True, 1
            layer.cycles.denoising_store_passes = True
            self._skin.for_relighting(layer)
        self._surface = surface
        self.hand = self._add_hand("hand")
        self.hand.pass_index = 1
        self._second: Any = None
        self._things, self._behind = Things(self.scene), Things(self.scene, behind=True)
        self._lamps = [self._add_lamp(k) for k in range(_LAMPS)]
        self._add_world()
        self._files = panorama_files(hdris)
        self._panoramas: OrderedDict[tuple[str, int], _Loaded] = OrderedDict()
        self._placed: HandScene | None = None
        self._denoisers: dict[int, Denoiser] = {}

    @property
    def environments(self) -> int:
        """How many panoramas there are."""
        return len(self._files)

    def surrounding(self, appearance: Appearance) -> Surrounding:
        """What stands behind the hand: made by formula, or a panorama at most 1024 px wide."""
        return appearance.surrounding or Panorama(self._panorama(appearance).fine)

    def lighting(self, appearance: Appearance) -> Floats:
        """(H, W, 3) linear, first row up, 128 px wide: what lights the hand."""
        return self._panorama(appearance).coarse

    def render(self, hand: HandScene, appearance: Appearance, light: Light, *, samples: int, seed: int) -> Floats:
        """Draw the hand alone, on nothing.

        Args:
            hand: Posed hand and camera.
            appearance: Panorama, lamps and skin.
            light: Their strengths, as measured.
            samples: Per pixel.
            seed: Of the path tracer, 0..2^31-1.

        Returns:
            (size, size, 4) radiance, premultiplied by alpha, not exposed.
        """
        self._place(hand)
        self._light(appearance, light, hand.centre)
        self._skin.wear(appearance.skin.at_age(hand.age))
        return self.shoot(samples, seed)["Combined"]

    def trace(
        self, hand: HandScene, rigs: Sequence[tuple[Appearance, Light, int]], *, samples: tuple[int, int]
    ) -> list[Traced]:
        """Draw the hand in each light of each rig alone.

        Args:
            hand: Posed hand and camera.
            rigs: Panorama, lamps and skin of each; their strengths, as measured; seed of the path tracer.
            samples: Per pixel, for the panorama and for each lamp.
        """
        self._place(hand)
        gathered = [self._trace(hand, *rig, samples) for rig in rigs]
        if hand.size not in self._denoisers:
            self._denoisers = {hand.size: Denoiser(hand.size)}
        denoise, pixel = self._denoisers[hand.size], hand.centre[2] / float(hand.intrinsics[0, 0])
        return assemble(gathered, denoise=denoise, skins=[rig.skin for rig, _, _ in rigs], pixel=pixel)

    def _trace(self, hand: HandScene, rig: Appearance, light: Light, seed: int, samples: tuple[int, int]) -> Gathered:
        self._light(rig, light, hand.centre)
        self._skin.wear(rig.skin.at_age(hand.age))
        watts = [lamp.data.energy for lamp in self._lamps]
        found = []
        for number in range(-1, len(rig.lamps)):
            self._strength.default_value = light.environment_strength if number < 0 else 0.0
            for k, lamp in enumerate(self._lamps):
                lamp.data.energy = watts[k] if k == number else 0.0
            spent = samples[min(number + 1, 1)]
            passes = self.shoot(spent, (seed + 1 + number) % (2**31 - 1), denoise=False)
            found.append({**passes, SAMPLES: np.array([spent], np.float32)})
        return gather(found)

    def shoot(self, samples: int, seed: int, *, denoise: bool = True) -> dict[str, Floats]:
        """Render the scene as it stands; returns each pass as (H, W, channels), first row up."""
        cycles = self.scene.cycles
        cycles.samples = samples + cycles.sample_offset
        cycles.seed, cycles.use_denoising = seed, denoise
        self.scene.update_tag()
        _passes.clear()
        with _quiet():
            bpy.ops.render.render()
        if "Combined" not in _passes:
            raise WorkError("Blender drew nothing: run `handaug doctor`")
        return dict(_passes)

    def _place(self, hand: HandScene) -> None:
        if hand is self._placed:  # a mesh that was not touched is not sent to Cycles again: 5 ms
            return
        self._placed = hand
        aim_camera(self.scene, hand.intrinsics, hand.size)
        _pour(self.hand, hand.vertices, hand.left)
        if hand.other is not None:
            if self._second is None:
                self._second = self._add_hand("second")
                self._second.pass_index = SECOND_HAND
            _pour(self._second, hand.other.vertices, hand.other.left)
        if self._second is not None:
            self._second.hide_render = hand.other is None
        self._things.place(hand.things)
        self._behind.place(() if hand.surface is None else (hand.surface,))

    def _light(self, appearance: Appearance, light: Light, centre: tuple[float, float, float]) -> None:
        self._environment.image = self._panorama(appearance).image
        self._strength.default_value = light.environment_strength
        # Blender's world direction -> camera's frame (half a turn about x) -> panorama.
        turn = Quaternion(appearance.rotation) @ Quaternion((0, 1, 0, 0))
        self._turn.default_value = turn.to_euler("XYZ")
        unit = float(centre[2])
        middle = Vector(to_blender(np.array(centre, np.float32)))
        for k, lamp in enumerate(self._lamps):
            if k >= len(appearance.lamps):
                lamp.data.energy = 0.0
                continue
            drawn = appearance.lamps[k]
            direction = Vector(to_blender(np.array(drawn.direction, np.float32)))
            lamp.location = middle + direction * (drawn.distance * unit)
            lamp.rotation_quaternion = direction.to_track_quat("Z", "Y")
            lamp.data.size = drawn.side * unit * drawn.aspect**0.5
            lamp.data.size_y = drawn.side * unit / drawn.aspect**0.5
            lamp.data.color = drawn.color
            lamp.data.energy = light.lamp_watts[k] * unit**2

    def _set_up_engine(self) -> None:
        scene = self.scene
        scene.render.engine = "CYCLES"
        scene.render.film_transparent = True
        scene.render.use_persistent_data = True
        scene.render.threads_mode, scene.render.threads = "FIXED", 1
        scene.render.resolution_percentage = 100
        scene.render.use_compositing = scene.render.use_sequencer = False
        cycles = scene.cycles
        cycles.device = "CPU"
        cycles.use_adaptive_sampling = False
        cycles.max_bounces = 4
        cycles.sample_clamp_direct, cycles.sample_clamp_indirect = 20.0, 6.0
        cycles.denoiser, cycles.denoising_quality, cycles.denoising_prefilter = "OPENIMAGEDENOISE", "FAST", "NONE"
        cycles.denoising_use_gpu = False

    def _add_hand(self, name: str) -> Any:
        mesh = _mesh(self._surface)
        mesh.materials.append(self._skin.material)
        hand = bpy.data.objects.new(name, mesh)
        self.scene.collection.objects.link(hand)
        return hand

    def _add_lamp(self, k: int) -> Any:
        lamp = bpy.data.objects.new(f"lamp{k}", bpy.data.lights.new(f"lamp{k}", "AREA"))
        lamp.data.shape = "RECTANGLE"
        lamp.rotation_mode = "QUATERNION"
        lamp.visible_camera = False
        self.scene.collection.objects.link(lamp)
        return lamp

    def _add_world(self) -> None:
        world = bpy.data.worlds.new("world")
        self.scene.world = world
        world.use_nodes = True
        nodes, link = world.node_tree.nodes, world.node_tree.links.new
        self._environment = nodes.new("ShaderNodeTexEnvironment")
        self._environment.interpolation = "Linear"
        mapping, where = nodes.new("ShaderNodeMapping"), nodes.new("ShaderNodeTexCoord")
        mapping.vector_type = "POINT"
        self._turn = mapping.inputs["Rotation"]
        self._strength = nodes["Background"].inputs["Strength"]
        link(where.outputs["Generated"], mapping.inputs["Vector"])
        link(mapping.outputs[0], self._environment.inputs[0])
        link(self._environment.outputs[0], nodes["Background"].inputs["Color"])
        world.cycles.sampling_method, world.cycles.sample_map_resolution = "MANUAL", _MAP

    def _panorama(self, appearance: Appearance) -> "_Loaded":
        made = appearance.surrounding
        # A rig's appearances share their room.
        owner = ("look", appearance.number) if appearance.rig < 0 else ("rig", appearance.rig)
        key = ("file", appearance.environment) if made is None else owner
        if key not in self._panoramas:
            if len(self._panoramas) >= _KEPT:
                bpy.data.images.remove(self._panoramas.popitem(last=False)[1].image)
            if made is None:
                self._panoramas[key] = _load_panorama(self._files[appearance.environment])
            else:
                coarse = _average(made.radiance(directions(_MAP, 2 * _MAP)).astype(np.float32), _MAP)
                self._panoramas[key] = _Loaded(_as_image("{} {}".format(*key), coarse), coarse, coarse)
        self._panoramas.move_to_end(key)
        return self._panoramas[key]


def _pour(hand: Any, points: Floats, left: bool) -> None:
    """Give a hand's mesh its vertices, of the camera's frame."""
    vertices = to_blender(points)
    if left:
        # A mirrored hand has its faces inside out. Cycles turns them back for an object of negative scale.
        vertices = vertices * np.array([-1, 1, 1], np.float32)
    sign = -1.0 if left else 1.0
    if hand.scale[0] != sign:
        hand.scale = (sign, 1, 1)
    hand.data.vertices.foreach_set("co", np.ascontiguousarray(vertices, np.float32).ravel())
    hand.data.update()


def _mesh(surface: Surface) -> Any:
    mesh = bpy.data.meshes.new("hand")
    mesh.vertices.add(len(surface.rest))
    mesh.vertices.foreach_set("co", np.ascontiguousarray(surface.rest, np.float32).ravel())
    mesh.loops.add(surface.quads.size)
    mesh.loops.foreach_set("vertex_index", np.ascontiguousarray(surface.quads, np.int32).ravel())
    mesh.polygons.add(len(surface.quads))
    mesh.polygons.foreach_set("loop_start", np.arange(len(surface.quads), dtype=np.int32) * 4)
    mesh.update(calc_edges=True)
    mesh.shade_smooth()
    kind = np.stack([surface.nail, surface.palm, surface.back], -1)
    for name, values in ((REST_ATTRIBUTE, surface.rest), (KIND_ATTRIBUTE, kind)):
        attribute = mesh.attributes.new(name, "FLOAT_VECTOR", "POINT")
        attribute.data.foreach_set("vector", np.ascontiguousarray(values, np.float32).ravel())
    return mesh


class _Loaded(NamedTuple):
    image: Any
    """The coarse pixels, in Blender."""
    coarse: Floats
    fine: Floats


def _load_panorama(path: Path) -> _Loaded:
    try:
        with _quiet():
            file = bpy.data.images.load(str(path))
        width, height = file.size
        if not width or not height:
            raise RuntimeError("no pixels")
    except RuntimeError as error:
        raise InputError(f"--hdris {path}: not a readable panorama, remove or replace it") from error
    pixels = np.empty(width * height * file.channels, np.float32)
    file.pixels.foreach_get(pixels)
    rgb = np.nan_to_num(pixels.reshape(height, width, file.channels)[::-1, :, :3], posinf=6e4, neginf=0)
    bpy.data.images.remove(file)
    fine = _average(rgb, min(width, _FINE))
    coarse = _average(rgb, min(width, _MAP))
    return _Loaded(_as_image(path.stem, coarse), coarse, fine)


def _as_image(name: str, pixels: Floats) -> Any:
    image = bpy.data.images.new(name, pixels.shape[1], pixels.shape[0], alpha=False, float_buffer=True)
    filled = np.ones((*pixels.shape[:2], 4), np.float32)
    filled[..., :3] = pixels[::-1]
    image.pixels.foreach_set(filled.ravel())
    image.update()
    return image


def _average(picture: Floats, width: int) -> Floats:
    """Mean over areas, to `width` columns and half as many rows; keeps the light of lamps smaller than a pixel."""
    columns = _averaging(picture.shape[1], width)
    rows = _averaging(picture.shape[0], width // 2)
    wide = np.einsum("rh,hwc->rwc", rows, picture, optimize=True)
    return np.ascontiguousarray(np.einsum("cw,rwk->rck", columns, wide, optimize=True), np.float32)


def _averaging(old: int, new: int) -> Floats:
    """(new, old) matrix of overlaps of cells; rows sum to 1."""
    edges, cells = np.arange(new + 1) * (old / new), np.arange(old)
    over = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.asarray(np.maximum(over, 0) * (new / old), np.float32)

"""One Blender, one scene, kept for the life of the process: a hand and an appearance in, linear light out.

What makes it fast (measured on two cores, 64 px): the environment's importance map is set by hand to the size of the
panorama (AUTOMATIC rebuilds a 4096 px map, 1.3 s, at each change); one mesh is refilled, never replaced; data persists
between renders; only the window that the hand takes is traced and denoised; OIDN runs at FAST with no prefilter.
Blender's own threads spin when there are more of them than cores: the process must be pinned to one core before this
module is imported (`handaug.render.worker` does).
"""

from collections.abc import Sequence
from typing import Any

import bpy
import numpy as np
from mathutils import Quaternion, Vector
from numpy.typing import NDArray

from handaug.render.blender.camera import add_camera, aim_camera, to_blender
from handaug.render.blender.denoise import Denoiser
from handaug.render.blender.device import use_gpu
from handaug.render.blender.panoramas import MAP_WIDTH, Panoramas
from handaug.render.blender.shot import quiet, set_up_engine, shoot
from handaug.render.blender.skin import KIND_ATTRIBUTE, REST_ATTRIBUTE, TENSION_ATTRIBUTE, SkinMaterial
from handaug.render.blender.things import Things
from handaug.render.environment import Panorama, Surrounding
from handaug.render.lighting import Light
from handaug.render.relighting import SAMPLES, Gathered, Traced, assemble, gather
from handaug.render.scene import Appearance, HandScene, OtherHand
from handaug.render.surface import Surface
from handaug.render.window import Window, window_of

__all__ = ["SECOND_HAND", "BlenderSession"]

Floats = NDArray[np.float32]
_LAMPS = 2
SECOND_HAND = 100
"""Object index of the second hand; the first has 1, things have 2 and more."""
_SPLIT = ("diffuse_color", "diffuse_direct", "diffuse_indirect", "glossy_color", "glossy_direct", "glossy_indirect")
"""Passes that tell diffuse light from gloss."""


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
        with quiet():
            bpy.ops.wm.read_factory_settings(use_empty=True)
        self.scene = bpy.context.scene
        set_up_engine(self.scene)
        self.device = "CPU" if device == "cpu" else use_gpu(self.scene, device, number)
        """Name of what it traces on."""
        layer = bpy.context.view_layer
        for name in (*passes, *(_SPLIT if relighting else ())):
            setattr(layer, f"use_pass_{name}", True)
        layer.cycles.denoising_store_passes = True
        self.camera = add_camera(self.scene)
        self._skin = SkinMaterial(surface.maps)
        if relighting:
            # Cycles sends sample 0 through the middle of the pixel, which jags edges where samples are few.
            self.scene.cycles.use_sample_subset, self.scene.cycles.sample_offset = True, 1
            self._skin.for_relighting(layer)
        self._surface = surface
        self.hand = self._add_hand("hand")
        self.hand.pass_index = 1
        self._second: Any = None
        self._things, self._behind = Things(self.scene), Things(self.scene, behind=True)
        self._lamps = [self._add_lamp(k) for k in range(_LAMPS)]
        self._add_world()
        self._panoramas = Panoramas(hdris)
        self._placed: HandScene | None = None
        self._window = Window.whole(1)
        """Where what is placed is seen."""
        self._denoise = Denoiser()

    @property
    def environments(self) -> int:
        """How many panoramas there are."""
        return len(self._panoramas.files)

    def surrounding(self, appearance: Appearance) -> Surrounding:
        """What stands behind the hand: made by formula, or a panorama at most 1024 px wide."""
        return appearance.surrounding or Panorama(self._panoramas.behind(appearance.environment))

    def lighting(self, appearance: Appearance) -> Floats:
        """(H, W, 3) linear, first row up, 128 px wide: what lights the hand."""
        return self._panoramas.of(appearance).coarse

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
        window = self._place(hand)
        self._light(appearance, light, hand.centre)
        self._skin.wear(appearance.skin.at_age(hand.age))
        passes = self.shoot(samples, seed, window)
        seen = passes["Combined"]
        clean = self._denoise(seen[..., :3], passes["Denoising Albedo"], passes["Denoising Normal"])
        return window.paste(np.concatenate([clean, seen[..., 3:]], -1))

    def trace(
        self, hand: HandScene, rigs: Sequence[tuple[Appearance, Light, int]], *, samples: tuple[int, int]
    ) -> list[Traced]:
        """Draw the hand in each light of each rig alone.

        Args:
            hand: Posed hand and camera.
            rigs: Panorama, lamps and skin of each; their strengths, as measured; seed of the path tracer.
            samples: Per pixel, for the panorama and for each lamp.
        """
        window = self._place(hand)
        gathered = [self._trace(hand, window, *rig, samples) for rig in rigs]
        pixel, skins = hand.centre[2] / float(hand.intrinsics[0, 0]), [rig.skin for rig, _, _ in rigs]
        return assemble(gathered, window, denoise=self._denoise, skins=skins, pixel=pixel)

    def _trace(
        self, hand: HandScene, window: Window, rig: Appearance, light: Light, seed: int, samples: tuple[int, int]
    ) -> Gathered:
        self._light(rig, light, hand.centre)
        self._skin.wear(rig.skin.at_age(hand.age))
        watts = [lamp.data.energy for lamp in self._lamps]
        found = []
        for number in range(-1, len(rig.lamps)):
            self._strength.default_value = light.environment_strength if number < 0 else 0.0
            for k, lamp in enumerate(self._lamps):
                lamp.data.energy = watts[k] if k == number else 0.0
            spent = samples[min(number + 1, 1)]
            passes = self.shoot(spent, (seed + 1 + number) % (2**31 - 1), window)
            found.append({**passes, SAMPLES: np.array([spent], np.float32)})
        return gather(found)

    def shoot(self, samples: int, seed: int, window: Window | None = None) -> dict[str, Floats]:
        """Render the scene as it stands, not denoised, the whole picture by default; see `blender.shot.shoot`."""
        return shoot(self.scene, samples, seed, window or Window.whole(self.scene.render.resolution_x))

    def _place(self, hand: HandScene) -> Window:
        """Put the scene's meshes and camera in place; returns where they are seen."""
        if hand is self._placed:
            return self._window  # a mesh that was not touched is not sent to Cycles again: 5 ms
        aim_camera(self.scene, hand.intrinsics, hand.size)
        self._pour(self.hand, hand)
        if hand.other is not None:
            if self._second is None:
                self._second = self._add_hand("second")
                self._second.pass_index = SECOND_HAND
            self._pour(self._second, hand.other)
        if self._second is not None:
            self._second.hide_render = hand.other is None
        self._things.place(hand.things)
        self._behind.place(() if hand.surface is None else (hand.surface,))
        self._placed, self._window = hand, window_of(hand)
        return self._window

    def _pour(self, mesh: Any, hand: HandScene | OtherHand) -> None:
        """Give a hand's mesh its vertices, and the tension of its skin."""
        vertices = to_blender(hand.vertices)
        if hand.left:
            # A mirrored hand has its faces inside out. Cycles turns them back for an object of negative scale.
            vertices = vertices * np.array([-1, 1, 1], np.float32)
        sign = -1.0 if hand.left else 1.0
        if mesh.scale[0] != sign:
            mesh.scale = (sign, 1, 1)
        mesh.data.vertices.foreach_set("co", np.ascontiguousarray(vertices, np.float32).ravel())
        tension = self._surface.tension.of(hand.pose)
        mesh.data.attributes[TENSION_ATTRIBUTE].data.foreach_set("vector", tension.ravel())
        mesh.data.update()

    def _light(self, appearance: Appearance, light: Light, centre: tuple[float, float, float]) -> None:
        self._environment.image = self._panoramas.of(appearance).image
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
        world.cycles.sampling_method, world.cycles.sample_map_resolution = "MANUAL", MAP_WIDTH


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
    mesh.attributes.new(TENSION_ATTRIBUTE, "FLOAT2", "POINT")
    return mesh

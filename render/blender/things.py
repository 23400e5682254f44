"""Objects, sleeves and jewellery in Blender: a few meshes that come and go with the pose."""

from typing import Any

import bpy
import numpy as np

from handaug.render.blender.camera import to_blender
from handaug.render.blender.repeatable import never_bake
from handaug.render.scene import Coat, Thing

__all__ = ["Things"]

_PAINT, _WITHIN = "paint", "within"
_EDGE = 0.0003
"""Metres either way over which one colour becomes the other."""


class Things:
    """The meshes of the scene that are not the hand's. Their materials are made once, one for each place.

    Args:
        scene: Where to put them.
        behind: Whether they are what the hand lies on. Such a surface casts no shadow, since light that is metered as
            if nothing were there must reach the hand through it, and its object index is that of nothing, 0.
    """

    def __init__(self, scene: Any, *, behind: bool = False) -> None:
        self._scene, self._behind = scene, behind
        self._objects: list[Any] = []
        self._shown: tuple[Thing, ...] = ()

    def place(self, things: tuple[Thing, ...]) -> None:
        """Show these and no others, in the camera's frame."""
        if things is self._shown:
            return
        self._shown = things
        while len(self._objects) < len(things):
            self._objects.append(self._add(len(self._objects)))
        for k, holder in enumerate(self._objects):
            holder.hide_render = k >= len(things)
            if k < len(things):
                self._fill(holder, things[k])

    def _add(self, k: int) -> Any:
        material = bpy.data.materials.new(f"thing{k}")
        material.use_nodes = True
        nodes, link = material.node_tree.nodes, material.node_tree.links.new
        paint = nodes.new("ShaderNodeAttribute")
        paint.attribute_name = _PAINT
        within = nodes.new("ShaderNodeAttribute")
        within.attribute_name = _WITHIN
        # A wave of the coat's width, less half of that, is the way to the nearest border, signed.
        half, wave, edge = (nodes.new(f"ShaderNode{kind}") for kind in ("Math", "Math", "MapRange"))
        half.operation, wave.operation = "ADD", "PINGPONG"
        half.name, wave.name, edge.name = "half", "wave", "edge"
        link(within.outputs["Fac"], half.inputs[0])
        link(half.outputs[0], wave.inputs[0])
        link(wave.outputs[0], edge.inputs["Value"])
        coated = nodes.new("ShaderNodeMix")
        coated.name, coated.data_type = _WITHIN, "RGBA"
        link(edge.outputs["Result"], coated.inputs["Factor"])
        link(paint.outputs["Color"], coated.inputs[6])
        link(coated.outputs[2], nodes["Principled BSDF"].inputs["Base Color"])
        never_bake(material.node_tree)
        holder = bpy.data.objects.new(f"thing{k}", bpy.data.meshes.new(f"thing{k}"))
        holder.data.materials.append(material)
        holder.pass_index = 0 if self._behind else 2 + k
        holder.visible_shadow = not self._behind
        self._scene.collection.objects.link(holder)
        return holder

    def _fill(self, holder: Any, thing: Thing) -> None:
        material = holder.data.materials[0]
        shader = material.node_tree.nodes["Principled BSDF"].inputs
        shader["Roughness"].default_value = thing.roughness
        shader["Metallic"].default_value = thing.metallic
        mesh = bpy.data.meshes.new(holder.name)
        mesh.vertices.add(len(thing.vertices))
        mesh.vertices.foreach_set("co", np.ascontiguousarray(to_blender(thing.vertices), np.float32).ravel())
        mesh.loops.add(thing.quads.size)
        mesh.loops.foreach_set("vertex_index", np.ascontiguousarray(thing.quads, np.int32).ravel())
        mesh.polygons.add(len(thing.quads))
        mesh.polygons.foreach_set("loop_start", np.arange(len(thing.quads), dtype=np.int32) * 4)
        mesh.update(calc_edges=True)
        mesh.shade_smooth()
        colour = mesh.attributes.new(_PAINT, "FLOAT_COLOR", "CORNER")
        filled = np.ones((thing.quads.size, 4), np.float32)
        each = thing.paint if thing.paint.ndim == 3 else np.repeat(thing.paint[:, None], 4, axis=1)
        filled[:, :3] = each.reshape(-1, 3)
        colour.data.foreach_set("color", filled.ravel())
        within = mesh.attributes.new(_WITHIN, "FLOAT", "POINT")
        coat = thing.coat or Coat(np.zeros(3), np.full(len(thing.vertices), -0.1))
        within.data.foreach_set("value", np.ascontiguousarray(coat.within, np.float32))
        nodes = material.node_tree.nodes
        nodes["half"].inputs[1].default_value, nodes["wave"].inputs[1].default_value = 0.5 * coat.width, coat.width
        edge = nodes["edge"].inputs
        edge["From Min"].default_value = 0.5 * coat.width - _EDGE
        edge["From Max"].default_value = 0.5 * coat.width + _EDGE
        nodes[_WITHIN].inputs[7].default_value = (*coat.colour, 1)
        mesh.materials.append(material)
        old, holder.data = holder.data, mesh
        bpy.data.meshes.remove(old)

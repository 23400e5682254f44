"""The skin material: built once, then only its numbers change (a changed number costs 1 ms, a new material 6 ms)."""

from typing import Any

import bpy
import numpy as np

from handaug.render.scene import Skin

__all__ = ["KIND_ATTRIBUTE", "REST_ATTRIBUTE", "SkinMaterial"]

REST_ATTRIBUTE = "rest"
"""Vertex attribute with the positions of the hand at rest (metres): textures are read there and so move with the
skin."""


KIND_ATTRIBUTE = "kind"
"""Vertex attribute: x is 1 on nails, y is 1 on the palm and the pads of the fingers."""


class SkinMaterial:
    """Burley subsurface skin with blotches (colour), creases and pores (bump), a paler palm, and nails.

    Burley costs a third of random-walk subsurface and denoises better at few samples; at these sizes the two look
    alike.
    """

    def __init__(self) -> None:
        self.material = bpy.data.materials.new("skin")
        self.material.use_nodes = True
        self._tree = self.material.node_tree
        shader = self._tree.nodes["Principled BSDF"]
        shader.subsurface_method = "BURLEY"
        self._shader = shader.inputs
        self._shader["Subsurface Weight"].default_value = 1.0
        self._shader["Subsurface Radius"].default_value = (1.0, 0.35, 0.2)

        shifted = self._new("ShaderNodeVectorMath", operation="ADD")
        self._link(self._attribute(REST_ATTRIBUTE).outputs["Vector"], shifted.inputs[0])
        self._offset = shifted.inputs[1]
        kind = self._new("ShaderNodeSeparateXYZ")
        self._link(self._attribute(KIND_ATTRIBUTE).outputs["Vector"], kind.inputs[0])
        nail, palm = kind.outputs[0], kind.outputs[1]

        spread = self._new("ShaderNodeMapRange")
        spread.inputs["From Min"].default_value, spread.inputs["From Max"].default_value = 0.3, 0.7
        self._link(self._noise(shifted, scale=45.0, detail=1.0), spread.inputs["Value"])
        blotches = self._mix(spread.outputs["Result"], "RGBA", None, None)
        self._pale, self._red = blotches.inputs[6], blotches.inputs[7]
        with_palm = self._mix(palm, "RGBA", blotches.outputs[2], None)
        self._palm = with_palm.inputs[7]
        with_nails = self._mix(nail, "RGBA", with_palm.outputs[2], None)
        self._nail = with_nails.inputs[7]
        self._link(with_nails.outputs[2], self._shader["Base Color"])

        gloss = self._mix(nail, "FLOAT", None, None)
        self._roughness, gloss.inputs[3].default_value = gloss.inputs[2], 0.28
        self._link(gloss.outputs[0], self._shader["Roughness"])

        bump = self._new("ShaderNodeBump")
        self._height = bump.inputs["Distance"]
        self._link(self._noise(shifted, scale=420.0, detail=2.0), bump.inputs["Height"])
        smooth = self._mix(nail, "FLOAT", None, None)
        smooth.inputs[2].default_value, smooth.inputs[3].default_value = 1.0, 0.05
        self._link(smooth.outputs[0], bump.inputs["Strength"])
        self._link(bump.outputs["Normal"], self._shader["Normal"])

    def wear(self, skin: Skin) -> None:
        """Give the material the numbers of this skin."""
        color = np.array(skin.color)
        k = skin.blotch
        self._pale.default_value = (*(color * (1 + k * np.array([0.15, 0.35, 0.35]))), 1)
        self._red.default_value = (*(color * (1 - k * np.array([0.15, 0.45, 0.40]))), 1)
        self._palm.default_value = (*skin.palm, 1)
        self._nail.default_value = (*skin.nail, 1)
        self._offset.default_value = skin.offset
        self._height.default_value = skin.bump
        self._roughness.default_value = skin.roughness
        self._shader["Specular IOR Level"].default_value = skin.specular
        self._shader["Subsurface Scale"].default_value = skin.subsurface

    def _new(self, kind: str, **settings: str) -> Any:
        node = self._tree.nodes.new(kind)
        for name, value in settings.items():
            setattr(node, name, value)
        return node

    def _link(self, source: Any, target: Any) -> None:
        self._tree.links.new(source, target)

    def _attribute(self, name: str) -> Any:
        return self._new("ShaderNodeAttribute", attribute_name=name)

    def _noise(self, where: Any, *, scale: float, detail: float) -> Any:
        node = self._new("ShaderNodeTexNoise")
        node.inputs["Scale"].default_value, node.inputs["Detail"].default_value = scale, detail
        self._link(where.outputs[0], node.inputs["Vector"])
        return node.outputs["Fac"]

    def _mix(self, factor: Any, kind: str, a: Any | None, b: Any | None) -> Any:
        """A mix node. Sockets: 2 and 3 are its two numbers, 6 and 7 its two colours; output 0 the number, 2 the
        colour."""
        node = self._new("ShaderNodeMix", data_type=kind)
        self._link(factor, node.inputs["Factor"])
        for source, socket in ((a, 6), (b, 7)):
            if source is not None:
                self._link(source, node.inputs[socket])
        return node

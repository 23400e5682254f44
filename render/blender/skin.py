"""The skin material: built once, then only its numbers change (a changed number costs 1 ms, a new material 6 ms)."""

from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from handaug.render.blender.repeatable import never_bake
from handaug.render.relighting import SHARES_PASS, SKIN_PASS
from handaug.render.scene import SKIN_LAYOUTS, Skin
from handaug.render.skin_maps import SkinMaps
from handaug.render.surface import NAIL_RAMP

__all__ = ["KIND_ATTRIBUTE", "REST_ATTRIBUTE", "TENSION_ATTRIBUTE", "SkinMaterial"]

REST_ATTRIBUTE = "rest"
"""Vertex attribute with the positions of the hand at rest (metres): textures are read there and so move with the
skin."""


KIND_ATTRIBUTE = "kind"
"""Vertex attribute: x is the ramp across the edges of the nails (`handaug.render.surface`), y is 1 on the palm and the
pads of the fingers, z where veins and tendons show."""


TENSION_ATTRIBUTE = "tension"
"""Vertex attribute: what the pose leaves of wrinkles and of tendons (`handaug.render.tension`)."""


_IN_CREASES, _OVER_VEINS, _DARK, _FLUSH = (0.72, 0.58, 0.55), (0.82, 0.91, 0.96), (0.82, 0.76, 0.76), (0.97, 0.82, 0.8)
"""Factors on the skin's colour where a map is 1."""
_CREASE_DEPTH, _VEIN_HEIGHT, _TENDON_HEIGHT = 0.0007, 0.0006, 0.0009
"""Metres."""
_RELIEF = 1100.0
"""Waves to the metre of the finest relief: at 420 dark skin under a lamp looked like a lizard's."""


_NAIL_EDGE = 0.0005
"""Metres either way over which a nail becomes skin."""


class SkinMaterial:
    """Burley subsurface skin with blotches, lines, veins, tendons, pores, a paler palm, nails, and a film of water.

    Lines, veins and tendons are read from maps at the skin's place at rest: colour and bump, tendons bump alone.

    Burley costs a third of random-walk subsurface and denoises better at few samples; at these sizes the two look
    alike.
    """

    def __init__(self, maps: SkinMaps) -> None:
        self.material = bpy.data.materials.new("skin")
        self.material.use_nodes = True
        self._tree = self.material.node_tree
        shader = self._tree.nodes["Principled BSDF"]
        shader.subsurface_method = "BURLEY"
        self._shader = shader.inputs
        self._shader["Subsurface Weight"].default_value = 1.0
        self._shader["Subsurface Radius"].default_value = (1.0, 0.35, 0.2)
        self._shader["Coat Roughness"].default_value = 0.22

        rest = self._attribute(REST_ATTRIBUTE).outputs["Vector"]
        shifted = self._new("ShaderNodeVectorMath", operation="ADD")
        self._link(rest, shifted.inputs[0])
        self._offset = shifted.inputs[1]
        kind = self._new("ShaderNodeSeparateXYZ")
        self._link(self._attribute(KIND_ATTRIBUTE).outputs["Vector"], kind.inputs[0])
        plate = self._new("ShaderNodeMapRange", interpolation_type="SMOOTHSTEP")
        plate.inputs["From Min"].default_value = 0.5 - _NAIL_EDGE / NAIL_RAMP
        plate.inputs["From Max"].default_value = 0.5 + _NAIL_EDGE / NAIL_RAMP
        self._link(kind.outputs[0], plate.inputs["Value"])
        nail, palm = plate.outputs["Result"], kind.outputs[1]

        spread = self._new("ShaderNodeMapRange")
        spread.inputs["From Min"].default_value, spread.inputs["From Max"].default_value = 0.3, 0.7
        self._link(self._noise(shifted, scale=45.0, detail=3.0), spread.inputs["Value"])
        blotches = self._mix(spread.outputs["Result"], "RGBA", None, None)
        self._pale, self._red = blotches.inputs[6], blotches.inputs[7]
        with_palm = self._mix(palm, "RGBA", blotches.outputs[2], None)
        self._palm = with_palm.inputs[7]
        tension = self._new("ShaderNodeSeparateXYZ")
        self._link(self._attribute(TENSION_ATTRIBUTE).outputs["Vector"], tension.inputs[0])
        *lines, dark = self._read(maps, rest, palm)
        crease, vein, tendon = (self._times(line) for line in lines)
        folded, veined = (
            self._times(own.outputs[0], shown) for own, shown in ((crease, tension.outputs[0]), (vein, kind.outputs[2]))
        )
        raised = self._times(tension.outputs[1], kind.outputs[2])
        strung = self._times(tendon.outputs[0], raised.outputs[0])
        self._crease, self._vein, self._tendon = crease.inputs[1], vein.inputs[1], tendon.inputs[1]
        drawn = with_palm.outputs[2]
        spots = self._mix(palm, "RGBA", None, None)
        spots.inputs[6].default_value, spots.inputs[7].default_value = (*_DARK, 1), (*_FLUSH, 1)
        self._weights = (spread.outputs["Result"], palm, nail)
        for amount, tint in ((folded.outputs[0], _IN_CREASES), (veined.outputs[0], _OVER_VEINS)):
            tinted = self._mix(amount, "RGBA", drawn, None, blend_type="MULTIPLY")
            tinted.inputs[7].default_value = (*tint, 1)
            drawn = tinted.outputs[2]
        drawn = self._mix(dark, "RGBA", drawn, spots.outputs[2], blend_type="MULTIPLY").outputs[2]
        with_nails = self._mix(nail, "RGBA", drawn, None)
        self._nail = with_nails.inputs[7]
        self._link(with_nails.outputs[2], self._shader["Base Color"])

        gloss = self._mix(nail, "FLOAT", None, None)
        self._roughness, gloss.inputs[3].default_value = gloss.inputs[2], 0.28
        self._link(gloss.outputs[0], self._shader["Roughness"])

        bump = self._new("ShaderNodeBump")
        self._height = bump.inputs["Distance"]
        relief = self._noise(shifted, scale=_RELIEF, detail=2.0)
        self._depths = []
        for amount in (folded.outputs[0], veined.outputs[0], strung.outputs[0]):
            added = self._new("ShaderNodeMath", operation="MULTIPLY_ADD")
            self._depths.append(added.inputs[1])
            self._link(amount, added.inputs[0])
            self._link(relief, added.inputs[2])
            relief = added.outputs[0]
        self._link(relief, bump.inputs["Height"])
        smooth = self._mix(nail, "FLOAT", None, None)
        smooth.inputs[2].default_value, smooth.inputs[3].default_value = 1.0, 0.05
        self._link(smooth.outputs[0], bump.inputs["Strength"])
        self._link(bump.outputs["Normal"], self._shader["Normal"])

    def wear(self, skin: Skin) -> None:
        """Give the material the numbers of this skin."""
        for socket, paint in zip((self._pale, self._red, self._palm, self._nail), skin.paints, strict=True):
            socket.default_value = (*paint, 1)
        self._offset.default_value = skin.offset
        self._height.default_value = skin.bump
        for depth, metres in zip(self._depths, (-_CREASE_DEPTH, _VEIN_HEIGHT, _TENDON_HEIGHT), strict=True):
            depth.default_value = metres / skin.bump
        self._roughness.default_value = skin.roughness
        self._shader["Specular IOR Level"].default_value = skin.specular
        self._shader["Subsurface Scale"].default_value = skin.subsurface
        self._crease.default_value = 0.75 * skin.crease
        self._vein.default_value = skin.vein
        self._tendon.default_value = skin.tendon
        self._shader["Coat Weight"].default_value = skin.wet
        self._corner_at.default_value[0] = self._corner + skin.layout / SKIN_LAYOUTS

    def for_relighting(self, layer: Any) -> None:
        """Leave subsurface scattering to `handaug.render.relighting`, and let the view layer tell what that needs: how
        much of a pixel is skin (`SKIN_PASS`), and how much of it red, palm and nail (`SHARES_PASS`)."""
        never_bake(self._tree)  # which sets the weight to zero
        blotch, palm, nail = self._weights
        shares = None
        for factor, own in ((blotch, (1, 0, 0, 1)), (palm, (0, 1, 0, 1)), (nail, (0, 0, 1, 1))):
            mixed = self._mix(factor, "RGBA", shares, None)
            if shares is None:
                mixed.inputs[6].default_value = (0, 0, 0, 1)
            mixed.inputs[7].default_value = own
            shares = mixed.outputs[2]
        self._link(shares, self._told(layer, SHARES_PASS, "COLOR").inputs["Color"])
        self._told(layer, SKIN_PASS, "VALUE").inputs["Value"].default_value = 1.0

    def _told(self, layer: Any, name: str, kind: str) -> Any:
        """A node whose input becomes a pass of this name."""
        told = layer.aovs.add()
        told.name, told.type = name, kind
        node = self._new("ShaderNodeOutputAOV")
        node.aov_name = name
        return node

    def _read(self, maps: SkinMaps, rest: Any, palm: Any) -> tuple[Any, Any, Any, Any]:
        """Sockets of the depth of creases, the height of veins and of tendons, and darkness over knuckles.

        The maps lie side by side in one texture, back and palm of each layout, so that it is read once.
        """
        tile = 0.5 / SKIN_LAYOUTS
        side = self._new("ShaderNodeMath", operation="GREATER_THAN")
        side.inputs[1].default_value = 0.5
        self._link(palm, side.inputs[0])
        corner = self._new("ShaderNodeVectorMath", operation="MULTIPLY_ADD")
        corner.inputs[1].default_value = (tile, 0, 0)
        self._corner = -tile * maps.low[0] / maps.side
        self._corner_at = corner.inputs[2]
        self._corner_at.default_value[1] = -maps.low[1] / maps.side
        self._link(side.outputs[0], corner.inputs[0])
        place = self._new("ShaderNodeVectorMath", operation="MULTIPLY_ADD")
        place.inputs[1].default_value = (tile / maps.side, 1 / maps.side, 0)
        self._link(rest, place.inputs[0])
        self._link(corner.outputs[0], place.inputs[2])
        texture = self._new("ShaderNodeTexImage", extension="CLIP")
        pairs = zip(maps.back, maps.palm, strict=True)
        texture.image = _as_image("lines", np.concatenate([one for pair in pairs for one in pair], 1))
        self._link(place.outputs[0], texture.inputs[0])
        lines = self._new("ShaderNodeSeparateColor")
        self._link(texture.outputs["Color"], lines.inputs[0])
        crease, vein, dark = lines.outputs
        return crease, vein, texture.outputs["Alpha"], dark

    def _times(self, value: Any, other: Any | None = None) -> Any:
        node = self._new("ShaderNodeMath", operation="MULTIPLY")
        for source, socket in ((value, node.inputs[0]), (other, node.inputs[1])):
            if source is not None:
                self._link(source, socket)
        return node

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

    def _mix(self, factor: Any, kind: str, a: Any | None, b: Any | None, **settings: str) -> Any:
        """A mix node. Sockets: 2 and 3 are its two numbers, 6 and 7 its two colours; output 0 the number, 2 the
        colour."""
        node = self._new("ShaderNodeMix", data_type=kind, **settings)
        self._link(factor, node.inputs["Factor"])
        for source, socket in ((a, 6), (b, 7)):
            if source is not None:
                self._link(source, node.inputs[socket])
        return node


def _as_image(name: str, pixels: NDArray[np.float32]) -> Any:
    image = bpy.data.images.new(name, pixels.shape[1], pixels.shape[0], alpha=True, float_buffer=True, is_data=True)
    image.alpha_mode = "CHANNEL_PACKED"  # the fourth is a map like the others
    image.pixels.foreach_set(np.ascontiguousarray(pixels[::-1]).ravel())
    image.update()
    return image

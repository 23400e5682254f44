"""Pictures that repeat to the last bit.

Of one and the same scene Cycles bakes the place of an object into its mesh on some renders and not on others, while
data persist between renders (seen with Blender 5.0: a quarter of the renders of one scene, at random). Normals and
barycentrics then differ in their last bits, and a pixel in 100,000 by a grey level. A mesh that may scatter light below
its surface is never baked.
"""

from typing import Any

__all__ = ["never_bake"]

_NOTHING = "nothing"


def never_bake(tree: Any) -> None:
    """Tell Cycles that a material may scatter light below its surface, by a weight that is always zero.

    Args:
        tree: The material's nodes, with a Principled BSDF among them.
    """
    zero = tree.nodes.new("ShaderNodeAttribute")
    zero.attribute_name = _NOTHING  # no mesh has it; a plain 0 would be folded away
    tree.links.new(zero.outputs["Fac"], tree.nodes["Principled BSDF"].inputs["Subsurface Weight"])

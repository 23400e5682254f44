"""What Blender itself sees, for tests/test_render.py. A script of its own: bpy stays out of the test process.

python blender_truth.py OUT.npz draws, for hands of both sides before several cameras (one with its principal point
off the middle),

* an emissive ball at each joint, one at a time, with no hand there: `balls` (S, 21, H, W) alpha;
* the hand's object index and depth at pixel centres: `index`, `depth` (S, H, W);
* the backdrop's panorama straight through the camera: `panorama` (H, W, 3), beside ours: `looked_up`;
* object index and depth of pictures with two hands, with things held, worn and in front: `full_index`, `full_depth`;
* a green card with a red coat, striped and not: `coats` (2, H, W, 3), with the width of their stripes, `coat_widths`;
* pictures traced in the window that they need, and as a whole: `windowed`, `whole` (S, H, W, 4), not denoised;
* one of them denoised by Cycles, in a window, `denoised` (h, w, 4), and by our own call of OIDN, `denoised_here`;
* one picture with things, drawn again and again, its meshes filled anew each time: `repeats` (R, H, W, 4);
* a palm with the lines of each layout: `palms` (S, H, W, 4);
* a back with the wrinkles and veins of each layout, then as a child's and an old one's, without and with tendons:
  `backs` (S, H, W, 4);
* that back as if the fingers were straight, then as if they were bent, its mesh as it is: `taut` (2, H, W, 4), with
  the pixels of its vertices, `taut_at` (V, 2), and what is left of wrinkles and tendons, `taut_left` (2, V, 2);
* a white card under each kind of light: `card` radiance, where `lighting.measure` says `card_expected`.
"""

import math
import sys
from dataclasses import replace

import bpy  # noqa: TID251
import numpy as np
from full_scenes import FULL
from numpy.typing import NDArray

from handaug.data_specs.camera import project
from handaug.render.appearance import sample_appearance
from handaug.render.blender.camera import aim_camera, to_blender
from handaug.render.blender.session import BlenderSession
from handaug.render.config import RenderConfig
from handaug.render.hand import HandModel
from handaug.render.lighting import Light, measure, rotation_matrix
from handaug.render.pose_prior import HandPose
from handaug.render.posing import sample_hand
from handaug.render.scene import SKIN_LAYOUTS, Coat, HandScene, Skin, Thing
from handaug.render.surface import surface_of
from handaug.render.window import Window
from handaug.render.worker import claim_core

SIZE = 64


def scenes(model: HandModel) -> list[tuple[HandScene, NDArray[np.float32]]]:
    """(scene, joints): two left and two right hands, the last of each with an off-centre camera."""
    found = []
    for hands in ("left", "right"):
        config = RenderConfig(poses=8, size=SIZE, hands=hands, seed=7)
        for pose in (0, 1):
            hand = sample_hand(config, model, pose)
            scene = hand.scene
            if pose == 1:
                camera = scene.intrinsics.copy()
                camera[0, 2] += 5.3
                camera[1, 2] -= 3.7
                scene = replace(scene, intrinsics=camera)
            found.append((scene, hand.labels["keypoints_3d"]))
    return found


def full_scenes(model: HandModel) -> list[HandScene]:
    """Pictures with everything that may be in one; `tests/test_render.py` labels the same."""
    return [sample_hand(config, model, pose).scene for config in FULL for pose in range(2)]


def glowing_ball() -> bpy.types.Object:
    material = bpy.data.materials.new("glow")
    material.use_nodes = True
    tree = material.node_tree
    glow = tree.nodes.new("ShaderNodeEmission")
    tree.links.new(glow.outputs[0], tree.nodes["Material Output"].inputs["Surface"])
    bpy.ops.mesh.primitive_uv_sphere_add(segments=24, ring_count=16, radius=1.0)
    ball = bpy.context.object
    ball.data.materials.append(material)
    return ball


def white_card(strength: float) -> bpy.types.Object:
    bpy.ops.mesh.primitive_plane_add(size=0.02, location=(0, 0, -1))
    card = bpy.context.object
    material = bpy.data.materials.new("card")
    material.use_nodes = True
    tree = material.node_tree
    diffuse = tree.nodes.new("ShaderNodeBsdfDiffuse")
    diffuse.inputs["Color"].default_value = (strength, strength, strength, 1)
    tree.links.new(diffuse.outputs[0], tree.nodes["Material Output"].inputs["Surface"])
    card.data.materials.append(material)
    return card


def main(out: str) -> None:
    claim_core()
    model = HandModel.load()
    session = BlenderSession(surface_of(model), passes=("z", "object_index"))
    scene = session.scene
    found: dict[str, list[NDArray[np.float32]]] = {
        name: [] for name in ("index", "depth", "balls", "joints", "cameras")
    }
    appearance = sample_appearance(0, 0, environments=session.environments)
    light = measure(appearance, session.lighting(appearance), 3)

    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BOX", 0.01  # rays through pixel centres
    hands = scenes(model)
    for hand, joints in hands:
        session.render(hand, appearance, light, samples=1, seed=0)
        passes = session.shoot(1, 0)
        found["index"].append(passes["Object Index"][..., 0])
        found["depth"].append(passes["Depth"][..., 0])
        found["joints"].append(joints)
        found["cameras"].append(hand.intrinsics)

    for name in ("full_index", "full_depth"):
        found[name] = []
    for full in full_scenes(model):
        session.render(full, appearance, light, samples=1, seed=0)
        passes = session.shoot(1, 0)
        found["full_index"].append(passes["Object Index"][..., 0])
        found["full_depth"].append(passes["Depth"][..., 0])
    found["windowed"], found["whole"] = in_windows(
        session, [hands[0][0], *(replace(full, surface=None) for full in full_scenes(model))]
    )
    cleaned = denoised(session, hands[0][0])
    found["repeats"] = draw_again(session, full_scenes(model)[2])
    skin = replace(appearance.skin, crease=1.0, vein=0.6)
    layouts, adult = [replace(skin, layout=k) for k in range(SKIN_LAYOUTS)], 2 / 3
    found["palms"] = worn(session, hands[0][0], layouts, [adult] * SKIN_LAYOUTS)
    strung = [replace(layouts[0], tendon=strength) for strength in (0.0, 1.0)]
    skins, ages = [*layouts, *layouts[:1] * 2, *strung], [*[adult] * SKIN_LAYOUTS, 1 / 3, 1.0, adult, adult]
    found["backs"] = worn(session, hands[3][0], skins, ages)
    taut = taut_truth(session, hands[3][0], skin)
    session.render(hands[0][0], appearance, light, samples=1, seed=0)  # nothing but a hand

    scene.cycles.filter_width = 1.0
    session.hand.hide_render = True
    ball = glowing_ball()
    for hand, joints in hands:
        aim_camera(scene, hand.intrinsics, SIZE)
        for joint in joints:
            ball.location = to_blender(joint)
            ball.scale = [1.2 * joint[2] / hand.intrinsics[0, 0]] * 3
            found["balls"].append(session.shoot(64, 0)["Combined"][..., 3])
    bpy.data.objects.remove(ball)
    arrays = {name: np.array(values) for name, values in found.items()}
    arrays["balls"] = arrays["balls"].reshape(len(hands), -1, SIZE, SIZE)
    np.savez(out, **arrays, **cleaned, **taut, **panorama_truth(session), **coat_truth(session), **card_truth(session))


def worn(session: BlenderSession, hand: HandScene, skins: list[Skin], ages: list[float]) -> list[NDArray[np.float32]]:
    """A hand in skins, at ages; by the same paths, so that only what it wears tells them apart."""
    appearance = sample_appearance(0, 0, environments=session.environments)
    light = measure(appearance, session.lighting(appearance), 3)
    return [
        session.render(replace(hand, age=age), replace(appearance, skin=skin), light, samples=16, seed=4)
        for skin, age in zip(skins, ages, strict=True)
    ]


def taut_truth(session: BlenderSession, hand: HandScene, skin: Skin) -> dict[str, NDArray[np.float32]]:
    """See the module's head."""
    joints = ("mcp", "pip", "dip")
    bent = {f"{finger}_{joint}_flexion": 70.0 for finger in ("index", "middle", "ring", "little") for joint in joints}
    poses = [HandPose.from_degrees(), HandPose.from_degrees(**bent)]
    plain = replace(skin, crease=1.5, tendon=1.0)
    left = surface_of(HandModel.load()).tension
    return {
        "taut": np.concatenate([worn(session, replace(hand, pose=pose), [plain], [2 / 3]) for pose in poses]),
        "taut_at": project(hand.intrinsics, hand.vertices),
        "taut_left": np.stack([left.of(pose) for pose in poses]),
    }


def in_windows(session: BlenderSession, scenes: list[HandScene]) -> tuple[list[NDArray[np.float32]], ...]:
    """Each scene, also at a size whose shares of a window are no binary fractions, in part and as a whole."""
    part, whole = [], []
    sizes = session.scene.cycles.pixel_filter_type, session.scene.cycles.filter_width
    session.scene.cycles.pixel_filter_type, session.scene.cycles.filter_width = "BLACKMAN_HARRIS", 1.5
    for hand in scenes:
        scale = np.diag([50 / hand.size, 50 / hand.size, 1]).astype(np.float32)
        small = replace(hand, size=50, intrinsics=scale @ hand.intrinsics)
        window = session._place(small)
        part.append(window.paste(session.shoot(2, 7, window)["Combined"]))
        whole.append(session.shoot(2, 7)["Combined"])
    session.scene.cycles.pixel_filter_type, session.scene.cycles.filter_width = sizes
    return part, whole


def denoised(session: BlenderSession, hand: HandScene) -> dict[str, NDArray[np.float32]]:
    """What Cycles makes of a picture with its own call of OIDN, and what `Denoiser` does."""
    session._place(hand)
    window = Window(5, 42, 9, 64, SIZE)  # no multiples of what OIDN works in
    raw = session.shoot(4, 3, window)
    clean = session._denoise(raw["Combined"][..., :3], raw["Denoising Albedo"], raw["Denoising Normal"])
    cycles = session.scene.cycles
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    cycles.denoising_quality, cycles.denoising_prefilter = "FAST", "NONE"
    theirs = session.shoot(4, 3, window)["Combined"]
    cycles.use_denoising = False
    return {"noisy": raw["Combined"], "denoised": theirs, "denoised_here": clean}


def draw_again(session: BlenderSession, scene: HandScene) -> list[NDArray[np.float32]]:
    """The radiance of one scene, twelve times from new meshes."""
    found = []
    for _ in range(12):
        session._placed = None
        session._things.place(())
        session._behind.place(())
        session._place(scene)
        found.append(session.shoot(2, 7)["Combined"])
    return found


def panorama_truth(session: BlenderSession) -> dict[str, NDArray[np.float64]]:
    """The lighting panorama as the camera sees it with a 60 degree lens, and the same rays by `look_up`."""
    focal = SIZE / 2 / math.tan(math.radians(30))
    middle = (SIZE - 1) / 2
    camera = np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1]], np.float32)
    seen, ours = [], []
    session.scene.render.film_transparent = False
    for number in (1, 6):
        appearance = sample_appearance(3, number, environments=session.environments)
        panorama = session.surrounding(appearance)
        aim_camera(session.scene, camera, SIZE)
        session._light(appearance, Light(1.0, (0.0, 0.0), 1.0, (1.0, 1.0, 1.0)), (0, 0, 1))
        seen.append(session.shoot(16, 0)["Combined"][..., :3])
        y, x = np.mgrid[:SIZE, :SIZE]
        rays = np.stack([(x - middle) / focal, (y - middle) / focal, np.ones((SIZE, SIZE))], -1)
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        ours.append(panorama.radiance(rays @ rotation_matrix(appearance.rotation).T))
    session.scene.render.film_transparent = True
    return {"panorama": np.array(seen), "looked_up": np.array(ours)}


def coat_truth(session: BlenderSession) -> dict[str, NDArray[np.float64]]:
    """A card of 20 x 20 mm that fills the picture; the way to the coat's border is x, from the middle to the right."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.01
    aim_camera(session.scene, np.array([[3200, 0, 31.5], [0, 3200, 31.5], [0, 0, 1]], np.float32), SIZE)
    seen, widths = [], (0.0043, 1.0)
    for width in widths:
        coat = Coat(np.array([1.0, 0.0, 0.0]), corners[:, 0], width)
        vertices = np.column_stack([corners, np.ones(4)]).astype(np.float32)
        card = Thing(
            vertices, np.arange(4, dtype=np.int32)[None], np.array([[0, 1, 0]], np.float32), 1.0, 0.0, 0, 1, coat
        )
        session._things.place((card,))
        seen.append(session.shoot(16, 0)["Combined"][..., :3])
    session._things.place(())
    return {"coats": np.array(seen), "coat_widths": np.array(widths)}


def card_truth(session: BlenderSession) -> dict[str, NDArray[np.float64]]:
    """Radiance of a card that faces the camera under one lamp straight before it, for shares 0.5 and 1."""
    session.scene.world.node_tree.nodes["Background"].inputs["Strength"].default_value = 0.0
    white_card(1.0)
    camera = np.array([[3200, 0, 31.5], [0, 3200, 31.5], [0, 0, 1]], np.float32)
    got, expected = [], []
    for share in (0.5, 1.0):
        appearance = sample_appearance(0, 0, environments=session.environments)
        lamp = replace(
            appearance.lamps[0], direction=(0.0, 0.0, -1.0), side=0.05, distance=0.9, share=share, color=(1, 1, 1)
        )
        appearance = replace(appearance, lamps=(lamp,))
        light = replace(measure(appearance, session.lighting(appearance), 3), environment_strength=0.0)
        aim_camera(session.scene, camera, SIZE)
        session._light(appearance, light, (0, 0, 1))
        got.append(session.shoot(64, 0)["Combined"][28:36, 28:36, :3].mean())
        expected.append(share)
    return {"card": np.array(got), "card_expected": np.array(expected)}


if __name__ == "__main__":
    main(sys.argv[1])

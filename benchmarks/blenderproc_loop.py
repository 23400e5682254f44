"""The scenes of render_speed.py by BlenderProc 2.8, under an interpreter of its own.

    python -m venv bp && bp/bin/pip install bpy==4.2.0 blenderproc==2.8.0 "numpy<2" trimesh progressbar scikit-image \
        opencv-python-headless scipy
    python benchmarks/render_speed.py --parts blenderproc --blenderproc bp/bin/python

It needs Blender 4.2 (with 5.0 it fails: `Scene.node_tree` is gone) and expects Blender's own interpreter, into which it
installs packages; here its package is loaded without that, and its start done step by step. Everything else is
BlenderProc as it comes: samples as asked, Intel's denoiser, results read as arrays. The same vertices and cameras, the
panorama changes from picture to picture; a plain Burley skin.
"""

import json
import os
import sys
import time
import types
from importlib.util import find_spec

os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
os.environ["INSIDE_OF_THE_INTERNAL_BLENDER_PYTHON_ENVIRONMENT"] = "1"
import bpy  # noqa: E402, TID251
import numpy as np  # noqa: E402

package = types.ModuleType("blenderproc")
package.__path__ = list(find_spec("blenderproc").submodule_search_locations)  # type: ignore[union-attr, arg-type]
sys.modules["blenderproc"] = package
from blenderproc.python.camera import CameraUtility  # type: ignore[import-not-found]  # noqa: E402
from blenderproc.python.loader.HavenEnvironmentLoader import set_world_background_hdr_img  # type: ignore[import-not-found]  # noqa: E402, I001
from blenderproc.python.renderer import RendererUtility  # type: ignore[import-not-found]  # noqa: E402
from blenderproc.python.utility.Initializer import _Initializer, clean_up  # type: ignore[import-not-found]  # noqa: E402
from blenderproc.python.utility.SetupUtility import SetupUtility  # type: ignore[import-not-found]  # noqa: E402
from blenderproc.python.utility.Utility import reset_keyframes  # type: ignore[import-not-found]  # noqa: E402


def main(path: str) -> None:
    with np.load(path) as arrays:
        scenes = dict(arrays)
    SetupUtility.setup_utility_paths("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp")
    clean_up(clean_up_camera=True)
    bpy.context.scene.render.engine = "CYCLES"
    _Initializer.set_default_parameters()
    RendererUtility.set_max_amount_of_samples(int(scenes["samples"]))
    RendererUtility.set_noise_threshold(0)
    RendererUtility.set_cpu_threads(1)
    size = int(scenes["size"])

    mesh = bpy.data.meshes.new("hand")
    mesh.from_pydata(scenes["vertices"][0].tolist(), [], scenes["quads"].tolist())
    mesh.shade_smooth()
    skin = bpy.data.materials.new("skin")
    skin.use_nodes = True
    shader = skin.node_tree.nodes["Principled BSDF"]
    shader.subsurface_method = "BURLEY"
    shader.inputs["Base Color"].default_value = (0.45, 0.27, 0.18, 1)
    shader.inputs["Subsurface Weight"].default_value = 1
    shader.inputs["Subsurface Scale"].default_value = 0.0015
    mesh.materials.append(skin)
    hand = bpy.data.objects.new("hand", mesh)
    hand["category_id"] = 1
    bpy.context.scene.collection.objects.link(hand)
    lamps = []
    for k in range(2):
        lamp = bpy.data.objects.new(f"lamp{k}", bpy.data.lights.new(f"lamp{k}", "AREA"))
        lamp.data.size, lamp.data.energy, lamp.location = 0.2, 3, (0.3 - 0.6 * k, 0.5, 0)
        bpy.context.scene.collection.objects.link(lamp)
        lamps.append(lamp)

    def draw(k: int) -> None:
        vertices = scenes["vertices"][k] * np.array([1, -1, -1])
        mesh.vertices.foreach_set("co", np.ascontiguousarray(vertices, np.float32).ravel())
        mesh.update()
        set_world_background_hdr_img(str(scenes["panoramas"][k % len(scenes["panoramas"])]))
        reset_keyframes()
        CameraUtility.set_intrinsics_from_K_matrix(scenes["intrinsics"][k].astype(float), size, size)
        CameraUtility.add_camera_pose(np.eye(4))
        assert RendererUtility.render(verbose=False)["colors"][0].shape[:2] == (size, size)

    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    draw(0)
    core, wall, count = time.process_time(), time.perf_counter(), len(scenes["vertices"]) - 1
    for k in range(1, count + 1):
        draw(k)
    core, wall = time.process_time() - core, time.perf_counter() - wall
    os.dup2(kept, 1)
    print("\n" + json.dumps({"core_ms": 1e3 * core / count, "wall_ms": 1e3 * wall / count}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

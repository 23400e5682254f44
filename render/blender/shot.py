"""One picture by Cycles: settings, a window, passes read from the engine without a file.

With persistent data Cycles ignores changes of its own settings (samples, seed) until `scene.update_tag()`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bpy
import numpy as np
from cycles import CyclesRender, engine
from numpy.typing import NDArray

from handaug.data_specs.errors import WorkError
from handaug.render.window import Window

__all__ = ["quiet", "set_up_engine", "shoot"]

Floats = NDArray[np.float32]
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
def quiet() -> Iterator[None]:
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


def set_up_engine(scene: Any) -> None:
    """Cycles on one thread of the CPU, on nothing, neither denoised nor written."""
    CyclesRender.render = _render_and_keep
    scene.render.engine = "CYCLES"
    scene.render.film_transparent = True
    scene.render.use_persistent_data = True
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    scene.render.resolution_percentage = 100
    scene.render.use_compositing = scene.render.use_sequencer = False
    scene.render.use_border = scene.render.use_crop_to_border = True
    cycles = scene.cycles
    cycles.device = "CPU"
    cycles.use_denoising = cycles.use_adaptive_sampling = False
    cycles.max_bounces = 4
    cycles.sample_clamp_direct, cycles.sample_clamp_indirect = 20.0, 6.0


def shoot(scene: Any, samples: int, seed: int, window: Window) -> dict[str, Floats]:
    """Render a scene as it stands.

    Args:
        scene: Blender's, with the resolution of the whole picture set.
        samples: Per pixel.
        seed: Of the path tracer, 0..2^31-1.
        window: What part of the picture to trace.

    Returns:
        Each pass as (h, w, channels) of the window, first row up: the very values that the whole picture has there.
    """
    cycles, render = scene.cycles, scene.render
    cycles.samples, cycles.seed = samples + cycles.sample_offset, seed
    # Blender cuts off what is behind the point; a quarter of a pixel keeps rounding away from the border.
    render.border_min_x, render.border_max_x = ((x + 0.25) / window.size for x in (window.left, window.right))
    render.border_min_y, render.border_max_y = (1 - (y - 0.25) / window.size for y in (window.bottom, window.top))
    scene.update_tag()
    _passes.clear()
    with quiet():
        bpy.ops.render.render()
    if "Combined" not in _passes:
        raise WorkError("Blender drew nothing: run `handaug doctor`")
    return dict(_passes)

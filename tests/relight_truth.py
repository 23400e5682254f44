"""What relighting is compared with, for tests/test_relighting.py. A script of its own: bpy stays out of the tests.

python relight_truth.py OUT.npz draws one hand with something in it, 32 px, many samples, and stores

* `relit`, `direct` (3, H, W, 4): looks of one rig as sums of its lights, traced apart, and each rendered with all its
  lamps on at once. The material is the same (no subsurface), nothing is denoised or smoothed. The first look has a skin
  of its own, the others the skin that was traced; the third one lamp alone;
* `shares` (H, W, 4), `alpha` (H, W): how much of what is seen is skin of each paint, and how much is anything;
* `repeats` (R, H, W, 4): the same scene drawn again and again, its meshes filled anew each time;
* `memory` (2,): resident megabytes after 20 and after 60 traces.
"""

import sys
from dataclasses import replace

import numpy as np
from blender_truth import draw_again

from handaug.render.appearance import sample_appearance, sample_rig
from handaug.render.blender.session import BlenderSession
from handaug.render.config import RenderConfig
from handaug.render.hand import HandModel
from handaug.render.lighting import measure
from handaug.render.posing import sample_hand
from handaug.render.relighting import Guide, relight
from handaug.render.surface import surface_of
from handaug.render.worker import claim_core

SIZE = 32


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def main(out: str) -> None:
    claim_core()
    model = HandModel.load()
    session = BlenderSession(surface_of(model), relighting=True)
    config = RenderConfig(poses=8, size=SIZE, seed=2, occluders=True, occluder_kinds="held")
    hand = sample_hand(config, model, 5).scene  # one that the lone lamp shines on
    rig = sample_rig(2, 5, session.environments, {"photo": 1.0})
    looks = [
        replace(sample_appearance(2, 40 + k, environments=session.environments, rig=5), environment_share=0.6)
        for k in range(3)
    ]
    looks = [replace(x, lamps=(replace(x.lamps[0], share=0.5), replace(x.lamps[1], share=0.3))) for x in looks]
    looks[1] = replace(looks[1], skin=rig.skin)
    looks[2] = replace(
        looks[2], skin=rig.skin, environment_share=0.0, lamps=(looks[2].lamps[0], replace(looks[2].lamps[1], share=0.0))
    )
    session.scene.cycles.sample_clamp_direct = session.scene.cycles.sample_clamp_indirect = 0.0
    # The sum itself: neither smoothed nor denoised, and no light spread below the skin.
    plain = lambda self, values, cover: values  # noqa: E731
    smooth, Guide.smooth = Guide.smooth, plain  # type: ignore[method-assign]
    thin = replace(rig, skin=replace(rig.skin, subsurface=1e-9))
    denoise, session._denoise = session._denoise, lambda image, *_: image.copy()  # type: ignore[assignment]
    light = measure(rig, session.lighting(rig), 3)
    (traced,) = session.trace(hand, [(thin, light, 1)], samples=(160, 64))
    relit = [relight(traced, look) for look in looks]
    direct = []
    for look in looks:
        session.render(hand, look, measure(look, session.lighting(look), 3), samples=1, seed=9)
        direct.append(session.shoot(160, 9)["Combined"])

    Guide.smooth = smooth  # type: ignore[method-assign]
    session._denoise = denoise
    memory = []
    for k in range(60):
        session.trace(hand, [(rig, light, k)], samples=(2, 1))
        memory += [resident_mb()] if k in (19, 59) else []
    shares, alpha = traced.window.paste(traced.shares), traced.window.paste(traced.alpha)
    again = draw_again(session, hand)
    np.savez(out, relit=relit, direct=direct, shares=shares, alpha=alpha, memory=memory, repeats=again)


if __name__ == "__main__":
    main(sys.argv[1])

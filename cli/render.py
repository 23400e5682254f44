"""`handaug render`: paired hands, drawn by Blender."""

import shlex
from pathlib import Path
from typing import Any

import click

from handaug.cli.common import (
    FOLDER,
    OUT_FILE,
    RichProgress,
    Workspace,
    debug_option,
    overwrite_option,
    seed_option,
    workers_option,
    workspace_option,
)

__all__ = ["command", "command_of"]

_POSE_KINDS = "open=0.1,relaxed=0.11,fist=0.08,count=0.11,pinch=0.1,free=0.16,named=0.26,synergy=0.08"
"""`RenderConfig.pose_kinds`, written out so that `--help` need not load the pose prior; a test compares them."""


@click.command()
@click.argument("out", required=False, type=OUT_FILE)
@click.option(
    "--poses", metavar="N", type=int, default=2000, help="Poses; each is drawn in every one of its appearances."
)
@click.option(
    "--appearances", metavar="K", type=int, default=2, help="Images of each pose, each in another appearance."
)
@click.option(
    "--appearance-pool",
    metavar="M",
    type=int,
    default=500,
    help="Appearances (lighting, skin, background, camera) that the poses share; few poses use fewer.",
)
@click.option("--size", metavar="S", type=int, default=64, help="Side of the square images in pixels, 16 to 1024.")
@click.option("--channels", metavar="mono|rgb", default="mono", help="mono: a headset's grey camera; rgb: sRGB.")
@click.option(
    "--quality", metavar="draft|standard|high", default="standard", help="4, 8 or 32 light paths per pixel, denoised."
)
@click.option(
    "--direct",
    is_flag=True,
    help="Trace every image by itself. Without it, K of 4 or more are relit from one trace for each eight appearances "
    "(two at least): many times faster.",
)
@click.option("--hand-model", metavar="anny|mano", default="anny", help="mano needs --mano-dir and MANO's licence.")
@click.option("--mano-dir", metavar="DIR", type=FOLDER, help="Folder of MANO_RIGHT.pkl and MANO_LEFT.pkl.")
@click.option(
    "--hands",
    metavar="right|left|both|two",
    default="both",
    help="Which hands; both: half of each; two: a right and a left one in each image, each a row of its own.",
)
@click.option("--occluders/--no-occluders", default=False, help="Things held in the hand or standing before it.")
@click.option(
    "--occluder-kinds",
    metavar="MIX",
    default="none=1,held=2,front=1",
    help="Weights of none, held, front, hand (the other hand comes between), with --occluders.",
)
@click.option("--pose-kinds", metavar="MIX", default=_POSE_KINDS, help="Weights of the kinds of pose.")
@click.option(
    "--camera", metavar="MIX", default="uniform", help="Weights of uniform, egocentric, third-person, close-up."
)
@click.option(
    "--field-of-view",
    metavar="LOW:HIGH",
    default="",
    show_default="by --camera",
    help="Degrees across the frame, up to 70. A hand that would stand nearer than 12 cm gets a longer lens.",
)
@click.option(
    "--shape-spread",
    type=float,
    metavar="S",
    default=1.0,
    help="How much hands differ in shape: 1 as people do, 0 not at all. Ages: --ages.",
)
@click.option("--clothing", metavar="MIX", default="bare", help="Weights of bare, sleeve, glove, both.")
@click.option("--jewellery", metavar="MIX", default="none", help="Weights of none, ring, watch, both.")
@click.option(
    "--surfaces",
    metavar="MIX",
    default="none",
    help="Weights of none, plain, wood, cloth, tiles, stone: what the hand lies on or hovers over. Other than none "
    "alone: as with --direct.",
)
@click.option(
    "--environments",
    metavar="MIX",
    default="photo",
    help="Weights of photo (--hdris), room and sky (made by formula): what lights the hands and stands behind them.",
)
@click.option(
    "--lamps",
    metavar="MIX",
    default="",
    show_default="one or two",
    help="Weights of none, one, two: lamps beside the surroundings, which give the rest of the light.",
)
@click.option(
    "--exposures",
    metavar="LOW:HIGH",
    default="",
    show_default="by --sensor",
    help="Doublings of the light by which the exposure misses, drawn evenly.",
)
@click.option(
    "--ages",
    metavar="MIX",
    default="child=0.15,adult=0.425,old=0.425",
    help="Weights of child, adult, old: about 5 to 15 years, to 50, above. Not with --hand-model mano.",
)
@click.option(
    "--tones",
    metavar="MIX",
    default="light=1,medium=1,dark=1",
    help="Weights of light, medium, dark skin: thirds of the scale of tones.",
)
@click.option(
    "--sensor",
    metavar="standard|clean|rough",
    default="standard",
    help="clean: no noise, blur, vignetting; rough: also movement, defocus, casts, JPEG.",
)
@click.option(
    "--device",
    metavar="cpu|cuda|optix|hip|metal",
    default="cpu",
    help="What Blender traces on. A GPU: one process, or --workers as many as there are GPUs.",
)
@click.option("--depth", is_flag=True, help="Store depth images (metres).")
@click.option("--parts", is_flag=True, help="Store the segment of the hand that each pixel sees.")
@click.option("--normals", is_flag=True, help="Store surface normals (camera frame).")
@click.option("--uv", is_flag=True, help="Store texture coordinates.")
@click.option(
    "--backgrounds", metavar="DIR", type=FOLDER, help="Images to stand behind the hands.  [default: the panoramas]"
)
@click.option(
    "--hdris", metavar="DIR", type=FOLDER, help="Panoramas (.exr, .hdr) that light them.  [default: Blender's eight]"
)
@seed_option
@workers_option
@click.option(
    "--scheduler",
    metavar="ADDR",
    help="Use the Dask cluster of this scheduler (tcp://host:8786 or a scheduler file) in place of --workers; "
    "its workers must see OUT's folder.",
)
@workspace_option
@overwrite_option
@debug_option
def command(
    out: Path | None,
    workspace: Workspace,
    workers: int | None,
    scheduler: str | None,
    overwrite: bool,
    hdris: Path | None,
    backgrounds: Path | None,
    mano_dir: Path | None,
    **options: Any,
) -> None:
    """Render paired hands with exact labels to OUT, the workspace's renders.h5 by default.

    Each pose is drawn in K appearances from a shared pool; train, val and test (80/10/10) share neither poses nor
    appearances. Beside OUT lies a contact sheet (.png). A run that was stopped goes on with the same command.
    A MIX is one NAME, or weights NAME=WEIGHT,NAME=WEIGHT,... of what is drawn for each pose (environments, lamps,
    tones: appearance). LOW:HIGH are limits, between which every value is as likely.
    """
    from handaug.render.config import RenderConfig

    config = RenderConfig(
        **options,
        hdris=str(hdris) if hdris else None,
        backgrounds=str(backgrounds) if backgrounds else None,
        mano_dir=str(mano_dir) if mano_dir else None,
    )
    from handaug.render.job import render_dataset  # after the options are known to be right: it loads much

    place = out or workspace.renders
    render_dataset(
        config, place, workers=workers, scheduler=scheduler, overwrite=overwrite, progress=(shown := RichProgress())
    )
    shown.note(f"Done: {place} and its contact sheet {place.with_suffix('.png')}.")


def command_of(config: dict[str, Any]) -> str:
    """The command whose file has this config.

    Args:
        config: As a rendered file records it: of the user's own folders it says only that there was one.
    """
    words = ["handaug", "render", "OUT"]
    for option in command.params:
        value = config.get(option.name or "")
        if value is None or value is False or value == option.default:  # no flag is set by default
            continue
        words.append(option.opts[0])
        if not (isinstance(option, click.Option) and option.is_flag):
            words.append("DIR" if value is True else str(value))
    return shlex.join(words)

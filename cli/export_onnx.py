"""`handaug export-onnx`: a trained estimator for other runtimes."""

from pathlib import Path

import click

from handaug.cli.common import FOLDER, OUT_FILE, Workspace, debug_option, overwrite_option, workspace_option

__all__ = ["command"]


@click.command(short_help="Write a trained estimator as ONNX, checked against PyTorch.")
@click.argument("checkpoint", metavar="CKPT", type=FOLDER)
@click.argument("out", metavar="OUT", type=OUT_FILE)
@click.option(
    "--estimator",
    metavar="module:factory",
    help="Your own code that CKPT names; nothing a checkpoint names is imported unless you name it too.",
)
@overwrite_option
@workspace_option
@debug_option
def command(checkpoint: Path, out: Path, estimator: str | None, overwrite: bool, workspace: Workspace) -> None:
    """Write the estimator CKPT to OUT (.onnx), and check it with onnxruntime to 1e-4 before it gets its name.

    Input: images (N, C, H, W), float32 in [0, 1], any N. Output: keypoints (N, 21, 2) in pixels, and keypoints_3d
    (N, 21, 3) in metres relative to the wrist of a 3D estimator; the heatmap estimator gives its heatmaps. Needs
    handaug[onnx].
    """
    from handaug.data_specs.errors import InputError

    if out.is_dir():
        raise InputError(f"{out}: is a folder; give the name of a file to write")
    from handaug.models.export_onnx import export_onnx

    done = export_onnx(checkpoint, out, trust=estimator, overwrite=overwrite)
    click.echo(
        f"{done.path}: {', '.join(done.outputs)}; onnxruntime and PyTorch differ by at most {done.difference:.1e}"
    )

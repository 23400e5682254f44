"""Configuration of a dVAE run: which factors, which modalities, which weights, and defaults for every method."""

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from handaug.data_specs.errors import InputError
from handaug.models.dvae.modalities import MODALITIES
from handaug.models.fabric import check_precision
from handaug.models.hand_frame import ROOTS

__all__ = ["METHODS", "STAGES", "SUPERVISIONS", "DvaeConfig", "default_dvae_config", "stage_at"]

METHODS = ("dvae", "dvae-zu", "dvae-pose", "cross-modal")
"""What this package trains."""

SUPERVISIONS = ("supervised", "semi", "weak")
"""What the rows without labels give: nothing, their pose triples without images, or their images with viewpoints."""

STAGES = ("disentangle", "noise", "embed")
"""Steps of Algorithms 1 and 2."""


@dataclass(frozen=True)
class DvaeConfig:
    """What determines a run, together with the data.

    Where the paper states a number it stands here (section 4.1): Adam 1e-4, batch 32, d = 64 split 32/32, lambda 1 and
    0.01, beta 100 for synthesis and 0.01 for pose. Units and likelihoods are those of `modalities`.
    """

    method: str
    """One of `METHODS`."""
    steps: int
    """Optimiser steps in all stages together."""
    x: str
    """The modality that the whole z decodes to: image for synthesis, pose3d for pose estimation."""
    factors: tuple[tuple[str, int], ...]
    """The labelled factors y_i with the dimensions of their z_yi, any number of them; content must be the last."""
    z_u: int = 0
    """Dimensions of the factor that no label specifies; 0 for none. With it, the pose decoders see the whole z."""
    embed: tuple[str, ...] = ("image",)
    """The modalities that the embedding step encodes to the shared z (Eq. 4 for x itself, Eq. 8 for another one); for
    cross-modal the inputs."""
    outputs: tuple[tuple[str, float], ...] = ()
    """cross-modal only: the modalities y that z decodes to, each with its weight."""
    latent: int = 64
    """cross-modal only: dimensions d of z."""
    beta: float = 100.0
    """Weight of the KL divergence, in every step."""
    lambda_x: float = 1.0
    """Weight of log p(x | z)."""
    lambda_y: float = 0.01
    """Weight of each log p(y_i | z_yi)."""
    embed_share: float = 0.5
    """Share of the steps that go to the embedding step; the rest disentangles."""
    noise_epochs: int = 1
    """T2 of Algorithm 2: epochs of the noise loop nested in each disentangling epoch. 0 leaves the loop out."""
    alternating: bool = False
    """cross-modal only: one (input, output) pair at each step in turn, as Spurr et al. 2018, in place of the sum."""
    augment: bool = False
    """Turn images by -180..180 degrees and mirror half of them, with their labels."""
    labelled: float = 100.0
    """Percent of the train rows, the first ones of the file, that keep their labels."""
    supervision: str = "supervised"
    """What the other rows give; one of `SUPERVISIONS`."""
    root: str = "wrist"
    """Root of poses; "palm" to compare with published figures on RHD and STB."""
    width: int = 64
    """Channels of DCGAN's last hidden layer; the first has 8 * width (512 in DCGAN)."""
    batch_size: int = 32
    """Rows per step."""
    learning_rate: float = 1e-4
    """Adam, fixed."""
    precision: str = "32-true"
    """32-true or bf16-mixed."""
    seed: int = 0
    """Initial weights, order of the data, tags, motions and latent noise."""
    validate_every: int = 0
    """Steps between validations; 0 for ten in all."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"--method {self.method}: choose one of {', '.join(METHODS)}")
        self._check_shape()
        for name, least in (("steps", 1), ("batch_size", 2), ("width", 1), ("seed", 0), ("noise_epochs", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{_flag(name)} {getattr(self, name)}: must be at least {least}")
        check_precision(self.precision)
        for name in ("beta", "lambda_x", "lambda_y"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"--set {name}={getattr(self, name)}: must be 0 or more")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"--set learning_rate={self.learning_rate}: must be above 0")
        if not 0 < self.labelled <= 100:
            raise InputError(f"--set labelled={self.labelled:g}: is a percentage above 0, at most 100")
        if not 0 <= self.embed_share <= 1:
            raise InputError(f"--set embed_share={self.embed_share:g}: must lie in 0..1")
        if self.root not in ROOTS:
            raise InputError(f"--set root={self.root}: choose one of {', '.join(ROOTS)}")
        if self.supervision not in SUPERVISIONS:
            raise InputError(f"--set supervision={self.supervision}: choose one of {', '.join(SUPERVISIONS)}")
        if self.supervision != "supervised" and self.method != "dvae-pose":
            raise InputError(f"--set supervision={self.supervision}: only --method dvae-pose learns from such rows")
        if self.augment and self.x == "image" and self.method != "cross-modal":
            raise InputError("--set augment=true: turned images have no true background; only pose estimation turns")

    def _check_shape(self) -> None:
        """Factors, modalities and their combination."""
        names = [name for name, _ in (*self.factors, *self.outputs)] + [self.x, *self.embed]
        unknown = [name for name in names if name not in MODALITIES]
        if unknown:
            raise InputError(f"--set factors: {unknown[0]} is no modality; choose among {', '.join(MODALITIES)}")
        if self.x == "content" or "content" in self.embed:
            raise InputError("--set x/embed: content is a factor, not an input")
        if any(dims < 1 for _, dims in self.factors) or self.z_u < 0 or self.latent < 1:
            raise InputError("--set factors/z_u/latent: dimensions must be at least 1 (0 leaves z_u out)")
        kinds = [name for name, _ in self.factors]
        if len(set(kinds)) < len(kinds):
            raise InputError("--set factors: a modality can be a factor once")
        if "content" in kinds and (kinds.index("content") < len(kinds) - 1 or self.z_u):
            raise InputError("--set factors: content must be the last factor, and stands in place of z_u")
        if not self.embed:
            raise InputError("--set embed: give at least one modality; --set embed_share=0 leaves the step out")
        if self.method == "cross-modal":
            if self.factors or self.z_u:
                raise InputError("--method cross-modal: has one z without factors")
            if not _hold_pose({self.x, *(name for name, _ in self.outputs)}):
                raise InputError(f"--set outputs: {_POSES}, or nothing can be measured")
            return
        if self.outputs or self.alternating:
            raise InputError("--set outputs/alternating: belong to --method cross-modal")
        if len(self.factors) + bool(self.z_u) < 2:
            raise InputError("--set factors: give two or more, or one and z_u; one has nothing to disentangle from")
        if self.x in kinds:
            raise InputError(f"--set factors: {self.x} is x itself")
        if self.x == "image" and self.side_given:
            raise InputError(f"--set x=image: --method {self.method} estimates poses; --method dvae draws images")
        if self.x == "image" and not _hold_pose(kinds):
            raise InputError(f"--set factors: {_POSES}: images need a pose")
        if self.z_u and self.x != "image":
            raise InputError("--set z_u: is encoded from the image, so x must be the image")
        if (self.method == "dvae-zu") != bool(self.z_u):
            raise InputError("--set z_u: is what --method dvae-zu has and the others do not")

    @property
    def blocks(self) -> tuple[tuple[str, int], ...]:
        """The parts of z in order, with their dimensions."""
        if self.method == "cross-modal":
            return (("z", self.latent),)
        return (*self.factors, *((("u", self.z_u),) if self.z_u else ()))

    @property
    def appearance(self) -> str | None:
        """The block that holds the image's content; None where no image is decoded from one."""
        last = self.blocks[-1][0]
        return last if last in ("content", "u") else None

    @property
    def targets(self) -> tuple[tuple[str, float], ...]:
        """What is decoded from z, with the weight of each log-likelihood; x is the first."""
        y = self.outputs or tuple((name, self.lambda_y) for name, _ in self.factors)
        return ((self.x, self.lambda_x), *y)

    @property
    def side_given(self) -> bool:
        """Whether image encoders are told the side, as the paper's pose estimation is (section 4.4)."""
        return self.method in ("dvae-pose", "cross-modal")

    def to_json(self) -> dict[str, Any]:
        """A mapping of plain JSON values, equal for equal configs."""
        lists = {"factors": [list(f) for f in self.factors], "outputs": [list(o) for o in self.outputs]}
        return {**dataclasses.asdict(self), **lists, "embed": list(self.embed)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "DvaeConfig":
        """The inverse of `to_json`; unknown keys raise TypeError."""
        factors = tuple((str(name), int(dims)) for name, dims in stored["factors"])
        outputs = tuple((str(name), float(weight)) for name, weight in stored["outputs"])
        return cls(**{**stored, "factors": factors, "outputs": outputs, "embed": tuple(stored["embed"])})


_POSES = "give placed_pose or pose3d, or cpose and viewpoint"


def _hold_pose(names: Collection[str]) -> bool:
    """Whether 3DPose follows from these modalities."""
    return bool({"placed_pose", "pose3d"} & set(names)) or {"cpose", "viewpoint"} <= set(names)


def _flag(name: str) -> str:
    return {"steps": "--steps", "batch_size": "--batch-size", "seed": "--seed", "width": "--width"}.get(
        name, f"--set {name}"
    )


def default_dvae_config(method: str, rows: int, size: tuple[int, int], device: str) -> DvaeConfig:
    """The configuration of a bare `handaug disentangle --method METHOD`.

    Args:
        method: One of `METHODS`.
        rows: Training rows.
        size: Image height and width in pixels.
        device: "cpu" or a CUDA device.

    Returns:
        The paper's numbers. The paper gives no length: on a GPU 100 epochs, on a CPU what two cores do in about ten
        minutes, with a decoder a quarter as wide; for dvae-pose 128 rows at 1e-3, which take a label to 3DPose and
        back within 13 mm in as many steps as leave 28 mm with 32 rows.
    """
    if device == "cpu":
        # One step of 32 images of 64 x 64 takes about 0.3 s on two cores.
        steps = max(1, min(round(2000 * 64 * 64 / (size[0] * size[1])), 100 * rows // 32))
        common: dict[str, Any] = {"steps": steps, "width": 16}
    else:
        common = {"steps": max(2000, 100 * rows // 32), "precision": "bf16-mixed"}
    if method == "dvae":
        return DvaeConfig(method, x="image", factors=(("placed_pose", 32), ("content", 32)), **common)
    if method == "dvae-zu":
        return DvaeConfig(method, x="image", factors=(("placed_pose", 32),), z_u=32, **common)
    if method == "dvae-pose":
        factors = (("cpose", 32), ("viewpoint", 32))
        if device == "cpu":
            common |= {"steps": max(1, 3 * steps // 4), "batch_size": 128, "learning_rate": 1e-3, "embed_share": 0.4}
        return DvaeConfig(
            method, x="pose3d", factors=factors, embed=("pose3d", "image"), beta=0.01, augment=True, **common
        )
    # Noise of 10 grey levels and of 0.1 s at once, the two that the paper's beta and lambda stand for.
    return DvaeConfig(
        method, x="image", factors=(), outputs=(("pose3d", 1.0),), lambda_x=1e-4, beta=0.01, augment=True, **common
    )


def stage_at(config: DvaeConfig, epoch_steps: int, step: int) -> tuple[str, int]:
    """Which step of Algorithm 1 or 2 a training step is.

    Args:
        config: Of the run.
        epoch_steps: Steps of one pass over the rows that disentangle.
        step: From 0.

    Returns:
        One of `STAGES`, and how many steps of that stage came before. cross-modal has one stage, "embed".
    """
    if config.method == "cross-modal":
        return "embed", step
    disentangling = config.steps - round(config.embed_share * config.steps)
    if step >= disentangling:
        return "embed", step - disentangling
    if not config.z_u or not config.noise_epochs:
        return "disentangle", step
    # Algorithm 2 nests T2 noise epochs in each epoch; a run too short for that nests them in its first part.
    epoch = max(1, min(epoch_steps, disentangling // (1 + config.noise_epochs)))
    cycle, place = divmod(step, epoch * (1 + config.noise_epochs))
    if place < epoch:
        return "disentangle", cycle * epoch + place
    return "noise", cycle * epoch * config.noise_epochs + place - epoch

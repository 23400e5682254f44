"""What the dVAE can see and say: each modality with its likelihood, its unit and the range its network works in.

Every likelihood is a Gaussian of unit variance in the modality's own unit, so -log p = squared error / 2 + constant,
summed over all pixels or coordinates of a row and averaged over the rows of a batch. The weights of the paper
(lambda 1 and 0.01, beta 100 and 0.01) mean nothing without these units, which it does not state. A term with weight
lambda under a KL with weight beta is the ELBO of a Gaussian of standard deviation sqrt(beta / lambda) units:

* images in grey levels of 0..255: beta = 100 is a noise of 10 levels;
* poses in units of s (middle mcp to middle pip, about 44 mm): beta = 0.01 is a noise of 0.1 s, 4.4 mm;
* the viewpoint's entries in tenths: lambda = beta = 0.01 is a noise of 0.1, a turn of about 6 degrees, which moves a
  joint 1 s from the root by 0.1 s, the noise of the poses. In whole units the noise would be 1, more than the entries'
  own spread of 0.58: whatever a code said of them would cost more KL than the 1.5 nats that there are to save.

Images in 0..1 or poses in metres would make the same numbers collapse every latent dimension to its prior; poses in
millimetres would make the prior irrelevant.
"""

from dataclasses import dataclass

__all__ = ["MODALITIES", "POSE_PARTS", "Modality", "modality"]


@dataclass(frozen=True)
class Modality:
    """One kind of observation."""

    name: str
    """How configs name it."""
    dims: int
    """Numbers of a vector; 0 for images."""
    unit: float
    """What 1 of the network's output is in the unit of the likelihood."""
    meaning: str
    """One line."""

    @property
    def image(self) -> bool:
        """Whether it is an image, coded by ResNet-18 and DCGAN; else a vector, by fully connected layers."""
        return self.dims == 0


MODALITIES: dict[str, Modality] = {
    m.name: m
    for m in (
        Modality("image", 0, 127.5, "the image x; the network's -1..1 is 0..255"),
        Modality("content", 0, 127.5, "the tag image: another pose with the same appearance_id"),
        Modality("pose3d", 63, 1.0, "3DPose: root-relative joints, unit s"),
        Modality("cpose", 63, 1.0, "CPose: 3DPose in the canonical frame, left-hand shape, unit s"),
        Modality("viewpoint", 9, 10.0, "the entries of the matrix R F from CPose to 3DPose, row by row"),
        # Root x, y in half image sides from the centre, ln(half sides per s / 0.2), 10 s / depth, side -1 or 1.
        Modality("placement", 5, 1.0, "where the root lies, how large and how near the hand is, and its side"),
        Modality("placed_pose", 68, 1.0, "3DPose, then placement"),
    )
}
"""All modalities by name."""

POSE_PARTS: dict[str, tuple[str, ...]] = {"placed_pose": ("pose3d", "placement")}
"""Vectors that are other vectors side by side."""


def modality(name: str) -> Modality:
    """The modality of that name.

    Raises:
        KeyError: There is none.
    """
    return MODALITIES[name]

"""A trained dVAE, ready to use: encode, decode, sample, estimate."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from handaug.data_specs.errors import InputError
from handaug.models.dvae.config import METHODS, DvaeConfig
from handaug.models.dvae.data import Poses, place_pixels
from handaug.models.dvae.model import DVAE, Batch
from handaug.models.hand_frame import hand_points, nearest_rotation, reflections
from handaug.models.trained import TrainedDisentangler, load_parts

__all__ = ["Dvae", "load_dvae"]


class Dvae(TrainedDisentangler[DVAE, DvaeConfig]):
    """Codes of images and labels, and images and poses of codes. All methods run without gradients.

    Codes are posterior means. A pose code is every labelled factor of z side by side but the content; an appearance
    code is z_content or z_u.

    Example:
        model = load_dvae(Path("run"))
        drawn = model.decode(model.encode_labels(poses), model.encode_appearance(tags))
    """

    @property
    def pose_names(self) -> tuple[str, ...]:
        """The factors that make up a pose code."""
        return tuple(name for name, _ in self.config.factors if name != "content")

    @property
    def draws_images(self) -> bool:
        """Whether it decodes images from a pose and an appearance."""
        return self.config.x == "image" and self.config.appearance is not None

    @property
    def reads_images(self) -> bool:
        """Whether it was trained to read poses from images."""
        trained = self.config.method == "cross-modal" or self.config.embed_share > 0
        return trained and "image" in self.config.embed

    @property
    def places_hands(self) -> bool:
        """Whether it decodes where the hand lies in the image, without which there are no 2D keypoints."""
        return bool({"placed_pose", "placement"} & {name for name, _ in self.config.targets})

    @torch.inference_mode()
    def encode_pose(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) float in [0, 1] -> pose codes (N, D), by the embedding step's q(z | x)."""
        self._must_draw()
        if not self.reads_images:
            raise InputError(f"--checkpoint: this {self.method} has no image encoder for poses; give labels instead")
        mean, _ = self.model.embed("image", {"image": self._prepare(images)})
        return mean[:, : self._pose_dims]

    @torch.inference_mode()
    def encode_labels(self, poses: Poses) -> Tensor:
        """Pose labels -> pose codes (N, D), by q(z_yi | y_i)."""
        self._must_draw()
        moved = poses.to(self.device)
        parts = [self.model.encode_factor(name, {name: moved.vector(name)})[0] for name in self.pose_names]
        return torch.cat(parts, dim=1)

    @torch.inference_mode()
    def encode_appearance(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) float in [0, 1] -> appearance codes (N, D)."""
        self._must_draw()
        pixels = self._prepare(images)
        name = str(self.config.appearance)
        return self.model.encode_factor(name, {name: pixels, "image": pixels})[0]

    def prior_appearance(self, count: int, seed: int) -> Tensor:
        """Appearance codes (count, D) drawn from the prior N(0, I)."""
        self._must_draw()
        generator = torch.Generator().manual_seed(seed)
        dims = self.config.blocks[-1][1]
        return torch.randn(count, dims, generator=generator).to(self.device)

    @torch.inference_mode()
    def decode(self, pose: Tensor, appearance: Tensor) -> Tensor:
        """Codes of the same N -> images (N, C, H, W) float32 in [0, 1]."""
        self._must_draw()
        return (self.model.decode("image", torch.cat([pose, appearance], dim=1)) + 1.0) / 2.0

    @torch.inference_mode()
    def pose_keypoints(self, pose: Tensor, appearance: Tensor | None = None) -> Tensor:
        """Pose codes -> keypoints (N, 21, 2) in pixels, by the model's own pose decoder.

        Args:
            pose: (N, D).
            appearance: What pose decoders with z_u see beside it; the prior's mean by default.
        """
        if appearance is None:
            appearance = torch.zeros(len(pose), self.config.blocks[-1][1], device=pose.device)
        return self.placed_keypoints(self.vectors(torch.cat([pose, appearance], dim=1)))

    def vectors(self, z: Tensor) -> dict[str, Tensor]:
        """Every vector modality that z decodes to, by name, each (N, dims)."""
        names = [name for name, _ in self.config.targets if name not in ("image", "content")]
        with torch.inference_mode():
            return {name: self.model.decode(name, z) for name in names}

    def estimate(self, images: Tensor, side: Tensor) -> dict[str, Tensor]:
        """Pose vectors from images.

        Args:
            images: (N, C, H, W) float in [0, 1].
            side: (N,) -1 left, 1 right: given at test, as in section 4.4.

        Returns:
            `vectors` of the posterior mean, and always `pose3d` (N, 63), unit s.
        """
        if not self.reads_images:
            raise InputError("--checkpoint: this run has no image encoder, so it estimates no poses from images")
        batch: Batch = {"image": self._prepare(images), "side": side.to(self.device)}
        with torch.inference_mode():
            found = self.vectors(self.model.embed("image", batch)[0])
        return {**found, "pose3d": self.pose3d(found, batch["side"])}

    @staticmethod
    def pose3d(vectors: dict[str, Tensor], side: Tensor) -> Tensor:
        """3DPose (N, 63) from whichever vectors hold it: itself, placed_pose, or CPose and viewpoint."""
        if "pose3d" in vectors:
            return vectors["pose3d"]
        if "placed_pose" in vectors:
            return vectors["placed_pose"][:, :63]
        cpose, viewpoint = (vectors[name].double().cpu().numpy() for name in ("cpose", "viewpoint"))
        right = (side.cpu().numpy() > 0).astype(np.int64)
        turned = nearest_rotation(viewpoint.reshape(-1, 3, 3) @ reflections(right))
        points = hand_points(cpose.reshape(-1, 21, 3), turned, right)
        return torch.from_numpy(points.reshape(-1, 63).astype(np.float32)).to(side.device)

    def placed_keypoints(self, vectors: dict[str, Tensor]) -> Tensor:
        """2D keypoints (N, 21, 2) in pixels of decoded vectors: 3DPose where the placement puts it."""
        if "placed_pose" in vectors:
            placement = vectors["placed_pose"][:, 63:]
        elif "placement" in vectors:
            placement = vectors["placement"]
        else:
            raise InputError(f"--checkpoint: this {self.method} run does not decode where the hand lies in the image")
        return place_pixels(self.pose3d(vectors, placement[:, -1]), placement, self.size)

    @property
    def _pose_dims(self) -> int:
        return sum(dims for name, dims in self.config.factors if name != "content")

    def _must_draw(self) -> None:
        if not self.draws_images:
            raise InputError(
                f"--checkpoint: a {self.method} run decodes no images from pose and appearance; train one with "
                "--method dvae, dvae-zu or self"
            )

    def _prepare(self, images: Tensor) -> Tensor:
        return super()._prepare(images) * 2.0 - 1.0


def load_dvae(folder: Path | str, device: str = "cpu") -> Dvae:
    """Load a finished run.

    Args:
        folder: Written by `handaug disentangle --method dvae|dvae-zu|dvae-pose|cross-modal`.
        device: Where to compute.

    Raises:
        InputError: The folder is missing, damaged, or holds something else; the message names the file.
    """
    parts = load_parts(folder, device, methods=METHODS, read_config=DvaeConfig.from_json, build=DVAE)
    return Dvae(parts)

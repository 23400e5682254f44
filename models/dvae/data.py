"""Rows for the dVAE: pose labels in parts, tag images, motions of the picture, and batches.

Placement. Root-relative pose does not say where in the crop the hand lies, and nothing else would: an image decoder
that must guess it blurs, and a content code would carry it. It is given to the pose factor: `placed_pose` is 3DPose,
the perspective projection that fits the row's own 2D keypoints, and the side. Crops stay as they are, so the label of
a decoded image is the label of its pose row.

Tags. The tag image of a row is another row with the same `appearance_id` and another `pose_id`, drawn anew at each use;
never the row itself, which would hand the pose to the content code.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handaug.data_specs.errors import InputError
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.schema import RIGHT
from handaug.models.dvae.config import DvaeConfig
from handaug.models.dvae.modalities import POSE_PARTS
from handaug.models.dvae.model import Batch
from handaug.models.hand_frame import hand_frame, reflections, with_root
from handaug.models.warp import warp

__all__ = [
    "Poses",
    "Tags",
    "TrainRows",
    "first_rows",
    "move_images",
    "place_pixels",
    "read_poses",
    "read_train_rows",
    "to_network",
]

_SCALE_UNIT = 0.2
"""Half image sides per s of a hand that fills two thirds of the crop."""

_DEPTH_UNIT = 0.1
"""s / depth of a root about 44 cm away."""

_NEAREST = 0.1
"""No joint may come nearer to the camera than this share of the root's depth."""


@dataclass(frozen=True)
class Poses:
    """Pose labels of N rows as float32 tensors on one device."""

    pose3d: Tensor
    """(N, 63)."""
    cpose: Tensor
    """(N, 63)."""
    viewpoint: Tensor
    """(N, 9) R F of `hand_frame`, what turns CPose into 3DPose: for right hands a reflection too. R alone leaves open
    on which side of the palm the fingers bend: 3DPose of z could then be no better than the mean of both, 26 mm off."""
    placement: Tensor
    """(N, 5): see `modalities`."""
    scale: Tensor
    """(N,) s in metres, given at test."""
    known: Tensor
    """(N,) bool: 3D labels are complete."""
    placed: Tensor
    """(N,) bool: known, and 2D labels suffice for a placement."""

    def __len__(self) -> int:
        return len(self.pose3d)

    @property
    def side(self) -> Tensor:
        """(N,) -1 left, 1 right."""
        return self.placement[:, 4]

    def select(self, rows: Tensor) -> "Poses":
        """Those rows."""
        return Poses(**{field.name: getattr(self, field.name)[rows] for field in dataclasses.fields(self)})

    def to(self, device: torch.device | str) -> "Poses":
        """All tensors there."""
        return Poses(**{field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)})

    def joined(self, other: "Poses") -> "Poses":
        """These rows, then those."""
        names = [field.name for field in dataclasses.fields(self)]
        return Poses(**{name: torch.cat([getattr(self, name), getattr(other, name)]) for name in names})

    def moved(self, angle: Tensor, mirrored: Tensor) -> "Poses":
        """Labels of mirrored (first) and turned (then) images, in the closed form of `hand_frame`.

        Args:
            angle: (N,) radians, from x towards y.
            mirrored: (N,) bool.
        """
        sign = 1.0 - 2.0 * mirrored.float()
        motion = _turn(angle) * torch.stack([sign, torch.ones_like(sign), torch.ones_like(sign)], 1)[:, None]
        pose3d = self.pose3d.view(-1, 21, 3) @ motion.mT
        viewpoint = motion @ self.viewpoint.view(-1, 3, 3)
        place = (motion[:, :2, :2] @ self.placement[:, :2, None])[..., 0]
        placement = torch.cat([place, self.placement[:, 2:4], self.placement[:, 4:] * sign[:, None]], 1)
        return dataclasses.replace(self, pose3d=pose3d.flatten(1), viewpoint=viewpoint.flatten(1), placement=placement)

    def vector(self, name: str) -> Tensor:
        """A vector modality (N, dims)."""
        vector: Tensor
        if name in POSE_PARTS:
            vector = torch.cat([getattr(self, part) for part in POSE_PARTS[name]], dim=1)
        else:
            vector = getattr(self, name)
        return vector


def _turn(angle: Tensor) -> Tensor:
    """(N,) radians -> (N, 3, 3) turns about z, from x towards y."""
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, one], 1).view(-1, 3, 3)


def read_poses(data: HandDataset, root: str, index: NDArray[np.int64] | None = None) -> Poses:
    """Pose labels of rows of a view.

    Args:
        data: With `keypoints_3d`.
        root: Root of the poses.
        index: Positions in the view; all by default.

    Raises:
        InputError: The file has no 3D labels.
    """
    if not data.has("keypoints_3d"):
        raise InputError(f"{data.path}: has no keypoints_3d, from which poses are learned; give data with 3D labels")
    side = data.read("handedness", index).astype(np.int64)
    frame = hand_frame(data.read("keypoints_3d", index), side, root)
    places = with_root(data.read("keypoints_2d", index), root)
    placement, fits = _fit_placement(frame.pose3d, places, data.size)
    sign = np.where(side == RIGHT, 1.0, -1.0)
    numbers = {
        "pose3d": frame.pose3d.reshape(-1, 63),
        "cpose": frame.cpose.reshape(-1, 63),
        "viewpoint": (frame.viewpoint @ reflections(side)).reshape(-1, 9),
        "placement": np.concatenate([placement, sign[:, None]], 1),
        "scale": frame.scale,
    }
    tensors = {name: torch.from_numpy(value.astype(np.float32)) for name, value in numbers.items()}
    return Poses(**tensors, known=torch.from_numpy(frame.usable), placed=torch.from_numpy(frame.usable & fits))


def _fit_placement(
    pose: NDArray[np.float64], places: NDArray[np.float64], size: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Fit u = (k p_xy + t) / (1 + q p_z) to the labelled 2D joints, u in half sides from the image's centre.

    Times the denominator it is linear in k, t and q. For a camera that looks at the image's centre it is exact with
    q = s / depth of the root; for others it is the nearest of its kind.

    Returns:
        (N, 4): t, ln(k / `_SCALE_UNIT`), q / `_DEPTH_UNIT`; and (N,) which rows have enough labels.
    """
    labelled = np.isfinite(places).all(-1)
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
    u = np.where(labelled[..., None], (np.nan_to_num(places) - centre) / (min(size) / 2), 0.0)
    one, zero = np.ones(labelled.shape), np.zeros(labelled.shape)
    across = np.stack([pose[..., 0], one, zero, -pose[..., 2] * u[..., 0]], -1)
    down = np.stack([pose[..., 1], zero, one, -pose[..., 2] * u[..., 1]], -1)
    design = np.where(labelled[:, :, None, None], np.stack([across, down], 2), 0.0).reshape(len(u), -1, 4)
    normal = np.einsum("nij,nik->njk", design, design) + 1e-9 * np.eye(4)  # flat hands leave q open: 0
    k, tx, ty, q = np.linalg.solve(normal, np.einsum("nij,ni->nj", design, u.reshape(len(u), -1))[..., None])[..., 0].T
    fits = (labelled.sum(1) >= 3) & (k > 0) & (1 + q[:, None] * pose[..., 2] > _NEAREST).all(1)
    out = np.stack([tx, ty, np.log(np.where(fits, k, 1.0) / _SCALE_UNIT), q / _DEPTH_UNIT], 1)
    return np.where(fits[:, None], out, 0.0), fits


def place_pixels(pose3d: Tensor, placement: Tensor, size: tuple[int, int]) -> Tensor:
    """2D keypoints of a placed pose: the inverse of the fit.

    Args:
        pose3d: (N, 63).
        placement: (N, 5).
        size: Image height and width in pixels.

    Returns:
        (N, 21, 2) pixels.
    """
    pose = pose3d.view(-1, 21, 3)
    scale = placement[:, 2, None, None].exp() * _SCALE_UNIT
    depth = (1.0 + _DEPTH_UNIT * placement[:, 3, None, None] * pose[..., 2:]).clamp_min(_NEAREST)
    centre = torch.tensor([(size[1] - 1) / 2, (size[0] - 1) / 2], device=placement.device)
    return (scale * pose[..., :2] + placement[:, None, :2]) / depth * (min(size) / 2) + centre


def to_network(images: Tensor) -> Tensor:
    """uint8 images -> float32 in the network's -1..1."""
    return images.float() / 127.5 - 1.0


def move_images(images: Tensor, angle: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror (first) and turn (then) images about their centres, bilinear, edge pixels repeated.

    Args:
        images: (N, C, H, W) float.
        angle: (N,) radians, from x towards y (clockwise as seen).
        mirrored: (N,) bool.
    """
    height, width = images.shape[2:]
    linear = _turn(-angle)[:, :2, :2]
    linear = linear * torch.stack([1.0 - 2.0 * mirrored.float(), torch.ones_like(angle)], 1)[:, :, None]
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=angle.device)
    return warp(images, torch.cat([linear, (middle - linear @ middle)[:, :, None]], dim=2))


@dataclass
class TrainRows:
    """What a run learns from: N rows with images, and after them rows that are pose triples alone."""

    images: Tensor
    """(N, C, H, W) uint8."""
    poses: Poses
    """Of N rows and of the triples after them."""
    labelled: Tensor
    """(N,) bool: rows that keep their labels."""
    pools: dict[str, NDArray[np.int64]]
    """Rows that each stage draws from; one that stands there more than once is drawn more often."""
    tags: "Tags | None"
    """Tag images; None without a content factor."""
    config: DvaeConfig

    def batch(self, stage: str, rows: NDArray[np.int64], rng: np.random.Generator, device: torch.device) -> Batch:
        """The modalities that a stage reads of some rows, in the network's ranges."""
        at = torch.from_numpy(rows)
        poses = self.poses.select(at.to(self.poses.pose3d.device)).to(device)
        wanted = self._modalities(stage)
        motion = self._motion(rng, len(rows), device) if self.config.augment else None
        if motion is not None:
            poses = poses.moved(*motion)
        batch: Batch = {"side": poses.side}
        for name in sorted(wanted):  # one order of draws
            if name == "content":
                assert self.tags is not None, "configs with content have tags"
                batch[name] = self._pixels(torch.from_numpy(self.tags.draw(rows, rng)), device)
            elif name == "image":
                pixels = self._pixels(at, device)
                batch[name] = move_images(pixels, *motion) if motion is not None else pixels
            else:
                batch[name] = poses.vector(name)
        if stage == "embed" and self.config.supervision == "weak":
            full = self.labelled[at].float().to(device)
            for name in wanted - {"image", "viewpoint"}:
                batch[f"weight/{name}"] = full
        return batch

    def _modalities(self, stage: str) -> set[str]:
        names = {name for name, _ in self.config.targets} | {name for name, _ in self.config.factors}
        if self.config.z_u:
            names.add("image")
        return names | set(self.config.embed) if stage == "embed" else names

    @staticmethod
    def _motion(rng: np.random.Generator, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Turns of -180..180 degrees, and mirror images for half of the rows (section 4.4)."""
        angle = rng.uniform(-np.pi, np.pi, count).astype(np.float32)
        return torch.from_numpy(angle).to(device), torch.from_numpy(rng.random(count) < 0.5).to(device)

    def _pixels(self, rows: Tensor, device: torch.device) -> Tensor:
        return to_network(self.images[rows.to(self.images.device)].to(device))


def first_rows(count: int, percent: float) -> int:
    """How many of `count` train rows, from the first one on, keep their labels (section 4.4)."""
    return max(1, round(count * percent / 100.0))


def read_train_rows(data: HandDataset, config: DvaeConfig, triples: HandDataset | None = None) -> TrainRows:
    """Read the train rows of a run.

    Args:
        data: View of the train split.
        config: Of the run.
        triples: More rows whose pose labels alone take part in the disentangling step.

    Raises:
        InputError: Labels or tags are missing.
    """
    count = len(data)
    poses = read_poses(data, config.root)
    labelled = torch.arange(count) < first_rows(count, config.labelled)
    names = {name for name, _ in (*config.factors, *config.targets)}
    usable = poses.placed if names & {"placement", "placed_pose"} else poses.known
    tags = _tags(data) if "content" in names else None
    if tags is not None:
        usable = usable & torch.from_numpy(tags.exist)
    ready = (usable & labelled).numpy()
    pools = {"disentangle": ready, "noise": ready, "embed": ready}
    if config.supervision == "semi":
        pools["disentangle"] = usable.numpy()
    elif config.supervision == "weak":
        pools["embed"] = usable.numpy()  # the viewpoint of the other rows is their weak label
    rows = {stage: np.flatnonzero(mask) for stage, mask in pools.items()}
    if config.supervision == "weak":
        rows["embed"] = _half_labelled(rows["embed"], ready)
    if min(len(found) for found in rows.values()) < 2:
        raise InputError(f"{data.path}: {_lack(config, names)}")
    if triples is not None:
        if config.x == "image" or config.z_u:
            raise InputError("--set triples: pose triples without images teach --method dvae-pose alone")
        more = read_poses(triples, config.root)
        found = np.flatnonzero(more.known.numpy()) + count
        rows["disentangle"] = np.concatenate([rows["disentangle"], found])
        poses = poses.joined(more)
    images = torch.from_numpy(data.read("images")).permute(0, 3, 1, 2).contiguous()
    return TrainRows(images, poses, labelled, rows, tags, config)


def _half_labelled(rows: NDArray[np.int64], labelled: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rows with the labelled ones repeated until they are at least half.

    Drawn alike, six rows of a batch of 128 had a pose where 5 % are labelled: z came to hold the viewpoint alone.
    """
    known, other = rows[labelled[rows]], rows[~labelled[rows]]
    return np.concatenate([other, np.resize(known, max(len(known), len(other)))])


def _lack(config: DvaeConfig, names: set[str]) -> str:
    if "content" in names:
        return (
            "fewer than 2 labelled train rows have a tag image (another pose_id with the same appearance_id); render "
            "with a smaller --appearance-pool, or use --method dvae-zu, which needs no tags"
        )
    return f"fewer than 2 of its train rows have complete 3D labels within the first {config.labelled:g} %"


class Tags:
    """Which rows can be the tag image of which.

    Args:
        appearance: (N,) rows that share it share their appearance.
        pose: (N,) rows that share it show the same hand in the same pose.
    """

    def __init__(self, appearance: NDArray[np.int64], pose: NDArray[np.int64]) -> None:
        self._group = np.unique(appearance, return_inverse=True)[1]
        self._pose = pose
        order = np.argsort(self._group, kind="stable")
        self._members = np.split(order, np.flatnonzero(np.diff(self._group[order])) + 1)
        varied = np.array([len(rows) > 0 and bool((pose[rows] != pose[rows[0]]).any()) for rows in self._members])
        self.exist: NDArray[np.bool_] = varied[self._group] if len(pose) else np.zeros(0, np.bool_)
        """(N,) whether a row has a tag: somebody else of its appearance, in another pose."""

    def of(self, row: int) -> NDArray[np.int64]:
        """All rows of the same appearance and another pose."""
        members = self._members[self._group[row]]
        others: NDArray[np.int64] = members[self._pose[members] != self._pose[row]]
        return others

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """One tag for each row."""
        return np.array([rng.choice(self.of(int(row))) for row in rows], np.int64)


def _tags(data: HandDataset) -> Tags:
    if not (data.has("appearance_id") and data.has("pose_id")):
        raise InputError(
            f"{data.path}: has no appearance_id and pose_id, so no row has a tag image; use --method dvae-zu, which "
            "needs none"
        )
    return Tags(data.read("appearance_id"), data.read("pose_id"))

"""The dVAE's rows: tags, motions of images with their labels, placement, pools, and parts that make a pose again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rows import random_rows, write_rows
from tiny_dvae import CPU, SIZE, tiny
from toy import write_toy

from handaug.data_specs.reader import HandDataset
from handaug.models.dvae.api import Dvae
from handaug.models.dvae.data import Tags, TrainRows, move_images, place_pixels, read_poses, read_train_rows
from handaug.models.dvae.losses import stage_terms, total_loss
from handaug.models.dvae.measure import read_rows
from handaug.models.dvae.model import DVAE
from handaug.models.hand_frame import hand_frame


def test_tags_show_another_pose_in_the_same_appearance() -> None:
    appearance, pose = np.array([7, 7, 7, 8, 8, 9]), np.array([1, 2, 1, 3, 3, 4])
    tags = Tags(appearance, pose)
    assert tags.exist.tolist() == [True, True, True, False, False, False]
    assert tags.of(0).tolist() == [1] and sorted(tags.of(1).tolist()) == [0, 2]
    assert tags.draw(np.array([0, 2]), np.random.default_rng(0)).tolist() == [1, 1]


def test_a_sample_of_rows_holds_pairs_of_many_poses(data: Path) -> None:
    """A dozen rows of a view: two of each pose that has as many, spread from its first poses to its last."""
    view = HandDataset(data, split="train")
    pose = view.read("pose_id")
    rows = read_rows(view, "wrist", 12)
    images = view.read("images").transpose(0, 3, 1, 2)
    at = np.array([np.flatnonzero(np.all(images == one.numpy(), axis=(1, 2, 3)))[0] for one in rows.images])
    found, counts = np.unique(pose[at], return_counts=True)
    there = np.array([(pose == one).sum() for one in found])
    assert len(found) == 6 and np.array_equal(counts, np.minimum(2, there)) and (counts == 2).any()
    assert found[0] == pose.min() and found[-1] == pose.max()


# labels and images


def test_motions_move_labels_as_they_move_the_hand(data: Path) -> None:
    view = HandDataset(data, split="test")
    poses = read_poses(view, "wrist")
    count = len(poses)
    angle, mirrored = torch.linspace(-3, 3, count), torch.arange(count) % 2 == 0
    moved = poses.moved(angle, mirrored)
    points = view.read("keypoints_3d").astype(np.float64)
    turn = np.stack([[[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]] for a in angle.numpy()])
    sign = np.where(mirrored.numpy(), -1.0, 1.0)
    points[..., 0] *= sign[:, None]
    side = np.where(mirrored.numpy(), 1 - view.read("handedness"), view.read("handedness"))
    frame = hand_frame(points @ turn.transpose(0, 2, 1), side)
    whole = frame.viewpoint * np.where(side == 1, -1.0, 1.0)[:, None, None] ** np.array([0, 0, 1])
    for name, expected in (("pose3d", frame.pose3d), ("cpose", frame.cpose), ("viewpoint", whole)):
        assert np.allclose(moved.vector(name).numpy(), expected.reshape(count, -1), atol=1e-4), name
    assert np.array_equal(moved.side.numpy() > 0, side == 1)
    # The placement follows the picture: keypoints of the moved label are the moved keypoints.
    centre = (SIZE - 1) / 2
    before = place_pixels(poses.pose3d, poses.placement, (SIZE, SIZE)).double().numpy() - centre
    before[..., 0] *= sign[:, None]
    after = before @ turn[:, :2, :2].transpose(0, 2, 1) + centre
    assert np.allclose(place_pixels(moved.pose3d, moved.placement, (SIZE, SIZE)).numpy(), after, atol=1e-3)


def test_images_move_with_their_labels() -> None:
    """A drawn dot is found where the label goes, to a tenth of a pixel, on an image that is not square."""
    height, width = 40, 56
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.tensor([[20.0, 18.0], [30.0, 25.0], [33.0, 16.0], [24.0, 21.0]])
    dots = torch.exp(-((x - at[:, :1, None]) ** 2 + (y - at[:, 1:, None]) ** 2) / 8.0)[:, None]
    angle, mirrored = torch.tensor([0.0, 0.7, -2.0, 3.0]), torch.tensor([True, False, True, False])
    moved = move_images(dots, angle, mirrored)[:, 0]
    mass = moved.sum((1, 2))
    found = torch.stack([(moved * x).sum((1, 2)) / mass, (moved * y).sum((1, 2)) / mass], 1)
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2])
    offset = (at - centre) * torch.stack([1 - 2 * mirrored.float(), torch.ones(4)], 1)
    c, s = angle.cos(), angle.sin()
    expected = torch.stack([c * offset[:, 0] - s * offset[:, 1], s * offset[:, 0] + c * offset[:, 1]], 1) + centre
    assert (found - expected).abs().max() < 0.1


def test_placement_puts_the_pose_where_the_keypoints_are(data: Path) -> None:
    view = HandDataset(data)
    poses = read_poses(view, "wrist")
    found = place_pixels(poses.pose3d, poses.placement, view.size).numpy()
    assert np.abs(found - view.read("keypoints_2d")).max() < 1e-3
    assert bool(poses.placed.all())


def test_placement_is_exact_for_a_camera_at_the_centre(tmp_path: Path) -> None:
    """Near hands of real depth, some with half of their 2D labels missing."""
    rows = random_rows(40, size=SIZE)
    rows["keypoints_2d"][::3, 10:] = np.nan
    rows["visibility"][::3, 10:] = 0
    poses = read_poses(HandDataset(write_rows(tmp_path / "rows.h5", rows)), "wrist")
    assert bool(poses.placed.all())
    found = place_pixels(poses.pose3d, poses.placement, (SIZE, SIZE)).numpy()
    error = np.abs(found - rows["keypoints_2d"])
    assert np.nanmax(error) < 2e-2
    depth = rows["keypoints_3d"][:, 0, 2]
    assert np.allclose(poses.placement[:, 3].numpy() * 0.1, poses.scale.numpy() / depth, rtol=1e-2)


def test_cpose_and_viewpoint_make_3dpose(data: Path) -> None:
    poses = read_poses(HandDataset(data, split="test"), "wrist")
    parts = {"cpose": poses.cpose, "viewpoint": 1.7 * poses.viewpoint}  # the nearest rotation undoes the factor
    assert torch.allclose(Dvae.pose3d(parts, poses.side), poses.pose3d, atol=1e-4)


def test_a_right_and_a_left_hand_of_one_viewpoint_differ_in_the_viewpoint_vector(data: Path) -> None:
    """3DPose = (R F) CPose without being told the side, which the networks of z are not."""
    poses = read_poses(HandDataset(data), "wrist")
    poses = poses.moved(torch.zeros(len(poses)), torch.arange(len(poses)) % 2 == 0)
    assert set(np.sign(poses.side.numpy())) == {-1.0, 1.0}
    made = poses.cpose.view(-1, 21, 3) @ poses.viewpoint.view(-1, 3, 3).mT
    assert torch.allclose(made.flatten(1), poses.pose3d, atol=1e-4)


# which rows teach what


def weak_rows(data: Path, supervision: str, labelled: float = 50.0) -> TrainRows:
    config = tiny("dvae-pose", labelled=labelled, supervision=supervision, augment=False)
    return read_train_rows(HandDataset(data, split="train"), config)


def test_labelled_percentage_and_what_the_rest_gives(data: Path) -> None:
    pools = {name: weak_rows(data, name).pools for name in ("supervised", "semi", "weak")}
    count = len(HandDataset(data, split="train"))
    first = list(range(count // 2))
    assert pools["supervised"]["disentangle"].tolist() == pools["supervised"]["embed"].tolist() == first
    assert (len(pools["semi"]["disentangle"]), pools["semi"]["embed"].tolist()) == (count, first)
    assert (pools["weak"]["disentangle"].tolist(), sorted(pools["weak"]["embed"])) == (first, list(range(count)))


@pytest.mark.parametrize("labelled", [20.0, 80.0, 100.0])
def test_weak_batches_are_labelled_by_half_or_more(data: Path, labelled: float) -> None:
    count = len(HandDataset(data, split="train"))
    rows = weak_rows(data, "weak", labelled)
    pool, known = rows.pools["embed"], int(rows.labelled.sum())
    times = np.bincount(pool, minlength=count)
    assert (times[known:] == 1).all() and np.ptp(times[:known]) <= 1
    assert times[:known].sum() == max(known, count - known)


@pytest.mark.parametrize(("name", "matters"), [("pose3d", False), ("cpose", False), ("viewpoint", True)])
def test_weak_rows_teach_by_their_viewpoint_alone(data: Path, name: str, matters: bool) -> None:
    rows = weak_rows(data, "weak")
    torch.manual_seed(0)
    model = DVAE(rows.config, 1, (SIZE, SIZE))
    model.enter("embed")
    last = np.array([0, 1, len(rows.images) - 2, len(rows.images) - 1])
    losses = []
    for change in (0.0, 1.0):
        batch = rows.batch("embed", last, np.random.default_rng(0), CPU)
        batch[name] = batch[name] + change * torch.tensor([0.0, 0.0, 1.0, 1.0])[:, None]
        noise = torch.zeros(4, model.latent)
        losses.append(total_loss(stage_terms(model, "embed", batch, noise), rows.config).item())
    assert (losses[0] != losses[1]) == matters


def test_pose_triples_without_images_join_the_disentangling_step(data: Path, tmp_path: Path) -> None:
    other = write_toy(tmp_path / "other.h5", 10, size=16, seed=3)
    config = tiny("dvae-pose", augment=False)
    rows = read_train_rows(HandDataset(data, split="train"), config, HandDataset(other, split="train"))
    count, more = len(HandDataset(data, split="train")), len(HandDataset(other, split="train"))
    assert len(rows.pools["disentangle"]) == count + more and len(rows.pools["embed"]) == count
    batch = rows.batch("disentangle", np.array([count + more - 1]), np.random.default_rng(0), CPU)
    expected = read_poses(HandDataset(other, split="train"), "wrist")
    assert torch.equal(batch["cpose"][0], expected.cpose[-1]) and "image" not in batch

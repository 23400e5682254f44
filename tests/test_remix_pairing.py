"""Which pairs remix tries and how many: candidates rule by rule, rarity and coverage, quotas and refills."""

from pathlib import Path

import numpy as np
import pytest
from remix_home import N, remix_config

import handaug.augment.remix as remix_module
from handaug.augment.mint import Mint
from handaug.augment.pairing import Pairing, split_quota
from handaug.augment.rarity import appearance_rarity, pose_rarity, rarity
from handaug.augment.remix import remix
from handaug.augment.remix_plan import Cut, Tally, first_plans, refill_plans
from handaug.augment.sources import SourceTable
from handaug.data_specs.reader import HandDataset
from handaug.data_specs.verify import verify_dataset

pytestmark = pytest.mark.usefixtures("no_picture")


def _table(count: int, seed: int, folds: tuple[int, ...]) -> SourceTable:
    rng = np.random.default_rng(seed)
    return SourceTable(
        rows=np.arange(count),
        fold=rng.choice(np.array(folds, np.int8), count),
        handedness=rng.integers(0, 2, count).astype(np.int8),
        occluded=rng.choice(np.array([0, 0, 1, -1], np.int8), count),
        labelled=np.ones(count, bool),
        pose_id=rng.integers(0, count // 2, count),
        appearance_id=rng.integers(0, count // 4, count),
        picture=np.arange(count),
        tone=rng.random(count).astype(np.float32),
        thumbnail=np.zeros((count, 64), np.uint8),
        keypoints_2d=np.zeros((count, 21, 2), np.float32),
        visibility=np.full((count, 21), 2, np.uint8),
    )


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("folds", [(0, 1), (-1, 0, 1), (-1,)])
def test_candidates_are_all_the_allowed_pairs_each_once(folds: tuple[int, ...], mirror: bool) -> None:
    """The walk against a second implementation: the rules, pair by pair."""
    table = _table(80, 3, folds)
    pairing = Pairing(table, table, seed=5, wanted=60 if mirror else 0)
    assert pairing.mirrors == mirror
    for x in range(80):
        allowed = set()
        for y in range(80):
            same_fold = table.fold[x] == table.fold[y] or -1 in (table.fold[x], table.fold[y])
            rendered = table.appearance_id[y] in table.appearance_id[table.pose_id == table.pose_id[x]]
            new = table.pose_id[x] != table.pose_id[y] and not rendered
            alike = table.occluded[y] in (-1, int(table.occluded[x] == 1))
            side = mirror or table.handedness[y] in (-1, table.handedness[x])
            if same_fold and new and alike and side:
                allowed.add(y)
        walked, place = [], 0
        while len(found := pairing.candidates(x, place, 7)[0]):
            place = pairing.candidates(x, place, 7)[1]
            walked += found.tolist()
        assert sorted(walked) == sorted(allowed)
        assert pairing.capacity(x) == len(allowed)
        for y in walked[:5]:
            k = int(pairing.checker_of(np.array([x]), np.array([y]))[0])
            assert {int(table.fold[x]), int(table.fold[y])} <= {k, -1}, "estimator k never saw fold k"


def test_a_weighted_walk_is_as_complete_and_begins_with_the_heavy() -> None:
    table = _table(200, 3, (-1,))
    weights = np.where(np.arange(200) % 2, 0.25, 1.75)
    even, uneven = Pairing(table, table, 5), Pairing(table, table, 5, weights=weights)
    share = []
    for x in range(40):
        assert sorted(even.candidates(x, 0, 500)[0]) == sorted(uneven.candidates(x, 0, 500)[0])
        first, place = uneven.candidates(x, 0, 8)
        assert np.array_equal(
            np.concatenate([first, uneven.candidates(x, place, 8)[0]]), uneven.candidates(x, 0, 16)[0]
        )
        share.append((first % 2 == 0).mean())
    assert 0.8 < np.mean(share) < 0.95, "1.75 to 0.25 is 7 to 1"


def test_rare_rows_have_few_neighbours() -> None:
    rng = np.random.default_rng(0)
    crowd, alone = rng.normal(0, 0.01, (300, 3)), rng.normal(0, 1, (20, 3)) + 5
    found = rarity(np.concatenate([crowd, alone]), seed=0)
    assert found[300:].min() > 4 * np.median(found[:300])
    assert np.array_equal(found, rarity(np.concatenate([crowd, alone]), seed=0))
    assert np.array_equal(rarity(np.zeros((5, 2)), 0), np.ones(5)) and np.array_equal(rarity(np.zeros((1, 2)), 0), [1])


def test_coverage_asks_more_of_rare_poses_and_of_rare_appearances(home: Path, tmp_path: Path) -> None:
    remix(remix_config(home, n=N, pairs="coverage", max_label_error=1000.0), tmp_path / "minted.h5")
    data, mint = HandDataset(tmp_path / "minted.h5"), Mint(remix_config(home, pairs="coverage"), "cpu")
    assert len(data) == N and verify_dataset(data.path) == []
    wanted = remix_module._quota(mint)
    rare = pose_rarity(mint.pose_data, mint.poses, 0)
    assert wanted.sum() == N and np.abs(wanted - N * rare / rare.sum()).max() <= 1
    counts = {}
    for name, table, weight in (
        ("pose", mint.poses, pose_rarity(mint.pose_data, mint.poses, 0)),
        ("appearance", mint.appearances, appearance_rarity(mint.appearances, 0)),
    ):
        rows = np.searchsorted(table.rows, data.read(f"provenance/{name}_source"))
        counts[name] = np.corrcoef(weight, np.bincount(rows, minlength=len(table)))[0, 1]
    assert counts["pose"] > 0.3 and counts["appearance"] > 0, counts


def test_quotas_and_refills_sum_to_n() -> None:
    quota = split_quota(1003, np.ones(100), seed=0)
    assert quota.sum() == 1003 and set(quota) == {10, 11}
    uneven = split_quota(1000, np.arange(1.0, 5.0), seed=0)
    assert uneven.tolist() == [100, 200, 300, 400]
    cut = Cut(images=200, poses=15)
    tally = Tally.empty(quota)
    plans = first_plans(tally, 0, cut)
    assert max(len(plan.poses) for plan in plans) == 15 and max(plan.need.sum() for plan in plans) <= 211
    assert sum(plan.need.sum() for plan in plans) == 1003
    assert sorted(np.concatenate([plan.poses for plan in plans])) == list(range(100))
    tally.kept[:] = quota
    tally.kept[:20] = 3
    tally.tried[:] = 40
    bins = np.arange(100) // 50
    capacity = np.full(100, 44)
    again = refill_plans(tally, capacity, bins, 1, cut)
    poses = np.concatenate([plan.poses for plan in again])
    need = np.concatenate([plan.need for plan in again])
    assert need.sum() == tally.missing and need.max() <= 4
    assert poses.min() >= 20, "who could not fill his quota gets no more while others have room"
    assert need[bins[poses] == 0].sum() == 30 * 4, "the same pose bin comes first, as far as it has room"

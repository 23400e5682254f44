"""The pose prior: limits, coverage, coupling and collisions; capsule distances against brute force."""

from importlib.util import find_spec

import numpy as np
import pytest
from numpy.typing import NDArray

from handaug.data_specs.errors import InputError
from handaug.render.pose_prior import ANGLES, KINDS, LIMITS, HandPose, sample_kind, sample_pose

N = 2000


@pytest.fixture(scope="module")
def draws() -> NDArray[np.float64]:
    """(N, 24) angles."""
    rng = np.random.default_rng(0)
    return np.stack([sample_pose(rng).angles for _ in range(N)])


def test_limits_are_never_exceeded(draws: NDArray[np.float64]) -> None:
    assert LIMITS.shape == (len(ANGLES), 2) and (LIMITS[:, 0] < LIMITS[:, 1]).all()
    assert (draws >= LIMITS[:, 0]).all() and (draws <= LIMITS[:, 1]).all()
    at_a_limit = (draws == LIMITS[:, 0]) | (draws == LIMITS[:, 1])
    assert at_a_limit.mean(0).max() < 0.01  # reflected, not piled up


def test_limits_are_within_published_ranges() -> None:
    """Active motion by the AAOS (1965): no joint goes further than people do."""
    published: dict[str, tuple[float, float]] = {"wrist_flexion": (-70, 80), "wrist_deviation": (-30, 20)}
    published |= {"thumb_mcp_flexion": (-10, 50), "thumb_ip_flexion": (-20, 80), "thumb_cmc_flexion": (-26.5, 27)}
    for finger in ("index", "middle", "ring", "little"):
        published |= {f"{finger}_mcp_flexion": (-45, 90), f"{finger}_pip_flexion": (-5, 100)}
        published |= {f"{finger}_dip_flexion": (-10, 90)}
    for name, (low, high) in published.items():
        ours = np.degrees(LIMITS[ANGLES.index(name)])
        assert low <= ours[0] + 1e-9 and ours[1] <= high + 1e-9


def test_every_range_is_covered(draws: NDArray[np.float64]) -> None:
    """Both outer quarters of each angle's range are reached by at least 1 % of poses."""
    share = (draws - LIMITS[:, 0]) / (LIMITS[:, 1] - LIMITS[:, 0])
    for angle, name in enumerate(ANGLES):
        assert (share[:, angle] < 0.25).mean() > 0.01, name
        assert (share[:, angle] > 0.75).mean() > 0.01, name


def test_dip_follows_pip_and_abduction_fades(draws: NDArray[np.float64]) -> None:
    """Slope of DIP on PIP about 2/3; the spread of bent fingers is less than half of that of straight ones."""
    for finger in ("index", "middle", "ring", "little"):
        pip, dip, mcp, abduction = (
            draws[:, ANGLES.index(f"{finger}_{part}")]
            for part in ("pip_flexion", "dip_flexion", "mcp_flexion", "mcp_abduction")
        )
        assert np.polyfit(pip, dip, 1)[0] == pytest.approx(2 / 3, abs=0.06)
        bent = mcp > np.radians(65)
        assert bent.mean() > 0.05
        assert abduction[bent].std() < 0.5 * abduction[mcp < np.radians(20)].std()


def test_the_same_seed_draws_the_same_pose(draws: NDArray[np.float64]) -> None:
    rng = np.random.default_rng(0)
    assert np.array_equal(np.stack([sample_pose(rng).angles for _ in range(20)]), draws[:20])
    assert not np.array_equal(sample_pose(np.random.default_rng(1)).angles, draws[0])


def test_kinds_are_drawn_by_their_shares_and_differ() -> None:
    rng = np.random.default_rng(2)
    drawn = [sample_kind(rng) for _ in range(4000)]
    assert sum(KINDS.values()) == pytest.approx(1)
    for kind, share in KINDS.items():
        assert drawn.count(kind) / len(drawn) == pytest.approx(share, abs=0.03)
    bend = {kind: np.mean([sample_pose(rng, kind)["middle_pip_flexion"] for _ in range(60)]) for kind in KINDS}
    assert bend["open"] < np.radians(12) < np.radians(15) < bend["relaxed"] < np.radians(60) < bend["fist"]


def test_a_pose_is_checked_and_frozen() -> None:
    pose = HandPose.from_degrees(index_pip_flexion=90)
    assert pose["index_pip_flexion"] == pytest.approx(np.pi / 2) and pose["wrist_flexion"] == 0
    with pytest.raises(ValueError):
        pose.angles[0] = 1
    with pytest.raises(InputError, match="24 finite angles"):
        HandPose(np.zeros(5))
    with pytest.raises(InputError, match="unknown angle index_knee"):
        HandPose.from_degrees(index_knee=3)


def test_rotations_are_rotations() -> None:
    pose = sample_pose(np.random.default_rng(3))
    turns = pose.rotations(np.zeros(len(ANGLES)))
    assert len(turns) == 18  # wrist, two metacarpals, three bones of five fingers
    for matrix in turns.values():
        assert np.allclose(matrix @ matrix.T, np.eye(3)) and np.linalg.det(matrix) == pytest.approx(1)
    assert np.trace(turns["finger3-2"]) == pytest.approx(1 + 2 * np.cos(pose["middle_pip_flexion"]))
    assert all(np.allclose(matrix, np.eye(3)) for matrix in pose.rotations(pose.angles).values())


def test_segment_distance_against_brute_force() -> None:
    from handaug.render.penetration import segment_distance

    rng = np.random.default_rng(4)
    p0, p1, q0, q1 = rng.normal(size=(4, 60, 3))
    q1[:10] = q0[:10] + (p1 - p0)[:10] * rng.uniform(-2, 2, (10, 1))  # parallel
    q0[10:15], q1[10:15] = p1[10:15], p1[10:15] + 1.0  # touching
    s = np.linspace(0, 1, 401)
    a = p0[:, None] + s[:, None] * (p1 - p0)[:, None]
    b = q0[:, None] + s[:, None] * (q1 - q0)[:, None]
    brute = np.array([np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1)).min() for x, y in zip(a, b, strict=True)])
    ours = segment_distance(p0, p1, q0, q1)
    assert (ours <= brute + 1e-9).all() and (brute - ours).max() < 0.02
    assert np.allclose(ours[10:15], 0, atol=1e-9)


@pytest.mark.skipif(find_spec("anny") is None, reason="the hand model needs anny")
class TestClearPoses:
    """Fingers keep out of each other (needs the hand model)."""

    def test_collisions_are_rare(self) -> None:
        from handaug.render.clear_pose import sample_clear_pose
        from handaug.render.hand import HandModel
        from handaug.render.penetration import ALLOWED_DEPTH, penetration

        model = HandModel.load()
        rest = model.rest(model.mean_shape)
        radii = model.radii(rest)
        assert radii.shape == (19,) and (radii > 0.003).all() and (radii < 0.025).all()
        rng = np.random.default_rng(5)
        poses = [sample_clear_pose(rng, model, rest).pose for _ in range(300)]
        depth = np.array([penetration(model.joints(rest, pose), radii) for pose in poses])
        assert (depth > ALLOWED_DEPTH).mean() < 0.03
        again = np.random.default_rng(5)
        assert np.array_equal(sample_clear_pose(again, model, rest).pose.angles, poses[0].angles)
        curled = np.mean([pose["middle_pip_flexion"] > np.radians(75) for pose in poses])
        assert curled > 0.12  # fists are not rejected away

    def test_a_thumb_through_the_index_is_found(self) -> None:
        from handaug.render.hand import HandModel
        from handaug.render.penetration import ALLOWED_DEPTH, penetration

        model = HandModel.load()
        rest = model.rest(model.mean_shape)
        radii = model.radii(rest)
        apart = model.joints(rest, HandPose(model.rest_angles)).astype(float)
        assert penetration(apart, radii) < 0
        crossed = apart.copy()
        crossed[4] = 2 * crossed[7] - crossed[3]  # the thumb's last bone passes through the index finger's DIP
        assert penetration(crossed, radii) > ALLOWED_DEPTH

"""Appearances: what they are a function of, how they are shared out, how they are metered."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from scipy.spatial.transform import Rotation

from handaug.data_specs.errors import InputError
from handaug.render.appearance import sample_appearance
from handaug.render.appearance_factors import APPEARANCE_FACTORS, appearance_factors
from handaug.render.backdrop import backdrop, image_files, load_background
from handaug.render.config import RenderConfig, split_of
from handaug.render.environment import Panorama, directions, look_up
from handaug.render.lighting import measure, rotation_matrix
from handaug.render.scene import SKIN_LAYOUTS, Appearance


def many(n: int = 600) -> list[Appearance]:
    return [sample_appearance(4, i, environments=8) for i in range(n)]


def test_an_appearance_is_a_function_of_seed_and_number() -> None:
    assert sample_appearance(1, 5, environments=8) == sample_appearance(1, 5, environments=8)
    assert sample_appearance(1, 5, environments=8) != sample_appearance(2, 5, environments=8)
    other = sample_appearance(1, 5, environments=3)
    assert other == replace(sample_appearance(1, 5, environments=8), environment=other.environment)


def test_identities_differ_between_numbers_seeds_and_libraries() -> None:
    found = {
        sample_appearance(s, i, environments=8, library=x).identity for s in (0, 1) for i in range(50) for x in "ab"
    }
    assert len(found) == 200 and all(0 <= i < 2**63 for i in found)


def recorded(a: Appearance, behind: Appearance | None = None) -> dict[str, float]:
    assert len(set(APPEARANCE_FACTORS)) == len(APPEARANCE_FACTORS)
    return dict(zip(APPEARANCE_FACTORS, appearance_factors(a, behind or a).tolist(), strict=True))


def test_every_number_of_an_appearance_is_recorded_under_its_name() -> None:
    for a in many(20):
        known = recorded(a)
        assert known["tone"] == pytest.approx(a.skin.tone) and known["nail_green"] == pytest.approx(a.skin.nail[1])
        assert known["backdrop_blur"] == pytest.approx(a.backdrop.blur)
        assert known["blur"] == pytest.approx(a.sensor.blur)
        assert known["environment"] == a.environment
        assert [known[f"lamp_1_direction_{axis}"] for axis in "xyz"] == pytest.approx(a.lamps[0].direction)
        assert math.isnan(known["lamp_2_share"]) == (len(a.lamps) == 1)
        assert [known[f"rotation_{axis}"] for axis in "wxyz"] == pytest.approx(a.rotation)
        assert all(known[f"backdrop_{name}"] == known[name] for name in ("environment", "rotation_w", "rotation_z"))
    lit, behind = many(2)
    known = recorded(lit, behind)
    assert known["environment"] == lit.environment and known["backdrop_environment"] == behind.environment
    assert [known[f"backdrop_rotation_{axis}"] for axis in "wxyz"] == pytest.approx(behind.rotation)
    a = next(a for a in many(20) if len(a.lamps) == 2)
    known = recorded(a)
    first, second = a.lamps
    parts: list[tuple[str, Any, Callable[[Any], Appearance]]] = [
        ("", a.skin, lambda skin: replace(a, skin=skin)),
        ("lamp_1_", first, lambda lamp: replace(a, lamps=(lamp, second))),
        ("lamp_2_", second, lambda lamp: replace(a, lamps=(first, lamp))),
        ("backdrop_", a.backdrop, lambda backdrop: replace(a, backdrop=backdrop)),
        ("", a.sensor, lambda sensor: replace(a, sensor=sensor)),
    ]
    for prefix, part, wearing in parts:
        for field in fields(part):
            value = getattr(part, field.name)
            more = tuple(x + 1 for x in value) if isinstance(value, tuple) else value + 1
            found = recorded(wearing(replace(part, **{field.name: more})))
            changed = {name for name in known if found[name] != known[name]}
            assert all(found[name] == pytest.approx(known[name] + 1, abs=1e-5) for name in changed)
            assert len(changed) == (len(value) if isinstance(value, tuple) else 1)
            assert all(name.startswith(prefix + field.name) for name in changed)


def test_tones_are_uniform_from_light_to_very_dark() -> None:
    tones = [a.skin.tone for a in many()]
    # A uniform sample fails this once in 1,000 seeds; the seed is fixed.
    assert stats.kstest(tones, "uniform").pvalue > 1e-3
    assert np.corrcoef(tones, [sum(a.skin.color) for a in many()])[0, 1] < -0.9


def test_lines_and_veins_run_in_all_their_ways_alike() -> None:
    counts = Counter(sample_appearance(0, k, environments=8).skin.layout for k in range(800))
    assert set(counts) == set(range(SKIN_LAYOUTS))
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 500), st.floats(0.3, 1.0), st.floats(0.3, 1.0))
def test_older_skin_is_never_smoother_and_has_the_same_colours(number: int, one: float, two: float) -> None:
    skin = sample_appearance(0, number, environments=8).skin
    young, old = skin.at_age(min(one, two)), skin.at_age(max(one, two))
    assert all(getattr(young, name) <= getattr(old, name) for name in ("crease", "vein", "tendon", "bump"))
    assert 0 <= old.vein <= 1
    assert replace(young, crease=0, vein=0, tendon=0, bump=0) == replace(old, crease=0, vein=0, tendon=0, bump=0)
    assert skin.at_age(2 / 3) == skin


def test_lamps_stand_mostly_before_the_hand() -> None:
    lamps = [lamp for a in many() for lamp in a.lamps]
    towards = np.array([lamp.direction for lamp in lamps])
    np.testing.assert_allclose(np.linalg.norm(towards, axis=1), 1)
    assert 0.75 < (towards[:, 2] < 0).mean() < 0.85  # four of five
    assert all(len(a.lamps) in (1, 2) for a in many())
    assert min(lamp.distance for lamp in lamps) > 1.1  # a hand is less than one unit across


def test_the_horizon_stays_roughly_level() -> None:
    turns = Rotation.from_quat(np.roll([a.rotation for a in many()], -1, axis=1))
    up = turns.apply([0, -1, 0])  # up in the camera's frame
    ahead = turns.apply([0, 0, 1])
    assert np.median(up[:, 2]) > 0.7
    azimuth = np.arctan2(ahead[:, 1], ahead[:, 0])
    assert stats.kstest((azimuth + math.pi) / (2 * math.pi), "uniform").pvalue > 1e-3


def test_rotation_matrix_agrees_with_scipy() -> None:
    a = sample_appearance(0, 3, environments=8)
    np.testing.assert_allclose(
        rotation_matrix(a.rotation), Rotation.from_quat(np.roll(a.rotation, -1)).as_matrix(), atol=1e-12
    )


def test_looking_up_a_direction_finds_its_pixel() -> None:
    d = directions(32, 64)
    np.testing.assert_allclose(np.linalg.norm(d, axis=-1), 1)
    np.testing.assert_allclose(look_up(d.astype(np.float32), d), d, atol=1e-6)


def bare(environment_share: float, **changes: object) -> Appearance:
    a = sample_appearance(0, 0, environments=8)
    return replace(a, environment_share=environment_share, lamps=(), **changes)  # type: ignore[arg-type]


def test_exposure_in_a_white_furnace() -> None:
    """In uniform light of radiance s a surface of albedo a shows s a: the exposure is goal / (s a)."""
    a = bare(0.5)
    light = measure(a, np.full((64, 128, 3), 3.0, np.float32), 3)
    assert light.environment_strength == pytest.approx(0.5 / 3, rel=1e-5)
    albedo = float(np.array(a.skin.color) @ [0.2126, 0.7152, 0.0722])
    goal = 0.27 * (albedo / 0.33) ** 0.65 * 2**a.sensor.exposure_value
    assert light.exposure == pytest.approx(goal / (0.5 * albedo), rel=2e-3)
    np.testing.assert_allclose(light.balance, 1, rtol=1e-6)


def test_a_lamp_beside_the_camera_lights_two_thirds() -> None:
    """The mean over a sphere's picture of the cosine to the viewer is 2/3."""
    a = bare(1.0)
    lamp = replace(sample_appearance(0, 0, environments=8).lamps[0], direction=(0, 0, -1), share=1.5, color=(1, 1, 1))
    panorama = np.ones((64, 128, 3), np.float32)
    ratio = measure(a, panorama, 3).exposure / measure(replace(a, lamps=(lamp,)), panorama, 3).exposure
    assert ratio == pytest.approx(1 + 1.5 * 2 / 3, rel=5e-3)


def test_white_balance_takes_out_the_colour_of_the_light() -> None:
    sensor = replace(sample_appearance(0, 0, environments=8).sensor, white_balance=1.0)
    panorama = np.full((64, 128, 3), (2.0, 1.0, 0.5), np.float32)
    balance = np.array(measure(bare(1.0, sensor=sensor), panorama, 3).balance)
    np.testing.assert_allclose(balance * [2, 1, 0.5] / balance[1], 1, rtol=1e-5)


def test_a_backdrop_is_the_users_picture_in_linear_light(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 60, 3), 128, np.uint8)).save(tmp_path / "grey.png")
    picture = load_background(image_files(tmp_path, "--backgrounds", (".png",))[0])
    np.testing.assert_allclose(picture, ((128 / 255 + 0.055) / 1.055) ** 2.4, rtol=1e-5)
    a = sample_appearance(0, 0, environments=8, backgrounds=1)
    panorama = np.ones((64, 128, 3), np.float32)
    behind = backdrop(a, measure(a, panorama, 3), Panorama(panorama), picture, 32)
    assert behind.shape == (32, 32, 3)
    np.testing.assert_allclose(behind, picture[0, 0, 0] * a.backdrop.gain, rtol=1e-4)


def test_unreadable_or_absent_backgrounds_name_the_option(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--backgrounds"):
        image_files(tmp_path, "--backgrounds", (".png",))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="broken.png"):
        load_background(tmp_path / "broken.png")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 3), st.integers(12, 200), st.integers(0, 3))
def test_appearances_are_shared_out_fairly(poses: int, k: int, pool: int, seed: int) -> None:
    config = RenderConfig(poses=poses, appearances=k, appearance_pool=pool, seed=seed)
    seen: dict[int, Counter[int]] = {0: Counter(), 1: Counter(), 2: Counter()}
    for pose in range(poses):
        worn = config.wardrobe.worn_by(pose)
        assert len(set(worn)) == k
        assert all(0 <= a < pool for a in worn)
        seen[split_of(pose)].update(worn)
    assert not set(seen[0]) & set(seen[1]) and not set(seen[0]) & set(seen[2]) and not set(seen[1]) & set(seen[2])
    for split, uses in seen.items():
        own = sum(split_of(pose) == split for pose in range(poses))
        if own >= 2:
            assert min(uses.values()) >= 2, "an appearance needs two poses"
            assert max(uses.values()) - min(uses.values()) <= 1


def test_any_eight_poses_fill_all_splits() -> None:
    assert {split_of(i) for i in range(8)} == {0, 1, 2}
    assert Counter(split_of(i) for i in range(1000)) == {0: 800, 1: 100, 2: 100}


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"poses": 0}, "--poses"),
        ({"appearances": 0}, "--appearances"),
        ({"appearances": 4, "appearance_pool": 3}, "--appearance-pool"),
        ({"size": 7}, "--size"),
        ({"size": 2000}, "--size"),
        ({"channels": "grey"}, "--channels"),
        ({"quality": "best"}, "--quality"),
        ({"hands": "three"}, "--hands"),
        ({"seed": -1}, "--seed"),
        ({"hdris": "/nowhere"}, "--hdris"),
        ({"backgrounds": "/nowhere"}, "--backgrounds"),
    ],
)
def test_wrong_values_name_their_option(changes: dict[str, object], flag: str) -> None:
    with pytest.raises(InputError, match=flag):
        RenderConfig(**changes)  # type: ignore[arg-type]

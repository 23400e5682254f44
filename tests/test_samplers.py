"""Mixes, the pose library, limits and couplings of every kind of pose, skin tones, surroundings, rough sensors."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from test_sensor import PERFECT, light, rng

from handaug.data_specs.errors import InputError
from handaug.render.appearance import sample_appearance
from handaug.render.config import CHOICES, RenderConfig
from handaug.render.environment import Panorama, Room, Sky, directions, make_surrounding
from handaug.render.mix import mix_text, parse_mix
from handaug.render.pose_library import GRASPS, NAMED, PARTS, named_degrees, synergies
from handaug.render.pose_prior import ANGLES, KINDS, LIMITS, sample_pose
from handaug.render.scene import Sensor
from handaug.render.seeds import Factor, Kind, generator
from handaug.render.sensor import develop, smear
from handaug.render.skin_model import (
    MELANIN,
    MONK,
    TYPICAL_BLOOD,
    cielab,
    melanin_of_tone,
    nearest_monk,
    skin_reflectance,
)

# -- mixes


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1e6, allow_subnormal=False), min_size=1))
def test_mixes_are_read_back(weights: dict[str, float]) -> None:
    total = sum(float(f"{w:g}") for w in weights.values())
    if total <= 0:
        with pytest.raises(InputError, match="all weights are zero"):
            parse_mix(mix_text(weights), "abcdef", "--x")
        return
    found = parse_mix(mix_text(weights), "abcdef", "--x")
    assert list(found) == sorted(name for name in weights if float(f"{weights[name]:g}") / total > 0)
    assert sum(found.values()) == pytest.approx(1)
    for name, weight in found.items():
        assert weight == pytest.approx(float(f"{weights[name]:g}") / total)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("held=0,front=0", "all weights are zero"),
        ("held=-1", "-1"),
        ("held=nan", "nan"),
        ("held=inf", "inf"),
        ("held=two", "two"),
        ("held=", "''"),
        ("", "''"),
        ("held,held", "twice"),
        ("mouth=1", "mouth"),
        ("held=1;front=2", "1;front=2"),
    ],
)
def test_impossible_mixes_name_option_and_reason(text: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_mix(text, CHOICES["occluder_kinds"], "--occluder-kinds")
    assert "--occluder-kinds" in str(refused.value) and words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "factor"), [("camera", Factor.PRESET), ("clothing", Factor.CLOTHING)])
def test_choices_are_drawn_by_their_weights(name: str, factor: Factor) -> None:
    """Chi-square of 3,000 poses; fails once in a thousand seeds, and the seed is fixed."""
    from handaug.render.posing import _choose

    asked = {option: float(k + 1) for k, option in enumerate(CHOICES[name])}
    config = RenderConfig(**{name: mix_text(asked)})  # type: ignore[arg-type]
    drawn = [_choose(generator(0, Kind.POSE, pose, factor), config, name) for pose in range(3000)]
    expected = np.array(list(asked.values())) / sum(asked.values()) * len(drawn)
    assert stats.chisquare([drawn.count(option) for option in asked], expected).pvalue > 1e-3


def test_environments_are_drawn_by_their_weights() -> None:
    mix = parse_mix("photo=1,room=2,sky=1", CHOICES["environments"], "--environments")
    kinds = [type(sample_appearance(0, i, environments=8, surroundings=mix).surrounding) for i in range(400)]
    counts = [kinds.count(kind) for kind in (type(None), Room, Sky)]
    assert stats.chisquare(counts, [100, 200, 100]).pvalue > 1e-3


# -- poses


def test_the_library_is_whole_and_within_the_limits() -> None:
    assert [name[:2] for name in GRASPS] == [f"{k:02d}" for k in range(1, 34)]
    assert len(NAMED) >= 33 + 30
    for name in NAMED:
        for angle, value in named_degrees(name).items():
            low, high = np.degrees(LIMITS[ANGLES.index(angle)])
            assert low - 1e-9 <= value <= high + 1e-9, (name, angle, value)
    table = np.array([list(named_degrees(name).values()) for name in NAMED])
    assert len(np.unique(table.round(3), axis=0)) == len(NAMED)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_limits_and_couplings(kind: str) -> None:
    """No angle beyond its limits; DIP within reach of two thirds of PIP; bent fingers hardly spread."""
    draw = np.random.default_rng(list(KINDS).index(kind))
    angles = np.stack([sample_pose(draw, kind).angles for _ in range(150)])
    assert (angles >= LIMITS[:, 0]).all() and (angles <= LIMITS[:, 1]).all()
    degrees = {name: np.degrees(angles[:, k]) for k, name in enumerate(ANGLES)}
    for finger in PARTS:
        off = degrees[f"{finger}_dip_flexion"] - degrees[f"{finger}_pip_flexion"] * 2 / 3
        # Reflecting at the limits may move either joint by what it was beyond them.
        assert np.abs(off).max() < (40 if kind != "pinch" else 60)
        bent = degrees[f"{finger}_mcp_flexion"] > 75
        if bent.sum() > 5:
            assert np.ptp(degrees[f"{finger}_mcp_abduction"][bent]) < 22


def test_synergies_span_the_library() -> None:
    names, mean, components, deviation = synergies()
    table = np.array([[named_degrees(name)[angle] for angle in names] for name in NAMED])
    np.testing.assert_allclose(components @ components.T, np.eye(len(components)), atol=1e-9)
    assert (np.diff(deviation) <= 1e-9).all()
    scores = (table - mean) @ components.T
    np.testing.assert_allclose(mean + scores @ components, table, atol=1e-9)
    np.testing.assert_allclose(scores.std(0, ddof=1), deviation, atol=1e-9)
    share = np.cumsum(deviation**2) / (deviation**2).sum()
    assert share[1] > 0.6 and share[4] > 0.85  # few components hold most, as in people (Santello et al. 1998)


def test_named_poses_are_drawn_near_the_library() -> None:
    """Two in three lie about one entry: within twice the tremor of 4.5 degrees, root mean square over the angles."""
    draw = np.random.default_rng(0)
    names = list(named_degrees("fist"))
    table = np.array([[named_degrees(name)[angle] for angle in names] for name in NAMED])
    near = []
    for _ in range(200):
        pose = np.degrees(sample_pose(draw, "named").angles)[[ANGLES.index(name) for name in names]]
        near.append(np.sqrt(((table - pose) ** 2).mean(1)).min())
    assert 0.6 < (np.array(near) < 9).mean() <= 1 and np.median(near) > 1.5


# -- skin


def test_tones_cover_the_whole_monk_scale() -> None:
    tones = np.linspace(0, 1, 201)
    assert {nearest_monk(float(tone)) for tone in tones} == set(range(1, 11))
    drawn = [sample_appearance(0, i, environments=8).skin.tone for i in range(400)]
    counts = np.bincount([nearest_monk(tone) for tone in drawn], minlength=11)[1:]
    # The scale's three lightest tones lie close together, and skin is uniform in the logarithm of its reflectance.
    assert (counts >= 1).all() and (counts[3:] >= 20).all()
    # Measured skin has L* of about 25 to 70 (Xiao et al., Skin Research and Technology 23, 2017); the scale's swatches
    # go beyond it at both ends, and its tones 6 to 8 are matched as they are, but for their hue.
    ramp = np.array([cielab(skin_reflectance(melanin_of_tone(float(t)), TYPICAL_BLOOD))[0] for t in tones])
    assert (np.diff(ramp) < 0).all() and ramp[0] > 65 and ramp[-1] < 26
    for swatch in cielab(_linear(MONK))[5:8]:
        assert np.abs(ramp - swatch[0]).min() < 0.6


def _linear(codes: tuple[str, ...]) -> NDArray[np.float64]:
    srgb = np.array([[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for code in codes])
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def test_skin_reacts_to_melanin_and_blood_as_skin_does() -> None:
    for melanin in np.geomspace(*MELANIN, 6):
        pale, red = skin_reflectance(melanin, 0.004), skin_reflectance(melanin, 0.03)
        assert red[1] / red[0] < pale[1] / pale[0]  # blood takes green, leaves red
        blue, rosy = skin_reflectance(melanin, 0.03, oxygen=0.4), skin_reflectance(melanin, 0.03, oxygen=0.98)
        assert rosy[0] > blue[0]
        assert (0 < pale).all() and (pale < 1).all() and pale[0] > pale[1] > pale[2]
    # CIE L*a*b* of white, black and sRGB red (published: 53.24, 80.09, 67.20).
    expected = np.array([[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]])
    np.testing.assert_allclose(cielab(np.array([[1.0, 1, 1], [0, 0, 0], [1, 0, 0]])), expected, atol=0.05)


# -- surroundings


def test_rooms_and_skies_are_functions_of_their_generator() -> None:
    d = directions(16, 32)
    for kind in ("room", "sky"):
        one, again, other = (make_surrounding(np.random.default_rng(s), kind).radiance(d) for s in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert np.abs(one - other).mean() > 0.02
        assert np.isfinite(one).all() and (one >= 0).all() and one.shape == (16, 32, 3)


def test_the_walls_of_a_room_stand_where_a_march_finds_them() -> None:
    """Second implementation: walk along each ray until outside the box or inside a piece of furniture."""
    for seed in range(3):
        room = Room(np.random.default_rng(seed))
        d = np.random.default_rng(9).normal(size=(60, 3))
        d /= np.linalg.norm(d, axis=1, keepdims=True)
        steps = room.eye + d[:, None] * np.arange(0.06, 12, 0.004)[:, None]
        out = (np.abs(steps) > room.half).any(2)
        boxes = np.zeros_like(out)
        for low, high in zip(room.low, room.high, strict=True):
            boxes |= ((steps > low) & (steps < high)).all(2)
        first_wall, first_box = out.argmax(1), np.where(boxes.any(1), boxes.argmax(1), 10**6)
        furniture = first_box < first_wall
        if furniture.sum() < 3:
            continue
        # Paint everything but the furniture black: what shines is furniture.
        room.colours[:] = 0
        room.panels, room.lamp_light = [], 0.0
        room.furniture[:] = 1.0
        shines = room.radiance(d).max(1) > 0.02
        assert (shines != furniture).sum() <= 2


def test_the_sun_is_the_brightest_place_of_a_clear_sky() -> None:
    found = 0
    for seed in range(12):
        sky = Sky(np.random.default_rng(seed))
        if sky.sun_light < 20:
            continue
        found += 1
        d = directions(90, 180)
        light = sky.radiance(d).sum(-1)
        at = d[np.unravel_index(light.argmax(), light.shape)]
        assert at @ sky.sun > np.cos(np.radians(3)) or light.max() < sky.radiance(sky.sun[None]).sum() + 1e-6
        assert sky.radiance(np.array([[0.0, 0, -1]])).max() < 2
    assert found >= 3
    assert Panorama(np.ones((8, 16, 3), np.float32)).radiance(directions(4, 8)).mean() == pytest.approx(1)


# -- rough sensors


def test_movement_and_defocus_spread_a_point_by_their_width() -> None:
    picture = np.zeros((65, 65, 4), np.float32)
    picture[32, 32] = 1.0
    way = (0.12, -0.06)
    smeared = smear(picture, replace(PERFECT, motion=way))
    y, x = np.mgrid[:65, :65] - 32
    total = smeared[..., 0].sum()
    assert total == pytest.approx(1, rel=1e-4)
    assert abs((smeared[..., 0] * x).sum()) < 1e-3 and abs((smeared[..., 0] * y).sum()) < 1e-3  # labels stay true
    # A uniform line of length L has variance L^2 / 12 along it.
    assert (smeared[..., 0] * x**2).sum() == pytest.approx(
        (way[0] * 65) ** 2 / 12, abs=0.5
    )  # bilinear spots add up to 1/4
    assert (smeared[..., 0] * x * y).sum() == pytest.approx(way[0] * way[1] * 65**2 / 12, abs=0.15)
    disc = smear(picture, replace(PERFECT, defocus=0.08))[..., 3]
    assert disc.sum() == pytest.approx(1, rel=1e-4)
    radius = 0.08 * 65
    assert (disc * (x**2 + y**2)).sum() == pytest.approx(radius**2 / 2, rel=0.1)
    np.testing.assert_array_equal(smear(picture, PERFECT), picture)


def test_contrast_turns_about_middle_grey() -> None:
    levels = np.linspace(0.01, 0.6, 64)
    ramp = np.repeat(levels[None, :, None], 3, 2).repeat(64, 0).astype(np.float32)
    straight, steep, soft = (
        develop(ramp, replace(PERFECT, contrast=c), 1, rng())[0, :, 0].astype(float) for c in (1.0, 1.3, 0.8)
    )
    dark, bright = straight < 110, straight > 145
    assert (steep[dark] < straight[dark]).all() and (soft[dark] > straight[dark]).all()
    assert (steep[bright] >= straight[bright]).all() and (np.diff(steep) >= 0).all()


def test_temperature_casts_colour_and_leaves_mono_alone() -> None:
    warm = replace(PERFECT, temperature=0.4)
    picture = light(8, 0.2, 0.2, 0.2)
    r, g, b = develop(picture, warm, 3, rng())[0, 0].astype(int)
    assert r > g > b and g == develop(picture, PERFECT, 3, rng())[0, 0, 1]
    np.testing.assert_array_equal(develop(picture, warm, 1, rng()), develop(picture, PERFECT, 1, rng()))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_costs_detail_and_keeps_the_mean(channels: int) -> None:
    picture = np.random.default_rng(0).uniform(0, 0.6, (32, 32, 3)).astype(np.float32)
    plain = develop(picture, PERFECT, channels, rng()).astype(int)
    errors = []
    for quality in (90, 30):
        packed = develop(picture, replace(PERFECT, jpeg=quality), channels, rng())
        assert packed.shape == plain.shape and packed.dtype == np.uint8
        errors.append(np.abs(packed.astype(int) - plain).mean())
        assert packed.mean() == pytest.approx(plain.mean(), abs=3)
    assert 0 < errors[0] < errors[1]


def test_presets_of_the_sensor_are_what_they_say() -> None:
    chips: dict[str, list[Sensor]] = {
        name: [sample_appearance(0, i, environments=8, sensor=name).sensor for i in range(150)]
        for name in ("clean", "standard", "rough")
    }
    for chip in chips["clean"]:
        assert chip.blur == chip.vignetting == chip.shot_noise == chip.read_noise == chip.defocus == chip.jpeg == 0
    assert all(chip.jpeg == 0 and chip.motion == (0, 0) for chip in chips["standard"])
    rough = chips["rough"]
    assert np.mean([chip.motion != (0, 0) for chip in rough]) == pytest.approx(0.35, abs=0.12)
    assert np.mean([chip.defocus > 0 for chip in rough]) == pytest.approx(0.25, abs=0.11)
    assert np.mean([chip.jpeg > 0 for chip in rough]) == pytest.approx(0.6, abs=0.12)
    assert np.mean([c.shot_noise for c in rough]) > 1.5 * np.mean([c.shot_noise for c in chips["standard"]])
    one, other = (sample_appearance(0, 3, environments=8, sensor=s).identity for s in ("standard", "rough"))
    assert one != other

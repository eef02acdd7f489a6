"""Street scenes: the arguments decide every byte, and labels are what was drawn."""

import hashlib
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from clouds_jax import streets
from clouds_jax.streets.layout import Thing
from clouds_jax.streets.renderer import far_to_near

SMALL = (128, 256)
SEEN = 12  # pictures over which every class must occur
# Shares of pixels in percent over many pictures, least and most.
SHARES = {
    "road": (0, 22.0, 48.0),
    "sidewalk": (1, 1.5, 14.0),
    "building": (2, 4.0, 40.0),
    "vegetation": (8, 4.0, 35.0),
    "sky": (10, 1.5, 20.0),
    "car": (13, 2.0, 18.0),
}
# Sizes of the instruction sets beyond the oldest that the libraries can do without.
PLAIN_MACHINE = {
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL",
    "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,FMA3,FP16,AVX,SSE4.2,SSE4.1,SSSE3,POPCNT",
    "OPENCV_IPP": "disabled",
}


def digest(domain: str, index: int) -> str:
    image, label = streets.render(domain, 7, index, SMALL)
    return hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def many() -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Some pictures of each city by day."""
    return {
        city: [streets.render(f"{city}-day", 3, index, SMALL) for index in range(SEEN)]
        for city in ("oldtown", "newtown", "suburb")
    }


def test_there_are_at_least_two_cities_under_six_conditions():
    cities, conditions = zip(*(name.split("-") for name in streets.DOMAINS), strict=True)
    assert len(set(cities)) >= 2
    assert set(conditions) == {"day", "dusk", "night", "rain", "fog", "snow"}
    assert len(streets.DOMAINS) == len(set(cities)) * 6
    assert all(domain.name == name for name, domain in streets.DOMAINS.items())


@pytest.mark.parametrize("domain", streets.DOMAINS)
def test_pictures_hold_known_classes_only_and_all_is_labelled(domain):
    image, label = streets.render(domain, 0, 0, SMALL)
    assert image.shape == (*SMALL, 3) and image.dtype == np.uint8
    assert label.shape == SMALL and label.dtype == np.uint8
    assert label.max() < 19
    assert image.std() > 5


@pytest.mark.slow
def test_pictures_do_not_depend_on_what_was_drawn_before():
    names = ["oldtown-snow", "newtown-night", "suburb-rain"]
    forward = {name: digest(name, 2) for name in names}
    streets.render("newtown-fog", 1, 1, (64, 96))
    assert {name: digest(name, 2) for name in reversed(names)} == forward


def test_pictures_are_the_same_in_another_process_without_vector_instructions():
    names = ["oldtown-day", "newtown-night", "suburb-rain"]
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_streets_render as t;"
        f"print(*(t.digest(name, 4) for name in {names}))"
    )
    folder = os.path.dirname(os.path.abspath(__file__))
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, folder],
        env={**os.environ, **PLAIN_MACHINE},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == [digest(name, 4) for name in names]


def test_seed_index_and_domain_each_change_the_picture():
    base = streets.render("oldtown-day", 0, 0, SMALL)[0]
    for other in (("oldtown-day", 1, 0), ("oldtown-day", 0, 1), ("newtown-day", 0, 0)):
        assert (streets.render(*other, SMALL)[0] != base).mean() > 0.5


@pytest.mark.slow
def test_conditions_differ_in_light():
    mean = {
        condition: np.mean([streets.render(f"oldtown-{condition}", 0, i, SMALL)[0] for i in (0, 1)])
        for condition in ("day", "night", "fog", "snow")
    }
    assert mean["night"] < 0.75 * mean["day"]
    assert mean["fog"] > mean["day"]
    assert mean["snow"] > mean["day"]


@pytest.mark.slow
def test_all_classes_occur(many):
    found = {c for pictures in many.values() for _, label in pictures for c in np.unique(label)}
    assert found == set(range(19))


@pytest.mark.slow
@pytest.mark.parametrize("city", ["oldtown", "newtown", "suburb"])
@pytest.mark.parametrize("name", SHARES)
def test_shares_are_those_of_streets(many, city, name):
    train_id, least, most = SHARES[name]
    share = 100 * np.mean([label == train_id for _, label in many[city]])
    assert least < share < most


@pytest.mark.slow
def test_sky_is_above_and_road_below(many):
    for pictures in many.values():
        labels = np.stack([label for _, label in pictures])
        assert (labels[:, -1, SMALL[1] // 2 - 20 : SMALL[1] // 2 + 20] == 0).mean() > 0.6
        assert not (labels[:, -SMALL[0] // 4 :] == 10).any()
        assert not (labels[:, : SMALL[0] // 4] == 0).any()


@pytest.mark.slow
def test_areas_of_a_class_are_evenly_coloured_where_the_label_says_so(many):
    """A label moved against its image would mix sky with roofs: sky is the brightest blue."""
    blue = [
        image[label == 10][:, 2].mean() for image, label in many["newtown"] if (label == 10).any()
    ]
    rest = [image[label == 2][:, 2].mean() for image, label in many["newtown"]]
    assert np.mean(blue) > np.mean(rest) + 20


@pytest.mark.parametrize("size", [(16, 16), (97, 131), (240, 101), (75, 400)])
def test_any_size_can_be_drawn(size):
    for domain in ("oldtown-rain", "newtown-dusk", "suburb-snow"):
        image, label = streets.render(domain, 0, 3, size)
        assert image.shape == (*size, 3) and label.shape == size
        assert label.max() < 19


def test_another_size_shows_the_same_street():
    _, large = streets.render("oldtown-day", 0, 5, (256, 512))
    _, small = streets.render("oldtown-day", 0, 5, SMALL)
    assert (large[1::2, 1::2] == small).mean() > 0.93


def test_the_number_of_threads_is_left_as_it_was():
    before = cv2.getNumThreads()
    streets.render("oldtown-day", 0, 0, (32, 64))
    assert cv2.getNumThreads() == before


def test_an_unknown_domain_is_answered_with_those_there_are():
    with pytest.raises(KeyError, match="oldtown-day.*newtown-night"):
        streets.render("oldtown-noon", 0, 0, SMALL)


def test_too_small_a_size_is_refused():
    with pytest.raises(ValueError, match=r"size is \(8, 64\)"):
        streets.render("oldtown-day", 0, 0, (8, 64))


def _thing(kind: str, x: float, z: float, length: float) -> Thing:
    return Thing(kind, x, z, (length, 2.0, 2.0), 1, 2, 0)


def test_what_stands_beyond_a_long_vehicle_is_painted_before_it():
    tram = _thing("tram", -5.0, 20.0, 18.0)
    beyond, between = _thing("truck", -9.0, 14.0, 7.0), _thing("car", -2.5, 24.0, 4.6)
    far, near = _thing("car", -5.0, 60.0, 4.6), _thing("car", -5.0, 6.0, 4.6)
    other_side = _thing("car", 5.0, 14.0, 4.6)
    order = far_to_near([near, between, other_side, tram, beyond, far], 0.0)
    kinds = [order.index(thing) for thing in (far, beyond, tram, between, near)]
    assert kinds == sorted(kinds)
    assert len(order) == 6

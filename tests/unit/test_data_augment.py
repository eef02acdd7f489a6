import colorsys

import numpy as np
import pytest
from PIL import Image

from clouds_jax.data import augment
from clouds_jax.data.augment import Augmentation, crop_offset, resize_crop, scaled_size

# Of the crop-only resize against the crop of the whole resized image: PIL rounds twice, and the
# two passes may round apart.
LEVELS = 2
LEVELS_MOST = 1
SHARE_ABOVE = 1e-4
HUE_ERROR = 0.03  # OpenCV keeps hues in steps of 2 degrees and saturations in 8 bits


def picture(h, w, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def label_of(h, w, seed=0):
    return np.random.default_rng(seed).integers(0, 19, (h, w), dtype=np.uint8)


@pytest.mark.parametrize(
    "size, base, factor, expected",
    [
        ((1046, 1914), (1052, 1914), 0.5, (523, 957)),
        ((1046, 1914), (1052, 1914), 2.0, (2092, 3828)),
        ((1052, 1914), (1052, 1914), 1.0, (1052, 1914)),
        ((720, 1280), (1024, 2048), 1.0, (1024, 1820)),
        ((3, 5), (3, 5), 0.1, (1, 1)),
        ((5, 5), (5, 5), 0.5, (2, 2)),  # 2.5 rounds to even, as in numpy
    ],
)
def test_sizes_are_rounded_as_in_detectron2(size, base, factor, expected):
    assert scaled_size(size, base, factor) == expected


def test_a_diagonal_crop_shares_one_number_between_the_axes():
    # Of a 1500 x 2500 image; observed in the original: offsets (613, 1451) and (287, 678).
    for y, x in ((613, 1451), (287, 678)):
        u = x / (2500 - 768)
        assert crop_offset((1500, 2500), (768, 768), (u, u)) == (y, x)
    assert crop_offset((700, 2500), (768, 768), (1.0, 1.0)) == (0, 1732)


@pytest.mark.parametrize("offsets, dependent", [("diagonal", True), ("independent", False)])
def test_crop_offsets_depend_on_each_other_as_asked(offsets, dependent):
    y, x = np.mgrid[:40, :40]
    image = np.stack([y, x, 0 * x], axis=-1).astype(np.uint8)
    settings = Augmentation((10, 10), (1.0, 1.0), flip=0.0, colour=False, crop_offsets=offsets)
    rng = np.random.default_rng(0)
    corners = [augment.augment(image, image[..., 0], rng, settings)[0][0, 0] for _ in range(20)]
    assert all(a == b for a, b, _ in corners) == dependent
    assert len({tuple(corner) for corner in corners}) > 5


@pytest.mark.parametrize("factor", [0.5, 0.63, 0.9, 1.0, 1.37, 2.0])
@pytest.mark.parametrize("u", [(0.0, 1.0), (0.31, 0.77)])
def test_resizing_the_crop_alone_equals_cropping_the_whole_resized_image(factor, u):
    image, label = picture(131, 203), label_of(131, 203)
    size, crop = scaled_size((131, 203), (131, 203), factor), (64, 80)
    y, x = crop_offset(size, crop, u)
    ours, ours_label = resize_crop(image, label, size, (y, x), crop)
    whole = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    error = np.abs(np.asarray(whole)[y : y + 64, x : x + 80].astype(int) - ours)
    assert error.max() <= LEVELS
    assert (error > LEVELS_MOST).mean() < SHARE_ABOVE
    rows = np.floor((np.arange(size[0]) + 0.5) * 131 / size[0]).astype(int)
    columns = np.floor((np.arange(size[1]) + 0.5) * 203 / size[1]).astype(int)
    np.testing.assert_array_equal(ours_label, label[rows][:, columns][y : y + 64, x : x + 80])


def test_small_images_are_padded_right_and_below_with_black_and_ignore():
    image, label = np.full((5, 20, 3), 7, np.uint8), np.full((5, 20), 3, np.uint8)
    ours, ours_label = resize_crop(image, label, (5, 20), (0, 2), (8, 16))
    assert (ours[:5] == 7).all() and (ours_label[:5] == 3).all()
    assert not ours[5:].any() and (ours_label[5:] == 255).all()


def test_flipping_mirrors_image_and_label_together():
    image = picture(6, 9)
    label = image[..., 0] % 19
    plain = Augmentation((6, 9), (1.0, 1.0), flip=0.0, colour=False)
    mirror = Augmentation((6, 9), (1.0, 1.0), flip=1.0, colour=False)
    a = augment.augment(image, label, np.random.default_rng(0), plain)
    b = augment.augment(image, label, np.random.default_rng(0), mirror)
    np.testing.assert_array_equal(a[0], image)
    np.testing.assert_array_equal(b[0], image[:, ::-1])
    np.testing.assert_array_equal(b[1], label[:, ::-1])


def test_flips_happen_with_their_probability():
    image = np.array([[[0] * 3, [255] * 3]], np.uint8)
    settings = Augmentation((1, 2), (1.0, 1.0), flip=0.5, colour=False)
    rng = np.random.default_rng(0)
    flips = [
        augment.augment(image, image[..., 0] % 19, rng, settings)[0][0, 0, 0] for _ in range(400)
    ]
    assert 160 < sum(value > 0 for value in flips) < 240


def test_the_same_generator_state_gives_the_same_view():
    image, label = picture(50, 70), label_of(50, 70)
    settings = Augmentation((32, 48))
    a = augment.augment(image, label, np.random.default_rng(3), settings)
    b = augment.augment(image, label, np.random.default_rng(3), settings)
    c = augment.augment(image, label, np.random.default_rng(4), settings)
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])
    assert (a[0] != c[0]).any()
    assert a[0].shape == (32, 48, 3) and a[0].flags["C_CONTIGUOUS"]


class Draws(np.random.Generator):
    """A generator that answers what the test says, to single out one step of the jitter."""

    def __init__(self, *draws):
        super().__init__(np.random.PCG64(0))
        self.draws = list(draws)

    def _next(self, *_, **__):
        return self.draws.pop(0)

    random = uniform = integers = _next


YES, NO = 0.1, 0.9
# Order of draws: brightness?, contrast first?, [contrast?], saturation?, hue?, [contrast?]


def test_brightness_shifts_clips_and_truncates():
    image = np.array([[[0, 100, 250]]], np.uint8)
    out = augment.jitter_colour(image, Draws(YES, 30.7, YES, NO, NO, NO))
    np.testing.assert_array_equal(out, [[[30, 130, 255]]])
    out = augment.jitter_colour(image, Draws(YES, -30.7, YES, NO, NO, NO))
    np.testing.assert_array_equal(out, [[[0, 69, 219]]])  # 69.3, 219.3


@pytest.mark.parametrize("draws", [(NO, YES, YES, 1.29, NO, NO), (NO, NO, NO, NO, YES, 1.29)])
def test_contrast_multiplies_and_truncates_before_or_after_the_others(draws):
    image = np.array([[[0, 101, 250]]], np.uint8)
    out = augment.jitter_colour(image, Draws(*draws))
    np.testing.assert_array_equal(out, [[[0, 130, 255]]])  # 130.29


def test_saturation_changes_the_saturation_of_rgb_alone():
    image = np.array([[[200, 100, 60]]], np.uint8)
    out = augment.jitter_colour(image, Draws(NO, YES, NO, YES, 0.5, NO))
    before, after = (colorsys.rgb_to_hsv(*(p[0, 0] / 255.0)) for p in (image, out))
    assert after[0] == pytest.approx(before[0], abs=HUE_ERROR)
    assert after[1] == pytest.approx(before[1] / 2, abs=HUE_ERROR)
    assert after[2] == pytest.approx(before[2], abs=HUE_ERROR)


@pytest.mark.parametrize("turn", [-18, 11, 18])
def test_hue_turns_by_twice_the_degrees_and_wraps(turn):
    image = np.array([[[200, 40, 60], [20, 220, 60]]], np.uint8)
    out = augment.jitter_colour(image, Draws(NO, YES, NO, NO, YES, turn))
    for before, after in zip(image[0], out[0], strict=True):
        before, after = (colorsys.rgb_to_hsv(*(p / 255.0)) for p in (before, after))
        difference = (after[0] - before[0] - turn / 180 + 0.5) % 1 - 0.5
        assert abs(difference) < HUE_ERROR
        assert after[1:] == pytest.approx(before[1:], abs=HUE_ERROR)


def test_the_jitter_equals_its_definition_step_by_step():
    cv2 = pytest.importorskip("cv2")

    def convert(values, factor=1.0, shift=0.0):
        return np.clip(values.astype(np.float32) * factor + shift, 0, 255).astype(np.uint8)

    image = picture(31, 45)
    out = augment.jitter_colour(image, Draws(YES, 17.3, NO, YES, 1.4, YES, -7, YES, 0.8))
    bgr = convert(image[..., ::-1], shift=17.3)
    hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
    hsv[..., 1] = convert(hsv[..., 1], 1.4)
    hsv = cv2.cvtColor(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), cv2.COLOR_BGR2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) - 7) % 180
    expected = convert(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), 0.8)
    np.testing.assert_array_equal(out, expected[..., ::-1])


def test_the_padding_is_jittered_too():
    image, label = np.full((4, 4, 3), 90, np.uint8), np.zeros((4, 4), np.uint8)
    settings = Augmentation((8, 8), (1.0, 1.0), flip=0.0)
    corners = [
        augment.augment(image, label, np.random.default_rng(seed), settings)[0][-1, -1].max()
        for seed in range(40)
    ]
    assert max(corners) > 5 and min(corners) == 0


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(crop=(0, 5)), "at least 1 pixel"),
        (dict(crop=(5, 5), scale=(2.0, 0.5)), "0 < lo <= hi"),
        (dict(crop=(5, 5), flip=2.0), "probability"),
        (dict(crop=(5, 5), crop_offsets="diag"), "'diag' is unknown; allowed: diagonal, indep"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)

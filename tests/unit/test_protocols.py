"""Sizes, windows and the averaging of scores, against hand numbers and a slow loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.evaluation import protocols

FLOAT = dict(rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "size, want",
    [
        ((1024, 2048), (1024, 2048)),  # Cityscapes
        ((720, 1280), (1024, 1820)),  # BDD100K
        ((1080, 1920), (1024, 1820)),  # ACDC
        ((2448, 3264), (1024, 1365)),  # Mapillary
        ((3264, 2448), (1365, 1024)),
        ((600, 600), (1024, 1024)),
    ],
)
def test_clouds_makes_the_short_side_1024(size, want):
    assert protocols.input_size(size, protocols.get_protocol("clouds")) == want


def test_native_leaves_image_and_label_alone():
    native = protocols.get_protocol("native")
    image, label = np.zeros((7, 9, 3), np.uint8), np.zeros((7, 9), np.uint8)
    assert protocols.prepare_image(image, native) is image
    assert protocols.prepare_label(label, native) is label


def test_labels_are_resized_without_new_ids():
    label = np.asarray([[0, 7], [255, 18]], np.uint8)
    protocol = protocols.get_protocol("clouds", short_side=5)
    out = protocols.prepare_label(label, protocol)
    assert out.shape == (5, 5)
    assert set(np.unique(out)) == {0, 7, 18, 255}


def test_windows_cover_the_image_and_end_at_its_border():
    slide = protocols.get_protocol("slide")
    size, corners = protocols.windows((1024, 2048), slide)
    assert size == (512, 512)
    assert corners[:2] == ((0, 0), (0, 341))
    assert corners[-1] == (512, 1536)
    assert len(corners) == 3 * 6
    seen = np.zeros((1024, 2048), bool)
    for y, x in corners:
        seen[y : y + 512, x : x + 512] = True
    assert seen.all()


def test_a_window_larger_than_the_image_shrinks_to_it():
    assert protocols.windows((300, 700), protocols.get_protocol("slide")) == (
        (300, 512),
        ((0, 0), (0, 188)),
    )
    assert protocols.windows((300, 400), protocols.get_protocol("slide"))[1] == ((0, 0),)


class Context(nnx.Module):
    """Scores that depend on the whole window, as those of a real model do."""

    def scores(self, images):
        x = images.astype(jnp.float32)
        return x[..., :2] + x.mean((1, 2), keepdims=True)[..., :2]


def test_slide_averages_the_scores_of_overlapping_windows():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 11, 17, 3), dtype=np.uint8)
    protocol = protocols.get_protocol("slide", window=(6, 8), stride=(4, 5))
    model = Context()
    total, often = np.zeros((2, 11, 17, 2)), np.zeros((1, 11, 17, 1))
    for y in (0, 4, 5):
        for x in (0, 5, 9):
            part = np.s_[:, y : y + 6, x : x + 8]
            total[part] += model.scores(jnp.asarray(images[part]))
            often[part] += 1
    got = jax.jit(lambda i: protocols.class_scores(model, i, protocol, (11, 17)))(images)
    np.testing.assert_allclose(got, total / often, **FLOAT)


def test_only_the_latest_programs_are_kept():
    traced = []

    def function(states, x):
        traced.append(x.shape)
        return x + states

    call = protocols.compiled_per_shape(function, keep=2)
    for n in (1, 2, 1, 3, 1, 2):  # 3 drives out 2
        call(jnp.ones(()), jnp.zeros(n))
    assert traced == [(1,), (2,), (3,), (2,)]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(short_side=8, size=(8, 8)), "exclude each other"),
        (dict(window=(8, 8)), "belong together"),
        (dict(window=(8, 8), stride=(8, 9)), "larger than window"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        protocols.get_protocol("native", **changes)


def test_an_unknown_protocol_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match="PROTOCOLS has no 'cluods'; it has: clouds, native, slide"):
        protocols.get_protocol("cluods")

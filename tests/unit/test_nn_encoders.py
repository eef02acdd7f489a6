"""The encoders: sizes, parameter counts, odd inputs, dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.nn.encoders import convnext, registry
from clouds_jax.nn.rngs import HostKeys

ATOL = 1e-5


def shapes(name):
    return nnx.eval_shape(lambda: registry.get_encoder(name).build(nnx.Rngs(0)))


def count(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module)))


# the visual towers of open_clip; tiny and lite0 are without what follows res5, statistics included
COUNTS = {
    "convnext_large_d_320": 199_770_816,
    "convnext_base": 88_090_752,
    "convnext_xxlarge": 846_543_744,
    "convnext_tiny": 27_818_592,
    "efficientnet_lite0": 2_998_304,
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_number_of_parameters(name):
    assert count(shapes(name)) == COUNTS[name]


@pytest.mark.parametrize("name", registry.ENCODERS)
def test_the_features_of_a_full_size_encoder_have_their_widths_and_strides(name):
    spec = registry.get_encoder(name)
    graphdef, state = nnx.split(shapes(name))
    images = jax.ShapeDtypeStruct((2, 96, 160, 3), jnp.float32)
    features = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, images)
    assert {k: v.shape for k, v in features.items()} == {
        f"res{level}": (2, 96 >> level, 160 >> level, width)
        for level, width in enumerate(spec.widths, start=2)
    }


@pytest.fixture(scope="module")
def debug():
    """The debug encoder's features and image embedding, compiled."""
    graphdef, state = nnx.split(registry.get_encoder("convnext_debug").build(HostKeys(0)))

    @jax.jit
    def forward(images):
        encoder = nnx.merge(graphdef, state)
        features = encoder(images)
        return features, encoder.embed(features)

    return forward


def test_rows_and_columns_that_fill_no_patch_are_not_read(debug):
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 70, 101, 3)), jnp.float32)
    features, _ = debug(images)
    cropped, _ = debug(images[:, :68, :100])
    for level in range(2, 6):
        name = f"res{level}"
        assert features[name].shape[1:3] == (70 >> level, 101 >> level)
        np.testing.assert_array_equal(features[name], cropped[name])


def test_the_image_embedding_is_that_of_the_mean_feature(debug):
    images = jnp.asarray(np.random.default_rng(1).normal(size=(3, 32, 32, 3)), jnp.float32)
    features, embedding = debug(images)
    assert embedding.shape == (3, convnext.SIZES["debug"].embedding)
    head = registry.get_encoder("convnext_debug").build(HostKeys(0)).visual_head
    # at 32x32 res5 is a single position, its own mean
    np.testing.assert_allclose(embedding, head(features["res5"][:, 0, 0]), atol=ATOL)


def test_an_encoder_without_visual_head_says_so():
    encoder = shapes("convnext_tiny")
    with pytest.raises(ValueError, match="no visual head"):
        encoder.embed({"res5": jnp.zeros((1, 2, 2, 8))})


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match="has no 'convnext_big'; it has: convnext_debug"):
        registry.get_encoder("convnext_big")


def test_encoders_are_listed_by_pattern_and_debug_sizes_on_request():
    names = registry.list_encoders()
    assert names == sorted(names) and "convnext_large_d_320" in names
    assert not [name for name in names if "debug" in name]
    assert registry.list_encoders("dinov3_convnext_*") == [
        f"dinov3_convnext_{size}" for size in ("base", "large", "small", "tiny")
    ]
    everything = registry.list_encoders(debug=True)
    assert set(everything) == set(registry.ENCODERS)
    assert all("debug" in name for name in set(everything) - set(names))

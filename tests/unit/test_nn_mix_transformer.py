"""The Mix Transformer: sizes, odd images, what its attention sees."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.nn.encoders import mix_transformer, registry
from clouds_jax.nn.rngs import HostKeys

# transformers' SegformerModel
COUNTS = {
    "b0": 3_319_392,
    "b1": 13_151_424,
    "b2": 24_196_288,
    "b3": 44_072_128,
    "b4": 60_842_688,
    "b5": 81_443_008,
}


def random(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape), jnp.float32)


@functools.cache
def shapes(name):
    return nnx.eval_shape(lambda: registry.get_encoder(name).build(nnx.Rngs(0)))


@pytest.mark.parametrize("size", COUNTS)
def test_the_number_of_parameters(size):
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(nnx.state(shapes(f"mit_{size}"))))
        == (COUNTS[size])
    )


@pytest.fixture(scope="module")
def debug():
    graphdef, state = nnx.split(shapes("mit_debug"))
    rng = np.random.default_rng(0)
    # drawing sixty arrays of as many shapes would take a minute to compile
    return graphdef, jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(scale=0.2, size=leaf.shape), jnp.float32), state
    )


@pytest.mark.parametrize("size", [(29, 30), (75, 101), (64, 33)])
def test_the_sizes_of_the_features_round_up(debug, size):
    graphdef, state = debug
    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    features = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, images)
    for level, width in enumerate(mix_transformer.SIZES["debug"].widths, start=2):
        rounded = tuple(-(-n // 2**level) for n in size)
        assert features[f"res{level}"].shape == (1, *rounded, width)


def test_an_image_without_keys_is_refused(debug):
    graphdef, state = debug
    with pytest.raises(ValueError, match="images are 28x64; at least 29x29"):
        nnx.merge(graphdef, state)(jnp.zeros((1, 28, 64, 3)))


def test_an_image_of_one_batch_does_not_see_another(debug):
    graphdef, state = debug
    run = jax.jit(lambda x: nnx.merge(graphdef, state)(x)["res5"])
    images = random(2, 40, 51, 3)
    other = images.at[1].set(0)
    np.testing.assert_array_equal(run(images)[0], run(other)[0])
    assert not np.array_equal(run(images)[1], run(other)[1])


def test_keys_and_values_come_from_whole_patches_only():
    attention = mix_transformer.Attention(8, heads=2, reduction=2, rngs=HostKeys(0))
    x = random(1, 5, 7, 8)
    run = jax.jit(attention)
    # the last row and column fill no 2x2 patch: what stands there is a query and nothing else
    changed = np.any(np.asarray(run(x) != run(x.at[0, 4, 6].add(1.0))), axis=-1)
    assert changed.sum() == 1 and changed[0, 4, 6]
    changed = np.any(np.asarray(run(x) != run(x.at[0, 3, 5].add(1.0))), axis=-1)
    assert changed.all()


def test_the_features_are_of_the_dtype_of_the_images(debug):
    graphdef, state = debug
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.bfloat16)
    half = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), state)
    features = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), half, images)
    assert {feature.dtype for feature in features.values()} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("name, eps", [("mit_b0", 1e-5), ("mit_b0_nvlabs", 1e-6)])
def test_the_original_has_another_epsilon_in_blocks_and_stages(name, eps):
    stage = shapes(name).stages[0]
    norms = (stage.blocks.norm1, stage.blocks.norm2, stage.norm)
    assert [norm.eps for norm in norms] == [eps] * 3
    assert stage.embed.norm.eps == stage.blocks.attention.reduce.norm.eps == 1e-5

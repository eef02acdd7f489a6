"""The ResNets: parameter counts, sizes, embeddings of images and masks, dtypes, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.nn.encoders import clip_resnet, registry

TOLERANCE = dict(rtol=1e-5, atol=1e-5)
DEBUG = ("clip_resnet_debug", "resnet_debug", "resnet_msra_debug")
# of the visual towers of CLIP, spec 1.12; of torchvision without its classifier
COUNTS = {
    "clip_resnet50": 38_316_896,
    "clip_resnet101": 56_259_936,
    "resnet50": 23_508_032,
    "resnet101": 42_500_160,
    "resnet50_msra": 23_508_032,
}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def shapes(name):
    return nnx.eval_shape(lambda: registry.get_encoder(name).build(nnx.Rngs(0)))


@functools.cache
def built(name):
    """With random weights drawn by numpy: no small program is compiled for each of their shapes."""
    graphdef, state = nnx.split(shapes(name))
    rng = np.random.default_rng(0)
    filled = []
    for path, leaf in nnx.to_flat_state(state):
        value = rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        if path[-1] in ("scale", "var"):
            value = 1 + 0.1 * rng.random(leaf.shape)
        filled.append((path, leaf.replace(jnp.asarray(value, jnp.float32))))
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


@pytest.mark.parametrize("name", COUNTS)
def test_the_number_of_parameters_without_running_statistics(name):
    leaves = nnx.to_flat_state(nnx.state(shapes(name)))
    found = sum(leaf.size for path, leaf in leaves if path[-1] not in ("mean", "var"))
    assert found == COUNTS[name]


@pytest.mark.parametrize(
    "name, sizes",
    [
        # 101x75: 51x38 after the first convolution, then averages that drop odd rows
        ("clip_resnet_debug", [(25, 19), (12, 9), (6, 4), (3, 2)]),
        ("resnet_debug", [(26, 19), (13, 10), (7, 5), (4, 3)]),
        ("resnet_msra_debug", [(26, 19), (13, 10), (7, 5), (4, 3)]),
    ],
)
def test_the_features_of_odd_images_have_the_sizes_of_the_original(name, sizes):
    graphdef, state = nnx.split(built(name))
    images = jax.ShapeDtypeStruct((2, 101, 75, 3), jnp.float32)
    features = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, images)
    widths = registry.get_encoder(name).widths
    assert {k: v.shape for k, v in features.items()} == {
        f"res{level}": (2, *size, width)
        for level, size, width in zip(range(2, 6), sizes, widths, strict=True)
    }


def test_where_the_stride_is_changes_the_numbers():
    _, state = nnx.split(built("resnet_debug"))
    graphdef, _ = nnx.split(built("resnet_msra_debug"))
    images = normal(0, 1, 64, 96, 3)
    new = jax.jit(lambda s, x: nnx.merge(graphdef, s)(x))(state, images)
    graphdef, _ = nnx.split(built("resnet_debug"))
    old = jax.jit(lambda s, x: nnx.merge(graphdef, s)(x))(state, images)
    np.testing.assert_allclose(new["res2"], old["res2"], **TOLERANCE)  # no stride up to here
    assert not np.allclose(new["res3"], old["res3"], rtol=0.1)


def test_an_empty_mask_has_the_finite_embedding_of_a_full_one():
    encoder = built("clip_resnet_debug")
    res5 = normal(1, 2, 3, 5, registry.get_encoder("clip_resnet_debug").widths[-1])
    masks = np.random.default_rng(2).random((2, 3, 5, 4)) > 0.5
    masks[..., 1] = False
    masks[..., 2] = True
    pooled = jax.jit(encoder.pool_masks)(res5, jnp.asarray(masks))
    assert pooled.shape == (2, 4, clip_resnet.SIZES["clip_resnet_debug"].embedding)
    assert np.isfinite(pooled).all()
    np.testing.assert_allclose(pooled[:, 1], pooled[:, 2], **TOLERANCE)
    assert not np.allclose(pooled[:, 0], pooled[:, 2], rtol=0.01)


def test_a_mask_of_one_position_reads_that_position_alone():
    encoder = built("clip_resnet_debug")
    res5 = normal(3, 1, 4, 3, registry.get_encoder("clip_resnet_debug").widths[-1])
    masks = np.zeros((1, 4, 3, 1), bool)
    masks[0, 2, 1] = True
    pool = encoder.attention_pool
    position = pool.position[...][1:].reshape(1, 7, 7, -1)
    # half-pixel centres: row 2 of 4 is at 3.875 of 7, column 1 of 3 at 3
    place = 0.125 * position[0, 3, 3] + 0.875 * position[0, 4, 3]
    expected = pool.out(pool.value(res5[0, 2, 1] + place))
    pooled = encoder.pool_masks(res5, jnp.asarray(masks))
    np.testing.assert_allclose(pooled[0, 0], expected, **TOLERANCE)


@pytest.mark.parametrize("name", DEBUG)
def test_features_have_the_dtype_of_the_weights(name):
    graphdef, state = nnx.split(built(name))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state)

    def features(state, x):
        encoder = nnx.merge(graphdef, state)
        found = encoder(x)
        return found | ({"embedding": encoder.embed(found)} if "clip" in name else {})

    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.bfloat16)
    for feature in jax.eval_shape(features, half, images).values():
        assert feature.dtype == jnp.bfloat16


def test_the_maximum_of_the_stem_has_a_gradient():
    graphdef, state = nnx.split(built("resnet_debug").stem)
    images = normal(4, 1, 20, 28, 3)
    gradients = jax.jit(jax.grad(lambda s: nnx.merge(graphdef, s)(images).sum()))(state)
    for path, gradient in nnx.to_flat_state(gradients):
        value = np.asarray(gradient[...])
        assert np.isfinite(value).all() and np.abs(value).max() > 0, path


def test_the_normalisation_belongs_to_the_encoder():
    clip, imagenet, msra = (
        registry.get_encoder(name) for name in ("clip_resnet50", "resnet50", "resnet50_msra")
    )
    assert clip.mean == registry.get_encoder("convnext_base").mean
    assert imagenet.mean == msra.mean == (123.675, 116.28, 103.53)  # red, green, blue
    assert imagenet.std == (58.395, 57.12, 57.375) and msra.std == (1.0, 1.0, 1.0)

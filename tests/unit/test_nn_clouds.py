"""The model: normalisation, padding, dtypes, what is trained, both heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.nn import clouds
from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.rngs import HostKeys
from clouds_jax.training.state import in_head

HEADS = {
    "mask2former": clouds.HeadSize(
        num_queries=5,
        dim=16,
        num_heads=2,
        pixel_layers=1,
        pixel_ffn=24,
        decoder_layers=3,
        decoder_ffn=32,
        num_points=1,
    ),
    "fpn": clouds.FPNSize(dim=16),
}
IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 75, 101, 3)), jnp.uint8)


def build(head="mask2former", encoder="convnext_debug", **kwargs):
    return clouds.build_model(encoder, HEADS[head], 4, rngs=HostKeys(0), **kwargs)


def test_images_are_normalised_and_then_padded_with_zeros():
    spec = get_encoder("convnext_debug")
    mean = jnp.broadcast_to(jnp.asarray(spec.mean)[None, None, None], (1, 5, 33, 3))
    x = clouds.pad(clouds.normalise(mean + 1, spec))
    assert x.shape == (1, 32, 64, 3)
    np.testing.assert_allclose(x[0, 4, 32], 1 / np.array(spec.std), rtol=1e-4)
    assert not np.any(x[:, 5:]) and not np.any(x[:, :, 33:])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("encoder", ["convnext_debug", "efficientnet_lite0"])
def test_every_pixel_of_an_odd_image_gets_scores(head, encoder):
    graphdef, state = nnx.split(build(head, encoder))
    scores = jax.jit(lambda s, x: nnx.merge(graphdef, s).scores(x))(state, IMAGES)
    assert scores.shape == (2, 75, 101, 4)
    assert np.isfinite(scores).all() and (np.asarray(scores) >= 0).all()
    labels = clouds.class_map(scores)
    assert labels.dtype == jnp.uint8 and labels.shape == (2, 75, 101)
    if head == "fpn":
        np.testing.assert_allclose(scores.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_only_the_head_is_trained(head):
    model = build(head)
    _, params, frozen = nnx.split(model, in_head, ...)
    assert {path[0] for path, _ in nnx.to_flat_state(params)} == {"head"}
    assert {path[0] for path, _ in nnx.to_flat_state(frozen)} == {"encoder"}


def test_a_bfloat16_encoder_feeds_a_float32_head():
    half = build(encoder_dtype="bfloat16")
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(nnx.state(half.encoder))}
    assert dtypes == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(half.head))} == {jnp.dtype("float32")}
    features, exact = half.encode(IMAGES), build().encode(IMAGES)
    for name, x in features.items():
        assert x.dtype == jnp.bfloat16
        error = np.abs(np.asarray(x, np.float32) - np.asarray(exact[name])).mean()
        assert error < 0.03 * np.std(exact[name])
    output = half.head(features, all_outputs=False)
    assert output.mask_logits.dtype == output.class_logits.dtype == jnp.float32


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="encoder_dtype is 'float16'; allowed are: float32"):
        build(encoder_dtype="float16")

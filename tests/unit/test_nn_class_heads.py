"""The three class heads: counts, initial values, logits by hand, gradients, what is frozen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.nn import clouds, layers
from clouds_jax.nn.mask2former import class_heads
from clouds_jax.nn.mask2former import head as mask2former
from clouds_jax.nn.mask2former.size import HeadSize
from clouds_jax.nn.rngs import HostKeys
from clouds_jax.ops import text_logits
from clouds_jax.training.optim import decays
from clouds_jax.training.state import in_head

LARGE = (192, 384, 768, 1536)
NUMBERS = dict(
    num_queries=5, dim=16, num_heads=2, pixel_layers=1, pixel_ffn=24, decoder_layers=3,
    decoder_ffn=32, num_points=1,
)  # fmt: skip
ROWS = class_heads.TextRows((0, 0, 1, 2, 2, 2, 3), 6)
ATOL = 1e-5


def count(module, filter=nnx.Param):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, filter)))


def inputs(o=2, b=2, q=5, h=6, w=9, d=16, seed=0):
    """Queries, mask features and mask logits; the first mask of every image is empty."""
    rng = np.random.default_rng(seed)
    queries, features = rng.normal(size=(o, b, q, d)), rng.normal(size=(b, h, w, d))
    masks = rng.normal(size=(o, b, h, w, q))
    masks[..., 0] = -1
    return [jnp.asarray(x, jnp.float32) for x in (queries, features, masks)]


def make(classifier, **changes):
    size = HeadSize(**NUMBERS, classifier=classifier)
    return class_heads.make_class_head(size, 4, ROWS, rngs=HostKeys(0), **changes)


@pytest.mark.parametrize(
    "classifier, expected",
    [
        # CLOUDS counts 768 more for the void embedding, which this head never reads
        ("linear", 20_254_676 - 768),
        ("text", 20_644_801),
        ("pooled", 20_254_676 - 768 + 512 + 65_792),
    ],
)
def test_the_trained_weights_are_as_many_as_in_the_original(classifier, expected):
    rows = clouds.text_rows("convnext_large_d_320", range(19))
    size = HeadSize(classifier=classifier)
    head = nnx.eval_shape(
        lambda: mask2former.Mask2FormerHead(LARGE, size, 19, rows=rows, rngs=nnx.Rngs(0))
    )
    assert count(head) == expected


def test_the_linear_head_is_where_it_was():
    head = nnx.eval_shape(
        lambda: mask2former.Mask2FormerHead(LARGE, HeadSize(**NUMBERS), 4, rngs=nnx.Rngs(0))
    )
    paths = {path for path, _ in nnx.to_flat_state(nnx.state(head.transformer_decoder))}
    assert {path[1:] for path in paths if path[0] == "class_embed"} == {("kernel",), ("bias",)}


def test_the_initial_values_are_torchs():
    head = class_heads.TextHead(256, class_heads.TextRows((0, 0, 1), 768), rngs=nnx.Rngs(0))
    for layer in (head.pooling.proj, *head.mlp):
        for param in (layer.kernel, layer.bias):
            assert 0.9 / 16 < np.abs(param[...]).max() <= 1 / 16 + 1e-7
    assert np.exp(head.logit_scale[...]) == pytest.approx(1 / 0.07, rel=1e-6)
    assert abs(np.std(head.void_embedding[...]) - 1) < 0.1
    np.testing.assert_allclose(np.linalg.norm(head.matrix[...], axis=-1), 1, atol=ATOL)


def test_cosines_are_scaled_and_the_best_name_counts():
    rows = jnp.asarray([(1, 0), (0, 1), (0.6, 0.8)], jnp.float32)
    x = jnp.asarray([(3, 4), (0, 0)], jnp.float32)
    logits = text_logits.cosine_logits(x, rows, jnp.log(10.0))
    np.testing.assert_allclose(logits, [(6, 8, 10), (0, 0, 0)], atol=ATOL)
    np.testing.assert_allclose(text_logits.max_over_names(logits, (0, 0, 1))[0], [8, 10], atol=ATOL)
    bounded = text_logits.cosine_logits(x, rows, jnp.float32(5.0))  # exp(5) = 148
    np.testing.assert_allclose(bounded[0], [60, 80, 100], rtol=1e-5)


def test_the_text_head_gives_each_class_its_best_name_and_void_last():
    head, (queries, features, masks) = make("text"), inputs()
    logits = head(queries, features, masks)
    assert logits.shape == (2, 2, 5, 5)
    x = np.asarray(layers.apply_mlp(head.mlp, head.pooling(queries, features, masks)))
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    void = np.asarray(head.void_embedding[...])
    rows = np.concatenate([head.matrix[...], void / np.linalg.norm(void)])
    every = x @ rows.T / 0.07
    groups = [every[..., a:b].max(-1) for a, b in ((0, 2), (2, 3), (3, 6), (6, 7), (7, 8))]
    np.testing.assert_allclose(logits, np.stack(groups, -1), rtol=1e-4, atol=1e-4)


def test_pooling_adds_the_mapped_mean_under_each_mask():
    pooling = class_heads.MaskPooling(16, rngs=HostKeys(1))
    queries, features, masks = inputs()
    out = np.asarray(pooling(queries, features, masks))
    for o, b, q in np.ndindex(2, 2, 5):
        inside = np.asarray(masks[o, b, ..., q]) > 0
        mean = np.asarray(features[b])[inside].mean(0) if inside.any() else np.zeros(16)
        normed = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-5)
        expected = queries[o, b, q] + normed @ pooling.proj.kernel[...] + pooling.proj.bias[...]
        np.testing.assert_allclose(out[o, b, q], expected, atol=1e-4)


@pytest.mark.parametrize("classifier", ["text", "pooled"])
def test_gradients_are_finite_and_reach_the_features_but_not_the_masks(classifier):
    graphdef, params, fixed = nnx.split(make(classifier), nnx.Param, ...)

    @jax.jit
    def grads(params, *arrays):
        def loss(params, *arrays):
            head = nnx.merge(graphdef, params, fixed)
            return jnp.square(head(*arrays)).mean()

        return jax.grad(loss, argnums=(0, 1, 2, 3))(params, *arrays)

    to_params, to_queries, to_features, to_masks = grads(params, *inputs())
    assert not np.any(to_masks)
    for path, grad in nnx.to_flat_state(to_params):
        assert np.isfinite(grad[...]).all() and np.any(grad[...]), path
    for grad in (to_queries, to_features):
        assert np.isfinite(grad).all() and np.any(grad)


def test_the_class_matrix_is_frozen():
    rows = clouds.text_rows("convnext_debug", (0, 0, 1, 2, 3))
    size = HeadSize(**NUMBERS, classifier="text")
    model = nnx.eval_shape(
        lambda: clouds.build_model("convnext_debug", size, 4, rows=rows, rngs=nnx.Rngs(0))
    )
    _, params, frozen = nnx.split(model, in_head, ...)
    matrix = ("head", "transformer_decoder", "class_embed", "matrix")
    assert matrix not in dict(nnx.to_flat_state(params))
    assert dict(nnx.to_flat_state(frozen))[matrix].shape == (5, 12)


def test_the_void_embedding_does_not_decay():
    prefix = ("head", "transformer_decoder", "class_embed")
    assert not decays((*prefix, "void_embedding"))
    assert not decays((*prefix, "pooling", "norm", "scale"))
    assert decays((*prefix, "logit_scale")) and decays((*prefix, "mlp", 0, "bias"))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="classifier is 'clip'; it must be one of: linear, text"):
        HeadSize(classifier="clip")
    size = HeadSize(**NUMBERS, classifier="text")
    with pytest.raises(ValueError, match="names 4 classes, the model has 5"):
        class_heads.make_class_head(size, 5, ROWS, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="needs the rows of a class matrix"):
        class_heads.make_class_head(size, 4, None, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"classes \[1\] have no row"):
        class_heads.TextRows((0, 2), 6)
    with pytest.raises(ValueError, match="it must ascend"):
        class_heads.TextRows((0, 1, 0), 6)
    with pytest.raises(ValueError, match="'efficientnet_lite0' has no text tower"):
        clouds.text_rows("efficientnet_lite0", (0, 1))

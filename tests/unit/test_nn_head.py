"""The Mask2Former head: counts, initial values, shapes, masks, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.nn import layers
from clouds_jax.nn.mask2former import head as mask2former
from clouds_jax.nn.mask2former import pixel_decoder
from clouds_jax.nn.mask2former.size import HeadSize
from clouds_jax.nn.rngs import HostKeys

WIDTHS = (8, 16, 24, 32)
LARGE = (192, 384, 768, 1536)
SMALL = HeadSize(
    num_queries=5,
    dim=16,
    num_heads=2,
    pixel_layers=2,
    pixel_ffn=24,
    decoder_layers=6,
    decoder_ffn=32,
    num_points=1,
)
ATOL = 1e-5


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(tree)))


def features(size, widths=WIDTHS, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    return {
        f"res{level}": jnp.asarray(
            rng.normal(size=(batch, -(-size[0] // 2**level), -(-size[1] // 2**level), width)),
            jnp.float32,
        )
        for level, width in enumerate(widths, start=2)
    }


@pytest.fixture(scope="module")
def head():
    return mask2former.Mask2FormerHead(WIDTHS, SMALL, 4, rngs=HostKeys(0))


@pytest.fixture(scope="module")
def full():
    """The full-size head with real initial values."""
    return mask2former.Mask2FormerHead(LARGE, HeadSize(), 19, rngs=nnx.Rngs(0))


def test_the_number_of_parameters_of_each_part(full):
    pixel, decoder = full.pixel_decoder, full.transformer_decoder
    assert count(pixel.input_proj) == 690_432
    assert count(pixel.layers) + pixel.level_embed.size == 4_393_920
    assert count(pixel.lateral) == 49_664
    assert count(pixel.output) == 590_336
    assert count(pixel.mask_features) == 65_792
    parts = {"self": 0, "cross": 0, "ffn": 0}
    for stack in decoder.layers:
        parts["self"] += count(stack.self_attention) + count(stack.self_norm)
        parts["cross"] += count(stack.cross_attention) + count(stack.cross_norm)
        parts["ffn"] += count(stack.fc1) + count(stack.fc2) + count(stack.ffn_norm)
    assert parts == {"self": 2_373_120, "cross": 2_373_120, "ffn": 9_462_528}
    assert count(decoder.norm) == 512
    assert decoder.query_feat.size == decoder.query_embed.size == 25_600
    assert decoder.level_embed.size == 768
    assert count(decoder.class_embed) == 5_140
    assert count(decoder.mask_embed) == 197_376
    # CLOUDS counts 20,254,676: with its void embedding of 768 numbers, which the linear class
    # head never reads and which we do not have
    assert count(full) == 20_254_676 - 768


def test_the_uniform_initial_values_reach_their_bounds(full):
    pixel, decoder = full.pixel_decoder, full.transformer_decoder
    block = decoder.layers[1]
    bounds = [
        (pixel.input_proj[0].conv.kernel, np.sqrt(6 / (1536 + 256))),
        (pixel.layers.value_proj.kernel, np.sqrt(6 / 512)),
        (pixel.layers.output_proj.kernel, np.sqrt(6 / 512)),
        (pixel.layers.fc1.kernel, np.sqrt(6 / 1280)),
        (pixel.layers.fc1.bias, 1 / 16),
        (pixel.layers.fc2.bias, 1 / 32),
        (pixel.lateral.conv.kernel, np.sqrt(3 / 192)),
        (pixel.output.conv.kernel, np.sqrt(3 / (9 * 256))),
        (pixel.mask_features.kernel, np.sqrt(3 / 256)),
        (block.cross_attention.query.kernel, np.sqrt(6 / 1024)),
        (block.self_attention.value.kernel, np.sqrt(6 / 1024)),
        (block.self_attention.out.kernel, np.sqrt(6 / 512)),
        (block.fc1.kernel, np.sqrt(6 / 2304)),
        (block.fc1.bias, 1 / 16),
        (block.fc2.bias, 1 / np.sqrt(2048)),
        (decoder.class_embed.kernel, 1 / 16),
        (decoder.mask_embed[2].kernel, 1 / 16),
        (decoder.mask_embed[0].bias, 1 / 16),
    ]
    for param, bound in bounds:
        values = np.asarray(param[...])
        assert 0.97 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
        assert abs(values.std() / (bound / np.sqrt(3)) - 1) < 0.1


def test_the_constant_and_normal_initial_values(full):
    pixel, decoder = full.pixel_decoder, full.transformer_decoder
    zeros = [
        pixel.input_proj[2].conv.bias,
        pixel.layers.sampling_offsets.kernel,
        pixel.layers.attention_weights.kernel,
        pixel.layers.attention_weights.bias,
        pixel.layers.value_proj.bias,
        pixel.mask_features.bias,
        pixel.layers.norm1.bias,
        decoder.layers[0].cross_attention.key.bias,
        decoder.layers[0].self_attention.out.bias,
    ]
    for param in zeros:
        assert not np.any(param[...])
    np.testing.assert_array_equal(pixel.output.norm.scale[...], np.ones(256))
    np.testing.assert_array_equal(decoder.layers[2].ffn_norm.scale[...], np.ones((3, 256)))
    for param in (pixel.level_embed, decoder.query_feat, decoder.query_embed):
        assert abs(np.std(param[...]) - 1) < 0.1


def test_the_first_offsets_point_in_eight_directions(full):
    bias = np.asarray(full.pixel_decoder.layers.sampling_offsets.bias[...])
    assert bias.shape == (6, 192)
    bias = bias.reshape(6, 8, 3, 4, 2)
    np.testing.assert_array_equal(bias, np.broadcast_to(bias[:1, :, :1], bias.shape))
    one = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for point in range(4):
        np.testing.assert_allclose(bias[0, :, 0, point], np.array(one) * (point + 1), atol=1e-6)


def test_each_block_of_a_stack_is_drawn_apart(full):
    kernel = full.transformer_decoder.layers[0].fc1.kernel[...]
    assert not np.allclose(kernel[0], kernel[1])


@pytest.mark.parametrize("size", [(96, 32), (75, 101)])
def test_the_outputs_of_odd_and_oblong_maps(head, size):
    graphdef, state = nnx.split(head)
    maps = features(size)

    def forward(state, maps, all_outputs):
        return nnx.merge(graphdef, state)(maps, all_outputs=all_outputs)

    every = jax.jit(forward, static_argnums=2)(state, maps, True)
    last = jax.jit(forward, static_argnums=2)(state, maps, False)
    h4, w4 = maps["res2"].shape[1:3]
    assert every.class_logits.shape == (7, 2, 5, 5)
    assert every.mask_logits.shape == (7, 2, h4, w4, 5)
    assert last.mask_logits.shape == (1, 2, h4, w4, 5)
    np.testing.assert_allclose(every.class_logits[-1:], last.class_logits, atol=ATOL)
    np.testing.assert_allclose(every.mask_logits[-1:], last.mask_logits, atol=ATOL)


def test_the_full_size_head_has_the_shapes_of_the_original():
    model = nnx.eval_shape(
        lambda: mask2former.Mask2FormerHead(LARGE, HeadSize(), 19, rngs=nnx.Rngs(0))
    )
    graphdef, state = nnx.split(model)
    maps = {
        f"res{level}": jax.ShapeDtypeStruct((2, 768 >> level, 768 >> level, width), jnp.bfloat16)
        for level, width in enumerate(LARGE, start=2)
    }
    out = jax.eval_shape(lambda s, f: nnx.merge(graphdef, s)(f, all_outputs=True), state, maps)
    assert out.class_logits.shape == (10, 2, 100, 20)
    assert out.mask_logits.shape == (10, 2, 192, 192, 100)
    assert out.mask_logits.dtype == jnp.float32


def test_resizing_the_features_gives_the_resized_logits(head):
    """The shortcut of the attention mask, against the original's order of operations."""
    decoder = head.transformer_decoder
    rng = np.random.default_rng(3)
    queries = jnp.asarray(rng.normal(size=(2, 5, 16)), jnp.float32)
    maps = jnp.asarray(rng.normal(size=(2, 24, 16, 16)), jnp.float32)
    logits = decoder.predict(queries[None], maps).mask_logits[0]
    small = mask2former.resize.resize_bilinear(logits, (6, 4)).reshape(2, 24, 5)
    mask = decoder.attention_mask(queries, decoder.shrink(maps, (6, 4)))
    certain = np.abs(small) > ATOL
    assert certain.all()
    np.testing.assert_array_equal(mask, small.swapaxes(1, 2) >= 0)


@pytest.mark.slow
def test_single_layers_make_up_the_decoder(head):
    graphdef, state = nnx.split(head)

    @jax.jit
    def both(state, features):
        head = nnx.merge(graphdef, state)
        decoder = head.transformer_decoder
        maps, levels = head.pixel_decoder(features)
        x = jnp.broadcast_to(decoder.query_feat[...][None], (2, 5, 16))
        outputs = [x]
        for i in range(SMALL.decoder_layers):
            level = levels[i % 3]
            mask = decoder.attention_mask(x, decoder.shrink(maps, level.shape[1:3]))
            x = decoder.layer(i % 3, i // 3, x, level, mask)
            outputs.append(x)
        return decoder.predict(jnp.stack(outputs), maps), decoder(levels, maps, all_outputs=True)

    got, expected = both(state, features((64, 96)))
    np.testing.assert_allclose(got.class_logits, expected.class_logits, atol=1e-4)
    np.testing.assert_allclose(got.mask_logits, expected.mask_logits, atol=1e-4)


def test_every_parameter_of_the_head_has_a_finite_gradient(head):
    graphdef, state = nnx.split(head)
    # the offsets' initial kernel is zero, which leaves what they read, level_embed, without any
    noise = np.random.default_rng(1)
    state = jax.tree.map(lambda x: x + 0.1 * noise.normal(size=x.shape).astype(np.float32), state)

    @jax.jit
    def grads(state, maps):
        def loss(state):
            out = nnx.merge(graphdef, state)(maps, all_outputs=True)
            return jnp.sin(out.mask_logits).mean() + jnp.square(out.class_logits).mean()

        return jax.grad(loss)(state)

    silent = []
    for path, grad in nnx.to_flat_state(grads(state, features((64, 96)))):
        assert np.isfinite(grad[...]).all(), path
        if not np.any(grad[...]):
            silent.append(".".join(map(str, path)))
    # a key's bias moves all scores of a row alike, so only rounding moves it
    assert [name for name in silent if not name.endswith("key.bias")] == []


def test_reference_points_are_pixel_centres():
    points = pixel_decoder.reference_points(((1, 2), (2, 1)))
    np.testing.assert_allclose(
        points, [(0.25, 0.5), (0.75, 0.5), (0.5, 0.25), (0.5, 0.75)], atol=ATOL
    )


@pytest.mark.parametrize("size", [(96, 64), (90, 61), (1, 1), (33, 64)])
def test_class_scores_equal_the_plain_formula(size):
    rng = np.random.default_rng(0)
    prediction = mask2former.Prediction(
        class_logits=jnp.asarray(rng.normal(size=(2, 2, 5, 4)), jnp.float32),
        mask_logits=jnp.asarray(rng.normal(size=(2, 2, 24, 16, 5)) * 4, jnp.float32),
    )
    masks = mask2former.resize.resize_bilinear(prediction.mask_logits[-1], (96, 64))
    votes = jax.nn.softmax(prediction.class_logits[-1])[..., :3]
    expected = jnp.einsum("bhwq,bqk->bhwk", jax.nn.sigmoid(masks), votes)
    got = mask2former.class_scores(prediction, size)
    np.testing.assert_allclose(got, expected[:, : size[0], : size[1]], atol=ATOL)
    assert mask2former.class_map(got).dtype == jnp.uint8


def test_scores_beyond_the_padded_image_are_refused():
    prediction = mask2former.Prediction(
        class_logits=jnp.zeros((1, 1, 5, 4)), mask_logits=jnp.zeros((1, 1, 8, 8, 5))
    )
    with pytest.raises(ValueError, match=r"\(40, 32\) exceeds the padded image \(32, 32\)"):
        mask2former.class_scores(prediction, (40, 32))


def test_depths_and_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="decoder_layers is 4.*multiple of 3"):
        HeadSize(decoder_layers=4)
    with pytest.raises(ValueError, match="dim is 30, not a multiple of num_heads = 8"):
        HeadSize(dim=30)


def test_groups_divide_every_width():
    assert [layers.groups_of(size) for size in (256, 32, 48, 10)] == [32, 32, 16, 2]

"""SAM's parts against plain loops and against themselves; small sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from clouds_jax.nn.sam import decoder, tiny_vit
from clouds_jax.nn.sam import registry as sams
from clouds_jax.nn.sam import vit as sam_vit
from clouds_jax.nn.sam.model import make_sam
from clouds_jax.nn.sam.windows import join_windows, split_windows

CLOSE = dict(rtol=1e-5, atol=1e-5)
GREY = 1.001  # grey levels: rounding once per axis, and half a level of the last rounding less


def noisy(make, seed=0):
    """The module that `make` describes, with no parameter at 0 or 1; draws nothing on the device,
    where every shape would be compiled."""
    graphdef, state = nnx.split(nnx.eval_shape(make))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        last = path[-2].key  # the last of all is the value in the parameter
        centre = 1.0 if last in ("scale", "var") else 0.0
        return jnp.asarray(rng.normal(centre, 0.2, leaf.shape), jnp.float32)

    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(draw, state))


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def compiled(module, function=lambda m, *args, **kwargs: m(*args, **kwargs), static=()):
    """`function(module, ...)`, compiled as a whole: much faster than operation by operation."""
    graphdef, state = nnx.split(module)
    run = jax.jit(
        lambda state, *args, **kwargs: function(nnx.merge(graphdef, state), *args, **kwargs),
        static_argnames=static,
    )
    return lambda *args, **kwargs: run(state, *args, **kwargs)


def softmax(x):
    y = np.exp(x - x.max(-1, keepdims=True))
    return y / y.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def prompted():
    size = decoder.DecoderSize(dim=16, heads=2, ffn=24, grid=5, image=80)
    return noisy(lambda: decoder.PromptedMasks(size, rngs=nnx.Rngs(0)))


def heads_of(linear, x, heads):
    y = x @ np.asarray(linear.kernel[...]) + np.asarray(linear.bias[...])
    return np.moveaxis(y.reshape(len(x), heads, -1), 1, 0)


def test_attention_adds_the_codes_of_row_and_column_distances_to_unscaled_queries():
    side, heads, width = 3, 2, 8
    attention = noisy(lambda: sam_vit.Attention(width, heads, side=side, rngs=nnx.Rngs(0)))
    x = normal(1, side, side, width)
    flat = np.asarray(x).reshape(-1, width)
    q, k, v = (heads_of(f, flat, heads) for f in (attention.query, attention.key, attention.value))
    scores = q @ np.swapaxes(k, 1, 2) / np.sqrt(width / heads)
    rows, columns = np.asarray(attention.rows[...]), np.asarray(attention.columns[...])
    for i in range(side**2):
        for j in range(side**2):
            down, right = i // side - j // side, i % side - j % side
            code = rows[down + side - 1] + columns[right + side - 1]
            scores[:, i, j] += q[:, i] @ code
    out = np.moveaxis(softmax(scores) @ v, 0, 1).reshape(-1, width)
    expected = out @ np.asarray(attention.out.kernel[...]) + np.asarray(attention.out.bias[...])
    np.testing.assert_allclose(compiled(attention)(x).reshape(-1, width), expected, **CLOSE)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_attention_in_blocks_of_rows_is_the_same(at_once):
    attention = noisy(lambda: sam_vit.Attention(8, 2, side=6, rngs=nnx.Rngs(0)))
    x = normal(2, 6, 6, 8)
    run = compiled(attention, static=("rows_at_once",))
    np.testing.assert_allclose(run(x, rows_at_once=at_once), run(x), **CLOSE)


@pytest.mark.parametrize("h, w, window", [(7, 5, 3), (6, 9, 3), (4, 4, 5)])
def test_windows_are_cut_row_by_row_filled_with_zeros_and_joined_again(h, w, window):
    x = normal(2, h, w, 3)
    windows = split_windows(x, window)
    across = -(-w // window)
    assert windows.shape == (2 * -(-h // window) * across, window, window, 3)
    last = np.asarray(windows[across - 1])  # the first row's rightmost window of image 0
    inside = w - (across - 1) * window
    np.testing.assert_array_equal(last[: min(h, window), :inside], x[0, :window, w - inside :])
    assert not last[:, inside:].any()
    np.testing.assert_array_equal(join_windows(windows, x.shape), x)


def test_a_vit_runs_its_window_blocks_and_then_the_global_one_of_every_group():
    size = dataclasses.replace(sam_vit.SIZES["debug"], image=80, window=3)
    vit = noisy(lambda: sam_vit.SamViT(size, rngs=nnx.Rngs(0)))
    images = normal(1, 80, 80, 3)

    def member(stack, i, x):
        graphdef, state = nnx.split(stack)
        return nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[i], state))(x)

    inside, everywhere = compiled(vit.windows, member), compiled(vit.globals, member)
    x = compiled(vit, lambda m, x: m.embed(x))(images)
    for group in range(sam_vit.GROUPS):
        for j in range(size.group - 1):
            x = inside(group * (size.group - 1) + j, x)
        x = everywhere(group, x)
    found = compiled(vit)(images)
    assert found.shape == (1, 5, 5, size.outputs)
    np.testing.assert_allclose(found, compiled(vit.neck)(x), rtol=1e-4, atol=1e-4)


def test_a_vit_refuses_an_image_of_another_size():
    vit = nnx.eval_shape(lambda: sam_vit.SamViT(sam_vit.SIZES["debug"], rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="images are 128x128; its positions are made for 256x256"):
        vit(jnp.zeros((1, 128, 128, 3)))


@pytest.mark.parametrize(
    "numbers, text",
    [
        ((16, 10, 2), "depth is 10; a multiple of 4"),
        ((16, 4, 2), "depth is 4"),
        ((15, 8, 2), "width 15 is not divisible by 2"),
    ],
)
def test_sizes_that_make_no_vit_are_refused(numbers, text):
    with pytest.raises(ValueError, match=text):
        sam_vit.ViTSize(*numbers)


def test_tiny_vits_attention_adds_one_bias_per_distance():
    side, heads, width = 3, 2, 8
    attention = noisy(lambda: tiny_vit.Attention(width, heads, side=side, rngs=nnx.Rngs(0)))
    x = normal(1, side, side, width)
    flat = np.asarray(attention.norm(x)).reshape(-1, width)
    qkv = heads_of(attention.qkv, flat, heads)
    q, k, v = np.split(qkv, 3, axis=-1)
    scores = q @ np.swapaxes(k, 1, 2) / np.sqrt(width / heads)
    biases = np.asarray(attention.biases[...])
    for i in range(side**2):
        for j in range(side**2):
            down, right = abs(i // side - j // side), abs(i % side - j % side)
            scores[:, i, j] += biases[:, down * side + right]
    out = np.moveaxis(softmax(scores) @ v, 0, 1).reshape(-1, width)
    expected = out @ np.asarray(attention.out.kernel[...]) + np.asarray(attention.out.bias[...])
    np.testing.assert_allclose(compiled(attention)(x).reshape(-1, width), expected, **CLOSE)


@pytest.mark.parametrize("name", ["debug", "debug_medical"])
def test_tiny_vits_embedding_has_the_grid_its_size_says(name):
    size = tiny_vit.SIZES[name]
    make = lambda: tiny_vit.TinyViT(size, rngs=nnx.Rngs(0))  # noqa: E731
    image = jax.ShapeDtypeStruct((2, size.image, size.image, 3), jnp.float32)
    out = jax.eval_shape(lambda x: make()(x), image)
    assert out.shape == (2, size.grid, size.grid, size.outputs)


def test_upscaling_writes_each_position_into_its_own_square():
    upscale = noisy(lambda: decoder.Upscale(3, 2, rngs=nnx.Rngs(0)))
    x = normal(2, 3, 3)
    kernel, bias = np.asarray(upscale.kernel[...]), np.asarray(upscale.bias[...])
    y = np.asarray(upscale(x))
    assert y.shape == (4, 6, 2)
    for i in range(4):
        for j in range(6):
            expected = x[i // 2, j // 2] @ kernel[i % 2, j % 2] + bias
            np.testing.assert_allclose(y[i, j], expected, **CLOSE)


def test_where_an_absent_point_lies_does_not_matter(prompted):
    points, labels = jnp.array([[3.0, 4.0], [70.0, 9.0]]), jnp.array([1, -1])
    encode = compiled(prompted.prompt_encoder)
    tokens = np.asarray(encode(points, labels))
    np.testing.assert_array_equal(encode(points + jnp.array([[0.0], [5.0]]), labels), tokens)
    np.testing.assert_array_equal(tokens[1], tokens[2])  # as the padding that SAM appends
    assert np.abs(encode(points, jnp.array([1, 0]))[1] - tokens[1]).max() > 0.1


def test_a_prompt_does_not_see_the_others(prompted):
    run, embedding = compiled(prompted), normal(5, 5, 16)
    points = normal(3, 4, 2, seed=1) * 20 + 40
    labels = jnp.ones((3, 4), jnp.int32)
    logits, iou = run(embedding, points, labels)
    assert logits.shape == (3, 20, 20, decoder.MASKS) and iou.shape == (3, decoder.MASKS)
    alone, iou_alone = run(embedding, points[1:2], labels[1:2])
    np.testing.assert_allclose(alone[0], logits[1], **CLOSE)
    np.testing.assert_allclose(iou_alone[0], iou[1], **CLOSE)
    assert np.abs(logits[0] - logits[1]).max() > 1e-3


def test_each_prompt_is_given_its_own_earlier_mask(prompted):
    run, embedding = compiled(prompted), normal(5, 5, 16)
    points, labels = jnp.full((2, 1, 2), 40.0), jnp.ones((2, 1), jnp.int32)
    masks = normal(2, 20, 20, seed=2)
    both, _ = run(embedding, points, labels, masks)
    second, _ = run(embedding, points[1:], labels[1:], masks[1:])
    np.testing.assert_allclose(both[1], second[0], **CLOSE)
    assert np.abs(both[0] - both[1]).max() > 1e-3


def test_the_decoder_of_a_whole_sam_takes_its_numbers_from_the_embedding():
    size = sam_vit.SIZES["debug"]
    model = nnx.eval_shape(lambda: make_sam(size, rngs=nnx.Rngs(0)))
    assert model.image == size.image
    assert model.prompt_encoder.grid == size.grid
    assert model.prompt_encoder.no_mask.shape == (size.outputs,)


def test_an_unknown_sam_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match="SAMS has no 'vit_h'; it has: sam_debug, .*sam_vit_h"):
        sams.get_sam("vit_h")


def test_the_longer_side_becomes_the_encoders_and_halves_round_up():
    assert decoder.input_size((768, 768), 1024) == (1024, 1024)
    assert decoder.input_size((720, 960), 1024) == (768, 1024)
    assert decoder.input_size((3, 1024), 512) == (2, 512)  # 1.5
    assert decoder.input_size((2048, 1000), 1024) == (1024, 500)


def test_images_are_resized_by_pillow_normalised_and_then_filled_up_with_zeros():
    spec = sams.get_sam("sam_debug")
    images = np.random.default_rng(0).integers(0, 256, (2, 37, 53, 3), np.uint8)
    out = sams.preprocess(images, spec)
    assert out.shape == (2, 256, 256, 3) and out.dtype == np.float32
    h, w = 179, 256  # 37 * 256 / 53 = 178.7
    assert not out[:, h:].any()
    resized = Image.fromarray(images[1]).resize((w, h), Image.Resampling.BILINEAR)
    back = out[1, :h, :w] * np.float32(spec.std) + np.float32(spec.mean)
    np.testing.assert_allclose(back, np.asarray(resized, np.float32), atol=1e-3)


def test_embeddings_are_those_of_the_preprocessed_images():
    spec = sams.get_sam("sam_debug")
    model = noisy(lambda: spec.build(nnx.Rngs(0)))
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 31, 3), np.uint8)
    found = sams.embed(model, images, spec)
    encode = compiled(model.image_encoder)
    np.testing.assert_allclose(found, encode(sams.preprocess(images, spec)), **CLOSE)
    assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.parametrize("size", [(37, 53), (300, 260), (256, 256)])
def test_images_prepared_on_the_device_are_those_of_pillow(size):
    spec = sams.get_sam("sam_debug")
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    found = jax.jit(lambda x: sams.preprocess_on_device(x, spec))(images)
    expected = sams.preprocess(images, spec)
    levels = np.abs(np.asarray(found) - expected) * np.float32(spec.std)
    assert levels.max() < GREY
    assert (levels > 0.5).mean() < 5e-3

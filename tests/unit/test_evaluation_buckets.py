"""Padded batches: scores as of each image alone, whatever the padding holds, by few programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.constants import IGNORE
from clouds_jax.data.datasets import fake
from clouds_jax.data.records import Example
from clouds_jax.evaluation import protocols
from clouds_jax.evaluation.run import evaluate
from clouds_jax.nn import clouds
from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.size import CLASSIFIERS
from clouds_jax.nn.rngs import HostKeys
from clouds_jax.ops import extents, position, resize
from clouds_jax.ops.extents import Extent

TOLERANCE = 1e-5
PADDED = (96, 160)
# as large as the batch; with a side that is no multiple of 32; smaller both ways
SIZES = ((96, 160), (50, 101), (64, 96))
ENCODERS = (
    "convnext_debug", "convnext_in22k_debug_normed", "clip_resnet_debug", "resnet_debug",
    "resnet_msra_debug", "mit_debug", "efficientnet_lite0",
)  # fmt: skip
SMALL = dict(
    num_queries=7, dim=16, num_heads=2, pixel_layers=2, pixel_ffn=16, decoder_layers=3,
    decoder_ffn=16, num_points=2,
)  # fmt: skip
ROWS = (0, 0, 1, 2, 3)
CLASSES = 4


def noisy(module, scale=0.1):
    """The module with noise on all weights, so that none is at a start that hides a leak."""
    rng = np.random.default_rng(1)
    graphdef, state = nnx.split(module)

    def add(x):
        return x + jnp.asarray(scale * rng.normal(size=x.shape), x.dtype)

    return nnx.merge(graphdef, jax.tree.map(add, state))


def batch(sizes=SIZES, padded=PADDED, dtype=np.uint8):
    """Images alone, and padded with noise."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (1, h, w, 3)).astype(dtype) for h, w in sizes]
    whole = rng.integers(0, 256, (len(sizes), *padded, 3)).astype(dtype)
    for i, image in enumerate(images):
        whole[i, : sizes[i][0], : sizes[i][1]] = image[0]
    return images, whole, jnp.asarray(sizes, jnp.int32)


def up32(side):
    return -(-side // 32) * 32


def assert_scores_are_those_of_each_image_alone(model, sizes):
    graphdef, state = nnx.split(model)
    alone, whole, own = batch(sizes)
    scores = jax.jit(lambda s, x: nnx.merge(graphdef, s).scores(x))
    padded = jax.jit(lambda s, x, n: nnx.merge(graphdef, s).padded_scores(x, n))
    got = np.asarray(padded(state, whole, own))
    for i, (h, w) in enumerate(sizes):
        wanted = scores(state, alone[i])[0]
        np.testing.assert_allclose(got[i, :h, :w], wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ENCODERS)
def test_features_of_a_padded_batch_are_those_of_each_image(name):
    scale = 0.02 if name == "efficientnet_lite0" else 0.1
    graphdef, state = nnx.split(noisy(get_encoder(name).build(HostKeys(0)), scale))
    sizes = [(up32(h), up32(w)) for h, w in SIZES]
    alone, whole, own = batch(sizes, dtype=np.float32)
    alone, whole = [image / 64 - 2 for image in alone], whole / 64 - 2
    features = jax.jit(lambda s, x: nnx.merge(graphdef, s)(x))
    padded = jax.jit(lambda s, x, n: nnx.merge(graphdef, s)(x, extent=Extent(n, PADDED)))
    # noise beyond the images, which `Clouds.encode` would clear, must not be seen either
    got = padded(state, whole, own)
    for i, (h, w) in enumerate(sizes):
        for level, (feature, wanted) in enumerate(
            zip(got.values(), features(state, alone[i]).values(), strict=True), start=2
        ):
            inside = feature[i, : h >> level, : w >> level]
            assert inside.shape == wanted[0].shape
            error = np.abs(np.asarray(inside - wanted[0])).max()
            assert error < TOLERANCE * np.std(wanted[0]) * 4, (level, error)


HEADS = {kind: clouds.HeadSize(**SMALL, classifier=kind) for kind in CLASSIFIERS} | {
    "fpn": clouds.FPNSize(dim=16)
}


@pytest.mark.parametrize("head", HEADS)
def test_scores_of_a_padded_batch_are_those_of_each_image(head):
    rows = clouds.text_rows("convnext_debug", ROWS) if head == "text" else None
    model = noisy(
        clouds.build_model("convnext_debug", HEADS[head], CLASSES, rows=rows, rngs=HostKeys(0))
    )
    assert_scores_are_those_of_each_image_alone(model, SIZES if head == "linear" else SIZES[1:])


def test_the_padding_changes_the_scores_of_a_model_that_is_not_told_the_sizes():
    model = noisy(clouds.build_model("convnext_debug", HEADS["linear"], CLASSES, rngs=HostKeys(0)))
    graphdef, state = nnx.split(model)
    _, whole, _ = batch([(64, 96)])
    scores = jax.jit(lambda s, x, n: nnx.merge(graphdef, s).padded_scores(x, n))
    told, not_told = (
        scores(state, whole, jnp.asarray([n]))[0, :64, :96] for n in ((64, 96), PADDED)
    )
    assert np.abs(np.asarray(told - not_told)).max() > 100 * TOLERANCE


@pytest.mark.parametrize("encoder", ["convnext_debug", "clip_resnet_debug"])
def test_the_ensemble_pools_inside_the_images(encoder):
    ensemble = clouds.EnsembleSize(
        clouds.text_rows(encoder, ROWS), (True, False) * 2, valid_masks=True
    )
    model = noisy(
        clouds.build_model(encoder, HEADS["linear"], CLASSES, ensemble=ensemble, rngs=HostKeys(0))
    )
    assert_scores_are_those_of_each_image_alone(model, SIZES[1:])


def test_without_an_extent_nothing_is_computed():
    x = jnp.ones((1, 4, 6, 2))
    for function in (extents.clear, extents.clear_pixels, extents.extend):
        assert function(x, None) is x
    assert extents.inside_tokens(None, [(4, 6)]) is None


def test_a_map_that_is_no_fraction_of_the_batch_is_refused():
    extent = Extent(jnp.asarray([[64, 64]]), (64, 96))
    with pytest.raises(ValueError, match=r"a map of \(8, 13\) is no fraction of the padded size"):
        extents.inside(extent, (8, 13))


def test_the_encodings_of_an_image_are_those_of_its_own_size():
    extent = Extent(jnp.asarray([[64, 96], [96, 33]]), (96, 160))
    codes = position.sine_position_within(extent, (12, 20), 16)
    for code, (h, w) in zip(codes, ((8, 12), (12, 8)), strict=True):
        wanted = position.sine_position((h, w), 16)
        np.testing.assert_allclose(code[:h, :w], wanted, atol=3e-6)


@pytest.mark.parametrize("old, new", [((5, 7), (9, 4)), ((8, 6), (8, 11)), ((1, 2), (3, 3))])
def test_a_part_is_resized_as_it_would_be_alone(old, new):
    maps = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 9, 2)), jnp.float32)
    got = resize.resize_parts(maps, jnp.asarray([old]), jnp.asarray([new]), (12, 13))
    wanted = resize.resize_bilinear(maps[:, : old[0], : old[1]], new)
    np.testing.assert_allclose(got[:, : new[0], : new[1]], wanted, atol=1e-6)


@pytest.mark.parametrize(
    "size, want",
    [
        ((1024, 2048), (1024, 2048)),  # Cityscapes
        ((1024, 1820), (1024, 1824)),  # BDD100K and ACDC
        ((1024, 1365), (1024, 1376)),  # 4:3
        ((1365, 1024), (1376, 1024)),
        ((1024, 1366), (1024, 1376)),
        ((1536, 1024), (1536, 1024)),
        ((1024, 1024), (1024, 1024)),
        ((720, 1280), (736, 1312)),
        ((2448, 3264), (2560, 3424)),
        ((370, 1226), (384, 1248)),  # KITTI
        ((1, 1), (32, 32)),
    ],
)
def test_buckets_fit_the_formats_of_cameras(size, want):
    assert protocols.bucket(size) == want


def test_the_clouds_protocol_needs_at_most_thirteen_buckets():
    clouds_protocol = protocols.get_protocol("clouds")
    wide = [(short, long) for short in (600, 1111, 3936) for long in range(short, 2 * short, 7)]
    buckets = set()
    for size in (*wide, *((long, short) for short, long in wide)):
        size = protocols.input_size(size, clouds_protocol)
        bucket = protocols.bucket(size)
        assert all(a >= b and a % 32 == 0 for a, b in zip(bucket, size, strict=True))
        assert bucket[0] * bucket[1] < 1.3 * size[0] * size[1]
        buckets.add(bucket)
    assert len(buckets) == 13


class Alone(nnx.Module):
    """The same model for an evaluation that pads nothing."""

    def __init__(self, model):
        self.model = model

    def scores(self, images):
        return self.model.scores(images)


def scored(model, examples, **options):
    graphdef, state = nnx.split(model)
    arguments = dict(
        dataset="fake/val", label_space="cityscapes19", model_space="cityscapes19",
        protocol=protocols.get_protocol("native"),
    )  # fmt: skip
    return evaluate(graphdef, (state,), examples, **(arguments | options))


def drawn(sizes):
    return [Example(f"fake/{i:03d}", *fake.draw(3, i, size)) for i, size in enumerate(sizes)]


MIXED = ((64, 84), (64, 80), (84, 64), (64, 85), (60, 85), (64, 84), (83, 64))


def test_an_evaluation_in_buckets_gives_the_same_numbers():
    model = noisy(clouds.build_model("convnext_debug", HEADS["linear"], 19, rngs=HostKeys(0)))
    options = dict(
        protocol=protocols.get_protocol("clouds", short_side=64), devices=jax.devices()[:1],
        batch_per_device=2,
    )  # fmt: skip
    examples = drawn(((64, 84), (64, 80), (84, 64), (60, 80), (60, 80)))
    got, want = scored(model, examples, **options), scored(Alone(model), examples, **options)
    assert (got.programs, want.programs) == (2, 4)
    np.testing.assert_array_equal(got.confusion, want.confusion)
    assert got.images == want.images
    panels = ({panel.key: panel for panel in result.panels} for result in (got, want))
    for ours, theirs in zip(*(sorted(each.items()) for each in panels), strict=True):
        np.testing.assert_array_equal(ours[1].label, theirs[1].label)
        np.testing.assert_array_equal(ours[1].predicted, theirs[1].predicted)


class ByPixel(nnx.Module):
    """Scores every pixel by itself and notes for which shapes it was traced."""

    traced = []

    def __init__(self):
        rng = np.random.default_rng(0)
        self.kernel = nnx.Param(jnp.asarray(rng.normal(size=(3, 19)), jnp.float32))

    def scores(self, images):
        return (images.astype(jnp.float32) / 64 - 2) @ self.kernel[...]

    def padded_scores(self, images, sizes):
        self.traced.append(images.shape)
        assert sizes.shape == (images.shape[0], 2)
        return self.scores(images)


def test_scores_are_resized_to_labels_of_several_sizes():
    model = ByPixel()
    options = dict(
        protocol=protocols.get_protocol("native", size=(48, 60)), devices=jax.devices()[:1]
    )
    ByPixel.traced.clear()
    got = scored(model, drawn(MIXED), **options)
    assert ByPixel.traced == [(1, 64, 64, 3)] * 2 and got.programs == 2
    want = scored(Alone(model), drawn(MIXED), **options)
    np.testing.assert_array_equal(got.confusion, want.confusion)
    assert want.programs == 6


def test_padding_is_not_scored_and_short_batches_are_filled():
    examples = drawn(MIXED[:3])
    result = scored(ByPixel(), examples, batch_per_device=3)
    assert result.confusion.sum() == sum((each.label != IGNORE).sum() for each in examples)


def test_windows_are_not_padded():
    protocol = protocols.get_protocol("slide", window=(32, 32), stride=(32, 32))
    ByPixel.traced.clear()
    assert scored(ByPixel(), drawn(MIXED[:2]), protocol=protocol).programs == 2
    assert not ByPixel.traced

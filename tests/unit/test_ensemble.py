"""The geometric ensemble: numbers by hand, extremes, empty masks, and in the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.nn import clouds
from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.ensemble import Ensemble, EnsembleSize
from clouds_jax.nn.mask2former.head import class_scores
from clouds_jax.nn.rngs import HostKeys
from clouds_jax.ops import text_logits
from clouds_jax.training.state import in_head
from clouds_jax.typing import Prediction

ROWS = clouds.TextRows((0, 0, 1, 2), 5)
SEEN = (True, False, True)
ATOL = 1e-5


def logits(seed=0, b=2, q=4, k=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(b, q, k + 1)), rng.normal(size=(b, q, k))


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def run(trained, clip, share):
    shape = np.broadcast_to(share, clip.shape)
    return np.asarray(text_logits.geometric_ensemble(*map(jnp.float32, (trained, clip, shape))))


def test_it_is_the_weighted_geometric_mean_of_the_votes():
    trained, clip = logits()
    share = np.array([0.4, 0.8, 0.4])
    out = softmax(run(trained, clip, share))
    votes = softmax(trained[..., :-1]) ** (1 - share) * softmax(clip) ** share
    void = softmax(trained)[..., -1:]
    votes = softmax(np.log(votes)) * (1 - void)
    np.testing.assert_allclose(out, np.concatenate([votes, void], -1), atol=ATOL)


def test_a_share_of_zero_leaves_the_trained_classifier_and_of_one_its_void_alone():
    trained, clip = logits()
    np.testing.assert_allclose(softmax(run(trained, clip, 0.0)), softmax(trained), atol=ATOL)
    out = softmax(run(trained, clip, 1.0))
    np.testing.assert_allclose(out[..., -1], softmax(trained)[..., -1], atol=ATOL)
    np.testing.assert_allclose(
        out[..., :-1] / out[..., :-1].sum(-1, keepdims=True), softmax(clip), atol=ATOL
    )


def test_classes_that_both_sides_exclude_stay_finite():
    trained, clip = logits()
    trained[..., 1], clip[..., 1] = -1e5, -1e5
    clip[0, :, 0] = -1e5
    trained[1, ..., -1] = 1e5  # surely no object
    out = run(trained, clip, 0.5)
    assert np.isfinite(out).all()
    np.testing.assert_allclose(softmax(out)[..., 1], 0, atol=1e-7)
    np.testing.assert_allclose(softmax(out)[1, :, -1], 1, atol=1e-6)


class Encoder(nnx.Module):
    """Embeds a mask as the sum of res5 under it, and knows an empty one by its zeros."""

    def pool_masks(self, res5, masks, extent=None):
        return jnp.einsum("bhwc,bhwq->bqc", res5, masks.astype(res5.dtype))


def prediction_and_features(seed=0):
    rng = np.random.default_rng(seed)
    masks = rng.normal(size=(2, 1, 16, 24, 4))
    masks[..., 0] = -1
    made = Prediction(
        class_logits=jnp.asarray(rng.normal(size=(2, 1, 4, 4)), jnp.float32),
        mask_logits=jnp.asarray(masks, jnp.float32),
    )
    return made, {"res5": jnp.asarray(rng.normal(size=(1, 2, 3, 5)), jnp.bfloat16)}


@pytest.mark.parametrize("valid_masks", [False, True])
def test_empty_masks_are_finite_and_can_leave_clip_out(valid_masks):
    module = Ensemble(EnsembleSize(ROWS, SEEN, valid_masks=valid_masks), rngs=nnx.Rngs(0))
    made, features = prediction_and_features()
    out = module(made, features, Encoder())
    assert out.class_logits.shape == (1, 1, 4, 4) and np.isfinite(out.class_logits).all()
    np.testing.assert_array_equal(out.mask_logits, made.mask_logits[-1:])
    before, after = (softmax(np.asarray(x.class_logits[-1])) for x in (made, out))
    unchanged = np.abs(before - after).max(-1)[0] < ATOL
    assert unchanged.tolist() == [valid_masks, False, False, False]


def test_the_share_is_alpha_for_seen_classes_and_beta_for_others():
    module = Ensemble(EnsembleSize(ROWS, SEEN, alpha=0.3, beta=0.7), rngs=nnx.Rngs(0))
    share = module.share(jnp.asarray([[True, False]]))
    np.testing.assert_allclose(share[0], [[0.3, 0.7, 0.3]] * 2)
    module = Ensemble(EnsembleSize(ROWS, SEEN, valid_masks=True), rngs=nnx.Rngs(0))
    share = module.share(jnp.asarray([[True, False]]))
    np.testing.assert_allclose(share[0], [[0.4, 0.8, 0.4], [0, 0, 0]])


class Head(nnx.Module):
    """Says the same of every image; its first mask is empty."""

    def __init__(self):
        self.offset = nnx.Param(jnp.zeros(()))

    def __call__(self, features, *, all_outputs):
        assert not all_outputs
        made, _ = prediction_and_features()
        return Prediction(made.class_logits + self.offset[...], made.mask_logits)

    def scores(self, output, size):
        return class_scores(output, size)


@pytest.mark.parametrize(
    "encoder, dtype", [("convnext_debug", "float32"), ("clip_resnet_debug", "bfloat16")]
)
def test_the_model_scores_with_it_and_nothing_of_it_is_trained(encoder, dtype):
    numbers = EnsembleSize(clouds.text_rows(encoder, (0, 0, 1, 2)), (True,) * 3)

    def build(rngs):
        made = Ensemble(numbers, rngs=rngs)
        spec = get_encoder(encoder)
        return clouds.Clouds(spec, Head(), ensemble=made, encoder_dtype=dtype, rngs=rngs)

    graphdef, params, frozen = nnx.split(build(HostKeys(0)), in_head, ...)
    assert {path[0] for path, _ in nnx.to_flat_state(params)} == {"head"}
    assert {path[0] for path, _ in nnx.to_flat_state(frozen)} == {"encoder", "ensemble"}

    @jax.jit
    def scores(params, frozen, images):
        model = nnx.merge(graphdef, params, frozen)
        joined = model.scores(images)
        model.ensemble = None
        return model.scores(images), joined

    images = np.random.default_rng(0).integers(0, 256, (1, 40, 70, 3), np.uint8)
    before, after = map(np.asarray, scores(params, frozen, images))
    assert before.shape == after.shape == (1, 40, 70, 3)
    assert np.isfinite(after).all() and np.abs(after - before).max() > 1e-3


def test_an_encoder_without_a_visual_head_is_refused():
    spec = get_encoder("convnext_tiny")
    tiny = nnx.eval_shape(lambda: spec.build(nnx.Rngs(0)))
    with pytest.raises(ValueError, match="no visual head"):
        tiny.pool_masks(jnp.zeros((1, 2, 2, 768)), jnp.ones((1, 2, 2, 1), bool))

"""Which parameters decay, the schedules, and one update by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from clouds_jax.nn import clouds
from clouds_jax.nn.mask2former.size import HeadSize
from clouds_jax.training import optim
from clouds_jax.training.state import in_head

EXACT = 1e-6
SCHEDULE = 5e-5  # float32 powers and sums
UPDATE = 1e-4


@pytest.mark.parametrize(
    "path, expected",
    [
        ("head.pixel_decoder.input_proj.0.conv.bias", True),
        ("head.pixel_decoder.input_proj.0.norm.scale", False),
        ("head.pixel_decoder.layers.norm1.bias", False),
        ("head.pixel_decoder.level_embed", True),
        ("head.transformer_decoder.level_embed", False),
        ("head.transformer_decoder.layers.0.ffn_norm.scale", False),
        ("head.transformer_decoder.layers.0.cross_attention.query.bias", True),
        ("head.transformer_decoder.norm.bias", False),
        ("head.transformer_decoder.query_feat", False),
        ("head.transformer_decoder.query_embed", False),
        ("transformer_decoder.class_embed.bias", True),
        ("encoder.blocks.3.expand.bn.scale", False),
    ],
)
def test_decay_spares_norms_and_embedding_tables(path, expected):
    assert optim.decays(path.split(".")) is expected


def test_the_full_head_has_the_decay_groups_of_the_original():
    model = nnx.eval_shape(
        lambda: clouds.build_model("convnext_large_d_320", HeadSize(), 19, rngs=nnx.Rngs(0))
    )
    head = nnx.state(model, in_head)
    groups = {True: 0, False: 0}
    for path, value in nnx.to_flat_state(head):
        # The original has one tensor per layer where ours stacks them, and one fused tensor for
        # the projections of queries, keys and values.
        stacked = "layers" in path
        fused = path[-2] in ("query", "key") and "transformer_decoder" in path
        groups[optim.decays(path)] += 0 if fused else value.shape[0] if stacked else 1
    # The original counts 94 without decay: one is void_embedding, which its linear classifier
    # never uses and ours does not have.
    assert groups == {True: 199, False: 93}


def test_the_decay_mask_reads_the_paths_of_dicts_and_states():
    tx = optim.make_optimizer(lr=0.5, steps=10, weight_decay=0.1)
    params = {"norm": {"scale": jnp.ones(2)}, "fc": {0: {"kernel": jnp.ones(2)}}}
    for tree in (params, nnx.State(jax.tree.map(nnx.Param, params))):
        zero = jax.tree.map(jnp.zeros_like, tree)
        updates, _ = tx.update(zero, tx.init(tree), tree)
        kernel, scale = jax.tree.leaves(updates)
        np.testing.assert_allclose(kernel, -0.05, rtol=EXACT)
        np.testing.assert_allclose(scale, 0)


def test_the_first_update_by_hand():
    params = {"fc": {"kernel": jnp.asarray([1.0, -2.0])}}
    grads = {"fc": {"kernel": jnp.asarray([3.0, -4.0])}}  # norm 5, clipped to 0.01
    tx = optim.make_optimizer(lr=0.1, steps=10, weight_decay=0.5, clip_norm=0.01, eps=1e-3)
    updates, _ = tx.update(grads, tx.init(params), params)
    clipped = np.asarray([0.006, -0.008])
    expected = -0.1 * (clipped / (np.abs(clipped) + 1e-3) + 0.5 * np.asarray([1.0, -2.0]))
    np.testing.assert_allclose(updates["fc"]["kernel"], expected, rtol=UPDATE)


def test_a_constant_schedule_is_constant():
    rate = optim.make_schedule(lr=3e-4, steps=100)
    np.testing.assert_allclose([rate(0), rate(99)], 3e-4, rtol=EXACT)


def test_the_polynomial_reaches_zero_at_the_last_step():
    rate = optim.make_schedule(lr=2.0, steps=100, schedule="poly", power=0.9)
    expected = [2.0, 2 * 0.5**0.9, 2 * 0.01**0.9, 0.0]
    np.testing.assert_allclose([rate(i) for i in (0, 50, 99, 100)], expected, rtol=SCHEDULE)


def test_the_warm_up_multiplies_the_schedule():
    rate = optim.make_schedule(lr=1.0, steps=100, schedule="poly", power=1.0, lr_warmup_steps=10)
    expected = [0.001, (0.001 + 0.999 * 0.5) * 0.95, 0.9]
    np.testing.assert_allclose([rate(i) for i in (0, 5, 10)], expected, rtol=SCHEDULE)


def test_an_unknown_schedule_names_the_known_ones():
    with pytest.raises(ValueError, match="'cosine'; it must be 'constant' or 'poly'"):
        optim.make_optimizer(lr=1.0, steps=1, schedule="cosine")

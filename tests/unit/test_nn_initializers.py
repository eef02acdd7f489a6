"""Initialisers: JAX's numbers for JAX's keys, the same distributions and structure on the host."""

import jax
import numpy as np
import pytest
from flax import nnx

from clouds_jax.nn import initializers
from clouds_jax.nn.clouds import FPNSize, HeadSize, build_model
from clouds_jax.nn.rngs import HostKeys

HEAD = HeadSize(
    num_queries=7, dim=16, num_heads=2, pixel_layers=2, pixel_ffn=16, decoder_layers=3,
    decoder_ffn=16, num_points=2,
)  # fmt: skip
ENCODERS = ("convnext_debug", "clip_resnet_debug", "resnet_debug", "mit_debug")


def leaves(state):
    return {jax.tree_util.keystr(p): x for p, x in jax.tree_util.tree_leaves_with_path(state)}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("seed", [None, 0])
def test_a_model_has_the_same_structure_whatever_draws_it(name, seed):
    head = HEAD if name == "convnext_debug" else FPNSize(dim=16)

    def build(rngs):
        return build_model(name, head, 5, rngs=rngs)

    graphdef, state = nnx.split(build(HostKeys(seed)))
    expected, shapes = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    assert graphdef == expected
    ours, theirs = leaves(state), leaves(shapes)
    assert list(ours) == list(theirs)
    for path, leaf in ours.items():
        assert (leaf.shape, leaf.dtype) == (theirs[path].shape, theirs[path].dtype), path


@pytest.mark.parametrize(
    "initializer",
    [
        initializers.XAVIER, initializers.KAIMING, initializers.FAN_OUT, initializers.NORMAL,
        initializers.truncated_normal(0.02), initializers.uniform(0.3), initializers.ZEROS,
        initializers.ONES,
    ],
)  # fmt: skip
def test_the_host_draws_from_the_distribution_of_the_device(initializer):
    shape = (3, 3, 64, 128)
    host = initializer(HostKeys(0).params(), shape)
    device = np.asarray(initializer(jax.random.key(0), shape))
    assert host.dtype == device.dtype == np.float32
    spread = device.std() + 1e-12
    assert abs(host.mean() - device.mean()) < 0.02 * spread + 1e-6
    np.testing.assert_allclose(host.std(), device.std(), rtol=0.02, atol=1e-7)
    levels = np.linspace(0.01, 0.99, 9)
    np.testing.assert_allclose(
        np.quantile(host, levels), np.quantile(device, levels), atol=0.03 * spread + 1e-6
    )


def test_a_stack_is_drawn_block_by_block_and_by_seed():
    draw = lambda seed: initializers.NORMAL(HostKeys(seed).stack(3).params(), (1024, 512))  # noqa: E731
    stack = draw(0)
    assert stack.shape == (3, 1024, 512)
    assert abs(np.corrcoef(stack[0].ravel(), stack[1].ravel())[0, 1]) < 0.01
    np.testing.assert_array_equal(stack, draw(0))
    assert (stack != draw(1)).mean() > 0.99


def test_weights_from_elsewhere_need_no_memory():
    placeholder = initializers.NORMAL(HostKeys(None).params(), (1000, 1000, 1000))
    assert placeholder.shape == (1000, 1000, 1000) and placeholder.strides == (0, 0, 0)

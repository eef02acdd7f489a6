"""An encoder that is trained with the head: its gradient, its learning rate, what stays frozen."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from clouds_jax import sharding
from clouds_jax.losses import segmentation
from clouds_jax.nn.clouds import HeadSize, build_model
from clouds_jax.nn.encoders.convnext import SIZES, ConvNeXt, StochasticDepth
from clouds_jax.nn.rngs import HostKeys
from clouds_jax.ops import masks
from clouds_jax.training import optim
from clouds_jax.training.plan import labelled
from clouds_jax.training.state import in_head_or_trunk, make_state
from clouds_jax.training.step import make_step
from clouds_jax.typing import Batch, Targets

CLASSES, SIZE = 5, (32, 64)
HEAD = HeadSize(
    num_queries=7, dim=16, num_heads=2, pixel_layers=1, pixel_ffn=16, decoder_layers=3,
    decoder_ffn=16, num_points=2,
)  # fmt: skip
set_loss = functools.partial(segmentation.set_loss, num_points=32)


def make(devices, tx, teacher=False, remat="none", drop_path=0.0, accumulate=1):
    mesh = sharding.make_mesh(jax.devices()[:devices])

    def build(rngs):
        return build_model("convnext_debug", HEAD, CLASSES, rngs=rngs)

    graphdef, state, shardings = make_state(
        build, tx, seed=0, mesh=mesh, rules=((".*", "replicate"),), teacher=teacher,
        trained=in_head_or_trunk, weights=nnx.to_pure_dict(nnx.state(build(HostKeys(0)))),
    )  # fmt: skip
    # a fresh layer scale of 1e-6 would hide the blocks
    state = state.replace(
        params=jax.tree_util.tree_map_with_path(
            lambda path, x: x * 0 + 0.5 if "gamma" in jax.tree_util.keystr(path) else x,
            state.params,
        )
    )
    step = make_step(
        graphdef, set_loss, tx, prepare=labelled(CLASSES), mesh=mesh,
        shardings=shardings, schedule=optim.make_schedule(lr=1e-3, steps=20), drop_path=drop_path,
        accumulate=accumulate, remat=remat, donate=False,
    )  # fmt: skip
    return graphdef, state, step, mesh


def batch(mesh):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4, *SIZE, 3), np.uint8)
    label = rng.integers(0, CLASSES, (4, *SIZE)).astype(np.uint8)
    return jax.device_put(Batch(image=image, label=label), sharding.over_batch(mesh))


def named(state):
    return {".".join(map(str, path)): np.asarray(v[...]) for path, v in nnx.to_flat_state(state)}


def test_the_gradient_is_that_of_the_whole_model():
    graphdef, state, step, mesh = make(2, optax.sgd(1.0))
    data = batch(mesh)
    after, metrics = step(state, data)
    ours = jax.tree.map(lambda old, new: old - new, state.params, after.params)

    @jax.jit
    def expected(params):
        model = nnx.merge(graphdef, params, state.frozen)
        targets = Targets(data.label, masks.present_classes(data.label, CLASSES))
        keys = jax.random.split(jax.random.fold_in(state.key, 0), 4)
        return set_loss(model(data.image, all_outputs=True), targets, keys)[0]

    wanted = named(jax.grad(expected)(state.params))
    found = named(ours)
    assert found.keys() == wanted.keys()
    assert any(name.startswith("encoder.stages.3") for name in wanted)
    for name, value in wanted.items():
        distance = np.linalg.norm(found[name] - value)
        assert distance <= 1e-3 * np.linalg.norm(value) + 1e-5, name
    trunk = [v for name, v in wanted.items() if name.startswith("encoder.stem")]
    assert all(np.linalg.norm(v) > 1e-4 for v in trunk)
    np.testing.assert_allclose(
        metrics["grad_norm"], np.sqrt(sum((v**2).sum() for v in wanted.values())), rtol=1e-4
    )


@pytest.mark.parametrize(
    "devices, accumulate",
    [
        (1, 2),
        *(pytest.param(*layout, marks=pytest.mark.slow) for layout in ((1, 4), (2, 2), (4, 1))),
    ],
)
def test_portions_of_a_batch_give_its_update(devices, accumulate):
    """With stochastic depth, whose draws belong to the images."""
    found = []
    for n, parts in ((1, 1), (devices, accumulate)):
        _, state, step, mesh = make(n, optax.sgd(0.1), drop_path=0.5, accumulate=parts)
        after, metrics = step(state, batch(mesh))
        found.append((named(after.params), jax.device_get(metrics)))
    (one, metrics), (portions, ours) = found
    for name, value in metrics.items():
        rtol = 1e-4 if name == "grad_norm" else 1e-5  # of sums with cancellation
        np.testing.assert_allclose(ours[name], value, rtol=rtol, err_msg=name)
    for name, value in one.items():
        np.testing.assert_allclose(portions[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["blocks", "stages"])
def test_what_is_computed_again_changes_no_gradient(remat):
    data = batch(make(1, optax.sgd(1.0))[3])
    found, temporaries = [], []
    for kind in ("none", remat):
        _, state, step, _ = make(1, optax.sgd(1.0), remat=kind)
        compiled = step.lower(state, data).compile()
        temporaries.append(compiled.memory_analysis().temp_size_in_bytes)
        found.append(named(compiled(state, data)[0].params))
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert temporaries[1] != temporaries[0]  # it is another program


def test_the_visual_head_and_the_teacher_of_the_encoder_are_left_out():
    _, state, *_ = make(1, optax.sgd(1.0), teacher=True)
    names = named(state.params)
    assert not any(name.startswith("encoder.visual_head") for name in names)
    assert any(name.startswith("encoder.visual_head") for name in named(state.frozen))
    assert set(named(state.teacher)) == {name for name in names if name.startswith("head")}


def test_the_encoder_learns_ten_times_slower():
    tx = optim.make_optimizer(lr=1e-2, steps=9, weight_decay=0.0, clip_norm=1e9, encoder_factor=0.1)
    params = {"encoder": {"w": jnp.ones(3)}, "head": {"w": jnp.ones(3)}}
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["head"]["w"], -1e-2, rtol=1e-5)
    np.testing.assert_allclose(updates["encoder"]["w"], -1e-3, rtol=1e-5)


def test_blocks_are_skipped_by_rates_that_grow_with_depth():
    size = dataclasses.replace(SIZES["debug"], depths=(1, 1, 1, 2))
    encoder = ConvNeXt(size, rngs=HostKeys(0))
    images = jax.random.normal(jax.random.key(1), (64, 32, 32, 3))
    depth = StochasticDepth(0.5, jax.random.split(jax.random.key(2), 64))
    rates = np.concatenate([rate for rate, _ in depth.of_stages(size.depths)])
    np.testing.assert_allclose(rates, [0, 0.125, 0.25, 0.375, 0.5])

    plain, dropped = encoder(images), encoder(images, drop=depth)
    # the block of the first stage is never skipped; a skipped one leaves its input alone
    np.testing.assert_allclose(dropped["res2"], plain["res2"], atol=1e-5)
    stage = encoder.stages[1]
    before = stage.downsample(dropped["res2"])
    skipped = (np.abs(np.asarray(dropped["res3"] - before)).max((1, 2, 3)) == 0).mean()
    assert 0.01 < skipped < 0.35

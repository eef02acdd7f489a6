"""The step on a small model: devices, compilation, donation, what changes and what does not."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_run

from clouds_jax import sharding

SAME = 1e-5  # between numbers of devices: the order of additions differs
COLLECTIVE = r" (all-[a-z]+(?:-[a-z]+)?|reduce-scatter|collective-[a-z]+)(?:-start)?\("


def train(steps, devices=None, **options):
    step, state, _, mesh = small_run.make(devices, **options)
    losses = []
    for seed in range(steps):
        state, metrics = step(state, small_run.batch(mesh, seed=seed % 2))
        losses.append(float(metrics["loss"]))
    return state, losses, metrics


def test_the_loss_falls():
    _, losses, _ = train(12)
    assert losses[-1] < losses[0] - 0.01


def test_one_two_and_eight_devices_agree(eight_devices):
    command = [sys.executable, __file__]
    done = subprocess.run(command, env=eight_devices, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found) == ["1", "2", "8"]
    for devices in ("2", "8"):
        for name in ("losses", "weights"):
            np.testing.assert_allclose(found[devices][name], found["1"][name], atol=SAME, rtol=0)


def test_the_encoder_stays_and_the_head_moves():
    before = jax.device_get(small_run.make()[1])
    after = jax.device_get(train(2)[0])
    for x, y in zip(jax.tree.leaves(before.frozen), jax.tree.leaves(after.frozen), strict=True):
        np.testing.assert_array_equal(x, y)
    assert any(
        (x != y).any()
        for x, y in zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True)
    )


def test_only_the_head_has_moments():
    _, state, _, _ = small_run.make()
    trained = sum(x.size for x in jax.tree.leaves(state.params))
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert sum(x.size for x in moments) == 2 * trained


def test_the_step_compiles_once(caplog):
    with jax.log_compiles():
        train(3)
    assert caplog.text.count("Finished XLA compilation of jit(step)") == 1


def test_the_state_is_donated():
    step, state, _, mesh = small_run.make()
    step(state, small_run.batch(mesh))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_only_the_normaliser_and_the_gradient_are_added_over_the_devices():
    step, state, _, mesh = small_run.make()
    text = step.lower(state, small_run.batch(mesh)).compile().as_text()
    assert re.findall(COLLECTIVE, text) == ["all-reduce", "all-reduce"]


def test_a_state_split_over_the_devices_trains_alike():
    rules = (("frozen.*kernel", "fsdp"), (".*", "replicate"))
    state, losses, _ = train(3, rules=rules)
    kernel = state.frozen["encoder"]["conv"]["kernel"][...]
    assert kernel.sharding.spec == jax.sharding.PartitionSpec(None, None, None, "data")
    np.testing.assert_allclose(losses, train(3)[1], atol=SAME, rtol=0)


def test_equal_seeds_give_equal_runs_and_others_do_not():
    assert train(2, seed=3)[1] == train(2, seed=3)[1]
    assert train(2, seed=3)[1] != train(2, seed=4)[1]


def test_the_metrics_tell_the_learning_rate_and_the_gradient():
    _, _, metrics = train(2)
    # The second update happens after one update done: poly decay over 20 steps.
    np.testing.assert_allclose(metrics["lr"], 1e-2 * 0.95**0.9, rtol=1e-6)
    assert metrics["grad_norm"] > 0
    assert bool(metrics["finite"])


def test_a_loss_that_is_not_finite_is_flagged():
    step, state, _, mesh = small_run.make()
    params = jax.tree.map(lambda x: x * jnp.nan, state.params)
    _, metrics = step(state.replace(params=params), small_run.batch(mesh))
    assert not bool(metrics["finite"])


def test_the_nan_checks_find_the_operation():
    step, state, shardings, mesh = small_run.make(jax.devices()[:1], donate=False)
    bad = jax.tree.map(lambda x: np.full(x.shape, np.nan, x.dtype), state.params)
    state = state.replace(params=jax.device_put(bad, shardings.params))
    with (
        jax.debug_nans(True),
        pytest.raises(FloatingPointError, match=r"invalid value \(nan\) encountered in"),
    ):
        step(state, small_run.batch(mesh))


@pytest.mark.parametrize("devices", [1, 2])
def test_the_mesh_holds_the_devices_asked_for(devices):
    assert sharding.make_mesh(jax.devices()[:devices]).size == devices


def main():
    """Prints losses and final weights for 1, 2 and 8 devices; run by the test above."""
    found = {}
    for devices in (1, 2, 8):
        state, losses, _ = train(3, jax.devices()[:devices])
        weights = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)])
        found[devices] = {"losses": losses, "weights": weights.tolist()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""What a GPU computes against the CPU beside it, in full float32; see experiments/gpu_checks.sh."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clouds_jax import sharding
from clouds_jax.config.experiment import read_experiment
from clouds_jax.ops.deformable_attention import IMPLEMENTATIONS, deform_attn
from clouds_jax.training.state import make_state
from clouds_jax.training.step import make_step
from clouds_jax.typing import Batch
from configs import warmup_gta

pytestmark = pytest.mark.gpu
SIZES = ((12, 20), (24, 40), (48, 80))
# A scatter-add by atomic additions takes a few times as long as the gather of the same rows; by the
# compare-and-swap loop of some versions of XLA (openxla/xla 46225), far longer.
SLOWEST = 20


@pytest.fixture(autouse=True)
def full_float32():
    """Skips where there is no GPU."""
    if jax.default_backend() != "gpu":
        pytest.skip("JAX finds no GPU here")
    with jax.default_matmul_precision("float32"):
        yield


def attention(implementation, device):
    """Output and gradients of deformable attention at random points."""
    rng = np.random.default_rng(0)
    count = sum(h * w for h, w in SIZES)
    values = rng.normal(size=(2, count, 4, 32))
    points = rng.uniform(-0.05, 1.05, (3, 2, 2, 2, count, 4))
    weights, cotangent = rng.normal(size=(3, 2, 2, count, 4)), rng.normal(size=(2, count, 4, 32))
    inputs = [jax.device_put(np.float32(x), device) for x in (values, points, weights, cotangent)]

    @jax.jit
    def run(values, points, weights, cotangent):
        def attend(values, points, weights):
            return deform_attn(values, SIZES, points, weights, implementation=implementation)

        out, pull = jax.vjp(attend, values, points, weights)
        return out, *pull(cotangent)

    return jax.device_get(run(*inputs))


@pytest.mark.parametrize("implementation", [None, *IMPLEMENTATIONS])
def test_deformable_attention_and_its_gradients_are_those_of_the_cpu(implementation):
    expected = attention("rows", jax.devices("cpu")[0])
    found = attention(implementation, jax.devices()[0])
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def rows_and_shares(rows=30_000, times=40):
    """Indices into a table of 128 channels, and whole numbers, whose sums no order changes."""
    rng = np.random.default_rng(1)
    index = rng.integers(0, rows, rows * times).astype(np.int32)
    return rows, index, rng.integers(-8, 9, (len(index), 128)).astype(np.float32)


def test_a_scatter_add_is_exact():
    rows, index, shares = rows_and_shares(300)
    expected = np.zeros((rows, 128), np.float32)
    np.add.at(expected, index, shares)
    add = jax.jit(lambda index, shares: jnp.zeros((rows, 128)).at[index].add(shares))
    for _ in range(3):
        np.testing.assert_array_equal(add(index, shares), expected)


def test_a_scatter_add_is_no_compare_and_swap_loop():
    rows, *arrays = rows_and_shares()
    index, shares = map(jnp.asarray, arrays)
    add = jax.jit(lambda index, shares: jnp.zeros((rows, 128)).at[index].add(shares))
    read = jax.jit(lambda index, table: table[index])

    def seconds(function, *args):
        jax.block_until_ready(function(*args))
        took = []
        for _ in range(5):
            began = time.perf_counter()
            jax.block_until_ready(function(*args))
            took.append(time.perf_counter() - began)
        return min(took)

    ratio = seconds(add, index, shares) / seconds(read, index, jnp.ones((rows, 128)))
    assert ratio < SLOWEST, f"a scatter-add takes {ratio:.1f} times as long as the gather"


def step_numbers(device, head_dtype="float32"):
    """Metrics of a training step of the debug model on one device."""
    config = warmup_gta.get_config("debug")
    config.head.dtype = head_dtype
    experiment = read_experiment(config)
    mesh = sharding.make_mesh([device])
    tx, schedule = experiment.optimizer.make()
    graphdef, state, shardings = make_state(
        experiment.build, tx, seed=0, mesh=mesh, rules=experiment.run.sharding
    )
    step = make_step(
        graphdef, experiment.loss.function(experiment.model.head), tx,
        prepare=experiment.prepare(), mesh=mesh, shardings=shardings, schedule=schedule,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    label = rng.integers(0, 19, (2, 4, 4), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    batch = jax.device_put(Batch(image=image, label=label), sharding.over_batch(mesh))
    return {name: float(value) for name, value in jax.device_get(step(state, batch)[1]).items()}


def test_a_training_step_is_that_of_the_cpu():
    expected, found = step_numbers(jax.devices("cpu")[0]), step_numbers(jax.devices()[0])
    assert found.keys() == expected.keys() and found["finite"]
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_training_step_with_a_bfloat16_head_is_near_that_of_float32():
    exact, half = (step_numbers(jax.devices()[0], dtype) for dtype in ("float32", "bfloat16"))
    assert half["finite"]
    np.testing.assert_allclose(half["loss"], exact["loss"], rtol=0.03)

"""Rules, layouts and messages of the mesh."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from clouds_jax import sharding

TREE = {
    "frozen": {"encoder": {"kernel": np.zeros((3, 8, 6)), "bias": np.zeros(7)}},
    "params": {"head": {"kernel": np.zeros((4, 4))}},
}


def specs(rules):
    tree = sharding.shard(TREE, sharding.make_mesh(), rules)
    return jax.tree.map(lambda s: s.spec, tree)


def test_the_first_rule_that_matches_decides():
    found = specs([("frozen.*kernel", "fsdp"), (".*", "replicate")])
    assert found["frozen"]["encoder"]["kernel"] == PartitionSpec(None, "data")
    assert found["frozen"]["encoder"]["bias"] == PartitionSpec()
    assert found["params"]["head"]["kernel"] == PartitionSpec()


def test_an_array_that_the_devices_do_not_divide_is_replicated():
    assert specs([(".*", "fsdp")])["frozen"]["encoder"]["bias"] == PartitionSpec()


def test_an_unknown_rule_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="rule 'split'; known are: replicate, fsdp"):
        specs([(".*", "split")])


def test_a_leaf_without_a_rule_is_named():
    with pytest.raises(ValueError, match="matches frozen.encoder.bias"):
        specs([("kernel", "replicate")])


@pytest.mark.parametrize("size", [0, 3])
def test_a_batch_that_the_devices_cannot_share_is_refused(size):
    message = f"sums to {size} images; 2 devices need a multiple of 2"
    with pytest.raises(ValueError, match=message):
        sharding.check_batch(size, sharding.make_mesh())


@pytest.mark.parametrize("devices, shape", [(1, (6,)), (2, (3,))])
def test_per_device_gives_every_device_its_part_and_adds_up(devices, shape):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    sizes = []

    def part(reduce, x, y):
        sizes.append((x.shape, y.shape))
        return (reduce(x.sum() * y.sum()),)

    (out,) = sharding.per_device(part, mesh, split=(True, False), out=(False,))(
        np.arange(6.0), np.ones(5)
    )
    assert sizes == [(shape, (5,))]
    assert float(out) == 15 * 5


@pytest.mark.parametrize("missing", ["JAX_NUM_PROCESSES", "JAX_PROCESS_ID"])
def test_half_a_description_of_the_hosts_is_refused(monkeypatch, missing):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "10.0.0.1:1234")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    monkeypatch.delenv(missing)
    with pytest.raises(ValueError, match=f"{missing} missing"):
        sharding.join_hosts()


@pytest.mark.parametrize(
    "variables",
    [
        {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"},
        {"OMPI_COMM_WORLD_SIZE": "8"},
    ],
)
def test_one_of_several_processes_does_not_run_alone(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="each process would run alone, in the same folder"):
        sharding.join_hosts()


def test_a_single_process_of_a_launcher_runs(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    sharding.join_hosts()

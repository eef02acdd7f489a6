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


@pytest.mark.parametrize("size, devices, rows", [(6, 1, 6), (6, 4, 8), (2, 16, 16), (8, 8, 8)])
def test_rows_are_added_until_the_devices_share_them(size, devices, rows):
    assert sharding.padded(size, devices) == rows


def test_a_batch_without_images_is_refused():
    with pytest.raises(ValueError, match="a batch has 0 images; it needs at least 1"):
        sharding.padded(0, 2)


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

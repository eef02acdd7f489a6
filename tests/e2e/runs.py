"""What two runs must have in common to be the same."""

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from clouds_jax.files import read_json_lines


def metrics(workdir):
    """The lines without what a clock measured."""
    return [
        {k: v for k, v in line.items() if not k.startswith("time/")}
        for line in read_json_lines(workdir / "metrics.jsonl")
    ]


def saved(workdir, step):
    """All arrays of a checkpoint by name: weights, optimizer, teacher, step, key."""
    folder = workdir / "checkpoints" / str(step)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
        ocp.metadata(folder.absolute()).metadata,
    )
    state = ocp.load_checkpointables(folder.absolute(), {"state": shapes})["state"]
    state["key"] = jax.random.key_data(state["key"])
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def check_same(ours, theirs, step):
    """The runs in two folders wrote the same lines and, at `step`, the same bits."""
    assert metrics(ours) == metrics(theirs)
    one, two = saved(ours, step), saved(theirs, step)
    assert one.keys() == two.keys()
    assert any("opt_state" in name for name in one)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)

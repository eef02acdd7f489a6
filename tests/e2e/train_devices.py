"""Prints the metrics of a small joint phase in several layouts, and its step's collectives.

The batch is that of the paper, 6 + 2 images, which only 1 and 2 devices share without padding, at
once or in portions.

    python tests/e2e/train_devices.py FOLDER

Steps run under a transfer guard: nothing may go between host and devices.
"""

import json
import pathlib
import re
import sys

import jax
import numpy as np
from flax import nnx

from clouds_jax import sharding
from clouds_jax.config.experiment import read_experiment
from clouds_jax.nn.rngs import HostKeys
from clouds_jax.stages import debug_shards
from clouds_jax.training import feed
from clouds_jax.training.state import make_state
from clouds_jax.training.step import make_step
from configs import joint_gta

COLLECTIVE = r" (all-[a-z]+(?:-[a-z]+)?|reduce-scatter|collective-[a-z]+)(?:-start)?\("
STEPS = 5
# devices, portions one after the other
LAYOUTS = ((1, 1), (2, 1), (3, 1), (4, 1), (8, 1), (16, 1), (1, 2), (1, 4), (2, 2))


def run(config, shards, devices, accumulate):
    config.accumulate = accumulate
    experiment = read_experiment(config)
    mesh = sharding.make_mesh(jax.devices()[:devices])
    tx, schedule = experiment.optimizer.make()
    graphdef, state, shardings = make_state(
        experiment.build, tx, seed=0, mesh=mesh, rules=experiment.run.sharding, teacher=True,
        weights=nnx.to_pure_dict(nnx.state(experiment.build(HostKeys(0)))),
    )  # fmt: skip
    step = make_step(
        graphdef, experiment.loss.function(experiment.model.head), tx,
        prepare=experiment.prepare(), mesh=mesh, shardings=shardings, schedule=schedule,
        accumulate=accumulate,
    )  # fmt: skip
    batches = feed.on_devices(
        experiment.data.batches(shards, portions=experiment.portions(devices)), mesh
    )
    batch = next(batches)
    step = step.lower(state, batch).compile()  # it takes every later batch, or raises
    text = step.as_text()
    found = []
    for _ in range(STEPS):
        with jax.transfer_guard("disallow"):
            state, metrics = step(state, batch)
        found.append({name: float(value) for name, value in metrics.items()})
        batch = next(batches)
    weights = {name: jax.tree.leaves(getattr(state, name)) for name in ("params", "teacher")}
    return {
        "metrics": found,
        "collectives": re.findall(COLLECTIVE, text),
        "callbacks": [word for word in ("callback", "infeed", "outfeed") if word in text],
        "norms": {k: [float(np.linalg.norm(x)) for x in v] for k, v in weights.items()},
    }


if __name__ == "__main__":
    config = joint_gta.get_config("debug")
    config.data.batch.fake = 6
    config.data.generated.batch.fake = 2
    config.optimizer.lr = 1e-3
    shards = debug_shards.shards_root(read_experiment(config), pathlib.Path(sys.argv[1]))
    print(json.dumps({f"{n} x {m}": run(config, shards, n, m) for n, m in LAYOUTS}))

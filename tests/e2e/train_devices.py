"""Prints the metrics of a small joint phase on 1 to 16 devices, and its step's collectives.

The batch is that of the paper, 6 + 2 images, which only 1 and 2 devices share without padding.

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
STEPS = 2
DEVICES = (1, 2, 3, 4, 8, 16)


def run(experiment, shards, devices):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    tx, schedule = experiment.optimizer.make()
    graphdef, state, shardings = make_state(
        experiment.build, tx, seed=0, mesh=mesh, rules=experiment.run.sharding, teacher=True,
        weights=nnx.to_pure_dict(nnx.state(experiment.build(HostKeys(0)))),
    )  # fmt: skip
    step = make_step(
        graphdef, experiment.loss.function(experiment.model.head), tx,
        prepare=experiment.prepare(), mesh=mesh, shardings=shardings, schedule=schedule,
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
    experiment = read_experiment(config)
    shards = debug_shards.shards_root(experiment, pathlib.Path(sys.argv[1]))
    print(json.dumps({devices: run(experiment, shards, devices) for devices in DEVICES}))

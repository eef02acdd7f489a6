"""Prints the losses of the debug run on 1, 2 and 8 devices, and the collectives of its step."""

import json
import pathlib
import re
import sys

import jax

from clouds_jax import parts, sharding, train_state, train_step
from configs import warmup_gta

COLLECTIVE = r" (all-[a-z]+(?:-[a-z]+)?|reduce-scatter|collective-[a-z]+)(?:-start)?\("
STEPS = 2


def run(config, shards, devices):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    parts.check(config, mesh)
    tx, schedule = parts.optimizer(config)
    graphdef, state, shardings = train_state.make_state(
        parts.model_builder(config), tx, seed=0, mesh=mesh, rules=config.sharding
    )
    step = train_step.make_step(
        graphdef, parts.loss(config), tx, prepare=parts.prepare(config), mesh=mesh,
        shardings=shardings, schedule=schedule,
    )  # fmt: skip
    batches = parts.batches(config, shards, mesh)
    batch = next(batches)
    step = step.lower(state, batch).compile()
    losses = []
    for _ in range(STEPS):
        state, metrics = step(state, batch)
        losses.append({name: float(value) for name, value in metrics.items()})
        batch = next(batches)
    return {"metrics": losses, "collectives": re.findall(COLLECTIVE, step.as_text())}


if __name__ == "__main__":
    config = warmup_gta.get_config("debug")
    config.data.batch.fake = 8
    config.optimizer.lr = 1e-3
    shards = parts.shards_root(config, pathlib.Path(sys.argv[1]))
    print(json.dumps({devices: run(config, shards, devices) for devices in (1, 2, 8)}))

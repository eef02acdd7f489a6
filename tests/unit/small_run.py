"""A model of a few hundred weights with the parts of the real one, for tests of the run."""

import jax
import numpy as np
from flax import nnx

from clouds_jax import sharding
from clouds_jax.losses import segmentation
from clouds_jax.training import optim
from clouds_jax.training.plan import labelled
from clouds_jax.training.state import make_state
from clouds_jax.training.step import make_step
from clouds_jax.typing import Batch

CLASSES = 5
SIZE = (32, 48)
OPTIMIZER = dict(lr=1e-2, steps=20, weight_decay=0.05, clip_norm=1.0, schedule="poly")


class Encoder(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 8, (4, 4), strides=4, rngs=rngs)

    def __call__(self, images):
        return {"res2": nnx.relu(self.conv(images))}


class Head(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.classify = nnx.Linear(8, CLASSES, rngs=rngs)

    def __call__(self, features, *, all_outputs):
        return self.classify(features["res2"])


class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.encoder = Encoder(rngs=rngs)
        self.head = Head(rngs=rngs)

    def encode(self, images):
        return self.encoder(images.astype(np.float32) / 255)


def optimizer():
    return optim.make_optimizer(**OPTIMIZER)


def make(devices=None, *, seed=0, rules=((".*", "replicate"),), weights=None, donate=True):
    """(step, state, shardings, mesh) of a run of the small model."""
    mesh = sharding.make_mesh(devices)
    tx = optimizer()
    graphdef, state, shardings = make_state(
        Model, tx, seed=seed, mesh=mesh, rules=rules, weights=weights
    )
    schedule = optim.make_schedule(lr=1e-2, steps=20, schedule="poly")
    step = make_step(
        graphdef, segmentation.pixel_loss, tx, prepare=labelled(CLASSES), mesh=mesh,
        shardings=shardings, schedule=schedule, donate=donate,
    )  # fmt: skip
    return step, state, shardings, mesh


def batch(mesh, *, size=8, seed=0):
    """Random images, and labels that depend on them; a quarter is ignored."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (size, *SIZE, 3), dtype=np.uint8)
    label = (image[..., 0] // 52).astype(np.uint8)
    label[:, : SIZE[0] // 4] = 255
    return jax.device_put(Batch(image=image, label=label), sharding.over_batch(mesh))

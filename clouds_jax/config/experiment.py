"""A config, read once at the door: from a ConfigDict to frozen dataclasses.

Nothing else in the package sees a ConfigDict. What cannot be is refused here, by the config's keys.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from flax import nnx
from ml_collections import ConfigDict

from clouds_jax import sharding
from clouds_jax.config.data import DataConfig, EvalConfig, read_data, read_evals
from clouds_jax.config.diff import with_added_keys
from clouds_jax.config.model import ModelConfig, read_model
from clouds_jax.config.selftrain import generated_view, read_selftrain
from clouds_jax.config.training import (
    EncoderTraining,
    LossConfig,
    OptimizerConfig,
    RunConfig,
    read_encoder,
    read_loss,
    read_optimizer,
    read_run,
)
from clouds_jax.nn.clouds import Clouds
from clouds_jax.selftrain.joint import SelfTraining, joint
from clouds_jax.selftrain.labels import FromSam
from clouds_jax.training.plan import Prepare, labelled


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment: model, data, training, evaluations.

    Attributes:
        model: encoder, head, classes.
        encoder: whether the encoder is trained, and its weights.
        data: batches of the training.
        loss: loss of the head.
        optimizer: optimizer with its schedule.
        selftrain: settings of the joint phase; None: a warm-up.
        evals: evaluations of the run.
        run: length, checkpoints and logs.
        source: the config as JSON gives it back, for checkpoints and reports.
    """

    model: ModelConfig
    encoder: EncoderTraining
    data: DataConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    selftrain: SelfTraining | None
    evals: EvalConfig
    run: RunConfig
    source: Mapping[str, Any]

    @property
    def images_per_step(self) -> int:
        """Images per step over all devices, generated ones included."""
        return self.data.images + (self.data.generated.images if self.data.generated else 0)

    def build(self, rngs: nnx.Rngs) -> Clouds:
        """The model of a training step, with random weights; with SAM where labels need it."""
        source = self.selftrain.labels if self.selftrain else None
        return self.model.build(rngs, sam=source.module if isinstance(source, FromSam) else None)

    def prepare(self) -> Prepare:
        """The plan of a training step."""
        classes = len(self.model.space)
        if self.selftrain is None:
            return labelled(classes, images=self.data.images)
        assert self.data.generated, "the joint phase has generated images"
        return joint(
            self.selftrain, classes, images=self.data.images, generated=self.data.generated.images
        )

    def portions(self, devices: int) -> int:
        """Number of equal portions of a batch, over the devices and one after the other."""
        return devices * self.run.accumulate

    def padding(self, devices: int) -> int:
        """Rows of a step that are computed and not counted: all portions are of one size.

        Args:
            devices: number of devices, of all hosts.

        Raises:
            ValueError: a batch without images.
        """
        batches = [self.data.images]
        if self.data.generated:
            batches.append(self.data.generated.images)
        return sum(sharding.padded(size, self.portions(devices)) - size for size in batches)


def read_experiment(config: ConfigDict | Mapping[str, Any]) -> Experiment:
    """Reads a config.

    Args:
        config: a config of `configs/`, or its JSON as a run keeps it.

    Raises:
        ValueError, KeyError: values that could only fail later, or train something else than was
            meant.
    """
    plain = jsonable(config)
    full = with_added_keys(plain)
    model = read_model(full)
    selftrain = read_selftrain(full)
    view = generated_view(full, selftrain, model.space) if selftrain else None
    return Experiment(
        model=model,
        encoder=read_encoder(full),
        data=read_data(full, model.space, view),
        loss=read_loss(full),
        optimizer=read_optimizer(full),
        selftrain=selftrain,
        evals=read_evals(full),
        run=read_run(full),
        source=plain,
    )


def jsonable(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """The config as JSON gives it back: tuples are lists."""
    plain = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    return json.loads(json.dumps(plain))

"""Plans of a training step: what is encoded, and which examples the head learns from."""

import dataclasses
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key, UInt8

from clouds_jax.constants import IGNORE
from clouds_jax.ops import masks
from clouds_jax.training.state import TrainState
from clouds_jax.typing import Batch, Features, Metrics, Targets


@typing.no_type_check  # JAX also fills a pytree with shardings
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DeviceExamples:
    """Examples of one device in a training step; the leading axis of every array counts them.

    Attributes:
        targets: target masks.
        keys: random keys, one per example.
        observed: what `StepPlan.observe` is given.
    """

    targets: Targets
    keys: Key[Array, " b"]
    observed: Any = None


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """Inputs of a training step, before the encoder has run.

    Attributes:
        images: batches to encode, each split over the devices. Features come as one batch, in
            which each device has its rows of the first, then of the second, ... The student
            learns from the first rows, as many as there are examples.
        examples: `examples(shared, features of this device, split)` -> `DeviceExamples`; runs on
            every device.
        split: arrays whose leading axis is split over the devices, like that of the images.
        shared: arrays that every device gets whole.
        observe: `observe(output of the head, observed)` -> further metrics: of each the part of
            the given examples, so that all parts add up to it.
        teacher: the state's teacher after the step; None without one.
    """

    images: Sequence[UInt8[Array, "_ h w 3"]]
    examples: Callable[[Any, Features, Any], DeviceExamples]
    split: Any
    shared: Any = None
    observe: Callable[[Any, Any], Metrics] = lambda output, observed: {}
    teacher: Any = None


# prepare(model, state, batch, key) -> plan
Prepare = Callable[[Any, TrainState, Batch, Key[Array, ""]], StepPlan]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Which rows of a batch are images; those behind them are padding, so that devices share all.

    Attributes:
        total: number of rows.
        images: number of images.
    """

    total: int
    images: int

    def keys(self, key: Key[Array, ""]) -> Key[Array, " b"]:
        """A key per row, by position, so that neither devices nor padding change a draw."""
        keys = jax.random.split(key, self.images)
        return keys[jnp.minimum(jnp.arange(self.total), self.images - 1)] if self.padded else keys

    def counted(self) -> Bool[Array, " b"]:
        """Which rows are images."""
        return jnp.arange(self.total) < self.images

    @property
    def padded(self) -> bool:
        """Whether there is padding."""
        return self.total > self.images


def unlabelled(
    label: UInt8[Array, "b h w"], counted: Bool[Array, " b"] | None
) -> UInt8[Array, "b h w"]:
    """The labels, of padding 255 alone."""
    return label if counted is None else jnp.where(counted[:, None, None], label, IGNORE)


def labelled(classes: int, images: int = 0) -> Prepare:
    """The `prepare` of a step on labelled images alone.

    Args:
        classes: number of classes, k; other ids in a label belong to no mask.
        images: images of a batch; the rows behind them are padding. 0: all rows.
    """

    def prepare(model: Any, state: TrainState, batch: Batch, key: Key[Array, ""]) -> StepPlan:
        rows = Rows(len(batch.image), images or len(batch.image))

        def examples(shared: None, features: Features, split: Any) -> DeviceExamples:
            label, keys, counted = split
            label = unlabelled(label, counted)
            targets = Targets(label, masks.present_classes(label, classes), counted=counted)
            return DeviceExamples(targets, keys)

        counted = rows.counted() if rows.padded else None
        return StepPlan([batch.image], examples, (batch.label, rows.keys(key), counted))

    return prepare

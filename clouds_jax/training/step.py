"""The training step: pure, compiled once, its state donated."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Key, UInt8

from clouds_jax import sharding
from clouds_jax.constants import IGNORE
from clouds_jax.nn.encoders.convnext import Remat, StochasticDepth
from clouds_jax.ops import masks
from clouds_jax.training.state import TrainState, head_of, trunk_of
from clouds_jax.typing import Batch, Features, Metrics, Targets

_DEPTH = 3  # folded into a step's key
# loss(output of the head, targets, keys: Key["b"], reduce=...) -> (loss, metrics), each the part of
# one device; see clouds_jax.losses.segmentation.
Loss = Callable[..., tuple[Array, Metrics]]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class DeviceExamples:
    """Examples of one device in a training step.

    Attributes:
        features: the encoder's features of the examples.
        targets: target masks of the examples.
        keys: random keys, one per example.
        observe: function of the head's output that returns further metrics: of each this device's
            part, so that the parts of all devices add up to it.
    """

    features: Features
    targets: Targets
    keys: Key[Array, " b"]
    observe: Callable[[Any], Metrics] = lambda _: {}


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """Inputs of a training step, before the encoder has run.

    Attributes:
        images: batches to encode, each split over the devices. Features come as one batch, in
            which each device has its rows of the first, then of the second, ...
        examples: `examples(shared, features of this device, split)` -> `DeviceExamples`; runs on
            every device.
        split: arrays whose leading axis is split over the devices, like that of the images.
        shared: arrays that every device gets whole.
        teacher: the state's teacher after the step; None without one.
    """

    images: Sequence[UInt8[Array, "_ h w 3"]]
    examples: Callable[[Any, Features, Any], DeviceExamples]
    split: Any
    shared: Any = None
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
            return DeviceExamples(features, targets, keys)

        counted = rows.counted() if rows.padded else None
        return StepPlan([batch.image], examples, (batch.label, rows.keys(key), counted))

    return prepare


def make_step(
    graphdef: nnx.GraphDef,
    loss: Loss,
    tx: optax.GradientTransformation,
    *,
    prepare: Prepare,
    mesh: Mesh,
    shardings: TrainState,
    schedule: optax.Schedule,
    drop_path: float = 0.0,
    remat: Remat = "none",
    donate: bool = True,
) -> Step:
    """Returns `step(state, batch) -> (state, metrics)`; `state` is donated.

    The encoder runs outside the differentiated function: where it is frozen, none of its
    activations are kept; where it is trained, it is given the gradient by its features. The head's
    loss and gradient run per device, because matching, gathers and scatters would otherwise be
    given collectives; gradients, the metrics and the loss's normalisers are the only things added
    over the devices.

    Args:
        graphdef: structure of the whole model.
        loss: loss of one device's examples; the sum over the devices is the loss of the batch,
            likewise the metrics.
        tx: optimizer of `state.params`.
        prepare: function that plans a step: `labelled(classes)`, or that of the joint phase,
            `clouds_jax.selftrain.joint.joint`.
        mesh: mesh of devices.
        shardings: shardings of the state, as `training.state.make_state` returns them.
        schedule: learning rate by updates done, for the metrics.
        drop_path: rate of stochastic depth in an encoder that is trained, 0..1.
        remat: what the gradient of such an encoder computes again instead of keeping it.
        donate: donate the given state's memory; False keeps it, which `jax_debug_nans` needs to
            run a step again.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        model = nnx.merge(graphdef, state.params, state.frozen)
        plan = prepare(model, state, batch, key)
        images = sharding.join(mesh, plan.images)
        drop = StochasticDepth(drop_path, jax.random.fold_in(key, _DEPTH))
        features, pull = _encode(graphdef, model, state, images, drop, remat)
        grads, metrics, by_features = _head_gradients(
            model.head, loss, plan, head_of(state.params), features, mesh, encoder=pull is not None
        )
        if pull:
            grads = nnx.merge_state(grads, *pull(by_features))
        return _update(tx, schedule, state, grads, metrics, plan.teacher)

    return jax.jit(
        step,
        donate_argnames="state" if donate else None,
        in_shardings=(shardings, sharding.over_batch(mesh)),
        out_shardings=(shardings, None),
    )


def _encode(
    graphdef: nnx.GraphDef,
    model: Any,
    state: TrainState,
    images: UInt8[Array, "_ h w 3"],
    drop: StochasticDepth,
    remat: Remat,
) -> tuple[Features, Callable[[Features], tuple[Any]] | None]:
    """Features, and the encoder's vector-Jacobian product; None where it is frozen."""
    params, trunk = head_of(state.params), trunk_of(state.params)
    if not trunk:
        return model.encode(images), None

    def encode(trunk: Any) -> Features:
        return nnx.merge(graphdef, params, trunk, state.frozen).encode(
            images, drop=drop, remat=remat
        )

    return jax.vjp(encode, trunk)


def _head_gradients(
    head: nnx.Module,
    loss: Loss,
    plan: StepPlan,
    params: Any,
    features: Features,
    mesh: Mesh,
    *,
    encoder: bool,
) -> tuple[Any, Metrics, Features]:
    """Gradients of the head's weights, metrics, and with `encoder` gradients of the features."""
    # beside the trained ones a head may have fixed variables, such as a class matrix
    structure, _, fixed = nnx.split(head, nnx.Param, ...)

    def local(reduce, params, fixed, shared, features, split):
        def objective(params, features):
            examples = plan.examples(shared, features, split)
            head = nnx.merge(structure, params["head"], fixed)
            output = head(examples.features, all_outputs=True)
            total, metrics = loss(output, examples.targets, examples.keys, reduce=reduce)
            observed = jax.lax.stop_gradient(examples.observe(output))
            return total, metrics | observed

        by = (0, 1) if encoder else (0,)
        (total, metrics), grads = jax.value_and_grad(objective, by, has_aux=True)(params, features)
        names = sorted(metrics)
        scalars = jnp.stack([total, *(metrics[name] for name in names)])
        summed, scalars = reduce((grads[0], scalars))
        return summed, dict(zip(["loss", *names], scalars, strict=True)), grads[1:]

    run = sharding.per_device(
        local, mesh, split=(False, False, False, True, True), out=(False, False, True)
    )
    grads, metrics, by_features = run(params, fixed, plan.shared, features, plan.split)
    return grads, metrics, by_features[0] if encoder else {}


def _update(
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    state: TrainState,
    grads: Any,
    metrics: Metrics,
    teacher: Any,
) -> tuple[TrainState, Metrics]:
    """The state after one update of the optimizer, and the metrics with norm and rate."""
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics["grad_norm"] = optax.tree.norm(grads)
    metrics["lr"] = jnp.asarray(schedule(state.step), jnp.float32)
    # A finite sum of squares of the gradient and a finite loss leave nothing to spread.
    metrics["finite"] = jnp.isfinite(metrics["loss"] + metrics["grad_norm"])
    new = dataclasses.replace(
        state, step=state.step + 1, params=params, opt_state=opt_state, teacher=teacher
    )
    return new, metrics

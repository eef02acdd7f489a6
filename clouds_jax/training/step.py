"""The training step: pure, compiled once, its state donated."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Key, UInt8

from clouds_jax import sharding
from clouds_jax.losses.segmentation import Totals
from clouds_jax.nn.encoders.convnext import Remat, StochasticDepth
from clouds_jax.training.plan import DeviceExamples, Prepare, StepPlan
from clouds_jax.training.state import TrainState, head_of, trunk_of
from clouds_jax.typing import Batch, Features, Metrics

_DEPTH = 3  # folded into a step's key
# loss(output of the head, targets, keys: Key["b"], totals=of the batch) -> (loss, metrics), each
# the part of the given examples; see clouds_jax.losses.segmentation.
Loss = Callable[..., tuple[Array, Metrics]]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_step(
    graphdef: nnx.GraphDef,
    loss: Loss,
    tx: optax.GradientTransformation,
    *,
    prepare: Prepare,
    mesh: Mesh,
    shardings: TrainState,
    schedule: optax.Schedule,
    accumulate: int = 1,
    drop_path: float = 0.0,
    remat: Remat = "none",
    donate: bool = True,
) -> Step:
    """Returns `step(state, batch) -> (state, metrics)`; `state` is donated.

    The encoder runs outside the differentiated function: where it is frozen, none of its
    activations are kept; where it is trained, it is given the gradient by its features. The head's
    loss and gradient run per device, because matching, gathers and scatters would otherwise be
    given collectives; gradients, the metrics and the loss's totals are the only things added over
    the devices.

    Args:
        graphdef: structure of the whole model.
        loss: loss of some examples; the sum over devices and portions is the loss of the batch,
            likewise the metrics.
        tx: optimizer of `state.params`.
        prepare: function that plans a step: `labelled(classes)`, or that of the joint phase,
            `clouds_jax.selftrain.joint.joint`.
        mesh: mesh of devices.
        shardings: shardings of the state, as `training.state.make_state` returns them.
        schedule: learning rate by updates done, for the metrics.
        accumulate: portions of a batch whose gradients are computed one after the other, for one
            update; the rows of each of `StepPlan.images` are a multiple of it and of the devices.
        drop_path: rate of stochastic depth in an encoder that is trained, 0..1.
        remat: what the gradient of such an encoder computes again instead of keeping it.
        donate: donate the given state's memory; False keeps it, which `jax_debug_nans` needs to
            run a step again.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        model = nnx.merge(graphdef, state.params, state.frozen)
        plan = prepare(model, state, batch, key)
        keys = _row_keys(jax.random.fold_in(key, _DEPTH), [len(x) for x in plan.images])
        of_head = _HeadPerDevice(
            model.head, loss, plan, mesh, by_features=bool(trunk_of(state.params))
        )

        def encode(images: Any, keys: Any) -> tuple[Features, Pull | None]:
            drop = StochasticDepth(drop_path, sharding.join(mesh, keys))
            return _encode(graphdef, model, state, sharding.join(mesh, images), drop, remat)

        def gradients(features, pull, examples, totals) -> tuple[Any, Metrics]:
            grads, metrics, by_features = of_head.gradients(
                head_of(state.params), features, examples, totals
            )
            return (nnx.merge_state(grads, *pull(by_features)) if pull else grads), metrics

        inputs = plan.images, keys, plan.split
        if accumulate == 1:
            grads, metrics = _at_once(encode, of_head.examples, gradients, inputs)
        else:
            portions = jax.tree.map(lambda x: sharding.portions(mesh, x, accumulate), inputs)
            grads, metrics = _in_portions(encode, of_head.examples, gradients, portions)
        return _update(tx, schedule, state, grads, metrics, plan.teacher)

    return jax.jit(
        step,
        donate_argnames="state" if donate else None,
        in_shardings=(shardings, sharding.over_batch(mesh)),
        out_shardings=(shardings, None),
    )


def _row_keys(key: Key[Array, ""], sizes: Sequence[int]) -> list[Key[Array, " b"]]:
    """A key per row of each batch, by position, so that neither devices nor padding change it."""
    fold_in = jax.vmap(jax.random.fold_in, (None, 0))
    keys = (jax.random.fold_in(key, n) for n in range(len(sizes)))
    return [fold_in(key, jnp.arange(size)) for key, size in zip(keys, sizes, strict=True)]


def _at_once(encode, examples, gradients, inputs) -> tuple[Any, Metrics]:
    """Gradients and metrics of a batch."""
    images, keys, split = inputs
    features, pull = encode(images, keys)
    return gradients(features, pull, *examples(features, split))


def _in_portions(encode, examples, gradients, portions) -> tuple[Any, Metrics]:
    """Gradients and metrics of a batch, of one portion after the other.

    What the losses are divided by belongs to the whole batch. So the targets of all portions come
    first, those of generated images by teacher and SAM included; the features of a frozen encoder
    are kept for the second pass, those of a trained one are computed again.
    """

    def label(portion):
        images, keys, split = portion
        features, pull = encode(images, keys)
        return (None if pull else features), *examples(features, split)

    features, labelled, totals = jax.lax.map(label, portions)
    totals = jax.tree.map(lambda x: x.sum(0), totals)

    def learn(portion):
        (images, keys, _), features, examples = portion
        pull = None
        if features is None:
            features, pull = encode(images, keys)
        return gradients(features, pull, examples, totals)

    every = portions, features, labelled
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), every)
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(learn, first))

    def add(total, portion):
        return jax.tree.map(jnp.add, total, learn(portion)), None

    return jax.lax.scan(add, zeros, every)[0]


Pull = Callable[[Features], tuple[Any]]


def _encode(
    graphdef: nnx.GraphDef,
    model: Any,
    state: TrainState,
    images: UInt8[Array, "_ h w 3"],
    drop: StochasticDepth,
    remat: Remat,
) -> tuple[Features, Pull | None]:
    """Features, and the encoder's vector-Jacobian product; None where it is frozen."""
    params, trunk = head_of(state.params), trunk_of(state.params)
    if not trunk:
        return model.encode(images), None

    def encode(trunk: Any) -> Features:
        return nnx.merge(graphdef, params, trunk, state.frozen).encode(
            images, drop=drop, remat=remat
        )

    return jax.vjp(encode, trunk)


@dataclasses.dataclass(frozen=True)
class _HeadPerDevice:
    """What runs per device, from the features on: the examples, and the gradients of the head.

    Attributes:
        head: the head; beside the trained variables it may have fixed ones, as a class matrix.
        loss, plan, mesh: as in `make_step`.
        by_features: also give the gradient by the features, for an encoder that is trained.
    """

    head: nnx.Module
    loss: Loss
    plan: StepPlan
    mesh: Mesh
    by_features: bool

    def examples(self, features: Features, split: Any) -> tuple[DeviceExamples, Totals]:
        """The examples, and the totals of their targets over all devices."""

        def local(reduce, shared, features, split):
            examples = self.plan.examples(shared, features, split)
            return examples, reduce(Totals.of(examples.targets))

        run = sharding.per_device(local, self.mesh, split=(False, True, True), out=(True, False))
        return run(self.plan.shared, features, split)

    def gradients(
        self, params: Any, features: Features, examples: DeviceExamples, totals: Totals
    ) -> tuple[Any, Metrics, Features]:
        """Gradients of the head's weights, metrics, gradients of the features."""
        structure, _, fixed = nnx.split(self.head, nnx.Param, ...)

        def local(reduce, params, fixed, totals, features, examples):
            def objective(params, features):
                student = {name: x[: len(examples.keys)] for name, x in features.items()}
                head = nnx.merge(structure, params["head"], fixed)
                output = head(student, all_outputs=True)
                total, metrics = self.loss(output, examples.targets, examples.keys, totals=totals)
                observed = self.plan.observe(output, examples.observed)
                return total, metrics | jax.lax.stop_gradient(observed)

            by = (0, 1) if self.by_features else (0,)
            (total, metrics), grads = jax.value_and_grad(objective, by, has_aux=True)(
                params, features
            )
            names = sorted(metrics)
            scalars = jnp.stack([total, *(metrics[name] for name in names)])
            summed, scalars = reduce((grads[0], scalars))
            by_features = grads[1] if self.by_features else {}
            return summed, dict(zip(["loss", *names], scalars, strict=True)), by_features

        run = sharding.per_device(
            local, self.mesh, split=(False, False, False, True, True), out=(False, False, True)
        )
        return run(params, fixed, totals, features, examples)


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

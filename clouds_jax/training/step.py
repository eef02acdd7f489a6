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
from clouds_jax.nn.encoders.convnext import StochasticDepth
from clouds_jax.ops import masks
from clouds_jax.training.state import TrainState, head_of, trunk_of
from clouds_jax.typing import Batch, Features, Metrics, Targets

_DEPTH = 3  # folded into a step's key
# loss(output of the head, targets, keys: Key["b"], reduce=...) -> (loss, metrics), each the part of
# one device; see clouds_jax.losses.segmentation.
Loss = Callable[..., tuple[Array, Metrics]]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class Examples:
    """What one device learns from in a step.

    Attributes:
        features: of its examples.
        targets: of its examples.
        keys: one per example.
        observe: metrics of the head's output, means over the examples of this device.
    """

    features: Features
    targets: Targets
    keys: Key[Array, " b"]
    observe: Callable[[Any], Metrics] = lambda _: {}


@dataclasses.dataclass(frozen=True)
class Work:
    """A step before the encoder has run.

    Attributes:
        images: batches to encode, each split over the devices. Features come as one batch, in
            which each device has its rows of the first, then of the second, ...
        examples: (whole, features of this device, split) -> its examples; runs on every device.
        split: arrays that it is given in parts, as the images are.
        whole: arrays that it is given entire.
        teacher: of the state after the step.
    """

    images: Sequence[UInt8[Array, "_ h w 3"]]
    examples: Callable[[Any, Features, Any], Examples]
    split: Any
    whole: Any = None
    teacher: Any = None


# prepare(model, state, batch, key)
Prepare = Callable[[Any, TrainState, Batch, Key[Array, ""]], Work]


def labelled(classes: int) -> Prepare:
    """Examples with labels, and nothing else.

    Args:
        classes: target masks are the labels below it.
    """

    def prepare(model: Any, state: TrainState, batch: Batch, key: Key[Array, ""]) -> Work:
        # By position in the whole batch, so that the number of devices changes no draw.
        keys = jax.random.split(key, batch.image.shape[0])

        def examples(whole: None, features: Features, split: Any) -> Examples:
            label, keys = split
            return Examples(features, Targets(label, masks.present_classes(label, classes)), keys)

        return Work([batch.image], examples, (batch.label, keys))

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
    donate: bool = True,
) -> Step:
    """Returns `step(state, batch) -> (state, metrics)`; `state` is donated.

    The encoder runs outside the differentiated function: where it is frozen, none of its
    activations are kept; where it is trained, it is given the gradient by its features. The head's
    loss and gradient run per device, because matching, gathers and scatters would otherwise be
    given collectives; gradients, the metrics and the loss's normalisers are the only things added
    over the devices.

    Args:
        graphdef: of the whole model.
        loss: its parts add up to the loss of the batch; likewise its metrics.
        tx: acts on `state.params`.
        prepare: what the examples of a step are: `labelled(classes)`, or that of the joint phase,
            `clouds_jax.selftrain.joint.joint`.
        mesh: the devices.
        shardings: of the state, as `train_state.make_state` returns them.
        schedule: learning rate by updates done, for the metrics.
        drop_path: of an encoder that is trained, the rate of its stochastic depth.
        donate: False keeps the given state, which `jax_debug_nans` needs to run a step again.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        model = nnx.merge(graphdef, state.params, state.frozen)
        work = prepare(model, state, batch, key)
        images = sharding.join(mesh, work.images)
        params, trunk = head_of(state.params), trunk_of(state.params)
        if trunk:
            drop = StochasticDepth(drop_path, jax.random.fold_in(key, _DEPTH))

            def encode(trunk: Any) -> Features:
                return nnx.merge(graphdef, params, trunk, state.frozen).encode(images, drop=drop)

            features, pull = jax.vjp(encode, trunk)
        else:
            features, pull = model.encode(images), None
        # beside the trained ones a head may have fixed variables, such as a class matrix
        head, _, fixed = nnx.split(model.head, nnx.Param, ...)

        def local(reduce, params, fixed, whole, features, split):
            def objective(params, features):
                examples = work.examples(whole, features, split)
                output = nnx.merge(head, params["head"], fixed)(examples.features, all_outputs=True)
                total, metrics = loss(output, examples.targets, examples.keys, reduce=reduce)
                seen = jax.lax.stop_gradient(examples.observe(output))
                return total, metrics | {name: x / mesh.size for name, x in seen.items()}

            wanted = (0, 1) if trunk else (0,)
            (total, metrics), found = jax.value_and_grad(objective, wanted, has_aux=True)(
                params, features
            )
            names = sorted(metrics)
            scalars = jnp.stack([total, *(metrics[name] for name in names)])
            grads, scalars = reduce((found[0], scalars))
            return grads, dict(zip(["loss", *names], scalars, strict=True)), found[1:]

        run = sharding.per_device(
            local, mesh, split=(False, False, False, True, True), out=(False, False, True)
        )
        grads, metrics, by_features = run(params, fixed, work.whole, features, work.split)
        if pull:
            grads = nnx.merge_state(grads, *pull(*by_features))
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics["grad_norm"] = optax.tree.norm(grads)
        metrics["lr"] = jnp.asarray(schedule(state.step), jnp.float32)
        # A finite sum of squares of the gradient and a finite loss leave nothing to spread.
        metrics["finite"] = jnp.isfinite(metrics["loss"] + metrics["grad_norm"])
        return state.replace(
            step=state.step + 1, params=params, opt_state=opt_state, teacher=work.teacher
        ), metrics

    return jax.jit(
        step,
        donate_argnames="state" if donate else None,
        in_shardings=(shardings, sharding.over_batch(mesh)),
        out_shardings=(shardings, None),
    )

"""The training step: pure, compiled once, its state donated."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from clouds_jax import sharding
from clouds_jax.ops import masks
from clouds_jax.train_state import TrainState
from clouds_jax.typing import Batch, Metrics, Targets

# loss(output of the head, targets, keys: Key["b"], reduce=...) -> (loss, metrics), each the part of
# one device; see clouds_jax.losses.segmentation.
Loss = Callable[..., tuple[Array, Metrics]]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_step(
    graphdef: nnx.GraphDef,
    loss: Loss,
    tx: optax.GradientTransformation,
    *,
    classes: int,
    mesh: Mesh,
    shardings: TrainState,
    schedule: optax.Schedule,
    donate: bool = True,
) -> Step:
    """Returns `step(state, batch) -> (state, metrics)`; `state` is donated.

    The encoder runs outside the differentiated function: none of its activations are kept. The
    head's loss and gradient run per device, because matching, gathers and scatters would
    otherwise be given collectives; the gradient, the metrics and the loss's normalisers are the
    only things added over the devices.

    Args:
        graphdef: of the whole model.
        loss: its parts add up to the loss of the batch; likewise its metrics.
        tx: acts on `state.params`.
        classes: target masks are the labels below it.
        mesh: the devices.
        shardings: of the state, as `train_state.make_state` returns them.
        schedule: learning rate by updates done, for the metrics.
        donate: False keeps the given state, which `jax_debug_nans` needs to run a step again.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        # By position in the whole batch, so that the number of devices changes no draw.
        keys = jax.random.split(key, batch.image.shape[0])
        model = nnx.merge(graphdef, state.params, state.frozen)
        features = model.encode(batch.image)
        # beside the trained ones a head may have fixed variables, such as a class matrix
        head, _, fixed = nnx.split(model.head, nnx.Param, ...)

        def local(reduce, params, fixed, features, label, keys):
            targets = Targets(label=label, present=masks.present_classes(label, classes))

            def objective(params):
                output = nnx.merge(head, params["head"], fixed)(features, all_outputs=True)
                return loss(output, targets, keys, reduce=reduce)

            (total, metrics), grads = jax.value_and_grad(objective, has_aux=True)(params)
            names = sorted(metrics)
            scalars = jnp.stack([total, *(metrics[name] for name in names)])
            grads, scalars = reduce((grads, scalars))
            return grads, dict(zip(["loss", *names], scalars, strict=True))

        run = sharding.per_device(local, mesh, split=(False, False, True, True, True))
        grads, metrics = run(state.params, fixed, features, batch.label, keys)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics["grad_norm"] = optax.tree.norm(grads)
        metrics["lr"] = jnp.asarray(schedule(state.step), jnp.float32)
        # A finite sum of squares of the gradient and a finite loss leave nothing to spread.
        metrics["finite"] = jnp.isfinite(metrics["loss"] + metrics["grad_norm"])
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return jax.jit(
        step,
        donate_argnames="state" if donate else None,
        in_shardings=(shardings, sharding.over_batch(mesh)),
        out_shardings=(shardings, None),
    )

"""The state of a run: definition, initialisation, sharding."""

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key

from clouds_jax import sharding
from clouds_jax.nn.rngs import Keys
from clouds_jax.weights import check_fit, named

# filter(path in the model, variable) -> whether the variable is trained
Filter = Callable[[Sequence[Any], Any], bool]


@typing.no_type_check  # JAX also fills a pytree with shardings and shapes
@struct.dataclass
class TrainState:
    """All that a run needs to go on, and nothing else: what a checkpoint holds.

    Attributes:
        step: number of updates done.
        key: the run's root key; every step folds its number in, so a resumed run draws what the
            uninterrupted one would have drawn.
        params: the trained weights: the head, and the encoder where it is trained too.
        frozen: weights that get no gradient and no optimizer state.
        opt_state: optimizer state of `params` alone.
        teacher: float32 moving average of the head, or None in the warm-up.
    """

    step: Int[Array, ""]
    key: Key[Array, ""]
    params: nnx.State
    frozen: nnx.State
    opt_state: optax.OptState
    teacher: nnx.State | None


def in_head(path: Sequence[Any], value: Any) -> bool:
    """The filter of what is trained on a frozen encoder."""
    return isinstance(value, nnx.Param) and path[0] == "head"


def in_head_or_trunk(path: Sequence[Any], value: Any) -> bool:
    """The filter of what is trained with the encoder: its features depend on no visual head."""
    trunk = path[0] == "encoder" and path[1] != "visual_head"
    return isinstance(value, nnx.Param) and (path[0] == "head" or trunk)


def make_state(
    build: Callable[[nnx.Rngs], nnx.Module],
    tx: optax.GradientTransformation,
    *,
    seed: int,
    mesh: Mesh,
    rules: Sequence[tuple[str, str]],
    weights: Mapping[str, Any] | None = None,
    teacher: bool = False,
    trained: Filter = in_head,
) -> tuple[nnx.GraphDef, TrainState, TrainState]:
    """Makes a new state, sharded from the start: no device ever holds more than its share.

    Args:
        build: `build(rngs)`, which returns the model.
        tx: optimizer.
        seed: seed of the weights and of the run's root key.
        mesh: mesh of devices.
        rules: sharding rules, see `sharding.shard`.
        weights: {"encoder": ..., "head": ...}, some or all parts; what is there replaces the random
            initialisation. Of a part all that is trained must be there or nothing of it; likewise
            all that is not. Parts that the model lacks are ignored.
        teacher: give the state a teacher, which begins as a copy of the student's head.
        trained: filter of the variables that are trained.

    Returns:
        The model's graphdef, the state, and the state's shardings.

    Raises:
        ValueError: `weights` do not fit the model.
    """
    graphdef, shape, shardings = abstract_state(
        build, tx, seed=seed, mesh=mesh, rules=rules, teacher=teacher, trained=trained
    )
    given = _by_name(dict(weights or {}), shape)
    halves = {half: named(getattr(shape, half)) for half in ("params", "frozen")}

    # What is given is not computed: the compiler drops the random numbers nobody reads.
    def init() -> tuple[TrainState, dict[str, Any]]:
        state = _init(build, tx, seed, teacher=False, trained=trained)[1]
        drawn = {name: x for half in halves for name, x in named(getattr(state, half)).items()}
        rest = {name: x for name, x in drawn.items() if name not in given}
        return dataclasses.replace(state, params=None, frozen=None), rest

    where = {name: x for half in halves for name, x in named(getattr(shardings, half)).items()}
    wanted = (
        dataclasses.replace(shardings, teacher=None, params=None, frozen=None),
        {name: x for name, x in where.items() if name not in given},
    )
    state, leaves = jax.jit(init, out_shardings=wanted)()
    for half, names in halves.items():
        filled = [
            leaves[name] if name in leaves
            else jax.device_put(given[name].astype(leaf.dtype), where[name])
            for name, leaf in names.items()
        ]  # fmt: skip
        structure = jax.tree.structure(getattr(shape, half))
        state = dataclasses.replace(state, **{half: jax.tree.unflatten(structure, filled)})
    if teacher:
        copy = jax.jit(_first_teacher, out_shardings=shardings.teacher)
        state = dataclasses.replace(state, teacher=copy(state.params))
    return graphdef, state, shardings


def _first_teacher(params: Any) -> Any:
    """A float32 copy of the student's head."""
    head = head_of(params)
    return jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32, copy=True), head)


def head_of(params: Any) -> Any:
    """The head among the trained weights."""
    return nnx.filter_state(params, lambda path, _: path[0] == "head")


def trunk_of(params: Any) -> Any:
    """The encoder among the trained weights; empty where it is frozen."""
    return nnx.filter_state(params, lambda path, _: path[0] != "head")


def abstract_state(
    build: Callable[[nnx.Rngs], nnx.Module],
    tx: optax.GradientTransformation,
    *,
    seed: int,
    mesh: Mesh,
    rules: Sequence[tuple[str, str]],
    teacher: bool = False,
    trained: Filter = in_head,
) -> tuple[nnx.GraphDef, TrainState, TrainState]:
    """The model's graphdef, the state's shapes (with shardings) and its shardings; no arrays."""
    graphdefs: list[nnx.GraphDef] = []

    def init() -> TrainState:
        graphdef, state = _init(build, tx, seed, teacher=teacher, trained=trained)
        graphdefs.append(graphdef)
        return state

    shape = jax.eval_shape(init)
    shardings = sharding.shard(shape, mesh, rules)
    shape = jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), shape, shardings
    )
    return graphdefs[0], shape, shardings


def _init(
    build, tx, seed: int, *, teacher: bool, trained: Filter
) -> tuple[nnx.GraphDef, TrainState]:
    root = jax.random.key(seed)
    model = build(Keys(jax.random.fold_in(root, 0)))
    graphdef, params, frozen = nnx.split(model, trained, ...)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.fold_in(root, 1),
        params=params,
        frozen=frozen,
        opt_state=tx.init(params),
        teacher=_first_teacher(params) if teacher else None,
    )
    return graphdef, state


def _by_name(weights: Mapping[str, Any], shape: TrainState) -> dict[str, Any]:
    """The weights by name, of those parts (encoder, head, ...) that the model has.

    Raises:
        ValueError: all that does not fit.
    """
    # a part of one half: such as the head's trained weights, or its class matrix
    group, slots = {}, {}
    for half in ("params", "frozen"):
        for name, leaf in named(getattr(shape, half)).items():
            group[name], slots[name] = (half, name.split(".")[0]), leaf
    parts = {part for _, part in group.values()}
    given = {name: x for name, x in named(weights).items() if name.split(".")[0] in parts}
    begun = {group[name] for name in given if name in group}
    wanted = {name: slot for name, slot in slots.items() if group[name] in begun}
    check_fit(given, wanted, where="the weights")
    return given

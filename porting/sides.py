"""The two models of a parity run: PyTorch's, where it is installed, and ours."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from clouds_jax.encoders import get_encoder
from clouds_jax.nn.mask2former import Mask2FormerHead
from porting.rules import Plan, Tree
from porting.tables import Table
from porting.targets import Target


@dataclasses.dataclass(frozen=True)
class EncoderPair:
    """An encoder; `name` is in `ENCODERS`.

    Attributes:
        name: in `ENCODERS`.
        theirs: a `porting.reference.encoders.Reference`, or None without PyTorch.
        ours: the module.
    """

    name: str
    theirs: Any
    ours: Any


@dataclasses.dataclass(frozen=True)
class HeadPair:
    """A Mask2Former head.

    Attributes:
        widths: of the features it reads.
        theirs: a `porting.reference.mask2former.Head`, or None without PyTorch.
        ours: the module.
    """

    widths: tuple[int, int, int, int]
    theirs: Any
    ours: Mask2FormerHead


@dataclasses.dataclass(frozen=True)
class Sides:
    """Both models with the same weights.

    Attributes:
        table: the rules that led from one side to the other.
        target: what was converted.
        plan: which tensor went where.
        checkpoint: of a file its provenance; of random weights the seed and a hash.
        state: the source tensors.
        encoder, head: the models; one of them may be absent.
        dtype: of our encoder.
    """

    table: Table
    target: Target
    plan: Plan
    checkpoint: dict[str, Any]
    state: Mapping[str, Any]
    encoder: EncoderPair | None
    head: HeadPair | None
    dtype: str = "float32"


def joined(
    table: Table,
    target: Target,
    planned: Plan,
    state: Mapping[str, Any],
    tree: Tree,
    checkpoint: dict[str, Any],
    *,
    reference: Any = None,
    reference_head: Any = None,
    dtype: str = "float32",
) -> Sides:
    """Our models with the weights of `tree`, beside the references."""
    encoder = head = None
    if target.encoder:
        spec = get_encoder(target.encoder)
        ours = with_weights(lambda: spec.build(nnx.Rngs(0)), tree["encoder"], dtype)
        encoder = EncoderPair(target.encoder, reference, ours)
    if target.head and target.widths and target.classes and target.head.classifier == "linear":
        widths, size, classes = target.widths, target.head, target.classes
        ours = with_weights(
            lambda: Mask2FormerHead(widths, size, classes, rngs=nnx.Rngs(0)), tree["head"]
        )
        head = HeadPair(widths, reference_head, ours)
    if encoder is None and dtype != "float32":
        raise ValueError(f"dtype is {dtype}, but only encoders run in it and there is none.")
    return Sides(table, target, planned, checkpoint, state, encoder, head, dtype)


def with_weights(
    make: Callable[[], nnx.Module], tree: Mapping[Any, Any], dtype: str = "float32"
) -> Any:
    """The module that `make` describes, with the weights of `tree`; draws no random ones.

    Args:
        make: builds the module; is not run.
        tree: nested; members of lists under their number or, as on disk, its text.
        dtype: that floating-point weights are cast to.
    """
    graphdef, state = nnx.split(nnx.eval_shape(make))
    filled = []
    for path, leaf in nnx.to_flat_state(state):
        node: Any = tree
        for key in path:
            node = node[key if key in node else str(key)]
        value = jnp.asarray(node)
        if jnp.issubdtype(value.dtype, jnp.floating):
            value = value.astype(dtype)
        filled.append((path, leaf.replace(value)))
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def pixels_to_input(pixels: Any, pair: EncoderPair | None) -> jax.Array | None:
    """RGB images 0..255 as the encoder takes them, before any padding."""
    from clouds_jax.nn import clouds

    if pair is None:
        return None
    return clouds.normalise(jnp.asarray(pixels), get_encoder(pair.name))

"""The two models of a parity run: PyTorch's, where it is installed, and ours."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.class_heads import TextRows
from clouds_jax.nn.mask2former.head import Mask2FormerHead
from clouds_jax.weights import fill_module
from porting.conversion.targets import Target
from porting.files.trees import Tree
from porting.tables import Table
from porting.tables.rules import Plan


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
class ClassMatrix:
    """The class matrix of a text classifier, which is in no checkpoint.

    Attributes:
        rows: unit vectors (r, v), those of a class beside each other.
        counts: how many rows each class has.
    """

    rows: np.ndarray
    counts: tuple[int, ...]

    @property
    def class_of_row(self) -> tuple[int, ...]:
        """The class of each row."""
        return tuple(c for c, count in enumerate(self.counts) for _ in range(count))


def random_matrix(classes: int, width: int) -> ClassMatrix:
    """Random unit vectors; one, two or three for a class in turn."""
    counts = tuple(1 + c % 3 for c in range(classes))
    rows = np.random.default_rng(classes).normal(size=(sum(counts), width)).astype(np.float32)
    return ClassMatrix(rows / np.linalg.norm(rows, axis=-1, keepdims=True), counts)


@dataclasses.dataclass(frozen=True)
class HeadPair:
    """A Mask2Former head.

    Attributes:
        widths: of the features it reads.
        theirs: a `porting.reference.mask2former.Head`, or None without PyTorch.
        ours: the module.
        matrix: that both read, where the classifier is "text".
    """

    widths: tuple[int, int, int, int]
    theirs: Any
    ours: Mask2FormerHead
    matrix: ClassMatrix | None = None


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
    matrix: ClassMatrix | None = None,
    dtype: str = "float32",
) -> Sides:
    """Our models with the weights of `tree`, beside the references."""
    encoder = head = None
    if target.encoder:
        spec = get_encoder(target.encoder)
        ours = with_weights(lambda: spec.build(nnx.Rngs(0)), tree["encoder"], dtype)
        encoder = EncoderPair(target.encoder, reference, ours)
    if target.head and target.widths:
        ours = _head(target, tree["head"], matrix)
        head = HeadPair(target.widths, reference_head, ours, matrix)
    if encoder is None and dtype != "float32":
        raise ValueError(f"dtype is {dtype}, but only encoders run in it and there is none.")
    return Sides(table, target, planned, checkpoint, state, encoder, head, dtype)


def _head(target: Target, tree: Mapping[Any, Any], matrix: ClassMatrix | None) -> Mask2FormerHead:
    """Our head; `matrix` is put beside the weights of the text classifier."""
    assert target.widths and target.head
    widths, size, classes, rows = target.widths, target.head, target.classes, None
    if matrix is not None:
        rows = TextRows(matrix.class_of_row, matrix.rows.shape[1])
        classes = len(matrix.counts)
        decoder = tree["transformer_decoder"]
        classifier = {**decoder["class_embed"], "matrix": matrix.rows}
        tree = {**tree, "transformer_decoder": {**decoder, "class_embed": classifier}}
    make = lambda: Mask2FormerHead(widths, size, classes or 1, rows=rows, rngs=nnx.Rngs(0))  # noqa: E731
    return with_weights(make, tree)


def with_weights(
    make: Callable[[], nnx.Module], tree: Mapping[Any, Any], dtype: str = "float32"
) -> Any:
    """The module that `make` describes, with the weights of `tree`; draws no random ones.

    Args:
        make: builds the module; is not run.
        tree: nested; members of lists under their number or, as on disk, its text.
        dtype: that floating-point weights are cast to.
    """
    graphdef, state = fill_module(make, tree, where="the conversion")

    def cast(leaf: jax.Array) -> jax.Array:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return nnx.merge(graphdef, jax.tree.map(cast, state))


def pixels_to_input(pixels: Any, pair: EncoderPair) -> jax.Array:
    """RGB images 0..255 as the encoder takes them, before any padding."""
    from clouds_jax.nn import clouds

    return clouds.normalise(jnp.asarray(pixels), get_encoder(pair.name))

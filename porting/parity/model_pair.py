"""The same weights in PyTorch, where it is installed, and in JAX."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from clouds_jax.nn import clouds
from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.class_heads import TextRows
from clouds_jax.nn.mask2former.head import Mask2FormerHead
from clouds_jax.weights import fill_module
from porting.conversion.conversion import Conversion
from porting.conversion.targets import Target
from porting.files.open import Provenance, tensor_hash
from porting.files.trees import Tree


@dataclasses.dataclass(frozen=True)
class EncoderPair:
    """An encoder in both frameworks.

    Attributes:
        name: key of `ENCODERS`.
        torch: a `porting.reference.encoders.Reference`, or None without PyTorch.
        jax: the module.
    """

    name: str
    torch: Any
    jax: Any


@dataclasses.dataclass(frozen=True)
class ClassMatrix:
    """The class matrix of a text classifier, which no checkpoint holds.

    Attributes:
        rows: unit vectors (r, v), sorted by class.
        counts: number of rows of each class.
    """

    rows: np.ndarray
    counts: tuple[int, ...]

    @property
    def class_of_row(self) -> tuple[int, ...]:
        """The class of each row."""
        return tuple(c for c, count in enumerate(self.counts) for _ in range(count))


def random_class_matrix(classes: int, width: int) -> ClassMatrix:
    """Random unit vectors; one, two or three per class in turn."""
    counts = tuple(1 + c % 3 for c in range(classes))
    rows = np.random.default_rng(classes).normal(size=(sum(counts), width)).astype(np.float32)
    return ClassMatrix(rows / np.linalg.norm(rows, axis=-1, keepdims=True), counts)


@dataclasses.dataclass(frozen=True)
class HeadPair:
    """A Mask2Former head in both frameworks.

    Attributes:
        widths: channels of res2 to res5 as the head reads them.
        torch: a `porting.reference.mask2former.Head`, or None without PyTorch.
        jax: the module.
        matrix: class matrix of both, where the classifier is "text".
    """

    widths: tuple[int, int, int, int]
    torch: Any
    jax: Mask2FormerHead
    matrix: ClassMatrix | None = None


@dataclasses.dataclass(frozen=True)
class ModelPair:
    """PyTorch and JAX models with the same weights.

    Attributes:
        conversion: the weights, and the rules that led from one side to the other.
        encoder, head: the models, each None where the checkpoint has no such part; both None for
            a SAM.
        dtype: dtype of the JAX encoder.
    """

    conversion: Conversion
    encoder: EncoderPair | None = None
    head: HeadPair | None = None
    dtype: str = "float32"

    @property
    def checkpoint(self) -> dict[str, Any]:
        """Provenance of the weights, as plain JSON."""
        return self.conversion.provenance.to_json()


def build_pair(
    conversion: Conversion,
    tree: Tree | None = None,
    *,
    torch_encoder: Any = None,
    torch_head: Any = None,
    matrix: ClassMatrix | None = None,
    dtype: str = "float32",
) -> ModelPair:
    """Builds the JAX models of a conversion beside those of PyTorch.

    Args:
        conversion: without misfits.
        tree: weights of the JAX models; None converts them in memory.
        torch_encoder, torch_head: the PyTorch models; None without PyTorch.
        matrix: class matrix of a text classifier.
        dtype: dtype of the JAX encoder.
    """
    target, encoder, head = conversion.target, None, None
    tree = conversion.tree() if tree is None else tree
    if target.encoder:
        module = with_weights(get_encoder(target.encoder).build, tree["encoder"], dtype)
        encoder = EncoderPair(target.encoder, torch_encoder, module)
    if target.head and target.widths:
        module = _build_head(target, tree["head"], matrix)
        head = HeadPair(target.widths, torch_head, module, matrix)
    if encoder is None and dtype != "float32":
        raise ValueError(f"dtype is {dtype}, but only encoders run in it and there is none.")
    return ModelPair(conversion, encoder, head, dtype)


def _build_head(
    target: Target, tree: Mapping[Any, Any], matrix: ClassMatrix | None
) -> Mask2FormerHead:
    """The JAX head; `matrix` is put beside the weights of the text classifier."""
    assert target.widths and target.head
    widths, size, classes, rows = target.widths, target.head, target.classes, None
    if matrix is not None:
        rows = TextRows(matrix.class_of_row, matrix.rows.shape[1])
        classes = len(matrix.counts)
        decoder = tree["transformer_decoder"]
        classifier = {**decoder["class_embed"], "matrix": matrix.rows}
        tree = {**tree, "transformer_decoder": {**decoder, "class_embed": classifier}}

    def build(rngs: nnx.Rngs) -> Mask2FormerHead:
        return Mask2FormerHead(widths, size, classes or 1, rows=rows, rngs=rngs)

    return with_weights(build, tree)


def with_weights(
    build: Callable[[nnx.Rngs], nnx.Module], tree: Mapping[Any, Any], dtype: str = "float32"
) -> Any:
    """The module that `build` describes, with the weights of `tree`; draws no random ones.

    Args:
        build: builds the module.
        tree: nested dict; members of lists under their number or, as on disk, its text.
        dtype: dtype that floating-point weights are cast to.
    """
    graphdef, state = fill_module(build, tree, where="the conversion")

    def cast(leaf: jax.Array) -> jax.Array:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return nnx.merge(graphdef, jax.tree.map(cast, state))


def random_provenance(state: Mapping[str, np.ndarray], seed: int) -> Provenance:
    """Provenance of random weights: their seed, and a hash of all tensors."""
    text = "".join(f"{name} {tensor_hash(tensor)}\n" for name, tensor in state.items())
    return Provenance(
        file=f"random weights, seed {seed}",
        format="state dict of the PyTorch classes",
        bytes=sum(tensor.nbytes for tensor in state.values()),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def normalised(pixels: Any, encoder: EncoderPair) -> jax.Array:
    """RGB images (b, h, w, 3), 0..255, normalised for the encoder; not padded."""
    return clouds.normalise(jnp.asarray(pixels), get_encoder(encoder.name))

"""Class heads: from decoder queries to class logits, in three ways.

    linear  a linear layer on the query; in every released config of CLOUDS
    text    cosines between text embeddings and the query plus its pooled mask features
    pooled  a linear layer on the query plus its pooled mask features

Source: the three decoders of CLOUDS: OriginalMultiScaleMaskedTransformerDecoder,
    MultiScaleMaskedTransformerDecoder (from FC-CLIP, Apache-2.0) and
    BisMultiScaleMaskedTransformerDecoder.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from clouds_jax.nn import initializers, layers
from clouds_jax.nn.mask2former.size import HeadSize
from clouds_jax.ops import extents, masks, text_logits
from clouds_jax.ops.extents import Extent

LOGIT_SCALE = math.log(1 / 0.07)  # CLIP's initial value


class Frozen(nnx.Variable):
    """A variable that is saved with the model and never trained."""


@dataclasses.dataclass(frozen=True)
class TextRows:
    """Layout of a class matrix, the text embeddings of the names of all classes.

    Attributes:
        class_of_row: class that each row is a name of, ascending from 0 without gaps.
        width: of a text embedding.

    Raises:
        ValueError: the classes do not ascend, or one has no row.
    """

    class_of_row: tuple[int, ...]
    width: int

    def __post_init__(self):
        classes = range(max(self.class_of_row, default=-1) + 1)
        if not self.class_of_row or list(self.class_of_row) != sorted(self.class_of_row):
            raise ValueError(
                f"TextRows.class_of_row is {self.class_of_row}; it must ascend from 0."
            )
        if missing := set(classes) - set(self.class_of_row):
            raise ValueError(f"TextRows: the classes {sorted(missing)} have no row.")

    def random(self, rngs: nnx.Rngs) -> Float[Array, "r v"]:
        """A class matrix of random unit vectors, for initialisation."""
        rows = initializers.NORMAL(rngs.params(), (len(self.class_of_row), self.width))
        return text_logits.unit(jnp.asarray(rows))


class MaskPooling(nnx.Module):
    """Adds to each query the mean of the mask features under its mask, projected."""

    def __init__(self, dim: int, *, rngs: nnx.Rngs):
        self.norm = layers.LayerNorm(dim, rngs=rngs)
        self.proj = layers.Linear(dim, dim, **initializers.torch_linear(dim), rngs=rngs)

    def __call__(
        self,
        queries: Float[Array, "o b q d"],
        mask_features: Float[Array, "b h4 w4 d"],
        mask_logits: Float[Array, "o b h4 w4 q"],
        extent: Extent | None = None,
    ) -> Float[Array, "o b q d"]:
        # One output at a time, recomputed in the backward pass: the masks of all outputs, as
        # floats, would take as much memory as the logits.
        @jax.checkpoint
        def pool(logits):
            return masks.pool_masks(mask_features, extents.clear(logits > 0, extent))

        pooled = jax.lax.map(pool, jax.lax.stop_gradient(mask_logits))
        return queries + self.proj(self.norm(pooled))


class TextHead(nnx.Module):
    """Cosines with the text embeddings of class names; the largest of a class is its logit.

    No-object is a learned embedding.
    """

    def __init__(self, dim: int, rows: TextRows, *, rngs: nnx.Rngs):
        self.pooling = MaskPooling(dim, rngs=rngs)
        self.mlp = layers.mlp((dim, dim, dim, rows.width), rngs=rngs)
        self.logit_scale = nnx.Param(jnp.float32(LOGIT_SCALE))
        self.void_embedding = nnx.Param(initializers.NORMAL(rngs.params(), (1, rows.width)))
        self.matrix = Frozen(rows.random(rngs))
        self.class_of_row = rows.class_of_row

    def __call__(
        self,
        queries: Float[Array, "o b q d"],
        mask_features: Float[Array, "b h4 w4 d"],
        mask_logits: Float[Array, "o b h4 w4 q"],
        extent: Extent | None = None,
    ) -> Float[Array, "o b q k1"]:
        x = layers.apply_mlp(self.mlp, self.pooling(queries, mask_features, mask_logits, extent))
        rows = jnp.concatenate([self.matrix[...], text_logits.unit(self.void_embedding[...])])
        logits = text_logits.cosine_logits(x, rows, self.logit_scale[...])
        void = max(self.class_of_row) + 1
        return text_logits.max_over_names(logits, (*self.class_of_row, void))


class LinearHead(nnx.Module):
    """A linear layer on the query; its mask plays no part."""

    def __init__(self, dim: int, classes: int, *, rngs: nnx.Rngs):
        linear = layers.Linear(dim, classes + 1, **initializers.torch_linear(dim), rngs=rngs)
        # Not the layer: checkpoints name these `class_embed.kernel` and `class_embed.bias`.
        self.kernel, self.bias = linear.kernel, linear.bias

    def __call__(
        self,
        queries: Float[Array, "o b q d"],
        mask_features: Float[Array, "b h4 w4 d"],
        mask_logits: Float[Array, "o b h4 w4 q"],
        extent: Extent | None = None,
    ) -> Float[Array, "o b q k1"]:
        del mask_features, mask_logits, extent
        return layers.affine(queries, self.kernel, self.bias)


class PooledHead(nnx.Module):
    """A linear layer on the query plus its pooled mask features."""

    def __init__(self, dim: int, classes: int, *, rngs: nnx.Rngs):
        self.pooling = MaskPooling(dim, rngs=rngs)
        self.linear = layers.Linear(dim, classes + 1, **initializers.torch_linear(dim), rngs=rngs)

    def __call__(
        self,
        queries: Float[Array, "o b q d"],
        mask_features: Float[Array, "b h4 w4 d"],
        mask_logits: Float[Array, "o b h4 w4 q"],
        extent: Extent | None = None,
    ) -> Float[Array, "o b q k1"]:
        return self.linear(self.pooling(queries, mask_features, mask_logits, extent))


ClassHead = LinearHead | TextHead | PooledHead


def make_class_head(
    size: HeadSize, classes: int, rows: TextRows | None, *, rngs: nnx.Rngs
) -> ClassHead:
    """Builds the class head that `size.classifier` names.

    Args:
        size: hyperparameters of the Mask2Former head.
        classes: number of classes k, without no-object.
        rows: layout of the class matrix, for the text head.

    Raises:
        ValueError: the text head lacks a class matrix, or gets one of other classes.
    """
    if size.classifier == "linear":
        return LinearHead(size.dim, classes, rngs=rngs)
    if size.classifier == "pooled":
        return PooledHead(size.dim, classes, rngs=rngs)
    if rows is None:
        raise ValueError("HeadSize.classifier is 'text', which needs the rows of a class matrix.")
    if max(rows.class_of_row) + 1 != classes:
        raise ValueError(
            f"the class matrix names {max(rows.class_of_row) + 1} classes, the model has {classes}."
        )
    return TextHead(size.dim, rows, rngs=rngs)

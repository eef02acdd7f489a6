"""The transformer decoder: queries attend to the image under their own masks.

Source: MultiScaleMaskedTransformerDecoder of Mask2Former (MIT); its class heads are in
    `class_heads`.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from clouds_jax.nn import initializers, layers
from clouds_jax.nn.mask2former import class_heads
from clouds_jax.nn.mask2former.size import HeadSize
from clouds_jax.ops import extents, position, resize
from clouds_jax.ops.extents import Extent
from clouds_jax.typing import Prediction

_LEVELS = 3


class DecoderLayer(nnx.Module):
    """Post-norm transformer layer: masked cross-attention, self-attention, FFN."""

    def __init__(self, size: HeadSize, *, rngs: nnx.Rngs):
        dim, ffn = size.dim, size.decoder_ffn
        self.cross_attention = layers.Attention(dim, size.num_heads, rngs=rngs)
        self.cross_norm = layers.LayerNorm(dim, rngs=rngs)
        self.self_attention = layers.Attention(dim, size.num_heads, rngs=rngs)
        self.self_norm = layers.LayerNorm(dim, rngs=rngs)
        # The original redraws the kernels and leaves the biases at torch's default.
        self.fc1 = layers.Linear(dim, ffn, bias_init=initializers.uniform(dim**-0.5), rngs=rngs)
        self.fc2 = layers.Linear(ffn, dim, bias_init=initializers.uniform(ffn**-0.5), rngs=rngs)
        self.ffn_norm = layers.LayerNorm(dim, rngs=rngs)

    def __call__(
        self,
        queries: Float[Array, "b q d"],
        query_position: Float[Array, "q d"],
        memory: Float[Array, "b s d"],
        memory_position: Float[Array, "s d"] | Float[Array, "b s d"],
        mask: Bool[Array, "b q s"],
    ) -> Float[Array, "b q d"]:
        """The queries after the layer.

        Args:
            queries: content of the queries.
            query_position: position embeddings of the queries.
            memory: tokens of one level.
            memory_position: position encodings of the tokens, shared or of each image.
            mask: True where a query may attend.
        """
        x = queries
        query_position = query_position.astype(x.dtype)
        memory_position = memory_position.astype(x.dtype)
        positioned = x + query_position[None]
        x = self.cross_norm(x + self.cross_attention(positioned, memory, memory_position, mask))
        positioned = x + query_position[None]
        x = self.self_norm(x + self.self_attention(positioned, x, query_position))
        return self.ffn_norm(x + self.fc2(jax.nn.relu(self.fc1(x))))


class TransformerDecoder(nnx.Module):
    """Learned queries, layers that attend to the levels in turn, and shared prediction heads.

    The layers that attend to level j are stacked in `layers[j]`: layer 3 g + j of the original is
    member g of that stack, and one scan step applies one member of each.

    Args:
        size: hyperparameters.
        classes: number of classes k, without no-object.
        rows: layout of the class matrix, where `size.classifier` is "text".
    """

    def __init__(
        self,
        size: HeadSize,
        classes: int,
        *,
        rows: class_heads.TextRows | None = None,
        rngs: nnx.Rngs,
    ):
        dim = size.dim
        groups = size.decoder_layers // _LEVELS
        self.layers = nnx.List(
            [
                layers.stack_blocks(lambda rngs: DecoderLayer(size, rngs=rngs), groups, rngs)
                for _ in range(_LEVELS)
            ]
        )
        self.norm = layers.LayerNorm(dim, rngs=rngs)
        self.query_feat = nnx.Param(initializers.NORMAL(rngs.params(), (size.num_queries, dim)))
        self.query_embed = nnx.Param(initializers.NORMAL(rngs.params(), (size.num_queries, dim)))
        self.level_embed = nnx.Param(initializers.NORMAL(rngs.params(), (_LEVELS, dim)))
        self.class_embed = class_heads.make_class_head(size, classes, rows, rngs=rngs)
        self.mask_embed = layers.mlp((dim, dim, dim, dim), rngs=rngs)

    def __call__(
        self,
        levels: tuple[Float[Array, "b _ _ d"], ...],
        mask_features: Float[Array, "b h4 w4 d"],
        *,
        all_outputs: bool,
        extent: Extent | None = None,
    ) -> Prediction:
        """Predictions from the queries after every layer, or after the last one.

        Args:
            levels: at strides 32, 16 and 8.
            mask_features: at stride 4.
            all_outputs: also predict from the learned queries and after every earlier layer.
            extent: sizes of the images in a padded batch; None: they fill it.

        Returns:
            `decoder_layers + 1` outputs, or one.
        """
        memories, positions = zip(
            *[self.memory(j, level, extent) for j, level in enumerate(levels)], strict=True
        )
        sizes = [(x.shape[1], x.shape[2]) for x in levels]
        shrunk = [self.shrink(mask_features, size) for size in sizes]
        counted = [extents.inside_tokens(extent, [size]) for size in sizes]
        graphdef, state = nnx.split(self.layers)

        def group(x, state):
            outputs = []
            for j, layer in enumerate(nnx.merge(graphdef, state)):
                mask = self.attention_mask(x, shrunk[j], counted[j])
                x = layer(x, self.query_embed[...], memories[j], positions[j], mask)
                outputs.append(x)
            return x, jnp.stack(outputs)

        learned = self.query_feat[...][None].astype(mask_features.dtype)
        first = jnp.broadcast_to(learned, (mask_features.shape[0], *learned.shape[1:]))
        last, outputs = jax.lax.scan(group, first, state)
        if all_outputs:
            queries = jnp.concatenate([first[None], outputs.reshape(-1, *first.shape)])
        else:
            queries = last[None]
        return self.predict(queries, mask_features, extent)

    def layer(
        self,
        j: int,
        group: int,
        queries: Float[Array, "b q d"],
        level: Float[Array, "b h w d"],
        mask: Bool[Array, "b q s"],
    ) -> Float[Array, "b q d"]:
        """Layer 3 * `group` + `j` alone, with a given mask."""
        graphdef, state = nnx.split(self.layers[j])
        block = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[group], state))
        memory, code = self.memory(j, level)
        return block(queries, self.query_embed[...], memory, code, mask)

    def memory(
        self, j: int, level: Float[Array, "b h w d"], extent: Extent | None = None
    ) -> tuple[Float[Array, "b s d"], Float[Array, "s d"] | Float[Array, "b s d"]]:
        """Level j as tokens with its level embedding, and the position encodings of its keys."""
        b, h, w, d = level.shape
        tokens = level.reshape(b, h * w, d)
        tokens = tokens + self.level_embed[...][j][None, None].astype(level.dtype)
        if extent is None:
            return tokens, jnp.asarray(position.sine_position((h, w), d)).reshape(h * w, d)
        return tokens, position.sine_position_within(extent, (h, w), d).reshape(b, h * w, d)

    def shrink(
        self, mask_features: Float[Array, "b h4 w4 d"], size: tuple[int, int]
    ) -> Float[Array, "b s d"]:
        """Mask features resized to the (h, w) of a level, as tokens; no gradient.

        The original resizes the mask logits. Both are linear, so resizing the features once per
        level gives the same logits, and only requested outputs are computed at stride 4.
        """
        small = resize.resize_bilinear(jax.lax.stop_gradient(mask_features), size)
        return small.reshape(small.shape[0], -1, small.shape[-1])

    def attention_mask(
        self,
        queries: Float[Array, "b q d"],
        shrunk: Float[Array, "b s d"],
        counted: Bool[Array, "b s"] | None = None,
    ) -> Bool[Array, "b q s"]:
        """Each query's mask: sigmoid(logit) >= 0.5, that is logit >= 0; no gradient.

        Args:
            queries: content of the queries.
            shrunk: mask features at the level's size, see `shrink`.
            counted: keys that belong to their image; a query whose mask has none of them attends
                to all of them. None: all, and an empty mask stays empty.
        """
        embedding = layers.apply_mlp(self.mask_embed, self.norm(queries))
        logits = jnp.einsum("bqd,bsd->bqs", jax.lax.stop_gradient(embedding), shrunk)
        mask = logits >= 0
        if counted is None:
            return mask
        mask &= counted[:, None]
        return mask | (counted[:, None] & ~mask.any(-1, keepdims=True))

    def predict(
        self,
        queries: Float[Array, "o b q d"],
        mask_features: Float[Array, "b h4 w4 d"],
        extent: Extent | None = None,
    ) -> Prediction:
        """Class and mask logits of queries, float32; the mask logits have queries last."""
        normed = self.norm(queries)
        embedding = layers.apply_mlp(self.mask_embed, normed)
        mask_logits = jax.lax.map(
            lambda e: jnp.einsum(
                "bqd,bhwd->bhwq", e, mask_features, preferred_element_type=jnp.float32
            ),
            embedding,
        )
        return Prediction(
            class_logits=self.class_embed(
                normed.astype(jnp.float32), mask_features, mask_logits, extent
            ),
            mask_logits=mask_logits,
        )

"""CLIP's text tower: a causal transformer; the output at the end token is the text's embedding.

Source: the text transformer of open_clip's CLIP (MIT); OpenAI's models use the quick GELU.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from clouds_jax.nn import initializers, layers

HEAD_WIDTH = 64  # in all of CLIP's text towers

_SMALL = initializers.normal(0.02)


@dataclasses.dataclass(frozen=True)
class TextSize:
    """Hyperparameters of a text tower.

    Attributes:
        width: channels of the transformer.
        layers: blocks of the transformer.
        embedding: width of the text embedding, equal to that of the image embedding.
        quick_gelu: use x * sigmoid(1.702 x) for the GELU, as in OpenAI's models.
        vocabulary: number of token ids.
        context: largest number of tokens per text.
    """

    width: int
    layers: int
    embedding: int
    quick_gelu: bool = False
    vocabulary: int = 49_408
    context: int = 77

    @property
    def heads(self) -> int:
        """Attention heads: one per 64 channels, at least one."""
        return max(1, self.width // HEAD_WIDTH)


# Keyed by the encoder that each tower was trained with.
SIZES = {
    "convnext_debug": TextSize(width=16, layers=2, embedding=12),
    "convnext_base": TextSize(width=512, layers=12, embedding=512),
    "convnext_large_d_320": TextSize(width=768, layers=16, embedding=768),
    "convnext_xxlarge": TextSize(width=1024, layers=24, embedding=1024),
    "clip_resnet_debug": TextSize(width=16, layers=2, embedding=12, quick_gelu=True),
    "clip_resnet50": TextSize(width=512, layers=12, embedding=1024, quick_gelu=True),
    "clip_resnet101": TextSize(width=512, layers=12, embedding=512, quick_gelu=True),
}


def size_of(tree: Mapping[str, Any], *, quick_gelu: bool) -> TextSize:
    """The hyperparameters of the tower with these weights.

    Args:
        tree: nested parameters of a `TextTower`.
        quick_gelu: which activation it has, the one thing that no shape tells.
    """
    vocabulary, width = tree["token_embedding"].shape
    return TextSize(
        width=width,
        layers=tree["blocks"]["fc1"]["bias"].shape[0],
        embedding=tree["projection"].shape[1],
        quick_gelu=quick_gelu,
        vocabulary=vocabulary,
        context=tree["position"].shape[0],
    )


class Block(nnx.Module):
    """Pre-norm transformer block: causal self-attention and MLP."""

    def __init__(self, size: TextSize, *, rngs: nnx.Rngs):
        width = size.width
        self.norm1 = layers.LayerNorm(width, rngs=rngs)
        self.attention = layers.Attention(width, size.heads, rngs=rngs)
        self.norm2 = layers.LayerNorm(width, rngs=rngs)
        self.fc1 = layers.Linear(width, 4 * width, rngs=rngs)
        self.fc2 = layers.Linear(4 * width, width, rngs=rngs)
        self.quick_gelu = size.quick_gelu

    def __call__(
        self, x: Float[Array, "n t d"], causal: Bool[Array, "1 t t"]
    ) -> Float[Array, "n t d"]:
        y = self.norm1(x)
        x = x + self.attention(y, y, mask=causal)
        y = self.fc1(self.norm2(x))
        y = y * jax.nn.sigmoid(1.702 * y) if self.quick_gelu else layers.gelu(y)
        return x + self.fc2(y)


class TextTower(nnx.Module):
    """Embeds tokenised texts."""

    def __init__(self, size: TextSize, *, rngs: nnx.Rngs):
        key = rngs.params
        self.token_embedding = nnx.Param(_SMALL(key(), (size.vocabulary, size.width)))
        self.position = nnx.Param(_SMALL(key(), (size.context, size.width)))
        self.blocks = layers.stack_blocks(lambda rngs: Block(size, rngs=rngs), size.layers, rngs)
        self.norm = layers.LayerNorm(size.width, rngs=rngs)
        self.projection = nnx.Param(initializers.XAVIER(key(), (size.width, size.embedding)))
        # Cosines are multiplied by exp(logit_scale).
        self.logit_scale = nnx.Param(jnp.asarray(jnp.log(1 / 0.07), jnp.float32))

    def __call__(self, ids: Int[Array, "n t"]) -> Float[Array, "n v"]:
        """Embeddings of texts, not normalised.

        Args:
            ids: at most `context` tokens per text. Those after the end token, which has the largest
                id, have no influence, so trailing padding may be cut off.
        """
        t = ids.shape[1]
        x = self.token_embedding[...][ids] + self.position[...][None, :t]
        x = layers.scan_blocks(self.blocks, x, jnp.tri(t, dtype=bool)[None])
        end = jnp.take_along_axis(x, ids.argmax(-1)[:, None, None], axis=1)[:, 0]
        return self.norm(end) @ self.projection[...]

"""CLIP's text tower: a causal transformer whose end token becomes the text's embedding.

Source: open_clip's CLIP (MIT) with its text transformer; OpenAI's own models differ by the quick
GELU.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from clouds_jax.nn import initializers, layers

HEAD_WIDTH = 64  # of all of CLIP's text towers

_SMALL = initializers.normal(0.02)


@dataclasses.dataclass(frozen=True)
class TextSize:
    """Numbers of one text tower.

    Attributes:
        width: of the transformer.
        layers: of the transformer.
        embedding: width of the text's embedding, that of the image embedding.
        quick_gelu: x * sigmoid(1.702 x) for GELU, as in OpenAI's weights.
        vocabulary: known ids.
        context: most ids per text.
    """

    width: int
    layers: int
    embedding: int
    quick_gelu: bool = False
    vocabulary: int = 49_408
    context: int = 77

    @property
    def heads(self) -> int:
        """Attention heads; one in towers narrower than a head of the real ones."""
        return max(1, self.width // HEAD_WIDTH)


# By the encoder that each was trained with.
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
    """The numbers of the tower that these weights are of; only the activation has no shape."""
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
    """Causal self-attention and MLP, each after its LayerNorm and added to its input."""

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
    """From ids to embeddings, not normalised; random values are only good for tests."""

    def __init__(self, size: TextSize, *, rngs: nnx.Rngs):
        key = rngs.params
        self.token_embedding = nnx.Param(_SMALL(key(), (size.vocabulary, size.width)))
        self.position = nnx.Param(_SMALL(key(), (size.context, size.width)))
        self.blocks = layers.stack_blocks(lambda rngs: Block(size, rngs=rngs), size.layers, rngs)
        self.norm = layers.LayerNorm(size.width, rngs=rngs)
        self.projection = nnx.Param(initializers.XAVIER(key(), (size.width, size.embedding)))
        # natural logarithm of what cosines are multiplied with
        self.logit_scale = nnx.Param(jnp.asarray(jnp.log(1 / 0.07), jnp.float32))

    def __call__(self, ids: Int[Array, "n t"]) -> Float[Array, "n v"]:
        """Embeddings of texts; ids after the end token, the largest one, have no influence.

        Args:
            ids: of at most `context` tokens; shorter is faster and gives the same.
        """
        t = ids.shape[1]
        x = self.token_embedding[...][ids] + self.position[...][None, :t]
        x = layers.scan_blocks(self.blocks, x, jnp.tri(t, dtype=bool)[None])
        end = jnp.take_along_axis(x, ids.argmax(-1)[:, None, None], axis=1)[:, 0]
        return self.norm(end) @ self.projection[...]

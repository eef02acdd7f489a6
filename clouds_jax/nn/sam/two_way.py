"""The two-way transformer of SAM's mask decoder: prompt tokens and image attend to each other.

Source: segment_anything (Apache-2.0), modeling/transformer.py.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from clouds_jax.nn import initializers, layers
from clouds_jax.ops.attention import attend


class Attention(nnx.Module):
    """Multi-head attention whose inner width may be smaller than the width of its inputs.

    Args:
        dim: width of inputs and outputs.
        inner: width of all heads together.
        heads: attention heads.
    """

    def __init__(self, dim: int, inner: int, heads: int, *, rngs: nnx.Rngs):
        def linear(inputs: int, outputs: int) -> layers.Linear:
            return layers.Linear(inputs, outputs, **initializers.torch_linear(inputs), rngs=rngs)

        self.query, self.key, self.value = (linear(dim, inner) for _ in range(3))
        self.out = linear(inner, dim)
        self.heads = heads

    def __call__(
        self, query: Float[Array, "t d"], key: Float[Array, "s d"], value: Float[Array, "s d"]
    ) -> Float[Array, "t d"]:
        def split(x: Array) -> Array:
            return x.reshape(1, x.shape[0], self.heads, -1)

        out = attend(split(self.query(query)), split(self.key(key)), split(self.value(value)))
        return self.out(out.reshape(query.shape[0], -1))


class TwoWayLayer(nnx.Module):
    """Tokens attend to themselves and to the image, then the image attends to the tokens.

    Args:
        dim: width of tokens and image positions.
        heads: attention heads.
        ffn: hidden width of the tokens' FFN.
        first: whether this is the first layer, where tokens are their own position encodings.
    """

    def __init__(self, dim: int, heads: int, ffn: int, *, first: bool, rngs: nnx.Rngs):
        half = dim // 2
        self.self_attention = Attention(dim, dim, heads, rngs=rngs)
        self.token_to_image = Attention(dim, half, heads, rngs=rngs)
        self.image_to_token = Attention(dim, half, heads, rngs=rngs)
        self.fc1 = layers.Linear(dim, ffn, **initializers.torch_linear(dim), rngs=rngs)
        self.fc2 = layers.Linear(ffn, dim, **initializers.torch_linear(ffn), rngs=rngs)
        self.norm1, self.norm2, self.norm3, self.norm4 = (
            layers.LayerNorm(dim, rngs=rngs) for _ in range(4)
        )
        self.first = first

    def __call__(
        self,
        tokens: Float[Array, "t d"],
        image: Float[Array, "s d"],
        token_position: Float[Array, "t d"],
        image_position: Float[Array, "s d"],
    ) -> tuple[Float[Array, "t d"], Float[Array, "s d"]]:
        """Tokens and image after the layer; position encodings are added to queries and keys."""
        if self.first:  # the attention's output replaces the tokens, instead of being added
            tokens = self.self_attention(tokens, tokens, tokens)
        else:
            positioned = tokens + token_position
            tokens = tokens + self.self_attention(positioned, positioned, tokens)
        tokens = self.norm1(tokens)
        image_key = image + image_position
        tokens = tokens + self.token_to_image(tokens + token_position, image_key, image)
        tokens = self.norm2(tokens)
        tokens = self.norm3(tokens + self.fc2(jax.nn.relu(self.fc1(tokens))))
        image = image + self.image_to_token(image_key, tokens + token_position, tokens)
        return tokens, self.norm4(image)

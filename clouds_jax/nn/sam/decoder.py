"""Segment Anything's prompt encoder and mask decoder: from points on an embedded image to masks.

Both are applied to one prompt (a set of points on one object) and mapped over many with
`jax.vmap`, so that what all prompts of an image share, the first layer's keys and values of its
4,096 positions, is computed once.

Source: segment_anything (Apache-2.0), modeling/prompt_encoder.py, mask_decoder.py and
    transformer.py. MobileSAM has the same two parts.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from clouds_jax.nn import initializers, layers
from clouds_jax.nn.convolution import Patchify
from clouds_jax.ops.attention import attend

MASKS = 3  # masks proposed per prompt; a fourth, for unambiguous prompts, is not used here
_UP = 2  # factor of each of the two upscalings
_LAYER_NORM_2D = 1e-6


@dataclasses.dataclass(frozen=True)
class DecoderSize:
    """Numbers of the prompt encoder and mask decoder; SAM and MobileSAM have the defaults.

    Attributes:
        dim: width of image embeddings, tokens and prompts.
        heads: attention heads.
        depth: two-way layers.
        ffn: width of their FFN.
        grid: positions of an image embedding along each side.
        image: pixels of the encoder's square input along each side, the unit of points.
    """

    dim: int = 256
    heads: int = 8
    depth: int = 2
    ffn: int = 2048
    grid: int = 64
    image: int = 1024


def input_size(size: tuple[int, int], image: int) -> tuple[int, int]:
    """(h, w) of an image as the encoder sees it: its longer side has `image` pixels.

    Source: ResizeLongestSide.get_preprocess_shape, which rounds halves up.
    """
    scale = image / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def prompt_scale(size: tuple[int, int], image: int) -> tuple[float, float]:
    """Factors of (x, y) from pixels of an image of `size` (h, w) to those the encoder sees.

    The two differ a little where rounding the shorter side changes the shape.

    Source: ResizeLongestSide.apply_coords.
    """
    h, w = input_size(size, image)
    return w / size[1], h / size[0]


class Attention(nnx.Module):
    """Multi-head attention inside a width that may be smaller than that of its inputs."""

    def __init__(self, dim: int, inner: int, heads: int, *, rngs: nnx.Rngs):
        make = lambda i, o: layers.Linear(i, o, **initializers.torch_linear(i), rngs=rngs)  # noqa: E731
        self.query, self.key, self.value = (make(dim, inner) for _ in range(3))
        self.out = make(inner, dim)
        self.heads = heads

    def __call__(
        self, query: Float[Array, "t d"], key: Float[Array, "s d"], value: Float[Array, "s d"]
    ) -> Float[Array, "t d"]:
        split = lambda x: x.reshape(1, x.shape[0], self.heads, -1)  # noqa: E731
        out = attend(split(self.query(query)), split(self.key(key)), split(self.value(value)))
        return self.out(out.reshape(query.shape[0], -1))


class TwoWayLayer(nnx.Module):
    """Tokens attend to themselves and to the image, then the image attends to the tokens."""

    def __init__(self, size: DecoderSize, *, first: bool, rngs: nnx.Rngs):
        dim, half = size.dim, size.dim // 2
        self.self_attention = Attention(dim, dim, size.heads, rngs=rngs)
        self.token_to_image = Attention(dim, half, size.heads, rngs=rngs)
        self.image_to_token = Attention(dim, half, size.heads, rngs=rngs)
        self.fc1 = layers.Linear(dim, size.ffn, **initializers.torch_linear(dim), rngs=rngs)
        self.fc2 = layers.Linear(size.ffn, dim, **initializers.torch_linear(size.ffn), rngs=rngs)
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
        if self.first:  # the tokens are their own position, and replaced instead of added to
            tokens = self.self_attention(tokens, tokens, tokens)
        else:
            moved = tokens + token_position
            tokens = tokens + self.self_attention(moved, moved, tokens)
        tokens = self.norm1(tokens)
        image_key = image + image_position
        tokens = tokens + self.token_to_image(tokens + token_position, image_key, image)
        tokens = self.norm2(tokens)
        tokens = self.norm3(tokens + self.fc2(jax.nn.relu(self.fc1(tokens))))
        image = image + self.image_to_token(image_key, tokens + token_position, tokens)
        return tokens, self.norm4(image)


class Upscale(nnx.Module):
    """A transposed convolution whose stride is its size: every position becomes 2x2."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        bound = initializers.uniform(1 / math.sqrt(outputs * _UP * _UP))
        self.kernel = nnx.Param(bound(rngs.params(), (_UP, _UP, inputs, outputs)))
        self.bias = nnx.Param(bound(rngs.params(), (outputs,)))

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h2 w2 d"]:
        h, w, _ = x.shape
        y = jnp.einsum("hwc,pqcd->hpwqd", x, self.kernel[...].astype(x.dtype))
        y = y.reshape(_UP * h, _UP * w, -1)
        return y + self.bias[...].astype(x.dtype)[None, None]


class MaskEncoder(nnx.Module):
    """A mask from an earlier pass, shrunk to the grid of the image embedding."""

    def __init__(self, size: DecoderSize, *, rngs: nnx.Rngs):
        narrow, wide = 4, 16
        self.conv1 = Patchify(1, narrow, size=_UP, rngs=rngs)
        self.norm1 = layers.LayerNorm(narrow, eps=_LAYER_NORM_2D, rngs=rngs)
        self.conv2 = Patchify(narrow, wide, size=_UP, rngs=rngs)
        self.norm2 = layers.LayerNorm(wide, eps=_LAYER_NORM_2D, rngs=rngs)
        self.out = layers.Linear(wide, size.dim, **initializers.torch_linear(wide), rngs=rngs)

    def __call__(self, logits: Float[Array, "h w"]) -> Float[Array, "s d"]:
        x = layers.gelu(self.norm1(self.conv1(logits[None, ..., None])))
        x = self.out(layers.gelu(self.norm2(self.conv2(x))))
        return x.reshape(-1, x.shape[-1])


class PromptEncoder(nnx.Module):
    """Points as tokens, and a mask from before as an addition to the image."""

    def __init__(self, size: DecoderSize, *, rngs: nnx.Rngs):
        dim = size.dim
        normal = initializers.NORMAL
        self.frequencies = nnx.Param(normal(rngs.params(), (2, dim // 2)))
        # of a point outside the object, inside it, and of the two corners of a box
        self.points = nnx.Param(normal(rngs.params(), (4, dim)))
        self.not_a_point = nnx.Param(normal(rngs.params(), (dim,)))
        self.no_mask = nnx.Param(normal(rngs.params(), (dim,)))
        self.mask = MaskEncoder(size, rngs=rngs)
        self.grid = size.grid
        self.image = size.image

    def __call__(
        self, points: Float[Array, "p 2"], labels: Int[Array, " p"], *, pad: bool = True
    ) -> Float[Array, "t d"]:
        """One token per point, and the padding token that SAM adds where there is no box.

        Args:
            points: (x, y) in pixels of the encoder's input.
            labels: 1 inside the object, 0 outside, -1 no point, 2 and 3 the upper left and lower
                right corner of a box.
            pad: add the padding token; False with a box.
        """
        tokens = self.position((points + 0.5) / self.image)
        kind = self.points[...][jnp.clip(labels, 0, 3)]
        absent = jnp.broadcast_to(self.not_a_point[...][None], kind.shape)
        tokens = jnp.where(labels[:, None] < 0, absent, tokens + kind)
        return jnp.concatenate([tokens, absent[:1]]) if pad else tokens

    def position(self, places: Float[Array, "*n 2"]) -> Float[Array, "*n d"]:
        """Random Fourier features of places (x, y) in [0, 1]."""
        angles = 2 * math.pi * ((2 * places - 1) @ self.frequencies[...])
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)

    def image_position(self) -> Float[Array, "s d"]:
        """Codes of the positions of an image embedding, row by row."""
        centres = (jnp.arange(self.grid) + 0.5) / self.grid
        x, y = jnp.meshgrid(centres, centres)
        return self.position(jnp.stack([x, y], -1)).reshape(self.grid**2, -1)


class MaskDecoder(nnx.Module):
    """Two-way transformer, upscaled image, one small map per proposed mask."""

    def __init__(self, size: DecoderSize, *, rngs: nnx.Rngs):
        dim = size.dim
        quarter, eighth = dim // 4, dim // 8
        self.layers = nnx.List(
            [TwoWayLayer(size, first=i == 0, rngs=rngs) for i in range(size.depth)]
        )
        self.final_attention = Attention(dim, dim // 2, size.heads, rngs=rngs)
        self.final_norm = layers.LayerNorm(dim, rngs=rngs)
        self.iou_token = nnx.Param(initializers.NORMAL(rngs.params(), (1, dim)))
        self.mask_tokens = nnx.Param(initializers.NORMAL(rngs.params(), (MASKS + 1, dim)))
        self.upscale1 = Upscale(dim, quarter, rngs=rngs)
        self.upscale_norm = layers.LayerNorm(quarter, eps=_LAYER_NORM_2D, rngs=rngs)
        self.upscale2 = Upscale(quarter, eighth, rngs=rngs)
        self.mask_maps = nnx.List(
            [layers.mlp((dim, dim, dim, eighth), rngs=rngs) for _ in range(MASKS + 1)]
        )
        self.iou_head = layers.mlp((dim, dim, dim, MASKS + 1), rngs=rngs)
        self.grid = size.grid

    def __call__(
        self,
        image: Float[Array, "s d"],
        image_position: Float[Array, "s d"],
        prompt: Float[Array, "p d"],
    ) -> tuple[Float[Array, "h w m"], Float[Array, " m"]]:
        """Three masks for one prompt.

        Args:
            image: image embedding plus the prompt's dense part, row by row.
            image_position: codes of its positions.
            prompt: tokens of the prompt encoder.

        Returns:
            Mask logits at a quarter of the image's size, masks last, and their predicted IoU.
        """
        position = jnp.concatenate([self.iou_token[...], self.mask_tokens[...], prompt])
        tokens = position
        for layer in self.layers:
            tokens, image = layer(tokens, image, position, image_position)
        attended = self.final_attention(tokens + position, image + image_position, image)
        tokens = self.final_norm(tokens + attended)
        up = self.upscale1(image.reshape(self.grid, self.grid, -1))
        up = layers.gelu(self.upscale2(layers.gelu(self.upscale_norm(up))))
        # mask 0 is the one for unambiguous prompts
        maps = [layers.apply_mlp(self.mask_maps[m], tokens[1 + m]) for m in range(1, MASKS + 1)]
        logits = jnp.einsum("hwc,mc->hwm", up, jnp.stack(maps))
        return logits, layers.apply_mlp(self.iou_head, tokens[0])[1:]


class PromptedMasks(nnx.Module):
    """Prompt encoder and mask decoder, the part of SAM that runs for every prompt.

    Args:
        size: their numbers.
        image_encoder: makes a whole SAM of it; None where embeddings are stored.
    """

    def __init__(
        self,
        size: DecoderSize | None = None,
        *,
        image_encoder: nnx.Module | None = None,
        rngs: nnx.Rngs,
    ):
        size = size or DecoderSize()
        self.image_encoder = image_encoder
        self.prompt_encoder = PromptEncoder(size, rngs=rngs)
        self.mask_decoder = MaskDecoder(size, rngs=rngs)
        self.image = size.image

    def __call__(
        self,
        embedding: Float[Array, "g g d"],
        points: Float[Array, "n p 2"],
        labels: Int[Array, "n p"],
        masks: Float[Array, "n h w"] | None = None,
        *,
        boxes: bool = False,
    ) -> tuple[Float[Array, "n h w m"], Float[Array, "n m"]]:
        """Masks of n prompts on one image.

        Args:
            embedding: of the image, from any of SAM's image encoders.
            points: (x, y) of pixels of the encoder's input.
            labels: 1 inside the object, 0 outside, -1 for no point.
            masks: logits of an earlier pass, at four times the grid of the embedding.
            boxes: the last two points of each prompt are the corners of a box.

        Returns:
            Mask logits at four times the grid of the embedding, three per prompt, and their
            predicted IoU.
        """
        image = embedding.reshape(-1, embedding.shape[-1])
        position = self.prompt_encoder.image_position()
        if masks is None:
            # added before the map over prompts, which then share what the first layer makes of it
            image = image + self.prompt_encoder.no_mask[...].astype(image.dtype)[None]
            dense = None
        else:
            dense = jax.vmap(self.prompt_encoder.mask)(masks)

        def one(points, labels, dense):
            prompt = self.prompt_encoder(points, labels, pad=not boxes)
            whole = image if dense is None else image + dense
            return self.mask_decoder(whole, position, prompt)

        return jax.vmap(one, in_axes=(0, 0, None if dense is None else 0))(points, labels, dense)

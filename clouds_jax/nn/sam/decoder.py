"""SAM's prompt encoder and mask decoder: from an image embedding and points to masks.

Both take one prompt (points on one object) and are mapped over many with `jax.vmap`, so what the
prompts of an image share, the first layer's keys and values of its 4,096 positions, is computed
once.

Source: segment_anything (Apache-2.0), modeling/prompt_encoder.py and mask_decoder.py; MobileSAM has
    the same.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from clouds_jax.nn import initializers, layers
from clouds_jax.nn.convolution import Patchify
from clouds_jax.nn.sam.two_way import Attention, TwoWayLayer

MASKS = 3  # masks per prompt; SAM's fourth, for unambiguous prompts, is not used
_UP = 2  # factor of each of the two upscalings
_EPS = 1e-6  # of the LayerNorms over maps


@dataclasses.dataclass(frozen=True)
class DecoderSize:
    """Hyperparameters of prompt encoder and mask decoder; the defaults are SAM's and MobileSAM's.

    Attributes:
        dim: channels of image embeddings and tokens.
        heads: attention heads.
        depth: two-way layers.
        ffn: hidden width of their FFN.
        grid: side of an image embedding, in positions.
        image: side of the encoder's square input, in pixels; points are in these pixels.
    """

    dim: int = 256
    heads: int = 8
    depth: int = 2
    ffn: int = 2048
    grid: int = 64
    image: int = 1024


def input_size(size: tuple[int, int], image: int) -> tuple[int, int]:
    """(h, w) of an image at the encoder's input, where its longer side has `image` pixels.

    Args:
        size: (h, w) of the image.
        image: side of the encoder's input.

    Source: ResizeLongestSide.get_preprocess_shape, which rounds halves up.
    """
    scale = image / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def prompt_scale(size: tuple[int, int], image: int) -> tuple[float, float]:
    """Factors of (x, y) from pixels of an image to pixels of the encoder's input.

    They differ a little where rounding the shorter side changes the aspect ratio.

    Args:
        size: (h, w) of the image.
        image: side of the encoder's input.

    Source: ResizeLongestSide.apply_coords.
    """
    h, w = input_size(size, image)
    return w / size[1], h / size[0]


class Upscale(nnx.Module):
    """Transposed convolution of size and stride 2: every position becomes 2x2."""

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
    """Embeds the mask logits of an earlier pass at the positions of the image embedding."""

    def __init__(self, size: DecoderSize, *, rngs: nnx.Rngs):
        narrow, wide = 4, 16
        self.conv1 = Patchify(1, narrow, size=_UP, rngs=rngs)
        self.norm1 = layers.LayerNorm(narrow, eps=_EPS, rngs=rngs)
        self.conv2 = Patchify(narrow, wide, size=_UP, rngs=rngs)
        self.norm2 = layers.LayerNorm(wide, eps=_EPS, rngs=rngs)
        self.out = layers.Linear(wide, size.dim, **initializers.torch_linear(wide), rngs=rngs)

    def __call__(self, logits: Float[Array, "h w"]) -> Float[Array, "s d"]:
        x = layers.gelu(self.norm1(self.conv1(logits[None, ..., None])))
        x = self.out(layers.gelu(self.norm2(self.conv2(x))))
        return x.reshape(-1, x.shape[-1])


class PromptEncoder(nnx.Module):
    """Embeds points as tokens, and an earlier mask as an addition to the image embedding."""

    def __init__(self, size: DecoderSize, *, rngs: nnx.Rngs):
        dim = size.dim
        normal = initializers.NORMAL
        self.frequencies = nnx.Param(normal(rngs.params(), (2, dim // 2)))
        # Of a point outside the object, one inside it, and the two corners of a box.
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
            labels: 1 inside the object, 0 outside, -1 for no point, 2 and 3 for the top-left and
                bottom-right corner of a box.
            pad: whether to add the padding token; False with a box.
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
        """Position encodings of an image embedding, row by row."""
        centres = (jnp.arange(self.grid) + 0.5) / self.grid
        x, y = jnp.meshgrid(centres, centres)
        return self.position(jnp.stack([x, y], -1)).reshape(self.grid**2, -1)


class MaskDecoder(nnx.Module):
    """Two-way transformer, upscaling, and one hypernetwork MLP per mask."""

    def __init__(self, size: DecoderSize, *, rngs: nnx.Rngs):
        dim = size.dim
        quarter, eighth = dim // 4, dim // 8
        self.layers = nnx.List(
            [
                TwoWayLayer(dim, size.heads, size.ffn, first=i == 0, rngs=rngs)
                for i in range(size.depth)
            ]
        )
        self.final_attention = Attention(dim, dim // 2, size.heads, rngs=rngs)
        self.final_norm = layers.LayerNorm(dim, rngs=rngs)
        self.iou_token = nnx.Param(initializers.NORMAL(rngs.params(), (1, dim)))
        self.mask_tokens = nnx.Param(initializers.NORMAL(rngs.params(), (MASKS + 1, dim)))
        self.upscale1 = Upscale(dim, quarter, rngs=rngs)
        self.upscale_norm = layers.LayerNorm(quarter, eps=_EPS, rngs=rngs)
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
            image: image embedding plus the dense prompt embedding, row by row.
            image_position: position encodings of the image embedding.
            prompt: tokens of the prompt encoder.

        Returns:
            Mask logits at four times the grid of the embedding, masks last, and their predicted
            IoU.
        """
        position = jnp.concatenate([self.iou_token[...], self.mask_tokens[...], prompt])
        tokens = position
        for layer in self.layers:
            tokens, image = layer(tokens, image, position, image_position)
        attended = self.final_attention(tokens + position, image + image_position, image)
        tokens = self.final_norm(tokens + attended)
        up = self.upscale1(image.reshape(self.grid, self.grid, -1))
        up = layers.gelu(self.upscale2(layers.gelu(self.upscale_norm(up))))
        # Mask 0 is the one for unambiguous prompts.
        maps = [layers.apply_mlp(self.mask_maps[m], tokens[1 + m]) for m in range(1, MASKS + 1)]
        logits = jnp.einsum("hwc,mc->hwm", up, jnp.stack(maps))
        return logits, layers.apply_mlp(self.iou_head, tokens[0])[1:]


class PromptedMasks(nnx.Module):
    """Prompt encoder and mask decoder, and the image encoder of a whole SAM.

    Args:
        size: hyperparameters of prompt encoder and mask decoder; None: SAM's.
        image_encoder: the image encoder; None: embeddings come from elsewhere.
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
            embedding: of the image, from SAM's image encoder.
            points: (x, y) in pixels of the encoder's input.
            labels: 1 inside the object, 0 outside, -1 for no point.
            masks: logits of an earlier pass, at four times the grid of the embedding; None: none.
            boxes: whether the last two points of each prompt are the corners of a box.

        Returns:
            Mask logits at four times the grid of the embedding, three per prompt, and their
            predicted IoU.
        """
        image = embedding.reshape(-1, embedding.shape[-1])
        position = self.prompt_encoder.image_position()
        if masks is None:
            # Added before the map over prompts, which then share the first layer's keys and values.
            image = image + self.prompt_encoder.no_mask[...].astype(image.dtype)[None]
            dense = None
        else:
            dense = jax.vmap(self.prompt_encoder.mask)(masks)

        def decode(points, labels, dense):
            prompt = self.prompt_encoder(points, labels, pad=not boxes)
            prompted = image if dense is None else image + dense
            return self.mask_decoder(prompted, position, prompt)

        return jax.vmap(decode, in_axes=(0, 0, None if dense is None else 0))(points, labels, dense)

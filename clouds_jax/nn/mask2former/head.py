"""The Mask2Former head, and class scores at every pixel from its queries."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from clouds_jax.nn.mask2former.class_heads import TextRows
from clouds_jax.nn.mask2former.pixel_decoder import PixelDecoder
from clouds_jax.nn.mask2former.size import HeadSize
from clouds_jax.nn.mask2former.transformer_decoder import TransformerDecoder
from clouds_jax.ops import extents, resize
from clouds_jax.ops.extents import Extent
from clouds_jax.typing import Features, Prediction

MASK_STRIDE = 4
_TILE = 32  # image rows scored at once


class Mask2FormerHead(nnx.Module):
    """Pixel decoder and transformer decoder.

    Args:
        widths: channels of res2 to res5.
        size: hyperparameters.
        classes: number of classes k, without no-object.
        rows: layout of the class matrix, where `size.classifier` is "text".
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int],
        size: HeadSize,
        classes: int,
        *,
        rows: TextRows | None = None,
        rngs: nnx.Rngs,
    ):
        self.pixel_decoder = PixelDecoder(widths, size, rngs=rngs)
        self.transformer_decoder = TransformerDecoder(size, classes, rows=rows, rngs=rngs)

    def __call__(
        self, features: Features, *, all_outputs: bool, extent: Extent | None = None
    ) -> Prediction:
        """Class and mask logits of the queries, float32.

        Args:
            features: res2 to res5, of any dtype; the head's activations have `size.dtype`.
            all_outputs: predict after every decoder layer, as the loss needs; otherwise after the
                last one.
            extent: sizes of the images in a padded batch; None: they fill it.
        """
        mask_features, levels = self.pixel_decoder(features, extent)
        return self.transformer_decoder(
            levels, mask_features, all_outputs=all_outputs, extent=extent
        )

    def scores(
        self, output: Prediction, size: tuple[int, int], extent: Extent | None = None
    ) -> Float[Array, "b h w k"]:
        """See `class_scores`."""
        return class_scores(output, size, extent)


def class_scores(
    prediction: Prediction, size: tuple[int, int], extent: Extent | None = None
) -> Float[Array, "b h w k"]:
    """Class scores at every pixel, from the last output.

    A score is the sum over queries of class probability, no-object left out, times mask
    probability. Rows are scored in tiles, so that the masks of all queries are never in memory at
    full size.

    Args:
        prediction: the head's.
        size: (h, w) of the images before padding, at most 4 times the size of the masks.
        extent: sizes of the images in a padded batch; None: they fill it.

    Raises:
        ValueError: the size is larger than that.

    Source: semantic_inference of Mask2Former, after bilinear upsampling of the mask logits to the
        padded input.
    """
    logits = extents.extend(prediction.mask_logits[-1], extent)
    probabilities = jax.nn.softmax(prediction.class_logits[-1])[..., :-1]
    b, h4, w4, _ = logits.shape
    h, w = size
    padded_h, padded_w = h4 * MASK_STRIDE, w4 * MASK_STRIDE
    if h > padded_h or w > padded_w:
        raise ValueError(
            f"class_scores: size {size} exceeds the padded image ({padded_h}, {padded_w}) that "
            "the masks were made for; score at most that size and resize the scores."
        )

    def tile(first_row):
        row = (first_row + jnp.arange(_TILE) + 0.5) / MASK_STRIDE - 0.5
        row = jnp.clip(row, 0, h4 - 1)
        above = jnp.floor(row).astype(jnp.int32)
        below = jnp.minimum(above + 1, h4 - 1)
        share = (row - above)[None, :, None, None]
        rows = logits[:, above] * (1 - share) + logits[:, below] * share
        masks = jax.nn.sigmoid(resize.resize_bilinear(rows, (_TILE, padded_w))[:, :, :w])
        return jnp.einsum("bhwq,bqk->bhwk", masks, probabilities)

    tiles = jax.lax.map(tile, jnp.arange(0, h, _TILE))  # t b r w k
    scores = tiles.transpose(1, 0, 2, 3, 4).reshape(b, -1, w, probabilities.shape[-1])
    return scores[:, :h]


def coarse_class_map(prediction: Prediction) -> UInt8[Array, "b h4 w4"]:
    """The class map of the last output at stride 4: cheap enough to be logged in training."""
    probabilities = jax.nn.softmax(prediction.class_logits[-1])[..., :-1]
    masks = jax.nn.sigmoid(prediction.mask_logits[-1])
    return class_map(jnp.einsum("bhwq,bqk->bhwk", masks, probabilities))


def class_map(scores: Float[Array, "b h w k"]) -> UInt8[Array, "b h w"]:
    """The class with the highest score at every pixel."""
    return scores.argmax(-1).astype(jnp.uint8)

"""The pixel decoder: deformable attention over three feature levels, then one FPN step.

Source: MSDeformAttnPixelDecoder of Mask2Former (MIT), as CLOUDS uses it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from clouds_jax.nn import convolution, initializers, layers
from clouds_jax.nn.mask2former.size import HeadSize
from clouds_jax.ops import deformable_attention, extents, position, resize
from clouds_jax.ops.extents import Extent
from clouds_jax.ops.linear import linear
from clouds_jax.typing import Features

LEVELS = ("res5", "res4", "res3")  # in the order of the tokens


def _directions(heads: int, levels: int, points: int) -> np.ndarray:
    """Initial offsets (n, l, p, 2): one direction per head, scaled by 1, 2, ..., p pixels."""
    angle = np.arange(heads) * 2 * np.pi / heads
    grid = np.stack([np.cos(angle), np.sin(angle)], -1)
    grid /= np.abs(grid).max(-1, keepdims=True)
    grid = np.tile(grid[:, None, None], (1, levels, points, 1))
    return (grid * np.arange(1, points + 1)[None, None, :, None]).astype(np.float32)


def reference_points(sizes: tuple[tuple[int, int], ...]) -> Float[Array, "s 2"]:
    """Pixel centres (x, y) in [0, 1] of all levels, concatenated; `sizes`: (h, w) per level."""
    points = []
    for h, w in sizes:
        y, x = jnp.meshgrid((jnp.arange(h) + 0.5) / h, (jnp.arange(w) + 0.5) / w, indexing="ij")
        points.append(jnp.stack([x, y], -1).reshape(h * w, 2))
    return jnp.concatenate(points)


class DeformableLayer(nnx.Module):
    """Post-norm transformer layer: deformable self-attention over all levels, FFN."""

    def __init__(self, size: HeadSize, *, rngs: nnx.Rngs):
        dim, ffn = size.dim, size.pixel_ffn
        samples = size.num_heads * len(LEVELS) * size.num_points
        directions = _directions(size.num_heads, len(LEVELS), size.num_points)
        self.sampling_offsets = layers.Linear(
            dim,
            2 * samples,
            kernel_init=initializers.ZEROS,
            bias_init=initializers.fixed(directions),
            rngs=rngs,
        )
        self.attention_weights = layers.Linear(
            dim, samples, kernel_init=initializers.ZEROS, rngs=rngs
        )
        self.value_proj = layers.Linear(dim, dim, rngs=rngs)
        self.output_proj = layers.Linear(dim, dim, rngs=rngs)
        self.norm1 = layers.LayerNorm(dim, rngs=rngs)
        # The original redraws the kernels and leaves the biases at torch's default.
        self.fc1 = layers.Linear(dim, ffn, bias_init=initializers.uniform(dim**-0.5), rngs=rngs)
        self.fc2 = layers.Linear(ffn, dim, bias_init=initializers.uniform(ffn**-0.5), rngs=rngs)
        self.norm2 = layers.LayerNorm(dim, rngs=rngs)
        self.heads = size.num_heads
        self.points = size.num_points

    def __call__(
        self,
        x: Float[Array, "b s d"],
        position: Float[Array, "b s d"],
        sizes: tuple[tuple[int, int], ...],
        counted: Bool[Array, "b s"] | None = None,
    ) -> Float[Array, "b s d"]:
        """The layer's output.

        Args:
            x: tokens of all levels, concatenated.
            position: their position encodings.
            sizes: (h, w) of each level.
            counted: tokens that belong to their image; None: all.
        """
        x = self.norm1(x + self.attend(x, position, sizes, counted))
        return self.norm2(x + self.fc2(jax.nn.relu(self.fc1(x))))

    def attend(
        self,
        x: Float[Array, "b s d"],
        position: Float[Array, "b s d"],
        sizes: tuple[tuple[int, int], ...],
        counted: Bool[Array, "b s"] | None = None,
    ) -> Float[Array, "b s d"]:
        """The attention alone; `position` is added to the queries, not to the values."""
        b, s, d = x.shape
        # float32, as the position encodings are: bfloat16 points would be off by pixels
        query = x + position
        offsets = self.by_slot(self.sampling_offsets, query)
        weights = jax.nn.softmax(self.by_slot(self.attention_weights, query), axis=2)
        offsets, weights = jnp.moveaxis(offsets, 2, 0), jnp.moveaxis(weights, 2, 0)
        slots = (len(sizes), self.points)
        offsets = offsets.reshape(*slots, 2, b, s, self.heads)
        weights = weights.reshape(*slots, b, s, self.heads)
        values = self.value_proj(x)
        if counted is not None:
            # Nothing else: the levels of an image are as 1 to 2 to 4, like those of the padded
            # batch, so its points and offsets lie at the same pixels; outside, the values are 0.
            values = jnp.where(counted[..., None], values, 0)
        values = values.reshape(b, s, self.heads, d // self.heads)
        # Offsets are in pixels of the sampled level, points in [0, 1] of it.
        wh = jnp.asarray([(w, h) for h, w in sizes], offsets.dtype)[:, None, :, None, None, None]
        points = reference_points(sizes).T[None, None, :, None, :, None]
        sampled = deformable_attention.deform_attn(values, sizes, points + offsets / wh, weights)
        return self.output_proj(sampled.reshape(b, s, d))

    def by_slot(
        self, projection: layers.Linear, x: Float[Array, "b s d"]
    ) -> Float[Array, "b s slots n"]:
        """Applies a projection whose outputs are ordered by head first, and puts the heads last."""
        d = x.shape[-1]
        kernel = projection.kernel[...].reshape(d, self.heads, -1).swapaxes(1, 2)
        assert projection.bias is not None
        bias = projection.bias[...].reshape(1, 1, self.heads, -1).swapaxes(2, 3)
        y = linear(x, kernel.reshape(d, -1).astype(x.dtype))
        return y.reshape(*x.shape[:2], *kernel.shape[1:]) + bias.astype(x.dtype)


class Projection(nnx.Module):
    """Convolution, then GroupNorm."""

    def __init__(self, conv: nnx.Module, dim: int, *, rngs: nnx.Rngs):
        self.conv = conv
        self.norm = layers.GroupNorm(dim, groups=layers.groups_of(dim), rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], extent: Extent | None = None
    ) -> Float[Array, "b h w d"]:
        return self.norm(self.conv(extents.clear(x, extent)), extent)


class PixelDecoder(nnx.Module):
    """Feature levels at strides 32, 16 and 8, and mask features at stride 4, in `size.dtype`.

    Args:
        widths: channels of res2 to res5.
        size: hyperparameters.
    """

    def __init__(self, widths: tuple[int, int, int, int], size: HeadSize, *, rngs: nnx.Rngs):
        dim = size.dim
        res2, *rest = widths
        self.input_proj = nnx.List(
            [
                Projection(layers.Linear(width, dim, rngs=rngs), dim, rngs=rngs)
                for width in reversed(rest)
            ]
        )
        self.level_embed = nnx.Param(initializers.NORMAL(rngs.params(), (len(LEVELS), dim)))
        self.layers = layers.stack_blocks(
            lambda rngs: DeformableLayer(size, rngs=rngs), size.pixel_layers, rngs
        )
        lateral = layers.Linear(
            res2, dim, kernel_init=initializers.KAIMING, bias_init=None, rngs=rngs
        )
        self.lateral = Projection(lateral, dim, rngs=rngs)
        output = convolution.Conv(dim, dim, size=3, padding=((1, 1), (1, 1)), rngs=rngs)
        self.output = Projection(output, dim, rngs=rngs)
        self.mask_features = layers.Linear(dim, dim, kernel_init=initializers.KAIMING, rngs=rngs)
        self.dtype = size.dtype

    def __call__(
        self, features: Features, extent: Extent | None = None
    ) -> tuple[Float[Array, "b h4 w4 d"], tuple[Float[Array, "b _ _ d"], ...]]:
        """The mask features and the levels, coarsest first.

        Args:
            features: res2 to res5, of any dtype.
            extent: sizes of the images in a padded batch; None: they fill it.
        """
        maps = [features[name].astype(self.dtype) for name in LEVELS]
        sizes = tuple((m.shape[1], m.shape[2]) for m in maps)
        maps = [project(m, extent) for project, m in zip(self.input_proj, maps, strict=True)]
        b, _, _, d = maps[0].shape
        tokens = jnp.concatenate([m.reshape(b, -1, d) for m in maps], 1)
        tokens = self.encode(tokens, sizes, extent)
        ends = np.cumsum([h * w for h, w in sizes])[:-1]
        levels = tuple(
            part.reshape(b, *size, d)
            for part, size in zip(jnp.split(tokens, ends, 1), sizes, strict=True)
        )
        return self.fuse(levels[-1], features["res2"].astype(self.dtype), extent), levels

    def encode(
        self,
        tokens: Float[Array, "b s d"],
        sizes: tuple[tuple[int, int], ...],
        extent: Extent | None = None,
    ) -> Float[Array, "b s d"]:
        """Applies the deformable layers to the tokens of all levels.

        Args:
            tokens: of all levels, concatenated.
            sizes: (h, w) of each level.
            extent: sizes of the images in a padded batch; None: they fill it.
        """
        b, _, d = tokens.shape
        codes = []
        for size, embedding in zip(sizes, self.level_embed[...], strict=True):
            if extent is None:
                code = jnp.asarray(position.sine_position(size, d)).reshape(1, -1, d)
            else:
                code = position.sine_position_within(extent, size, d).reshape(b, -1, d)
            # Broadcast here, or every layer would sum the embedding's gradient over the batch.
            codes.append(code + jnp.broadcast_to(embedding[None, None], (b, code.shape[1], d)))
        counted = extents.inside_tokens(extent, sizes)
        return layers.scan_blocks(
            self.layers, tokens, jnp.concatenate(codes, axis=1), sizes, counted
        )

    def fuse(
        self,
        level: Float[Array, "b h8 w8 d"],
        res2: Float[Array, "b h4 w4 c"],
        extent: Extent | None = None,
    ) -> Float[Array, "b h4 w4 d"]:
        """Mask features from the finest level and res2: the FPN step.

        Upsampling is bilinear, as in the original's code; a comment there says nearest.
        """
        x = self.lateral(res2, extent)
        _, h, w, _ = x.shape
        x = x + resize.resize_bilinear(extents.extend(level, extent), (h, w))
        return self.mask_features(jax.nn.relu(self.output(x, extent)))

"""SAM's image encoders: ViT-B, ViT-L and ViT-H with windowed attention.

Every size has four groups of blocks. All blocks of a group but the last attend inside windows, the
last attends globally. Both kinds are stacked and scanned.

Source: segment_anything (Apache-2.0), modeling/image_encoder.py.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from clouds_jax.nn import convolution, initializers, layers
from clouds_jax.nn.sam.windows import join_windows, split_windows

GROUPS = 4
_PATCH = 16
_RATIO = 4  # hidden over outer width of the MLP
_EPS = 1e-6
_ROWS = 8  # of queries at a time in global attention: 134 MB of scores in ViT-H, not 1 GB
_WEIGHT = initializers.truncated_normal(0.02)


@dataclasses.dataclass(frozen=True)
class ViTSize:
    """Hyperparameters of a SAM ViT.

    Attributes:
        width: channels of the tokens.
        depth: number of blocks, a multiple of 4 above 4.
        heads: attention heads.
        window: side of a window, in positions.
        image: side of the square input, in pixels.
        outputs: channels of the embedding.
    """

    width: int
    depth: int
    heads: int
    window: int = 14
    image: int = 1024
    outputs: int = 256

    def __post_init__(self):
        if self.depth % GROUPS or self.depth <= GROUPS:
            raise ValueError(
                f"ViTSize: depth is {self.depth}; a multiple of {GROUPS} above {GROUPS} is needed,"
                " since every group has a global block and at least one with windows."
            )
        if self.width % self.heads:
            raise ValueError(f"ViTSize: width {self.width} is not divisible by {self.heads} heads.")
        if self.image % _PATCH:
            raise ValueError(f"ViTSize: image is {self.image}; a multiple of {_PATCH} is needed.")

    @property
    def grid(self) -> int:
        """Side of the embedding, in positions."""
        return self.image // _PATCH

    @property
    def group(self) -> int:
        """Blocks per group, the global one included."""
        return self.depth // GROUPS


SIZES = {
    "debug": ViTSize(16, 12, 2, window=6, image=256, outputs=32),
    "debug_l": ViTSize(16, 24, 2, window=6, image=256, outputs=32),
    "debug_h": ViTSize(16, 32, 2, window=6, image=256, outputs=32),
    "b": ViTSize(768, 12, 12),
    "l": ViTSize(1024, 24, 16),
    "h": ViTSize(1280, 32, 16),
}


class Attention(nnx.Module):
    """Multi-head self-attention over a map, with decomposed relative position embeddings.

    Args:
        width: channels.
        heads: attention heads.
        side: of the map, in positions.
    """

    def __init__(self, width: int, heads: int, *, side: int, rngs: nnx.Rngs):
        def linear():
            return layers.Linear(width, width, kernel_init=_WEIGHT, rngs=rngs)

        self.query, self.key, self.value, self.out = linear(), linear(), linear(), linear()
        # Embeddings of differences in rows and in columns, from -(side - 1) to side - 1.
        distances = (2 * side - 1, width // heads)
        self.rows = nnx.Param(initializers.ZEROS(rngs.params(), distances))
        self.columns = nnx.Param(initializers.ZEROS(rngs.params(), distances))
        self.heads = heads

    def __call__(
        self, x: Float[Array, "b s s c"], *, rows_at_once: int | None = None
    ) -> Float[Array, "b s s c"]:
        """Attends from every position to every position.

        Args:
            x: maps.
            rows_at_once: rows of queries whose scores are in memory together, a divisor of the
                side; None: all.
        """
        b, side, _, width = x.shape
        query, key, value = (
            f(x).reshape(b, side, side, self.heads, -1) for f in (self.query, self.key, self.value)
        )
        rows, columns = (_relative(p[...], side) for p in (self.rows, self.columns))

        def attend(block):
            query, rows = block
            return _attend(query, rows, key, value, columns)

        if rows_at_once is None:
            out = attend((query, rows))
        else:
            blocks = side // rows_at_once
            query = query.reshape(b, blocks, rows_at_once, *query.shape[2:]).swapaxes(0, 1)
            rows = rows.reshape(blocks, rows_at_once, *rows.shape[1:])
            out = jax.lax.map(attend, (query, rows)).swapaxes(0, 1)
        return self.out(out.reshape(b, side, side, width))


def _relative(codes: Float[Array, "n e"], side: int) -> Float[Array, "q k e"]:
    """The embeddings of the differences between query and key positions along one axis."""
    place = np.arange(side)
    return codes[place[:, None] - place[None] + side - 1]


def _attend(
    query: Float[Array, "b r w n e"],
    rows: Float[Array, "r h e"],
    key: Float[Array, "b h w n e"],
    value: Float[Array, "b h w n e"],
    columns: Float[Array, "w w e"],
) -> Float[Array, "b r w n e"]:
    """Attention of r rows of queries.

    Scores are (q k) / sqrt(e) + q rows + q columns: relative embeddings meet the unscaled query.

    Args:
        query: of r rows of the map.
        rows: relative embeddings of these rows to all rows.
        key: of the whole map.
        value: of the whole map.
        columns: relative embeddings of all columns to all columns.
    """
    scores = jnp.einsum("brqne,bhkne->bnrqhk", query * query.shape[-1] ** -0.5, key)
    by_row = jnp.einsum("brqne,rhe->bnrqh", query, rows.astype(query.dtype))
    by_column = jnp.einsum("brqne,qke->bnrqk", query, columns.astype(query.dtype))
    scores = scores + by_row[..., None] + by_column[..., None, :]
    weights = jax.nn.softmax(scores.astype(jnp.float32), axis=(-2, -1)).astype(value.dtype)
    return jnp.einsum("bnrqhk,bhkne->brqne", weights, value)


class Block(nnx.Module):
    """Pre-norm transformer block: windowed or global attention, MLP.

    Args:
        size: hyperparameters.
        window: side of a window, in positions; None: global attention.
    """

    def __init__(self, size: ViTSize, *, window: int | None, rngs: nnx.Rngs):
        width, hidden = size.width, _RATIO * size.width
        self.norm1 = layers.LayerNorm(width, eps=_EPS, rngs=rngs)
        self.attention = Attention(width, size.heads, side=window or size.grid, rngs=rngs)
        self.norm2 = layers.LayerNorm(width, eps=_EPS, rngs=rngs)
        self.fc1 = layers.Linear(width, hidden, kernel_init=_WEIGHT, rngs=rngs)
        self.fc2 = layers.Linear(hidden, width, kernel_init=_WEIGHT, rngs=rngs)
        self.window = window

    def __call__(self, x: Float[Array, "b s s c"]) -> Float[Array, "b s s c"]:
        y = self.norm1(x)
        if self.window is None:
            y = self.attention(y, rows_at_once=math.gcd(x.shape[1], _ROWS))
        else:
            y = join_windows(self.attention(split_windows(y, self.window)), x.shape)
        x = x + y
        return x + self.fc2(layers.gelu(self.fc1(self.norm2(x))))


class Neck(nnx.Module):
    """Projects the last tokens to the embedding: 1x1 and 3x3 convolution, each with a LayerNorm."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.conv1 = layers.Linear(
            inputs, outputs, kernel_init=initializers.KAIMING, bias_init=None, rngs=rngs
        )
        self.norm1 = layers.LayerNorm(outputs, eps=_EPS, rngs=rngs)
        self.conv2 = convolution.Conv(outputs, outputs, size=3, padding=((1, 1), (1, 1)), rngs=rngs)
        self.norm2 = layers.LayerNorm(outputs, eps=_EPS, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        return self.norm2(self.conv2(self.norm1(self.conv1(x))))


class SamViT(nnx.Module):
    """Image encoder of SAM.

    Block i of segment_anything is global block g where i = n * g + n - 1, and window block
    (n - 1) * g + j where i = n * g + j, for n blocks per group.
    """

    def __init__(self, size: ViTSize, *, rngs: nnx.Rngs):
        self.patch = convolution.Patchify(3, size.width, size=_PATCH, rngs=rngs)
        self.position = nnx.Param(
            initializers.ZEROS(rngs.params(), (size.grid, size.grid, size.width))
        )

        def make(window):
            return lambda rngs: Block(size, window=window, rngs=rngs)

        self.windows = layers.stack_blocks(make(size.window), GROUPS * (size.group - 1), rngs)
        self.globals = layers.stack_blocks(make(None), GROUPS, rngs)
        self.neck = Neck(size.width, size.outputs, rngs=rngs)
        self.image = size.image

    def __call__(self, images: Float[Array, "b s s 3"]) -> Float[Array, "b g g d"]:
        """Embeddings of normalised images, at stride 16.

        Raises:
            ValueError: the images have another size than the position embeddings are for.
        """
        return self.neck(self._blocks(self.embed(images)))

    def embed(self, images: Float[Array, "b s s 3"]) -> Float[Array, "b g g c"]:
        """Patch embeddings plus position embeddings."""
        if images.shape[1] != self.image:
            raise ValueError(
                f"SamViT: images are {images.shape[1]}x{images.shape[2]}; its positions are made"
                f" for {self.image}x{self.image}."
            )
        return self.patch(images) + self.position[...].astype(images.dtype)[None]

    def _blocks(self, x: Float[Array, "b g g c"]) -> Float[Array, "b g g c"]:
        window_graph, windows = nnx.split(self.windows)
        global_graph, globals_ = nnx.split(self.globals)
        windows = jax.tree.map(lambda leaf: leaf.reshape(GROUPS, -1, *leaf.shape[1:]), windows)

        def window_block(x, state):
            return nnx.merge(window_graph, state)(x), None

        def group(x, states):
            inside, last = states
            x, _ = jax.lax.scan(window_block, x, inside)
            return nnx.merge(global_graph, last)(x), None

        return jax.lax.scan(group, x, (windows, globals_))[0]

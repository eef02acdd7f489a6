"""SAM's image encoders: ViT-B, ViT-L and ViT-H with attention inside windows.

Every size is four groups of blocks: all of a group but the last attend inside windows, the last
attends everywhere. Both kinds are stacked and scanned.

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

GROUPS = 4
_PATCH = 16
_RATIO = 4  # of the hidden to the outer width
_EPS = 1e-6
_ROWS = 8  # of queries at a time in global attention; ViT-H then holds 134 MB of scores, not 1 GB
_WEIGHT = initializers.truncated_normal(0.02)


@dataclasses.dataclass(frozen=True)
class ViTSize:
    """Numbers of one encoder.

    Attributes:
        width: of the tokens.
        depth: blocks, a multiple of `GROUPS`.
        heads: attention heads.
        window: positions along each side of a window.
        image: pixels of the square input along each side.
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
        """Positions along each side of the embedding."""
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
    """Self-attention on a map of positions; scores know how far apart these are.

    Args:
        side: positions along each side of the map.
    """

    def __init__(self, width: int, heads: int, *, side: int, rngs: nnx.Rngs):
        def linear():
            return layers.Linear(width, width, kernel_init=_WEIGHT, rngs=rngs)

        self.query, self.key, self.value, self.out = linear(), linear(), linear(), linear()
        # of differences in rows and in columns, from -(side - 1) to side - 1
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
            rows_at_once: rows of queries whose scores are in memory together; divides the side.
                None: all.
        """
        b, side, _, width = x.shape
        query, key, value = (
            f(x).reshape(b, side, side, self.heads, -1) for f in (self.query, self.key, self.value)
        )
        rows, columns = (_relative(p[...], side) for p in (self.rows, self.columns))

        def attend(part):
            return _attend(*part, key, value, columns)

        if rows_at_once is None:
            out = attend((query, rows))
        else:
            blocks = side // rows_at_once
            query = query.reshape(b, blocks, rows_at_once, *query.shape[2:]).swapaxes(0, 1)
            rows = rows.reshape(blocks, rows_at_once, *rows.shape[1:])
            out = jax.lax.map(attend, (query, rows)).swapaxes(0, 1)
        return self.out(out.reshape(b, side, side, width))


def _relative(codes: Float[Array, "n e"], side: int) -> Float[Array, "q k e"]:
    """Codes of the differences between positions of queries and of keys."""
    place = np.arange(side)
    return codes[place[:, None] - place[None] + side - 1]


def _attend(
    query: Float[Array, "b r w n e"],
    rows: Float[Array, "r h e"],
    key: Float[Array, "b h w n e"],
    value: Float[Array, "b h w n e"],
    columns: Float[Array, "w w e"],
) -> Float[Array, "b r w n e"]:
    """Attention of r rows of queries; the relative codes meet the query before it is scaled."""
    scores = jnp.einsum("brqne,bhkne->bnrqhk", query * query.shape[-1] ** -0.5, key)
    by_row = jnp.einsum("brqne,rhe->bnrqh", query, rows.astype(query.dtype))
    by_column = jnp.einsum("brqne,qke->bnrqk", query, columns.astype(query.dtype))
    scores = scores + by_row[..., None] + by_column[..., None, :]
    shares = jax.nn.softmax(scores.astype(jnp.float32), axis=(-2, -1)).astype(value.dtype)
    return jnp.einsum("bnrqhk,bhkne->brqne", shares, value)


class Block(nnx.Module):
    """Attention and MLP, each after its LayerNorm and added to its input.

    Args:
        window: positions along each side of a window; None attends everywhere.
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
            y = join(self.attention(split(y, self.window)), x.shape)
        x = x + y
        return x + self.fc2(layers.gelu(self.fc1(self.norm2(x))))


def split(x: Float[Array, "b h w c"], window: int) -> Float[Array, "n s s c"]:
    """Windows of maps, row by row; zeros fill up the last ones, and are attended to."""
    b, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (0, -h % window), (0, -w % window), (0, 0)))
    x = x.reshape(b, x.shape[1] // window, window, x.shape[2] // window, window, c)
    return x.swapaxes(2, 3).reshape(-1, window, window, c)


def join(windows: Float[Array, "n s s c"], shape: tuple[int, ...]) -> Float[Array, "b h w c"]:
    """Maps of this shape from the windows that `split` made of them."""
    b, h, w, c = shape
    window = windows.shape[1]
    down, across = -(-h // window), -(-w // window)
    x = windows.reshape(b, down, across, window, window, c).swapaxes(2, 3)
    return x.reshape(b, down * window, across * window, c)[:, :h, :w]


class Neck(nnx.Module):
    """From the last tokens to the embedding: 1x1 and 3x3 convolution, each with its LayerNorm."""

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
        """Embeddings of normalised square images, at a sixteenth of their size."""
        return self.neck(self._blocks(self.embed(images)))

    def embed(self, images: Float[Array, "b s s 3"]) -> Float[Array, "b g g c"]:
        """Patches as tokens, and where they are."""
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

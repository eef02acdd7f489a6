"""Small layers, and stacks of identical blocks.

Parameters are float32 unless cast; a layer computes in the dtype of its input. Normalisation
layers compute in float32 and return the dtype of their input.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from clouds_jax.nn.initializers import ONES, XAVIER, ZEROS, torch_linear, uniform
from clouds_jax.nn.rngs import HostKeys, Keys
from clouds_jax.ops import extents
from clouds_jax.ops.attention import attend
from clouds_jax.ops.extents import Extent
from clouds_jax.ops.layer_norm import standardise
from clouds_jax.ops.linear import linear


def _channels(param: nnx.Param, x: Array) -> Array:
    """`param` (c,) with leading axes of length 1, to broadcast over `x`."""
    return param[...].reshape((1,) * (x.ndim - 1) + (-1,))


def affine(
    x: Float[Array, "*n i"], kernel: nnx.Param, bias: nnx.Param | None
) -> Float[Array, "*n o"]:
    """x @ kernel + bias over the last axis, in the dtype of `x`."""
    y = linear(x, kernel[...].astype(x.dtype))
    return y if bias is None else y + _channels(bias, y).astype(x.dtype)


class Linear(nnx.Module):
    """Affine map of the last axis; also used for 1x1 convolutions.

    Args:
        inputs: width of the input.
        outputs: width of the output.
        kernel_init: initialiser of the kernel.
        bias_init: initialiser of the bias; None: no bias.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel_init: Callable = XAVIER,
        bias_init: Callable | None = ZEROS,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (inputs, outputs)))
        has_bias = bias_init is not None
        self.bias = nnx.Param(bias_init(rngs.params(), (outputs,))) if has_bias else None

    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        return affine(x, self.kernel, self.bias)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis; eps is torch's default."""

    def __init__(self, size: int, *, eps: float = 1e-5, rngs: nnx.Rngs):
        self.scale = nnx.Param(ONES(rngs.params(), (size,)))
        self.bias = nnx.Param(ZEROS(rngs.params(), (size,)))
        self.eps = eps

    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        y = standardise(x.astype(jnp.float32), eps=self.eps)
        return (y * _channels(self.scale, y) + _channels(self.bias, y)).astype(x.dtype)


class GroupNorm(nnx.Module):
    """Normalisation of each image over its positions and each group of channels.

    Raises:
        ValueError: the groups do not divide the channels.
    """

    def __init__(self, size: int, *, groups: int = 32, eps: float = 1e-5, rngs: nnx.Rngs):
        if size % groups:
            raise ValueError(f"GroupNorm: {size} channels are not divisible by {groups} groups.")
        self.scale = nnx.Param(ONES(rngs.params(), (size,)))
        self.bias = nnx.Param(ZEROS(rngs.params(), (size,)))
        self.groups = groups
        self.eps = eps

    def __call__(
        self, x: Float[Array, "b h w c"], extent: Extent | None = None
    ) -> Float[Array, "b h w c"]:
        """The normalised map; positions beyond the images of an extent do not count."""
        b, h, w, c = x.shape
        y = x.astype(jnp.float32).reshape(b, h * w, self.groups, c // self.groups)
        counted = None
        if extent is not None:
            counted = extents.inside(extent, (h, w)).reshape(b, h * w, 1, 1)

        def mean(y):
            return y.mean((1, 3), keepdims=True, where=counted)

        y = y - mean(y)
        y = y * jax.lax.rsqrt(mean(jnp.square(y)) + self.eps)
        y = y.reshape(x.shape)
        return (y * _channels(self.scale, y) + _channels(self.bias, y)).astype(x.dtype)


def gelu(x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    """The exact GELU by erf, as in torch; computed in float32, in the dtype of `x`.

    That of JAX, by erfc, is more precise far below zero, where the result is nearly 0, and takes
    1.7 times as long on CPU.
    """
    y = x.astype(jnp.float32)
    return (0.5 * y * (1 + jax.lax.erf(y * math.sqrt(0.5)))).astype(x.dtype)


def groups_of(size: int) -> int:
    """Groups of a GroupNorm over `size` channels: 32 as in the original, fewer in debug models."""
    return math.gcd(size, 32)


def mlp(sizes: tuple[int, ...], *, rngs: nnx.Rngs) -> Sequence[Linear]:
    """The linear layers of an MLP between these widths, for `apply_mlp`; torch's initialisation."""
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    return nnx.List([Linear(i, o, **torch_linear(i), rngs=rngs) for i, o in pairs])


def apply_mlp(layers: Sequence[Linear], x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
    """Applies the layers in order, with ReLU between them."""
    for layer in layers[:-1]:
        x = jax.nn.relu(layer(x))
    return layers[-1](x)


class Attention(nnx.Module):
    """Multi-head attention with separate projections and additive position encodings of the keys.

    Raises:
        ValueError: the heads do not divide the width.

    Source: torch.nn.MultiheadAttention. Its fused (3d, d) projection is initialised Xavier-uniform
        as one matrix, hence the bound sqrt(6 / 4d) instead of sqrt(6 / 2d).
    """

    def __init__(self, dim: int, heads: int, *, rngs: nnx.Rngs):
        if dim % heads:
            raise ValueError(f"Attention: width {dim} is not divisible by {heads} heads.")
        fused = uniform(math.sqrt(6 / (4 * dim)))
        self.query = Linear(dim, dim, kernel_init=fused, rngs=rngs)
        self.key = Linear(dim, dim, kernel_init=fused, rngs=rngs)
        self.value = Linear(dim, dim, kernel_init=fused, rngs=rngs)
        self.out = Linear(dim, dim, rngs=rngs)
        self.heads = heads

    def __call__(
        self,
        queries: Float[Array, "b q d"],
        memory: Float[Array, "b s d"],
        position: Float[Array, "s d"] | Float[Array, "b s d"] | None = None,
        mask: Bool[Array, "#b q s"] | None = None,
    ) -> Float[Array, "b q d"]:
        """Attends from `queries` to `memory`.

        Args:
            queries: content plus position encoding.
            memory: content, from which values and keys are projected.
            position: encoding added to the input of the keys, shared or of each image; None: no
                encoding.
            mask: True where a query may attend, the same for all heads. A row without any True
                attends everywhere.
        """
        split = (*memory.shape[:2], self.heads, -1)
        query = self.query(queries).reshape(*queries.shape[:2], self.heads, -1)
        keyed = memory
        if position is not None:
            keyed = memory + (position if position.ndim == memory.ndim else position[None])
        key = self.key(keyed).reshape(split)
        value = self.value(memory).reshape(split)
        return self.out(attend(query, key, value, mask).reshape(queries.shape))


def stack_blocks(make: Callable[[nnx.Rngs], nnx.Module], n: int, rngs: nnx.Rngs) -> nnx.Module:
    """One module whose parameters have a leading axis over `n` blocks, each with its own values.

    The values are those of `n` consecutive calls of `make`. It is called twice, the second time
    vectorised over the blocks: tracing forty blocks one by one takes seconds.

    Args:
        make: builds one block.
        n: number of blocks.
        rngs: source of the keys, left as after `n` calls.
    """
    if isinstance(rngs, HostKeys):
        return make(rngs.stack(n))
    stream = rngs.params
    start = stream.count[...]
    graphdef, _ = nnx.split(make(rngs))
    each = stream.count[...] - start  # keys per block

    def draw(i: Array):
        own = Keys(stream.key[...])
        own.params.count[...] = start + i * each
        return nnx.state(make(own))

    state = jax.vmap(draw)(jnp.arange(n, dtype=jnp.uint32))
    stream.count[...] = start + n * each
    return nnx.merge(graphdef, state)


def scan_blocks(
    blocks: nnx.Module, x: Array, *consts, each: Sequence[Array] = (), remat: bool = False
) -> Array:
    """Applies the blocks of a stack in order: `x = block(x, *consts, *own)`.

    Args:
        blocks: a stack made by `stack_blocks`.
        x: input of the first block.
        consts: arguments shared by all blocks.
        each: arrays with a leading axis over blocks; `own` are their slices for one block.
        remat: for the gradient keep the inputs of the blocks alone and compute the rest again.
    """
    graphdef, state = nnx.split(blocks)

    def body(x, xs):
        state, own = xs
        return nnx.merge(graphdef, state)(x, *consts, *own), None

    if remat:
        # inside of a scan nothing can merge what is computed twice
        body = jax.checkpoint(body, prevent_cse=False)
    return jax.lax.scan(body, x, (state, tuple(each)))[0]

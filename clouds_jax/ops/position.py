"""Sine position encodings of Mask2Former's pixel and transformer decoders."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from clouds_jax.ops import extents
from clouds_jax.ops.extents import Extent

_TEMPERATURE = 10_000.0


@functools.lru_cache(maxsize=16)
def sine_position(
    size: tuple[int, int], dim: int, temperature: float = _TEMPERATURE
) -> Float[np.ndarray, "h w d"]:
    """Encodings of the pixels of a map: y in the first half of the channels, x in the second.

    Within a half, channels 2i and 2i + 1 hold sine and cosine of one frequency.

    Args:
        size: (h, w) of the map.
        dim: channels of the encoding, d; a multiple of 4.
        temperature: ratio of the largest to the smallest wavelength.

    Returns:
        A float32 constant, read-only because callers share it.

    Raises:
        ValueError: dim is not a multiple of 4.

    Source: PositionEmbeddingSine(normalize=True) of Mask2Former.
    """
    wavelength = _wavelengths(dim, temperature)
    half = dim // 2

    def codes(n: int) -> np.ndarray:
        at = np.arange(1, n + 1) / (n + 1e-6) * (2 * np.pi)
        angle = at[:, None] / wavelength[None, :]
        return np.where(np.arange(half)[None, :] % 2 == 0, np.sin(angle), np.cos(angle))

    h, w = size
    y = np.broadcast_to(codes(h)[:, None, :], (h, w, half))
    x = np.broadcast_to(codes(w)[None, :, :], (h, w, half))
    out = np.concatenate([y, x], axis=-1).astype(np.float32)
    out.setflags(write=False)
    return out


def sine_position_within(
    extent: Extent, shape: tuple[int, int], dim: int
) -> Float[Array, "b h w d"]:
    """`sine_position` of each image of a padded batch, which ends where the image does.

    Args:
        extent: sizes of the images.
        shape: (h, w) of the map; what is beyond an image means nothing.
        dim: channels of the encoding, d; a multiple of 4.

    Raises:
        ValueError: dim is not a multiple of 4.
    """
    wavelength = jnp.asarray(_wavelengths(dim, _TEMPERATURE), jnp.float32)[None, None]
    half = dim // 2
    sine = (np.arange(half) % 2 == 0)[None, None]

    def codes(n: int, count: Int[Array, " b"]) -> Float[Array, "b n c"]:
        step = 2 * np.pi / (count.astype(jnp.float32) + 1e-6)
        at = jnp.arange(1, n + 1, dtype=jnp.float32)[None] * step[:, None]
        angle = at[..., None] / wavelength
        return jnp.where(sine, jnp.sin(angle), jnp.cos(angle))

    h, w = shape
    size = extents.size_on(extent, shape)
    b = size.shape[0]
    y = jnp.broadcast_to(codes(h, size[:, 0])[:, :, None], (b, h, w, half))
    x = jnp.broadcast_to(codes(w, size[:, 1])[:, None], (b, h, w, half))
    return jnp.concatenate([y, x], axis=-1)


def _wavelengths(dim: int, temperature: float) -> Float[np.ndarray, " half"]:
    """Of the channels of one half, in units of the map's length over 2 pi."""
    if dim % 4:
        raise ValueError(f"sine_position needs dim to be a multiple of 4, got {dim}.")
    half = dim // 2
    return temperature ** (2 * (np.arange(half) // 2) / half)

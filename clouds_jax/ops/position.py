"""Sine position encodings of Mask2Former's pixel and transformer decoders."""

import functools

import numpy as np
from jaxtyping import Float


@functools.lru_cache(maxsize=16)
def sine_position(
    size: tuple[int, int], dim: int, temperature: float = 10_000.0
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
    if dim % 4:
        raise ValueError(f"sine_position needs dim to be a multiple of 4, got {dim}.")
    half = dim // 2
    wavelength = temperature ** (2 * (np.arange(half) // 2) / half)

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

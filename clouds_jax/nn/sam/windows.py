"""Square windows of maps, inside which SAM's image encoders attend."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def split_windows(x: Float[Array, "b h w c"], window: int) -> Float[Array, "n s s c"]:
    """Cuts maps into windows, row by row; zeros pad the last ones, and are attended to.

    Args:
        x: maps.
        window: side s of a window, in positions.

    Returns:
        The windows of all maps, n = b * rows * columns of windows.
    """
    b, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (0, -h % window), (0, -w % window), (0, 0)))
    x = x.reshape(b, x.shape[1] // window, window, x.shape[2] // window, window, c)
    return x.swapaxes(2, 3).reshape(-1, window, window, c)


def join_windows(
    windows: Float[Array, "n s s c"], shape: tuple[int, ...]
) -> Float[Array, "b h w c"]:
    """The inverse of `split_windows`, for maps of this shape (b, h, w, c)."""
    b, h, w, c = shape
    window = windows.shape[1]
    down, across = -(-h // window), -(-w // window)
    x = windows.reshape(b, down, across, window, window, c).swapaxes(2, 3)
    return x.reshape(b, down * window, across * window, c)[:, :h, :w]

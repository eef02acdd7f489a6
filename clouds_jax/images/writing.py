"""Writes pictures and arrays, whole or not at all; resizes pictures."""

import pathlib
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from clouds_jax.files import written_whole


def write_png(path: pathlib.Path, picture: UInt8[np.ndarray, "h w *c"]) -> None:
    """Writes a picture ("h w 3") or a label map ("h w")."""
    with written_whole(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def write_npz(path: pathlib.Path, **arrays: Any) -> None:
    """Writes named arrays, or what NumPy makes arrays of, compressed."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def resize(
    picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """`picture` at `size` = (h, w), bilinear with antialiasing."""
    if picture.shape[:2] == tuple(size):
        return picture
    return np.asarray(
        Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    )

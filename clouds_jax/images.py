"""Image files as people have them, read as RGB and written whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8
from numpy.typing import ArrayLike
from PIL import Image, UnidentifiedImageError

from clouds_jax.data import convert

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


def read_image(path: pathlib.Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image file as RGB, 0..255, upright, exactly as the shards' build reads it."""
    try:
        return convert.read_image(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist.") from None
    except convert.BadSource:
        raise
    except Exception as error:  # decoders raise many kinds
        raise ValueError(
            f"{path} is no image that can be read ({error}); known are "
            f"{', '.join(s[1:] for s in SUFFIXES)}. Is the file complete?"
        ) from None


def read_label(path: pathlib.Path) -> UInt8[np.ndarray, "h w"]:
    """A PNG of train ids: one channel of 8 bits, or a palette whose indices are the ids."""
    try:
        with Image.open(path) as file:
            if file.mode not in ("L", "P"):
                raise ValueError(
                    f"{path} has mode {file.mode}; a label map has one channel of 8 bits "
                    "(mode L or P) with train ids. Is this the coloured picture of a label?"
                )
            return np.asarray(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist.") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} is no label map that can be read ({error}).") from None


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary file that takes the name `path` when all of it was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_png(path: pathlib.Path, picture: UInt8[np.ndarray, "h w *c"]) -> None:
    """Writes a picture ("h w 3") or a label map ("h w")."""
    with written_whole(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def write_npz(path: pathlib.Path, **arrays: ArrayLike) -> None:
    """Writes named arrays, compressed."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def find_images(folder: pathlib.Path) -> list[pathlib.Path]:
    """The image files below a folder, by name; hidden ones left out."""
    found = sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    )
    if not found:
        raise FileNotFoundError(
            f"{folder} has no images; looked for {', '.join(s[1:] for s in SUFFIXES)}."
        )
    return found


def resize(
    picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """`picture` at `size` = (h, w), smooth."""
    if picture.shape[:2] == tuple(size):
        return picture
    return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR))

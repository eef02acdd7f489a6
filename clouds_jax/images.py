"""Image files: read as 8-bit RGB, written whole or not at all."""

import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from clouds_jax.files import written_whole

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


class BadImage(ValueError):
    """An image that cannot become 8-bit RGB; the message names it and the reason."""


def read_image(path: pathlib.Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image file as 8-bit RGB, turned upright as its EXIF says; what `data.build` stores.

    Grey becomes RGB, transparency is dropped, 16 bits keep their upper 8.

    Raises:
        FileNotFoundError: there is no such file.
        BadImage: no decoder reads it, or its pixels have no known range.
    """
    try:
        with Image.open(path) as file:
            return rgb(file, str(path))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist.") from None
    except BadImage:
        raise
    except Exception as error:  # decoders raise many kinds
        raise BadImage(
            f"{path} is no image that can be read ({error}); known are "
            f"{', '.join(s[1:] for s in SUFFIXES)}. Is the file complete?"
        ) from None


def as_rgb(
    image: str | os.PathLike | Image.Image | UInt8[np.ndarray, "h w *c"],
) -> UInt8[np.ndarray, "h w 3"]:
    """An image file, PIL image or array as 8-bit RGB.

    Args:
        image: path, PIL image, or uint8 array [h, w], [h, w, 3] or [h, w, 4].

    Raises:
        FileNotFoundError: there is no such file.
        BadImage: the file or the array is no such image.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(pathlib.Path(image))
    if isinstance(image, Image.Image):
        return rgb(image, "the PIL image")
    array = np.asarray(image)
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or array.shape[2:] not in ((), (3,), (4,))
    ):
        raise BadImage(
            f"the image is an array {array.shape} of {array.dtype}; allowed are uint8 arrays"
            " [h, w], [h, w, 3] (RGB, 0..255) and [h, w, 4]."
        )
    return np.repeat(array[..., None], 3, axis=-1) if array.ndim == 2 else array[..., :3]


def rgb(file: Image.Image, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """A PIL image as 8-bit RGB, turned upright as its EXIF says; errors call it `name`."""
    image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # one channel of 16 bits, or of 16 kept in 32
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode == "F":
        raise BadImage(f"{name} holds float pixels, whose range is unknown; save it as PNG.")
    return np.array(image.convert("RGB"))


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


def write_png(path: pathlib.Path, picture: UInt8[np.ndarray, "h w *c"]) -> None:
    """Writes a picture ("h w 3") or a label map ("h w")."""
    with written_whole(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


def write_npz(path: pathlib.Path, **arrays: Any) -> None:
    """Writes named arrays, or what NumPy makes arrays of, compressed."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def find_images(folder: pathlib.Path) -> list[pathlib.Path]:
    """The image files below a folder, by name; hidden ones left out."""
    paths = sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    )
    if not paths:
        raise FileNotFoundError(
            f"{folder} has no images; looked for {', '.join(s[1:] for s in SUFFIXES)}."
        )
    return paths


def resize(
    picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """`picture` at `size` = (h, w), bilinear with antialiasing."""
    if picture.shape[:2] == tuple(size):
        return picture
    return np.asarray(
        Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    )

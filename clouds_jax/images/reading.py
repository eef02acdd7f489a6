"""Reads image files, PIL images and arrays as 8-bit RGB, and label maps as ids."""

import os
import pathlib

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from clouds_jax.images.listing import SUFFIXES, is_dangling

_DEPTHS = (8, 10, 12, 14, 16)  # bits of the sensors whose values 16-bit files hold
_UPRIGHT = 1  # EXIF orientation of a picture that is stored as it is seen


class BadImage(ValueError):
    """An image that cannot become 8-bit RGB; the message names it and the reason."""


def read_image(path: pathlib.Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image file as 8-bit RGB, turned upright as its EXIF says; what `data.build` stores.

    Grey becomes RGB, transparency is dropped. Of 16-bit files the upper 8 bits are kept, counted
    from the smallest of 8, 10, 12, 14 and 16 bits that holds the largest value.

    Raises:
        FileNotFoundError: there is no such file.
        BadImage: no decoder reads it, or its pixels have no known range.
    """
    return read_upright(path)[0]


def read_upright(path: pathlib.Path) -> tuple[UInt8[np.ndarray, "h w 3"], int]:
    """An image file as `read_image` gives it, and its EXIF orientation, 1 (as stored) to 8."""
    try:
        with Image.open(path) as file:
            # Both before the pixels are read, with which PIL forgets them: it turns TIFFs then.
            is_deep, orientation = _has_16_bit_colours(file), _orientation(file)
            if is_deep:
                return turned(_rgb_of_16_bits(path), orientation), orientation
            return rgb(file, str(path)), orientation
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} {_absence(path)}.") from None
    except IsADirectoryError:
        raise BadImage(f"{path} is a folder; an image file is expected.") from None
    except BadImage:
        raise
    except Exception as error:  # decoders raise many kinds
        raise BadImage(
            f"{path} is no image that can be read ({error}); known are "
            f"{', '.join(s[1:] for s in SUFFIXES)}. Is the file complete?"
        ) from None


def _absence(path: pathlib.Path) -> str:
    if is_dangling(path):
        return f"is a link to {os.readlink(path)}, which does not exist"
    return "does not exist"


def _has_16_bit_colours(file: Image.Image) -> bool:
    # PIL keeps the upper byte of such files, whatever the range of their values.
    tile = getattr(file, "tile", None)
    return bool(tile) and file.mode in ("RGB", "RGBA") and ";16" in str(tile[0])


def _rgb_of_16_bits(path: pathlib.Path) -> UInt8[np.ndarray, "h w 3"]:
    import cv2  # slow to import, and few files need it

    data = np.frombuffer(path.read_bytes(), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)  # not turned, in the order BGR
    if picture is None:
        raise BadImage(f"{path} is no image that can be read. Is the file complete?")
    return _upper_8_bits(picture[..., 2::-1], str(path))


def _upper_8_bits(values: Integer[np.ndarray, "..."], name: str) -> UInt8[np.ndarray, "..."]:
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest >= 1 << _DEPTHS[-1]:
        raise BadImage(
            f"{name} has values from {lowest} to {highest}; allowed are 0 to 65535. Is it an image?"
        )
    bits = next(bits for bits in _DEPTHS if highest < 1 << bits)
    return (values.astype(np.uint32) >> (bits - 8)).astype(np.uint8)


def _orientation(file: Image.Image) -> int:
    value = file.getexif().get(ExifTags.Base.Orientation, _UPRIGHT)
    return value if value in range(1, 9) else _UPRIGHT


def turned(picture: UInt8[np.ndarray, "h w *c"], orientation: int) -> UInt8[np.ndarray, "h2 w2 *c"]:
    """A picture as stored, turned and mirrored upright by its EXIF orientation."""
    if orientation >= 5:  # rows and columns are exchanged
        picture = picture.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)


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
        grey = _upper_8_bits(np.asarray(image), name)
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
        raise FileNotFoundError(f"{path} {_absence(path)}.") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; a label file is expected.") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} is no label map that can be read ({error}).") from None

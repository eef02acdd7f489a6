"""Codecs of the images in records.

A loader needs them lossless and fast to decode: a 1914x1052 frame takes 5 ms with zstd, 40 to 50
with PNG.
"""

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
import zstandard
from jaxtyping import UInt8

# Level 3 decodes a 2-megapixel frame in 5 ms; higher levels cost build time and save little.
_ZSTD_LEVEL = 3
_JPEG_QUALITY = 95

Image = UInt8[np.ndarray, "h w 3"]


def compress(data: bytes) -> bytes:
    """zstd at the level of this project."""
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(data)


def decompress(data: bytes) -> UInt8[np.ndarray, " n"]:
    """The bytes before `compress`, as a read-only array."""
    return np.frombuffer(zstandard.ZstdDecompressor().decompress(data), np.uint8)


def _encode_delta(image: Image) -> bytes:
    return compress(np.diff(image, axis=1, prepend=np.uint8(0)).tobytes())


def _decode_delta(data: bytes, size: tuple[int, int]) -> Image:
    return np.cumsum(decompress(data).reshape(*size, 3), axis=1, dtype=np.uint8)


def _encode_jpeg(image: Image) -> bytes:
    options = (
        cv2.IMWRITE_JPEG_QUALITY,
        _JPEG_QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    )
    return cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()


def _decode_jpeg(data: bytes, size: tuple[int, int]) -> Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None or image.shape[:2] != size:
        raise ValueError("the JPEG in this record is damaged.")
    return image.astype(np.uint8, copy=False)


@dataclasses.dataclass(frozen=True)
class Codec:
    """A way to store an image.

    Attributes:
        encode: image -> bytes.
        decode: bytes and (h, w) -> image.
        about: one line for help texts.
    """

    encode: Callable[[Image], bytes]
    decode: Callable[[bytes, tuple[int, int]], Image]
    about: str


CODECS: dict[str, Codec] = {
    "zstd": Codec(
        lambda image: compress(image.tobytes()),
        lambda data, size: decompress(data).reshape(*size, 3),
        "lossless, fastest to read",
    ),
    "zstd_delta": Codec(
        _encode_delta, _decode_delta, "lossless, differences along rows: smaller, slower to read"
    ),
    "jpeg95": Codec(_encode_jpeg, _decode_jpeg, "LOSSY, a fifth of the size"),
}


def get_codec(name: str) -> Codec:
    """The codec of that name."""
    if name not in CODECS:
        raise KeyError(f"CODECS has no {name!r}; it has: {', '.join(CODECS)}.")
    return CODECS[name]

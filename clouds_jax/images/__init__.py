"""Image files: found below folders, read as 8-bit RGB, written whole or not at all."""

from clouds_jax.images.listing import (
    SUFFIXES,
    Listing,
    entries,
    find_images,
    is_dangling,
    list_images,
    unicode_name,
    walk,
)
from clouds_jax.images.reading import (
    BadImage,
    as_rgb,
    read_image,
    read_label,
    read_upright,
    turned,
)
from clouds_jax.images.writing import resize, write_npz, write_png

__all__ = [
    "SUFFIXES",
    "BadImage",
    "Listing",
    "as_rgb",
    "entries",
    "find_images",
    "is_dangling",
    "list_images",
    "read_image",
    "read_label",
    "read_upright",
    "resize",
    "turned",
    "unicode_name",
    "walk",
    "write_npz",
    "write_png",
]

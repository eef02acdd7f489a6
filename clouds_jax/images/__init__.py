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
    exif_orientation,
    read_image,
    read_label,
    turned,
)
from clouds_jax.images.writing import resize, write_npz, write_png

__all__ = [
    "SUFFIXES",
    "BadImage",
    "Listing",
    "as_rgb",
    "entries",
    "exif_orientation",
    "find_images",
    "is_dangling",
    "list_images",
    "read_image",
    "read_label",
    "resize",
    "turned",
    "unicode_name",
    "walk",
    "write_npz",
    "write_png",
]

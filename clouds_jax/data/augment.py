"""Augmentation of labelled source images: scale, crop, colour, flip.

numpy, PIL and OpenCV on the host. Every draw comes from the caller's `numpy.random.Generator`, so
an augmented example is a function of (example, generator state).

Source: CLOUDS' mapper_train.py, which uses Detectron2's ResizeScale, FixedSizeCrop and
RandomFlip and Mask2Former's ColorAugSSDTransform.
"""

import dataclasses

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from clouds_jax.constants import IGNORE

CROP_OFFSETS = ("diagonal", "independent")

_BRIGHTNESS = 32.0  # grey levels either way
_CONTRAST = _SATURATION = (0.5, 1.5)
_LEVELS = np.arange(256, dtype=np.uint8)
_HUE = 18  # OpenCV's half degrees either way; the circle has 180

Picture = UInt8[np.ndarray, "h w 3"]
Label = UInt8[np.ndarray, "h w"]
View = tuple[UInt8[np.ndarray, "h2 w2 3"], UInt8[np.ndarray, "h2 w2"]]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Settings of the augmentation of one dataset.

    Attributes:
        crop: (h, w) of the result.
        scale: (lo, hi) of the random factor on the jitter size; (1, 1) keeps the size.
        jitter_size: (h, w) that factor 1 stands for; None: that of the dataset or the image.
        flip: probability of mirroring.
        colour: whether to jitter colours.
        crop_offsets: "diagonal" (one random number places the crop along both axes, as the
            original does) or "independent".
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    jitter_size: tuple[int, int] | None = None
    flip: float = 0.5
    colour: bool = True
    crop_offsets: str = "diagonal"

    def __post_init__(self):
        if min(self.crop) < 1:
            raise ValueError(f"crop {self.crop}: both sides must be at least 1 pixel.")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale}: it must be (lo, hi) with 0 < lo <= hi.")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip {self.flip}: it is a probability, 0 to 1.")
        if self.crop_offsets not in CROP_OFFSETS:
            raise ValueError(
                f"crop_offsets {self.crop_offsets!r} is unknown; allowed: "
                f"{', '.join(CROP_OFFSETS)}."
            )


def augment(image: Picture, label: Label, rng: np.random.Generator, settings: Augmentation) -> View:
    """One random view of an example: scaled, cropped and padded, colour-jittered, flipped.

    Args:
        image: RGB.
        label: train ids.
        rng: source of all draws.
        settings: size of the result, ranges and probabilities.

    Returns:
        Image and label of size `settings.crop`. Where the scaled image is smaller, the right and
        the bottom are padded: black, and ignore.
    """
    size = image.shape[0], image.shape[1]
    factor = rng.uniform(*settings.scale)
    scaled = scaled_size(size, settings.jitter_size or size, factor)
    u = rng.uniform(size=2)
    if settings.crop_offsets == "diagonal":
        u[1] = u[0]
    offset = crop_offset(scaled, settings.crop, (u[0], u[1]))
    image, label = resize_crop(image, label, scaled, offset, settings.crop)
    if settings.colour:
        image = jitter_colour(image, rng)
    if rng.random() < settings.flip:
        image, label = image[:, ::-1], label[:, ::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


def scaled_size(size: tuple[int, int], base: tuple[int, int], factor: float) -> tuple[int, int]:
    """The size (h, w) of an image scaled, aspect kept, to fit into `factor * base`.

    Source: detectron2.data.transforms.ResizeScale, whose rounding is that of numpy.round.
    """
    ratio = min(base[0] * factor / size[0], base[1] * factor / size[1])
    return max(1, int(np.round(size[0] * ratio))), max(1, int(np.round(size[1] * ratio)))


def crop_offset(
    size: tuple[int, int], crop: tuple[int, int], u: tuple[float, float]
) -> tuple[int, int]:
    """Top-left corner (y, x) of the crop, for `u` in [0, 1] per axis.

    Source: detectron2.data.transforms.FixedSizeCrop, which draws one u for both axes.
    """
    y, x = (int(np.round(max(n - c, 0) * v)) for n, c, v in zip(size, crop, u, strict=True))
    return y, x


def resize_crop(
    image: Picture,
    label: Label,
    size: tuple[int, int],
    offset: tuple[int, int],
    crop: tuple[int, int],
) -> View:
    """Resizes to `size`, crops at `offset`, pads to `crop`, computing only what is kept.

    The image is bilinear with PIL's antialiasing: its `box` uses the pixels around the crop as the
    resize of the whole image does, and the two agree within one grey level (two, in one of 50,000
    pixels of noise, where both passes round apart). The label is nearest by index: PIL's own box
    takes other pixels there than its resize of the whole.

    Args:
        image: RGB.
        label: train ids.
        size: (h, w) of the whole resized image.
        offset: (y, x) of the crop in the resized image.
        crop: (h, w) of the result.
    """
    rows, (top, bottom), h = _window(image.shape[0], size[0], offset[0], crop[0])
    columns, (left, right), w = _window(image.shape[1], size[1], offset[1], crop[1])
    out_image = np.zeros((*crop, 3), np.uint8)
    out_label = np.full(crop, IGNORE, np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(image))
    box = (left, top, right, bottom)
    resized = picture.resize((w, h), Image.Resampling.BILINEAR, box=box)
    out_image[:h, :w] = np.asarray(resized)
    out_label[:h, :w] = label[rows][:, columns]
    return out_image, out_label


def _window(
    source: int, size: int, offset: int, crop: int
) -> tuple[np.ndarray, tuple[float, float], int]:
    """Along one axis: source indices of the label, source interval of the image, length."""
    step = source / size  # source pixels per resized pixel
    length = min(crop, size - offset)
    centres = (np.arange(offset, offset + length) + 0.5) * step
    indices = np.minimum(centres.astype(np.int64), source - 1)
    # Rounding may carry the end beyond the image, which PIL refuses.
    return indices, (offset * step, min((offset + length) * step, float(source))), length


def jitter_colour(image: Picture, rng: np.random.Generator) -> Picture:
    """Random brightness, contrast, saturation and hue, each in every second image.

    Contrast comes before or after the other two, with equal chance. After every step values are
    clipped and truncated to whole numbers, the black padding included, as in the original.

    Source: Mask2Former's ColorAugSSDTransform (SSD's photometric distortion). It swaps RGB to BGR
    first, which changes nothing here: OpenCV's RGB2HSV of RGB equals its BGR2HSV of BGR.
    """

    def chance() -> bool:
        return bool(rng.random() < 0.5)

    if chance():
        image = cv2.LUT(image, _levels(1.0, rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)))
    contrast_first = chance()
    if contrast_first and chance():
        image = cv2.LUT(image, _levels(rng.uniform(*_CONTRAST), 0.0))
    if chance():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        saturation = _levels(rng.uniform(*_SATURATION), 0.0)
        hsv = cv2.LUT(hsv, np.stack([_LEVELS, saturation, _LEVELS], axis=-1)[None])
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if chance():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        shift = int(rng.integers(-_HUE, _HUE, endpoint=True))
        hue = ((np.arange(256) + shift) % 180).astype(np.uint8)
        hsv = cv2.LUT(hsv, np.stack([hue, _LEVELS, _LEVELS], axis=-1)[None])
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if not contrast_first and chance():
        image = cv2.LUT(image, _levels(rng.uniform(*_CONTRAST), 0.0))
    return image


def _levels(factor: float, shift: float) -> UInt8[np.ndarray, "256"]:
    """Table of value * factor + shift for each grey level: in float32, clipped, truncated."""
    levels = _LEVELS.astype(np.float32) * np.float32(factor) + np.float32(shift)
    return np.clip(levels, 0, 255).astype(np.uint8)

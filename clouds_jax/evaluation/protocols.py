"""Evaluation protocols: how an image is prepared and at which size its prediction is scored.

    clouds   short side 1024, long side as it falls; the label is resized too and scored there
    native   the image as it is; scored at the label's own size
    slide    overlapping windows whose scores are averaged; scored at the label's own size

Padding to a multiple of 32 is the model's own affair and never scored. A model that knows the sizes
of the images in a padded batch scores images of many sizes with few programs, see `bucket`.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Hashable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image

from clouds_jax.ops.extents import STRIDE
from clouds_jax.ops.resize import resize_bilinear, resize_parts

Size = tuple[int, int]

_FORMATS = ((1, 1), (5, 4), (4, 3), (3, 2), (5, 3), (16, 9), (2, 1))  # of cameras: long, short side


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One way to predict and score. Sizes are (h, w) in pixels.

    Attributes:
        name: name in reports.
        short_side: length of the image's short side after resizing; None: see `size`.
        size: size of the image after resizing, not together with `short_side`; None: its own.
        scored: "input" scores at the resized image's size with a label resized likewise,
            "native" brings the scores back to the size of the label (or of the image file).
        window: size of the sliding window; None predicts the whole image at once.
        stride: (down, right) between windows.
    """

    name: str
    short_side: int | None = None
    size: Size | None = None
    scored: Literal["input", "native"] = "native"
    window: Size | None = None
    stride: Size | None = None

    def __post_init__(self):
        if self.short_side and self.size:
            raise ValueError(
                f"protocol {self.name}: short_side {self.short_side} and size {self.size} exclude "
                "each other; set one."
            )
        if bool(self.window) != bool(self.stride):
            raise ValueError(
                f"protocol {self.name}: window {self.window} and stride {self.stride} belong "
                "together; set both or none."
            )
        if (
            self.window
            and self.stride
            and any(s > w for s, w in zip(self.stride, self.window, strict=True))
        ):
            raise ValueError(
                f"protocol {self.name}: stride {self.stride} is larger than window {self.window}; "
                "pixels between the windows would have no prediction."
            )


@typing.runtime_checkable
class Segmenter(typing.Protocol):
    """A model that scores every class at every pixel, such as `nn.clouds.Clouds`."""

    def scores(self, images: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w k"]:
        """Class scores of RGB images 0..255."""
        ...


@typing.runtime_checkable
class PaddedSegmenter(typing.Protocol):
    """A model that also scores padded images, each as if it were alone."""

    def padded_scores(
        self, images: UInt8[Array, "b h w 3"], sizes: Int[Array, "b 2"]
    ) -> Float[Array, "b h w k"]:
        """Class scores of RGB images 0..255 in the top left corners, each of its own (h, w)."""
        ...


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        # Source: CLOUDS, mapper_test.py: ResizeShortestEdge(1024) without a maximum; the output
        # size asked for is the resized one.
        Protocol("clouds", short_side=1024, scored="input"),
        Protocol("native"),
        # Source: the sliding test of mmsegmentation's Cityscapes configs for crops of 512.
        Protocol("slide", window=(512, 512), stride=(341, 341)),
    )
}


def get_protocol(name: str, **changes) -> Protocol:
    """The protocol of that name, with some of its attributes replaced."""
    if name not in PROTOCOLS:
        raise KeyError(f"PROTOCOLS has no {name!r}; it has: {', '.join(PROTOCOLS)}.")
    return dataclasses.replace(PROTOCOLS[name], **changes)


def input_size(size: Size, protocol: Protocol) -> Size:
    """The size at which an image of `size` is given to the model."""
    if protocol.size:
        return protocol.size
    if not protocol.short_side:
        return size
    h, w = size
    scale = protocol.short_side / min(h, w)
    # Source: detectron2's ResizeShortestEdge: the short side exact, the long one rounded half up.
    if h <= w:
        return protocol.short_side, int(w * scale + 0.5)
    return int(h * scale + 0.5), protocol.short_side


def prepare_image(
    image: UInt8[np.ndarray, "h w 3"], protocol: Protocol
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The image at its input size: PIL's bilinear filter, which averages when it shrinks."""
    size = input_size(image.shape[:2], protocol)
    if size == image.shape[:2]:
        return image
    h, w = size
    return np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR))


def prepare_label(
    label: UInt8[np.ndarray, "h w"], protocol: Protocol
) -> UInt8[np.ndarray, "h2 w2"]:
    """The label at the size where it is scored: nearest pixels, ids stay ids."""
    size = label.shape if protocol.scored == "native" else input_size(label.shape, protocol)
    if size == label.shape:
        return label
    h, w = size
    return np.asarray(Image.fromarray(label).resize((w, h), Image.Resampling.NEAREST))


def bucket(size: Size) -> Size:
    """The size to which an image of `size` is padded, so that many sizes share few programs.

    The short side grows to a multiple of 32, above 1024 pixels of 64, above 2048 of 128, and so on;
    the long side to the next format of cameras, beyond 2:1 to an eighth of the short side more.
    Images of these formats get little padding, and no set of images up to 2:1 whose short sides
    are equal needs more than 13 buckets, landscape and portrait.
    """
    short, long = sorted(size)
    step = STRIDE
    while short > 32 * step:
        step *= 2
    short = _round_up(short, step)
    lengths = [_round_up(-(-short * n // d), STRIDE) for n, d in _FORMATS]
    eighths = _round_up(-(-8 * long // short) * short // 8, STRIDE)
    long = next((length for length in lengths if length >= long), eighths)
    return (short, long) if size[0] <= size[1] else (long, short)


def _round_up(side: int, step: int) -> int:
    return -(-side // step) * step


def windows(size: Size, protocol: Protocol) -> tuple[Size, tuple[tuple[int, int], ...]]:
    """The size of the windows over an image of `size`, and their top left corners (y, x).

    The last window of a row or column is moved back to end at the border; a window larger than
    the image shrinks to it. Source: mmsegmentation's slide_inference.
    """
    if protocol.window is None or protocol.stride is None:
        return size, ((0, 0),)
    window = min(protocol.window[0], size[0]), min(protocol.window[1], size[1])

    def starts(length: int, part: int, stride: int) -> list[int]:
        count = -(-(length - part) // stride) + 1
        return [min(i * stride, length - part) for i in range(count)]

    down = starts(size[0], window[0], protocol.stride[0])
    right = starts(size[1], window[1], protocol.stride[1])
    return window, tuple((y, x) for y in down for x in right)


def class_scores(
    model: Segmenter, images: UInt8[Array, "b h w 3"], protocol: Protocol, size: Size
) -> Float[Array, "b h2 w2 k"]:
    """Scores of every class at `size`, for images at their input size. Pure; for use under jit."""
    b, h, w, _ = images.shape
    part, corners = windows((h, w), protocol)
    if len(corners) == 1:
        return resize_bilinear(model.scores(images), size)

    often = np.zeros((h, w, 1), np.float32)  # how many windows see each pixel
    for y, x in corners:
        often[y : y + part[0], x : x + part[1]] += 1

    def add(total: Float[Array, "b h w k"], corner: Array) -> tuple[Array, None]:
        at = (0, corner[0], corner[1], 0)
        scores = model.scores(jax.lax.dynamic_slice(images, at, (b, *part, 3)))
        scores = scores.astype(jnp.float32)
        scores += jax.lax.dynamic_slice(total, at, scores.shape)
        return jax.lax.dynamic_update_slice(total, scores, at), None

    classes = jax.eval_shape(model.scores, images).shape[-1]
    total = jnp.zeros((b, h, w, classes), jnp.float32)
    total, _ = jax.lax.scan(add, total, jnp.asarray(corners, jnp.int32))
    return resize_bilinear(total / often[None], size)


def padded_class_scores(
    model: PaddedSegmenter,
    images: UInt8[Array, "b h w 3"],
    sizes: Int[Array, "b 2"],
    scored: Int[Array, "b 2"] | None,
    size: Size,
) -> Float[Array, "b h2 w2 k"]:
    """`class_scores` of images that are padded to one size. Pure; for use under jit.

    Args:
        model: scores padded images.
        images: at their input sizes, in the top left corners.
        sizes: (h, w) of each image.
        scored: (h, w) at which each image is scored; None: its own.
        size: (h, w) of the result, which beyond the scored size means nothing.
    """
    scores = model.padded_scores(images, sizes)
    return scores if scored is None else resize_parts(scores, sizes, scored, size)


def compiled_per_shape(
    function: Callable, keep: int = 16, jit: Callable[[functools.partial], Callable] = jax.jit
) -> Callable:
    """`function(states, *arrays, **static)`, compiled for each set of shapes and of `static`.

    A data set whose images all differ in size would otherwise keep every compiled program until
    the memory is full: only the `keep` latest stay. `jit` compiles one of them.
    """

    @functools.lru_cache(maxsize=keep)
    def program(*shapes: tuple[int, ...], **static: Hashable) -> Callable:
        del shapes
        # A new function object each time: jit's own cache would outlive this one.
        return jit(functools.partial(function, **static))

    def call(states, *arrays: Array, **static: Hashable):
        return program(*(array.shape for array in arrays), **static)(states, *arrays)

    return call


def parse(name: str, *, size: str = "", window: str = "", stride: str = "") -> Protocol:
    """The protocol of a command line: sizes are texts such as "360x480", or ""."""
    changes: dict[str, Any] = {
        flag: parse_size(text, flag)
        for flag, text in (("size", size), ("window", window), ("stride", stride))
        if text
    }
    if "size" in changes:
        changes |= {"short_side": None, "scored": "native"}
    return get_protocol(name, **changes)


def parse_size(text: str, flag: str) -> Size:
    """(h, w) of "360x480"."""
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) for side in sides):
        raise ValueError(f"--{flag}={text} is no size; write height x width, as in 360x480.")
    return int(sides[0]), int(sides[1])

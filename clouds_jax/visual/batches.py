"""What a person sees of batches: a table, and a picture of images beside their labels."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from clouds_jax.data.classes import LabelSpace

_MOST = 8  # pairs in a panel
_WIDTH = 480  # pixels of one picture in it
_ROW = 20  # pixels of one line of the legend
_MARGIN = 8


def describe(batches: Sequence[Mapping[str, np.ndarray]], space: LabelSpace) -> str:
    """Keys, shapes, ranges of the first batch; class shares over all of them."""
    lines = [f"{'key':<8}{'shape':<22}{'type':<8}{'range':<10}"]
    for name, array in batches[0].items():
        span = f"{array.min()}..{array.max()}"
        lines.append(f"{name:<8}{str(array.shape):<22}{str(array.dtype):<8}{span:<10}")
    labels = np.concatenate([batch["label"].reshape(-1) for batch in batches])
    pixels = np.bincount(labels, minlength=256)
    known = max(int(pixels[: len(space)].sum()), 1)
    images = [label for batch in batches for label in batch["label"]]
    lines += ["", f"{'class':<16}{'share':>9}{'images':>8}   ({len(images)} images)"]
    for i, name in enumerate(space.names):
        holding = sum(bool((label == i).any()) for label in images)
        lines.append(f"{name:<16}{100 * pixels[i] / known:>7.2f} %{holding:>8}")
    lines.append(f"{'(ignored)':<16}{100 * (1 - known / labels.size):>7.2f} %")
    return "\n".join(lines)


def save_panel(
    path: Path,
    images: UInt8[np.ndarray, "b h w 3"],
    labels: UInt8[np.ndarray, "b h w"],
    space: LabelSpace,
) -> None:
    """Writes a PNG: each image, its label in colours (ignore is black), and a legend.

    Args:
        path: file to write.
        images: RGB.
        labels: train ids of `space`.
        space: names and colours.
    """
    h, w = images.shape[1:3]
    size = (_WIDTH, max(1, round(h * _WIDTH / w)))
    palette = space.palette()
    pairs = [
        [
            Image.fromarray(image).resize(size, Image.Resampling.BILINEAR),
            Image.fromarray(palette[label]).resize(size, Image.Resampling.NEAREST),
        ]
        for image, label in zip(images[:_MOST], labels[:_MOST], strict=True)
    ]
    step_x, step_y = size[0] + _MARGIN, size[1] + _MARGIN
    columns = 1 if len(pairs) == 1 else 2
    rows = -(-len(pairs) // columns)
    legend = legend_image(space)
    sheet = Image.new(
        "RGB",
        (
            2 * columns * step_x + legend.width + _MARGIN,
            max(rows * step_y, legend.height) + _MARGIN,
        ),
        "white",
    )
    for index, pair in enumerate(pairs):
        row, column = divmod(index, columns)
        for side, picture in enumerate(pair):
            sheet.paste(picture, (_MARGIN + (2 * column + side) * step_x, _MARGIN + row * step_y))
    sheet.paste(legend, (_MARGIN + 2 * columns * step_x, _MARGIN))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    sheet.save(temporary, format="PNG")
    os.replace(temporary, path)


def legend_image(space: LabelSpace) -> Image.Image:
    """A column of colour patches with the classes' names."""
    entries = [*zip(space.names, space.colours, strict=True), ("(ignored)", (0, 0, 0))]
    legend = Image.new("RGB", (170, _ROW * len(entries)), "white")
    draw = ImageDraw.Draw(legend)
    font = ImageFont.load_default(14)
    for i, (name, colour) in enumerate(entries):
        draw.rectangle((0, i * _ROW + 2, 24, i * _ROW + _ROW - 3), fill=colour, outline="black")
        draw.text((32, i * _ROW + 1), name, fill="black", font=font)
    return legend

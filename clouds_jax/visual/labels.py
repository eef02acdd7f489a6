"""Label maps as pictures: colours, overlays, errors, legends, panels.

All pictures are uint8 RGB; sizes are in pixels. Figures with axes are in `visual.plots`.
"""

import functools
import importlib.util
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from clouds_jax.constants import IGNORE
from clouds_jax.data.classes import LabelSpace

Picture = UInt8[np.ndarray, "h w 3"]
Drawing = UInt8[np.ndarray, "_ _ 3"]  # of any size
Label = UInt8[np.ndarray, "h w"]

IGNORED_COLOUR = (0, 0, 0)
WRONG_COLOUR = (230, 40, 40)
INK = (34, 34, 34)
PALE = (110, 110, 110)
PAPER = (255, 255, 255)


def colourise(label: Label, space: LabelSpace) -> Picture:
    """The colour of each pixel's class; ignored and unknown ids are black."""
    return space.palette()[label]


def boundaries(label: Label, thickness: int = 1) -> Bool[np.ndarray, "h w"]:
    """Pixels that have another class within `thickness` pixels to the right or below."""
    out = np.zeros(label.shape, bool)
    for d in range(1, thickness + 1):
        out[:, :-d] |= label[:, d:] != label[:, :-d]
        out[:-d] |= label[d:] != label[:-d]
    return out


def overlay(image: Picture, label: Label, space: LabelSpace, alpha: float = 0.55) -> Picture:
    """The classes' colours over the image, with a light line where two classes meet.

    Args:
        image: RGB.
        label: train ids; ignored pixels show the image.
        space: colours of the classes.
        alpha: opacity of the colours, 0..1.
    """
    mixed = (1 - alpha) * image + alpha * colourise(label, space)
    mixed = np.where((label == IGNORE)[..., None], image, mixed)
    thickness = max(1, round(min(label.shape) / 360))
    edge = boundaries(label, thickness)[..., None]
    mixed = np.where(edge, 0.35 * mixed + 0.65 * 255, mixed)
    return np.round(mixed).astype(np.uint8)


def error_map(image: Picture, label: Label, predicted: Label) -> Picture:
    """Wrong pixels red over the greyed image; ignored ones dark."""
    grey = 90 + 0.45 * image.mean(-1, keepdims=True).repeat(3, -1)
    out = np.where((label == IGNORE)[..., None], 0.35 * grey, grey)
    wrong = ((label != IGNORE) & (label != predicted))[..., None]
    out = np.where(wrong, 0.2 * grey + 0.8 * np.asarray(WRONG_COLOUR), out)
    return np.round(out).astype(np.uint8)


@functools.cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it, so the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(_matplotlib_folder() / "mpl-data/fonts/ttf" / name, size)


def _matplotlib_folder() -> pathlib.Path:
    """The installed package, found without importing it, which takes long."""
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None and spec.origin is not None
    return pathlib.Path(spec.origin).parent


def shorten(text: str, width: int, face: ImageFont.FreeTypeFont) -> str:
    """`text` with an ellipsis for its middle where it is wider than `width` pixels."""
    if face.getlength(text) <= width:
        return text
    for keep in range(len(text) - 1, 1, -1):
        short = f"{text[: keep // 2]}…{text[len(text) - (keep - keep // 2) :]}"
        if face.getlength(short) <= width:
            return short
    return "…"


def legend(classes: Iterable[int], space: LabelSpace, width: int, size: int = 17) -> Drawing:
    """A strip of colour patches with class names, in as many lines as `width` needs.

    Args:
        classes: ids to list; 255 is listed as "ignored".
        space: names and colours of the classes.
        width: width of the strip.
        size: font size.
    """
    face, patch, gap, margin = font(size), round(1.2 * size), round(0.5 * size), round(0.7 * size)
    line = round(1.9 * size)
    places, x, y = [], margin, margin
    for c in sorted(set(classes)):
        is_class = c < len(space.names)
        name = space.names[c] if is_class else "ignored"
        colour = tuple(space.colours[c]) if is_class else IGNORED_COLOUR
        name = shorten(name, width - 2 * margin - patch - gap, face)
        entry = patch + gap + round(face.getlength(name))
        if x > margin and x + entry > width - margin:
            x, y = margin, y + line
        places.append((x, y, name, colour))
        x += entry + 2 * gap + patch
    strip = Image.new("RGB", (width, y + line + margin // 2), PAPER)
    draw = ImageDraw.Draw(strip)
    for x, y, name, colour in places:
        draw.rectangle((x, y, x + patch, y + patch), fill=colour, outline=PALE)
        draw.text((x + patch + gap, y + patch / 2), name, fill=INK, font=face, anchor="lm")
    return np.asarray(strip)


def with_legend(picture: Drawing, label: Label, space: LabelSpace) -> Drawing:
    """`picture` with a legend of the classes of `label` below it."""
    h, w = picture.shape[:2]
    size = int(np.clip(w / 55, 11, 40))
    present = [c for c in np.unique(label).tolist() if c < len(space.names)]
    return np.concatenate([picture, legend(present, space, w, size)])


def _fit(picture: Drawing, width: int) -> Drawing:
    """`picture` at this width: averaged when it shrinks, nearest when it grows."""
    h, w = picture.shape[:2]
    resampling = Image.Resampling.BOX if w >= width else Image.Resampling.NEAREST
    if w == width:
        return picture
    height = max(1, round(h * width / w))
    return np.asarray(Image.fromarray(picture).resize((width, height), resampling))


def panels(
    rows: Sequence[Sequence[Drawing]],
    *,
    titles: Sequence[str],
    captions: Sequence[str],
    foot: Drawing | None = None,
    width: int = 440,
) -> Drawing:
    """A table of pictures: one title per column, one caption under each row.

    Args:
        rows: pictures of any size, one per column.
        titles: titles of the columns.
        captions: captions of the rows.
        foot: strip below the table, such as a legend, of the width `panels_width`; None: no strip.
        width: width of one column.
    """
    gap, head, caption = 8, 40, 34
    total = panels_width(len(titles), width)
    rows = [[_fit(p, width) for p in row] for row in rows]
    heights = [max(p.shape[0] for p in row) for row in rows]
    height = head + sum(heights) + len(rows) * caption + gap
    canvas = Image.new("RGB", (total, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    left = [gap + i * (width + gap) for i in range(len(titles))]
    for x, title in zip(left, titles, strict=True):
        draw.text((x, head / 2), title, fill=INK, font=font(22, bold=True), anchor="lm")
    y = head
    for row, row_height, text in zip(rows, heights, captions, strict=True):
        for x, picture in zip(left, row, strict=True):
            canvas.paste(Image.fromarray(picture), (x, y))
        text = shorten(text, total - 2 * gap, font(17))
        middle = y + row_height + caption / 2 - 2
        draw.text((gap, middle), text, fill=PALE, font=font(17), anchor="lm")
        y += row_height + caption
    table = np.asarray(canvas)
    return table if foot is None else np.concatenate([table, foot])


def panels_width(columns: int, width: int = 440) -> int:
    """Width of a table of `columns` pictures, and of its legend."""
    return 8 + columns * (width + 8)


def label_panels(
    examples: Sequence[tuple[str, Drawing, Label]], space: LabelSpace, *, width: int = 440
) -> Drawing:
    """Image, label and overlay of some examples, one per row, with a legend.

    Args:
        examples: (caption, image, label) of each row.
        space: names and colours of the classes.
        width: width of one column.
    """
    rows = [[x, colourise(y, space), overlay(x, y, space)] for _, x, y in examples]
    present = np.unique(np.concatenate([np.unique(y) for *_, y in examples])).tolist()
    return panels(
        rows,
        titles=["image", "label", "label over image"],
        captions=[caption for caption, *_ in examples],
        foot=legend(present, space, panels_width(3, width)),
        width=width,
    )

"""A contact sheet: images of a set with their prompts."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clouds_jax.data.records import Example
from clouds_jax.visual.labels import INK, PALE, PAPER, Drawing, font, shorten

_COLUMNS, _WIDTH, _GAP = 6, 300, 12
_LETTERS, _LINES = 15, 4
_LINE = round(1.35 * _LETTERS)


def draw(examples: Sequence[Example]) -> Drawing:
    """Draws the images in a grid, each above its prompt or file name."""
    face = font(_LETTERS)
    columns = min(_COLUMNS, len(examples))
    tiles = [_tile(example, face) for example in examples]
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    tall = [max(tile.height for tile in row) for row in rows]
    size = columns * (_WIDTH + _GAP) + _GAP, sum(tall) + _GAP * (len(rows) + 1)
    sheet = Image.new("RGB", size, PAPER)
    y = _GAP
    for row, height in zip(rows, tall, strict=True):
        for i, tile in enumerate(row):
            sheet.paste(tile, (_GAP + i * (_WIDTH + _GAP), y))
        y += height + _GAP
    return np.asarray(sheet)


def wrap(text: str, width: int, face: ImageFont.FreeTypeFont, lines: int) -> list[str]:
    """Wraps text into at most `lines` lines of `width` pixels; longer text ends with "…"."""
    out: list[str] = []
    for word in text.split():
        longer = f"{out[-1]} {word}" if out else word
        if out and face.getlength(longer) <= width:
            out[-1] = longer
        else:
            out.append(shorten(word, width, face))
    if len(out) > lines:
        rest = " ".join(out[lines - 1 :])
        while rest and face.getlength(f"{rest}…") > width:
            rest = rest[:-1]
        out = [*out[: lines - 1], f"{rest.rstrip()}…"]
    return out


def _tile(example: Example, face: ImageFont.FreeTypeFont) -> Image.Image:
    assert example.image is not None
    height = round(_WIDTH * example.image.shape[0] / example.image.shape[1])
    picture = Image.fromarray(example.image).resize((_WIDTH, height), Image.Resampling.BICUBIC)
    origin = example.origin
    text = origin.get("prompt") or f"photo {origin.get('file', '')}"
    lines = wrap(text, _WIDTH, face, _LINES)
    tile = Image.new("RGB", (_WIDTH, height + (len(lines) + 1) * _LINE + 6), PAPER)
    tile.paste(picture, (0, 0))
    pen = ImageDraw.Draw(tile)
    pen.text((0, height + 4), example.key, fill=PALE, font=face)
    for i, line in enumerate(lines, 1):
        pen.text((0, height + 4 + i * _LINE), line, fill=INK, font=face)
    return tile

"""Drawing facades in metres: surfaces, panes and rows of windows."""

import dataclasses

import cv2
import numpy as np

from clouds_jax.streets.rng import Rng
from clouds_jax.streets.textures import TILE, tint
from clouds_jax.streets.types import Colour, Number

LIT = ((255, 216, 142), (255, 196, 110), (236, 226, 196), (206, 220, 236))


@dataclasses.dataclass(frozen=True)
class Look:
    """Style, colours and measures of a facade.

    Attributes:
        style: key of `styles.STYLES`.
        wall, trim, roof: colours.
        floors: number of floors.
        floor: height of one floor, metres.
        shop: whether the ground floor is a shop.
        roof_height: height of roof seen above the wall, metres.
    """

    style: str
    wall: Colour
    trim: Colour
    roof: Colour
    floors: int
    floor: Number
    shop: bool
    roof_height: Number

    @property
    def height(self) -> float:
        """Height of the wall, metres."""
        return self.floors * self.floor + 0.6


class FacadeCanvas:
    """A picture of a facade that is drawn in metres, x from the left and y from the ground.

    Args:
        width, height: of the facade, metres.
        scale: texels per metre.
        gain: light on the wall, per channel.
        lamps: 0 to 1, lit windows.
    """

    def __init__(self, width: Number, height: Number, scale: Number, gain: Colour, lamps: Number):
        self.scale, self.gain, self.lamps = scale, gain, lamps
        self.rows = max(int(height * scale), 4)
        self.columns = max(int(width * scale), 4)
        self.image = np.zeros((self.rows, self.columns, 3), np.uint8)
        self.width, self.height = width, height

    def lit(self, colour: Colour) -> tuple[int, ...]:
        """The colour under the light on the wall."""
        return tuple(min(int(c * g), 255) for c, g in zip(colour, self.gain, strict=True))

    def corner(self, x: Number, y: Number) -> tuple[int, int]:
        """Column and row of the point (x, y)."""
        return int(x * self.scale), self.rows - int(y * self.scale)

    def box(self, x0, y0, x1, y1, colour: Colour, shine: bool = False) -> None:
        """Fills a rectangle; one that shines needs no light on the wall."""
        (a, d), (b, c) = self.corner(x0, y0), self.corner(x1, y1)
        fill = tuple(int(v) for v in colour) if shine else self.lit(colour)
        cv2.rectangle(self.image, (a, c), (max(b - 1, a), max(d - 1, c)), fill, -1)

    def shade(self, x0, y0, x1, y1, gain: Number) -> None:
        """Multiplies a rectangle by `gain`."""
        (a, d), (b, c) = self.corner(x0, y0), self.corner(x1, y1)
        part = self.image[max(c, 0) : max(d, 0), max(a, 0) : max(b, 0)]
        part[:] = tint(part, (gain, gain, gain))


def surface(
    canvas: FacadeCanvas, tile: np.ndarray, per_metre: Number, strength: int, rng: Rng
) -> None:
    """Multiplies the canvas by a noise tile that has `per_metre` texels per metre."""
    step = per_metre / canvas.scale
    ys = (np.arange(canvas.rows) * step + rng.integer(0, TILE - 1)).astype(np.int32) % TILE
    xs = (np.arange(canvas.columns) * step + rng.integer(0, TILE - 1)).astype(np.int32) % TILE
    soft = (128 + (tile.astype(np.int32) - 128) * strength // 128).astype(np.uint16)
    value = soft.take(ys, 0).take(xs, 1)[..., None]
    canvas.image[:] = np.minimum((canvas.image * value) >> 7, 255)


def pane(width: int, height: int, canvas: FacadeCanvas, kind: str, rng: Rng) -> np.ndarray:
    """Returns the glass of one window [h, w, 3]: dark, curtained, reflecting the sky, or lit."""
    t = np.arange(height)[:, None] / max(height, 1)
    if kind == "lit":
        low = np.array(rng.pick(LIT)) * rng.between(0.55, 1.0)
        column = low * (1.05 - 0.35 * t)
    else:
        low, high = np.array((38.0, 44, 52)), np.array((112.0, 132, 152))
        column = (high + (low - high) * np.minimum(t * 1.5, 1)) * np.array(canvas.gain)
    pane = np.repeat(np.minimum(column, 255).astype(np.uint8)[:, None], width, axis=1)
    if kind == "curtain":
        edge = max(width // 4, 1)
        cloth = np.array(canvas.lit((206, 200, 188)), np.uint8)
        pane[:, :edge] = cloth
        pane[:, -edge:] = cloth
    elif kind == "blind":
        pane[: int(height * rng.between(0.25, 0.7))] = np.array(canvas.lit((196, 192, 180)))
    return pane


def window(
    canvas: FacadeCanvas, w: Number, h: Number, look: Look, kind: str, rng: Rng
) -> np.ndarray:
    """Returns a framed window [h, w, 3] with a cross bar."""
    pw, ph = max(int(w * canvas.scale), 2), max(int(h * canvas.scale), 2)
    tile = pane(pw, ph, canvas, kind, rng)
    bar = max(int(0.09 * canvas.scale), 1)
    frame = np.array(canvas.lit(look.trim), np.uint8)
    if ph > 5 and pw > 5:
        tile[:bar], tile[-bar:], tile[:, :bar], tile[:, -bar:] = frame, frame, frame, frame
        middle = pw // 2
        tile[:, middle - bar // 2 : middle - bar // 2 + max(bar * 2 // 3, 1)] = frame
        if h > 1.3:
            cut = ph // 3
            tile[cut : cut + max(bar * 2 // 3, 1)] = frame
    return tile


def windows(canvas, look, rng, x0, x1, w, h, pitch, first_floor, sill=True, shutters=None):
    """Puts a grid of windows on all floors from `first_floor` on."""
    count = max(int((x1 - x0) / pitch), 1)
    space = (x1 - x0) / count
    kinds = ["plain", "plain", "curtain", "blind"]
    tiles = {k: window(canvas, w, h, look, k, rng) for k in ("plain", "curtain", "blind")}
    glowing = [window(canvas, w, h, look, "lit", rng) for _ in range(3)] if canvas.lamps else []
    for floor in range(first_floor, look.floors):
        y = floor * look.floor + (look.floor - h) * 0.5 + 0.15
        if y > canvas.height:
            break
        for i in range(count):
            x = x0 + space * (i + 0.5) - w / 2
            lit = glowing and rng.chance(0.4 * canvas.lamps * canvas.lamps)
            tile = rng.pick(glowing) if lit else tiles[rng.pick(kinds)]
            canvas.box(x - 0.1, y - 0.12, x + w + 0.1, y + h + 0.14, [c * 0.86 for c in look.trim])
            if shutters:
                canvas.box(x - 0.48, y, x - 0.06, y + h, shutters)
                canvas.box(x + w + 0.06, y, x + w + 0.48, y + h, shutters)
            put(canvas, tile, x, y)
            canvas.shade(x, y + h - 0.14, x + w, y + h, 0.6)
            if sill:
                canvas.box(x - 0.16, y - 0.2, x + w + 0.16, y - 0.06, [c * 1.05 for c in look.trim])
                canvas.shade(x - 0.12, y - 0.34, x + w + 0.12, y - 0.2, 0.72)


def put(canvas: FacadeCanvas, tile: np.ndarray, x: Number, y: Number) -> None:
    """Lays a picture on the canvas with its lower left corner at (x, y)."""
    c, r = canvas.corner(x, y)
    r0, c0 = max(r - tile.shape[0], 0), max(c, 0)
    part = canvas.image[r0 : max(r, 0), c0 : c + tile.shape[1]]
    if part.size:
        skip = r0 - (r - tile.shape[0])
        part[:] = tile[skip : skip + part.shape[0], c0 - c : c0 - c + part.shape[1]]

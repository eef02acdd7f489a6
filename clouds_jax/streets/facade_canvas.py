"""Drawing boards for facades, in metres: surfaces, panes and rows of windows."""

import dataclasses

import cv2
import numpy as np

from clouds_jax.streets.rng import Dice
from clouds_jax.streets.textures import TILE, tint
from clouds_jax.streets.types import Colour, Number

LIT = ((255, 216, 142), (255, 196, 110), (236, 226, 196), (206, 220, 236))


@dataclasses.dataclass(frozen=True)
class Look:
    """What a facade is made of.

    Attributes:
        style: key of STYLES.
        wall, trim, roof: colours.
        floors: number.
        floor: height of one, metres.
        shop: whether the ground floor is one.
        roof_height: metres of roof seen above the wall.
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
        """Of the wall, metres."""
        return self.floors * self.floor + 0.6


class Board:
    """A drawing board in metres, x from the left and y from the ground."""

    def __init__(self, width: Number, height: Number, scale: Number, gain: Colour, lamps: Number):
        self.scale, self.gain, self.lamps = scale, gain, lamps
        self.rows = max(int(height * scale), 4)
        self.columns = max(int(width * scale), 4)
        self.image = np.zeros((self.rows, self.columns, 3), np.uint8)
        self.width, self.height = width, height

    def lit(self, colour: Colour) -> tuple[int, ...]:
        return tuple(min(int(c * g), 255) for c, g in zip(colour, self.gain, strict=True))

    def corner(self, x: Number, y: Number) -> tuple[int, int]:
        return int(x * self.scale), self.rows - int(y * self.scale)

    def box(self, x0, y0, x1, y1, colour: Colour, shine: bool = False) -> None:
        (a, d), (b, c) = self.corner(x0, y0), self.corner(x1, y1)
        fill = tuple(int(v) for v in colour) if shine else self.lit(colour)
        cv2.rectangle(self.image, (a, c), (max(b - 1, a), max(d - 1, c)), fill, -1)

    def shade(self, x0, y0, x1, y1, gain: Number) -> None:
        (a, d), (b, c) = self.corner(x0, y0), self.corner(x1, y1)
        part = self.image[max(c, 0) : max(d, 0), max(a, 0) : max(b, 0)]
        part[:] = tint(part, (gain, gain, gain))


def surface(board: Board, tile: np.ndarray, per_metre: Number, strength: int, dice: Dice) -> None:
    """Multiplies the board by a noise tile of `per_metre` texels."""
    step = per_metre / board.scale
    ys = (np.arange(board.rows) * step + dice.integer(0, TILE - 1)).astype(np.int32) % TILE
    xs = (np.arange(board.columns) * step + dice.integer(0, TILE - 1)).astype(np.int32) % TILE
    soft = (128 + (tile.astype(np.int32) - 128) * strength // 128).astype(np.uint16)
    value = soft.take(ys, 0).take(xs, 1)[..., None]
    board.image[:] = np.minimum((board.image * value) >> 7, 255)


def pane(width: int, height: int, board: Board, kind: str, dice: Dice) -> np.ndarray:
    """Returns the glass of one window [h, w, 3]: dark, curtained, reflecting the sky, or lit."""
    t = np.arange(height)[:, None] / max(height, 1)
    if kind == "lit":
        low = np.array(dice.pick(LIT)) * dice.between(0.55, 1.0)
        column = low * (1.05 - 0.35 * t)
    else:
        low, high = np.array((38.0, 44, 52)), np.array((112.0, 132, 152))
        column = (high + (low - high) * np.minimum(t * 1.5, 1)) * np.array(board.gain)
    pane = np.repeat(np.minimum(column, 255).astype(np.uint8)[:, None], width, axis=1)
    if kind == "curtain":
        edge = max(width // 4, 1)
        cloth = np.array(board.lit((206, 200, 188)), np.uint8)
        pane[:, :edge] = cloth
        pane[:, -edge:] = cloth
    elif kind == "blind":
        pane[: int(height * dice.between(0.25, 0.7))] = np.array(board.lit((196, 192, 180)))
    return pane


def window(board: Board, w: Number, h: Number, look: Look, kind: str, dice: Dice) -> np.ndarray:
    """Returns a framed window [h, w, 3] with a cross bar."""
    pw, ph = max(int(w * board.scale), 2), max(int(h * board.scale), 2)
    tile = pane(pw, ph, board, kind, dice)
    bar = max(int(0.09 * board.scale), 1)
    frame = np.array(board.lit(look.trim), np.uint8)
    if ph > 5 and pw > 5:
        tile[:bar], tile[-bar:], tile[:, :bar], tile[:, -bar:] = frame, frame, frame, frame
        middle = pw // 2
        tile[:, middle - bar // 2 : middle - bar // 2 + max(bar * 2 // 3, 1)] = frame
        if h > 1.3:
            cut = ph // 3
            tile[cut : cut + max(bar * 2 // 3, 1)] = frame
    return tile


def windows(board, look, dice, x0, x1, w, h, pitch, first_floor, sill=True, shutters=None):
    """Puts a grid of windows on all floors from `first_floor` on."""
    count = max(int((x1 - x0) / pitch), 1)
    space = (x1 - x0) / count
    kinds = ["plain", "plain", "curtain", "blind"]
    tiles = {k: window(board, w, h, look, k, dice) for k in ("plain", "curtain", "blind")}
    glowing = [window(board, w, h, look, "lit", dice) for _ in range(3)] if board.lamps else []
    for floor in range(first_floor, look.floors):
        y = floor * look.floor + (look.floor - h) * 0.5 + 0.15
        if y > board.height:
            break
        for i in range(count):
            x = x0 + space * (i + 0.5) - w / 2
            lit = glowing and dice.chance(0.4 * board.lamps * board.lamps)
            tile = dice.pick(glowing) if lit else tiles[dice.pick(kinds)]
            board.box(x - 0.1, y - 0.12, x + w + 0.1, y + h + 0.14, [c * 0.86 for c in look.trim])
            if shutters:
                board.box(x - 0.48, y, x - 0.06, y + h, shutters)
                board.box(x + w + 0.06, y, x + w + 0.48, y + h, shutters)
            put(board, tile, x, y)
            board.shade(x, y + h - 0.14, x + w, y + h, 0.6)
            if sill:
                board.box(x - 0.16, y - 0.2, x + w + 0.16, y - 0.06, [c * 1.05 for c in look.trim])
                board.shade(x - 0.12, y - 0.34, x + w + 0.12, y - 0.2, 0.72)


def put(board: Board, tile: np.ndarray, x: Number, y: Number) -> None:
    """Lays a picture on the board with its lower left corner at (x, y)."""
    c, r = board.corner(x, y)
    r0, c0 = max(r - tile.shape[0], 0), max(c, 0)
    part = board.image[r0 : max(r, 0), c0 : c + tile.shape[1]]
    if part.size:
        skip = r0 - (r - tile.shape[0])
        part[:] = tile[skip : skip + part.shape[0], c0 - c : c0 - c + part.shape[1]]

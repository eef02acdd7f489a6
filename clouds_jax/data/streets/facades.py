"""Pictures of facades: wall, windows, ground floor and roof, made for one building each."""

import dataclasses

import cv2
import numpy as np

from clouds_jax.data.streets import labels
from clouds_jax.data.streets.canvas import Colour
from clouds_jax.data.streets.dice import Dice
from clouds_jax.data.streets.textures import TILE, Texture, bricks, cloud_noise, noise, pack, tint

SHOPS = (
    (172, 38, 40), (28, 70, 130), (34, 96, 62), (216, 168, 40), (62, 48, 44), (224, 220, 208),
    (120, 40, 96), (20, 112, 124),
)  # fmt: skip
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
    floor: float
    shop: bool
    roof_height: float

    @property
    def height(self) -> float:
        """Of the wall, metres."""
        return self.floors * self.floor + 0.6


class _Board:
    """A drawing board in metres, x from the left and y from the ground."""

    def __init__(self, width: float, height: float, scale: float, gain: Colour, lamps: float):
        self.scale, self.gain, self.lamps = scale, gain, lamps
        self.rows = max(int(height * scale), 4)
        self.columns = max(int(width * scale), 4)
        self.image = np.zeros((self.rows, self.columns, 3), np.uint8)
        self.width, self.height = width, height

    def lit(self, colour: Colour) -> tuple[int, ...]:
        return tuple(min(int(c * g), 255) for c, g in zip(colour, self.gain, strict=True))

    def corner(self, x: float, y: float) -> tuple[int, int]:
        return int(x * self.scale), self.rows - int(y * self.scale)

    def box(self, x0, y0, x1, y1, colour: Colour, shine: bool = False) -> None:
        (a, d), (b, c) = self.corner(x0, y0), self.corner(x1, y1)
        fill = tuple(int(v) for v in colour) if shine else self.lit(colour)
        cv2.rectangle(self.image, (a, c), (max(b - 1, a), max(d - 1, c)), fill, -1)

    def shade(self, x0, y0, x1, y1, gain: float) -> None:
        (a, d), (b, c) = self.corner(x0, y0), self.corner(x1, y1)
        part = self.image[max(c, 0) : max(d, 0), max(a, 0) : max(b, 0)]
        part[:] = tint(part, (gain, gain, gain))


def _surface(board: _Board, tile: np.ndarray, per_metre: float, strength: int, dice: Dice) -> None:
    """Multiplies the board by a noise tile of `per_metre` texels."""
    step = per_metre / board.scale
    ys = (np.arange(board.rows) * step + dice.integer(0, TILE - 1)).astype(np.int32) % TILE
    xs = (np.arange(board.columns) * step + dice.integer(0, TILE - 1)).astype(np.int32) % TILE
    soft = (128 + (tile.astype(np.int32) - 128) * strength // 128).astype(np.uint16)
    value = soft.take(ys, 0).take(xs, 1)[..., None]
    board.image[:] = np.minimum((board.image * value) >> 7, 255)


def _pane(width: int, height: int, board: _Board, kind: str, dice: Dice) -> np.ndarray:
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


def _window(board: _Board, w: float, h: float, look: Look, kind: str, dice: Dice) -> np.ndarray:
    """Returns a framed window [h, w, 3] with a cross bar."""
    pw, ph = max(int(w * board.scale), 2), max(int(h * board.scale), 2)
    tile = _pane(pw, ph, board, kind, dice)
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


def _windows(board, look, dice, x0, x1, w, h, pitch, first_floor, sill=True, shutters=None):
    """Puts a grid of windows on all floors from `first_floor` on."""
    count = max(int((x1 - x0) / pitch), 1)
    space = (x1 - x0) / count
    kinds = ["plain", "plain", "curtain", "blind"]
    tiles = {k: _window(board, w, h, look, k, dice) for k in ("plain", "curtain", "blind")}
    glowing = [_window(board, w, h, look, "lit", dice) for _ in range(3)] if board.lamps else []
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
            _put(board, tile, x, y)
            board.shade(x, y + h - 0.14, x + w, y + h, 0.6)
            if sill:
                board.box(x - 0.16, y - 0.2, x + w + 0.16, y - 0.06, [c * 1.05 for c in look.trim])
                board.shade(x - 0.12, y - 0.34, x + w + 0.12, y - 0.2, 0.72)


def _put(board: _Board, tile: np.ndarray, x: float, y: float) -> None:
    """Lays a picture on the board with its lower left corner at (x, y)."""
    c, r = board.corner(x, y)
    r0, c0 = max(r - tile.shape[0], 0), max(c, 0)
    part = board.image[r0 : max(r, 0), c0 : c + tile.shape[1]]
    if part.size:
        skip = r0 - (r - tile.shape[0])
        part[:] = tile[skip : skip + part.shape[0], c0 - c : c0 - c + part.shape[1]]


def _ground_floor(board: _Board, look: Look, dice: Dice) -> None:
    """Draws shops with boards and awnings, or doors."""
    top = look.floor
    if look.shop:
        count = max(int(board.width / dice.between(4.5, 7.0)), 1)
        space = board.width / count
        for i in range(count):
            x0, x1 = i * space + 0.3, (i + 1) * space - 0.3
            colour = dice.pick(SHOPS)
            board.box(x0 - 0.15, 0, x1 + 0.15, top - 0.15, [c * 0.55 for c in colour])
            glass = _pane(
                max(int((x1 - x0 - 0.4) * board.scale), 2),
                max(int((top - 1.4) * board.scale), 2),
                board,
                "lit" if board.lamps and dice.chance(0.85) else "plain",
                dice,
            )
            _put(board, glass, x0 + 0.2, 0.45)
            door = dice.between(x0 + 0.4, max(x1 - 1.5, x0 + 0.5))
            board.box(door, 0, door + 1.05, 2.2, [c * 0.4 for c in colour])
            board.box(door + 0.15, 0.3, door + 0.9, 2.0, (96, 112, 124))
            for _ in range(4):  # goods behind the glass
                gx = dice.between(x0 + 0.3, x1 - 0.7)
                tall = dice.between(0.4, 1.1)
                goods = [dice.between(50, 210) for _ in range(3)]
                board.box(gx, 0.5, gx + dice.between(0.2, 0.5), 0.5 + tall, goods)
            board.box(x0, top - 0.95, x1, top - 0.25, colour, board.lamps > 0.7)
            letter = (250, 248, 240) if sum(colour) < 420 else (40, 40, 44)
            x = x0 + 0.5
            while x < x1 - 0.8:
                if dice.chance(0.85):
                    board.box(x, top - 0.78, x + 0.09, top - 0.42, letter, board.lamps > 0.5)
                    board.box(
                        x,
                        top - dice.pick((0.5, 0.62, 0.78)),
                        x + 0.24,
                        top - dice.pick((0.42, 0.54)),
                        letter,
                        board.lamps > 0.5,
                    )
                x += 0.36
            if dice.chance(0.4):
                stripe = dice.pick(SHOPS)
                x, even = x0, True
                while x < x1:
                    cloth = stripe if even else (236, 232, 222)
                    board.box(x, top - 1.55, min(x + 0.4, x1), top - 0.95, cloth)
                    x, even = x + 0.4, not even
                board.shade(x0, 1.2, x1, top - 1.55, 0.7)
    else:
        board.box(0, 0, board.width, 0.7, [c * 0.72 for c in look.wall])
        x = dice.between(0.8, max(board.width - 2.5, 1.0))
        colour = dice.pick(((92, 52, 36), (38, 62, 52), (46, 50, 66), (120, 82, 52)))
        board.box(x - 0.2, 0, x + 1.4, 2.6, look.trim)
        board.box(x, 0, x + 1.2, 2.4, colour)
        board.box(x + 0.15, 1.3, x + 0.52, 2.2, [c * 1.35 for c in colour])
        board.box(x + 0.68, 1.3, x + 1.05, 2.2, [c * 1.35 for c in colour])
        board.box(x + 0.15, 0.2, x + 1.05, 1.1, [c * 0.8 for c in colour])
        spots = [s for s in np.arange(1.0, board.width - 1.8, 2.4) if abs(s - x) > 2.0]
        for spot in spots:
            board.box(spot - 0.1, 0.9, spot + 1.2, 2.4, look.trim)
            kind = "lit" if board.lamps and dice.chance(0.4 * board.lamps) else "curtain"
            _put(board, _window(board, 1.1, 1.35, look, kind, dice), spot, 0.98)


def _plaster(board: _Board, look: Look, dice: Dice) -> None:
    pattern = bricks() if look.style == "brick" else noise("plaster", 2)
    _surface(board, pattern, 107, 110 if look.style == "brick" else 16, dice)
    _surface(board, cloud_noise("stains"), 14, 24, dice)
    shutters = None
    if look.style == "plaster" and dice.chance(0.4):
        shutters = dice.pick(((58, 88, 66), (96, 62, 44), (70, 86, 108), (120, 46, 40)))
    width = dice.between(0.9, 1.2)
    pitch = width + (1.7 if shutters else dice.between(1.0, 1.7))
    if look.style == "timber":
        beam = (78, 54, 38)
        for floor in range(1, look.floors + 1):
            y = floor * look.floor
            board.box(0, y - 0.15, board.width, y + 0.15, beam)
        for x in np.arange(0, board.width, pitch / 2):
            board.box(x, look.floor, x + 0.2, look.height, beam)
    _windows(
        board,
        look,
        dice,
        0.5,
        board.width - 0.5,
        width,
        dice.between(1.45, 1.75),
        pitch,
        1,
        shutters=shutters,
    )
    if look.style != "timber":
        board.box(0, look.floor - 0.12, board.width, look.floor + 0.12, look.trim)
        board.shade(0, look.floor - 0.35, board.width, look.floor - 0.12, 0.75)
    if look.style == "plaster" and look.floors > 2 and dice.chance(0.35):
        for floor in range(1, look.floors):  # balconies
            x, y = board.width * 0.5 - 1.4, floor * look.floor
            board.box(x, y - 0.1, x + 2.8, y + 0.1, (150, 146, 140))
            for bar in np.arange(x, x + 2.8, 0.2):
                board.box(bar, y + 0.1, bar + 0.06, y + 1.0, (52, 54, 58))
            board.box(x, y + 0.95, x + 2.8, y + 1.05, (52, 54, 58))
    _ground_floor(board, look, dice)


def _glass(board: _Board, look: Look, dice: Dice) -> None:
    pitch = dice.between(1.2, 1.8)
    columns, rows = max(int(board.width / pitch), 1), look.floors * 2
    panes = dice.bytes(rows, columns).astype(np.float32)
    ys = (rows - 1) - np.arange(board.rows) * rows // board.rows
    xs = np.arange(board.columns) * columns // board.columns
    value = panes[ys[:, None], xs[None, :]]
    cloud = cloud_noise("clouds")
    cy = (np.arange(board.rows) * 6 / board.scale).astype(np.int32) % TILE
    cx = (np.arange(board.columns) * 6 / board.scale).astype(np.int32) % TILE
    value = 0.62 + value / 1500 + cloud[cy[:, None], cx[None, :]] / np.float32(600)
    base = np.array([c * 0.85 * g for c, g in zip(look.wall, board.gain, strict=True)])
    base *= np.array((0.86, 1.0, 1.14))
    shine = np.minimum(value * 64, 255).astype(np.uint16)
    board.image[:] = np.minimum((shine[..., None] * base.astype(np.uint16)) >> 6, 255)
    if board.lamps:
        lit = panes[ys[:, None], xs[None, :]] > 255 - 90 * board.lamps * board.lamps
        board.image[lit] = np.array(dice.pick(LIT)) * 0.8
    for i in range(columns + 1):
        x = board.width * i / columns
        board.box(x - 0.05, 0, x + 0.05, board.height, (74, 82, 90))
    for floor in range(look.floors + 1):
        y = floor * look.floor
        board.box(0, y - 0.22, board.width, y + 0.22, (104, 112, 118))
    _ground_floor(board, look, dice)


def _concrete(board: _Board, look: Look, dice: Dice) -> None:
    _surface(board, noise("plaster", 2), 60, 12, dice)
    _surface(board, cloud_noise("stains"), 12, 30, dice)
    if look.style == "office":
        width = dice.between(1.3, 2.2)
        _windows(
            board,
            look,
            dice,
            0.4,
            board.width - 0.4,
            width,
            dice.between(1.5, 2.0),
            width + dice.between(0.5, 1.2),
            1,
            sill=False,
        )
    else:
        for floor in range(1, look.floors):
            y = floor * look.floor + 0.9
            board.box(0.4, y, board.width - 0.4, y + 1.6, (70, 80, 92))
            board.shade(0.4, y + 1.3, board.width - 0.4, y + 1.6, 0.6)
            x = 0.4
            while x < board.width - 0.6:
                if board.lamps and dice.chance(0.3 * board.lamps * board.lamps):
                    board.box(x, y, x + 1.1, y + 1.6, dice.pick(LIT), True)
                elif dice.chance(0.4):
                    tone = dice.between(0.7, 1.5)
                    board.box(x, y, x + 1.1, y + 1.6, (84 * tone, 98 * tone, 112 * tone))
                board.box(x + 1.1, y, x + 1.25, y + 1.6, look.trim)
                x += 1.25
        if dice.chance(0.5):
            x = board.width * dice.pick((0.05, 0.7))
            for floor in range(1, look.floors):
                y = floor * look.floor
                board.box(x, y, x + board.width * 0.24, y + 1.0, [c * 1.06 for c in look.wall])
                board.shade(x, y + 1.0, x + board.width * 0.24, y + 1.3, 0.5)
    _ground_floor(board, look, dice)


def _house(board: _Board, look: Look, dice: Dice) -> None:
    brick = sum(look.wall) < 420
    _surface(board, bricks() if brick else noise("plaster", 2), 107, 100 if brick else 12, dice)
    _surface(board, cloud_noise("stains"), 14, 16, dice)
    width = dice.between(1.2, 1.7)
    shutters = dice.pick(((58, 88, 66), (60, 74, 104), None, None))
    _windows(
        board, look, dice, 0.8, board.width - 0.8, width, 1.3, width + 1.8, 1, shutters=shutters
    )
    _ground_floor(board, dataclasses.replace(look, shop=False), dice)
    if dice.chance(0.6):
        x = dice.pick((0.5, max(board.width - 3.3, 0.6)))
        board.box(x - 0.1, 0, x + 2.9, 2.4, look.trim)
        board.box(x, 0, x + 2.8, 2.3, (206, 204, 198))
        for y in (0.55, 1.1, 1.65):
            board.box(x, y, x + 2.8, y + 0.06, (150, 148, 142))


STYLES = {
    "plaster": _plaster,
    "brick": _plaster,
    "timber": _plaster,
    "glass": _glass,
    "concrete": _concrete,
    "office": _concrete,
    "house": _house,
}


def draw_facade(
    look: Look, width: float, seen: float, scale: float, gain: Colour, lamps: float, snow: float,
    dice: Dice,
) -> tuple[Texture, float]:  # fmt: skip
    """Draws the front of a building.

    Args:
        look: of the building.
        width: metres.
        seen: height up to which the camera can see; what is above is left out.
        scale: texels per metre.
        gain: light on the wall.
        lamps: 0 to 1, lit windows.
        snow: 0 to 1, on the roof.
        dice: decides the rest.

    Returns:
        The texture and the height in metres that it covers.
    """
    wall_top = look.height
    height = min(wall_top + look.roof_height + 0.9, max(seen, 4.0))
    board = _Board(width, height, scale, gain, lamps)
    board.image[:] = np.array(board.lit(look.wall), np.uint8)
    STYLES[look.style](board, look, dice)
    board.shade(0, 0, width, 0.35, 0.75)
    if lamps > 0.5:  # street lamps light the lower storeys
        rise = np.arange(board.rows)[::-1, None, None] / scale
        lift = 1 + 1.3 * lamps / (1 + rise * rise / 20)
        factor = (lift * (64, 61, 56)).astype(np.uint16)
        board.image[:] = np.minimum((board.image * factor) >> 6, 255)
    label = np.full(board.image.shape[:2], labels.BUILDING, np.uint8)
    if height > wall_top:
        _roof(board, look, label, snow, dice)
    return pack(board.image, label, 3), height


def _roof(board: _Board, look: Look, label: np.ndarray, snow: float, dice: Dice) -> None:
    """Draws eaves, tiles and chimneys above the wall, and makes the rest a hole."""
    top, ridge = look.height, look.height + look.roof_height
    cut = board.rows - int(ridge * board.scale)
    label[: max(cut, 0)] = labels.NOTHING
    board.image[: max(cut, 0)] = np.array(board.lit(look.roof), np.uint8)
    roof = (228, 232, 238) if snow else look.roof
    if look.roof_height > 0.7:
        board.box(0, top, board.width, ridge, roof)
        y = top
        while y < ridge and board.scale > 9:
            board.shade(0, y, board.width, y + 0.1, 0.82)
            y += 0.36
        if look.style != "house" and dice.chance(0.6):
            for x in np.arange(1.5, board.width - 2, 4.0):  # dormers
                board.box(x, top + 0.3, x + 1.3, min(top + 1.7, ridge), look.trim)
                board.box(x + 0.2, top + 0.4, x + 1.1, min(top + 1.5, ridge), (60, 68, 78))
    else:
        board.box(0, top, board.width, ridge, [c * 0.9 for c in look.trim])
    if look.style == "house":  # a hipped roof narrows upwards
        for r in range(max(cut, 0), max(board.rows - int(top * board.scale), 0)):
            inset = int((board.rows - r) - top * board.scale) * 4 // 5
            label[r, :inset] = labels.NOTHING
            label[r, board.columns - inset :] = labels.NOTHING
    board.box(0, top - 0.25, board.width, top + 0.05, look.trim)
    board.shade(0, top - 0.5, board.width, top - 0.25, 0.7)
    for _ in range(dice.integer(0, 2)):
        x = dice.between(0.5, max(board.width - 1.4, 0.6))
        tall = ridge + dice.between(0.4, 0.8)
        board.box(x, ridge - 0.3, x + 0.8, tall, (132, 84, 68))
        (a, d), (b, c) = board.corner(x, ridge), board.corner(x + 0.8, tall)
        label[max(c, 0) : max(d, 0), a:b] = labels.BUILDING

"""Styles of facades: what covers a wall from the ground floor to the eaves."""

import dataclasses

import numpy as np

from clouds_jax.streets.facade_canvas import LIT, Board, Look, pane, put, surface, window, windows
from clouds_jax.streets.rng import Dice
from clouds_jax.streets.textures import TILE, bricks, cloud_noise, noise

SHOPS = (
    (172, 38, 40), (28, 70, 130), (34, 96, 62), (216, 168, 40), (62, 48, 44), (224, 220, 208),
    (120, 40, 96), (20, 112, 124),
)  # fmt: skip


def _ground_floor(board: Board, look: Look, dice: Dice) -> None:
    """Draws shops with boards and awnings, or doors."""
    top = look.floor
    if look.shop:
        count = max(int(board.width / dice.between(4.5, 7.0)), 1)
        space = board.width / count
        for i in range(count):
            x0, x1 = i * space + 0.3, (i + 1) * space - 0.3
            colour = dice.pick(SHOPS)
            board.box(x0 - 0.15, 0, x1 + 0.15, top - 0.15, [c * 0.55 for c in colour])
            glass = pane(
                max(int((x1 - x0 - 0.4) * board.scale), 2),
                max(int((top - 1.4) * board.scale), 2),
                board,
                "lit" if board.lamps and dice.chance(0.85) else "plain",
                dice,
            )
            put(board, glass, x0 + 0.2, 0.45)
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
            put(board, window(board, 1.1, 1.35, look, kind, dice), spot, 0.98)


def _plaster(board: Board, look: Look, dice: Dice) -> None:
    pattern = bricks() if look.style == "brick" else noise("plaster", 2)
    surface(board, pattern, 107, 110 if look.style == "brick" else 16, dice)
    surface(board, cloud_noise("stains"), 14, 24, dice)
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
    windows(
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


def _glass(board: Board, look: Look, dice: Dice) -> None:
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


def _concrete(board: Board, look: Look, dice: Dice) -> None:
    surface(board, noise("plaster", 2), 60, 12, dice)
    surface(board, cloud_noise("stains"), 12, 30, dice)
    if look.style == "office":
        width = dice.between(1.3, 2.2)
        windows(
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


def _house(board: Board, look: Look, dice: Dice) -> None:
    brick = sum(look.wall) < 420
    surface(board, bricks() if brick else noise("plaster", 2), 107, 100 if brick else 12, dice)
    surface(board, cloud_noise("stains"), 14, 16, dice)
    width = dice.between(1.2, 1.7)
    shutters = dice.pick(((58, 88, 66), (60, 74, 104), None, None))
    windows(
        board, look, dice, 0.8, board.width - 0.8, width, 1.3, width + 1.8, 1, shutters=shutters
    )
    _ground_floor(board, dataclasses.replace(look, shop=False), dice)
    if dice.chance(0.6):
        x = dice.pick((0.5, max(board.width - 3.3, 0.6)))
        board.box(x - 0.1, 0, x + 2.9, 2.4, look.trim)
        board.box(x, 0, x + 2.8, 2.3, (206, 204, 198))
        for y in (0.55, 1.1, 1.65):
            board.box(x, y, x + 2.8, y + 0.06, (150, 148, 142))


def distant(board: Board, look: Look, dice: Dice) -> None:
    """Draws what is left of any style from afar: rows of windows."""
    glass, pitch = board.lit((76, 86, 98)), dice.between(2.0, 2.8)
    count = max(int(board.width / pitch), 1)
    for floor in range(look.floors):
        y = floor * look.floor
        if y > board.height:
            break
        for i in range(count):
            x = board.width * (i + 0.25) / count
            (a, d), (b, c) = board.corner(x, y + 0.9), board.corner(x + pitch / 2, y + 2.5)
            lit = board.lamps and dice.chance(0.4 * board.lamps * board.lamps)
            board.image[max(c, 0) : max(d, 0), a:b] = dice.pick(LIT) if lit else glass


STYLES = {
    "plaster": _plaster,
    "brick": _plaster,
    "timber": _plaster,
    "glass": _glass,
    "concrete": _concrete,
    "office": _concrete,
    "house": _house,
}

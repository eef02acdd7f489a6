"""Pictures of whole facades, made for one building each."""

import numpy as np

from clouds_jax.streets import classes, styles
from clouds_jax.streets.facade_canvas import Board, Look
from clouds_jax.streets.rng import Dice
from clouds_jax.streets.textures import Texture, pack
from clouds_jax.streets.types import Colour, Number


def draw_facade(
    look: Look,
    width: Number,
    seen: Number,
    scale: Number,
    gain: Colour,
    lamps: Number,
    snow: Number,
    far: bool,
    dice: Dice,
) -> tuple[Texture, Number]:
    """Draws the front of a building.

    Args:
        look: of the building.
        width: metres.
        seen: height up to which the camera can see; what is above is left out.
        scale: texels per metre.
        gain: light on the wall.
        lamps: 0 to 1, lit windows.
        snow: 0 to 1, on the roof.
        far: whether windows in rows will do.
        dice: decides the rest.

    Returns:
        The texture and the height in metres that it covers.
    """
    wall_top = look.height
    height = min(wall_top + look.roof_height + 0.9, max(seen, 4.0))
    board = Board(width, height, scale, gain, lamps)
    board.image[:] = np.array(board.lit(look.wall), np.uint8)
    (styles.distant if far else styles.STYLES[look.style])(board, look, dice)
    board.shade(0, 0, width, 0.35, 0.75)
    if lamps > 0.5:  # street lamps light the lower storeys
        rise = np.arange(board.rows)[::-1, None, None] / scale
        lift = 1 + 1.3 * lamps / (1 + rise * rise / 20)
        factor = (lift * (64, 61, 56)).astype(np.uint16)
        board.image[:] = np.minimum((board.image * factor) >> 6, 255)
    label = np.full(board.image.shape[:2], classes.BUILDING, np.uint8)
    if height > wall_top:
        _roof(board, look, label, snow, dice)
    return pack(board.image, label, 3), height


def _roof(board: Board, look: Look, label: np.ndarray, snow: Number, dice: Dice) -> None:
    """Draws eaves, tiles and chimneys above the wall, and makes the rest a hole."""
    top, ridge = look.height, look.height + look.roof_height
    cut = board.rows - int(ridge * board.scale)
    label[: max(cut, 0)] = classes.NOTHING
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
            label[r, :inset] = classes.NOTHING
            label[r, board.columns - inset :] = classes.NOTHING
    board.box(0, top - 0.25, board.width, top + 0.05, look.trim)
    board.shade(0, top - 0.5, board.width, top - 0.25, 0.7)
    for _ in range(dice.integer(0, 2)):
        x = dice.between(0.5, max(board.width - 1.4, 0.6))
        tall = ridge + dice.between(0.4, 0.8)
        board.box(x, ridge - 0.3, x + 0.8, tall, (132, 84, 68))
        (a, d), (b, c) = board.corner(x, ridge), board.corner(x + 0.8, tall)
        label[max(c, 0) : max(d, 0), a:b] = classes.BUILDING

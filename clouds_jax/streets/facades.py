"""Pictures of whole facades, made for one building each."""

import numpy as np

from clouds_jax.streets import classes, styles
from clouds_jax.streets.facade_canvas import FacadeCanvas, Look
from clouds_jax.streets.rng import Rng
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
    rng: Rng,
) -> tuple[Texture, Number]:
    """Draws the front of a building.

    Args:
        look: style, colours and measures of the building.
        width: of the front, metres.
        seen: height up to which the camera can see; what is above is left out.
        scale: texels per metre.
        gain: light on the wall.
        lamps: 0 to 1, lit windows.
        snow: 0 to 1, on the roof.
        far: whether to draw rows of windows only.
        rng: generator of the details.

    Returns:
        The texture and the height in metres that it covers.
    """
    wall_top = look.height
    height = min(wall_top + look.roof_height + 0.9, max(seen, 4.0))
    canvas = FacadeCanvas(width, height, scale, gain, lamps)
    canvas.image[:] = np.array(canvas.lit(look.wall), np.uint8)
    (styles.distant if far else styles.STYLES[look.style])(canvas, look, rng)
    canvas.shade(0, 0, width, 0.35, 0.75)
    if lamps > 0.5:  # street lamps light the lower storeys
        rise = np.arange(canvas.rows)[::-1, None, None] / scale
        lift = 1 + 1.3 * lamps / (1 + rise * rise / 20)
        factor = (lift * (64, 61, 56)).astype(np.uint16)
        canvas.image[:] = np.minimum((canvas.image * factor) >> 6, 255)
    label = np.full(canvas.image.shape[:2], classes.BUILDING, np.uint8)
    if height > wall_top:
        _roof(canvas, look, label, snow, rng)
    return pack(canvas.image, label, 3), height


def _roof(canvas: FacadeCanvas, look: Look, label: np.ndarray, snow: Number, rng: Rng) -> None:
    """Draws eaves, tiles and chimneys above the wall, and makes the rest a hole."""
    top, ridge = look.height, look.height + look.roof_height
    cut = canvas.rows - int(ridge * canvas.scale)
    label[: max(cut, 0)] = classes.NOTHING
    canvas.image[: max(cut, 0)] = np.array(canvas.lit(look.roof), np.uint8)
    roof = (228, 232, 238) if snow else look.roof
    if look.roof_height > 0.7:
        canvas.box(0, top, canvas.width, ridge, roof)
        y = top
        while y < ridge and canvas.scale > 9:
            canvas.shade(0, y, canvas.width, y + 0.1, 0.82)
            y += 0.36
        if look.style != "house" and rng.chance(0.6):
            for x in np.arange(1.5, canvas.width - 2, 4.0):  # dormers
                canvas.box(x, top + 0.3, x + 1.3, min(top + 1.7, ridge), look.trim)
                canvas.box(x + 0.2, top + 0.4, x + 1.1, min(top + 1.5, ridge), (60, 68, 78))
    else:
        canvas.box(0, top, canvas.width, ridge, [c * 0.9 for c in look.trim])
    if look.style == "house":  # a hipped roof narrows upwards
        for r in range(max(cut, 0), max(canvas.rows - int(top * canvas.scale), 0)):
            inset = int((canvas.rows - r) - top * canvas.scale) * 4 // 5
            label[r, :inset] = classes.NOTHING
            label[r, canvas.columns - inset :] = classes.NOTHING
    canvas.box(0, top - 0.25, canvas.width, top + 0.05, look.trim)
    canvas.shade(0, top - 0.5, canvas.width, top - 0.25, 0.7)
    for _ in range(rng.integer(0, 2)):
        x = rng.between(0.5, max(canvas.width - 1.4, 0.6))
        tall = ridge + rng.between(0.4, 0.8)
        canvas.box(x, ridge - 0.3, x + 0.8, tall, (132, 84, 68))
        (a, d), (b, c) = canvas.corner(x, ridge), canvas.corner(x + 0.8, tall)
        label[max(c, 0) : max(d, 0), a:b] = classes.BUILDING

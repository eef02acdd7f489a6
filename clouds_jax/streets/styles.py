"""Styles of facades: what covers a wall from the ground floor to the eaves."""

import dataclasses

import numpy as np

from clouds_jax.streets.facade_canvas import (
    LIT,
    FacadeCanvas,
    Look,
    pane,
    put,
    surface,
    window,
    windows,
)
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.textures import TILE, bricks, cloud_noise, noise

SHOPS = (
    (172, 38, 40), (28, 70, 130), (34, 96, 62), (216, 168, 40), (62, 48, 44), (224, 220, 208),
    (120, 40, 96), (20, 112, 124),
)  # fmt: skip


def _ground_floor(canvas: FacadeCanvas, look: Look, rng: Rng) -> None:
    """Draws shops with boards and awnings, or doors."""
    top = look.floor
    if look.shop:
        count = max(int(canvas.width / rng.between(4.5, 7.0)), 1)
        space = canvas.width / count
        for i in range(count):
            x0, x1 = i * space + 0.3, (i + 1) * space - 0.3
            colour = rng.pick(SHOPS)
            canvas.box(x0 - 0.15, 0, x1 + 0.15, top - 0.15, [c * 0.55 for c in colour])
            glass = pane(
                max(int((x1 - x0 - 0.4) * canvas.scale), 2),
                max(int((top - 1.4) * canvas.scale), 2),
                canvas,
                "lit" if canvas.lamps and rng.chance(0.85) else "plain",
                rng,
            )
            put(canvas, glass, x0 + 0.2, 0.45)
            door = rng.between(x0 + 0.4, max(x1 - 1.5, x0 + 0.5))
            canvas.box(door, 0, door + 1.05, 2.2, [c * 0.4 for c in colour])
            canvas.box(door + 0.15, 0.3, door + 0.9, 2.0, (96, 112, 124))
            for _ in range(4):  # goods behind the glass
                gx = rng.between(x0 + 0.3, x1 - 0.7)
                tall = rng.between(0.4, 1.1)
                goods = [rng.between(50, 210) for _ in range(3)]
                canvas.box(gx, 0.5, gx + rng.between(0.2, 0.5), 0.5 + tall, goods)
            canvas.box(x0, top - 0.95, x1, top - 0.25, colour, canvas.lamps > 0.7)
            letter = (250, 248, 240) if sum(colour) < 420 else (40, 40, 44)
            x = x0 + 0.5
            while x < x1 - 0.8:
                if rng.chance(0.85):
                    canvas.box(x, top - 0.78, x + 0.09, top - 0.42, letter, canvas.lamps > 0.5)
                    canvas.box(
                        x,
                        top - rng.pick((0.5, 0.62, 0.78)),
                        x + 0.24,
                        top - rng.pick((0.42, 0.54)),
                        letter,
                        canvas.lamps > 0.5,
                    )
                x += 0.36
            if rng.chance(0.4):
                stripe = rng.pick(SHOPS)
                x, even = x0, True
                while x < x1:
                    cloth = stripe if even else (236, 232, 222)
                    canvas.box(x, top - 1.55, min(x + 0.4, x1), top - 0.95, cloth)
                    x, even = x + 0.4, not even
                canvas.shade(x0, 1.2, x1, top - 1.55, 0.7)
    else:
        canvas.box(0, 0, canvas.width, 0.7, [c * 0.72 for c in look.wall])
        x = rng.between(0.8, max(canvas.width - 2.5, 1.0))
        colour = rng.pick(((92, 52, 36), (38, 62, 52), (46, 50, 66), (120, 82, 52)))
        canvas.box(x - 0.2, 0, x + 1.4, 2.6, look.trim)
        canvas.box(x, 0, x + 1.2, 2.4, colour)
        canvas.box(x + 0.15, 1.3, x + 0.52, 2.2, [c * 1.35 for c in colour])
        canvas.box(x + 0.68, 1.3, x + 1.05, 2.2, [c * 1.35 for c in colour])
        canvas.box(x + 0.15, 0.2, x + 1.05, 1.1, [c * 0.8 for c in colour])
        spots = [s for s in np.arange(1.0, canvas.width - 1.8, 2.4) if abs(s - x) > 2.0]
        for spot in spots:
            canvas.box(spot - 0.1, 0.9, spot + 1.2, 2.4, look.trim)
            kind = "lit" if canvas.lamps and rng.chance(0.4 * canvas.lamps) else "curtain"
            put(canvas, window(canvas, 1.1, 1.35, look, kind, rng), spot, 0.98)


def _plaster(canvas: FacadeCanvas, look: Look, rng: Rng) -> None:
    pattern = bricks() if look.style == "brick" else noise("plaster", 2)
    surface(canvas, pattern, 107, 110 if look.style == "brick" else 16, rng)
    surface(canvas, cloud_noise("stains"), 14, 24, rng)
    shutters = None
    if look.style == "plaster" and rng.chance(0.4):
        shutters = rng.pick(((58, 88, 66), (96, 62, 44), (70, 86, 108), (120, 46, 40)))
    width = rng.between(0.9, 1.2)
    pitch = width + (1.7 if shutters else rng.between(1.0, 1.7))
    if look.style == "timber":
        beam = (78, 54, 38)
        for floor in range(1, look.floors + 1):
            y = floor * look.floor
            canvas.box(0, y - 0.15, canvas.width, y + 0.15, beam)
        for x in np.arange(0, canvas.width, pitch / 2):
            canvas.box(x, look.floor, x + 0.2, look.height, beam)
    windows(
        canvas,
        look,
        rng,
        0.5,
        canvas.width - 0.5,
        width,
        rng.between(1.45, 1.75),
        pitch,
        1,
        shutters=shutters,
    )
    if look.style != "timber":
        canvas.box(0, look.floor - 0.12, canvas.width, look.floor + 0.12, look.trim)
        canvas.shade(0, look.floor - 0.35, canvas.width, look.floor - 0.12, 0.75)
    if look.style == "plaster" and look.floors > 2 and rng.chance(0.35):
        for floor in range(1, look.floors):  # balconies
            x, y = canvas.width * 0.5 - 1.4, floor * look.floor
            canvas.box(x, y - 0.1, x + 2.8, y + 0.1, (150, 146, 140))
            for bar in np.arange(x, x + 2.8, 0.2):
                canvas.box(bar, y + 0.1, bar + 0.06, y + 1.0, (52, 54, 58))
            canvas.box(x, y + 0.95, x + 2.8, y + 1.05, (52, 54, 58))
    _ground_floor(canvas, look, rng)


def _glass(canvas: FacadeCanvas, look: Look, rng: Rng) -> None:
    pitch = rng.between(1.2, 1.8)
    columns, rows = max(int(canvas.width / pitch), 1), look.floors * 2
    panes = rng.bytes(rows, columns).astype(np.float32)
    ys = (rows - 1) - np.arange(canvas.rows) * rows // canvas.rows
    xs = np.arange(canvas.columns) * columns // canvas.columns
    value = panes[ys[:, None], xs[None, :]]
    cloud = cloud_noise("clouds")
    cy = (np.arange(canvas.rows) * 6 / canvas.scale).astype(np.int32) % TILE
    cx = (np.arange(canvas.columns) * 6 / canvas.scale).astype(np.int32) % TILE
    value = 0.62 + value / 1500 + cloud[cy[:, None], cx[None, :]] / np.float32(600)
    base = np.array([c * 0.85 * g for c, g in zip(look.wall, canvas.gain, strict=True)])
    base *= np.array((0.86, 1.0, 1.14))
    shine = np.minimum(value * 64, 255).astype(np.uint16)
    canvas.image[:] = np.minimum((shine[..., None] * base.astype(np.uint16)) >> 6, 255)
    if canvas.lamps:
        lit = panes[ys[:, None], xs[None, :]] > 255 - 90 * canvas.lamps * canvas.lamps
        canvas.image[lit] = np.array(rng.pick(LIT)) * 0.8
    for i in range(columns + 1):
        x = canvas.width * i / columns
        canvas.box(x - 0.05, 0, x + 0.05, canvas.height, (74, 82, 90))
    for floor in range(look.floors + 1):
        y = floor * look.floor
        canvas.box(0, y - 0.22, canvas.width, y + 0.22, (104, 112, 118))
    _ground_floor(canvas, look, rng)


def _concrete(canvas: FacadeCanvas, look: Look, rng: Rng) -> None:
    surface(canvas, noise("plaster", 2), 60, 12, rng)
    surface(canvas, cloud_noise("stains"), 12, 30, rng)
    if look.style == "office":
        width = rng.between(1.3, 2.2)
        windows(
            canvas,
            look,
            rng,
            0.4,
            canvas.width - 0.4,
            width,
            rng.between(1.5, 2.0),
            width + rng.between(0.5, 1.2),
            1,
            sill=False,
        )
    else:
        for floor in range(1, look.floors):
            y = floor * look.floor + 0.9
            canvas.box(0.4, y, canvas.width - 0.4, y + 1.6, (70, 80, 92))
            canvas.shade(0.4, y + 1.3, canvas.width - 0.4, y + 1.6, 0.6)
            x = 0.4
            while x < canvas.width - 0.6:
                if canvas.lamps and rng.chance(0.3 * canvas.lamps * canvas.lamps):
                    canvas.box(x, y, x + 1.1, y + 1.6, rng.pick(LIT), True)
                elif rng.chance(0.4):
                    tone = rng.between(0.7, 1.5)
                    canvas.box(x, y, x + 1.1, y + 1.6, (84 * tone, 98 * tone, 112 * tone))
                canvas.box(x + 1.1, y, x + 1.25, y + 1.6, look.trim)
                x += 1.25
        if rng.chance(0.5):
            x = canvas.width * rng.pick((0.05, 0.7))
            for floor in range(1, look.floors):
                y = floor * look.floor
                canvas.box(x, y, x + canvas.width * 0.24, y + 1.0, [c * 1.06 for c in look.wall])
                canvas.shade(x, y + 1.0, x + canvas.width * 0.24, y + 1.3, 0.5)
    _ground_floor(canvas, look, rng)


def _house(canvas: FacadeCanvas, look: Look, rng: Rng) -> None:
    brick = sum(look.wall) < 420
    surface(canvas, bricks() if brick else noise("plaster", 2), 107, 100 if brick else 12, rng)
    surface(canvas, cloud_noise("stains"), 14, 16, rng)
    width = rng.between(1.2, 1.7)
    shutters = rng.pick(((58, 88, 66), (60, 74, 104), None, None))
    windows(
        canvas, look, rng, 0.8, canvas.width - 0.8, width, 1.3, width + 1.8, 1, shutters=shutters
    )
    _ground_floor(canvas, dataclasses.replace(look, shop=False), rng)
    if rng.chance(0.6):
        x = rng.pick((0.5, max(canvas.width - 3.3, 0.6)))
        canvas.box(x - 0.1, 0, x + 2.9, 2.4, look.trim)
        canvas.box(x, 0, x + 2.8, 2.3, (206, 204, 198))
        for y in (0.55, 1.1, 1.65):
            canvas.box(x, y, x + 2.8, y + 0.06, (150, 148, 142))


def distant(canvas: FacadeCanvas, look: Look, rng: Rng) -> None:
    """Draws a building of any style as seen from afar: rows of windows."""
    glass, pitch = canvas.lit((76, 86, 98)), rng.between(2.0, 2.8)
    count = max(int(canvas.width / pitch), 1)
    for floor in range(look.floors):
        y = floor * look.floor
        if y > canvas.height:
            break
        for i in range(count):
            x = canvas.width * (i + 0.25) / count
            (a, d), (b, c) = canvas.corner(x, y + 0.9), canvas.corner(x + pitch / 2, y + 2.5)
            lit = canvas.lamps and rng.chance(0.4 * canvas.lamps * canvas.lamps)
            canvas.image[max(c, 0) : max(d, 0), a:b] = rng.pick(LIT) if lit else glass


STYLES = {
    "plaster": _plaster,
    "brick": _plaster,
    "timber": _plaster,
    "glass": _glass,
    "concrete": _concrete,
    "office": _concrete,
    "house": _house,
}

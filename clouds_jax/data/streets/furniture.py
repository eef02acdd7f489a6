"""What stands along a street: lamps, signs, traffic lights, bollards, fences and walls."""

import functools

import numpy as np

from clouds_jax.data.streets import labels
from clouds_jax.data.streets.camera import clip_near
from clouds_jax.data.streets.canvas import CIRCLE
from clouds_jax.data.streets.dice import Dice
from clouds_jax.data.streets.scene import Scene
from clouds_jax.data.streets.textures import TILE, Texture, bricks, cloud_noise, pack
from clouds_jax.data.streets.walls import along

_GREY = (118, 120, 122)


class _Post:
    """Draws flat shapes in metres around a foot, all at one depth."""

    def __init__(self, scene: Scene, x: float, z: float):
        self.scene, self.z = scene, z
        self.gain = scene.gain_at(x, z)
        foot = scene.camera.project(np.array([x, 0.0, z]))
        self.foot, self.scale = foot, scene.camera.scale(z)

    def points(self, shape) -> np.ndarray:
        return self.foot + np.array(shape, float) * (self.scale, -self.scale)

    def shape(self, points, colour, label, shines: bool = False, convex: bool = True) -> None:
        gain = (1.0, 1.0, 1.0) if shines else self.gain
        colour = self.scene.seen(colour, self.z, gain)
        self.scene.canvas.polygon(self.points(points), colour, label, convex)

    def bar(self, a, b, ra, rb, colour, label) -> None:
        seen, canvas, k = self.scene.seen, self.scene.canvas, self.scale
        (ax, ay), (bx, by) = self.points([a, b])
        dark = seen(tuple(c * 0.62 for c in colour), self.z, self.gain)
        canvas.limb((ax, ay), (bx, by), max(ra * k, 0.6), max(rb * k, 0.6), dark, label)
        light = seen(colour, self.z, self.gain)
        side = 0.3 if self.scene.light.sun[0] > 0 else -0.3
        if ra * k > 1:
            canvas.limb((ax + side * ra * k, ay), (bx + side * rb * k, by), ra * k * 0.5,
                        rb * k * 0.5, light, None)  # fmt: skip

    def disc(self, x, y, r, colour, label, shines=False) -> None:
        self.shape(CIRCLE * (r, r) + (x, y), colour, label, shines)


def draw_lamp(scene: Scene, x: float, z: float, seed: int) -> None:
    """Draws a street lamp whose arm reaches over the road."""
    dice = Dice(seed, "lamp")
    post = _Post(scene, x, z)
    reach = -1.0 if x > 0 else 1.0
    lit = scene.condition.lamps > 0.4
    bulb = (255, 232, 176) if lit else (206, 208, 206)
    if dice.chance(0.3):  # a lantern on a short post
        top = 4.2
        post.bar((0, 0), (0, top), 0.075, 0.05, (60, 64, 62), labels.POLE)
        post.bar((0, 0), (0, 0.9), 0.12, 0.1, (60, 64, 62), labels.POLE)
        lantern = [(-0.14, top), (0.14, top), (0.22, top + 0.5), (-0.22, top + 0.5)]
        post.shape(lantern, bulb, labels.POLE, lit)
        hat = [(-0.27, top + 0.5), (0.27, top + 0.5), (0, top + 0.75)]
        post.shape(hat, (50, 52, 52), labels.POLE)
        light = (x, top + 0.25, z)
    else:
        top = dice.between(7.0, 9.0)
        post.bar((0, 0), (0, top), 0.08, 0.05, _GREY, labels.POLE)
        post.bar((0, 0), (0, 1.2), 0.11, 0.10, _GREY, labels.POLE)
        post.bar((0, top - 0.1), (reach * 1.9, top + 0.3), 0.05, 0.04, _GREY, labels.POLE)
        head = [(reach * 1.5, top + 0.2), (reach * 2.5, top + 0.25), (reach * 2.4, top + 0.42),
                (reach * 1.6, top + 0.4)]  # fmt: skip
        post.shape(head, (96, 98, 100), labels.POLE)
        low = [(reach * 1.6, top + 0.12), (reach * 2.4, top + 0.16), (reach * 2.4, top + 0.26),
               (reach * 1.6, top + 0.22)]  # fmt: skip
        post.shape(low, bulb, labels.POLE, lit)
        light = (x + reach * 2.0, top + 0.2, z)
    if lit:
        strength = scene.condition.lamps
        scene.glow(light, 0.55, (255 * strength, 214 * strength, 140 * strength))


def draw_bollard(scene: Scene, x: float, z: float, seed: int) -> None:
    """Draws a bollard."""
    post = _Post(scene, x, z)
    post.bar((0, 0), (0, 0.85), 0.07, 0.06, (70, 72, 74), labels.POLE)
    post.bar((0, 0.66), (0, 0.74), 0.075, 0.075, (222, 220, 214), labels.POLE)


def _arrow(x: float, y: float, k: float) -> list[tuple[float, float]]:
    shape = [(-0.3, -0.1), (0.02, -0.1), (0.02, -0.28), (0.34, 0.0), (0.02, 0.28), (0.02, 0.1),
             (-0.3, 0.1)]  # fmt: skip
    return [(x + k * px, y + k * py) for px, py in shape]


def draw_sign(scene: Scene, x: float, z: float, seed: int) -> None:
    """Draws one or two traffic signs on a post."""
    dice = Dice(seed, "sign")
    post = _Post(scene, x, z)
    sign = labels.TRAFFIC_SIGN
    kind = dice.weighted({"triangle": 2, "limit": 2, "stop": 1, "blue": 2, "board": 1, "park": 2,
                          "yield": 1, "priority": 1, "noentry": 1})  # fmt: skip
    top = dice.between(2.5, 3.0)
    post.bar((0, 0), (0, top + 0.3), 0.04, 0.04, (140, 142, 144), labels.POLE)
    red, white, blue, black = (196, 26, 34), (240, 240, 236), (24, 78, 168), (28, 28, 30)
    if kind in ("triangle", "yield"):
        k = 1 if kind == "triangle" else -1
        outer = [(-0.5, top - 0.4 * k), (0.5, top - 0.4 * k), (0, top + 0.46 * k)]
        inner = [(-0.32, top - 0.29 * k), (0.32, top - 0.29 * k), (0, top + 0.25 * k)]
        post.shape(outer, red, sign)
        post.shape(inner, white, sign)
        if k > 0:
            post.shape([(-0.05, top + 0.1), (0.05, top + 0.1), (0.03, top - 0.12),
                        (-0.03, top - 0.12)], black, sign)  # fmt: skip
            post.disc(0, top - 0.2, 0.04, black, sign)
    elif kind == "limit":
        post.disc(0, top, 0.42, red, sign)
        post.disc(0, top, 0.31, white, sign)
        for dx in (-0.1, 0.1):
            post.shape([(dx - 0.07, top - 0.14), (dx + 0.07, top - 0.14), (dx + 0.07, top + 0.14),
                        (dx - 0.07, top + 0.14)], black, sign)  # fmt: skip
            post.shape([(dx - 0.025, top - 0.08), (dx + 0.025, top - 0.08),
                        (dx + 0.025, top + 0.08), (dx - 0.025, top + 0.08)], white, sign)  # fmt: skip
    elif kind == "stop":
        for r, colour in ((0.46, white), (0.42, red)):
            a = r * 0.414
            post.shape([(r, a), (a, r), (-a, r), (-r, a), (-r, -a), (-a, -r), (a, -r), (r, -a)]
                       + np.array((0, top)), colour, sign)  # fmt: skip
        for dx in (-0.26, -0.09, 0.08, 0.25):
            post.shape([(dx - 0.05, top - 0.12), (dx + 0.05, top - 0.12), (dx + 0.05, top + 0.12),
                        (dx - 0.05, top + 0.12)], white, sign)  # fmt: skip
    elif kind == "noentry":
        post.disc(0, top, 0.42, red, sign)
        post.shape([(-0.3, top - 0.07), (0.3, top - 0.07), (0.3, top + 0.07), (-0.3, top + 0.07)],
                   white, sign)  # fmt: skip
    elif kind == "blue":
        post.disc(0, top, 0.42, white, sign)
        post.disc(0, top, 0.39, blue, sign)
        post.shape(_arrow(0, top, 0.85), white, sign, convex=False)
    elif kind == "priority":
        for r, colour in ((0.46, white), (0.33, (240, 190, 30))):
            post.shape([(r, top), (0, top + r), (-r, top), (0, top - r)], colour, sign)
    elif kind == "park":
        post.shape([(-0.36, top - 0.36), (0.36, top - 0.36), (0.36, top + 0.36),
                    (-0.36, top + 0.36)], blue, sign)  # fmt: skip
        post.shape([(-0.14, top - 0.26), (-0.04, top - 0.26), (-0.04, top + 0.28),
                    (-0.14, top + 0.28)], white, sign)  # fmt: skip
        post.disc(0.02, top + 0.13, 0.16, white, sign)
        post.disc(0.02, top + 0.13, 0.07, blue, sign)
    else:
        colour = dice.pick(((24, 78, 168), (240, 196, 40), (20, 110, 60), (236, 236, 232)))
        ink = white if sum(colour) < 400 else black
        w, h = dice.between(0.8, 1.5), dice.between(0.4, 0.9)
        post.shape([(-w, top - h), (w, top - h), (w, top + h), (-w, top + h)], ink, sign)
        w, h = w - 0.05, h - 0.05
        post.shape([(-w, top - h), (w, top - h), (w, top + h), (-w, top + h)], colour, sign)
        for row in range(2):
            y = top + h * (0.4 - 0.85 * row)
            end = dice.between(0.2, 0.6) * w
            post.shape([(-w * 0.8, y - 0.07), (end, y - 0.07), (end, y + 0.07),
                        (-w * 0.8, y + 0.07)], ink, sign)  # fmt: skip
        post.shape(_arrow(w * 0.76, top, 0.6), ink, sign, convex=False)
    if dice.chance(0.35) and kind != "board":
        low = top - 0.75
        post.shape([(-0.36, low - 0.17), (0.36, low - 0.17), (0.36, low + 0.17),
                    (-0.36, low + 0.17)], white, sign)  # fmt: skip
        post.shape([(-0.26, low - 0.05), (0.26, low - 0.05), (0.26, low + 0.05),
                    (-0.26, low + 0.05)], black, sign)  # fmt: skip


def _housing(post: _Post, x: float, y: float, state: int, back: bool) -> None:
    """Draws the three lamps of a traffic light with the lower edge at `y`."""
    light = labels.TRAFFIC_LIGHT
    post.shape([(x - 0.24, y - 0.06), (x + 0.24, y - 0.06), (x + 0.24, y + 1.1),
                (x - 0.24, y + 1.1)], (40, 42, 44), light)  # fmt: skip
    if back:
        post.shape([(x - 0.1, y + 0.1), (x + 0.1, y + 0.1), (x + 0.1, y + 0.95),
                    (x - 0.1, y + 0.95)], (62, 64, 66), light)  # fmt: skip
        return
    bright = ((40, 230, 120), (255, 190, 40), (255, 48, 40))
    dull = ((20, 66, 44), (78, 62, 20), (84, 24, 22))
    for i in range(3):
        cy = y + 0.18 + 0.34 * i
        post.disc(x, cy, 0.145, bright[i] if i == state else dull[i], light, i == state)
        if i == state and post.scale > 14:
            post.disc(
                x - 0.03, cy + 0.04, 0.05, tuple((c + 255) / 2 for c in bright[i]), None, True
            )


def draw_traffic_light(scene: Scene, x: float, z: float, seed: int) -> None:
    """Draws traffic lights on a post, often with an arm over the road."""
    dice = Dice(seed, "light")
    post = _Post(scene, x, z)
    state = dice.pick((0, 0, 1, 2, 2))
    back = dice.chance(0.15)
    reach = -1.0 if x > 0 else 1.0
    places = [(0.0, 2.4)]
    if dice.chance(0.55):
        long = dice.between(2.8, 5.0)
        post.bar((0, 0), (0, 5.9), 0.09, 0.08, _GREY, labels.POLE)
        post.bar((0, 5.7), (reach * long, 6.0), 0.07, 0.05, _GREY, labels.POLE)
        places.append((reach * (long - 0.3), 5.2))
    else:
        post.bar((0, 0), (0, 3.3), 0.08, 0.07, _GREY, labels.POLE)
    for px, py in places:
        _housing(post, px, py, state, back)
        if not back and scene.condition.lamps > 0.3:
            colour = ((30, 200, 110), (230, 160, 30), (240, 40, 30))[state]
            k = scene.condition.lamps * 0.8
            scene.glow((x + px, py + 0.18 + 0.34 * state, z), 0.4, tuple(c * k for c in colour))


@functools.cache
def fence(kind: str) -> Texture:
    """Returns 2 m of a fence: "bars", "planks", "mesh" or "rail"."""
    rows, columns = 96, 160
    colour = np.zeros((rows, columns, 3), np.uint8)
    label = np.full((rows, columns), labels.NOTHING, np.uint8)

    def fill(r0, r1, c0, c1, tone):
        colour[r0:r1, c0:c1] = tone
        label[r0:r1, c0:c1] = labels.FENCE

    if kind == "bars":
        for c in range(0, columns, 10):
            fill(6, rows, c, c + 4, (44, 50, 50))
        fill(12, 18, 0, columns, (50, 56, 56))
        fill(80, 86, 0, columns, (50, 56, 56))
        fill(0, rows, 0, 8, (40, 44, 44))
    elif kind == "planks":
        tones = Dice("planks").bytes(10)
        for i, c in enumerate(range(0, columns, 16)):
            k = 0.75 + int(tones[i]) / 512
            fill(4 + int(tones[i]) % 3, rows, c, c + 14, (142 * k, 108 * k, 76 * k))
        fill(24, 30, 0, columns, (104, 80, 58))
        fill(74, 80, 0, columns, (104, 80, 58))
    elif kind == "mesh":
        r, c = np.mgrid[0:rows, 0:columns]
        wire = ((r + c) % 12 < 3) | ((r - c) % 12 < 3)
        colour[wire], label[wire] = (128, 136, 132), labels.FENCE
        fill(0, 5, 0, columns, (120, 128, 124))
        fill(0, rows, 0, 7, (104, 112, 108))
    else:
        fill(10, 22, 0, columns, (210, 206, 200))
        fill(46, 58, 0, columns, (210, 206, 200))
        for c in range(0, columns, 40):
            fill(10, 22, c, c + 20, (190, 40, 38))
            fill(46, 58, c + 20, c + 40, (190, 40, 38))
        fill(4, rows, 0, 10, (150, 150, 150))
    solid = colour[label == labels.FENCE][0]
    colour[label == labels.NOTHING] = solid
    return pack(colour, label, 2)


@functools.cache
def wall(kind: str) -> Texture:
    """Returns 2.4 m of a wall, "brick", "stone" or "concrete", with a cap."""
    tile = bricks().astype(np.int32)
    base = {"brick": (158, 88, 68), "stone": (150, 142, 128), "concrete": (164, 164, 160)}[kind]
    if kind == "concrete":
        tile = np.full((TILE, TILE), 128)
        tile[:, ::128] = 88
        tile[:, 1::128] = 100
    elif kind == "stone":
        tile = tile[:128, :128].repeat(2, 0).repeat(2, 1)
    stain = cloud_noise("stains").astype(np.int32)
    value = tile * (176 + stain // 3) // 224
    colour = np.clip(np.array(base) * value[..., None] // 128, 0, 255).astype(np.uint8)
    cap = colour[:16].astype(np.int32)
    colour[:16] = np.minimum(cap * 5 // 4 + 16, 255)
    colour[16:22] = colour[16:22] // 2
    label = np.full((TILE, TILE), labels.WALL, np.uint8)
    return pack(colour, label, 5)


def draw_barrier(scene: Scene, kind: str, x, z0, z1, height) -> None:
    """Draws a fence or wall along the street; `kind` is one of `fence` and `wall`."""
    side = -1.0 if x > 0 else 1.0
    gain = scene.light.on((side * 0.95, 0.3, 0.0), 0.8)
    if kind in ("brick", "stone", "concrete"):
        texture, period = wall(kind), 2.4
        if scene.condition.snow:
            along(scene, _cap(), x, z0, z1, height, height + 0.12, scene.light.on((0, 1, 0)))
    else:
        texture, period = fence(kind), 2.0
    along(scene, texture, x, z0, z1, 0.0, height, gain, period)


def draw_railing(scene: Scene, x: float, z: float, long: float, seed: int) -> None:
    """Draws a piece of railing at the kerb; neighbours are alike."""
    kind = "rail" if round(x * 10) % 3 == 0 else "bars"
    along(scene, fence(kind), x, z - long / 2, z + long / 2, 0.0, 1.0, scene.gain_at(x, z), 2.0)


def draw_median(scene: Scene, x: float, z: float, long: float) -> None:
    """Draws a piece of the concrete barrier between the directions."""
    high, z0, z1 = 0.85, z - long / 2, z + long / 2
    top = np.array([(x, high, z0), (x, high, z1), (x - 0.3, high, z1), (x - 0.3, high, z0)])
    top = clip_near(top)
    if len(top):
        snow = scene.condition.snow
        colour = scene.seen((236, 238, 242) if snow else (178, 178, 172), z,
                            scene.gain_at(x, z, (0.0, 1.0, 0.0)))  # fmt: skip
        scene.canvas.polygon(scene.camera.project(top), colour, labels.WALL)
    gain = scene.gain_at(x, z, (0.95, 0.3, 0.0))
    along(scene, wall("concrete"), x, z0, z1, 0.0, high, gain, long)


@functools.cache
def _cap() -> Texture:
    colour = np.full((8, 8, 3), 236, np.uint8)
    return pack(colour, np.full((8, 8), labels.WALL, np.uint8), 1)

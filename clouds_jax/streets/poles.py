"""Posts along a street: lamps, traffic lights and bollards."""

from collections.abc import Sequence

import numpy as np

from clouds_jax.streets import classes
from clouds_jax.streets.canvas import CIRCLE
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.scene import Scene
from clouds_jax.streets.types import Colour, Flat, Number

Shape = Sequence[Flat] | np.ndarray

_GREY = (118, 120, 122)


class Post:
    """Draws flat shapes in metres around a foot, all at one depth."""

    def __init__(self, scene: Scene, x: Number, z: Number):
        """Puts the foot at (x, z)."""
        self.scene, self.z = scene, z
        self.gain = scene.gain_at(x, z)
        foot = scene.camera.project(np.array([x, 0.0, z]))
        self.foot, self.scale = foot, scene.camera.scale(z)

    def points(self, shape: Shape) -> np.ndarray:
        """Returns the pixel positions of `shape`, metres right of and above the foot."""
        return self.foot + np.array(shape, float) * (self.scale, -self.scale)

    def shape(
        self, points: Shape, colour: Colour, label: int | None, shines=False, convex=True
    ) -> None:
        """Fills a flat shape."""
        gain = (1.0, 1.0, 1.0) if shines else self.gain
        colour = self.scene.seen(colour, self.z, gain)
        self.scene.canvas.polygon(self.points(points), colour, label, convex)

    def bar(self, a: Flat, b: Flat, ra: Number, rb: Number, colour: Colour, label: int) -> None:
        """Draws a tapered round bar."""
        seen, canvas, k = self.scene.seen, self.scene.canvas, self.scale
        (ax, ay), (bx, by) = self.points([a, b])
        dark = seen(tuple(c * 0.62 for c in colour), self.z, self.gain)
        canvas.limb((ax, ay), (bx, by), max(ra * k, 0.6), max(rb * k, 0.6), dark, label)
        light = seen(colour, self.z, self.gain)
        side = 0.3 if self.scene.light.sun[0] > 0 else -0.3
        if ra * k > 1:
            canvas.limb((ax + side * ra * k, ay), (bx + side * rb * k, by), ra * k * 0.5,
                        rb * k * 0.5, light, None)  # fmt: skip

    def disc(
        self, x: Number, y: Number, r: Number, colour: Colour, label: int | None, shines=False
    ) -> None:
        """Fills a circle."""
        self.shape(CIRCLE * (r, r) + (x, y), colour, label, shines)


def plate(x: Number, y: Number, w: Number, h: Number) -> list[Flat]:
    """Returns the rectangle around (x, y) of half width `w` and half height `h`."""
    return [(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)]


def draw_lamp(scene: Scene, x: Number, z: Number, seed: int) -> None:
    """Draws a street lamp whose arm reaches over the road."""
    rng = Rng(seed, "lamp")
    post = Post(scene, x, z)
    reach = -1.0 if x > 0 else 1.0
    lit = scene.condition.lamps > 0.4
    bulb = (255, 232, 176) if lit else (206, 208, 206)
    if rng.chance(0.3):  # a lantern on a short post
        top = 4.2
        post.bar((0, 0), (0, top), 0.075, 0.05, (60, 64, 62), classes.POLE)
        post.bar((0, 0), (0, 0.9), 0.12, 0.1, (60, 64, 62), classes.POLE)
        lantern = [(-0.14, top), (0.14, top), (0.22, top + 0.5), (-0.22, top + 0.5)]
        post.shape(lantern, bulb, classes.POLE, lit)
        hat = [(-0.27, top + 0.5), (0.27, top + 0.5), (0, top + 0.75)]
        post.shape(hat, (50, 52, 52), classes.POLE)
        light = (x, top + 0.25, z)
    else:
        top = rng.between(7.0, 9.0)
        post.bar((0, 0), (0, top), 0.08, 0.05, _GREY, classes.POLE)
        post.bar((0, 0), (0, 1.2), 0.11, 0.10, _GREY, classes.POLE)
        post.bar((0, top - 0.1), (reach * 1.9, top + 0.3), 0.05, 0.04, _GREY, classes.POLE)
        head = [(reach * 1.5, top + 0.2), (reach * 2.5, top + 0.25), (reach * 2.4, top + 0.42),
                (reach * 1.6, top + 0.4)]  # fmt: skip
        post.shape(head, (96, 98, 100), classes.POLE)
        low = [(reach * 1.6, top + 0.12), (reach * 2.4, top + 0.16), (reach * 2.4, top + 0.26),
               (reach * 1.6, top + 0.22)]  # fmt: skip
        post.shape(low, bulb, classes.POLE, lit)
        light = (x + reach * 2.0, top + 0.2, z)
    if lit:
        strength = scene.condition.lamps
        scene.glow(light, 0.55, (255 * strength, 214 * strength, 140 * strength))


def draw_bollard(scene: Scene, x: Number, z: Number, seed: int) -> None:
    """Draws a bollard."""
    post = Post(scene, x, z)
    post.bar((0, 0), (0, 0.85), 0.07, 0.06, (70, 72, 74), classes.POLE)
    post.bar((0, 0.66), (0, 0.74), 0.075, 0.075, (222, 220, 214), classes.POLE)


def _housing(post: Post, x: Number, y: Number, state: int, back: bool) -> None:
    """Draws the three lamps of a traffic light with the lower edge at `y`."""
    light = classes.TRAFFIC_LIGHT
    post.shape(plate(x, y + 0.52, 0.24, 0.58), (40, 42, 44), light)
    if back:
        post.shape(plate(x, y + 0.52, 0.1, 0.43), (62, 64, 66), light)
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


def draw_traffic_light(scene: Scene, x: Number, z: Number, seed: int) -> None:
    """Draws traffic lights on a post, often with an arm over the road."""
    rng = Rng(seed, "light")
    post = Post(scene, x, z)
    state = rng.pick((0, 0, 1, 2, 2))
    back = rng.chance(0.15)
    reach = -1.0 if x > 0 else 1.0
    places = [(0.0, 2.4)]
    if rng.chance(0.55):
        long = rng.between(2.8, 5.0)
        post.bar((0, 0), (0, 5.9), 0.09, 0.08, _GREY, classes.POLE)
        post.bar((0, 5.7), (reach * long, 6.0), 0.07, 0.05, _GREY, classes.POLE)
        places.append((reach * (long - 0.3), 5.2))
    else:
        post.bar((0, 0), (0, 3.3), 0.08, 0.07, _GREY, classes.POLE)
    for px, py in places:
        _housing(post, px, py, state, back)
        if not back and scene.condition.lamps > 0.3:
            colour = ((30, 200, 110), (230, 160, 30), (240, 40, 30))[state]
            k = scene.condition.lamps * 0.8
            scene.glow((x + px, py + 0.18 + 0.34 * state, z), 0.4, tuple(c * k for c in colour))

"""Trees, bushes and hedges: crowns of many leaves, made once and pasted in any size and hue."""

import functools

import cv2
import numpy as np

from clouds_jax.streets import classes
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.scene import Scene
from clouds_jax.streets.textures import Texture, hole_filled, noise, pack
from clouds_jax.streets.types import Number, Point
from clouds_jax.streets.walls import across, along

_SIDE = 384
CROWNS = ("round", "wide", "tall", "cone", "bush")
_VARIANTS = 3
_MIDDLE = 128.0  # grey of a crown in half light; gains multiply from there


def _blobs(kind: str, rng: Rng) -> list[Point]:
    """Returns (x, y, radius) of the clumps of a crown, in shares of the picture."""
    out = []
    if kind == "cone":
        for i in range(16):
            y = 0.08 + 0.84 * i / 15
            reach = 0.04 + 0.36 * y
            for _ in range(4):
                out.append((0.5 + rng.between(-reach, reach), y, 0.05 + 0.05 * y))
        return out
    wide, tall = {"round": (0.36, 0.36), "wide": (0.40, 0.28), "tall": (0.22, 0.40),
                  "bush": (0.40, 0.30)}[kind]  # fmt: skip
    while len(out) < 46:
        x, y = rng.between(-1, 1), rng.between(-1, 1)
        if x * x + y * y < 1:
            out.append((0.5 + x * wide, 0.5 + y * tall, rng.between(0.06, 0.12)))
    return out


@functools.cache
def crown(kind: str, variant: int, snowy: bool) -> Texture:
    """Returns a grey crown, lit from above, with gaps at its rim."""
    rng = Rng("crown", kind, variant)
    grey = np.full((_SIDE, _SIDE), 60, np.uint8)
    mask = np.zeros((_SIDE, _SIDE), np.uint8)
    blobs = sorted(_blobs(kind, rng), key=lambda b: -b[1])
    for x, y, r in blobs:
        centre, radius = (int(x * _SIDE), int(y * _SIDE)), int(r * _SIDE)
        cv2.circle(mask, centre, radius, 255, -1)
        cv2.circle(grey, centre, radius, int(86 - 30 * y), -1)
    white = np.zeros_like(grey)
    for x, y, r in blobs:
        for _ in range(80):
            dx, dy = rng.between(-1.15, 1.15), rng.between(-1.15, 1.15)
            if dx * dx + dy * dy > 1.3:
                continue
            u, v = int((x + dx * r) * _SIDE), int((y + dy * r) * _SIDE)
            tone = 118 - 62 * dy - 50 * (y - 0.4) + rng.between(-34, 34)
            size = (rng.integer(2, 5), rng.integer(1, 3))
            angle = rng.integer(0, 179)
            cv2.ellipse(grey, (u, v), size, angle, 0, 360, int(min(max(tone, 24), 235)), -1)
            cv2.ellipse(mask, (u, v), size, angle, 0, 360, 255, -1)
            if snowy and dy < -0.1:
                cv2.ellipse(white, (u, v), size, angle, 0, 360, 255, -1)
    holes = noise(f"holes{variant}", 8, 512)[:_SIDE, :_SIDE] > 212
    label = np.where((mask > 0) & ~holes, classes.VEGETATION, classes.NOTHING).astype(np.uint8)
    leaf = grey.astype(np.int32)
    colour = np.stack([leaf * 104 // 100, leaf, leaf * 88 // 100], -1)
    colour[white > 0] = (250, 252, 255)
    colour = np.clip(colour, 0, 255).astype(np.uint8)
    return pack(hole_filled(colour, label), label, 6)


@functools.cache
def hedge(snowy: bool) -> Texture:
    """Returns 4 m by 1.3 m of clipped leaves with a ragged top."""
    rng = Rng("hedge")
    rows, columns = 104, 320
    grey = np.full((rows, columns), 46, np.uint8)
    label = np.full((rows, columns), classes.NOTHING, np.uint8)
    label[8:] = classes.VEGETATION
    white = np.zeros_like(grey)
    for _ in range(2600):
        u, v = rng.integer(0, columns), rng.integer(4, rows)
        tone = 140 - 90 * v / rows + rng.between(-34, 34)
        size = (rng.integer(2, 4), rng.integer(1, 2))
        cv2.ellipse(grey, (u, v), size, rng.integer(0, 179), 0, 360, int(max(tone, 18)), -1)
        cv2.ellipse(label, (u, v), size, 0, 0, 360, classes.VEGETATION, -1)
        if snowy and v < 26:
            cv2.ellipse(white, (u, v), size, 0, 0, 360, 255, -1)
    colour = np.stack([grey, grey, grey], -1)
    colour[white > 0] = (250, 252, 255)
    return pack(hole_filled(colour, label), label, 5)


def leaf_gain(scene: Scene, rng: Rng, light) -> Point:
    """Returns the gain that turns a grey crown into leaves of the city."""
    leaf = rng.pick(scene.city.leaves)
    if scene.condition.snow:
        leaf = (104, 104, 96)
    tone = rng.between(0.85, 1.15)
    return tuple(c * tone / _MIDDLE * g * 1.25 for c, g in zip(leaf, light, strict=True))


def draw_tree(scene: Scene, x: Number, z: Number, height: Number, seed: int) -> None:
    """Draws a tree: its trunk, branches and crown."""
    rng = Rng(seed, "tree")
    kind = rng.weighted({"round": 4, "wide": 3, "tall": 2, "cone": 0.6})
    light = scene.gain_at(x, z, (0.0, 0.45, -0.89))
    texture = crown(kind, rng.integer(0, _VARIANTS - 1), bool(scene.condition.snow))
    foot = {"round": 0.30, "wide": 0.36, "tall": 0.2, "cone": 0.08}[kind] * height
    wide = (height - foot) * {"round": 0.52, "wide": 0.72, "tall": 0.62, "cone": 0.34}[kind]
    bark = rng.pick(((92, 76, 60), (112, 98, 82), (74, 62, 52)))
    trunk = scene.seen(bark, z, light)
    dark = scene.seen(tuple(c * 0.6 for c in bark), z, light)
    at = lambda dx, y: tuple(scene.camera.project(np.array([x + dx, y, z])).tolist())  # noqa: E731
    thick = scene.camera.scale(z) * (0.10 + 0.012 * height)
    top = foot + (height - foot) * 0.5
    lean = rng.between(-0.2, 0.2)
    canvas = scene.canvas
    canvas.limb(at(0, 0), at(lean, top), thick, thick * 0.5, dark, classes.VEGETATION)
    canvas.limb(at(-0.03, 0), at(lean - 0.03, top), thick * 0.55, thick * 0.3, trunk,
                classes.VEGETATION)  # fmt: skip
    if kind != "cone":
        for side in (-1, 1):
            reach = side * wide * rng.between(0.3, 0.6)
            canvas.limb(at(lean * 0.6, foot * rng.between(0.9, 1.2)), at(reach, top + 0.6),
                        thick * 0.4, thick * 0.18, dark, classes.VEGETATION)  # fmt: skip
    gain = leaf_gain(scene, rng, light)
    # The pictures keep a rim of about a tenth around the crown.
    low, high = foot - 0.12 * (height - foot), height + 0.1 * (height - foot)
    across(scene, texture, z, x - wide, x + wide, low, high, gain)


def draw_bush(scene: Scene, x: Number, z: Number, height: Number, seed: int) -> None:
    """Draws a bush."""
    rng = Rng(seed, "bush")
    light = scene.gain_at(x, z, (0.0, 0.45, -0.89))
    texture = crown("bush", rng.integer(0, _VARIANTS - 1), bool(scene.condition.snow))
    wide = height * rng.between(0.7, 1.1)
    gain = leaf_gain(scene, rng, light)
    across(scene, texture, z, x - wide, x + wide, -0.25 * height, height * 1.1, gain)


def draw_hedge(scene: Scene, x, z0, z1, height, seed: int) -> None:
    """Draws a hedge along the street."""
    rng = Rng(seed, "hedge")
    side = -1.0 if x > 0 else 1.0
    gain = leaf_gain(scene, rng, scene.light.on((side * 0.9, 0.43, 0.0), 0.7))
    along(scene, hedge(bool(scene.condition.snow)), x, z0, z1, 0.0, height, gain, 4.0)

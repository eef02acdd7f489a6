"""The sky and what ends the street: clouds, the sun's glow, far houses and trees."""

import numpy as np

from clouds_jax.data.streets import labels
from clouds_jax.data.streets.dice import Dice
from clouds_jax.data.streets.scene import Scene
from clouds_jax.data.streets.textures import TILE, cloud_noise


def draw_sky(scene: Scene, dice: Dice) -> None:
    """Fills the picture with sky; the ground is painted over it."""
    camera, condition, image = scene.camera, scene.condition, scene.canvas.image
    rows = min(max(int(camera.cy) + 2, 1), camera.height)
    height = np.clip((camera.cy - np.arange(rows) - 0.5) / (0.33 * camera.focal), 0, 1)
    rise = (height * (2 - height))[:, None]
    gradient = np.array(condition.horizon) * (1 - rise) + np.array(condition.zenith) * rise
    elevation = np.maximum(camera.cy - np.arange(rows) - 0.5, 0.5) / camera.focal
    depth = 1.0 / (elevation + 0.10)
    cover = dice.between(*condition.cover)
    off_x, off_y = dice.integer(0, TILE - 1), dice.integer(0, TILE - 1)
    x = camera.column_slopes()[None, :] * (depth * 52)[:, None] + off_x
    y = depth * 78 + off_y
    field = cloud_noise("clouds").reshape(-1)
    index = (np.floor(y).astype(np.int32)[:, None] % TILE) * TILE
    index = index + (np.floor(x).astype(np.int32) & (TILE - 1))
    value = field.take(index).astype(np.float32)
    threshold = 215 - 190 * cover
    alpha = np.clip((value - threshold) / 70, 0, 1) * np.clip(height * 6, 0.25, 1)[:, None]
    alpha = (alpha * np.float32(0.92))[..., None].astype(np.float32)
    lit = np.array(condition.clouds, np.float32)
    shadow = lit * np.float32(0.8)
    tone = np.clip((value - threshold) / 150, 0, 1).astype(np.float32)[..., None]
    cloud = lit + (shadow - lit) * tone
    sky = gradient.astype(np.float32)[:, None] * (1 - alpha) + cloud * alpha
    sun = scene.light.sun
    if max(scene.light.direct) > 0 and sun[2] > 0.2:
        u = camera.cx + camera.focal * sun[0] / sun[2]
        v = camera.cy - camera.focal * sun[1] / sun[2]
        dx = (np.arange(camera.width) + 0.5 - u) / camera.focal
        dy = (np.arange(rows) + 0.5 - v) / camera.focal
        near = 1 / (1 + 40 * (dx[None, :] * dx[None, :] + dy[:, None] * dy[:, None]))
        sky += (near[..., None] * (np.array([255, 236, 190]) * 0.75)).astype(np.float32)
    image[:rows] = np.minimum(sky, 255).astype(np.uint8)
    image[rows:] = np.array(condition.haze, np.uint8)
    scene.canvas.label[:] = labels.SKY


def draw_backdrop(scene: Scene, dice: Dice, urban: bool) -> None:
    """Draws the far skyline: houses, then trees, pale with distance."""
    camera = scene.camera
    z = 210.0
    base = -30.0
    colours = ((126, 122, 122), (148, 138, 126), (116, 122, 132), (160, 150, 138))
    gain = scene.light.on((0.0, 0.0, -1.0))
    x = -190.0
    while x < 190.0:
        width = dice.between(10, 26)
        height = dice.between(7, 44 if urban else 15)
        place = x
        corners = [(place, base), (place, height), (place + width, height), (place + width, base)]
        if not urban and dice.chance(0.6):
            corners.insert(2, (place + width / 2, height + 4))
        points = np.array([(px, py, z) for px, py in corners])
        scene.canvas.polygon(
            camera.project(points), scene.seen(dice.pick(colours), z, gain), labels.BUILDING
        )
        if urban and scene.condition.lamps > 0.5:
            for _ in range(dice.integer(2, 9)):
                px, py = dice.between(x, x + width), dice.between(2, height)
                u, v = camera.project(np.array([px, py, z]))
                size = 0.9 * camera.scale(z)
                lamp = scene.seen((250, 214, 140), z * 0.4)
                scene.canvas.disc((u, v), size * 0.5, size * 0.6, lamp, None)
        x += width * dice.between(0.75, 1.25)
    x = -190.0
    while x < 190.0:
        radius = dice.between(4, 10)
        if dice.chance(0.75):
            leaf = dice.pick(scene.city.leaves)
            if scene.condition.snow:
                leaf = (150, 152, 156)
            u, v = camera.project(np.array([x, radius * 0.6, z - 12]))
            size = radius * camera.scale(z - 12)
            colour = scene.seen(leaf, z * 0.8, tuple(g * 0.8 for g in gain))
            scene.canvas.disc((float(u), float(v)), size, size * 0.8, colour, labels.VEGETATION)
            scene.canvas.polygon(
                np.array([(u - size, v), (u + size, v), (u + size, v + 30), (u - size, v + 30)]),
                colour,
                labels.VEGETATION,
            )
        x += radius * 1.3

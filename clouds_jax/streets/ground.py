"""The ground: flat strips with labels first, then surface, light and haze on all of it at once."""

import cv2
import numpy as np

from clouds_jax.streets.camera import FAR, clip_near
from clouds_jax.streets.canvas import fixed
from clouds_jax.streets.scene import Scene
from clouds_jax.streets.textures import GROUNDS, TILE, cloud_noise, ground_tiles
from clouds_jax.streets.types import Colour, Number

_NEAR = 1.5
# Corners of a round patch of radius 1.
DISC = ((1, 0), (0.707, 0.707), (0, 1), (-0.707, 0.707), (-1, 0), (-0.707, -0.707), (0, -1),
         (0.707, -0.707))  # fmt: skip


def outline(x0: Number, x1: Number, z0: Number, z1: Number) -> np.ndarray:
    """Returns the ground outline [n, 2] of the strip between x0..x1 and z0..z1."""
    z0 = max(z0, _NEAR)
    count = max(int((z1 - z0) / 9), 1) + 1
    # Denser near the camera, where a bend shows.
    t = np.arange(count) / (count - 1)
    z = z0 + (z1 - z0) * t * (0.4 + 0.6 * t)
    left = np.stack([np.full(count, x0), z], -1)
    right = np.stack([np.full(count, x1), z], -1)
    return np.concatenate([left, right[::-1]])


class Ground:
    """Paints the ground of a scene: colours and labels first, light and haze in `finish`."""

    def __init__(self, scene: Scene):
        """Starts with bare soil everywhere below the horizon."""
        self.scene = scene
        self.surface = np.zeros(scene.canvas.label.shape, np.uint8)

    def area(self, points: np.ndarray, colour: Colour, label: int | None, surface: str | None):
        """Fills the ground polygon `points` [n, 2] of (x, z)."""
        lifted = np.zeros((len(points), 3))
        lifted[:, 0], lifted[:, 2] = points[:, 0], points[:, 1]
        lifted = clip_near(lifted, _NEAR)
        if len(lifted) < 3:
            return
        pixels = self.scene.camera.project(lifted)
        if pixels[:, 0].max() < 0 or pixels[:, 0].min() > self.scene.camera.width:
            return
        corners = [fixed(pixels)]
        cv2.fillPoly(self.scene.canvas.image, corners, colour, cv2.LINE_AA, 4)
        if label is not None:
            cv2.fillPoly(self.scene.canvas.label, corners, (label,), cv2.LINE_8, 4)
        if surface is not None:
            cv2.fillPoly(self.surface, corners, (GROUNDS.index(surface),), cv2.LINE_8, 4)

    def strip(self, x0, x1, z0, z1, colour, label=None, surface=None) -> None:
        """Fills the strip between x0..x1 and z0..z1."""
        z1 = min(z1, FAR)
        if z1 > max(z0, _NEAR) and x1 > x0:
            self.area(outline(x0, x1, z0, z1), colour, label, surface)

    def shadow(self, points: np.ndarray, value: int) -> None:
        """Darkens the ground polygon [n, 2] of (x, z) to `value` / 255 of the direct light."""
        lifted = np.zeros((len(points), 3))
        lifted[:, 0], lifted[:, 2] = points[:, 0], points[:, 1]
        lifted = clip_near(lifted, _NEAR)
        if len(lifted) >= 3:
            corners = fixed(self.scene.camera.project(lifted))
            cv2.fillPoly(self.scene.shade, [corners], (value,), cv2.LINE_8, 4)

    def finish(self, contact: np.ndarray) -> None:
        """Gives all ground its surface, light and haze.

        Args:
            contact: [h, w] uint8, 255 where things do not keep the sky's light away.
        """
        scene = self.scene
        camera, image = scene.camera, scene.canvas.image
        depth = camera.row_depths()
        rows = np.flatnonzero(depth < FAR)
        if len(rows) == 0:
            return
        r0, z = int(rows[0]), depth[rows]
        x = camera.column_slopes()[None, :] * z[:, None]
        x -= (camera.curve * z * z - camera.x)[:, None]
        x = x.astype(np.float32)
        part = np.s_[r0:]
        surface = self.surface[part]
        _, exponent = np.frexp(z * z / (camera.focal * camera.focal * camera.y) * z * 48 * 48)
        tiles = ground_tiles()
        level = np.clip(exponent // 2, 0, len(tiles) - 1)
        grain = np.empty(surface.shape, np.uint8)
        edges = [0, *(np.flatnonzero(np.diff(level)) + 1), len(z)]
        for a, b in zip(edges, edges[1:], strict=False):
            flat = tiles[int(level[a])].reshape(-1)
            column = np.floor(x[a:b] * 48).astype(np.int32) & (TILE - 1)
            row = (np.floor(z[a:b] * 48).astype(np.int32) & (TILE - 1)) * TILE
            index = column + row[:, None] + surface[a:b].astype(np.int32) * (TILE * TILE)
            grain[a:b] = flat.take(index)
        stains = cloud_noise("stains").reshape(-1)
        column = np.floor(x * 11).astype(np.int32) & (TILE - 1)
        row = (np.floor(z * 5).astype(np.int32) & (TILE - 1)) * TILE
        stain = stains.take(column + row[:, None])
        texture = (grain.astype(np.uint16) * (104 + stain // 5).astype(np.uint16)) >> 7
        steps = np.arange(256) / 255
        table = np.empty((256, 3), np.uint16)
        lamp = np.empty((256, 3), np.uint16)
        warm = (1.0, 0.84, 0.58)
        for c in range(3):
            gain = scene.light.ambient[c] + scene.light.direct[c] * scene.light.sun[1] * steps
            table[:, c] = np.minimum(gain * 64, 255)
            lamp[:, c] = warm[c] * 84 * steps
        light = table[scene.shade[part]] + lamp[scene.pools[part]]
        light = ((light * contact[part][..., None].astype(np.uint16)) >> 8).astype(np.uint16)
        colour = (image[part].astype(np.uint16) * np.minimum(texture, 255)[..., None]) >> 8
        colour = np.minimum((colour * light) >> 5, 255)
        clear = scene.clear(z)[:, None]
        factor = (clear * 128).astype(np.uint16)[:, None]
        haze = ((1 - clear) * np.array(scene.condition.haze)).astype(np.uint16)[:, None]
        image[part] = np.minimum(((colour * factor) >> 7) + haze, 255)

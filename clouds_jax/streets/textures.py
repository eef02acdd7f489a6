"""Textures: tiles of noise for surfaces, and pictures with labels that are pasted on walls.

Everything is made once per process, from fixed keys, so a picture does not depend on what was
drawn before it.
"""

import dataclasses
import functools

import cv2
import numpy as np

from clouds_jax.streets.classes import NOTHING
from clouds_jax.streets.rng import Rng
from clouds_jax.streets.types import Point

TILE = 256  # side of a noise tile, texels


@dataclasses.dataclass(frozen=True)
class Texture:
    """A picture with labels, in sizes that halve.

    Attributes:
        levels: packed texels [h, w] uint32, the bytes (r, g, b, label); label 255 is a hole.
    """

    levels: tuple[np.ndarray, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the finest level."""
        return self.levels[0].shape


def pack(colour: np.ndarray, label: np.ndarray, levels: int = 4) -> Texture:
    """Makes a texture of `colour` [h, w, 3] and `label` [h, w], both uint8."""
    out = []
    for _ in range(levels):
        h, w = label.shape
        texels = np.empty((h, w, 4), np.uint8)
        texels[..., :3] = colour
        texels[..., 3] = label
        out.append(texels.view(np.uint32)[..., 0])
        if min(h, w) < 4:
            break
        colour = halve(colour)
        label = label[1 : h // 2 * 2 : 2, : w // 2 * 2 : 2]
    return Texture(tuple(out))


def halve(colour: np.ndarray) -> np.ndarray:
    """Averages blocks of 2 x 2 texels."""
    h, w = colour.shape[0] // 2, colour.shape[1] // 2
    return cv2.resize(colour[: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA)


@functools.cache
def noise(name: str, cell: int = 1, size: int = TILE) -> np.ndarray:
    """Returns smooth noise [size, size] uint8 around 128 that tiles; `cell` texels per bump."""
    grid = Rng("noise", name, cell).bytes(size // cell, size // cell)
    if cell == 1:
        return grid
    padded = np.pad(grid, 2, mode="wrap")
    big = cv2.resize(padded, None, fx=cell, fy=cell, interpolation=cv2.INTER_LINEAR_EXACT)
    return np.ascontiguousarray(big[2 * cell : 2 * cell + size, 2 * cell : 2 * cell + size])


@functools.cache
def cloud_noise(name: str, size: int = TILE, coarsest: int = 64) -> np.ndarray:
    """Returns noise [size, size] uint8 with detail at all sizes, as clouds and stains have it."""
    total = np.zeros((size, size), np.int32)
    cell, weight, weights = coarsest, 128, 0
    while cell >= 1:
        total += noise(f"{name}{cell}", cell, size).astype(np.int32) * weight
        weights += weight
        cell //= 2
        weight = weight * 5 // 9
    flat = total // weights
    low, high = int(flat.min()), int(flat.max())
    return ((flat - low) * 255 // (high - low)).astype(np.uint8)


def _speckle(name: str, fine: int, coarse: int) -> np.ndarray:
    grain = noise(name, 1).astype(np.int32) - 128
    soft = noise(name, 4).astype(np.int32) - 128
    patch = cloud_noise(name).astype(np.int32) - 128
    return 128 + grain * fine // 128 + soft * fine // 256 + patch * coarse // 128


def _paving(rows: int, columns: int, joint: int, spread: int, stagger: bool) -> np.ndarray:
    """Returns stones with joints; the tile holds `rows` x `columns` of them."""
    stones = Rng("paving", rows, columns).bytes(rows, columns).astype(np.int32)
    y, x = np.mgrid[0:TILE, 0:TILE]
    row = y * rows // TILE
    shift = np.where(row % 2 == 1, TILE // columns // 2, 0) if stagger else 0
    xs = (x + shift) % TILE
    value = 128 + (stones[row, xs * columns // TILE] - 128) * spread // 128
    deep = np.minimum(y * rows % TILE // rows, xs * columns % TILE // columns)
    value = np.where(deep < joint, value - 34, value)
    return value + (noise("stone", 1).astype(np.int32) - 128) // 9


GROUNDS = ("asphalt", "cobbles", "slabs", "grass", "snow", "soil")


@functools.cache
def ground_tiles() -> np.ndarray:
    """Returns all levels of the tiles of GROUNDS [level, ground, TILE * TILE] uint8, 128 = 1.

    Level n is the tile averaged over blocks of 2**n texels and kept at full size.
    """
    tiles = [
        _speckle("asphalt", 21, 14),
        _paving(40, 32, 1, 26, True),
        _paving(8, 8, 2, 14, False),
        _speckle("grass", 52, 26),
        _speckle("snow", 8, 10),
        _speckle("soil", 36, 30),
    ]
    out = np.empty((7, len(tiles), TILE, TILE), np.uint8)
    for i, tile in enumerate(tiles):
        small = np.clip(tile, 0, 255).astype(np.uint8)
        for level in range(len(out)):
            factor = 1 << level
            out[level, i] = small.repeat(factor, 0).repeat(factor, 1)
            small = halve(small)
    return out.reshape(len(out), len(tiles), -1)


@functools.cache
def bricks() -> np.ndarray:
    """Returns brickwork [TILE, TILE] uint8 around 128: 32 courses of 11 bricks, 2.4 m square."""
    return np.clip(_paving(32, 11, 1, 34, True), 0, 255).astype(np.uint8)


def tint(colour: np.ndarray, gain: Point) -> np.ndarray:
    """Multiplies uint8 `colour` [..., 3] per channel."""
    factor = np.array([int(g * 256) for g in gain], np.uint16)
    return np.minimum((colour.astype(np.uint32) * factor) >> 8, 255).astype(np.uint8)


def hole_filled(colour: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Gives the holes the mean colour of the rest, so that coarse levels get no dark rim."""
    solid = label != NOTHING
    mean = [
        int(colour[..., c][solid].astype(np.int64).sum()) // max(int(solid.sum()), 1)
        for c in range(3)
    ]
    return np.where(solid[..., None], colour, np.array(mean, np.uint8))

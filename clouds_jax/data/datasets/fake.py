"""Coloured rectangles with exact labels, for tests: a sound model learns them in minutes."""

import functools
from collections.abc import Sequence

import numpy as np

from clouds_jax.constants import IGNORE
from clouds_jax.data.classes import SPACES
from clouds_jax.data.datasets.spec import DatasetSpec, Rendered, Source

_SIZE = (96, 128)
_RECTANGLES = 12


def draw(seed: int, index: int, size: tuple[int, int] = _SIZE) -> Rendered:
    """Draws one picture: rectangles of the classes' colours over a background of one class.

    Args:
        seed: seed of the split.
        index: index of the picture in the split.
        size: (h, w) in pixels.
    """
    rng = np.random.default_rng((seed, index))
    space = SPACES["cityscapes19"]
    h, w = size
    label = np.full(size, rng.integers(len(space)), np.uint8)
    for _ in range(_RECTANGLES):
        y, x = rng.integers(h), rng.integers(w)
        height, width = rng.integers(h // 8, h // 2), rng.integers(w // 8, w // 2)
        label[y : y + height, x : x + width] = rng.integers(len(space))
    image = space.palette()[label].astype(np.int16)
    image += rng.integers(-12, 13, (*size, 1), dtype=np.int16)
    y, x = rng.integers(h - h // 8), rng.integers(w - w // 8)
    label[y : y + h // 8, x : x + w // 8] = IGNORE
    return np.clip(image, 0, 255).astype(np.uint8), label


def examples(
    raw: None, split: str, *, seed: int | None = None, count: int = 16
) -> Sequence[Source]:
    """`count` pictures, each a function of (seed, index); "train" shares none with other splits."""
    del raw  # nothing is read
    if seed is None:
        seed = 0 if split == "train" else 1
    return [
        Source(f"fake/{seed:03d}_{index:05d}", render=functools.partial(draw, seed, index))
        for index in range(count)
    ]


SPEC = DatasetSpec(
    name="fake",
    label_space="cityscapes19",
    splits={},
    examples=examples,
    generated=True,
    homepage="drawn by this code",
    licence="none",
)

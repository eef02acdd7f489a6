"""Runs PyTorch and clouds_jax with the same weights on the same images, tap by tap.

Weights are those of a file, or random ones (`porting.reference.randomise`). Either way they
reach the PyTorch side as a state dict with the family's names, and our side through the family's
rule table, so that a good report proves the table too.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from clouds_jax.encoders import get_encoder
from clouds_jax.nn import clouds
from porting.compare import Tap, compare
from porting.compare_encoder import compare_encoder
from porting.compare_head import compare_head
from porting.recording import record, reference_scores
from porting.sides import EncoderPair, HeadPair, Sides, from_file, from_random
from porting.steps import pure
from porting.tables import get_table
from porting.tolerances import Tolerance, get_tolerance

# Images (b, h, w) of the random runs, one per seed in turn. Odd and not square, so that every
# rounding and every swap of axes shows. Heads alone get features of the padded size.
_SHAPES = {
    "tiny": ((2, 75, 101), (1, 93, 67), (2, 64, 110)),
    "full": ((2, 371, 461), (2, 353, 481), (1, 509, 395)),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One run on one batch.

    Attributes:
        name: of the batch.
        checkpoint: of the weights.
        taps: in the model's order.
    """

    name: str
    checkpoint: dict[str, Any]
    taps: tuple[Tap, ...]


def run(
    family: str,
    *,
    weights: str | None = None,
    encoder: str | None = None,
    size: str = "tiny",
    seeds: int = 2,
    images: Sequence[Path] = (),
    heads: int = 8,
) -> tuple[Sides, list[Case], Tolerance]:
    """Compares a family.

    Args:
        family: name of the rule table.
        weights: checkpoint file; None draws random ones.
        encoder: of random models; None takes the first of the family.
        size: "tiny" or "full", of random models and random images.
        seeds: how many random models (without `weights`) and random batches (without `images`).
        images: photos, one batch each.
        heads: attention heads of a head from a file.

    Returns:
        The last pair of models, one case per batch, and the bounds.
    """
    table = get_table(family)
    tolerance = get_tolerance("float32", jax.default_backend())
    photos = [(path.name, _photo(path)) for path in images]
    file = from_file(table, weights, heads) if weights else None
    cases: list[Case] = []
    sides = file
    with jax.default_matmul_precision("highest"):
        for seed in range(1 if weights and images else seeds):
            sides = file or from_random(table, size, seed, encoder)
            for name, pixels in photos or [_random_batch(size, seed)]:
                taps = tuple(_compare(sides, pixels, seed, tolerance))
                cases.append(Case(f"{name}, seed {seed}", sides.checkpoint, taps))
    if sides is None:
        raise ValueError(f"seeds is {seeds}; at least 1 is needed to compare anything.")
    return sides, cases, tolerance


def _photo(path: Path) -> np.ndarray:
    return np.asarray(PIL.Image.open(path).convert("RGB"))[None]


def _random_batch(size: str, seed: int) -> tuple[str, np.ndarray]:
    shape = _SHAPES[size][seed % len(_SHAPES[size])]
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    return "random images " + "x".join(map(str, shape)), pixels


def _compare(sides: Sides, pixels: np.ndarray, seed: int, tolerance: Tolerance) -> list[Tap]:
    """All taps of one batch of RGB images 0..255."""
    b, h, w, _ = pixels.shape
    if sides.encoder is None:
        assert sides.head is not None
        features = _random_features(sides.head.widths, (b, h, w), seed)
        return compare_head(sides.head.theirs, sides.head.ours, features, (h, w), tolerance)
    pair = sides.encoder
    x = clouds.normalise(jnp.asarray(pixels), get_encoder(pair.name))
    if sides.head is None:
        return compare_encoder(pair.theirs, pair.ours, np.asarray(x), tolerance)[0]
    x = np.asarray(clouds.pad(x))
    taps, features = compare_encoder(pair.theirs, pair.ours, x, tolerance)
    taps += compare_head(sides.head.theirs, sides.head.ours, features, (h, w), tolerance)
    return [*taps, _whole(pair, sides.head, x, features, (h, w), tolerance)]


def _whole(
    encoder: EncoderPair,
    head: HeadPair,
    x: np.ndarray,
    features: dict[str, np.ndarray],
    size: tuple[int, int],
    tolerance: Tolerance,
) -> Tap:
    """Class scores of ours from the padded images on, against those of the whole reference.

    Only the map of classes is judged: masks may flip.
    """
    own = pure(encoder.ours, lambda m, x: m(x))(x)
    prediction = pure(head.ours, lambda m, f: m(f, all_outputs=False))(own)
    ours = jax.jit(head.ours.scores, static_argnums=1)(prediction, size)
    kept = record(head.theirs, features)
    theirs = reference_scores(kept.class_logits[-1], kept.mask_logits[-1], size)
    return compare("class_scores of the images", "chain", ours, theirs, tolerance, judged=False)


def _random_features(
    widths: tuple[int, ...], shape: tuple[int, int, int], seed: int
) -> dict[str, np.ndarray]:
    """Features of the padded images' size, with values like those of an encoder."""
    rng = np.random.default_rng(seed)
    b, h, w = shape
    padded = [-(-n // clouds.STRIDE) * clouds.STRIDE for n in (h, w)]
    return {
        f"res{level}": rng.normal(
            0.2, 1.0, (b, padded[0] >> level, padded[1] >> level, width)
        ).astype(np.float32)
        for level, width in enumerate(widths, start=2)
    }

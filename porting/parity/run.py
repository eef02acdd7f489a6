"""Runs PyTorch and clouds_jax with the same weights on the same images, tap by tap.

Weights are those of a file, or random ones (`porting.reference.randomise`). Either way they
reach the PyTorch side as a state dict with the family's names, and our side through the family's
rule table, so that a good report proves the table too.

What PyTorch computes is recorded first and compared afterwards, so that it can also be kept in a
file (`porting.parity.recordings_file`) and compared where PyTorch is not installed.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from clouds_jax.nn import clouds
from porting.parity.compare_encoder import compare_encoder
from porting.parity.compare_head import compare_head
from porting.parity.jax_steps import pure
from porting.parity.model_pair import Sides, pixels_to_input
from porting.parity.recordings import CaseRecord
from porting.parity.tap import Tap, compare
from porting.parity.tolerances import Tolerance, get_tolerance
from porting.tables import get_table

# Images (b, h, w) of the random runs, one per seed in turn. Odd and not square, so that every
# rounding and every swap of axes shows. Heads alone get features of the padded size.
_SHAPES = {
    "tiny": ((2, 75, 101), (1, 93, 67), (2, 64, 110)),
    "full": ((2, 371, 461), (2, 353, 481), (1, 509, 395)),
}
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


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
    dtype: str = "float32",
    converted: Path | None = None,
    store: Path | None = None,
) -> tuple[Sides, list[Case], Tolerance]:
    """Compares a family.

    Args:
        family: name of the rule table.
        weights: checkpoint file; None draws random ones.
        encoder: our name; None takes the first of the family, or the one that fits `weights`.
        size: "tiny" or "full", of random models and random images.
        seeds: how many random models (without `weights`) and random batches (without `images`).
        images: photos, or folders of them, one batch each.
        heads: attention heads of a head from a file.
        dtype: of our encoder; the reference is float32.
        converted: folder of weights that our side takes, instead of converting `weights` again.
        store: file to keep the reference's runs in.

    Returns:
        The last pair of models, one case per batch, and the bounds.
    """
    table = get_table(family)
    tolerance = get_tolerance(dtype, jax.default_backend())
    from porting.parity import sam  # which imports this module

    if sam.of_sam(table):
        if dtype != "float32" or converted or store:
            raise ValueError("SAM is compared in float32, from its files, and not stored.")
        numbers: dict[str, Any] = dict(weights=weights, encoder=encoder, size=size, seeds=seeds)
        with jax.default_matmul_precision("highest"):
            photos = _photos(images)
            return *sam.run(table, tolerance, photos=photos, **numbers), tolerance
    cases: list[Case] = []
    kept: list[tuple[Sides, CaseRecord]] = []
    sides = None
    with jax.default_matmul_precision("highest"):
        for sides, record in _records(
            table, weights, encoder, size, seeds, _photos(images), heads, dtype, converted
        ):
            cases.append(_case(sides, record, tolerance))
            if store:
                kept.append((sides, record))
    if sides is None:
        raise ValueError(f"seeds is {seeds}; at least 1 is needed to compare anything.")
    if store:
        from porting.parity import recordings_file

        recordings_file.write(store, kept, with_weights=weights is None, heads=heads)
    return sides, cases, tolerance


def run_stored(
    file: Path, *, weights: str | None = None, dtype: str = "float32"
) -> tuple[Sides, list[Case], Tolerance]:
    """Compares with the reference's runs of a file; needs no PyTorch.

    Args:
        file: what `run(store=...)` has written.
        weights: the checkpoint, where the runs were made with one.
        dtype: of our encoder.
    """
    from porting.parity import recordings_file

    tolerance = get_tolerance(dtype, jax.default_backend())
    cases, sides = [], None
    with jax.default_matmul_precision("highest"):
        for sides, record in recordings_file.read(file, weights, dtype):
            cases.append(_case(sides, record, tolerance))
    if sides is None:
        raise ValueError(f"{file} holds no runs.")
    return sides, cases, tolerance


def _records(
    table, weights, encoder, size, seeds, photos, heads, dtype, converted
) -> Iterator[tuple[Sides, CaseRecord]]:
    """The reference's runs, with the models they are of."""
    from porting.parity import torch_models

    file = None
    if weights:
        file = torch_models.from_file(table, weights, heads, dtype, converted, encoder)
    for seed in range(1 if weights and photos else seeds):
        sides = file or torch_models.from_random(table, size, seed, encoder, dtype)
        for name, pixels in photos or [_random_batch(size, seed)]:
            yield sides, _record(sides, f"{name}, seed {seed}", pixels, seed)


def _record(sides: Sides, name: str, pixels: np.ndarray, seed: int) -> CaseRecord:
    """Runs the reference on RGB images 0..255."""
    from porting.parity import record as recording

    b, h, w, _ = pixels.shape
    encoder = head = None
    features: dict[str, np.ndarray] = {}
    if sides.encoder:
        x = pixels_to_input(pixels, sides.encoder)
        x = clouds.pad(x) if sides.head else x  # alone, an encoder shows how it takes odd sizes
        encoder = recording.record_encoder(sides.encoder.theirs, np.asarray(x))
        features = encoder.features
    if sides.head:
        features = features or _random_features(sides.head.widths, (b, h, w), seed)
        head = recording.record_head(sides.head.theirs, features, (h, w))
    return CaseRecord(name, sides.checkpoint, (h, w), encoder, head)


def _case(sides: Sides, record: CaseRecord, tolerance: Tolerance) -> Case:
    """Compares ours with one run of the reference."""
    taps: list[Tap] = []
    if sides.encoder and record.encoder:
        taps += compare_encoder(record.encoder, sides.encoder.ours, tolerance, sides.dtype)
    if sides.head and record.head:
        taps += compare_head(record.head, sides.head.ours, record.size, tolerance)
    if sides.encoder and sides.head and record.encoder and record.head:
        taps.append(_whole(sides, record, tolerance))
    return Case(record.name, record.checkpoint, tuple(taps))


def _whole(sides: Sides, record: CaseRecord, tolerance: Tolerance) -> Tap:
    """Class scores of ours from the padded images on, against those of the whole reference.

    Only the map of classes is judged: masks may flip.
    """
    assert sides.encoder and sides.head and record.encoder and record.head
    own = pure(sides.encoder.ours, lambda m, x: m(x))(
        jnp.asarray(record.encoder.images, sides.dtype)
    )
    prediction = pure(sides.head.ours, lambda m, f: m(f, all_outputs=False))(own)
    ours = jax.jit(sides.head.ours.scores, static_argnums=1)(prediction, record.size)
    theirs = record.head.float32.class_scores
    return compare("class_scores of the images", "chain", ours, theirs, tolerance, judged=False)


def _photos(images: Sequence[Path]) -> list[tuple[str, np.ndarray]]:
    """Name and pixels of photos; of a folder all that are in it."""
    files = []
    for path in images:
        found = [path]
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in _IMAGE_ENDINGS)
            if not found:
                endings = ", ".join(_IMAGE_ENDINGS)
                raise FileNotFoundError(f"{path} has no images; they end in {endings}.")
        files += found
    return [(path.name, _photo(path)) for path in files]


def _photo(path: Path) -> np.ndarray:
    return np.asarray(PIL.Image.open(path).convert("RGB"))[None]


def _random_batch(size: str, seed: int) -> tuple[str, np.ndarray]:
    shape = _SHAPES[size][seed % len(_SHAPES[size])]
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    return "random images " + "x".join(map(str, shape)), pixels


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

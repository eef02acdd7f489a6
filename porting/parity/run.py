"""Runs PyTorch and JAX with the same weights on the same images, and compares tap by tap.

Weights are those of a file, or random (`porting.reference.randomise`). Either way they reach
PyTorch as a state dict with the family's names, and JAX through the family's rule table, so that a
good report verifies the table too.

PyTorch's outputs are recorded first and compared afterwards, so that they can be stored in a file
(`porting.parity.recordings_file`) and compared where PyTorch is not installed.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from clouds_jax.nn import clouds
from porting.files.open import EVERYTHING, Selection
from porting.parity import recordings_file, sam
from porting.parity.case import Case, ParityResult
from porting.parity.compare_encoder import compare_encoder
from porting.parity.compare_head import compare_head
from porting.parity.jax_steps import jitted
from porting.parity.model_pair import ModelPair, normalised
from porting.parity.recordings import CaseRecord
from porting.parity.tap import Tap, compare
from porting.parity.tolerances import MATMUL_PRECISION, Tolerance, get_tolerance
from porting.tables import Table, get_table

# Sizes (b, h, w) of random images, one per seed in turn. Odd and not square, so that every rounding
# and every swap of axes shows. Heads alone get features of the padded size.
_SHAPES = {
    "tiny": ((2, 75, 101), (1, 93, 67), (2, 64, 110)),
    "full": ((2, 371, 461), (2, 353, 481), (1, 509, 395)),
}
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """The models of a parity run.

    Attributes:
        table: rules of the family.
        weights: checkpoint file; None draws random weights.
        encoder: name in `ENCODERS` or `SAMS`; None takes the first of the family, or the one that
            fits `weights`.
        size: "tiny" or "full", of random models and random images.
        heads: attention heads of a head from a file.
        dtype: dtype of the JAX encoder; the reference is float32.
        converted: weights folder for the JAX side, instead of converting `weights` in memory.
        selection: the tensors of `weights` to read.
    """

    table: Table
    weights: str | None = None
    encoder: str | None = None
    size: str = "tiny"
    heads: int = 8
    dtype: str = "float32"
    converted: Path | None = None
    selection: Selection = EVERYTHING


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
    selection: Selection = EVERYTHING,
) -> ParityResult:
    """Compares PyTorch and JAX on one family.

    Args:
        family: name of the rule table.
        weights, encoder, size, heads, dtype, converted, selection: see `ModelSource`.
        seeds: number of random models (without `weights`) and random batches (without `images`).
        images: photos, or folders of them, one batch each.
        store: file for the recorded runs of PyTorch.
    """
    tolerance = get_tolerance(dtype, jax.default_backend())
    source = ModelSource(
        get_table(family), weights, encoder, size, heads, dtype, converted, selection
    )
    photos = _photos(images)
    with jax.default_matmul_precision(MATMUL_PRECISION):
        if sam.is_sam(source.table):
            if dtype != "float32" or converted or store:
                raise ValueError("SAM is compared in float32, from its files, and not stored.")
            return sam.run(
                source.table,
                tolerance,
                weights=weights,
                encoder=encoder,
                size=size,
                seeds=seeds,
                photos=photos,
                selection=selection,
            )
        runs, cases, pair = [], [], None
        for pair, record in _records(source, photos, seeds):
            cases.append(_compare(pair, record, tolerance))
            if store:
                runs.append((pair, record))
    if pair is None:
        raise ValueError(f"seeds is {seeds}; at least 1 is needed to compare anything.")
    if store:
        recordings_file.write(store, runs, with_weights=weights is None, heads=heads)
    return ParityResult(pair, cases, tolerance)


def run_stored(
    file: Path,
    *,
    weights: str | None = None,
    dtype: str = "float32",
    selection: Selection = EVERYTHING,
) -> ParityResult:
    """Compares JAX with the recorded runs of a file; needs no PyTorch.

    Args:
        file: written by `run(store=...)`.
        weights: checkpoint of the runs, where they were recorded with one.
        dtype: dtype of the JAX encoder.
        selection: the tensors of `weights` to read.
    """
    tolerance = get_tolerance(dtype, jax.default_backend())
    cases, pair = [], None
    with jax.default_matmul_precision(MATMUL_PRECISION):
        for pair, record in recordings_file.read(file, weights, dtype, selection):
            cases.append(_compare(pair, record, tolerance))
    if pair is None:
        raise ValueError(f"{file} holds no runs.")
    return ParityResult(pair, cases, tolerance)


def _records(
    source: ModelSource, photos: Sequence[tuple[str, np.ndarray]], seeds: int
) -> Iterator[tuple[ModelPair, CaseRecord]]:
    """Records the reference on every batch; yields it with the models."""
    from porting.parity import torch_models  # `run_stored` does without torch

    fixed = None
    if source.weights:
        fixed = torch_models.from_file(
            source.table,
            source.weights,
            source.heads,
            dtype=source.dtype,
            converted=source.converted,
            encoder=source.encoder,
            selection=source.selection,
        )
    for seed in range(1 if source.weights and photos else seeds):
        pair = fixed or torch_models.from_random(
            source.table, source.size, seed, encoder=source.encoder, dtype=source.dtype
        )
        for name, pixels in photos or [_random_batch(source.size, seed)]:
            yield pair, _record(pair, f"{name}, seed {seed}", pixels, seed)


def _record(pair: ModelPair, name: str, pixels: np.ndarray, seed: int) -> CaseRecord:
    """Runs the reference on RGB images (b, h, w, 3), 0..255."""
    from porting.parity.record import record_encoder, record_head

    b, h, w, _ = pixels.shape
    encoder = head = None
    features: dict[str, np.ndarray] = {}
    if pair.encoder:
        x = normalised(pixels, pair.encoder)
        x = clouds.pad(x) if pair.head else x  # an encoder alone shows how it treats odd sizes
        encoder = record_encoder(pair.encoder.torch, np.asarray(x))
        features = encoder.features
    if pair.head:
        features = features or _random_features(pair.head.widths, (b, h, w), seed)
        head = record_head(pair.head.torch, features, (h, w))
    return CaseRecord(name, pair.checkpoint, (h, w), encoder, head)


def _compare(pair: ModelPair, record: CaseRecord, tolerance: Tolerance) -> Case:
    """Compares the JAX models with one recorded run."""
    taps: list[Tap] = []
    if pair.encoder and record.encoder:
        taps += compare_encoder(record.encoder, pair.encoder.jax, tolerance, pair.dtype)
    if pair.head and record.head:
        taps += compare_head(record.head, pair.head.jax, record.size, tolerance)
    if pair.encoder and pair.head and record.encoder and record.head:
        taps.append(_compare_scores(pair, record, tolerance))
    return Case(record.name, record.checkpoint, tuple(taps))


def _compare_scores(pair: ModelPair, record: CaseRecord, tolerance: Tolerance) -> Tap:
    """Compares class scores from the padded images on, through the whole model.

    Reported only, since masks may flip.
    """
    assert pair.encoder and pair.head and record.encoder and record.head
    features = jitted(pair.encoder.jax, lambda m, x: m(x))(
        jnp.asarray(record.encoder.images, pair.dtype)
    )
    prediction = jitted(pair.head.jax, lambda m, f: m(f, all_outputs=False))(features)
    scores = jax.jit(pair.head.jax.scores, static_argnums=1)(prediction, record.size)
    expected = record.head.float32.class_scores
    return compare("class_scores of the images", "chain", scores, expected, tolerance, judged=False)


def _photos(images: Sequence[Path]) -> list[tuple[str, np.ndarray]]:
    """Name and pixels (1, h, w, 3) of each photo; of a folder, of all photos in it."""
    files = []
    for path in images:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in _IMAGE_ENDINGS)
        if not inside:
            endings = ", ".join(_IMAGE_ENDINGS)
            raise FileNotFoundError(f"{path} has no images; they end in {endings}.")
        files += inside
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
    """Features of the padded images' size, distributed like those of an encoder."""
    rng = np.random.default_rng(seed)
    b, h, w = shape
    padded = [-(-n // clouds.STRIDE) * clouds.STRIDE for n in (h, w)]
    return {
        f"res{level}": rng.normal(
            0.2, 1.0, (b, padded[0] >> level, padded[1] >> level, width)
        ).astype(np.float32)
        for level, width in enumerate(widths, start=2)
    }

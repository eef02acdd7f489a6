"""Parity of SAM: image encoder, decoder, or both. `porting.parity.run` does the other families."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from flax import nnx

from clouds_jax.nn.sam.decoder import DecoderSize, PromptedMasks, input_size
from clouds_jax.nn.sam.registry import get_sam, preprocess
from porting.conversion.conversion import match
from porting.conversion.convert import prepare
from porting.files.open import Selection
from porting.parity.case import Case, ParityResult
from porting.parity.compare_sam import compare_sam
from porting.parity.model_pair import ModelPair, random_provenance, with_weights
from porting.parity.recordings import SamRecord
from porting.parity.tolerances import Tolerance
from porting.tables import Table

DEBUG = {
    "sam_vit_b": "sam_debug",
    "sam_vit_l": "sam_debug_l",
    "sam_vit_h": "sam_debug_h",
    "sam_tiny_vit": "mobile_sam_debug",
}
# Point labels of three prompts with five points each: inside (1), outside (0), no point (-1).
_LABELS = ((1, 1, 1, 1, 1), (1, 0, 1, 1, -1), (0, 1, 1, 0, 1))
_RANDOM_SIZE = (211, 301)  # (h, w) of random images


def is_sam(table: Table) -> bool:
    """Whether the files of a family hold a SAM or its decoder."""
    return any(str(rule.target).startswith("sam.") for rule in table.rules)


def run(
    table: Table,
    tolerance: Tolerance,
    *,
    weights: str | None,
    encoder: str | None,
    size: str,
    seeds: int,
    photos: Sequence[tuple[str, np.ndarray]],
    selection: Selection,
) -> ParityResult:
    """Compares a family of SAM; arguments as in `porting.parity.run.run`."""
    pair, cases = None, []
    for seed in range(1 if weights and photos else seeds):
        if pair is None or not weights:
            reference, model, pair = _models(table, weights, encoder, size, seed, selection)
        for name, record in _records(reference, pair.conversion.target.sam, photos, seed):
            taps = tuple(compare_sam(record, model, tolerance))
            cases.append(Case(f"{name}, seed {seed}", pair.checkpoint, taps))
    if pair is None:
        raise ValueError(f"seeds is {seeds}; at least 1 is needed to compare anything.")
    return ParityResult(pair, cases, tolerance)


def _models(
    table: Table,
    weights: str | None,
    encoder: str | None,
    size: str,
    seed: int,
    selection: Selection,
) -> tuple[Any, PromptedMasks, ModelPair]:
    """The PyTorch and the JAX model with the same weights, and the conversion between them."""
    from porting.reference.sam import build_sam, load_tensors, random_sam

    if weights:
        conversion = prepare(table.name, weights, encoder=encoder, selection=selection)
        reference = load_tensors(build_sam(conversion.target.sam), conversion.state)
    else:
        if encoder is None and table.encoders:
            encoder = DEBUG[table.name] if size == "tiny" else table.encoders[0]
        reference = random_sam(encoder, seed)
        state = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
        conversion = match(state, random_provenance(state, seed), table, encoder=encoder)
    name = conversion.target.sam

    def build(rngs: nnx.Rngs) -> PromptedMasks:
        return get_sam(name).build(rngs) if name else PromptedMasks(rngs=rngs)

    model = with_weights(build, conversion.tree()["sam"])
    return reference, model, ModelPair(conversion)


def _records(
    reference: Any, sam: str | None, photos: Sequence[tuple[str, np.ndarray]], seed: int
) -> Iterator[tuple[str, SamRecord]]:
    """Records the reference on photos, on a random image, or a decoder on a random embedding."""
    from porting.parity.record_sam import record_sam

    rng = np.random.default_rng(seed)
    labels = np.asarray(_LABELS, np.int32)
    if sam is None:
        size = DecoderSize()
        embedding = rng.normal(0, 0.3, (1, size.grid, size.grid, size.dim)).astype(np.float32)
        points = _random_points(rng, (size.image, size.image))
        yield "random embedding", record_sam(reference, points, labels, embedding=embedding)
        return
    spec = get_sam(sam)
    random = rng.integers(0, 256, (1, *_RANDOM_SIZE, 3), np.uint8)
    for name, pixels in photos or [("random image", random)]:
        points = _random_points(rng, input_size(pixels.shape[1:3], spec.image))
        images = preprocess(pixels, spec)
        yield name, record_sam(reference, points, labels, images=images)


def _random_points(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Points (x, y) inside the unpadded part, `size` (h, w), of the encoder's input."""
    shape = (*np.shape(_LABELS), 2)
    return rng.uniform(0, size[::-1], shape).astype(np.float32)

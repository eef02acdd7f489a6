"""Parity of SAM: image encoder, decoder, or both; what `porting.parity.run` is for the rest."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from flax import nnx

from clouds_jax.nn.sam.decoder import DecoderSize, PromptedMasks, input_size
from clouds_jax.nn.sam.registry import get_sam, preprocess
from porting.conversion.convert import prepare
from porting.conversion.targets import choose
from porting.files.open import tensor_hash
from porting.parity.compare_sam import compare_sam
from porting.parity.model_pair import Sides, with_weights
from porting.parity.run import Case
from porting.parity.tolerances import Tolerance
from porting.tables import Table
from porting.tables.rules import apply_rules, plan

DEBUG = {
    "sam_vit_b": "sam_debug",
    "sam_vit_l": "sam_debug_l",
    "sam_vit_h": "sam_debug_h",
    "sam_tiny_vit": "mobile_sam_debug",
}
# inside, outside, no point; every prompt has five
_LABELS = ((1, 1, 1, 1, 1), (1, 0, 1, 1, -1), (0, 1, 1, 0, 1))
_RANDOM_PHOTO = (211, 301)  # h and w of random images


def of_sam(table: Table) -> bool:
    """Whether a family's files hold a SAM or its decoder."""
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
) -> tuple[Sides, list[Case]]:
    """Compares a family of SAM; see `porting.parity.run.run` for the arguments."""
    sides, cases = None, []
    for seed in range(1 if weights and photos else seeds):
        if sides is None or not weights:
            theirs, ours, sides = _models(table, weights, encoder, size, seed)
        for name, record in _records(theirs, ours, sides, photos, seed):
            taps = tuple(compare_sam(record, ours, tolerance))
            cases.append(Case(f"{name}, seed {seed}", sides.checkpoint, taps))
    if sides is None:
        raise ValueError(f"seeds is {seeds}; at least 1 is needed to compare anything.")
    return sides, cases


def _models(
    table: Table, weights: str | None, encoder: str | None, size: str, seed: int
) -> tuple[Any, PromptedMasks, Sides]:
    """PyTorch's model and ours with the same weights, and where these are from."""
    from porting.reference import sam as reference

    if weights:
        made = prepare(table.name, weights, encoder=encoder)
        state, target, checkpoint = made.state, made.target, made.provenance.to_json()
        theirs = reference.filled(reference.sam(target.sam), state)
    else:
        name = encoder
        if name is None and table.encoders:
            name = DEBUG[table.name] if size == "tiny" else table.encoders[0]
        theirs = reference.random_sam(name, seed)
        state = {path: tensor.numpy() for path, tensor in theirs.state_dict().items()}
        target = choose(state, table, encoder=name)
        text = "".join(f"{path} {tensor_hash(tensor)}\n" for path, tensor in state.items())
        checkpoint = {
            "file": f"random weights, seed {seed}",
            "format": "state dict of the PyTorch classes",
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }

    def build() -> PromptedMasks:
        rngs = nnx.Rngs(0)
        return get_sam(target.sam).build(rngs) if target.sam else PromptedMasks(rngs=rngs)

    tree = apply_rules(state, table.rules, target.want)
    ours = with_weights(build, tree["sam"])
    planned = plan(state, table.rules, target.want)
    return theirs, ours, Sides(table, target, planned, checkpoint, state, None, None)


def _records(
    theirs: Any,
    ours: PromptedMasks,
    sides: Sides,
    photos: Sequence[tuple[str, np.ndarray]],
    seed: int,
) -> Iterator[tuple[str, Any]]:
    """The reference's runs: on photos, on a random image, or a decoder on a random embedding."""
    from porting.reference import sam as reference

    rng = np.random.default_rng(seed)
    labels = np.asarray(_LABELS, np.int32)
    if sides.target.sam is None:
        size = DecoderSize()
        embedding = rng.normal(0, 0.3, (1, size.grid, size.grid, size.dim)).astype(np.float32)
        points = _points(rng, (size.image, size.image))
        yield "random embedding", reference.record(theirs, points, labels, embedding=embedding)
        return
    spec = get_sam(sides.target.sam)
    random = rng.integers(0, 256, (1, *_RANDOM_PHOTO, 3), np.uint8)
    for name, pixels in photos or [("random image", random)]:
        points = _points(rng, input_size(pixels.shape[1:3], spec.image))
        images = preprocess(pixels, spec)
        yield name, reference.record(theirs, points, labels, images=images)


def _points(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Places inside the part of the encoder's input that is image."""
    shape = (*np.shape(_LABELS), 2)
    return rng.uniform(0, size[::-1], shape).astype(np.float32)

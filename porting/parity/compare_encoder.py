"""An encoder of ours against its PyTorch reference: every block, every feature, the embedding."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from porting.parity.jax_steps import pure, steps
from porting.parity.recordings import EncoderRecord
from porting.parity.tap import Tap, compare
from porting.parity.tolerances import Tolerance


def compare_encoder(
    record: EncoderRecord, encoder: nnx.Module, tolerance: Tolerance, dtype: str = "float32"
) -> list[Tap]:
    """Runs ours on what the reference was given.

    Args:
        record: of the reference, with the weights that `encoder` was converted from.
        encoder: ours.
        tolerance: bounds.
        dtype: of the inputs of ours; that of its weights.

    Returns:
        The taps in the model's order.
    """

    def given(x: Any) -> Any:
        return jnp.asarray(x, dtype)

    taps: list[Tap] = []
    ours = pure(encoder, lambda m, x: m(x))(given(record.images))
    feature_of = {step: name for name, step in record.taps.items()}
    before = record.images
    for (name, theirs), (our_name, block) in zip(
        record.outputs.items(), steps(encoder), strict=True
    ):
        if name != our_name:
            raise ValueError(f"step {name} of the reference is {our_name} of ours")
        taps.append(compare(name, "block", block(given(before)), theirs, tolerance))
        before = theirs
        if name in feature_of:
            feature = feature_of[name]
            expected = record.features[feature]
            taps.append(compare(feature, "chain", ours[feature], expected, tolerance))
    if record.embedding is not None:
        embedding = pure(encoder, lambda m, f: m.embed(f))(ours)
        taps.append(compare("embedding", "chain", embedding, record.embedding, tolerance))
    return taps

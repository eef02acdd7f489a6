"""Compares a JAX encoder with its PyTorch reference: every block, feature and the embedding."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from porting.parity.jax_steps import encoder_steps, jitted
from porting.parity.recordings import EncoderRecord
from porting.parity.tap import Tap, compare
from porting.parity.tolerances import Tolerance


def compare_encoder(
    record: EncoderRecord, encoder: nnx.Module, tolerance: Tolerance, dtype: str = "float32"
) -> list[Tap]:
    """Runs the JAX encoder on the inputs of the recorded run.

    Args:
        record: of the reference with the same weights.
        encoder: the JAX encoder.
        tolerance: bounds.
        dtype: dtype of the inputs, equal to that of the weights.

    Returns:
        The taps in the model's order.
    """

    def cast(x: Any) -> Any:
        return jnp.asarray(x, dtype)

    taps: list[Tap] = []
    features = jitted(encoder, lambda m, x: m(x))(cast(record.images))
    feature_of = {step: name for name, step in record.taps.items()}
    block_input = record.images
    for (name, expected), (jax_name, block) in zip(
        record.outputs.items(), encoder_steps(encoder), strict=True
    ):
        if name != jax_name:
            raise ValueError(f"step {name} of the reference is {jax_name} of ours")
        taps.append(compare(name, "block", block(cast(block_input)), expected, tolerance))
        block_input = expected
        if name in feature_of:
            feature = feature_of[name]
            expected = record.features[feature]
            taps.append(compare(feature, "chain", features[feature], expected, tolerance))
    if record.embedding is not None:
        embedding = jitted(encoder, lambda m, f: m.embed(f))(features)
        taps.append(compare("embedding", "chain", embedding, record.embedding, tolerance))
    return taps

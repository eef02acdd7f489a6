"""Compares a JAX SAM with its PyTorch reference: blocks, embedding, masks and predicted IoU."""

import dataclasses
from typing import Any

from clouds_jax.nn.sam.decoder import PromptedMasks
from porting.parity.jax_steps import encoder_steps, jitted
from porting.parity.recordings import SamRecord
from porting.parity.tap import Tap, View, compare
from porting.parity.tolerances import Tolerance


def compare_sam(record: SamRecord, model: PromptedMasks, tolerance: Tolerance) -> list[Tap]:
    """Runs the JAX SAM on the inputs of the recorded run.

    Args:
        record: of the reference with the same weights.
        model: the JAX SAM, with an image encoder where the record has images.
        tolerance: bounds; its `agreement` is ignored, since the channels of an embedding are no
            classes.

    Returns:
        The taps in the model's order: blocks of the image encoder, then the decoder, each on the
        reference's input; then embedding, masks and IoU from the image on.
    """
    bounds = dataclasses.replace(tolerance, agreement=0.0)
    decode = jitted(model, lambda m, *args: m(*args))
    prompts = record.points, record.labels
    taps = []

    def check(name: str, view: View, actual: Any, expected: Any, exact: Any = None) -> None:
        taps.append(compare(name, view, actual, expected, bounds, exact=exact))

    block_input = record.images
    if model.image_encoder is not None:
        for (name, expected), (jax_name, block) in zip(
            record.outputs.items(), encoder_steps(model.image_encoder), strict=True
        ):
            if name != jax_name:
                raise ValueError(f"step {name} of the reference is {jax_name} of ours")
            check(name, "block", block(block_input), expected, record.exact[name])
            block_input = expected
    logits, iou = decode(record.embedding[0], *prompts)
    check("masks", "block", logits, record.logits)
    check("iou", "block", iou, record.iou)
    logits, iou = decode(record.embedding[0], *prompts, record.logits[..., 0])
    check("masks, second pass", "block", logits, record.second_pass[0])
    check("iou, second pass", "block", iou, record.second_pass[1])
    if model.image_encoder is not None:
        embedding = jitted(model.image_encoder, lambda m, x: m(x))(record.images)
        check("embedding", "chain", embedding, record.embedding)
        logits, iou = decode(embedding[0], *prompts)
        check("masks", "chain", logits, record.logits)
        check("iou", "chain", iou, record.iou)
    return taps

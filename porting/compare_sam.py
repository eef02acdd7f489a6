"""SAM against its PyTorch reference: every block, the embedding, masks and their predicted IoU."""

import dataclasses
from typing import TYPE_CHECKING

from clouds_jax.nn.sam import Sam
from porting.compare import Tap, compare
from porting.steps import pure, steps
from porting.tolerances import Tolerance

if TYPE_CHECKING:  # of torch's side; here only its numbers are read
    from porting.reference.sam import SamRecord


def compare_sam(record: "SamRecord", model: Sam, tolerance: Tolerance) -> list[Tap]:
    """Runs ours on what the reference was given.

    Args:
        record: of the reference, with the weights that `model` was converted from.
        model: ours.
        tolerance: bounds. How often the largest channel is the same one is not judged: the
            channels of an embedding are no classes.

    Returns:
        The taps in the model's order: blocks of the image encoder, then of the decoder, each on
        the reference's input; then embedding, masks and IoU from the image on.
    """
    bounds = dataclasses.replace(tolerance, agreement=0.0)
    encoder = model.image_encoder
    taps = []
    before = record.images
    for (name, theirs), (our_name, block) in zip(
        record.outputs.items(), steps(encoder), strict=True
    ):
        if name != our_name:
            raise ValueError(f"step {name} of the reference is {our_name} of ours")
        taps.append(compare(name, "block", block(before), theirs, bounds))
        before = theirs

    decode = pure(model, lambda m, *args: m(*args))
    prompts = record.points, record.labels
    found = decode(before[0], *prompts)
    again = decode(before[0], *prompts, record.logits[..., 0])
    for name, ours, theirs in (
        ("masks", found[0], record.logits),
        ("iou", found[1], record.iou),
        ("masks, second pass", again[0], record.again[0]),
        ("iou, second pass", again[1], record.again[1]),
    ):
        taps.append(compare(name, "block", ours, theirs, bounds))

    embedding = pure(encoder, lambda m, x: m(x))(record.images)
    logits, iou = decode(embedding[0], *prompts)
    taps.append(compare("embedding", "chain", embedding, before, bounds))
    taps.append(compare("masks", "chain", logits, record.logits, bounds))
    taps.append(compare("iou", "chain", iou, record.iou, bounds))
    return taps

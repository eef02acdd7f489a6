"""SAM against its PyTorch reference: every block, the embedding, masks and their predicted IoU."""

import dataclasses
from typing import TYPE_CHECKING, Any

from clouds_jax.nn.sam.decoder import PromptedMasks
from porting.parity.jax_steps import pure, steps
from porting.parity.tap import Tap, View, compare
from porting.parity.tolerances import Tolerance

if TYPE_CHECKING:  # of torch's side; here only its numbers are read
    from porting.reference.sam import SamRecord


def compare_sam(record: "SamRecord", model: PromptedMasks, tolerance: Tolerance) -> list[Tap]:
    """Runs ours on what the reference was given.

    Args:
        record: of the reference, with the weights that `model` was converted from.
        model: ours, with an image encoder where the record is of images.
        tolerance: bounds. How often the largest channel is the same one is not judged: the
            channels of an embedding are no classes.

    Returns:
        The taps in the model's order: blocks of the image encoder, then the decoder, each on the
        reference's input; then embedding, masks and IoU from the image on.
    """
    bounds = dataclasses.replace(tolerance, agreement=0.0)
    decode = pure(model, lambda m, *args: m(*args))
    prompts = record.points, record.labels
    taps = []

    def check(name: str, view: View, ours: Any, theirs: Any, exact: Any = None) -> None:
        taps.append(compare(name, view, ours, theirs, bounds, exact=exact))

    before = record.images
    if model.image_encoder is not None:
        for (name, theirs), (our_name, block) in zip(
            record.outputs.items(), steps(model.image_encoder), strict=True
        ):
            if name != our_name:
                raise ValueError(f"step {name} of the reference is {our_name} of ours")
            check(name, "block", block(before), theirs, record.exact[name])
            before = theirs
    logits, iou = decode(record.embedding[0], *prompts)
    check("masks", "block", logits, record.logits)
    check("iou", "block", iou, record.iou)
    logits, iou = decode(record.embedding[0], *prompts, record.logits[..., 0])
    check("masks, second pass", "block", logits, record.again[0])
    check("iou, second pass", "block", iou, record.again[1])
    if model.image_encoder is not None:
        embedding = pure(model.image_encoder, lambda m, x: m(x))(record.images)
        check("embedding", "chain", embedding, record.embedding)
        logits, iou = decode(embedding[0], *prompts)
        check("masks", "chain", logits, record.logits)
        check("iou", "chain", iou, record.iou)
    return taps

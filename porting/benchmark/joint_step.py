"""The joint step in the way of CLOUDS' released code, as a program to be timed.

In every step SAM encodes each generated image, components are found by SciPy on the host, and each
is prompted; all in float32, without torch.compile, as its configuration has it. Which SAM is asked
is an argument: the paper's is ViT-H, the code's default MobileSAM.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from clouds_jax.losses.points import Counts
from clouds_jax.nn.mask2former.size import HeadSize
from porting.benchmark.programs import Models, Program, drawn
from porting.reference import joint
from porting.reference import sam as reference_sam

_POINTS = 5  # of a component


def step(
    models: Models, image: np.ndarray, label: np.ndarray, new: np.ndarray, counts: Counts, *,
    sam: str, prompts: int,
) -> Program:  # fmt: skip
    """One step with random weights.

    Args:
        models: the encoder and the head; a copy of the head is trained.
        image: labelled images (b, h, w, 3), 0..255.
        label: theirs, (b, h, w).
        new: generated images (g, h, w, 3), the same for student, teacher and SAM.
        counts: of the criterion's points.
        sam: whose image encoder and decoder, by our name.
        prompts: components of an image that are large enough, at most.
    """
    from segment_anything import SamPredictor

    head = copy.deepcopy(models.torch_head)
    least = _make_opinionated(head, models, new, prompts)
    predictor = SamPredictor(reference_sam.sam(sam).eval().to(models.device))
    settings = joint.Settings(models.classes, min_area=least, uncertain=counts.uncertain)
    run = joint.Joint(
        lambda pixels: models.encode_now(models.images(pixels)), head, predictor.model, settings
    )
    bits = np.random.default_rng(0).integers(
        0, 2**31, (len(new), 1 + image[0, ..., 0].size // max(1, least), _POINTS)
    )
    outputs = HeadSize().decoder_layers + 1

    def embed(one: np.ndarray) -> torch.Tensor:
        predictor.set_image(one)
        return predictor.get_image_embedding()

    def call() -> dict[str, float]:
        with torch.no_grad():
            embedding = [embed(one) for one in new]
        return run.step(
            image, label, new, new, embedding, bits,
            lambda targets: [
                [drawn(t, counts, models.device) for t in targets] for _ in range(outputs)
            ],
        )  # fmt: skip

    return Program(call, models.device)


@torch.no_grad()
def _make_opinionated(head: nn.Module, models: Models, new: np.ndarray, prompts: int) -> int:
    """Lets queries say different classes, as trained ones do; returns the area that at most
    `prompts` components of every image exceed.

    Random queries all say the same class, and its one component would ask SAM once.
    """
    features = models.encode_now(models.images(new))
    classifier: Any = head.class_predictor
    logits = head(features)[0][-1]
    spread = 3 / logits.std()
    classifier.weight *= spread
    classifier.bias.copy_(-spread * (logits.mean((0, 1)) - classifier.bias))
    maps = joint.teach(head, features, new.shape[1:3])
    rest = [joint.areas(one) for one in maps]
    return max(_POINTS - 1, *(area[min(prompts, len(area) - 1)] for area in rest))

"""The joint step as in CLOUDS' released code, as a program to be timed.

In every step SAM encodes each generated image, SciPy finds components on the host, and each of them
is a prompt; all in float32 and without torch.compile, as in its configuration. The SAM is an
argument: the paper uses ViT-H, the code MobileSAM by default.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from clouds_jax.losses.points import Counts
from clouds_jax.nn.mask2former.size import HeadSize
from porting.benchmark.models import Models
from porting.benchmark.programs import Program, draw_points
from porting.reference import criterion, joint
from porting.reference import sam as reference_sam

_POINTS = 5  # per component


def step(
    models: Models,
    image: np.ndarray,
    label: np.ndarray,
    new: np.ndarray,
    counts: Counts,
    *,
    sam: str,
    prompts: int,
) -> Program:
    """One step with random weights.

    Args:
        models: the encoder, and the head of which a copy is trained.
        image: labelled images (b, h, w, 3), 0..255.
        label: their labels, (b, h, w).
        new: generated images (g, h, w, 3), the same for student, teacher and SAM.
        counts: numbers of the criterion's sampling points.
        sam: name in `SAMS`.
        prompts: largest number of prompts per image.
    """
    from segment_anything import SamPredictor

    head = copy.deepcopy(models.torch_head)
    min_area = _diversify(head, models, new, prompts)
    predictor = SamPredictor(reference_sam.build_sam(sam).eval().to(models.device))
    settings = joint.Settings(models.classes, min_area=min_area, uncertain=counts.uncertain)
    run = joint.Joint(
        lambda pixels: models.features(models.images(pixels)), head, predictor.model, settings
    )
    bits = np.random.default_rng(0).integers(
        0, 2**31, (len(new), 1 + image[0, ..., 0].size // max(1, min_area), _POINTS)
    )
    outputs = HeadSize().decoder_layers + 1

    def embed(pixels: np.ndarray) -> torch.Tensor:
        predictor.set_image(pixels)
        return predictor.get_image_embedding()

    def draw(targets: list[criterion.Target]) -> list[list[criterion.Points]]:
        return [[draw_points(t, counts, models.device) for t in targets] for _ in range(outputs)]

    def call() -> dict[str, float]:
        with torch.no_grad():
            embedding = [embed(pixels) for pixels in new]
        return run.step(image, label, new, new, embedding, bits, draw)

    return Program(call, models.device)


@torch.no_grad()
def _diversify(head: nn.Module, models: Models, new: np.ndarray, prompts: int) -> int:
    """Spreads the class logits so that queries predict different classes, as trained ones do.

    Random queries all predict the same class, whose one component would be a single prompt.

    Returns:
        The area that at most `prompts` components of every image exceed.
    """
    features = models.features(models.images(new))
    classifier: Any = head.class_predictor
    logits = head(features)[0][-1]
    spread = 3 / logits.std()
    classifier.weight *= spread
    classifier.bias.copy_(-spread * (logits.mean((0, 1)) - classifier.bias))
    maps = joint.class_map(head, features, new.shape[1:3])
    areas = [joint.component_areas(label) for label in maps]
    return max(_POINTS - 1, *(area[min(prompts, len(area) - 1)] for area in areas))

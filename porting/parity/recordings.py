"""What a PyTorch reference computed, in our layout: all that a comparison needs of it.

No torch here, so that stored recordings are compared where PyTorch is not installed.
"""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class EncoderRecord:
    """One run of an encoder.

    Attributes:
        images: normalised images, (b, h, w, 3).
        outputs: step -> its output, (b, h, w, c), in order; each is the input of the next step.
        taps: name of a feature -> the step after which it is taken.
        features: name -> (b, h, w, c); not always the step's output (`Reference.norms`).
        embedding: image embedding (b, d), or None for encoders that have none.
    """

    images: np.ndarray
    outputs: dict[str, np.ndarray]
    taps: dict[str, str]
    features: dict[str, np.ndarray]
    embedding: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class HeadOutputs:
    """Outputs of a Mask2Former head.

    Attributes:
        levels: outputs of the pixel decoder at strides 32, 16, 8.
        mask_features: mask features at stride 4.
        class_logits: (o, b, q, k+1).
        mask_logits: (o, b, h4, w4, q).
        class_scores: (b, h, w, k), of the last output.
    """

    levels: tuple[np.ndarray, ...]
    mask_features: np.ndarray
    class_logits: np.ndarray
    mask_logits: np.ndarray
    class_scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class HeadRecord:
    """One run of a Mask2Former head.

    Attributes:
        features: input of the head, res2 to res5.
        inputs: layer name -> its input, (b, s, d) or (b, q, d).
        outputs: layer name -> its output.
        positions: position encodings of the pixel decoder's tokens, (s, d).
        masks: attention mask of each decoder layer, (b, q, s), True where a query may attend;
            before the rule for rows without any True.
        float32: outputs in float32.
        float64: outputs in float64 with the same weights, features and attention masks.
    """

    features: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    positions: np.ndarray
    masks: list[np.ndarray]
    float32: HeadOutputs
    float64: HeadOutputs


@dataclasses.dataclass(frozen=True)
class CaseRecord:
    """One batch through encoder and head, or one of them.

    Attributes:
        name: name of the batch.
        checkpoint: provenance of the weights, as plain JSON.
        size: (h, w) of the images before padding.
        encoder, head: the recorded runs, or None.
    """

    name: str
    checkpoint: dict[str, Any]
    size: tuple[int, int]
    encoder: EncoderRecord | None
    head: HeadRecord | None


@dataclasses.dataclass(frozen=True)
class SamRecord:
    """One run of a SAM.

    Attributes:
        images: normalised and padded images, (1, s, s, 3); None for a decoder alone.
        outputs: step of the image encoder -> its output, (1, h, w, c).
        exact: the same in float64, from the same float32 inputs.
        embedding: image embedding, (1, g, g, d).
        points: point prompts (n, p, 2), (x, y) in pixels of the encoder's input.
        labels: (n, p): 1 inside the object, 0 outside, -1 for no point.
        logits: mask logits, (n, 4g, 4g, 3).
        iou: predicted IoU, (n, 3).
        second_pass: logits and IoU with the first mask of the first pass as a mask prompt.
    """

    images: np.ndarray | None
    outputs: dict[str, np.ndarray]
    exact: dict[str, np.ndarray]
    embedding: np.ndarray
    points: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    iou: np.ndarray
    second_pass: tuple[np.ndarray, np.ndarray]

"""What a PyTorch reference computed, in our layout: all that a comparison needs of it."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class EncoderRecord:
    """One run of an encoder.

    Attributes:
        images: normalised, (b, h, w, 3).
        outputs: step -> its output, (b, h, w, c), in order; each is the next one's input.
        taps: name of a feature -> the step after which it is taken.
        features: name -> (b, h, w, c); not always the step's output (`Reference.norms`).
        embedding: (b, d), of models that have one.
    """

    images: np.ndarray
    outputs: dict[str, np.ndarray]
    taps: dict[str, str]
    features: dict[str, np.ndarray]
    embedding: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class HeadOutputs:
    """What comes out of a Mask2Former head.

    Attributes:
        levels: pixel decoder outputs at strides 32, 16, 8.
        mask_features: at stride 4.
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
        features: its input, res2 to res5.
        inputs: layer name -> its input, (b, s, d) or (b, q, d).
        outputs: layer name -> its output.
        positions: position codes of the pixel decoder's tokens, (s, d).
        masks: True where a query may attend, per decoder layer, (b, q, s); before the rule for
            rows without any True.
        float32: what came out.
        float64: what came out of the same weights, features and masks in float64.
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
    """One batch through the reference.

    Attributes:
        name: of the batch.
        checkpoint: of the weights.
        size: (h, w) of the images before padding.
        encoder, head: what each computed; one of them may be absent.
    """

    name: str
    checkpoint: dict[str, Any]
    size: tuple[int, int]
    encoder: EncoderRecord | None
    head: HeadRecord | None

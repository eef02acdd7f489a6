"""Difference in mIoU between PyTorch and JAX on the same labelled images."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from clouds_jax.data import records
from clouds_jax.data.classes import SPACES
from clouds_jax.evaluation import metrics
from clouds_jax.nn import clouds
from porting.parity.jax_steps import jitted
from porting.parity.model_pair import ModelPair, normalised
from porting.parity.record import record_encoder, run_head
from porting.parity.tolerances import MATMUL_PRECISION, MIOU_BOUND


@dataclasses.dataclass(frozen=True)
class LabelledScores:
    """mIoU of both sides.

    Attributes:
        ref: the labelled set, "name/split".
        images: number of images, evenly spaced over the set.
        classes: number of classes in the mean.
        ours, theirs: mIoU of JAX and of PyTorch, 0..1.
        agreement: share of all pixels with the same class on both sides.
        good: whether the two mIoU differ by at most `MIOU_BOUND`.
    """

    ref: str
    images: int
    classes: int
    ours: float
    theirs: float
    agreement: float
    good: bool

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return dataclasses.asdict(self) | {"delta": self.ours - self.theirs}


def score_labelled(pair: ModelPair, ref: str, shards: Path, limit: int) -> LabelledScores:
    """Computes the mIoU of both sides on images of a labelled set, evenly spaced.

    Args:
        pair: models with encoder and head, of both frameworks.
        ref: "name/split".
        shards: folder with the shards, written by `clouds_jax.data.build`.
        limit: largest number of images.

    Raises:
        ValueError: encoder, head or PyTorch is missing, or the set has no labels.
    """
    target = pair.conversion.target
    if not pair.encoder or not pair.head or pair.encoder.torch is None:
        raise ValueError(
            f"family {pair.conversion.table.name} has no encoder and head here, so it predicts no"
            " classes; --labelled needs both, and PyTorch."
        )
    if limit < 1:
        raise ValueError(f"--limit is {limit}; at least one image is needed.")
    examples = records.open_ref(ref, shards)
    labels = records.read_summary(ref, shards)["label_space"]
    matrix = pair.head.matrix
    model = _space_of(len(matrix.counts) if matrix else target.classes or 0)
    rows, columns = len(SPACES[labels]), len(SPACES[model])
    confusions = {side: np.zeros((rows, columns), np.int64) for side in ("jax", "torch")}
    same = pixels = 0
    indices = sorted({i * len(examples) // limit for i in range(min(limit, len(examples)))})
    with jax.default_matmul_precision(MATMUL_PRECISION):
        encode = jitted(pair.encoder.jax, lambda m, x: m(x))
        decode = jitted(pair.head.jax, lambda m, f: m(f, all_outputs=False))
        to_scores = jax.jit(pair.head.jax.scores, static_argnums=1)
        for index in tqdm(indices, desc=ref, unit=" images"):
            example = examples[index]
            if example.image is None or example.label is None:
                raise ValueError(f"{ref}: {example.key} has no image or no label.")
            x = clouds.pad(normalised(example.image[None], pair.encoder))
            jax_scores = to_scores(decode(encode(x.astype(pair.dtype))), example.size)
            features = record_encoder(pair.encoder.torch, np.asarray(x)).features
            torch_scores = run_head(pair.head.torch, features, example.size).class_scores
            maps = {"jax": np.asarray(jax_scores).argmax(-1), "torch": torch_scores.argmax(-1)}
            for side, predicted in maps.items():
                label = jnp.asarray(example.label[None])
                counts = metrics.confusion(
                    jnp.asarray(predicted), label, classes=rows, columns=columns
                )
                confusions[side] += np.asarray(counts[0], np.int64)
            same += int((maps["jax"] == maps["torch"]).sum())
            pixels += maps["jax"].size
    absent = metrics.absent_of(ref)
    scores = {
        side: metrics.score(confusion, labels, model, absent)[0]
        for side, confusion in confusions.items()
    }
    return LabelledScores(
        ref=ref,
        images=len(indices),
        classes=len(scores["jax"].classes),
        ours=scores["jax"].miou,
        theirs=scores["torch"].miou,
        agreement=same / pixels,
        good=abs(scores["jax"].miou - scores["torch"].miou) <= MIOU_BOUND,
    )


def _space_of(classes: int) -> str:
    """Name of the label space with so many classes."""
    names = [name for name, space in SPACES.items() if len(space) == classes]
    if len(names) != 1:
        known = ", ".join(f"{name} ({len(space)})" for name, space in SPACES.items())
        raise ValueError(f"the head has {classes} classes; label spaces are: {known}.")
    return names[0]

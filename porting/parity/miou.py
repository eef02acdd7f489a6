"""How much mIoU a conversion costs: both models on the same labelled images."""

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
from porting.parity import record
from porting.parity.jax_steps import pure
from porting.parity.model_pair import Sides, pixels_to_input
from porting.parity.tolerances import MIOU_BOUND


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Scores of both sides.

    Attributes:
        ref: the labelled set, "name/split".
        images: how many of it, evenly spaced.
        classes: over how many classes mIoU is the mean.
        ours, theirs: mIoU, 0..1.
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


def score(sides: Sides, ref: str, shards: Path, limit: int) -> Labelled:
    """Scores both models on the first images, evenly spaced, of a labelled set.

    Args:
        sides: with encoder and head, and the reference of both.
        ref: "name/split".
        shards: folder that `clouds_jax.data.build` has written to.
        limit: how many images.
    """
    if not sides.encoder or not sides.head or sides.encoder.theirs is None:
        raise ValueError(
            f"family {sides.table.name} has no encoder and head here, so it predicts no classes;"
            " --labelled needs both, and PyTorch."
        )
    if limit < 1:
        raise ValueError(f"--limit is {limit}; at least one image is needed.")
    examples = records.open_ref(ref, shards)
    labels = records.read_summary(ref, shards)["label_space"]
    matrix = sides.head.matrix
    model = _space_of(len(matrix.counts) if matrix else sides.target.classes or 0)
    rows, columns = len(SPACES[labels]), len(SPACES[model])
    totals = {side: np.zeros((rows, columns), np.int64) for side in ("ours", "theirs")}
    same = pixels = 0
    indices = sorted({i * len(examples) // limit for i in range(min(limit, len(examples)))})
    with jax.default_matmul_precision("highest"):
        encode = pure(sides.encoder.ours, lambda m, x: m(x))
        decode = pure(sides.head.ours, lambda m, f: m(f, all_outputs=False))
        to_scores = jax.jit(sides.head.ours.scores, static_argnums=1)
        for index in tqdm(indices, desc=ref, unit=" images"):
            example = examples[index]
            if example.image is None or example.label is None:
                raise ValueError(f"{ref}: {example.key} has no image or no label.")
            x = clouds.pad(pixels_to_input(example.image[None], sides.encoder))
            ours = to_scores(decode(encode(x.astype(sides.dtype))), example.size)
            features = record.record_encoder(sides.encoder.theirs, np.asarray(x)).features
            theirs = record.run_head(sides.head.theirs, features, example.size).class_scores
            maps = {"ours": np.asarray(ours).argmax(-1), "theirs": theirs.argmax(-1)}
            for side, predicted in maps.items():
                label = jnp.asarray(example.label[None])
                counts = metrics.confusion(
                    jnp.asarray(predicted), label, classes=rows, columns=columns
                )
                totals[side] += np.asarray(counts[0], np.int64)
            same += int((maps["ours"] == maps["theirs"]).sum())
            pixels += maps["ours"].size
    absent = metrics.absent_of(ref)
    finest = {
        side: metrics.score(total, labels, model, absent)[0] for side, total in totals.items()
    }
    ours, theirs = finest["ours"].miou, finest["theirs"].miou
    return Labelled(
        ref=ref,
        images=len(indices),
        classes=len(finest["ours"].classes),
        ours=ours,
        theirs=theirs,
        agreement=same / pixels,
        good=abs(ours - theirs) <= MIOU_BOUND,
    )


def _space_of(classes: int) -> str:
    """The label space that a model of so many classes predicts in."""
    found = [name for name, space in SPACES.items() if len(space) == classes]
    if len(found) != 1:
        known = ", ".join(f"{name} ({len(space)})" for name, space in SPACES.items())
        raise ValueError(f"the head has {classes} classes; label spaces are: {known}.")
    return found[0]

"""The model of an experiment: encoder, head, classes."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from clouds_jax.data.classes import LabelSpace, get_space
from clouds_jax.nn.clouds import (
    Clouds,
    EnsembleSize,
    FPNSize,
    HeadSize,
    TextRows,
    build_model,
    text_rows,
)
from clouds_jax.nn.encoders.registry import get_encoder
from clouds_jax.nn.mask2former.size import DTYPES
from clouds_jax.nn.sam.decoder import DecoderSize, PromptedMasks
from clouds_jax.text import class_matrix, class_names

HEADS: dict[str, type[HeadSize] | type[FPNSize]] = {"mask2former": HeadSize, "fpn": FPNSize}


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
    """Geometric ensemble of the trained classifier with zero-shot CLIP.

    Attributes:
        alpha: share of CLIP's vote for classes that were trained, 0..1.
        beta: share of CLIP's vote for the others, 0..1.
        valid_masks: leave CLIP out of empty masks.
        trained: label space of the training.
    """

    alpha: float
    beta: float
    valid_masks: bool
    trained: LabelSpace


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What a model is: enough to build it, without weights.

    Attributes:
        encoder: name in `nn.encoders.registry.ENCODERS`.
        head: hyperparameters of the head; their type chooses the head.
        space: names and colours of the classes.
        dtype: dtype of the encoder's weights and arithmetic, "float32" or "bfloat16".
        ensemble: ensemble with zero-shot CLIP; None: off.

    Raises:
        ValueError, KeyError: parts that do not fit each other, by the config's keys.
    """

    encoder: str
    head: HeadSize | FPNSize
    space: LabelSpace
    dtype: str = "float32"
    ensemble: EnsembleConfig | None = None

    def __post_init__(self):
        get_encoder(self.encoder)
        if self.dtype not in DTYPES:
            raise ValueError(
                f"config.encoder.dtype is {self.dtype!r}; allowed are: {', '.join(DTYPES)}."
            )
        classes = len(self.space)
        if isinstance(self.head, HeadSize) and self.head.num_queries < classes:
            raise ValueError(
                f"config.head.num_queries is {self.head.num_queries};"
                f" {classes} classes need at least {classes}."
            )
        self._ensemble_size()

    @property
    def classifies_by_text(self) -> bool:
        """Whether the head compares queries with embedded class names."""
        return getattr(self.head, "classifier", "") == "text"

    def build(
        self,
        rngs: nnx.Rngs,
        *,
        sam: DecoderSize | Callable[[nnx.Rngs], PromptedMasks] | None = None,
    ) -> Clouds:
        """The model with random weights.

        Args:
            rngs: source of the weights.
            sam: SAM of the joint phase, see `nn.clouds.build_model`; None: without it.
        """
        return build_model(
            self.encoder, self.head, len(self.space), rows=self._rows(),
            ensemble=self._ensemble_size(), sam=sam, encoder_dtype=self.dtype, rngs=rngs,
        )  # fmt: skip

    def _rows(self) -> TextRows | None:
        if not (self.classifies_by_text or self.ensemble):
            return None
        names = class_names.class_names(self.space)
        return text_rows(self.encoder, class_names.class_of_row(names))

    def _ensemble_size(self) -> EnsembleSize | None:
        rows = self._rows()  # also refuses encoders without a text tower
        if not self.ensemble or rows is None:
            return None
        names = class_names.class_names(self.space)
        seen = class_names.seen_classes(names, class_names.class_names(self.ensemble.trained))
        return EnsembleSize(
            rows, seen, alpha=self.ensemble.alpha, beta=self.ensemble.beta,
            valid_masks=self.ensemble.valid_masks,
        )  # fmt: skip

    def class_matrices(self, folder: str | os.PathLike) -> dict[str, Any]:
        """Weights that CLIP's text tower computed, read beside the encoder's weights.

        Args:
            folder: folder where `python -m clouds_jax.text` wrote them.

        Returns:
            A part of the model's tree; empty for a model that reads no class names.
        """
        tree: dict[str, Any] = {}
        if not (self.classifies_by_text or self.ensemble):
            return tree
        loaded = class_matrix.load_class_matrix(folder, self.space)
        if self.classifies_by_text:
            tree["head"] = {"transformer_decoder": {"class_embed": {"matrix": loaded.matrix}}}
        if self.ensemble:
            scale = np.float32(loaded.logit_scale)
            tree["ensemble"] = {"matrix": loaded.matrix, "logit_scale": scale}
        return tree

    def as_json(self) -> dict[str, Any]:
        """JSON of which `read_model` makes the same model."""
        head = "fpn" if isinstance(self.head, FPNSize) else "mask2former"
        ensemble: dict[str, Any] = {"enabled": False}
        if self.ensemble:
            ensemble = dataclasses.asdict(self.ensemble) | {"enabled": True}
            ensemble["trained_space"] = ensemble.pop("trained")["name"]
        return {
            "encoder": {"name": self.encoder, "dtype": self.dtype},
            "head": {"name": head, **dataclasses.asdict(self.head), "ensemble": ensemble},
            "label_space": self.space.name,
            "space": self.space.as_json(),
        }


def read_model(config: Mapping[str, Any]) -> ModelConfig:
    """The model that a config describes.

    Args:
        config: the config as JSON, also of a run from before some of its keys; "space", where it
            is there, holds the classes by value.

    Raises:
        ValueError, KeyError: an unknown name, or parts that do not fit each other.
    """
    head = dict(config["head"])
    ensemble = dict(head.pop("ensemble", None) or {})
    name = head.pop("name")
    if name not in HEADS:
        raise ValueError(f"config.head.name is {name!r}; it must be one of: {', '.join(HEADS)}.")
    stored = config.get("space")
    space = LabelSpace.from_json(stored) if stored else get_space(config["label_space"])
    chosen = None
    if ensemble.pop("enabled", False):
        trained = ensemble.pop("trained_space")
        chosen = EnsembleConfig(trained=get_space(trained) if trained else space, **ensemble)
    return ModelConfig(
        encoder=config["encoder"]["name"],
        head=HEADS[name](**head),
        space=space,
        dtype=config["encoder"]["dtype"],
        ensemble=chosen,
    )

"""The data of an experiment: labelled batches, generated images, evaluation sets."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grain

from clouds_jax import sharding
from clouds_jax.data import records
from clouds_jax.data.augment import Augmentation
from clouds_jax.data.classes import LabelSpace
from clouds_jax.data.generated import View, generated_batches
from clouds_jax.data.loader import train_batches
from clouds_jax.data.part import WHOLE, Part
from clouds_jax.evaluation.protocols import Protocol, get_protocol
from clouds_jax.nn.clouds import STRIDE


@dataclasses.dataclass(frozen=True)
class GeneratedConfig:
    """Generated images of the joint phase.

    Attributes:
        batch: "name/split" -> images per step, over all devices.
        view: fields that are read of an image, and their augmentation.
    """

    batch: Mapping[str, int]
    view: View

    @property
    def images(self) -> int:
        """Images per step, over all devices."""
        return sum(self.batch.values())


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Batches of a training.

    Attributes:
        shards: root of all shards.
        batch: dataset or dataset/split -> images per step, over all devices.
        split: split of datasets that name none.
        augmentation: augmentation of the labelled images.
        generated: generated images of the joint phase; None without it.
        space: label space.
        seed: seed of shuffling and augmentation.
        threads: threads that read and augment.
        buffer: batches prepared ahead.

    Raises:
        ValueError: a crop that the encoder's strides do not divide.
    """

    shards: str
    batch: Mapping[str, int]
    split: str
    augmentation: Augmentation
    generated: GeneratedConfig | None
    space: LabelSpace
    seed: int
    threads: int
    buffer: int

    def __post_init__(self):
        crop = self.augmentation.crop
        if any(side <= 0 or side % STRIDE for side in crop):
            raise ValueError(
                f"config.data.crop is {crop}; both sides must be multiples of {STRIDE}, the"
                " encoder's largest stride."
            )

    @property
    def images(self) -> int:
        """Labelled images per step, over all devices."""
        return sum(self.batch.values())

    def labelled_batches(
        self, shards: Path, part: Part = WHOLE, start: int = 0, portions: int = 1
    ) -> grain.IterDataset:
        """Endless batches without the generated images.

        Args:
            shards: root of all shards.
            part: part of every batch that this process reads.
            start: number of the first batch.
            portions: number of equal portions of a batch; rows are added until it has them.
        """
        return train_batches(
            self.batch, self.augmentation, shards_root=shards, label_space=self.space.name,
            split=self.split, seed=self.seed, part=part, start=start,
            rows=sharding.padded(self.images, portions), threads=self.threads, prefetch=self.buffer,
        )  # fmt: skip

    def batches(
        self, shards: Path, part: Part = WHOLE, start: int = 0, portions: int = 1
    ) -> grain.IterDataset:
        """Endless batches of labelled images, or pairs of them with generated ones."""
        labelled = self.labelled_batches(shards, part, start, portions)
        if self.generated is None:
            return labelled
        generated = generated_batches(
            self.generated.batch, self.generated.view, shards_root=shards, seed=self.seed,
            part=part, rows=sharding.padded(self.generated.images, portions), start=start,
            threads=self.threads, prefetch=self.buffer,
        )  # fmt: skip
        return grain.experimental.ZipIterDataset([labelled, generated])


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Evaluations of a run.

    Attributes:
        every: "name/split" -> steps from one evaluation to the next, with one at the end; empty:
            no evaluations.
        protocol: evaluation protocol: how images are resized and scored.
        limit: number of images to score, from the first; 0: all.
        panels: number of images drawn at every evaluation.

    Raises:
        ValueError: a number of steps below 1.
    """

    every: Mapping[str, int]
    protocol: Protocol
    limit: int
    panels: int

    def __post_init__(self):
        for ref, every in self.every.items():
            if every < 1:
                raise ValueError(f"config.evals[{ref!r}] is {every}; it must be at least 1.")

    def check_shards(self, shards: Path) -> None:
        """Refuses a dataset without shards now, not when it is due."""
        for ref in self.every:
            records.open_ref(ref, shards)


def read_data(config: Mapping[str, Any], space: LabelSpace, view: View | None) -> DataConfig:
    """The data of a config.

    Args:
        config: the whole config, as JSON.
        space: label space of the model.
        view: view of the generated images; None: the run has none.
    """
    data = config["data"]
    augmentation = Augmentation(
        crop=tuple(data["crop"]), scale=tuple(data["scale"]), flip=data["flip"],
        jitter_size=tuple(data["initial_size"]) if data["initial_size"] else None,
        colour=data["colour"], crop_offsets=data["crop_offsets"],
    )  # fmt: skip
    generated = None
    if view is not None:
        full = {
            "/".join(records.parse_ref(ref, data["split"])): count
            for ref, count in data["generated"]["batch"].items()
        }
        generated = GeneratedConfig(full, view)
    return DataConfig(
        shards=data["shards"], batch=data["batch"], split=data["split"], augmentation=augmentation,
        generated=generated, space=space, seed=config["seed"], threads=data["threads"],
        buffer=data["buffer"],
    )  # fmt: skip


def read_evals(config: Mapping[str, Any]) -> EvalConfig:
    """The evaluations of a config, as JSON."""
    settings = config["eval"]
    enabled = settings.get("enabled", True)
    return EvalConfig(
        every=dict(config["evals"]) if enabled else {},
        protocol=get_protocol(settings["protocol"]),
        limit=settings.get("limit", 0),
        panels=settings.get("panels", 0),
    )

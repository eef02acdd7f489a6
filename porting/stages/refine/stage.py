"""The refine stage: SAM refines the pseudo-labels of images into `generated.refined`.

The refinement itself is `clouds_jax.selftrain.refine_host`; this module reads the inputs, runs SAM
and writes the results.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int

from clouds_jax import images, provenance
from clouds_jax.data import embeddings, records
from clouds_jax.data.classes import LabelSpace, get_space
from clouds_jax.data.embeddings import Embeddings, image_hash
from clouds_jax.data.records import Example
from clouds_jax.selftrain import panels, refine_host
from clouds_jax.selftrain.refine_host import Refinement
from clouds_jax.selftrain.refine_rules import PRESETS, RefineRules
from clouds_jax.stages import shard_set
from clouds_jax.stages.memory import host_memory
from porting.stages.refine import sam as sams
from porting.stages.refine.sam import SamSettings


def get_rules(preset: str, *, min_area: int, num_points: int) -> RefineRules:
    """The refinement rules of a preset, with other sizes.

    Args:
        preset: key of `PRESETS`.
        min_area: largest area, in pixels, of components that are skipped.
        num_points: points per prompt.

    Raises:
        ValueError: an unknown preset, or impossible sizes.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}; allowed are: {', '.join(PRESETS)}.")
    if num_points < 1 or min_area < num_points - 1:
        raise ValueError(
            f"min_area is {min_area} and num_points {num_points}; a component of more than min_area"
            " pixels must have num_points of them, and at least one."
        )
    return dataclasses.replace(PRESETS[preset], min_area=min_area, num_points=num_points)


@dataclasses.dataclass(frozen=True)
class Refine:
    """The refine stage.

    Attributes:
        shards: root folder of all shards.
        ref: "name/split" of the images.
        rules: refinement rules, see `get_rules`.
        sam: model and settings of SAM.
        labels: "name/split" of the labels; "" for `name.pseudo/split`.
        name: name of the new set of shards, with the split of `ref`; "" for `name.refined`.
        embeddings: read embeddings stored by `clouds_jax.embed` instead of running the image
            encoder.
        seed: seed of the points; those of image i depend on (seed, i).
        panels: number of images, from the first on, whose refinement is drawn.
    """

    shards: Path
    ref: str
    rules: RefineRules
    sam: SamSettings
    labels: str = ""
    name: str = ""
    embeddings: bool = True
    seed: int = 0
    panels: int = 6

    def __post_init__(self):
        if self.embeddings and self.sam.train_mode:
            raise ValueError(
                "train_mode and stored embeddings exclude each other: those were made with the"
                " batch norm's own statistics. Set config.refine.embeddings to False."
            )

    @property
    def source(self) -> str:
        """ "name/split" of the labels."""
        name, split = records.parse_ref(self.ref)
        return self.labels or f"{records.map_name(name, 'pseudo')}/{split}"

    @functools.cached_property
    def space(self) -> LabelSpace:
        """Label space of the labels."""
        parameters = records.read_summary(self.source, self.shards).get("parameters", {})
        if "label_space" not in parameters:
            raise ValueError(
                f"{self.source} are not labels of a teacher: their summary names no label space."
                " Make them: python -m clouds_jax.pseudo."
            )
        return get_space(parameters["label_space"])

    @property
    def folder(self) -> shard_set.Folder:
        """The folder of the shards."""
        return self._folder

    @functools.cached_property
    def _folder(self) -> shard_set.Folder:
        summary = records.read_summary(self.ref, self.shards)
        labels = records.read_summary(self.source, self.shards)
        if labels["examples"] != summary["examples"]:
            raise ValueError(
                f"{self.ref} has {summary['examples']:,} images, {self.source}"
                f" {labels['examples']:,} labels; make these anew: python -m clouds_jax.pseudo."
            )
        refs = [self.ref, self.source]
        if self.embeddings:
            refs.append(self._embeddings_ref)
        name, split = records.parse_ref(self.ref)
        return shard_set.Folder(
            self.shards,
            f"{self.name or records.map_name(name, 'refined')}/{split}",
            stage="refine",
            parameters={
                "rules": dataclasses.asdict(self.rules),
                "sam": sams.identify(self.sam),
                "embeddings": self.embeddings,
                "seed": self.seed,
                "panels": self.panels,
                "label_space": self.space.name,
                "versions": provenance.versions(["scipy"]),
            },
            inputs={ref: shard_set.digest(ref, self.shards) for ref in refs},
            examples=summary["examples"],
            shards=len(summary["shards"]),
        )

    @functools.cached_property
    def _size(self) -> tuple[int, int]:
        """Size (h, w) of the first image; embeddings are stored for images of one size."""
        return records.open_ref(self.ref, self.shards)[0].size

    @property
    def _embeddings_ref(self) -> str:
        path = embeddings.stem(self.shards, self.ref, self.sam.sam, self._size)
        ref = f"{path.parent.name}/{path.name}"
        if not (path.parent / f"{path.name}.summary.json").is_file():
            Embeddings(self.shards, self.ref, self.sam.sam, self._size)  # raises what is missing
        return ref

    def load(self) -> Callable[[int], Iterator[shard_set.Record]]:
        """Loads SAM; returns a function from a shard's number to its records."""
        model = sams.load(self.sam)
        examples = records.open_ref(self.ref, self.shards)
        labels = records.open_ref(self.source, self.shards)
        stored = None
        if self.embeddings:
            stored = Embeddings(self.shards, self.ref, self.sam.sam, self._size)
        origin = {
            "stage": "refine",
            "labels": self.source,
            "sam": self.sam.sam or self.sam.weights,
            "seed": self.seed,
            "rules": dataclasses.asdict(self.rules),
            "space": self.space.name,
        }

        def embedded(index: int, example: Example) -> sams.Embedded:
            assert example.image is not None
            if stored is None:
                return model.embed(example.image)
            embedding = stored[index]
            if embedding.key != example.key or embedding.image != image_hash(example.image):
                raise ValueError(
                    f"{example.key}: its stored embedding is of another image ({embedding.key});"
                    f" remove {self._embeddings_ref}* and make them again: python -m"
                    " clouds_jax.embed."
                )
            return model.stored(embedding.values[0], example.size)

        def refine(index: int) -> shard_set.Record:
            example, label = examples[index], _label(examples[index], labels[index])

            def prompt(points: Int[np.ndarray, "n p 2"]) -> Bool[np.ndarray, "n h w"]:
                return model.masks(embedded(index, example), points).masks

            bits = refine_host.draws(self.seed, index, example.size, self.rules)
            refinement = refine_host.refine_label(
                label, bits, prompt, rules=self.rules, classes=len(self.space)
            )
            if index < self.panels:
                self._draw_panel(index, example, label, refinement)
            targets = tuple(np.flatnonzero(refinement.present).tolist())
            refined = Example(example.key, refined=refinement.label, targets=targets, origin=origin)
            stats = refine_host.statistics(label, refinement, self.space.names)
            return records.encode(refined), stats

        return lambda shard: map(refine, self.folder.indices(shard))

    def _draw_panel(
        self, index: int, example: Example, label: records.Map, refinement: Refinement
    ) -> None:
        assert example.image is not None
        drawing = panels.draw(example.key, example.image, label, refinement, self.space)
        images.write_png(self.panel(index), drawing)

    def panel(self, index: int) -> Path:
        """Path of the drawing of an image's refinement."""
        return self.folder.folder / f"{self.folder.split}.panels" / f"{index:06d}.png"

    def memory(self) -> Mapping[str, float]:
        """Peak memory so far in GiB, by device."""
        gpu = (
            {"gpu": torch.cuda.max_memory_allocated() / 2**30} if torch.cuda.is_available() else {}
        )
        return {"host": host_memory(), **gpu}


def _label(example: Example, labelled: Example) -> records.Map:
    """The pseudo-label of an example; raises if it is missing, or of another image."""
    if example.image is None:
        raise ValueError(f"{example.key} has no image for SAM to look at.")
    if labelled.pseudo is None:
        raise ValueError(
            f"{labelled.key} has no pseudo-label; make it: python -m clouds_jax.pseudo."
        )
    if labelled.key != example.key or labelled.size != example.size:
        raise ValueError(
            f"the label of {example.key} {example.size} is that of {labelled.key} {labelled.size};"
            " labels must be those of the images. Make them again: python -m clouds_jax.pseudo."
        )
    return labelled.pseudo

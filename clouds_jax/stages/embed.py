"""The stage that embeds generated images and their mirror images with SAM."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from flax import nnx

from clouds_jax import runtime
from clouds_jax.data import embeddings, records
from clouds_jax.data.embeddings import Embedding
from clouds_jax.data.generated import fit
from clouds_jax.model.sam import Sam
from clouds_jax.nn.sam import registry
from clouds_jax.stages import shard_set
from clouds_jax.stages.memory import device_memory
from clouds_jax.weights import weights_digest


@dataclasses.dataclass(frozen=True)
class Embed:
    """Writes the shards that `clouds_jax.data.embeddings` describes, beside the image shards.

    Attributes:
        shards: root of all shards.
        ref: "name/split" of the generated images.
        sam: name of the SAM.
        size: (h, w) that the images are fitted to.
        weights: folder of converted weights; "": random weights, for debugging.
        count: number of embedding shards; 0: as many as there are image shards.
    """

    shards: Path
    ref: str
    sam: str
    size: tuple[int, int]
    weights: str = ""
    count: int = 0

    @property
    def folder(self) -> shard_set.Folder:
        """The shards of embeddings."""
        return self._folder

    @functools.cached_property
    def _folder(self) -> shard_set.Folder:
        registry.get_sam(self.sam)
        summary = records.read_summary(self.ref, self.shards)
        path = embeddings.stem(self.shards, self.ref, self.sam, self.size)
        return shard_set.Folder(
            self.shards,
            f"{path.parent.name}/{path.name}",
            stage="embed",
            parameters={"sam": self.sam, "size": list(self.size), "dtype": "float16"},
            inputs={
                self.ref: shard_set.digest(self.ref, self.shards),
                "weights": weights_digest(self.weights) if self.weights else "random",
            },
            examples=summary["examples"],
            shards=self.count or len(summary["shards"]),
        )

    def load(self) -> Callable[[int], Iterator[shard_set.Record]]:
        """Loads the SAM; returns a function from a shard to its records."""
        runtime.use_matmul_precision()
        spec = registry.get_sam(self.sam)
        model = Sam.load(self.weights, self.sam).module if self.weights else spec.build(nnx.Rngs(0))
        examples = records.open_ref(self.ref, self.shards)

        def make(shard: int) -> Iterator[shard_set.Record]:
            for index in self.folder.indices(shard):
                example = examples[index]
                if example.image is None:
                    raise ValueError(f"{example.key} has no image to embed.")
                image = fit(example.image, self.size)
                pair = np.stack([image, image[:, ::-1]])
                values = np.asarray(registry.embed(model, pair, spec), np.float16)
                embedding = Embedding(example.key, embeddings.image_hash(image), values)
                yield embeddings.encode(embedding), {}

        return make

    def memory(self) -> Mapping[str, float]:
        """Peak memory in GiB."""
        return device_memory()

"""The stage that labels the images of some shards with a trained model."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from clouds_jax import runtime
from clouds_jax.config.training import read_precision
from clouds_jax.data import records
from clouds_jax.evaluation import protocols
from clouds_jax.model.load import load
from clouds_jax.stages import shard_set
from clouds_jax.stages.memory import device_memory
from clouds_jax.training import checkpoint


@dataclasses.dataclass(frozen=True)
class PseudoLabels:
    """Writes shards of pseudo-labels beside the shards of the images.

    Attributes:
        workdir: directory of the training run.
        shards: root of all shards.
        ref: "name/split" of the images.
        name: name of the new shards, whose split is that of `ref`; "": `name.pseudo`.
        step: checkpoint of the run, see `training.checkpoint.load_run`; None: the newest.
        teacher: label with the EMA teacher of a joint run instead of the student.
        protocol: name of the evaluation protocol that prepares the images.
    """

    workdir: str
    shards: Path
    ref: str
    name: str = ""
    step: checkpoint.Step = None
    teacher: bool = False
    protocol: str = "native"

    @property
    def folder(self) -> shard_set.Folder:
        """The shards of pseudo-labels."""
        return self._folder

    @functools.cached_property
    def _folder(self) -> shard_set.Folder:
        step, config, digest = checkpoint.identify_run(self.workdir, self.step)
        protocols.get_protocol(self.protocol)
        summary = records.read_summary(self.ref, self.shards)
        name, split = records.parse_ref(self.ref)
        return shard_set.Folder(
            self.shards,
            f"{self.name or records.map_name(name, 'pseudo')}/{split}",
            stage="pseudo",
            parameters={
                "step": step, "teacher": self.teacher, "protocol": self.protocol,
                "label_space": config["label_space"],
            },
            inputs={self.ref: shard_set.digest(self.ref, self.shards), "run": digest},
            examples=summary["examples"],
            shards=len(summary["shards"]),
        )  # fmt: skip

    def load(self) -> Callable[[int], Iterator[shard_set.Record]]:
        """Loads the model; returns a function from a shard to its records."""
        model = load(self.workdir, step=self.step, teacher=self.teacher)
        runtime.use_matmul_precision(read_precision(model.about["config"]))
        predict = model.predictor(protocols.get_protocol(self.protocol))
        examples = records.open_ref(self.ref, self.shards)
        space = model.config.space
        origin = {
            "stage": "pseudo", "run": Path(self.workdir).name, "step": model.about["step"],
            "teacher": self.teacher, "protocol": self.protocol, "space": space.name,
        }  # fmt: skip

        def make(shard: int) -> Iterator[shard_set.Record]:
            for index in self.folder.indices(shard):
                example = examples[index]
                if example.image is None:
                    raise ValueError(f"{self.ref}: {example.key} has no image to label.")
                label, _ = predict(example.image)
                labelled = records.Example(example.key, pseudo=label, origin=origin)
                counts = np.bincount(label.reshape(-1), minlength=len(space))
                shares = zip(space.names, counts, strict=True)
                yield records.encode(labelled), {name: int(count) for name, count in shares}

        return make

    def memory(self) -> Mapping[str, float]:
        """Peak memory in GiB."""
        return device_memory()

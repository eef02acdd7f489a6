r"""Labels the images of some shards with a trained model: the program.

    python -m clouds_jax.pseudo --workdir runs/warmup_gta --shards shards --ref generated/train

Writes `generated.pseudo/train` beside `generated/train`: shards with the keys and the pseudo-labels
of the images, in their order and at their own size, every pixel with a class. A shard that is
already there is not made again; an interrupted program goes on at the first missing one, with the
same bytes.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from clouds_jax import model
from clouds_jax.data import records
from clouds_jax.data.classes import get_space
from clouds_jax.evaluation import protocols
from clouds_jax.predict import make_predict
from clouds_jax.stages import shard_set
from clouds_jax.stages.memory import device_memory
from clouds_jax.training import checkpoint


@dataclasses.dataclass(frozen=True)
class PseudoLabels:
    """The stage.

    Attributes:
        workdir: the run whose model labels.
        shards: root of all shards.
        ref: "name/split" of the images.
        name: of the new set of shards, whose split is that of `ref`; "": `name.pseudo`.
        step: checkpoint of the run; None: the newest.
        teacher: take the teacher of a joint run instead of the student.
        protocol: how images are prepared.
    """

    workdir: str
    shards: Path
    ref: str
    name: str = ""
    step: int | None = None
    teacher: bool = False
    protocol: str = "native"

    @functools.cached_property
    def folder(self) -> shard_set.Folder:
        """Where the shards go."""
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
        """Loads the model."""
        (graphdef, state), config, about = model.restore(
            None, workdir=self.workdir, step=self.step, teacher=self.teacher
        )
        predict = make_predict(graphdef, state, protocols.get_protocol(self.protocol))
        examples = records.open_ref(self.ref, self.shards)
        names = get_space(config.label_space).names
        origin = {
            "stage": "pseudo", "run": Path(self.workdir).name, "step": about["step"],
            "teacher": self.teacher, "protocol": self.protocol, "space": config.label_space,
        }  # fmt: skip

        def make(shard: int) -> Iterator[shard_set.Record]:
            for index in self.folder.indices(shard):
                example = examples[index]
                if example.image is None:
                    raise ValueError(f"{self.ref}: {example.key} has no image to label.")
                label, _ = predict(example.image)
                made = records.Example(example.key, pseudo=label, origin=origin)
                counts = np.bincount(label.reshape(-1), minlength=len(names))
                yield records.encode(made), {c: int(n) for c, n in zip(names, counts, strict=True)}

        return make

    def memory(self) -> Mapping[str, float]:
        """Peak memory in GiB."""
        return device_memory()

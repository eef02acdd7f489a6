r"""Embeds generated images and their mirror images with SAM: the program.

    python -m clouds_jax.embed --shards shards --ref generated/train --size 768 768 \
        --sam sam_vit_h --weights weights/sam_vit_h

Writes the shards that `clouds_jax.data.embeddings` describes, beside the image shards, in float16.
A shard that is already there is not made again; an interrupted program goes on at the first missing
one, with the same bytes.
"""

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from clouds_jax import checkpoint, sam
from clouds_jax.data import embeddings, records, spread, stage
from clouds_jax.data.embeddings import Embedding
from clouds_jax.data.generated import fit
from clouds_jax.fill import fill_module
from clouds_jax.nn.sam_decoder import PromptedMasks


def load_sam(name: str, weights: str) -> PromptedMasks:
    """A SAM with converted weights."""
    spec = sam.get_sam(name)
    tree, _ = checkpoint.load_weights(weights, ("sam",))
    model = fill_module(
        lambda: spec.build(nnx.Rngs(0)),
        tree.get("sam", {}),
        where=weights,
        hint=f"Are these the weights of {name}?",
    )
    return nnx.merge(*model)


@dataclasses.dataclass(frozen=True)
class Embed:
    """The stage.

    Attributes:
        shards: root of all shards.
        ref: "name/split" of the generated images.
        sam: name of the SAM.
        size: (h, w) that the images are fitted to.
        weights: folder of converted weights; "": random ones, for debugging.
        count: number of embedding shards; 0: as many as there are image shards.
    """

    shards: Path
    ref: str
    sam: str
    size: tuple[int, int]
    weights: str = ""
    count: int = 0

    @functools.cached_property
    def folder(self) -> stage.Folder:
        """Where the shards go."""
        sam.get_sam(self.sam)
        summary = records.read_summary(self.ref, self.shards)
        path = embeddings.stem(self.shards, self.ref, self.sam, self.size)
        return stage.Folder(
            self.shards,
            f"{path.parent.name}/{path.name}",
            stage="embed",
            parameters={"sam": self.sam, "size": list(self.size), "dtype": "float16"},
            inputs={
                self.ref: stage.digest(self.ref, self.shards),
                "weights": checkpoint.weights_digest(self.weights) if self.weights else "random",
            },
            examples=summary["examples"],
            shards=self.count or len(summary["shards"]),
        )

    def load(self) -> Callable[[int], Iterator[stage.Record]]:
        """Loads the model."""
        spec = sam.get_sam(self.sam)
        model = load_sam(self.sam, self.weights) if self.weights else spec.build(nnx.Rngs(0))
        examples = records.open_ref(self.ref, self.shards)

        def make(shard: int) -> Iterator[stage.Record]:
            for index in self.folder.indices(shard):
                example = examples[index]
                if example.image is None:
                    raise ValueError(f"{example.key} has no image to embed.")
                image = fit(example.image, self.size)
                both = np.stack([image, image[:, ::-1]])
                values = np.asarray(sam.embed(model, both, spec), np.float16)
                found = Embedding(example.key, embeddings.image_hash(image), values)
                yield embeddings.encode(found), {}

        return make

    def memory(self) -> Mapping[str, float]:
        """Peak memory in GiB."""
        return device_memory()


def device_memory() -> dict[str, float]:
    """Peak memory of this process in GiB, on a GPU of the device's own, too."""
    used = jax.local_devices()[0].memory_stats() or {}
    gpu = {"gpu": used["peak_bytes_in_use"] / 2**30} if "peak_bytes_in_use" in used else {}
    return {"host": stage.host_memory(), **gpu}


def main(argv: Sequence[str] | None = None) -> None:
    """The program; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="python -m clouds_jax.embed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shards", type=Path, required=True, help="root of all shards")
    parser.add_argument("--ref", required=True, help="name/split of the generated images")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), default=(768, 768))
    parser.add_argument("--sam", required=True, help=", ".join(sam.SAMS))
    parser.add_argument("--weights", required=True, help="folder that `porting convert` made")
    parser.add_argument("--count", type=int, default=0, help="shards (default: as the images')")
    spread.add_running(parser)
    args = parser.parse_args(argv)
    settings: dict[str, Any] = {
        name: getattr(args, name) for name in ("shards", "ref", "sam", "weights", "count")
    }
    command = ["clouds_jax.embed", *spread.without_running(argv or sys.argv[1:])]
    try:
        began = time.perf_counter()
        made = Embed(**settings, size=(args.size[0], args.size[1]))
        done = spread.run(
            made, command, shard=args.shard, processes=args.processes, ray=args.ray
        )  # fmt: skip
    except (ValueError, KeyError, OSError) as error:
        parser.exit(1, f"error: {error.args[0] if isinstance(error, KeyError) else error}\n")
    rate = done / (time.perf_counter() - began)
    print(f"{done} images embedded ({rate:.2f} per second); {made.folder.state()}")


if __name__ == "__main__":
    main()

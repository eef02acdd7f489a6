r"""Embeds generated images and their mirror images with SAM: the program.

    python -m clouds_jax.embed --shards shards --ref generated/train --size 768 768 \
        --sam sam_vit_h --weights weights/sam_vit_h

Writes the shards that `clouds_jax.data.embeddings` describes, beside the image shards. A shard
that is already there is not made again; an interrupted program goes on at the first missing one.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from flax import nnx
from tqdm import tqdm

from clouds_jax import checkpoint, sam
from clouds_jax.data import embeddings, records
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


def embed_shard(
    model: PromptedMasks,
    spec: sam.SamSpec,
    examples: records.Shards,
    indices: Sequence[int],
    size: tuple[int, int],
    bar: tqdm,
) -> Iterator[Embedding]:
    """The embeddings of some images, in order."""
    for index in indices:
        example = examples[index]
        if example.image is None:
            raise ValueError(f"{example.key} has no image to embed.")
        image = fit(example.image, size)
        both = np.stack([image, image[:, ::-1]])
        values = np.asarray(sam.embed(model, both, spec), np.float16)
        yield Embedding(example.key, embeddings.image_hash(image), values)
        bar.update()


def embed_ref(
    shards: Path,
    ref: str,
    name: str,
    size: tuple[int, int],
    weights: str | None,
    *,
    count: int = 0,
    progress: bool = False,
) -> tuple[int, int]:
    """Writes the missing embedding shards of "name/split".

    Args:
        shards: root of all shards.
        ref: of the generated images.
        name: of the SAM.
        size: (h, w) that the images are fitted to.
        weights: folder of converted weights; None: random ones, for debugging.
        count: number of embedding shards; 0: as many as there are image shards.
        progress: draw a progress bar.

    Returns:
        How many images were embedded, and how many there are.
    """
    spec = sam.get_sam(name)
    examples = records.open_ref(ref, shards)
    count = count or len(records.read_summary(ref, shards)["shards"])
    paths = embeddings.shard_paths(shards, ref, name, size, count)
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    model = None
    if missing:
        model = load_sam(name, weights) if weights else spec.build(nnx.Rngs(0))
    done = 0
    label = f"{name} on {ref}"
    with tqdm(total=len(examples), unit="image", desc=label, disable=not progress) as bar:
        for i, path in enumerate(paths):
            indices = range(i, len(examples), count)
            if i not in missing:
                bar.update(len(indices))
                continue
            assert model is not None
            embeddings.write(path, embed_shard(model, spec, examples, indices, size, bar))
            done += len(indices)
    return done, len(examples)


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
    args = parser.parse_args(argv)
    try:
        began = time.perf_counter()
        done, total = embed_ref(
            args.shards, args.ref, args.sam, (args.size[0], args.size[1]), args.weights,
            count=args.count, progress=True,
        )  # fmt: skip
    except (ValueError, KeyError, OSError) as error:
        parser.exit(1, f"error: {error.args[0] if isinstance(error, KeyError) else error}\n")
    rate = done / (time.perf_counter() - began)
    print(f"{done} images embedded ({rate:.2f} per second), {total - done} were there")


if __name__ == "__main__":
    main()

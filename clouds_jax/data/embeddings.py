"""Shards of SAM's image embeddings, one record per generated image, beside the image shards.

`{root}/{name}/{split}.{sam}.{h}x{w}-00000-of-00004.array_record` holds the embeddings of the
images of "name/split", fitted to (h, w), in their order. A record is a msgpack map:

    version   int       schema version
    key       str       of the image
    image     str       sha256 of the fitted image's pixels
    shape     [2, n, n, d]  of the image and of its mirror image
    data      bytes     float16
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import cast

import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from jaxtyping import Float16, UInt8

from clouds_jax.data import records
from clouds_jax.data.records import RecordError

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Embedding:
    """SAM's embeddings of one image.

    Attributes:
        key: key of the image.
        image: `image_hash` of the pixels that were embedded.
        values: embedding of the image, and of its mirror image.
    """

    key: str
    image: str
    values: Float16[np.ndarray, "2 n n d"]


def image_hash(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """sha256 of the pixels."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def stem(root: Path, ref: str, sam: str, size: tuple[int, int]) -> Path:
    """Path of the shards of "name/split", without their numbers."""
    name, split = records.parse_ref(ref)
    return root / name / f"{split}.{sam}.{size[0]}x{size[1]}"


def shard_paths(root: Path, ref: str, sam: str, size: tuple[int, int], count: int) -> list[Path]:
    """Paths of the `count` shards."""
    path = stem(root, ref, sam, size)
    return [path.with_name(records.shard_name(path.name, i, count)) for i in range(count)]


def encode(embedding: Embedding) -> bytes:
    """The record of an embedding."""
    record = {
        "version": SCHEMA_VERSION,
        "key": embedding.key,
        "image": embedding.image,
        "shape": list(embedding.values.shape),
        "data": embedding.values.tobytes(),
    }
    return cast(bytes, msgpack.packb(record))


class Embeddings:
    """The embeddings of all images of "name/split", by the index of the image.

    Shard i of n holds the images i, i + n, i + 2n, ...
    """

    def __init__(self, root: Path, ref: str, sam: str, size: tuple[int, int]):
        path = stem(root, ref, sam, size)
        self._paths = sorted(path.parent.glob(f"{path.name}-*-of-*.array_record"))
        count = int(self._paths[0].stem.rpartition("-")[2]) if self._paths else 0
        if not count or self._paths != shard_paths(root, ref, sam, size, count):
            raise FileNotFoundError(
                f"{ref} has no complete embeddings of {sam} at {size[0]}x{size[1]} (found"
                f" {[p.name for p in self._paths]} below {path.parent}); make them: python -m"
                f" clouds_jax.embed --shards {root} --ref {ref} --sam {sam}"
                f" --size {size[0]} {size[1]} --weights <folder>"
            )
        self._readers = [ArrayRecordReader(str(p), "readahead_buffer_size:0") for p in self._paths]

    def __len__(self) -> int:
        return sum(reader.num_records() for reader in self._readers)

    def __getitem__(self, index: int) -> Embedding:
        position, shard = divmod(index, len(self._readers))
        record = msgpack.unpackb(self._readers[shard].read([position])[0])
        path = self._paths[shard]
        if record["version"] != SCHEMA_VERSION:
            raise RecordError(
                f"{path} has schema version {record['version']}, this code reads"
                f" {SCHEMA_VERSION}; remake it with python -m clouds_jax.embed."
            )
        values = np.frombuffer(record["data"], np.float16).reshape(record["shape"])
        return Embedding(record["key"], record["image"], values)

"""The schema of a record, and shards of records: encode, decode, write, open.

A shard is an ArrayRecord file `{stem}-00003-of-00008.array_record`; a record is a msgpack map:

    version  int    schema version; another one is refused by name
    key      str    unique and stable: "gta5/00001"
    size     [h, w] of the image (of the maps, where there is no image)
    codec    str    how `image` is encoded; absent in records without an image
    image    bytes  RGB uint8 in `codec`
    label, pseudo, refined
             bytes  zstd of uint8 train ids [h, w], 255 = ignore; each may be absent
    targets  [ids]  target classes of `refined`, also those without a pixel; may be absent
    origin   map    provenance: dataset, split, file; model, prompt, seed
"""

import contextlib
import dataclasses
import glob
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from jaxtyping import UInt8

from clouds_jax.data.codecs import Image, compress, decompress, get_codec
from clouds_jax.files import written_whole

SCHEMA_VERSION = 1
MAPS = ("label", "pseudo", "refined")

Map = UInt8[np.ndarray, "h w"]


class RecordError(ValueError):
    """A shard or a record that this code cannot read."""


@dataclasses.dataclass(frozen=True)
class Example:
    """One record, decoded.

    Attributes:
        key: unique and stable.
        image: RGB, 0..255, or None in shards of maps only.
        label: ground truth as train ids, 255 is ignore; None for unlabelled images.
        pseudo: pseudo-label of a trained model, in the same values.
        refined: the pseudo-label after refinement.
        targets: target classes of `refined`; None: those that it shows. A class whose masks were
            all dropped may be a target with an empty mask.
        origin: provenance, see the schema.
    """

    key: str
    image: Image | None = None
    label: Map | None = None
    pseudo: Map | None = None
    refined: Map | None = None
    targets: tuple[int, ...] | None = None
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in pixels."""
        arrays = (self.image, *(getattr(self, name) for name in MAPS))
        for array in arrays:
            if array is not None:
                return array.shape[0], array.shape[1]
        raise RecordError(f"{self.key}: a record needs an image or a map; this one has neither.")


def encode(example: Example, codec: str = "zstd") -> bytes:
    """The record of an example."""
    record: dict[str, Any] = {
        "version": SCHEMA_VERSION,
        "key": example.key,
        "size": list(example.size),
        "origin": example.origin,
    }
    if example.targets is not None:
        record["targets"] = list(example.targets)
    if example.image is not None:
        record["codec"] = codec
        record["image"] = get_codec(codec).encode(example.image)
    for name in MAPS:
        array = getattr(example, name)
        if array is None:
            continue
        if array.shape != example.size:
            raise RecordError(
                f"{example.key}: {name} is {array.shape}, the image {example.size}; they must be "
                "of one size."
            )
        record[name] = compress(np.ascontiguousarray(array).tobytes())
    return cast(bytes, msgpack.packb(record))


def decode(data: bytes, where: str = "record") -> Example:
    """The example of a record.

    Args:
        data: what `encode` returned.
        where: name of the shard, for errors.
    """
    try:
        record = msgpack.unpackb(data)
        version = record["version"]
    except Exception as error:  # msgpack raises many kinds
        raise RecordError(f"{where}: no record of this project ({error}).") from error
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"{where} has schema version {version}, this code reads {SCHEMA_VERSION}; remake it "
            "with python -m clouds_jax.data.build."
        )
    h, w = record["size"]
    image = None
    if "image" in record:
        image = get_codec(record["codec"]).decode(record["image"], (h, w))
    maps = {name: decompress(record[name]).reshape(h, w) for name in MAPS if name in record}
    targets = tuple(record["targets"]) if "targets" in record else None
    return Example(record["key"], image, targets=targets, origin=record["origin"], **maps)


def shard_name(stem: str, index: int, count: int) -> str:
    """File name of a shard: "train-00003-of-00008.array_record"."""
    return f"{stem}-{index:05d}-of-{count:05d}.array_record"


@contextlib.contextmanager
def shard_writer(path: Path) -> Iterator[ArrayRecordWriter]:
    """A writer of records; the file takes its name when all of them are written."""
    try:
        with written_whole(path) as temporary:
            # One record per group: random access. No compression: the images are compressed.
            writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
            try:
                yield writer
            finally:
                writer.close()
    except RuntimeError as error:  # what the library raises for every failed write
        raise OSError(
            f"{path} cannot be written: {error}. No part of it was kept; free some space or "
            "choose another folder, then run again."
        ) from error


def write_shards(
    examples: Iterable[Example], stem: Path, *, shards: int, codec: str = "zstd"
) -> list[Path]:
    """Writes examples to `shards` files, dealing them out in turn.

    `Shards` picks them up in turn too, so they come back in the order in which they were given,
    whatever the number of shards. The files take their names when the last example was written.

    Args:
        examples: read once, never held together.
        stem: path without numbers: `shards/gta5/train`.
        shards: number of files.
        codec: codec of the images, see `CODECS`.

    Returns:
        Paths of the files.
    """
    paths = [stem.with_name(shard_name(stem.name, i, shards)) for i in range(shards)]
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(shard_writer(path)) for path in paths]
        for index, example in enumerate(examples):
            writers[index % shards].write(encode(example, codec))
    return paths


class Shards:
    """Examples of some shards, by index, in the order in which they were dealt out.

    A source for Grain; safe to read from several threads. No `Sequence`, as a type checker at run
    time would read records to check it.
    """

    def __init__(self, paths: Sequence[Path]):
        self._paths = [Path(path) for path in paths]
        self._readers = [_open_reader(path) for path in self._paths]
        counts = [reader.num_records() for reader in self._readers]
        turns = (
            [(shard, turn) for shard, count in enumerate(counts) if turn < count]
            for turn in range(max(counts, default=0))
        )
        self._places = list(itertools.chain.from_iterable(turns))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        shard, position = self._places[index]
        path = self._paths[shard]
        try:
            (data,) = self._readers[shard].read([position])
        except Exception as error:  # the library raises many kinds
            raise RecordError(
                f"{path}: record {position} cannot be read ({error}); the file is damaged. Copy "
                "it again or remove it and build it again."
            ) from error
        return decode(data, str(path))

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"Shards({len(self)} examples in {len(self._paths)} files)"


def _open_reader(path: Path) -> ArrayRecordReader:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such shard; build it or correct the path.")
    # Access is random: reading ahead would read records that are not wanted.
    reader = ArrayRecordReader(str(path), "readahead_buffer_size:0")
    # A file without its end (the index) opens without complaint, as one of no records.
    if not reader.num_records():
        raise RecordError(
            f"{path} ({path.stat().st_size:,} bytes) has no index of records: it is cut short, or "
            "no ArrayRecord file. Copy it again, or remove it and build it again."
        )
    return reader


def parse_ref(ref: str, split: str = "train") -> tuple[str, str]:
    """("camvid", "test") of "camvid/test"; `split` where the ref names none."""
    name, _, own = ref.partition("/")
    return name, own or split


def map_name(name: str, kind: str) -> str:
    """Name of the dataset that holds pseudo or refined labels of the images of dataset `name`."""
    return f"{name}.{kind}"


def read_summary(ref: str, root: Path) -> dict[str, Any]:
    """The summary beside the shards of "name/split" below `root`, as the build wrote it."""
    name, split = parse_ref(ref)
    path = root / name / f"{split}.summary.json"
    if not path.is_file():
        built = sorted(
            f"{p.parent.name}/{p.name.removesuffix('.summary.json')}"
            for p in root.glob("*/*.summary.json")
        )
        raise FileNotFoundError(
            f"{name}/{split}: no {path}; below {root} there is: {', '.join(built) or 'nothing'}. "
            f"Build it: python -m clouds_jax.data.build {name} --split {split} --output {root}, or "
            "run the stage that makes it (python -m porting --help)."
        )
    return json.loads(path.read_text())


def open_shards(pattern: str) -> Shards:
    """The examples of all shards that fit a pattern: "shards/gta5/train-*.array_record"."""
    paths = sorted(glob.glob(pattern))
    if not paths:
        raise FileNotFoundError(f"no shard fits {pattern}; build it or correct the path.")
    return Shards([Path(path) for path in paths])


def open_ref(ref: str, root: Path) -> Shards:
    """The examples of "name/split" below `root`, checked against their summary."""
    name, _ = parse_ref(ref)
    summary = read_summary(ref, root)
    if summary["version"] != SCHEMA_VERSION:
        raise RecordError(
            f"{ref} below {root} has schema version {summary['version']}, this code reads "
            f"{SCHEMA_VERSION}; remake it with python -m clouds_jax.data.build {name}."
        )
    paths = []
    for shard in summary["shards"]:
        path = root / name / shard["name"]
        size = path.stat().st_size if path.is_file() else None
        if size != shard["bytes"]:
            state = "is missing" if size is None else f"has {size:,} bytes"
            raise RecordError(
                f"{path} {state}; its summary says {shard['bytes']:,} bytes. Copy it again, or "
                "remove it with its summary and build again."
            )
        paths.append(path)
    return Shards(paths)

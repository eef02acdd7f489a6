"""From a source (files, or a drawing function) to an example, and from sources to one shard.

`BadSource` says what is wrong with an example; `write_shard` collects all of them.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from clouds_jax.constants import IGNORE
from clouds_jax.data.classes import get_space
from clouds_jax.data.datasets import get_dataset
from clouds_jax.data.datasets.spec import DatasetSpec, Source
from clouds_jax.data.records import Example, encode, shard_writer
from clouds_jax.images import BadImage, read_image


class BadSource(ValueError):
    """An example that cannot become a record; the message names it and the reason."""


class _Abandoned(Exception):
    """Raised to leave a shard's writer without keeping the file."""


def read_label(path: Path, spec: DatasetSpec) -> UInt8[np.ndarray, "h w"]:
    """A label file as train ids, 255 = ignore.

    Raises:
        BadSource: the file is no label map, or has ids or colours that the dataset does not define.
    """
    ids = spec.read_label(path)
    if ids.ndim == 3:
        ids = _ids_of_colours(ids, spec, path)
    if ids.ndim != 2 or ids.dtype.kind not in "ui":
        raise BadSource(f"{path} is no label map: array {ids.shape} of {ids.dtype}.")
    table = spec.table(path)
    values = _values(ids)
    defined = [value for value in values if 0 <= value < 256 and table[value] >= 0]
    if len(defined) < len(values):
        unknown = ", ".join(str(value) for value in values if value not in defined)
        allowed = np.flatnonzero(table >= 0)
        raise BadSource(
            f"label has ids {unknown}, outside {_ranges(allowed)}; is {path.name} a label of "
            f"another kind than {spec.name} writes?"
        )
    return table.astype(np.uint8)[ids]


def _values(ids: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, " n"]:
    """The distinct values, sorted; on 8 or 16 bits np.unique would take ten times longer."""
    if ids.dtype.kind == "u" and ids.dtype.itemsize <= 2:
        return np.flatnonzero(np.bincount(ids.reshape(-1)))
    return np.unique(ids)


def _ranges(values: Shaped[np.ndarray, " n"]) -> str:
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return " and ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _ids_of_colours(
    colours: Shaped[np.ndarray, "h w c"], spec: DatasetSpec, path: Path
) -> Shaped[np.ndarray, "h w"]:
    if not spec.colours:
        raise BadSource(f"{path} is a colour image; labels of {spec.name} hold ids in one channel.")
    packed = colours[..., :3].astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    codes, inverse = np.unique(packed, return_inverse=True)
    table = {(r << 16) | (g << 8) | b: label_id for (r, g, b), label_id in spec.colours.items()}
    if unknown := [int(code) for code in codes if int(code) not in table]:
        names = ", ".join(f"#{code:06x}" for code in unknown[:8])
        raise BadSource(f"label has {len(unknown)} colours that {spec.name} lacks: {names}.")
    return np.array([table[int(code)] for code in codes])[inverse].reshape(packed.shape)


def load(source: Source, spec: DatasetSpec, origin: Mapping[str, Any]) -> Example:
    """The example of a source, checked.

    Raises:
        BadSource: anything is wrong with it.
    """
    label = None
    try:
        if source.render is not None:
            image, label = source.render()
        else:
            path = source.image
            assert path is not None  # the build refuses sources without an image
            origin = {**origin, "file": path.name}
            image = read_image(path)
            if source.label is not None:
                path = source.label
                label = read_label(path, spec)
    except (BadSource, BadImage) as error:
        raise BadSource(f"{source.key}: {error}") from error
    except Exception as error:  # decoders raise many kinds
        what = path if source.render is None else "its drawing function"
        raise BadSource(f"{source.key}: {what} cannot be decoded: {error}") from error
    if label is not None and label.shape != image.shape[:2]:
        raise BadSource(
            f"{source.key}: the label is {label.shape[0]}x{label.shape[1]} (h x w), the image "
            f"{image.shape[0]}x{image.shape[1]}; they must be of one size."
        )
    if label is not None and spec.label_space:
        classes = len(get_space(spec.label_space))
        wrong = [int(value) for value in _values(label) if classes <= value != IGNORE]
        if wrong:
            raise BadSource(
                f"{source.key}: label has class ids {wrong}, outside 0..{classes - 1} and {IGNORE}."
            )
    return Example(source.key, image, label, origin=dict(origin))


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """One shard to write; picklable, as jobs go to worker processes.

    Attributes:
        path: file to write.
        dataset: name of the dataset.
        sources: its examples, in order.
        codec: codec of the images.
        skip_bad: leave out bad examples instead of the whole shard.
        origin: provenance that all records share.
    """

    path: Path
    dataset: str
    sources: Sequence[Source]
    codec: str
    skip_bad: bool
    origin: Mapping[str, Any]


def write_shard(job: ShardJob, advance: Callable[[], object]) -> dict[str, Any]:
    """Writes one shard and counts its sizes and classes.

    Where an example is bad and `skip_bad` is not set, no file is kept, but all examples are still
    read, so that all problems are reported at once.

    Args:
        job: shard to write.
        advance: called after each example.

    Returns:
        A JSON map: name, examples, bytes, sha256, problems, sizes, pixels and images per value of
        the label.
    """
    spec = get_dataset(job.dataset)
    problems: list[str] = []
    sizes: collections.Counter[str] = collections.Counter()
    pixels, images = np.zeros(256, np.int64), np.zeros(256, np.int64)
    written = 0
    try:
        with shard_writer(job.path) as writer:
            for source in job.sources:
                try:
                    example = load(source, spec, job.origin)
                except BadSource as error:
                    problems.append(str(error))
                    continue
                finally:
                    advance()
                if problems and not job.skip_bad:
                    continue
                writer.write(encode(example, job.codec))
                written += 1
                sizes["{}x{}".format(*example.size)] += 1
                if example.label is not None:
                    count = np.bincount(example.label.reshape(-1), minlength=256)
                    pixels += count
                    images += count > 0
            if not written or (problems and not job.skip_bad):
                raise _Abandoned
    except _Abandoned:
        return {"name": job.path.name, "examples": 0, "problems": problems}
    with job.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "name": job.path.name,
        "examples": written,
        "bytes": job.path.stat().st_size,
        "sha256": sha256,
        "problems": problems,
        "sizes": dict(sizes),
        "pixels": pixels.tolist(),
        "images": images.tolist(),
    }

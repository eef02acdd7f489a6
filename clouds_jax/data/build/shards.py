"""From a source (files, or a drawing function) to an example, and from sources to one shard.

`write_shard` collects what is wrong with its examples.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clouds_jax.constants import IGNORE
from clouds_jax.data.build import labels
from clouds_jax.data.build.labels import BadSource, ForeignLabel
from clouds_jax.data.classes import get_space
from clouds_jax.data.datasets import get_dataset
from clouds_jax.data.datasets.spec import DatasetSpec, Source
from clouds_jax.data.records import Example, encode, shard_writer
from clouds_jax.images import BadImage, read_upright, unicode_name


class _Abandoned(Exception):
    """Raised to leave a shard's writer without keeping the file."""


def load(source: Source, spec: DatasetSpec, origin: Mapping[str, Any]) -> Example:
    """The example of a source, checked.

    Raises:
        BadSource: anything is wrong with it; ForeignLabel where its label speaks against the set.
    """
    label = None
    try:
        if source.render is not None:
            image, label = source.render()
        else:
            path = source.image
            assert path is not None  # the build refuses sources without an image
            origin = {**origin, "file": unicode_name(path.name)}
            image, orientation = read_upright(path)
            if source.label is not None:
                path = source.label
                label = labels.read_label(path, spec)
                label = labels.in_grid_of_image(label, image.shape[:2], orientation)
    except ForeignLabel as error:
        raise ForeignLabel(f"{source.key}: {error}") from error
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
        if wrong := labels.wrong_classes(label, classes):
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
        A JSON map: name, examples, bytes, sha256, problems, those of them that speak against the
        whole set ("foreign"), keys of images that are ignored entirely ("ignored"), sizes, pixels
        and images per value of the label.
    """
    spec = get_dataset(job.dataset)
    problems: list[str] = []
    foreign: list[str] = []
    ignored: list[str] = []
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
                    foreign += [str(error)] if isinstance(error, ForeignLabel) else []
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
                    ignored += [source.key] if count[IGNORE] == example.label.size else []
            if not written or (problems and not job.skip_bad):
                raise _Abandoned
    except _Abandoned:
        return {"name": job.path.name, "examples": 0, "problems": problems, "foreign": foreign}
    with job.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "name": job.path.name,
        "examples": written,
        "bytes": job.path.stat().st_size,
        "sha256": sha256,
        "problems": problems,
        "foreign": foreign,
        "ignored": ignored,
        "sizes": dict(sizes),
        "pixels": pixels.tolist(),
        "images": images.tolist(),
    }

"""Description of a dataset: where its files are, how images pair with labels, what ids mean."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int16, Shaped, UInt8
from PIL import Image

from clouds_jax.constants import IGNORE

UNKNOWN = -1  # in an id table: a value that the dataset does not define

Table = Int16[np.ndarray, "256"]
Rendered = tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]


@dataclasses.dataclass(frozen=True)
class Source:
    """One example before it is a record: two files, or a function that draws it.

    Attributes:
        key: unique in its split, and stable: `gta5/00001`.
        image: file of the image; None for a label without an image.
        label: file of the label; None for an image without a label.
        render: function that returns (image, label); picklable, as workers are processes.
    """

    key: str
    image: Path | None = None
    label: Path | None = None
    render: Callable[[], Rendered] | None = None


def read_ids(path: Path) -> Shaped[np.ndarray, "..."]:
    """The values of a label PNG as stored: palette indices, ids, or colours."""
    with Image.open(path) as image:
        return np.asarray(image)


def id_table(train_ids: Mapping[int, int], ids: Iterable[int]) -> Table:
    """The table from a dataset's label ids to train ids.

    Args:
        train_ids: label id to train id, for the ids that are a class.
        ids: all ids that the dataset defines; those without a class become ignore.

    Returns:
        `table[id]`: a train id, 255, or UNKNOWN for ids that the dataset does not define.
    """
    table = np.full(256, UNKNOWN, np.int16)
    table[list(ids)] = IGNORE
    for label_id, train_id in train_ids.items():
        table[label_id] = train_id
    return table


# Labels that are train ids already: written by the datasets' own tools, or BDD100K's own.
TRAIN_IDS: Table = id_table({i: i for i in range(19)}, [IGNORE])


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """One dataset. To add one, write a module in `clouds_jax/data/datasets` and list it there.

    Attributes:
        name: folder of its shards, first part of a ref ("gta5/train").
        label_space: key of `classes.SPACES`, or None for images without labels.
        splits: name -> number of examples of the complete download (None: unknown). Empty where
            the user names the splits (plain folders).
        examples: `examples(raw, split)` lists the split. A generated dataset takes
            `examples(None, split, seed=, count=)` and returns sources that render.
        tables: ending of a label file -> its id table; the first ending that fits is used.
        read_label: label file -> ids [h w], or colours [h w 3] for `colours`.
        colours: RGB -> label id, for downloads whose labels may be colour images.
        jitter_size: (h, w) that scale 1 of the scale jitter stands for; None: the image's own.
        generated: whether examples are drawn, and no raw folder is read.
        homepage: where to get the download.
        licence: its licence in a few words.
    """

    name: str
    label_space: str | None
    splits: Mapping[str, int | None]
    examples: Callable[..., Sequence[Source]]
    homepage: str
    licence: str
    tables: Mapping[str, Table] = dataclasses.field(default_factory=dict)
    read_label: Callable[[Path], Shaped[np.ndarray, "..."]] = read_ids
    colours: Mapping[tuple[int, int, int], int] = dataclasses.field(default_factory=dict)
    jitter_size: tuple[int, int] | None = None
    generated: bool = False

    def table(self, label: Path) -> Table:
        """The id table of a label file, by the ending of its name."""
        for ending, table in self.tables.items():
            if label.name.endswith(ending):
                return table
        raise ValueError(
            f"{label}: {self.name} reads labels that end in {', '.join(self.tables)} only."
        )


def find(raw: Path, patterns: Sequence[str]) -> list[tuple[str, Path]]:
    """Files below `raw` that match one of the patterns, as (stem, path), sorted.

    Args:
        patterns: paths with `{stem}` in the file name and `*` for one folder:
            "leftImg8bit/val/*/{stem}_leftImg8bit.png".
    """
    files = []
    for pattern in patterns:
        name = re.escape(pattern.rsplit("/", 1)[-1]).replace(r"\{stem\}", "(.+)")
        for path in raw.glob(pattern.replace("{stem}", "*")):
            if match := re.fullmatch(name, path.name):
                files.append((match[1], path))
    return sorted(files)


def pair_files(
    name: str,
    raw: Path,
    images: Sequence[str],
    labels: Sequence[Sequence[str]],
    *,
    folders: Sequence[str] = (),
    drop: frozenset[str] = frozenset(),
) -> list[Source]:
    """Pairs images with labels of the same stem; files without a partner are listed too.

    Args:
        name: name of the dataset; keys are `name/stem`.
        raw: folder of the download.
        images: patterns of the image files (see `find`); the files of all patterns are taken.
        labels: kinds of label in order of preference, each a list of patterns; the first kind with
            any files is taken. Empty: images without labels.
        folders: names of folders below `raw` in which the dataset may be, besides `raw` itself.
        drop: stems to leave out.

    Raises:
        FileNotFoundError: no image matches any pattern; the message lists them.
    """
    roots = [raw, *(raw / folder for folder in folders)]
    for root in roots:
        pictures = [(stem, path) for stem, path in find(root, images) if stem not in drop]
        if pictures:
            break
    else:
        tried = "".join(f"\n  {root / pattern}" for root in roots for pattern in images)
        state = "has none of the files looked for" if raw.is_dir() else "is no folder"
        raise FileNotFoundError(
            f"{name}: {raw} {state}:{tried}\nUnpack the dataset's own download there, or correct "
            "--raw."
        )
    maps: list[tuple[str, Path]] = []
    for kind in labels:
        maps = [(stem, path) for stem, path in find(root, kind) if stem not in drop]
        if maps:
            break
    by_stem: dict[str, list[Path]] = {}
    for stem, path in maps:
        by_stem.setdefault(stem, []).append(path)
    taken = {stem for stem, _ in pictures}
    # A stem that occurs twice yields two sources of one key, which the build reports.
    sources = [
        Source(f"{name}/{stem}", path, partner)
        for stem, path in pictures
        for partner in by_stem.get(stem, [None])
    ]
    sources += [Source(f"{name}/{stem}", None, path) for stem, path in maps if stem not in taken]
    return sorted(sources, key=lambda source: source.key)

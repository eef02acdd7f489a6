"""Finds the images of a split and pairs them with their labels, however the archives were unpacked.

Patterns are paths below the raw folder with `{stem}` in the file name; a folder's name may hold
shell wildcards: "leftImg8bit/val/*/{stem}_leftImg8bit.png". Endings fit in any case.
"""

import collections
import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from clouds_jax import images
from clouds_jax.data.datasets import nearest
from clouds_jax.data.datasets.spec import Source, Sources

_TWICE = "_labelTrainIds_labelTrainIds.png"  # what a converter makes of its own results

Found = list[tuple[str, Path]]


@dataclasses.dataclass(frozen=True)
class Layout:
    """One way in which a download lies on disk.

    Attributes:
        images: patterns of the image files; the files of all patterns are taken.
        labels: kinds of label in order of preference, each a list of patterns; an image takes the
            first kind that it has.
        keep: whether a stem belongs to the split.
    """

    images: Sequence[str]
    labels: Sequence[Sequence[str]]
    keep: Callable[[str], bool] = lambda stem: True


def pair_files(
    name: str, raw: Path, layouts: Sequence[Layout], *, folders: Sequence[str] = ()
) -> Sources:
    """Pairs images with labels of the same stem; files without a partner are listed too.

    A stem that occurs twice yields two sources of one key, which the build reports.

    Args:
        name: name of the dataset; keys are `name/stem`.
        raw: folder of the download.
        layouts: tried in order; the first that has images is taken.
        folders: names of folders below `raw` in which the dataset may be, besides `raw` itself;
            they may hold shell wildcards.

    Raises:
        FileNotFoundError: no image or no label matches any pattern; the message lists the patterns
            and the folder that comes nearest.
    """
    roots = [raw, *(place for folder in folders for place in _folders(raw, folder))]
    for layout in layouts:
        for root in roots:
            pictures = [(s, path) for s, path in find(root, layout.images) if layout.keep(s)]
            if pictures:
                return _paired(name, root, layout, pictures)
    tried = [p for layout in layouts for p in layout.images]
    places = [raw, *(raw / folder for folder in folders)]
    raise FileNotFoundError(nearest.nothing_found(name, "images", raw, places, tried))


def find(root: Path, patterns: Iterable[str]) -> Found:
    """Files below `root` that match one of the patterns, as (stem, path), sorted.

    Links are followed. A link to nowhere that may have been a folder is listed under its own name.
    """
    found = []
    for pattern in patterns:
        folder, _, name = pattern.rpartition("/")
        stem, _, ending = name.rpartition(".")
        regex = re.compile(
            re.escape(stem).replace(r"\{stem\}", "(.+)") + rf"\.(?i:{re.escape(ending)})"
        )
        for place in _folders(root, folder):
            if images.is_dangling(place):
                found.append((images.unicode_name(place.name), place))
                continue
            for path in images.entries(place):
                if match := regex.fullmatch(path.name):
                    found.append((images.unicode_name(match[1]), path))
    return sorted(found)


def _folders(root: Path, pattern: str) -> list[Path]:
    """Folders below `root` that match, and links to nowhere that match a wildcard."""
    places = [root] if root.is_dir() else []
    for part in pattern.split("/") if pattern else ():
        places = [child for place in places if place.is_dir() for child in _children(place, part)]
    return places


def _children(place: Path, part: str) -> list[Path]:
    if not set("*?[") & set(part):
        return [place / part] if (place / part).is_dir() else []
    return [
        path
        for path in images.entries(place)
        if fnmatch.fnmatchcase(path.name, part) and (path.is_dir() or images.is_dangling(path))
    ]


def _paired(name: str, root: Path, layout: Layout, pictures: Found) -> Sources:
    kinds, twice = _labels(root, layout)
    if layout.labels and not any(kinds):
        tried = [pattern for kind in layout.labels for pattern in kind]
        text = nearest.nothing_found(
            name, "labels", root, [root], tried, {path.parent for _, path in pictures}
        )
        raise FileNotFoundError(text)
    taken = {stem for stem, _ in pictures}
    used: collections.Counter[int] = collections.Counter()
    sources = []
    for stem, path in pictures:
        number = next((i for i, kind in enumerate(kinds) if stem in kind), None)
        if number is None:
            sources.append(Source(f"{name}/{stem}", path))
            continue
        used[number] += 1
        sources += [Source(f"{name}/{stem}", path, partner) for partner in kinds[number][stem]]
    alone = {stem: path for kind in reversed(kinds) for stem, (path, *_) in kind.items()}
    sources += [
        Source(f"{name}/{stem}", None, path) for stem, path in alone.items() if stem not in taken
    ]
    sources.sort(key=lambda source: source.key)
    return Sources(sources, _notes(layout, used, twice))


def _notes(layout: Layout, used: Mapping[int, int], twice: Sequence[Path]) -> list[str]:
    notes = []
    if len(used) > 1:
        counts = " and ".join(
            f"{count:,} like {layout.labels[number][0]}" for number, count in sorted(used.items())
        )
        notes.append(
            f"images have labels of several kinds: {counts}. Each takes the first kind that it "
            "has; was a converter interrupted?"
        )
    if twice:
        notes.append(
            f"{len(twice):,} files were left out, which a converter wrote from its own results, "
            f"such as {twice[0]}."
        )
    return notes


def _labels(root: Path, layout: Layout) -> tuple[list[dict[str, list[Path]]], list[Path]]:
    """Labels by stem, one dict per kind, and those that a converter made of its own results."""
    patterns = [pattern for kind in layout.labels for pattern in kind]
    folders = dict.fromkeys(pattern.rpartition("/")[0] for pattern in patterns)
    found = find(root, [f"{folder}/{{stem}}{_TWICE}" for folder in folders])
    twice = [path for _, path in found if path.name.endswith(_TWICE)]  # and no link to nowhere
    seen = set(twice)
    kinds = []
    for kind in layout.labels:
        by_stem: dict[str, list[Path]] = {}
        for stem, path in find(root, kind):
            # A file of an earlier kind may fit this one's pattern too, with a longer stem.
            if path not in seen and layout.keep(stem):
                by_stem.setdefault(stem, []).append(path)
            seen.add(path)
        kinds.append(by_stem)
    return kinds, twice

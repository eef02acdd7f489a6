"""The error for a raw folder in which nothing fits: what was looked for, and what comes nearest."""

import collections
import contextlib
import itertools
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from clouds_jax import images

_MOST_FILES = 300_000  # looked at for a suggestion; more would keep the user waiting


def nothing_found(
    name: str,
    what: str,
    raw: Path,
    places: Sequence[Path],
    patterns: Sequence[str],
    exclude: Collection[Path] = (),
) -> str:
    """The text of the error.

    Args:
        name: name of the dataset.
        what: what is missing: "images" or "labels".
        raw: folder that the user named.
        places: folders below which the patterns were looked for.
        patterns: patterns of the missing files, see `pairing`.
        exclude: folders that are no suggestion.
    """
    remedy = "Unpack the dataset's own download there, or correct --raw."
    if images.is_dangling(raw):
        return f"{name}: {raw} is a link to {os.readlink(raw)}, which does not exist. {remedy}"
    if not raw.exists():
        return f"{name}: {raw} is no folder: it does not exist. {remedy}"
    if not raw.is_dir():
        return (
            f"{name}: {raw} is a file; --raw names the folder into which the download was unpacked."
        )
    tried = "".join(f"\n  {place / pattern}" for place in places for pattern in patterns)
    return (
        f"{name}: {raw} has none of the {what} looked for. {_suggestion(raw, patterns, exclude)}"
        f"{remedy} Looked for:{tried}"
    )


def _suggestion(raw: Path, patterns: Sequence[str], exclude: Collection[Path]) -> str:
    endings = {f".{pattern.rpartition('.')[2].lower()}" for pattern in patterns}
    words = {part for pattern in patterns for part in pattern.split("/")[:-1]}
    counts: collections.Counter[tuple[Path, str]] = collections.Counter()
    with contextlib.suppress(OSError):  # folders that may not be read
        for path in itertools.islice(images.walk(raw), _MOST_FILES):
            if path.suffix.lower() in images.SUFFIXES and path.parent not in exclude:
                counts[path.parent, path.suffix] += 1
    if not counts:
        return ""

    def likeness(place: tuple[Path, str]) -> tuple[bool, int, int]:
        folder, suffix = place
        names = {raw.name, *folder.relative_to(raw).parts}
        return suffix.lower() in endings, len(words & names), counts[place]

    folder, suffix = best = max(counts, key=likeness)
    return f"{folder} has {counts[best]:,} {suffix} files; is this it? "

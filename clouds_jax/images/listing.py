"""Finds image files on real disks: links, hidden files, names of any bytes."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator

# Endings of the images that are taken from folders, in any case.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
# Images too, but of kinds that not every decoder knows or that may be films.
UNREAD = (".gif", ".apng", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".exr", ".hdr", ".dng")
# Written by systems beside people's files; names that start with a dot are hidden already.
_JUNK = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir"})
_SHOWN = 5  # names in a note


@dataclasses.dataclass(frozen=True)
class Listing:
    """The image files below a folder, by name.

    Attributes:
        images: those that are read; a link whose target is gone is among them.
        unread: those of other kinds, see `UNREAD`.
    """

    images: list[pathlib.Path]
    unread: list[pathlib.Path]

    @property
    def notes(self) -> list[str]:
        """What the user should know: at most one sentence, of the unread files."""
        if not self.unread:
            return []
        kinds = ", ".join(sorted({path.suffix.lower()[1:] for path in self.unread}))
        names = ", ".join(unicode_name(path) for path in self.unread[:_SHOWN])
        more = f" and {len(self.unread) - _SHOWN:,} more" if len(self.unread) > _SHOWN else ""
        return [
            f"left out {len(self.unread):,} images of kinds that are not read from folders "
            f"({kinds}; convert them to png): {names}{more}."
        ]


def list_images(folder: pathlib.Path) -> Listing:
    """All image files below a folder; see `walk` for what is left out.

    Raises:
        FileNotFoundError: there are none that are read.
        NotADirectoryError: it is a file.
    """
    listing = Listing([], [])
    for path in sorted(walk(folder)):
        suffix = path.suffix.lower()
        # A link to nowhere without an ending may have been a folder of images.
        if suffix in SUFFIXES or (not suffix and is_dangling(path)):
            listing.images.append(path)
        elif suffix in UNREAD:
            listing.unread.append(path)
    if not listing.images:
        raise FileNotFoundError(
            f"{folder} has no images; looked for {', '.join(suffix[1:] for suffix in SUFFIXES)}"
            f"{'; ' if listing.notes else '.'}{' '.join(listing.notes)}"
        )
    return listing


def find_images(folder: pathlib.Path) -> list[pathlib.Path]:
    """The image files below a folder, by name; errors as those of `list_images`."""
    return list_images(folder).images


def walk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """All files below a folder, and links to nowhere; links to folders are followed.

    Hidden files and folders and those of operating systems are left out. A folder that lies in
    itself by a link is entered once.

    Raises:
        NotADirectoryError: it is a file.
    """
    yield from _walk(folder, frozenset())


def _walk(folder: pathlib.Path, above: frozenset[tuple[int, int]]) -> Iterator[pathlib.Path]:
    stat = folder.stat()
    if (place := (stat.st_dev, stat.st_ino)) in above:
        return
    for entry in _visible(folder):
        path = folder / entry.name
        # A path, unlike an entry, takes a link to itself for a link to nowhere.
        if path.is_dir() if entry.is_symlink() else entry.is_dir():
            yield from _walk(path, above | {place})
        else:
            yield path


def entries(folder: pathlib.Path) -> list[pathlib.Path]:
    """Files and folders in a folder, by name, without hidden ones and those of systems.

    Raises:
        NotADirectoryError: it is a file.
    """
    return [folder / entry.name for entry in _visible(folder)]


def _visible(folder: pathlib.Path) -> list[os.DirEntry]:
    # Entries know without a look at each file, slow over a network, whether they are folders.
    try:
        with os.scandir(folder) as found:
            visible = [entry for entry in found if not _is_hidden(entry.name)]
    except NotADirectoryError:
        raise NotADirectoryError(f"{folder} is a file; a folder is expected.") from None
    return sorted(visible, key=lambda entry: entry.name)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _JUNK


def is_dangling(path: pathlib.Path) -> bool:
    """Whether a path is a link whose target does not exist."""
    return path.is_symlink() and not path.exists()


def unicode_name(path: str | os.PathLike) -> str:
    """A path as text that any file can hold, the same under every locale.

    Names on disk are bytes, mostly UTF-8. Python keeps what the locale cannot decode as lone
    surrogates, which no encoder takes; bytes that are not UTF-8 become `\\xe4`.
    """
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")

"""The provider `folder`: photos of a folder in place of generated images."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from clouds_jax import images, provenance
from porting.stages.images.provider import GeneratedImage

_SHOWN = 50  # unreadable files listed in an error


class BadPhotos(ValueError):
    """Files of the folder are not readable as images; the message lists them."""


class Photos:
    """The photos below a folder, sorted by path and rotated according to their EXIF.

    Args:
        path: the folder; environment variables and `~` are expanded.
        count: largest number of photos; 0 for all. None is used twice, since copies would only get
            more weight in training.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    def __init__(self, path: str, *, count: int):
        self._root = Path(os.path.expandvars(path)).expanduser()
        if not path or not self._root.is_dir():
            raise FileNotFoundError(
                f"config.generate.folder.path is {path!r}, which is no folder; the provider"
                " 'folder' takes all photos below the folder that it names. Set it, or the"
                " environment variable in it."
            )
        paths = images.find_images(self._root)
        self._files = [p.relative_to(self._root).as_posix() for p in paths[: count or None]]
        self.notes = []
        if count > len(paths):
            self.notes.append(
                f"{self._root} holds {len(paths):,} photos, config.generate.count is {count:,};"
                " all are taken, none twice"
            )

    @property
    def count(self) -> int:
        """Number of photos."""
        return len(self._files)

    def describe(self) -> dict[str, Any]:
        """All that the pixels depend on besides the files."""
        return {
            "provider": "folder",
            "versions": provenance.versions(["pillow", "opencv-python-headless"]),
        }

    def inputs(self) -> dict[str, str]:
        """SHA-256 over the names, sizes and contents of all photos."""
        digest = hashlib.sha256()
        for name, (size, content) in zip(self._files, self._each(_facts), strict=True):
            digest.update(f"{name}\0{size}\0{content}\n".encode(errors="surrogateescape"))
        return {"photos": digest.hexdigest()}

    def check(self) -> None:
        """Decodes all photos once.

        Raises:
            BadPhotos: some cannot be read.
        """
        faults = [text for text in self._each(_fault) if text]
        if not faults:
            return
        more = f"\n  and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else ""
        raise BadPhotos(
            f"{len(faults):,} of {self.count:,} files below {self._root} are no photos that can be"
            " read; repair or remove them:"
            + "".join(f"\n  {text}" for text in faults[:_SHOWN])
            + more
        )

    def load(self) -> Callable[[Sequence[int]], Iterator[GeneratedImage]]:
        """A function from indices to their photos."""
        return self._read

    def memory(self) -> dict[str, float]:
        """Empty: only host memory is used."""
        return {}

    def _read(self, indices: Sequence[int]) -> Iterator[GeneratedImage]:
        versions = self.describe()["versions"]
        for index in indices:
            name = self._files[index]
            yield GeneratedImage(
                images.read_image(self._root / name),
                {"provider": "folder", "photo": True, "file": name, "versions": versions},
            )

    def _each(self, function: Callable[[Path], Any]) -> list[Any]:
        # reading, hashing and decoding release the GIL, so threads suffice
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            return list(pool.map(function, (self._root / name for name in self._files)))


def _facts(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), content


def _fault(path: Path) -> str:
    try:
        images.read_image(path)
    except (ValueError, OSError) as error:
        return str(error)
    return ""

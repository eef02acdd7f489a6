"""The interface between the generate stage and its sources of images."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from clouds_jax.data.codecs import Image


@dataclasses.dataclass(frozen=True)
class GeneratedImage:
    """An image with its origin.

    Attributes:
        image: RGB image, 0..255, of any size.
        origin: model, prompt, seed and the like, for the image's record.
        counts: numbers that the stage's report sums over all images.
    """

    image: Image
    origin: Mapping[str, Any]
    counts: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Provider(Protocol):
    """A source of images. Holds settings only, so that it can be pickled; `load` does the rest."""

    @property
    def count(self) -> int:
        """Number of images."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Messages for the user, shown before images are generated."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """All that the images depend on besides `inputs`, as plain JSON."""
        ...

    def inputs(self) -> Mapping[str, str]:
        """Name -> digest of each input."""
        ...

    def check(self) -> None:
        """Checks the inputs, which may be slow; called before the first image of a set."""
        ...

    def load(self) -> Callable[[Sequence[int]], Iterator[GeneratedImage]]:
        """Loads the model, which is slow; returns a function from indices to their images."""
        ...

    def memory(self) -> Mapping[str, float]:
        """Peak memory so far in GiB, by device, without the host."""
        ...

"""Where the images of the generate stage come from, seen from the stage."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from clouds_jax.data.codecs import Image


@dataclasses.dataclass(frozen=True)
class Made:
    """An image and what is known of it.

    Attributes:
        image: RGB, 0..255, of any size.
        origin: how it came about, for its record.
        numbers: what the stage's report adds up over all images.
    """

    image: Image
    origin: Mapping[str, Any]
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Provider(Protocol):
    """Settings and no more, so that it travels to another process; `load` makes the rest."""

    @property
    def count(self) -> int:
        """Number of images."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a person should know before images are made."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """All that the images depend on besides `inputs`, as JSON."""
        ...

    def inputs(self) -> Mapping[str, str]:
        """Name -> digest of what is read."""
        ...

    def check(self) -> None:
        """Looks for faults that take long to find; called before the first image of a set."""
        ...

    def load(self) -> Callable[[Sequence[int]], Iterator[Made]]:
        """Loads the model, which is slow, and returns what makes images of their numbers."""
        ...

    def memory(self) -> Mapping[str, float]:
        """Peak memory so far in GiB, by where, besides that of the host."""
        ...

"""An equal part of some work: of the rows of a batch, or of the shards of a set."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Part:
    """One process's share: the items whose number is `index` modulo `count`.

    Attributes:
        index: from 0.
        count: number of parts.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"part {self.index + 1} of {self.count} is none; parts are 1/n to n/n."
            )

    def split(self, index: int, count: int) -> "Part":
        """The `index`-th of `count` parts of this part."""
        return Part(self.index + self.count * index, self.count * count)

    def of(self, total: int) -> range:
        """Its numbers among `range(total)`."""
        return range(self.index, total, self.count)


WHOLE = Part()

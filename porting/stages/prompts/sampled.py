"""The prompts that were selected from sampled texts, with their origin."""

import dataclasses
from collections.abc import Sequence

from porting.stages.prompts import grammar
from porting.stages.prompts.grammar import Sentence
from porting.stages.prompts.selection import Selection


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A selected prompt and its origin.

    Attributes:
        sentence: the parsed prompt.
        line: the line it was parsed from.
        chunk: number of the chunk.
        index: number of the text in the chunk.
    """

    sentence: Sentence
    line: str
    chunk: int
    index: int


@dataclasses.dataclass
class SampledPrompts:
    """Prompts selected from the chunks so far.

    Attributes:
        selection: accepted and rejected lines.
        prompts: selected prompts, in order.
        texts: number of texts that were read.
        sampled: number of those that this process sampled.
        seconds: time that the sampling took.
    """

    selection: Selection
    prompts: list[Prompt] = dataclasses.field(default_factory=list)
    texts: int = 0
    sampled: int = 0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether there are enough prompts."""
        return self.selection.complete

    def add(self, chunk: int, texts: Sequence[str]) -> None:
        """Selects prompts from the texts of a chunk until there are enough."""
        self.texts += len(texts)
        for index, text in enumerate(texts):
            for line in grammar.lines(text):
                if self.complete:
                    return
                if sentence := self.selection.add(line):
                    self.prompts.append(Prompt(sentence, line, chunk, index))

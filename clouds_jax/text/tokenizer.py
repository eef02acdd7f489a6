"""CLIP's tokenizer: byte pair encoding over lower-cased text whose unicode is repaired.

256 bytes, the same 256 as ends of words, 48,894 merges and two marks are 49,408 ids.

Source: the SimpleTokenizer of OpenAI's CLIP (MIT) as open_clip ships it, `clean="lower"`. Its
    vocabulary, a file of merges in order of rank, is read from the installed open_clip_torch.
"""

import functools
import gzip
import html
import importlib.metadata
import os
import pathlib
import zlib
from collections.abc import Sequence

import ftfy
import numpy as np
import regex
from jaxtyping import Int

VOCABULARY = 49_408
CONTEXT = 77
START = "<start_of_text>"
END = "<end_of_text>"

_FILE = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = VOCABULARY - 2 * 256 - 2
_END_OF_WORD = "</w>"
# Marks, English contractions, words, single digits, runs of anything else.
_WORD = regex.compile(
    rf"{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+",
    regex.IGNORECASE,
)


def find_vocabulary(path: str | os.PathLike | None = None) -> pathlib.Path:
    """The file of merges: `path`, or the one in the installed open_clip_torch.

    open_clip itself is not imported, since it would bring PyTorch with it.
    """
    if path is not None:
        file = pathlib.Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such vocabulary; it is called {_FILE}.")
        return file
    try:
        package = importlib.metadata.distribution("open_clip_torch")
    except importlib.metadata.PackageNotFoundError:
        package = None
    if package is not None:
        file = pathlib.Path(str(package.locate_file(f"open_clip/{_FILE}")))
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"CLIP's vocabulary {_FILE} was not found; install open_clip_torch (`pip install --no-deps"
        " open_clip_torch` is enough) or name the file with --vocabulary."
    )


class Tokenizer:
    """Turns texts into ids; the ids of words are cached.

    Args:
        vocabulary: file of merges; None: that of open_clip_torch, see `find_vocabulary`.
        context: number of ids per text.
    """

    def __init__(
        self, vocabulary: str | os.PathLike | None = None, *, context: int = CONTEXT
    ) -> None:
        file = find_vocabulary(vocabulary)
        # the first line is a comment, and the lines after the last merge were never used
        try:
            lines = gzip.decompress(file.read_bytes()).decode().split("\n")[1 : _MERGES + 1]
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise ValueError(f"{file} is no gzipped text of CLIP's merges: {error}") from error
        merges = [tuple(line.split()) for line in lines]
        if len(merges) != _MERGES or any(len(merge) != 2 for merge in merges):
            raise ValueError(f"{file} does not hold CLIP's {_MERGES:,} merges of two parts each.")
        letters = list(_letters().values())
        units = [*letters, *(letter + _END_OF_WORD for letter in letters), *map("".join, merges)]
        self._ids = {unit: i for i, unit in enumerate([*units, START, END])}
        self._ranks = {merge: rank for rank, merge in enumerate(merges)}
        self._words: dict[str, tuple[int, ...]] = {
            mark: (self._ids[mark],) for mark in (START, END)
        }
        self.context = context

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without marks at its ends and of any length."""
        ids: list[int] = []
        for word in _WORD.findall(clean(text)):
            if word not in self._words:
                self._words[word] = tuple(self._ids[unit] for unit in self._units(word))
            ids.extend(self._words[word])
        return ids

    def __call__(self, texts: Sequence[str]) -> Int[np.ndarray, "n t"]:
        """Ids between the two marks, cut to the context (the end mark stays), filled with 0."""
        out = np.zeros((len(texts), self.context), np.int32)
        for row, text in zip(out, texts, strict=True):
            ids = [self._ids[START], *self.encode(text)][: self.context - 1]
            row[: len(ids) + 1] = [*ids, self._ids[END]]
        return out

    def _units(self, word: str) -> list[str]:
        """The units of a word: neighbours are merged, the pair of lowest rank first."""
        letters = _letters()
        units = [letters[byte] for byte in word.encode()]
        units[-1] += _END_OF_WORD
        while len(units) > 1:
            pairs = set(zip(units[:-1], units[1:], strict=True))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            joined: list[str] = []
            for unit in units:  # left to right, so of `aaa` the first two
                if joined and (joined[-1], unit) == best:
                    joined[-1] += unit
                else:
                    joined.append(unit)
            units = joined
        return units


def clean(text: str) -> str:
    """Repaired unicode, no HTML entities (also doubly escaped ones), single spaces, lower case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


@functools.cache
def _letters() -> dict[int, str]:
    """A printable character for every byte, in the order of the vocabulary.

    Printable bytes of Latin-1 stand for themselves and come first; the others, among them space
    and the soft hyphen, are moved beyond the 256.
    """
    own = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in own]
    return {byte: chr(byte) for byte in own} | {byte: chr(256 + i) for i, byte in enumerate(moved)}

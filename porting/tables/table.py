"""What a rule table says about itself."""

import dataclasses

from porting.tables.rules import Rule


@dataclasses.dataclass(frozen=True)
class Table:
    """The rules of one family of checkpoints.

    Attributes:
        name: of the family, as in `python -m porting convert <name>`.
        rules: see `porting.tables.rules`; the targets begin with `encoder.`, `text.`, `head.` or
            `sam.`.
        source: whose files these are.
        licence: of the weights, as far as their makers say.
        encoders: the encoders of ours, or the SAMs, that such files may hold; empty for heads or
            decoders alone.
        clip_prefix: what stands before the names of CLIP in the family's files, for those that may
            lack it (`convert --clip`); empty where there is no CLIP, or the file is nothing else.
        version: raised whenever the same file would convert to other numbers.
    """

    name: str
    rules: tuple[Rule, ...]
    source: str
    licence: str
    encoders: tuple[str, ...] = ()
    clip_prefix: str = ""
    version: int = 1

"""A rule table: rules, source and licence of one family of checkpoints."""

import dataclasses

from porting.tables.rules import Rule


@dataclasses.dataclass(frozen=True)
class Table:
    """The rules of one family of checkpoints.

    Attributes:
        name: name of the family, as in `python -m porting convert <name>`.
        rules: the rules; their targets begin with `encoder.`, `text.`, `head.` or `sam.`.
        source: origin of the files.
        licence: licence of the weights, as far as their authors state it.
        encoders: names in `ENCODERS` or `SAMS` of the models in such files; empty for heads or
            decoders alone.
        clip_prefix: prefix of CLIP's names in the family's files, where a file may lack CLIP
            (`convert --clip`); empty where there is no CLIP, or nothing else.
        version: raised when the same file would convert to other values.
    """

    name: str
    rules: tuple[Rule, ...]
    source: str
    licence: str
    encoders: tuple[str, ...] = ()
    clip_prefix: str = ""
    version: int = 1

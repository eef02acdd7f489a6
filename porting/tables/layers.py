"""Rules of common layers: a weight and usually a bias.

`at` is appended to the target: the row of a stacked target in brackets, or nothing.
"""

import re
from collections.abc import Callable

from porting.tables.layouts import Layout, linear
from porting.tables.rules import Rule

_COUNT = "counts training batches; frozen batch norm has no use for it"
# our name -> end of torch's name
TORCH_NORM = {
    "scale": r"\.weight",
    "bias": r"\.bias",
    "mean": r"\.running_mean",
    "var": r"\.running_var",
}


def norm(source: str, target: str, at: str = "") -> tuple[Rule, ...]:
    """Rules of a LayerNorm or GroupNorm."""
    return (
        Rule(source + r"\.weight", f"{target}.scale{at}"),
        Rule(source + r"\.bias", f"{target}.bias{at}"),
    )


def dense(source: str, target: str, layout: Layout = linear, at: str = "") -> tuple[Rule, ...]:
    """Rules of a linear layer or convolution with bias."""
    return (
        Rule(source + r"\.weight", f"{target}.kernel{at}", layout),
        Rule(source + r"\.bias", f"{target}.bias{at}"),
    )


def batch_norm(
    source: str,
    target_of: Callable[[str], str | Callable[[re.Match], str]],
    endings: dict[str, str] = TORCH_NORM,
) -> tuple[Rule, ...]:
    """Rules of a batch norm: its four arrays, and torch's counter.

    Args:
        source: pattern of the norm's name.
        target_of: "scale", "bias", "mean" or "var" -> target.
        endings: the same four -> end of the name after `source`.
    """
    return (
        *(Rule(source + ending, target_of(part)) for part, ending in endings.items()),
        Rule(source + r"\.num_batches_tracked", None, why=_COUNT),
    )

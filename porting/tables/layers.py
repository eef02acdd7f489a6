"""Rules that every table needs: a layer is a weight and mostly a bias.

`at` is what follows the target's last name: the row of a stacked target, or nothing.
"""

import re
from collections.abc import Callable

from porting.tables.layouts import Layout, linear
from porting.tables.rules import Rule

_COUNT = "counts training batches; frozen batch norm has no use for it"
# ours -> how torch's names end
TORCH_NORM = {
    "scale": r"\.weight",
    "bias": r"\.bias",
    "mean": r"\.running_mean",
    "var": r"\.running_var",
}


def norm(source: str, target: str, at: str = "") -> tuple[Rule, ...]:
    """LayerNorm or GroupNorm."""
    return (
        Rule(source + r"\.weight", f"{target}.scale{at}"),
        Rule(source + r"\.bias", f"{target}.bias{at}"),
    )


def dense(source: str, target: str, layout: Layout = linear, at: str = "") -> tuple[Rule, ...]:
    """Linear layer or convolution with bias."""
    return (
        Rule(source + r"\.weight", f"{target}.kernel{at}", layout),
        Rule(source + r"\.bias", f"{target}.bias{at}"),
    )


def batch_norm(
    source: str,
    place: Callable[[str], str | Callable[[re.Match], str]],
    endings: dict[str, str] = TORCH_NORM,
) -> tuple[Rule, ...]:
    """The four arrays of a batch norm, and torch's counter.

    Args:
        source: pattern of the norm's name.
        place: "scale", "bias", "mean" or "var" -> target.
        endings: the same four -> what follows `source`.
    """
    return (
        *(Rule(source + ending, place(part)) for part, ending in endings.items()),
        Rule(source + r"\.num_batches_tracked", None, why=_COUNT),
    )

"""Rules that every table needs: a layer is a weight and mostly a bias.

`at` is what follows the target's last name: the row of a stacked target, or nothing.
"""

from porting.layouts import Layout, linear
from porting.rules import Rule


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

"""Figure 1 of the paper: average mIoU of methods trained on GTA5, over the years.

The rows are those of Table 1, and so are their results.

    python -m experiments.run figure_overview --show
"""

from pathlib import Path

from experiments import figures
from experiments.table_gta import TABLE

__all__ = ["RESULTS", "TABLE", "draw"]

RESULTS = "table_gta"  # where the results of its rows are
_CLOUDS = 2024.45  # CVPR 2024


def draw(results: Path, to: Path) -> None:
    """Draws the figure."""
    figures.over_time(results, RESULTS, TABLE, "average", year=_CLOUDS, to=to)

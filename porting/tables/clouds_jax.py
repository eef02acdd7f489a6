"""Our own weights: every array under its own name, to be written again, e.g. in another dtype."""

from porting.tables.rules import Rule
from porting.tables.table import Table

NAME = "clouds_jax"

TABLE = Table(
    name=NAME,
    rules=(Rule("(.+)", r"\1"),),
    source="a weights folder, or a run with checkpoints",
    licence="that of the folder's own provenance",
)

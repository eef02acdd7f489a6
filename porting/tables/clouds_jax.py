"""Weights of ours: every array under its own name, to be written again, in another dtype say."""

from porting.tables.rules import Rule
from porting.tables.table import Table

NAME = "clouds_jax"

TABLE = Table(
    name=NAME,
    rules=(Rule("(.+)", r"\1"),),
    source="a folder of our weights, or a run with checkpoints",
    licence="that of the folder's own provenance",
)

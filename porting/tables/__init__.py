"""One rule table per family of checkpoints, by name."""

from porting.tables import efficientnet_lite0
from porting.tables.table import Table

TABLES: dict[str, Table] = {table.name: table for table in (efficientnet_lite0.TABLE,)}


def get_table(name: str) -> Table:
    """The table of a family; an unknown name is answered with the known ones."""
    if name not in TABLES:
        raise KeyError(f"TABLES has no {name!r}; it has: {', '.join(TABLES)}.")
    return TABLES[name]

"""Procedural street scenes with exact labels, in named appearance domains."""

from clouds_jax.data.streets.domains import DOMAINS, City, Condition, Domain
from clouds_jax.data.streets.render import render

__all__ = ["DOMAINS", "City", "Condition", "Domain", "render"]

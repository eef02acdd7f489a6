"""Procedural street scenes with exact labels, in named appearance domains."""

from clouds_jax.streets.domains import DOMAINS, City, Condition, Domain
from clouds_jax.streets.render import render

__all__ = ["DOMAINS", "City", "Condition", "Domain", "render"]

"""Releases: the content-addressed closure of what decides an agent's behaviour. Pure.

`compile_fleet` makes them, `parse_document` reads them back, `run_spec` runs them.
"""

from reconciler.release.compile import compile_agent, compile_fleet, variant
from reconciler.release.model import (
    FORMAT,
    BadRelease,
    Release,
    changed_leaves,
    parse_document,
    release_of,
    root_hash,
)
from reconciler.release.runspec import (
    ceiling_of,
    roles,
    run_spec,
    safety_checks,
)

__all__ = [
    "FORMAT",
    "BadRelease",
    "Release",
    "ceiling_of",
    "changed_leaves",
    "compile_agent",
    "compile_fleet",
    "parse_document",
    "release_of",
    "roles",
    "root_hash",
    "run_spec",
    "safety_checks",
    "variant",
]

"""Releases: the content-addressed closure of what decides an agent's behaviour. Pure.

`compile_loaded` makes those of a commit, `parse_document` reads them back, `run_spec` runs them.
"""

from reconciler.release.compile import compile_agent, compile_fleet, variant
from reconciler.release.compiled import Compiled, compile_loaded
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
    "Compiled",
    "Release",
    "ceiling_of",
    "changed_leaves",
    "compile_agent",
    "compile_fleet",
    "compile_loaded",
    "parse_document",
    "release_of",
    "roles",
    "root_hash",
    "run_spec",
    "safety_checks",
    "variant",
]

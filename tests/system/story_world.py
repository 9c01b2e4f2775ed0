"""A world like the demo's, with a fleet that needs no evals: for tests that are about the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.config.lockfile import edit
from reconciler.demo.world import World, build
from reconciler.source.mirror import Mirror


@contextmanager
def ungated_world(folder: Path) -> Iterator[World]:
    """Three loops, none gated: a commit is live after one tick."""
    with build(folder, dict(os.environ), model=None) as world:
        world.quiet = True
        work = folder / "config-work"
        edit(work / "agents" / "ci-triage" / "agent.yaml", ("agent", "rollout"), "ungated")
        world.push(work, "ci-triage: ungated, for a test")
        yield world


def mirror(world: World, name: str = "look") -> Mirror:
    """A fresh clone of the config repo, to look at what is in git."""
    return Mirror.open_or_clone(str(world.config), world.folder / f"{name}.git")

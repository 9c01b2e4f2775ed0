"""From a commit to a declaration, going on from the commit before: git in, values out.

Everything is incremental by identity: what a commit does not touch is the very same object as at
the commit before, whatever the size of the fleet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.values import AgentName
from reconciler import release
from reconciler.config.load import load
from reconciler.config.versions import NO_HISTORY
from reconciler.findings import Finding
from reconciler.source.errors import SourceError
from reconciler.source.objects import CommitId, ObjectId
from reconciler.source.tree import LinkedTree
from reconciler.tick.context import Context, Declared
from reconciler.tick.versions import grow

EARLIER = 8
"""Earlier commits that are kept compiled, for agents that wait or are broken."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """One commit after compiling; `found` is None when nothing of it may be acted upon.

    `changed` are the agents that are declared otherwise than at the commit that was asked for
    before; None is everyone, when there is none.
    """

    found: Declared | None
    findings: tuple[Finding, ...]
    changed: frozenset[AgentName] | None = None
    whole: release.Compiled | None = None


def compile_head(context: Context, commit: str) -> Compiled:
    """Compile a commit of the watched branch, going on from the one that was acted upon last.

    It becomes that one only when it has been acted upon (`context.compiled`). If it were sooner,
    what a commit changes that is then passed over would be no news at the next.
    """
    head = CommitId(ObjectId(commit))
    with_history(context, head)
    compiled = compile_tree(context, context.config.tree(head), commit)
    if context.declared is None:
        context.compiled = compiled.whole  # nothing is acted upon yet: everybody is news anyway
    return compiled


def with_history(context: Context, head: CommitId) -> None:
    """Have the index of versions follow the branch; a problem of it is one of this tick."""
    try:
        growth = grow(
            context.database,
            context.config,
            branch=context.branch,
            head=head,
            now=context.clock.now(),
            previous=context.history,
        )
    except SourceError as error:
        context.problems.append(f"the index of versions was not brought up to date: {error}")
        return
    context.history = growth.history
    context.problems += growth.problems


def compile_tree(context: Context, tree: LinkedTree, commit: str) -> Compiled:
    """Load and compile the files of a commit, or of a merge. Reads git and nothing else."""
    before = context.compiled
    loaded = load(
        tree,
        history=context.history or NO_HISTORY,
        previous=before.loaded if before is not None else None,
    )
    whole = release.compile_loaded(loaded, previous=before)
    if whole.fleet is None:
        return Compiled(None, whole.findings, whole=whole)
    usable = whole.fleet.agents
    if len(whole.releases) != len(usable):  # or they are the same: a release is of an agent
        usable = {name: agent for name, agent in usable.items() if name in whole.releases}
    found = Declared(
        commit=commit,
        tree=tree,
        fleet=whole.fleet
        if len(usable) == len(whole.fleet.agents)
        else replace(whole.fleet, agents=usable),
        releases=whole.releases,
        sentinels=whole.sentinels,
        broken=whole.broken,
        findings=whole.findings,
    )
    known = before is not None and (before.fleet is not None or before.before is not None)
    return Compiled(found, whole.findings, whole.changed if known else None, whole)


def at(context: Context, commit: str) -> Declared | None:
    """An earlier commit of the branch, compiled: how agents were that keep what they were.

    None when the mirror has lost it, or when its shared files are in error.
    """
    if commit not in context.earlier:
        known = context.config.resolve(commit)
        compiled = compile_tree(context, context.config.tree(known), commit) if known else None
        context.earlier[commit] = compiled.found if compiled is not None else None
        while len(context.earlier) > EARLIER:
            context.earlier.pop(next(iter(context.earlier)))
    return context.earlier[commit]

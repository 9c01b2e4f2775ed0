"""The plan of two commits of a repository on this machine, or of a commit and a work directory.

Here `live` is the base: what stands on the branch that a change would be merged into. What is
really in force may be older (something waits, or was rolled back); the plan that the reconciler
puts on a pull request compares with that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway.backtest import Side as Policies
from gateway.database import Transaction
from gateway.values import Millis
from reconciler.config import Fleet, Loaded
from reconciler.config.history import SHALLOW, GitHistory
from reconciler.config.load import load
from reconciler.config.versions import NoHistory
from reconciler.findings import Finding, Severity, quoted, tidy
from reconciler.operations.outcome import Refused
from reconciler.plan import Plan, Side, collisions_of, diff, side_of
from reconciler.plan.backtest import Backtest, enforced_differs, policies_of
from reconciler.plan.render import comment, terminal
from reconciler.record.recorded import replay
from reconciler.release import compile_fleet
from reconciler.source.local import LocalRepository
from reconciler.source.objects import CommitId
from reconciler.source.tree import DirectoryTree, LinkedTree

__all__ = ["Planned", "backtest", "comment", "plan", "terminal"]

WORK_DIRECTORY = "work directory"
MOST_ASKED = 1_000_000
"""Calls that are replayed at most when somebody says how far to look back."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, with what it compares. `plan` is None when the change cannot be read at all; then
    the errors among `findings` say why. `unlocked` are images without a digest in interlock.lock,
    taken to be the same on both sides."""

    base: str
    head: str
    plan: Plan | None
    findings: tuple[Finding, ...]
    unlocked: tuple[str, ...] = ()
    policies: tuple[Policies, Policies] | None = field(default=None, repr=False)
    """What the gateway would be told by both."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps something of the change from going live."""
        return tuple(one for one in self.findings if one.severity is Severity.ERROR)

    @property
    def failed(self) -> bool:
        """Whether it is a no: something is in error, collides, or could leak data."""
        return bool(self.errors) or (self.plan is not None and bool(self.plan.failing))

    @property
    def asked(self) -> bool:
        """Whether somebody has to approve something."""
        return self.plan is not None and bool(self.plan.subjects)


def plan(directory: Path, *, base: str | None = None, head: str | None = None) -> Planned:
    """Compare `base` (by default the default branch) with `head` (by default the work directory's
    content, or HEAD where there is none).

    Raises Refused when `directory` is no git repository, a ref is unknown, or the base itself is in
    error: nothing can be compared with it.
    """
    repository = LocalRepository.open(directory)
    if repository is None:
        raise Refused(
            f"{directory} is not the top of a git repository; a plan compares two commits, "
            "`interlock validate` checks one directory"
        )
    name = base or repository.default_branch()
    if name is None:
        raise Refused(f"{directory} has no commit yet; there is nothing to compare with")
    commit = _resolve(repository, name)
    line = repository.line(commit)
    # Versions are judged by what the branch has released, for both sides.
    history = GitHistory(line) if line is not None else NoHistory(SHALLOW)
    before = load(repository.tree(commit), history=history)
    if before.fleet is None:
        first = next((f for f in before.findings if f.severity is Severity.ERROR), None)
        raise Refused(f"{name} is in error itself, nothing can be compared with it: {first}")
    after_commit, after_tree, shown = _head(repository, directory, head)
    after = load(after_tree, history=history, previous=before)
    if after.fleet is None:
        return Planned(name, shown, None, after.findings)
    unlocked = tuple(sorted({*_unlocked(before.fleet), *_unlocked(after.fleet)}))
    live = _side(before, str(commit), unlocked)
    desired = _side(after, after_commit, unlocked)
    found = diff(live, desired)
    compiled = [one for findings in found.broken.values() for one in findings]
    before_policies = policies_of(before.fleet)
    after_policies = policies_of(after.fleet, broken=found.broken, live=before_policies)
    return Planned(
        name,
        shown,
        found,
        tidy([*after.findings, *compiled]),
        unlocked,
        (before_policies, after_policies),
    )


def backtest(
    planned: Planned, tx: Transaction, *, now: Millis, back: int | None = None
) -> Backtest | None:
    """What recent calls of this store say of the change.

    None when nothing that the gateway enforces changes, unless `back` (milliseconds) says how far
    to look back anyway; when there is no plan; or when there were no calls.
    """
    if planned.plan is None or planned.policies is None:
        return None
    before, after = planned.policies
    if back is None and not enforced_differs(before, after, planned.plan):
        return None
    if back is None:
        return replay(tx, before, after, now=now)
    return replay(tx, before, after, now=now, back=back, most=MOST_ASKED)


def _head(
    repository: LocalRepository, directory: Path, head: str | None
) -> tuple[str | None, LinkedTree, str]:
    """(commit, tree, how it is called) of the desired side."""
    if head is None and not repository.bare:
        return None, DirectoryTree(directory), WORK_DIRECTORY
    name = head or "HEAD"
    commit = _resolve(repository, name)
    return str(commit), repository.tree(commit), name


def _resolve(repository: LocalRepository, name: str) -> CommitId:
    commit = repository.resolve(name)
    if commit is None:
        raise Refused(f"there is no branch, tag or commit {quoted(name)} here; fetch it first")
    return commit


def _side(loaded: Loaded, commit: str | None, unlocked: tuple[str, ...]) -> Side:
    assert loaded.fleet is not None
    images = {name: f"unlocked:{name}" for name in unlocked}
    releases = compile_fleet(loaded.fleet, images=images)
    side = side_of(loaded.fleet, releases, loaded.broken, commit)
    return replace(side, collisions=collisions_of(loaded.fleet))


def _unlocked(fleet: Fleet) -> set[str]:
    """Names of images whose digest only a machine knows that has them."""
    return {agent.sandbox.image for agent in fleet.agents.values()} - set(fleet.images)
